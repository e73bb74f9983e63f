"""Runs a class-incremental experiment from the command line.

    python examples/train.py --dataset=digits --method=eeil \
        --classes_per_task=2 --memory=100 --seed=0 --output_dir=out

    python examples/train.py --flagfile=examples/configs/eeil_digits.flags \
        --seed=0 --output_dir=out

The output folder gets results.json, accuracy.png, confusion.png,
TensorBoard logs, model.keras and memory/.
"""

import os
import sys

# A script may choose this, a library must not. It has to be set before
# TensorFlow is imported; it speeds up CPUs on which it is off by default.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from absl import app, flags, logging

import keras_incremental as ki
from keras_incremental.experiment import Experiment

_EEIL = ki.EEIL()
_SHARING = ki.PartialSharing()
_DECAY = ki.methods.StepDecay()

BACKBONES = {
    "small": ki.backbones.small,
    "resnet18": ki.backbones.resnet18,
    "resnet20": ki.backbones.resnet20,
    "resnet32": ki.backbones.resnet32,
    "resnet56": ki.backbones.resnet56,
}
SELECTIONS = {
    "herding": ki.exemplars.herding_order,
    "random": ki.exemplars.random_order,
    "nearest_to_mean": ki.exemplars.nearest_to_mean_order,
}
STORAGES = {
    "raw": lambda quality: ki.exemplars.RawStorage(),
    "png": lambda quality: ki.exemplars.PngStorage(),
    "jpeg": ki.exemplars.JpegStorage,
    "disk": lambda quality: ki.exemplars.DiskStorage(),
}
AUGMENTATIONS = {
    "none": lambda: None,
    "crop_flip": ki.augmentation.CropFlip,
    "eeil": ki.augmentation.EEILAugmentation,
    "eeil_stored": ki.augmentation.StoredEEILAugmentation,
}
METHODS = ("eeil", "partial_sharing", "finetune", "joint")
NOISE = {
    "none": None,
    "text": ki.methods.GradientNoise(),
    "code": ki.methods.GradientNoise(is_variance=False),
}
# Where a run reads and writes is no part of what it computes.
_NOT_SETTINGS = {"output_dir", "data_dir", "backup_dir", "export_dir"}

