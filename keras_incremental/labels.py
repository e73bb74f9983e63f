"""The user's labels outside, units (columns of the head) inside.

Labels are any non-negative integers, or strings, in any order. A unit is the
position of a class in its order of arrival. `ClassIndex` is the one mapping
between the two; nothing else in the package renumbers anything.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

UNKNOWN_LABEL_MESSAGE = "Labels that the model has not been taught"
_MISSING = -1


def check_labels(labels, name: str = "labels") -> np.ndarray:
    """Checks integer or string labels and returns them as one flat array.

    Args:
        labels: array-like of shape `(samples,)` or `(samples, 1)`;
            non-negative integers, or strings (`str` or UTF-8 `bytes`).
        name: how the caller calls them, for messages.

    Returns:
        `(samples,)` array, `int64` or a NumPy string dtype.

    Raises:
        ValueError: for one-hot, negative, empty, missing or mixed labels.
        TypeError: for floats, booleans and other dtypes.

    >>> check_labels([[40], [7]])
    array([40,  7])
    """
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"{name} has shape {array.shape}; expected one label an image, "
            "(samples,) or (samples, 1). Turn one-hot rows into labels with "
            f"{name}.argmax(axis=-1)."
        )
    if array.dtype.kind == "O" and all(
        isinstance(item, (int, np.integer)) and not isinstance(item, bool)
        for item in array
    ):
        array = array.astype(np.int64)
    if array.dtype.kind in "OSU":
        return _check_strings(array, name)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"{name} has dtype {array.dtype}, for example "
            f"{array[:3].tolist()}; expected integers or strings. If they are "
            f"whole numbers, pass {name}.astype('int64')."
        )
    if array.size and array.min() < 0:
        raise ValueError(
            f"{name} holds the negative label {array.min()}; expected "
            "integers >= 0. Negative labels usually mark unlabelled images: "
            "leave those out."
        )
    return array.astype(np.int64)


def _check_strings(array: np.ndarray, name: str) -> np.ndarray:
    texts = [
        item.decode("utf-8") if isinstance(item, bytes) else item
        for item in array.tolist()
    ]
    wrong = [text for text in texts if not (text and isinstance(text, str))]
    if wrong:
        raise ValueError(
            f"{name} holds {wrong[0]!r}; expected all integers or all strings, "
            "none empty or missing: every image needs a label."
        )
    return np.array(texts, dtype=str)


def whole_labels(labels) -> np.ndarray:
    """Returns labels, those in a float dtype that are whole as integers.

    Some of Keras' iterators give them so.

    >>> whole_labels(np.array([0.0, 2.0], "float32"))
    array([0, 2])
    """
    array = np.asarray(labels)
    if array.dtype.kind == "f" and (array == np.round(array)).all():
        return array.astype(np.int64)
    return array


def carried_names(data) -> dict[int, str]:
    """Returns the names by label that a dataset of Keras carries, if any.

    Those of `keras.utils.image_dataset_from_directory` have `class_names`, and
    iterators over a folder `class_indices`.
    """
    indices = getattr(data, "class_indices", None)
    if isinstance(indices, Mapping):
        return {label: str(name) for name, label in indices.items()}
    names = getattr(data, "class_names", None)
    return dict(enumerate(map(str, () if names is None else names)))


def as_label(value) -> int | str:
    """Returns one label as a plain `int` or `str`.

    >>> as_label(np.int64(7))
    7
    """
    return check_labels([value])[0].item()


def label_names(
    labels: Iterable[int | str],
    class_names: Mapping | Sequence[str] | None = None,
) -> list[str]:
    """Returns the name of each label.

    Args:
        labels: labels.
        class_names: a dict from label to name, or a list indexed by integer
            label. Without it, or for a label the dict does not hold, the
            label's own text is its name.

    Raises:
        ValueError: if `class_names` is a list and too short for a label.

    >>> label_names([7, 40], {7: "plate"})
    ['plate', '40']
    """
    if class_names is None:
        class_names = {}
    if isinstance(class_names, Mapping):
        return [str(class_names.get(label, label)) for label in labels]
    class_names = list(class_names)
    names = []
    for label in labels:
        if not isinstance(label, int) or label >= len(class_names):
            raise ValueError(
                f"class_names is a list of {len(class_names)} names and has "
                f"none for label {label!r}. Pass a longer list, or a dict "
                "from label to name."
            )
        names.append(str(class_names[label]))
    return names


def listed(names: Sequence[int | str], most: int = 6) -> str:
    """Returns the first of some names as a text.

    >>> listed(["cat", "dog", "fox"]), listed(range(8), most=2)
    ('cat, dog, fox', '0, 1, ...')
    """
    more = ["..."] if len(names) > most else []
    return ", ".join([*map(str, names[:most]), *more])


class ClassIndex:
    """Labels, their names, and their units, in order of arrival.

    Args:
        labels: the labels known so far, unit by unit.
        names: their names, the same number; by default the labels' text.

    >>> index = ClassIndex([40, 7], ["forty", "seven"])
    >>> index.to_units([7, 40, 7])
    array([1, 0, 1], dtype=int32)
    """

    def __init__(self, labels=(), names=None):
        self.labels: list[int | str] = []
        self.names: list[str] = []
        self.add(labels, names)

    def __len__(self):
        return len(self.labels)

    def __contains__(self, label):
        return label in self.labels

    def __repr__(self):
        return f"<ClassIndex: {len(self)} classes: {listed(self.names)}>"

    def add(self, labels, names=None) -> None:
        """Appends classes; their units are the next free ones.

        Raises:
            ValueError: for a label or a name that is already there.
            TypeError: if strings and integers would be mixed.
        """
        new = [as_label(label) for label in labels]
        names = label_names(new) if names is None else [str(n) for n in names]
        if len(names) != len(new):
            raise ValueError(
                f"{len(names)} class names for {len(new)} labels; expected "
                "one name for each label."
            )
        _check_unique("label", self.labels + new)
        _check_unique("class name", self.names + names)
        if len({type(label) for label in self.labels + new}) > 1:
            raise TypeError(
                f"New labels {new[:5]} are of another kind than the known "
                f"ones {self.labels[:5]}. Use integers throughout, or strings."
            )
        self.labels += new
        self.names += names

    def check_names(self, class_names, source: str) -> None:
        """Refuses names other than those that labels are known by.

        Args:
            class_names: a dict from label to name, a list indexed by label, or
                `None`.
            source: where they come from, for the message.

        Raises:
            ValueError: with both names of a label.
        """
        if not isinstance(class_names, Mapping):
            class_names = () if class_names is None else class_names
            class_names = dict(enumerate(class_names))
        for label, known in zip(self.labels, self.names, strict=True):
            name = str(class_names.get(label, known))
            if name != known:
                raise ValueError(
                    f"{source} calls label {label!r} {name!r}, but the model "
                    f"knows it as {known!r}. If these are new classes, their "
                    "labels have to differ from those of known ones: let the "
                    "names be labels, by dataset.map(lambda x, y: (x, "
                    "tf.gather(names, y))), or add an offset to the labels and "
                    "pass class_names={label: name}. If they are known "
                    "classes, pass the names by which they are known."
                )

    def truncate(self, num_classes: int) -> None:
        """Forgets the classes that came after the first `num_classes`."""
        del self.labels[num_classes:], self.names[num_classes:]

    def remove(self, units: Iterable[int]) -> None:
        """Forgets some classes; the units of those behind them move up."""
        for unit in sorted(units, reverse=True):
            del self.labels[unit], self.names[unit]

    def unknown(self, labels) -> list[int | str]:
        """Returns the labels not in the index, sorted, each once."""
        distinct = np.unique(check_labels(labels)).tolist()
        known = set(self.labels)
        return [label for label in distinct if label not in known]

    def to_units(self, labels) -> np.ndarray:
        """Returns the unit of each label, `(samples,)` int32.

        Raises:
            ValueError: naming the labels that are unknown.
        """
        array = check_labels(labels)
        distinct, inverse = np.unique(array, return_inverse=True)
        unit_of = {label: unit for unit, label in enumerate(self.labels)}
        units = [unit_of.get(label, _MISSING) for label in distinct.tolist()]
        if _MISSING in units:
            raise ValueError(
                f"{UNKNOWN_LABEL_MESSAGE}: {self.unknown(array)[:10]}. It "
                f"knows {self.labels[:10]} ({len(self)} in all)."
                f"{self._hint(distinct[0])}"
            )
        return np.array(units, np.int32)[inverse.reshape(-1)]

    def _hint(self, label: int | str) -> str:
        """Returns what to do about labels of another kind, or nothing."""
        if not self.labels or isinstance(label, type(self.labels[0])):
            return ""
        if isinstance(label, str):
            return (
                " These are names, and the model was taught integers. Pass "
                "the label of each name: dict(zip(model.class_names, "
                "model.labels))[name]."
            )
        return (
            " These are integers, and the model was taught names. Pass the "
            "name of each integer, such as dataset.class_names[integer] of "
            "the dataset that they come from."
        )

    def map_labels(self, labels: tf.Tensor) -> tf.Tensor:
        """`to_units` for tensors, inside a tf.data pipeline.

        Raises (when the tensor is computed): `tf.errors.InvalidArgumentError`
        with the message of `to_units`.
        """
        units = tf.numpy_function(
            self.to_units, [labels], tf.int32, stateful=False
        )
        return tf.ensure_shape(units, labels.shape[:1])


def _check_unique(what: str, items: list) -> None:
    if len(set(items)) != len(items):
        twice = sorted({item for item in items if items.count(item) > 1})
        raise ValueError(
            f"Each {what} may occur once, but {twice[:5]} occur more often."
        )


def distinct_in_order(labels) -> list[int | str]:
    """Returns each label once, in order of first appearance.

    >>> distinct_in_order([40, 7, 40])
    [40, 7]
    """
    return list(dict.fromkeys(check_labels(labels).tolist()))
