"""`examples/train.py` as a user runs it, and what it refuses."""

import json
import pathlib
import re
import sys

import keras
import pytest
import tensorflow as tf
from absl import flags

import keras_incremental as ki

CONFIGS = pathlib.Path(__file__).parents[2] / "examples" / "configs"
pytestmark = pytest.mark.usefixtures("small_is_tiny")
# The one flagfile that the tests train by, on fewer images.
SMALL = [
    f"--flagfile={CONFIGS / 'eeil_digits.flags'}",
    "--classes_per_task=4",
    "--memory=40",
    "--samples_per_class=30",
    "--epochs=2",
    "--finetune_epochs=1",
    "--seed=3",
]
SHARING = [
    "--method=partial_sharing",
    "--branch_at=stage2",
    "--width=0.5",
    "--augment=crop_flip",
    "--copies=2",
    "--classes_per_task=4,3,3",
    "--memory=40",
]


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("train") / "digits"


@pytest.fixture(scope="module")
def finished(output_dir, train, run_main, small_is_tiny):
    """What a run on digits printed: tasks of 4, 4 and 2 classes."""
    del small_is_tiny
    return run_main(train, f"--output_dir={output_dir}", *SMALL)


@pytest.fixture(scope="module")
def results(finished, output_dir):
    del finished
    return json.loads((output_dir / "results.json").read_text())


@pytest.mark.slow
def test_results_have_the_keys_of_the_contract(results, check_contract):
    check_contract(results)


@pytest.mark.slow
def test_results_describe_the_run(results):
    assert results["dataset"] == "digits"
    assert results["method"] == "eeil"
    assert results["seed"] == 3
    assert sorted(results["class_order"]) == list(range(10))
    assert results["flags"]["memory"] == 40
    assert results["flags"]["batch_size"] == 32
    assert results["flags"]["weight_decay"] == 1e-4
    assert results["flags"]["finetune_epochs"] == 1
    assert results["flags"]["temperature"] == 2.0
    assert results["flags"]["finetune_learning_rate"] == 0.01
    assert "width" not in results["flags"]
    assert "output_dir" not in results["flags"]


@pytest.mark.slow
def test_results_of_tasks_agree_with_one_another(results):
    tasks = results["tasks"]
    classes = [name for task in tasks for name in task["classes"]]
    assert classes == [str(label) for label in results["class_order"]]
    assert [task["task"] for task in tasks] == [0, 1, 2]
    assert [task["seen_classes"] for task in tasks] == [4, 8, 10]
    assert [task["exemplars"] for task in tasks] == [40, 40, 40]
    for index, task in enumerate(tasks):
        row = results["accuracy_matrix"][index]
        assert [x for x in row if x is not None] == task["per_task_accuracy"]
        assert 0 <= task["accuracy"] <= task["top5_accuracy"] <= 1
    accuracies = [task["accuracy"] for task in tasks]
    assert results["final_accuracy"] == accuracies[-1]
    assert results["average_incremental_accuracy"] == pytest.approx(
        sum(accuracies) / 3
    )
    assert results["average_incremental_accuracy_after_first"] == pytest.approx(
        sum(accuracies[1:]) / 2
    )
    assert results["train_function_traces"] <= 2


@pytest.mark.slow
@pytest.mark.usefixtures("finished")
def test_pictures_are_png_files(output_dir):
    for name in ("accuracy.png", "confusion.png", "before_after.png"):
        picture = tf.io.decode_png((output_dir / name).read_bytes())
        assert picture.shape[0] > 200, name
        assert picture.shape[1] > 200, name


@pytest.mark.slow
def test_saved_model_and_memory_belong_together(results, output_dir):
    model = tf.keras.models.load_model(output_dir / "model.keras")
    memory = ki.ExemplarMemory.load(output_dir / "memory")
    assert sorted(model.labels) == sorted(results["class_order"])
    assert sorted(memory.labels) == sorted(model.labels)
    assert len(memory) == 40
    images = memory.samples().take(range(3))
    assert len(model.classify(images, verbose=0)) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("finished")
def test_tensorboard_logs_of_tasks_and_of_epochs_are_written(output_dir):
    logs = [
        path.relative_to(output_dir / "tensorboard").parts[0]
        for path in (output_dir / "tensorboard").rglob("events.out.*")
    ]
    assert set(logs) >= {"task_000", "task_001", "task_002", "tasks"}


@pytest.mark.slow
def test_one_line_a_task_is_printed_and_then_the_figures(finished, results):
    lines = finished.splitlines()
    of_tasks = [line for line in lines if re.match(r"task \d+:", line)]
    assert len(of_tasks) == 3
    for line, task in zip(of_tasks, results["tasks"], strict=True):
        assert f"accuracy {task['accuracy']:.4f}" in line
        assert ", ".join(task["classes"]) in line
    (figures,) = [line for line in lines if "average incremental" in line]
    assert f"{results['average_incremental_accuracy']:.4f}" in figures
    assert f"final {results['final_accuracy']:.4f}" in figures


