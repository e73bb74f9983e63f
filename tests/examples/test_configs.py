"""Each flagfile parses, says what its name says, and starts to train."""

import pathlib

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import flags

CONFIGS = pathlib.Path(__file__).parents[2] / "examples" / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.flags"))
CIFAR100 = {
    "eeil_cifar100": 10,
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
# Small enough for seconds; what is augmented, added and decayed stays.
SMALL = [
    "--backbone=small",
    "--epochs=1",
    "--finetune_epochs=1",
    "--samples_per_class=1",
]
MOCKED_IMAGES = {
    "cifar10": (10, (32, 32, 3)),
    "cifar100": (100, (32, 32, 3)),
    "imagenet2012": (1000, (40, 36, 3)),
}


def flagfile(name):
    return f"--flagfile={CONFIGS / name}.flags"


def first_two_sizes():
    """The number of classes of the first two tasks."""
    sizes = [int(size) for size in flags.FLAGS["classes_per_task"].value]
    return sizes[:2] if len(sizes) > 1 else 2 * sizes


def check_branch(entry):
    """The entry of a task that added a branch to a base, with a memory."""
    assert entry.keys() >= {
        "accuracy",
        "uncalibrated_accuracy",
        "task_aware_accuracy",
        "clone_source",
        "similarity",
        "calibrated",
    }
    assert entry["calibrated"] is True
    assert entry["clone_source"] == 0
    assert 0 < entry["similarity"] <= 1
    assert len(entry["task_aware_accuracy"]) == 2
    for aware, among_all in zip(
        entry["task_aware_accuracy"], entry["per_task_accuracy"], strict=True
    ):
        assert 0 <= among_all <= aware <= 1


def values(names):
    return {name: flags.FLAGS[name].value for name in names}


def mocked(classes, shape):
    """Mocks TFDS by two plain PNG images of each class in each split."""

    def example(index):
        grey = tf.cast(index % 256, "uint8")
        return {
            "image": tf.io.encode_png(tf.fill(shape, grey)),
            "label": index % classes,
        }

    def as_dataset(self, *args, **kwargs):
        del self, args, kwargs
        return tf.data.Dataset.range(2 * classes).map(example)

    return tfds.testing.mock_data(as_dataset_fn=as_dataset)


class EnoughTasksError(Exception):
    """Ends an experiment early."""


def run_two_tasks(experiment):
    """Returns the entries of the first two tasks."""
    entries = []

    def count(entry):
        entries.append(entry)
        if len(entries) == 2:
            raise EnoughTasksError

    with pytest.raises(EnoughTasksError):
        experiment(on_task_end=count)
    return entries


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
def test_cifar100_flagfiles_hold_the_recipe_of_the_paper(name, classes, parse):
    parse(flagfile(name))
    expected = {
        **PAPER,
        "dataset": "cifar100",
        "backbone": "resnet32",
        "memory": 2000,
        "classes_per_task": [str(classes)],
        "augment": "eeil_stored",
    }
    assert values(expected) == expected


def test_imagenet_flagfile_holds_the_recipe_of_the_paper(parse):
    parse(flagfile("eeil_imagenet"))
    expected = {
        **PAPER,
        "dataset": "imagenet2012",
        "image_size": 224,
        "backbone": "resnet18",
        "memory": 20000,
        "classes_per_task": ["100"],
        "augment": "eeil",
    }
    assert values(expected) == expected


@pytest.mark.parametrize("name", ["finetune_digits", "joint_digits"])
def test_baselines_differ_from_eeil_in_the_method_alone(name, parse):
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
    expected = values(shared)
    parse(flagfile(name))
    assert values(shared) == expected


@pytest.mark.parametrize(("name", "sizes"), SPLITS.items())
def test_sharing_flagfiles_name_split_branch_point_and_memory(
    name, sizes, parse
):
    parse(flagfile(name))
    assert flags.FLAGS["method"].value == "partial_sharing"
    assert flags.FLAGS["classes_per_task"].value == [*map(str, sizes)]
    assert flags.FLAGS["branch_at"].value.startswith("stage")
    assert flags.FLAGS["memory"].value >= sum(sizes)


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("_digits")])
def test_flagfile_on_digits_starts(name, parse, train):
    parse(flagfile(name), *SMALL, "--samples_per_class=20")
    first, second = run_two_tasks(train.make_experiment())
    size, next_size = first_two_sizes()
    assert first["seen_classes"] == size
    assert second["seen_classes"] == size + next_size
    assert 0 <= second["accuracy"] <= 1
    if name in SPLITS:
        assert second["exemplars"] == 100
        check_branch(second)


@pytest.mark.parametrize(
    "name", [n for n in NAMES if not n.endswith("_digits")]
)
def test_flagfile_on_tfds_starts_on_mocked_data(name, parse, train):
    parse(flagfile(name), *SMALL)
    settings = values(["dataset"])
    size, next_size = first_two_sizes()
    classes, _ = MOCKED_IMAGES[settings["dataset"]]
    flags.FLAGS["memory"].value = classes
    if settings["dataset"] == "imagenet2012":
        flags.FLAGS["image_size"].value = 32
    with mocked(*MOCKED_IMAGES[settings["dataset"]]):
        experiment = train.make_experiment()
        assert experiment.model.input_shape == (None, 32, 32, 3)
        first, second = run_two_tasks(experiment)
    # One image of each class: all of them are exemplars.
    exemplars = [entry["exemplars"] for entry in (first, second)]
    assert exemplars == [size, size + next_size]
    assert second["seen_classes"] == size + next_size
    if name in SPLITS:
        assert second["epochs"] == 1
        check_branch(second)
    else:
        assert second["epochs"] == 2
    assert experiment.model.train_function_traces <= 2
