"""Labels of images: what is accepted, and which images carry which label."""

import numpy as np

from keras_incremental.labels import check_labels


def as_labels(values, name):
    """Returns the labels of images, at least one, as a vector.

    Args:
        values: see `keras_incremental.labels.check_labels`.
        name: how the caller calls them, for messages.

    Returns:
        `(images,)` array of dtype int64 or `str`.

    Raises:
        TypeError: the labels are neither integers nor strings.
        ValueError: wrong shape, no labels at all, or a negative integer.

    Example:

    >>> as_labels([[40], [7]], "y_train")
    array([40,  7])
    """
    if np.size(values) == 0:
        raise ValueError(f"{name} is empty. Pass at least one image a class.")
    return check_labels(values, name)


def check_same_classes(train_labels, test_labels):
    """Raises unless both label vectors hold the same classes.

    Args:
        train_labels: labels of the training images, or their folders.
        test_labels: those of the test images.

    Raises:
        ValueError: a class has no training or no test image.
    """
    train = set(np.unique(train_labels).tolist())
    test = set(np.unique(test_labels).tolist())
    if train != test:
        raise ValueError(
            "Every class needs training and test images. Only in the test "
            f"data: {shown(test - train)}; only in the training data: "
            f"{shown(train - test)}. Remove those images or add the missing "
            "ones."
        )


def indices_by_label(labels, limit=None):
    """Maps each label to the ascending indices of its images.

    Args:
        labels: `(images,)` array, from `as_labels`.
        limit: keep this many of each class, the first in data set order;
            `None` keeps all.

    Returns:
        Dict from label (int or str) to an int64 array, in sorted label order.

    Example:

    >>> indices_by_label(np.array([7, 3, 7]))
    {3: array([1]), 7: array([0, 2])}
    """
    order = np.argsort(labels, kind="stable")
    values, starts = np.unique(labels[order], return_index=True)
    groups = np.split(order, starts[1:])
    return {
        label: group[:limit]
        for label, group in zip(values.tolist(), groups, strict=True)
    }


def merged(indices, labels):
    """Returns the ascending indices of all images of `labels`.

    Args:
        indices: dict of `indices_by_label`.
        labels: labels to gather.
    """
    return np.sort(np.concatenate([indices[label] for label in labels]))


def shown(values):
    """Returns a short text of a collection of labels, for messages."""
    return f"{sorted(values, key=str)[:10]} ({len(values)} in all)"