@pytest.mark.slow
@pytest.mark.usefixtures("finished")
def test_second_run_into_a_folder_fails_and_leaves_the_first(
    output_dir, train, run_main, monkeypatch
):
    before = (output_dir / "results.json").read_bytes()
    monkeypatch.setattr(train, "make_experiment", _never)
    with pytest.raises(SystemExit, match=r"results\.json") as refused:
        run_main(train, f"--output_dir={output_dir}", *SMALL)
    assert str(output_dir) in str(refused.value)
    assert (output_dir / "results.json").read_bytes() == before


# Partial network sharing.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("stage2", "stage2"),
        ("0.5", 0.5),
        ("0", 0.0),
        ("1", 1.0),
        ("1e-1", 0.1),
    ],
)
def test_branch_point_is_a_fraction_or_a_name(train, text, expected):
    found = train.branch_point(text)
    assert found == expected and type(found) is type(expected)


def test_flags_of_sharing_reach_model_and_method(parse, train):
    parse(*SHARING, "--branch_at=0.5", "--copies=3", "--nocalibrate")
    experiment = train.make_experiment()
    assert experiment.model.branch_at == "stage2"
    assert experiment.model.network.shared_layers == pytest.approx(2 / 3)
    assert experiment.incremental.method == ki.PartialSharing(
        width=0.5, copies=3, calibrate=False
    )
    assert isinstance(experiment.incremental.augment, ki.augmentation.CropFlip)
    assert experiment.incremental.memory.capacity == 40
    sizes = [len(task.labels) for task in experiment.scenario]
    assert sizes == [4, 3, 3]
    given = {"branch_at": "0.5", "width": 0.5, "copies": 3}
    assert experiment.flags.items() >= given.items()


def test_sharing_needs_no_memory(parse, train):
    parse("--method=partial_sharing", "--branch_at=stage2")
    experiment = train.make_experiment()
    assert experiment.incremental.memory is None
    assert experiment.incremental.method == ki.PartialSharing()


def test_a_frozen_trunk_goes_with_any_method(parse, train):
    parse(
        "--method=joint",
        "--branch_at=stage2",
        "--freeze_trunk",
        "--copies=2",
        "--augment=crop_flip",
        "--optimizer=adam",
    )
    experiment = train.make_experiment()
    assert experiment.incremental.method == ki.Joint(copies=2)
    assert experiment.model.network.has_frozen_part
    assert isinstance(experiment.model.optimizer, keras.optimizers.Adam)


