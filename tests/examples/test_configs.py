"""Each flagfile parses, says what its name says, and is ready to run.

One of them is run to its end by `test_train.py`.
"""

import functools
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import flags

import keras_incremental as ki
from keras_incremental.scenarios.tfds_source import TfdsImages

CONFIGS = pathlib.Path(__file__).parents[2] / "examples" / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.flags"))
CIFAR100 = {
    "eeil_cifar100": 10,
    "eeil_cifar100_authors": 10,
    "eeil_cifar100_5": 5,
    "eeil_cifar100_20": 20,
    "eeil_cifar100_50": 50,
}
# Partial network sharing: classes of each task.
SPLITS = {
    "sharing_digits": [4, 3, 3],
    "sharing_cifar10": [4, 3, 3],
    "sharing_cifar100": [50, *[10] * 5],
    "sharing_cifar100_10": [10],
    "sharing_imagenet": [500, *[100] * 5],
}
PAPER = {
    "method": "eeil",
    "epochs": 40,
    "finetune_epochs": 30,
    "batch_size": 128,
    "learning_rate": 0.1,
    "learning_rate_decay_every": 10,
    "learning_rate_decay_factor": 0.1,
    "finetune_learning_rate": 0.01,
    "weight_decay": 1e-4,
    "temperature": 2.0,
    "distillation": True,
    "gradient_noise": "text",
    "selection": "herding",
}
AUGMENTATIONS = {
    "none": type(None),
    "crop_flip": ki.augmentation.CropFlip,
    "eeil": ki.augmentation.EEILAugmentation,
    "eeil_stored": ki.augmentation.StoredEEILAugmentation,
    "eeil_imagenet": ki.augmentation.ImageNetEEILAugmentation,
}
# The papers' CIFAR-100 recipes of one stage: epochs, rate, decays, L2.
ONE_STAGE = {
    **dict.fromkeys(
        ("icarl", "hybrid1", "lwf_mc"), (70, 2.0, (49, 63), 0.2, 2e-5)
    ),
    "bic": (250, 0.1, (100, 150, 200), 0.1, 2e-4),
    "wa": (250, 0.1, (100, 150, 200), 0.1, 1e-4),
    "ssil": (100, 0.1, (40, 80), 0.1, 1e-4),
    "replay": (70, 0.05, (35, 52), 0.1, 5e-4),
}
ICARLS = ("icarl", "hybrid1", "lwf_mc")
SMALL = {
    **dict.fromkeys(
        (
            "finetune",
            "joint",
            "wa",
            "bic",
            "ssil",
            "replay",
            "replay_aligned",
            "replay_jpeg",
        ),
        ("resnet32", 0.02),
    ),
    **dict.fromkeys(ICARLS, ("resnet32_icarl", 0.5)),
}
NOISE = {
    None: None,
    "text": ki.methods.GradientNoise(is_variance=True),
    "code": ki.methods.GradientNoise(is_variance=False),
}
MOCKED_IMAGES = {
    "cifar10": (10, (32, 32, 3)),
    "cifar100": (100, (32, 32, 3)),
    "imagenet2012": (1000, (40, 36, 3)),
}


def flagfile(name):
    return f"--flagfile={CONFIGS / name}.flags"


def sizes_of_tasks(num_classes):
    """The number of classes of each task."""
    sizes = [int(size) for size in flags.FLAGS["classes_per_task"].value]
    return sizes if len(sizes) > 1 else num_classes // sizes[0] * sizes


def values(names):
    return {name: flags.FLAGS[name].value for name in names}


def in_effect(train, names):
    """The same, with the method's defaults where a flag is not given."""
    of_method = train.method_flags.settings(train.make_method())
    return {name: (values([name]) | of_method)[name] for name in names}


@functools.cache
def plain_images(classes, shape):
    """Two plain PNG images of each class."""

    def example(index):
        grey = tf.cast(index % 256, "uint8")
        return {
            "image": tf.io.encode_png(tf.fill(shape, grey)),
            "label": index % classes,
        }

    return tf.data.Dataset.range(2 * classes).map(example)


def mocked(classes, shape):
    """Mocks TFDS by the same images in each split."""

    def as_dataset(self, *args, **kwargs):
        del self, args, kwargs
        return plain_images(classes, shape)

    return tfds.testing.mock_data(as_dataset_fn=as_dataset)


def test_there_is_a_flagfile_for_each_experiment():
    assert set(NAMES) >= {
        *CIFAR100,
        "eeil_cifar10",
        "eeil_cifar10_small",
        "eeil_digits",
        "eeil_imagenet",
        "finetune_digits",
        "joint_digits",
        *SPLITS,
        *(f"{name}_cifar100" for name in ONE_STAGE),
        *(f"{name}_cifar10_small" for name in SMALL),
        "eeil_balanced_softmax_cifar10_small",
    }


@pytest.mark.parametrize("name", NAMES)
def test_flagfile_parses_and_starts_with_a_comment(name, parse):
    assert parse(flagfile(name)) == ["train.py"]
    assert (CONFIGS / f"{name}.flags").read_text().startswith("# ")
    prefix = flags.FLAGS["method"].value.removeprefix("partial_")
    assert name.startswith(f"{prefix}_")


