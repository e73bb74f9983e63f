"""What people pass as images to be named, and the names that they get."""

import os

import keras
import numpy as np
import scipy.special
import tensorflow as tf
from PIL import Image, ImageOps

from keras_incremental.files import as_path
from keras_incremental.networks import all_layers
from keras_incremental.scenarios.image_files import (
    image_reader,
    resize_and_crop,
)

_PATHS = (str, os.PathLike)
_MODES = {1: "L", 3: "RGB"}  # of Pillow, by channels
_BYTE_SCALE = 1 / 64  # a model that multiplies by less takes bytes
_EXPECTED = (
    "takes a batch (samples, height, width, channels), one image (height, "
    "width, channels), a path, a Pillow image, or a list of the last three"
)


class Classification(tuple):
    """Pairs `(name, probability)` of an image, the most probable one first.

    >>> result = Classification([("cat", 0.75), ("dog", 0.25)])
    >>> result[0]
    ('cat', 0.75)
    >>> print(result)
    cat 75.0%, dog 25.0%
    """

    def __str__(self):
        return ", ".join(f"{name} {share:.1%}" for name, share in self)

    def __repr__(self):
        return f"({self})"


def ranked(scores: np.ndarray, names: list[str], top_k: int) -> list:
    """Returns a `Classification` for each row of scores.

    Args:
        scores: `(samples, classes)`; a softmax makes them probabilities.
        names: of the classes.
        top_k: how many classes of each row.
    """
    shares = scipy.special.softmax(scores, axis=-1)
    order = np.argsort(-scores, axis=-1, kind="stable")[:, :top_k]
    return [
        Classification((names[unit], float(row[unit])) for unit in best)
        for row, best in zip(shares, order, strict=True)
    ]


def as_image_batch(x, shape) -> tuple[np.ndarray, bool]:
    """Returns images as one batch, and whether they are a single image.

    Images of another size are resized and cropped as `from_directory` does,
    files and Pillow images are turned as their EXIF orientation says.

    Args:
        x: a batch, one image, a path, a Pillow image, or a list of the last
            three.
        shape: `(height, width, channels)` that a model takes; where a size is
            `None`, that of the first image.

    Raises:
        ValueError: for no images, an image of another number of axes or
            channels, or a file that cannot be decoded.
        FileNotFoundError: if there is no such file.
    """
    is_single = isinstance(x, (*_PATHS, Image.Image))
    if not is_single and not isinstance(x, (list, tuple)):
        x = np.asarray(x)
        is_single = x.ndim != 4
        if x.size and x.shape[1:] == tuple(shape):
            return x, False
    images = [x] if is_single else x
    if len(images) == 0:
        raise ValueError(f"classify got no images; it {_EXPECTED}.")
    if None in shape[:2]:
        shape = (*_size_of(images[0]), shape[-1])
    read = [_read(image, shape, i) for i, image in enumerate(images)]
    return np.stack(read), is_single


def _size_of(image) -> tuple[int, int]:
    if isinstance(image, _PATHS):
        raise ValueError(
            "The model takes images of any size, so that a file can be read "
            "in any. Pass arrays instead of paths."
        )
    return np.shape(image)[:2]


def _read(image, shape, number: int) -> np.ndarray:
    """Returns an image of whatever kind as an array of the model's shape."""
    size, channels = tuple(shape[:2]), shape[-1]
    if isinstance(image, (*_PATHS, Image.Image)) and channels not in _MODES:
        raise ValueError(
            f"Image {number} is a {type(image).__name__}, and the model takes "
            f"images of {channels} channels. Pass arrays."
        )
    if isinstance(image, _PATHS):
        if not as_path(image).exists():
            raise FileNotFoundError(f"There is no image {os.fspath(image)!r}.")
        return image_reader(size, channels)(os.fspath(image))
    if isinstance(image, Image.Image):
        image = ImageOps.exif_transpose(image).convert(_MODES[channels])
        image = np.asarray(image).reshape(*image.size[::-1], channels)
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != channels:
        raise ValueError(
            f"Image {number} has shape {image.shape}, and the model takes "
            f"{tuple(shape)}: height, width and {channels} channels. "
            "PIL.Image.open(path) and paths are converted; grey arrays get an "
            f"axis by image[..., None]. classify {_EXPECTED}."
        )
    if image.shape[:2] == size:
        return image
    return resize_and_crop(tf.convert_to_tensor(image), size).numpy()


def check_scale(images: np.ndarray, backbone: keras.Model) -> None:
    """Refuses images of 0 to 1 for a model that rescales 0 to 255 itself.

    Raises:
        ValueError: with their range and the name of the layer.
    """
    if images.dtype.kind != "f" or not 0 < np.abs(images).max() <= 1:
        return
    for layer in all_layers(backbone):
        is_rescaling = isinstance(layer, keras.layers.Rescaling)
        if is_rescaling and np.max(np.abs(layer.scale)) < _BYTE_SCALE:
            raise ValueError(
                f"The images are from {images.min():g} to {images.max():g}, "
                f"and the model rescales raw images of 0 to 255 itself, in its "
                f"layer {layer.name!r}. Pass images * 255."
            )