CONTRADICTIONS = {
    "nothing to freeze": (["--freeze_trunk"], "needs --branch_at"),
    "a backbone that cannot enlarge": (
        ["--backbone=small", "--enlarge=2"],
        "belongs to --backbone=efficientnet_lite0",
    ),
    "width of words": ([*SHARING, "--width=half"], "width.*half"),
    "copies in fractions": ([*SHARING, "--copies=1.5"], "copies.*1.5"),
    "two budgets": (
        ["--memory=100", "--memory_per_class=10"],
        "one of --memory .*--memory_per_class",
    ),
    "storage that does not exist": (["--memory_storage=tape"], "tape.*jpeg"),
    "quality out of range": (["--jpeg_quality=0"], "jpeg_quality"),
    "folder without size": (
        ["--image_dir=photos", "--memory=100"],
        "--image_dir needs --image_size",
    ),
    "folder and data set": (
        ["--image_dir=photos", "--image_size=8", "--dataset=cifar10"],
        "--image_dir .* or --dataset",
    ),
    "learning rate of zero": (["--learning_rate=0"], "above 0"),
    "method that does not exist": (["--method=unheard_of"], "unheard_of.*eeil"),
    "backbone that does not exist": (["--backbone=vgg"], "vgg.*resnet32"),
    "no epochs": (["--epochs=0"], "epochs"),
    "text for a number": (["--memory=many"], "memory.*many"),
    "truth for a number": (["--distillation=2"], "distillation.*2"),
    "noise that does not exist": (["--gradient_noise=loud"], "loud.*text"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_parsing_refuses(case, parse):
    args, message = CONTRADICTIONS[case]
    with pytest.raises(flags.IllegalFlagValueError, match=message):
        parse(*args)


def test_output_folder_has_to_be_given(parse):
    parse("--memory=100")
    flags.FLAGS["output_dir"].value = None
    with pytest.raises(flags.IllegalFlagValueError, match="output_dir"):
        flags.FLAGS.validate_all_flags()


BAD_INPUT = {
    "branch point without sharing": (
        ["--branch_at=stage2"],
        "--branch_at belongs to --method=partial_sharing",
    ),
    "sharing without a branch point": (
        ["--method=partial_sharing"],
        "partial_sharing needs --branch_at",
    ),
    "width without sharing": (
        ["--method=eeil", "--width=0.5"],
        "--width belongs to --method=partial_sharing, and --method=eeil",
    ),
    "the default width without sharing": (
        ["--method=eeil", "--width=1"],
        "--width belongs to --method=partial_sharing",
    ),
    "copies without sharing": (
        ["--method=finetune", "--copies=2"],
        "--copies belongs to --method=eeil",
    ),
    "fine-tuning without eeil": (
        ["--method=finetune", "--finetune_epochs=2"],
        "--finetune_epochs belongs to --method=eeil",
    ),
    "sharing with a stored augmentation": (
        [*SHARING, "--augment=eeil_stored"],
        "no stored augmentation.*--copies=12",
    ),
    "width above 1": ([*SHARING, "--width=1.5"], "width=1.5"),
    "width below 0": ([*SHARING, "--width=-0.5"], "width=-0.5"),
    "copies below 0": ([*SHARING, "--copies=-1"], "copies=-1"),
    "temperature of zero": (["--temperature=0"], "temperature=0"),
    "temperature that is no number": (["--temperature=nan"], "temperature=nan"),
    "infinite rate": (["--finetune_learning_rate=inf"], "rate=inf"),
    "rate of fine-tuning of zero": (
        ["--finetune_learning_rate=0"],
        "finetune_learning_rate=0",
    ),
    "epochs of fine-tuning below 0": (
        ["--finetune_epochs=-1"],
        "finetune_epochs=-1",
    ),
    "decay every 0 epochs": (
        ["--learning_rate_decay_every=0"],
        "every=0.*every >= 1",
    ),
    "decay by 0": (["--learning_rate_decay_factor=0"], "factor > 0"),
    "eeil without a memory": ([], "--memory.*or --memory_per_class"),
    "memory too small": (["--memory=4"], "capacity=4.*Use capacity >= 10"),
    "unknown data set": (
        ["--dataset=cifar1000", "--memory=100"],
        "no data set 'cifar1000'.*cifar100",
    ),
    "missing folder": (
        ["--image_dir=/no/such/folder", "--image_size=8", "--memory=100"],
        "/no/such/folder",
    ),
    "class order of other labels": (
        ["--class_order=3,1,77", "--memory=100"],
        "77",
    ),
    "class order of words": (["--class_order=three,one", "--memory=9"], "thre"),
    "task sizes of words": (["--classes_per_task=a,b", "--memory=9"], "a,b"),
    "memory below the number of classes": (
        ["--memory=9"],
        "Use capacity >= 10",
    ),
    "unknown layer to branch at": (
        ["--method=partial_sharing", "--branch_at=stage7"],
        "'stage7'.*'stage2'",
    ),
    "fraction of layers above 1": (
        ["--method=partial_sharing", "--branch_at=1.5"],
        "branch_at=1.5; expected a fraction",
    ),
    "output of the network to branch at": (
        ["--method=partial_sharing", "--branch_at=stage3"],
        "'stage3' has no layers after it",
    ),
    "width of nothing": ([*SHARING, "--width=0"], "width=0"),
    "width where no layer can be thinned": (
        [*SHARING, "--branch_at=1.0", "--width=0.5"],
        "width=0.5.*can be thinned",
    ),
    "memory of a sharing run too small": (
        [*SHARING, "--memory=9"],
        "Use capacity >= 10",
    ),
    "task sizes that do not add up": (
        ["--classes_per_task=3,3", "--memory=100"],
        "10",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_running_refuses_in_one_line_before_training(
    case, parse, train, monkeypatch
):
    args, message = BAD_INPUT[case]
    monkeypatch.setattr(train.Experiment, "__call__", _never)
    arguments = parse(*args)
    with pytest.raises(SystemExit) as refused:
        train.main(arguments)
    text = str(refused.value)
    assert re.search(message, text), text
    assert "\n" not in text


def test_dtype_policy_is_that_of_the_layers(parse, train, monkeypatch):
    before = keras.config.dtype_policy()
    monkeypatch.setattr(train.Experiment, "__call__", _stop)
    try:
        with pytest.raises(SystemExit) as stopped:
            train.main(parse("--memory=100", "--dtype_policy=mixed_bfloat16"))
    finally:
        keras.config.set_dtype_policy(before)
    experiment = stopped.value.code
    assert experiment.model.backbone.layers[1].compute_dtype == "bfloat16"
    assert experiment.flags["dtype_policy"] == "mixed_bfloat16"


def _stop(experiment, *args, **kwargs):
    sys.exit(experiment)


def _never(*args, **kwargs):
    pytest.fail("training began")


def test_arguments_that_are_no_flags_are_refused(parse, train):
    arguments = parse("digits", "--memory=100")
    with pytest.raises(SystemExit, match="digits"):
        train.main(arguments)


def test_used_output_folder_is_refused_before_data_is_read(
    parse, train, tmp_path, monkeypatch
):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").write_text("{}")
    monkeypatch.setattr(train, "make_experiment", _never)
    arguments = parse("--memory=100")
    with pytest.raises(SystemExit, match=f"{tmp_path / 'out'}.*another run"):
        train.main(arguments)