def test_unknown_flag_in_a_flagfile_is_refused(parse, tmp_path):
    wrong = tmp_path / "wrong.flags"
    wrong.write_text("--dataset=digits\n--epoch_count=3\n")
    with pytest.raises(flags.UnrecognizedFlagError, match="epoch_count"):
        parse(f"--flagfile={wrong}")


def test_flags_after_a_flagfile_override_it(parse):
    parse(flagfile("eeil_cifar100"), "--epochs=3")
    assert flags.FLAGS["epochs"].value == 3


@pytest.mark.parametrize(("name", "classes"), CIFAR100.items())
def test_cifar100_flagfiles_hold_the_recipe_of_the_paper(
    name, classes, parse, train
):
    parse(flagfile(name))
    expected = {
        **PAPER,
        "dataset": "cifar100",
        "backbone": "resnet32",
        "memory": 2000,
        "classes_per_task": [str(classes)],
        "augment": "eeil_stored",
        "finetune_augmented": True,
        "first_epochs": None,
        "first_augment": "none",
    }
    if name.endswith("_authors"):
        expected |= {
            "gradient_noise": "code",
            "first_epochs": 100,
            "first_augment": "crop_flip",
        }
    assert in_effect(train, expected) == expected


@pytest.mark.parametrize("name", ONE_STAGE)
def test_recipes_of_one_stage_are_those_of_the_papers(name, parse, train):
    parse(flagfile(f"{name}_cifar100"))
    epochs, rate, at, factor, decay = ONE_STAGE[name]
    expected = {
        "epochs": epochs,
        "learning_rate": rate,
        "weight_decay": decay,
        "batch_size": 32 if name == "wa" else 128,
        "augment": "crop_flip",
        "memory": None if name == "lwf_mc" else 2000,
        "backbone": "resnet32_icarl" if name in ICARLS else "resnet32",
    }
    assert values(expected) == expected
    method = train.make_method()
    factors = [method.learning_rate_factor(epoch) for epoch in range(epochs)]
    assert factors == pytest.approx(
        [factor ** sum(e >= start for start in at) for e in range(epochs)]
    )
    if name in ICARLS:
        assert method.total_classes == 100


@pytest.mark.parametrize("name", SMALL)
def test_small_siblings_differ_from_eeil_in_method_and_training(
    name, parse, train
):
    shared = [
        "dataset",
        "classes_per_task",
        "class_order",
        "samples_per_class",
        "batch_size",
        "augment",
    ]
    parse(flagfile("eeil_cifar10_small"))
    expected = values(shared)
    parse(flagfile(f"{name}_cifar10_small"))
    assert values(shared) == expected
    assert values(["epochs", "weight_decay", "backbone", "learning_rate"]) == {
        "epochs": 22,
        "weight_decay": 5e-4,
        **dict(zip(["backbone", "learning_rate"], SMALL[name], strict=True)),
    }
    factor = train.make_method().learning_rate_factor
    assert [factor(e) for e in (10, 11, 16, 17)] == pytest.approx(
        [1, 0.1, 0.1, 0.01]
    )


def test_special_siblings_set_what_they_are_named_after(parse, train):
    parse(flagfile("eeil_balanced_softmax_cifar10_small"))
    assert train.make_method().classification == (
        ki.objectives.BalancedSoftmax()
    )
    parse(flagfile("replay_aligned_cifar10_small"))
    assert train.make_method().align
    parse(flagfile("replay_jpeg_cifar10_small"))
    assert isinstance(
        train.make_memory(train.make_method()).storage, ki.exemplars.JpegStorage
    )
    parse(flagfile("joint_cifar10_small"))
    assert train.make_method().from_scratch


@pytest.mark.slow
def test_network_of_icarl_has_features_of_both_signs(parse, train):
    parse("--backbone=resnet32_icarl")
    network = train.make_backbone((8, 8, 3))
    plain = ki.backbones.resnet32((8, 8, 3))
    assert network.count_params() == plain.count_params()
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3))
    assert np.min(network(images)) < 0 <= np.min(plain(images))


def test_imagenet_flagfile_holds_the_recipe_of_the_paper(parse, train):
    parse(flagfile("eeil_imagenet"))
    expected = {
        **PAPER,
        "dataset": "imagenet2012",
        "image_size": 224,
        "backbone": "resnet18",
        "memory": 20000,
        "classes_per_task": ["100"],
        "augment": "eeil_imagenet",
        "finetune_augmented": False,
        "first_epochs": 60,
    }
    assert in_effect(train, expected) == expected


def test_the_upper_bound_is_trained_from_scratch(parse, train):
    parse(flagfile("joint_digits"))
    assert train.make_method() == ki.Joint(from_scratch=True)


