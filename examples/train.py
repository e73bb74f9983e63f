r"""Runs a class-incremental experiment from the command line.

    python examples/train.py --dataset=digits --method=eeil \
        --classes_per_task=2 --memory=100 --seed=0 --output_dir=out

    python examples/train.py --flagfile=examples/configs/eeil_digits.flags \
        --seed=0 --output_dir=out

The output folder gets results.json, accuracy.png, confusion.png,
before_after.png of the last task, TensorBoard logs, model.keras and memory/.
"""

import functools
import os
import sys

import quick_help  # noqa: F401 (before TensorFlow is imported)

# A script may choose this, a library must not. It has to be set before
# TensorFlow is imported; it speeds up CPUs on which it is off by default.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import method_flags
import scenario_flags
import tensorflow as tf
from absl import app, flags

import keras_incremental as ki
from keras_incremental.experiment import Experiment
from keras_incremental.methods import BY_NAME

BACKBONES = {
    "efficientnet_lite0": functools.partial(
        ki.backbones.efficientnet_lite0, weights="imagenet"
    ),
    "small": ki.backbones.small,
    "resnet18": ki.backbones.resnet18,
    "resnet20": ki.backbones.resnet20,
    "resnet32": ki.backbones.resnet32,
    "resnet32_icarl": functools.partial(
        ki.backbones.resnet32, final_relu=False
    ),
    "resnet56": ki.backbones.resnet56,
}
SELECTIONS = {
    "herding": ki.exemplars.herding_order,
    "random": ki.exemplars.random_order,
    "nearest_to_mean": ki.exemplars.nearest_to_mean_order,
}
STORAGES = {
    "raw": lambda quality: ki.exemplars.RawStorage(),
    "jpeg": ki.exemplars.JpegStorage,
    "disk": lambda quality: ki.exemplars.DiskStorage(),
}
OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "sgd": functools.partial(keras.optimizers.SGD, momentum=0.9),
}
AUGMENTATIONS = method_flags.AUGMENTATIONS
# Where a run reads and writes is no part of what it computes.
_NOT_SETTINGS = {"output_dir", "data_dir", "backup_dir", "export_dir"}