_DATASET = flags.DEFINE_string(
    "dataset", "digits", "`digits` (in scikit-learn), or any TFDS name."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared TFDS data."
)
_IMAGE_DIR = flags.DEFINE_string(
    "image_dir", None, "A folder of class folders, instead of --dataset."
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Resize to this height and width.", lower_bound=1
)
_METHOD = flags.DEFINE_enum("method", "eeil", METHODS, "The method.")
_BACKBONE = flags.DEFINE_enum(
    "backbone",
    None,
    sorted(BACKBONES),
    "The network; by default small up to 16 pixels, resnet32 up to 64, then "
    "resnet18.",
)
_CLASSES_PER_TASK = flags.DEFINE_list(
    "classes_per_task", "2", "One number, or one for each task: 50,10,10."
)
_CLASS_ORDER = flags.DEFINE_list(
    "class_order",
    "random",
    "`random` by --seed, `label`, or the labels in order: 3,1,...",
)
_SAMPLES_PER_CLASS = flags.DEFINE_integer(
    "samples_per_class", None, "Use so many training images.", lower_bound=1
)
_EPOCHS = flags.DEFINE_integer("epochs", 40, "Of each task.", lower_bound=1)
_FINETUNE_EPOCHS = flags.DEFINE_integer(
    "finetune_epochs",
    _EEIL.finetune_epochs,
    "Of balanced fine-tuning.",
    lower_bound=0,
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "", lower_bound=1)
_STEPS_PER_EXECUTION = flags.DEFINE_integer(
    "steps_per_execution",
    1,
    "Train steps of one call; more are faster where a step takes milliseconds, "
    "with the same results.",
    lower_bound=1,
)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.1, "Of the first epoch.")
_DECAY_EVERY = flags.DEFINE_integer(
    "learning_rate_decay_every", _DECAY.every, "Epochs.", lower_bound=1
)
_DECAY_FACTOR = flags.DEFINE_float(
    "learning_rate_decay_factor", _DECAY.factor, "Multiplies it each time."
)
_FINETUNE_LEARNING_RATE = flags.DEFINE_float(
    "finetune_learning_rate",
    None,
    "First learning rate of balanced fine-tuning; by default a tenth of "
    "--learning_rate.",
)
_WEIGHT_DECAY = flags.DEFINE_float("weight_decay", 1e-4, "", lower_bound=0)
_TEMPERATURE = flags.DEFINE_float(
    "temperature", _EEIL.temperature, "Of distillation."
)
_DISTILLATION = flags.DEFINE_bool(
    "distillation", _EEIL.distillation, "--nodistillation leaves it out."
)
_GRADIENT_NOISE = flags.DEFINE_enum(
    "gradient_noise",
    "none",
    sorted(NOISE),
    "As in the paper's text (a variance) or in its code (a deviation).",
)
_AUGMENT = flags.DEFINE_enum("augment", "none", sorted(AUGMENTATIONS), "")
_MEMORY = flags.DEFINE_integer(
    "memory", None, "Exemplars in all.", lower_bound=1
)
_MEMORY_PER_CLASS = flags.DEFINE_integer(
    "memory_per_class", None, "Exemplars of each class.", lower_bound=1
)
_MEMORY_BUDGET = flags.DEFINE_string(
    "memory_budget", None, "Bytes of all exemplars as stored, e.g. 50MB."
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
_WIDTH = flags.DEFINE_float(
    "width",
    _SHARING.width,
    "Partial sharing: channels of a branch, as a fraction.",
    lower_bound=0,
    upper_bound=1,
)
_COPIES = flags.DEFINE_integer(
    "copies",
    _SHARING.copies,
    "Partial sharing with --augment: keep the shared part's outputs of so "
    "many variants of each image; 0 runs it on every augmented batch.",
    lower_bound=0,
)
_SEED = flags.DEFINE_integer("seed", 0, "", lower_bound=0)
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


for _name in (
    "learning_rate",
    "learning_rate_decay_factor",
    "finetune_learning_rate",
    "temperature",
):
    flags.register_validator(
        _name,
        lambda value: value is None or value > 0,
        message="Expected a number above 0.",
    )


@flags.multi_flags_validator(
    ["memory", "memory_per_class", "memory_budget"],
    message="Give one of --memory (images in all), --memory_per_class and "
    "--memory_budget (bytes in all).",
)
def _one_budget(values):
    return [*values.values()].count(None) >= 2


@flags.multi_flags_validator(
    ["method", "branch_at"],
    message="--branch_at belongs to --method=partial_sharing, which needs it: "
    "a layer name such as stage2, or a fraction such as 0.5.",
)
def _branch_point_where_it_belongs(values):
    is_sharing = values["method"] == "partial_sharing"
    return is_sharing == (values["branch_at"] is not None)


@flags.multi_flags_validator(
    ["method", "width", "copies"],
    message="--width and --copies belong to --method=partial_sharing.",
)
def _branches_where_they_belong(values):
    given = (values["width"], values["copies"])
    is_default = given == (_SHARING.width, _SHARING.copies)
    return values["method"] == "partial_sharing" or is_default


@flags.multi_flags_validator(
    ["method", "augment"],
    message="--method=partial_sharing takes no stored augmentation; give "
    "--augment=eeil --copies=12, say, for --augment=eeil_stored.",
)
def _stored_where_it_belongs(values):
    is_sharing = values["method"] == "partial_sharing"
    return not (is_sharing and values["augment"] == "eeil_stored")


@flags.multi_flags_validator(
    ["image_dir", "image_size"],
    message="--image_dir needs --image_size, e.g. --image_size=224.",
)
def _sized_folder(values):
    return values["image_dir"] is None or values["image_size"] is not None


@flags.multi_flags_validator(
    ["image_dir", "dataset", "data_dir", "image_size"],
    message="--data_dir and --image_size belong to a TFDS --dataset, and "
    "--image_size to --image_dir; digits are 8x8 and inside scikit-learn.",
)
def _digits_are_as_they_are(values):
    if values["image_dir"] is not None:
        return values["data_dir"] is None
    given = (values["data_dir"], values["image_size"])
    return values["dataset"] != "digits" or given == (None, None)


@flags.multi_flags_validator(
    ["image_dir", "dataset"],
    message="Give --image_dir (a folder) or --dataset (by name), not both.",
)
def _one_source(values):
    return values["image_dir"] is None or not flags.FLAGS["dataset"].present


def make_scenario() -> ki.ClassIncrementalScenario:
    """Returns the scenario that the flags ask for."""
    common = {
        "seed": _SEED.value,
        "samples_per_class": _SAMPLES_PER_CLASS.value,
        "classes_per_task": _classes_per_task(),
    }
    if _IMAGE_DIR.value is not None:
        return _ordered(
            lambda order: ki.ClassIncrementalScenario.from_directory(
                _IMAGE_DIR.value, _IMAGE_SIZE.value, class_order=order, **common
            )
        )
    if _DATASET.value == "digits":
        arrays = ki.scenarios.load_digits()
        return _ordered(
            lambda order: ki.ClassIncrementalScenario.from_arrays(
                *arrays, class_order=order, **common
            )
        )
    # TFDS reports each file that it opens, which would drown the progress bar.
    logging.set_verbosity(logging.WARNING)
    return _ordered(
        lambda order: ki.ClassIncrementalScenario.from_tfds(
            _DATASET.value,
            _DATA_DIR.value,
            image_size=_IMAGE_SIZE.value,
            class_order=order,
            **common,
        )
    )


def _ordered(make):
    """Makes a scenario in the class order that --class_order names."""
    given = _CLASS_ORDER.value
    if given == ["random"]:
        return make(None)
    if given == ["label"]:
        return make(sorted(make(None).class_order))
    return make(_integers("class_order", given))


def _classes_per_task() -> int | list[int]:
    sizes = _integers("classes_per_task", _CLASSES_PER_TASK.value)
    return sizes if len(sizes) > 1 else sizes[0]


def _integers(flag: str, texts: list[str]) -> list[int]:
    if not texts or not all(text.strip().isdecimal() for text in texts):
        raise ValueError(
            f"--{flag}={','.join(texts)}; expected one or more whole numbers "
            "with commas between."
        )
    return [int(text) for text in texts]


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
    return BACKBONES[name](input_shape=image_shape)


def make_method() -> ki.methods.Method:
    """Returns the method that the flags ask for."""
    decay = ki.methods.StepDecay(_DECAY_EVERY.value, _DECAY_FACTOR.value)
    if _METHOD.value == "finetune":
        return ki.FineTune(learning_rate_factor=decay)
    if _METHOD.value == "joint":
        return ki.Joint(learning_rate_factor=decay)
    if _METHOD.value == "partial_sharing":
        return ki.PartialSharing(
            width=_WIDTH.value,
            copies=_COPIES.value,
            learning_rate_factor=decay,
        )
    finetune = _EEIL.finetune_learning_rate
    if _FINETUNE_LEARNING_RATE.value is not None:
        finetune = _FINETUNE_LEARNING_RATE.value / _LEARNING_RATE.value
    return ki.EEIL(
        finetune_epochs=_FINETUNE_EPOCHS.value,
        temperature=_TEMPERATURE.value,
        distillation=_DISTILLATION.value,
        learning_rate_factor=decay,
        finetune_learning_rate=finetune,
        gradient_noise=NOISE[_GRADIENT_NOISE.value],
    )


def make_memory() -> ki.ExemplarMemory | None:
    """Returns the memory that the flags ask for, if the method uses one."""
    budgets = (_MEMORY.value, _MEMORY_PER_CLASS.value, _MEMORY_BUDGET.value)
    if not any(budgets):
        if _METHOD.value == "eeil":
            raise ValueError(
                "--method=eeil needs --memory (exemplars in all), "
                "--memory_per_class or --memory_budget (bytes)."
            )
        return None
    if _METHOD.value not in ("eeil", "partial_sharing"):
        logging.info("--method=%s uses no exemplars.", _METHOD.value)
        return None
    return ki.ExemplarMemory(
        capacity=_MEMORY.value,
        per_class=_MEMORY_PER_CLASS.value,
        budget=_MEMORY_BUDGET.value,
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
    )
    model.compile(
        optimizer=keras.optimizers.SGD(
            _LEARNING_RATE.value, momentum=0.9, weight_decay=_WEIGHT_DECAY.value
        ),
        steps_per_execution=_STEPS_PER_EXECUTION.value,
    )
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


def make_experiment() -> Experiment:
    """Returns the experiment that the flags ask for, ready to run.

    Raises:
        ValueError, OSError, ImportError: before any training, for settings
            or data that cannot be had.
    """
    memory, method = make_memory(), make_method()
    scenario = make_scenario()
    if memory is not None:
        memory.check_images(scenario.image_spec)
        memory.check_room(scenario.class_order, scenario.image_spec)
    model = make_model(scenario)
    method.check(model, memory)
    return Experiment(
        scenario,
        model,
        make_callback(scenario, memory, method),
        epochs=_EPOCHS.value,
        batch_size=_BATCH_SIZE.value,
        dataset=_DATASET.value if not _IMAGE_DIR.value else scenario.name,
        method=_METHOD.value,
        seed=_SEED.value,
        flags=_settings(),
    )


def _settings() -> dict:
    """The flags of this script, but for where it writes."""
    own = flags.FLAGS.flags_by_module_dict()[_module_name()]
    return {
        flag.name: flag.value for flag in own if flag.name not in _NOT_SETTINGS
    }


def _module_name() -> str:
    return flags.FLAGS.find_module_defining_flag("output_dir")


def _print_task(entry: dict) -> None:
    print(
        f"task {entry['task']}: {', '.join(entry['classes'])} | "
        f"{entry['seen_classes']} classes seen | "
        f"accuracy {entry['accuracy']:.4f} | "
        f"top-5 {entry['top5_accuracy']:.4f} | "
        f"{entry['exemplars']} exemplars | "
        f"{entry['train_seconds']:.1f} s training, "
        f"{entry['overhead_seconds']:.1f} s overhead",
        flush=True,
    )


def _print_results(results: dict, output_dir: str) -> None:
    print(
        f"{results['method']} on {results['dataset']}, seed {results['seed']}: "
        "average incremental accuracy "
        f"{results['average_incremental_accuracy']:.4f}, "
        f"final {results['final_accuracy']:.4f}, "
        f"forgetting {results['forgetting']:.4f}"
    )
    print(f"Curve: {os.path.join(output_dir, 'accuracy.png')}")


def main(argv) -> None:
    """Runs the experiment; absl calls it."""
    if len(argv) > 1:
        sys.exit(f"train.py: unknown arguments: {' '.join(argv[1:])}")
    keras.utils.set_random_seed(_SEED.value)
    if _DETERMINISTIC.value:
        tf.config.experimental.enable_op_determinism()
    try:
        ki.reports.claim_output_dir(
            _OUTPUT_DIR.value, resuming=_BACKUP_DIR.value is not None
        )
        experiment = make_experiment()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"train.py: {error}")
    results = experiment(_OUTPUT_DIR.value, on_task_end=_print_task)
    _print_results(results, _OUTPUT_DIR.value)


if __name__ == "__main__":
    app.run(main)
