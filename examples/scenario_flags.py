"""The flags that say which classes are learned, from which images."""

from absl import flags, logging

import keras_incremental as ki

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


def make_scenario(seed: int) -> ki.ClassIncrementalScenario:
    """Returns the scenario that the flags ask for.

    Args:
        seed: Of the class order, and of the images that are used.
    """
    common = {
        "seed": seed,
        "samples_per_class": _SAMPLES_PER_CLASS.value,
        "classes_per_task": classes_per_task(),
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


def classes_per_task() -> int | list[int]:
    """Returns the number of classes of all tasks, or of each."""
    sizes = _integers("classes_per_task", _CLASSES_PER_TASK.value)
    return sizes if len(sizes) > 1 else sizes[0]


def _integers(flag: str, texts: list[str]) -> list[int]:
    if not texts or not all(text.strip().isdecimal() for text in texts):
        raise ValueError(
            f"--{flag}={','.join(texts)}; expected one or more whole numbers "
            "with commas between."
        )
    return [int(text) for text in texts]


def dataset_name(scenario: ki.ClassIncrementalScenario) -> str:
    """Returns the name of the data for the results."""
    return _DATASET.value if _IMAGE_DIR.value is None else scenario.name