@pytest.mark.parametrize("name", ["finetune_digits", "joint_digits"])
def test_baselines_differ_from_eeil_in_the_method_alone(name, parse, train):
    shared = [
        "dataset",
        "classes_per_task",
        "class_order",
        "backbone",
        "epochs",
        "batch_size",
        "learning_rate",
        "learning_rate_decay_every",
        "weight_decay",
        "augment",
    ]
    parse(flagfile("eeil_digits"))
    expected = in_effect(train, shared)
    parse(flagfile(name))
    assert in_effect(train, shared) == expected


@pytest.mark.parametrize(("name", "sizes"), SPLITS.items())
def test_sharing_flagfiles_name_split_branch_point_and_memory(
    name, sizes, parse
):
    parse(flagfile(name))
    assert flags.FLAGS["method"].value == "partial_sharing"
    assert flags.FLAGS["classes_per_task"].value == [*map(str, sizes)]
    assert flags.FLAGS["branch_at"].value.startswith("stage")
    assert flags.FLAGS["memory"].value >= sum(sizes)


def network_of_stages(input_shape, kernel_regularizer=None, enlarge=1):
    """Any network with the layers that flagfiles name; built in no time."""
    del enlarge
    names = []
    for stage, blocks in enumerate([1, 2, 2, 3, 3, 4, 1], start=1):
        if flags.FLAGS["pooled_layers"].value:
            names += [f"stage{stage}_block{n + 1}_out" for n in range(blocks)]
        names.append(f"stage{stage}")
    dense = [
        keras.layers.Dense(4, kernel_regularizer=kernel_regularizer, name=name)
        for name in names
    ]
    return keras.Sequential(
        [keras.Input(input_shape), keras.layers.Flatten(), *dense]
    )


@pytest.fixture(scope="module")
def scanned_once():
    """The labels of a split of mocked data are read for the first flagfile."""
    scan, found = TfdsImages._scan, {}

    def scan_once(images):
        key = images._builder.name, images._split
        if key not in found:
            found[key] = scan(images)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TfdsImages, "_scan", scan_once)
        yield


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("_digits")])
def test_flagfile_on_digits_is_ready_to_run(name, parse, train):
    parse(flagfile(name))
    experiment = train.make_experiment()
    assert experiment.model.input_shape == (None, 8, 8, 1)
    check_experiment(experiment)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in NAMES if not n.endswith("_digits")]
)
@pytest.mark.usefixtures("scanned_once")
def test_flagfile_on_tfds_is_ready_to_run_on_mocked_data(
    name, parse, train, monkeypatch
):
    parse(flagfile(name))
    # Of the network the name alone is tried.
    backbone = flags.FLAGS["backbone"].value
    monkeypatch.setattr(train, "BACKBONES", {backbone: network_of_stages})
    with mocked(*MOCKED_IMAGES[flags.FLAGS["dataset"].value]):
        experiment = train.make_experiment()
    size = flags.FLAGS["image_size"].value or 32
    assert experiment.model.input_shape == (None, size, size, 3)
    assert experiment.scenario.image_spec.shape == (size, size, 3)
    check_experiment(experiment)


def check_experiment(experiment):
    """Checks that an experiment is what the flags say."""
    scenario = experiment.scenario  # its tasks would read the images
    sizes = sizes_of_tasks(scenario.num_classes)
    assert f"classes_per_task={sizes}" in repr(scenario)
    given = values(["epochs", "batch_size", "method", "seed"])
    assert {name: getattr(experiment, name) for name in given} == given
    check_method(experiment)
    augment = experiment.incremental.augment
    assert type(augment) is AUGMENTATIONS[flags.FLAGS["augment"].value]
    memory = experiment.incremental.memory
    capacity = None if memory is None else memory.capacity
    assert capacity == flags.FLAGS["memory"].value
    optimizer = experiment.model.optimizer
    assert float(optimizer.learning_rate) == pytest.approx(
        flags.FLAGS["learning_rate"].value
    )
    assert optimizer.weight_decay is None
    head = experiment.model.network.head
    decay = 2 * float(head.kernel_regularizer.l2)  # the gradient of l w^2
    assert decay == pytest.approx(flags.FLAGS["weight_decay"].value)


def check_method(experiment):
    """Checks that method and branch point are what the flags say."""
    method = experiment.incremental.method
    name = flags.FLAGS["method"].value
    assert type(method) is type(ki.methods.BY_NAME[name])
    branch_at = flags.FLAGS["branch_at"].value
    assert experiment.model.branch_at == (
        0.0 if branch_at == "0" else branch_at
    )
    decay = values(
        f"learning_rate_decay_{part}" for part in ("every", "factor", "at")
    )
    every, factor, at = decay.values()
    assert method.learning_rate_factor == ki.methods.StepDecay(
        every or 10, factor or 0.1, at and tuple(map(int, at))
    )
    for field in ("finetune_epochs", "copies"):
        if flags.FLAGS[field].value is not None:
            assert getattr(method, field) == flags.FLAGS[field].value
    if name == "eeil":
        rate = flags.FLAGS["finetune_learning_rate"].value
        fraction = rate / flags.FLAGS["learning_rate"].value if rate else 0.1
        assert method.finetune_learning_rate == pytest.approx(fraction)
        noise = flags.FLAGS["gradient_noise"].value
        assert method.gradient_noise == NOISE[noise]
