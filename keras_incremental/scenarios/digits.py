"""Handwritten digits that come with scikit-learn: no download."""

import numpy as np

from keras_incremental.optional import imported


def load_digits() -> tuple[np.ndarray, ...]:
    """Loads 1,797 handwritten digits of 8x8 pixels, split 75 to 25.

    Source: UCI Optical Recognition of Handwritten Digits, the copy inside
    scikit-learn. Grey values 0..16 are scaled to 0..255 and rounded. The
    split is stratified and always the same (`random_state=0`).

    Returns:
        `(x_train, y_train, x_test, y_test)`: images `(n, 8, 8, 1)` uint8 and
        labels `(n,)` int64 in 0..9; 1,347 training and 450 test images.

    Raises:
        ImportError: scikit-learn is not installed.

    Example:

    >>> x_train, y_train, x_test, y_test = load_digits()
    >>> x_train.shape
    (1347, 8, 8, 1)
    """
    datasets = imported("sklearn.datasets", "examples")
    model_selection = imported("sklearn.model_selection", "examples")
    digits = datasets.load_digits()
    images = np.rint(digits.images * (255 / 16)).astype("uint8")[..., None]
    labels = digits.target.astype("int64")
    x_train, x_test, y_train, y_test = model_selection.train_test_split(
        images, labels, test_size=0.25, stratify=labels, random_state=0
    )
    return x_train, y_train, x_test, y_test