_METHOD = flags.DEFINE_string(
    "method",
    method_flags.DEFAULT,
    f"The method: {', '.join(BY_NAME)}, or a class of your own, "
    "my_module:MyMethod. Each field of its dataclass has a flag.",
)
_BACKBONE = flags.DEFINE_enum(
    "backbone",
    None,
    sorted(BACKBONES),
    "The network; by default small up to 16 pixels, resnet32 up to 64, then "
    "resnet18. efficientnet_lite0 has been trained on ImageNet.",
)
_ENLARGE = flags.DEFINE_integer(
    "enlarge",
    1,
    "How many times efficientnet_lite0 enlarges each side of an image; "
    "exemplars stay as small as they are.",
    lower_bound=1,
)
_POOLED_LAYERS = flags.DEFINE_list(
    "pooled_layers",
    [],
    "Inner layers of the network whose features are used beside the last ones.",
)
_EPOCHS = flags.DEFINE_integer("epochs", 40, "Of each task.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "", lower_bound=1)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.1, "Of the first epoch.")
_OPTIMIZER = flags.DEFINE_enum(
    "optimizer", "sgd", sorted(OPTIMIZERS), "sgd has a momentum of 0.9."
)
_WEIGHT_DECAY = flags.DEFINE_float(
    "weight_decay",
    1e-4,
    "The papers' L2: w of each kernel times this is part of its gradient.",
    lower_bound=0,
)
_AUGMENT = flags.DEFINE_enum("augment", "none", sorted(AUGMENTATIONS), "")
_MEMORY = flags.DEFINE_integer(
    "memory", None, "Exemplars in all.", lower_bound=1
)
_MEMORY_PER_CLASS = flags.DEFINE_integer(
    "memory_per_class", None, "Exemplars of each class.", lower_bound=1
)
_MEMORY_STORAGE = flags.DEFINE_enum(
    "memory_storage", "raw", sorted(STORAGES), "How exemplars are kept."
)
_JPEG_QUALITY = flags.DEFINE_integer(
    "jpeg_quality",
    ki.exemplars.JpegStorage().quality,
    "Of --memory_storage=jpeg.",
    lower_bound=1,
    upper_bound=100,
)
_SELECTION = flags.DEFINE_enum("selection", "herding", sorted(SELECTIONS), "")
_BRANCH_AT = flags.DEFINE_string(
    "branch_at",
    None,
    "Partial sharing: the last layer to share, by name, or the fraction of "
    "the layers to share, 0 to 1.",
)
_FREEZE_TRUNK = flags.DEFINE_bool(
    "freeze_trunk",
    False,
    "With any method: the layers up to --branch_at are frozen from the start, "
    "and their outputs are cached (see --copies).",
)
_SEED = flags.DEFINE_integer("seed", 0, "", lower_bound=0)
_DTYPE_POLICY = flags.DEFINE_enum(
    "dtype_policy",
    "float32",
    ["float32", "mixed_bfloat16", "mixed_float16"],
    "Keras' policy for the layers: what they compute in. Weights, losses and "
    "closed forms stay float32.",
)
_DETERMINISTIC = flags.DEFINE_bool(
    "deterministic", False, "Same seed, same results; slower on a GPU."
)
_BACKUP_DIR = flags.DEFINE_string(
    "backup_dir",
    None,
    "Back up each epoch here; the same command goes on where it was killed.",
)
_EXPORT_DIR = flags.DEFINE_string(
    "export_dir",
    None,
    "Publish the model here for TensorFlow Serving, after each task.",
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "A folder without another run in it.", required=True
)

method_flags.define(BY_NAME)

flags.register_validator(
    "learning_rate",
    lambda value: value > 0,
    message="Expected a number above 0.",
)


@flags.validator("method")
def _is_a_method(name):
    try:
        return bool(method_flags.find(name))
    except ValueError as error:
        raise flags.ValidationError(str(error)) from error


@flags.multi_flags_validator(
    ["freeze_trunk", "branch_at"],
    message="--freeze_trunk needs --branch_at, the last layer to freeze.",
)
def _frozen_up_to_somewhere(values):
    return not values["freeze_trunk"] or values["branch_at"] is not None


@flags.multi_flags_validator(
    ["enlarge", "backbone"],
    message="--enlarge belongs to --backbone=efficientnet_lite0.",
)
def _can_enlarge(values):
    return values["enlarge"] == 1 or values["backbone"] == "efficientnet_lite0"


@flags.multi_flags_validator(
    ["memory", "memory_per_class"],
    message="Give one of --memory (images in all) and --memory_per_class.",
)
def _one_budget(values):
    return [*values.values()].count(None) >= 1


def make_scenario() -> ki.ClassIncrementalScenario:
    """Returns the scenario that the flags ask for."""
    return scenario_flags.make_scenario(_SEED.value)


def make_backbone(image_shape) -> keras.Model:
    """Returns the network that the flags ask for."""
    name = _BACKBONE.value
    if name is None:
        size = max(image_shape[:2])
        name = next(
            name
            for name, largest in (
                ("small", 16),
                ("resnet32", 64),
                ("resnet18", float("inf")),
            )
            if size <= largest
        )
    l2 = _WEIGHT_DECAY.value and keras.regularizers.L2(_WEIGHT_DECAY.value / 2)
    backbone = BACKBONES[name](
        input_shape=image_shape,
        kernel_regularizer=l2 or None,
        **({"enlarge": factor} if (factor := _ENLARGE.value) > 1 else {}),
    )
    if not _POOLED_LAYERS.value:
        return backbone
    return ki.backbones.with_pooled_layers(backbone, _POOLED_LAYERS.value)


def make_method() -> ki.methods.Method:
    """Returns the method that the flags ask for.

    Raises:
        ValueError: if it does not go with its flags, the branch point or the
            augmentation.
    """
    name, method = _METHOD.value, method_flags.make(_METHOD.value)
    if method.needs_branch_point and _BRANCH_AT.value is None:
        raise ValueError(
            f"--method={name} needs --branch_at: a layer name such as stage2, "
            "or a fraction such as 0.5."
        )
    if (
        not (method.needs_branch_point or _FREEZE_TRUNK.value)
        and _BRANCH_AT.value is not None
    ):
        takers = [k for k, m in BY_NAME.items() if m.needs_branch_point]
        raise ValueError(
            f"--branch_at belongs to --method={' or '.join(takers)}, and "
            f"--method={name} takes it with --freeze_trunk alone."
        )
    if _BRANCH_AT.value is not None and _AUGMENT.value == "eeil_stored":
        raise ValueError(
            f"--branch_at={_BRANCH_AT.value} goes with no stored augmentation; "
            "give --augment=eeil --copies=12, say, for --augment=eeil_stored."
        )
    return method


def make_memory(method: ki.methods.Method) -> ki.ExemplarMemory | None:
    """Returns the memory that the flags ask for, if any.

    Raises:
        ValueError: if there is none and the method needs one.
    """
    if _MEMORY.value is None and _MEMORY_PER_CLASS.value is None:
        if method.needs_memory:
            raise ValueError(
                f"--method={_METHOD.value} needs --memory (exemplars in all) "
                "or --memory_per_class."
            )
        return None
    return ki.ExemplarMemory(
        capacity=_MEMORY.value,
        per_class=_MEMORY_PER_CLASS.value,
        storage=STORAGES[_MEMORY_STORAGE.value](_JPEG_QUALITY.value),
        selection=SELECTIONS[_SELECTION.value],
        seed=_SEED.value,
    )


def make_model(scenario) -> ki.IncrementalClassifier:
    """Returns the compiled model that the flags ask for."""
    model = ki.IncrementalClassifier(
        make_backbone(scenario.image_shape),
        capacity=scenario.num_classes,
        branch_at=branch_point(_BRANCH_AT.value),
        freeze_trunk=_FREEZE_TRUNK.value,
    )
    model.compile(optimizer=OPTIMIZERS[_OPTIMIZER.value](_LEARNING_RATE.value))
    return model


def branch_point(text: str | None) -> str | float | None:
    """Returns a flag's branch point: a layer name, or a fraction."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return text


def make_callback(scenario, memory, method) -> ki.IncrementalCallback:
    """Returns the callback that the flags ask for."""
    return ki.IncrementalCallback(
        memory,
        method=method,
        class_names=scenario.class_names,
        augment=AUGMENTATIONS[_AUGMENT.value](),
        seed=_SEED.value,
        backup_dir=_BACKUP_DIR.value,
        publish_to=_EXPORT_DIR.value,
    )


def set_up() -> None:
    """Sets what the flags say of the whole process; before any model."""
    keras.utils.set_random_seed(_SEED.value)
    keras.config.set_dtype_policy(_DTYPE_POLICY.value)
    if _DETERMINISTIC.value:
        tf.config.experimental.enable_op_determinism()


def make_experiment() -> Experiment:
    """Returns the experiment that the flags ask for, ready to run.

    Raises:
        ValueError, OSError, ImportError: before any training, for settings
            or data that cannot be had.
    """
    method = make_method()
    memory = make_memory(method)
    scenario = make_scenario()
    if memory is not None:
        memory.check_images(scenario.image_spec)
        memory.check_room(scenario.class_order)
    model = make_model(scenario)
    method.check(model, memory)
    return Experiment(
        scenario,
        model,
        make_callback(scenario, memory, method),
        epochs=_EPOCHS.value,
        batch_size=_BATCH_SIZE.value,
        dataset=scenario_flags.dataset_name(scenario),
        method=_METHOD.value,
        seed=_SEED.value,
        flags=settings(method),
    )


def settings(method: ki.methods.Method) -> dict:
    """Returns all flags in effect, but for where they read and write."""
    of_module = flags.FLAGS.flags_by_module_dict()
    modules = map(
        flags.FLAGS.find_module_defining_flag, ("dataset", "output_dir")
    )
    own = [flag for module in modules for flag in of_module[module]]
    given = {
        flag.name: flag.value for flag in own if flag.name not in _NOT_SETTINGS
    }
    return given | method_flags.settings(method)


def _print_task(entry: dict, report) -> None:
    print(
        f"task {entry['task']}: {', '.join(entry['classes'])} | "
        f"{entry['seen_classes']} classes seen | "
        f"accuracy {entry['accuracy']:.4f} | "
        f"top-5 {entry['top5_accuracy']:.4f} | "
        f"{entry['exemplars']} exemplars | "
        f"{entry['train_seconds']:.1f} s training, "
        f"{entry['overhead_seconds']:.1f} s overhead",
    )
    print(report, flush=True)


def _print_results(results: dict, output_dir: str) -> None:
    print(
        f"{results['method']} on {results['dataset']}, seed {results['seed']}: "
        "average incremental accuracy "
        f"{results['average_incremental_accuracy']:.4f}, "
        f"final {results['final_accuracy']:.4f}, "
        f"forgetting {results['forgetting']:.4f}"
    )
    print(f"Curve: {os.path.join(output_dir, 'accuracy.png')}")


def parse_flags(argv: list[str]) -> list[str]:
    """Parses a command line, for `app.run`; --method may be the user's own."""
    try:
        method_flags.define_own(argv)
    except (ValueError, flags.Error) as error:
        sys.exit(f"{os.path.basename(argv[0])}: {error}")
    for module in (method_flags, scenario_flags):
        flags.adopt_module_key_flags(module)  # for --help
    return app.parse_flags_with_usage(argv)


def main(argv) -> None:
    """Runs the experiment; absl calls it."""
    if len(argv) > 1:
        sys.exit(f"train.py: unknown arguments: {' '.join(argv[1:])}")
    set_up()
    try:
        ki.reports.claim_output_dir(
            _OUTPUT_DIR.value, resuming=_BACKUP_DIR.value is not None
        )
        experiment = make_experiment()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"train.py: {error}")
    results = experiment(
        _OUTPUT_DIR.value,
        on_task_end=lambda entry: _print_task(
            entry, experiment.incremental.reports[-1]
        ),
    )
    _print_results(results, _OUTPUT_DIR.value)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
