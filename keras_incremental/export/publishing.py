"""Writing a model as the next version of a served one."""

import hashlib
import json
import pathlib
import warnings
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from keras_incremental._types import PathLike
from keras_incremental.export import saved_model, version_folders
from keras_incremental.export.signatures import signatures
from keras_incremental.models import (
    IncrementalClassifier,
    in_float32,
    not_finite,
)
from keras_incremental.progress import told_if_long
from keras_incremental.scenarios.image_files import as_size

KEEP = 5


def publish(
    model: keras.Model,
    base: PathLike,
    keep: int | None = KEEP,
    image_size: tuple[int, int] | None = None,
    as_float32: bool = True,
    report: Mapping | None = None,
    verbose: int = 1,
) -> pathlib.Path:
    """Writes a model as `base/<next version>/` for TensorFlow Serving.

    The version is written under a name that a server ignores, flushed to
    disk, and then renamed: a server that polls `base` sees all of it or
    nothing. Several processes may publish into one folder; each gets a number
    of its own. If publishing fails, the versions there are as they were.

    Signatures (`c` channels; `k` = all classes, but at most 1000):

    - `serving_default`: `images`, `(batch, h, w, c)` float32, raw pixels in
      the range that the model was trained on.
    - `serving_bytes`: `image_bytes`, `(batch,)` strings, each a JPEG, PNG, GIF,
      BMP or WebP file of any size. It is decoded to `c` channels, turned as its
      EXIF orientation says, resized until it covers `(h, w)` and cropped at the
      centre, as `ClassIncrementalScenario.from_directory` does for training.
    - `classify`: `inputs`, `(batch,)` serialized `tf.train.Example`s, whose
      feature `image/encoded` holds such a file.
    - `classification`: the same inputs for the server's Classify method, which
      allows two outputs alone, `classes` and `scores`, `(batch, k)` each.

    Outputs of the first three: `probabilities` `(batch, classes)` float32, in
    the model's order; `classes` `(batch, k)` names and `class_ids` `(batch, k)`
    int32 columns of `probabilities`, both best first.

    A model whose inputs are not pictures of 1 or 3 channels has
    `serving_default` alone. The version also holds `assets/class_names.txt`,
    a name a line in the model's order, and one warm-up request for each
    signature in `assets.extra/tf_serving_warmup_requests`.

    Args:
        model: an `IncrementalClassifier` that knows one class or more.
        base: `str` or path-like, the local folder of the served model's
            versions; made if it is missing.
        keep: how many of the versions written by `publish` to keep, the
            newest; older ones are deleted. `None` keeps all. A server that is
            loading a version needs it to stay: keep 2 or more, and those that
            its configuration names. Nothing else in `base` is ever deleted.
        image_size: an int or `(height, width)` in pixels, to which encoded
            images are resized; needed if the model takes images of any size.
        as_float32: whether a model trained in mixed precision is served in
            float32 throughout, or computes as it was trained. Probabilities
            are float32 in any case.
        report: what to tell of the version, JSON types, such as
            `TaskReport.to_json()`; it is written to `assets.extra/report.json`.
        verbose: 0 is silent, else a line is written if it takes long.

    Returns:
        `pathlib.Path` of the version's folder.

    Raises:
        TypeError: if `model` is no `IncrementalClassifier`.
        ValueError: if the model knows no classes or has weights that are not
            finite, a name has a line break,
            `keep` is below 1, `base` is a version or not local, or the size of
            images is not known or not the model's.
        OSError: if `base` cannot be written.

    >>> import tempfile
    >>> import keras_incremental as ki
    >>> model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
    >>> model.add_classes([40, 7], ["forty", "seven"])
    >>> folder = tempfile.mkdtemp() + "/my_model"
    >>> version = publish(model, folder, verbose=0)
    >>> version.name, sorted(path.name for path in version.iterdir())
    ('1', ['assets', 'assets.extra', 'fingerprint.pb', 'saved_model.pb',
           'variables'])
    """
    _check_model(model)
    fingerprint = fingerprint_of(model)
    if keep is not None and keep < 1:
        raise ValueError(
            f"keep={keep} would delete the version just written. Use 1 or "
            "more, or None for all."
        )
    base, shape = check_publication(
        base, model.class_names, model.input_shape[1:], image_size
    )
    if as_float32:
        model = in_float32(model)
    with told_if_long("publishing", verbose):
        functions, names = signatures(model, shape), model.class_names
        try:
            version = version_folders.add(
                base,
                lambda folder: saved_model.write(
                    functions, names, shape, folder, fingerprint, report
                ),
            )
        except (OSError, tf.errors.OpError) as error:
            raise _as_os_error(error, base) from error
    if keep is not None:
        _prune(base, keep, version)
    return version


def published_version(model: keras.Model, base: PathLike) -> pathlib.Path:
    """Returns the newest version in a folder that holds just this model.

    Args:
        model, base: as for `publish`.

    Returns:
        `pathlib.Path` of its folder, or `None`.
    """
    base = version_folders.checked_base(base)
    fingerprint = fingerprint_of(model)
    for version in reversed(version_folders.written_here(base)):
        if saved_model.read_record(version).get("fingerprint") == fingerprint:
            return version
    return None


def fingerprint_of(model):
    """Returns a SHA-256 of the classes and weights of a model, in hexadecimal.

    >>> import keras_incremental as ki
    >>> model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
    >>> before = fingerprint_of(model)
    >>> model.add_classes(["cat"])
    >>> fingerprint_of(model) == before
    False
    """
    structure = model.structure()
    # The shape of the first batch, which is not the same after a kill.
    structure["score_rule"].pop("build_config", None)
    content = hashlib.sha256(json.dumps(structure).encode())
    for variable in model.state_variables():
        content.update(keras.ops.convert_to_numpy(variable).tobytes())
    return content.hexdigest()


def check_publication(
    base: PathLike,
    class_names: Sequence[str],
    input_shape: tuple,
    image_size: tuple[int, int] | None = None,
) -> None:
    """Refuses what `publish` would refuse, before there is a model to publish.

    Args:
        base, image_size: as for `publish`.
        class_names: Names of the classes that the model is going to know.
        input_shape: Shape of one raw input, `(h, w, c)`.

    Returns:
        `(folder, shape)`: the path of the versions' folder, and `input_shape`
        with the size that encoded images get.

    Raises:
        ValueError, OSError: as `publish`.

    >>> check_publication("served/digits", ["zero", "one"], (8, 8, 1))[1]
    (8, 8, 1)
    """
    # Whatever `str.splitlines` takes for the end of a line.
    broken = [name for name in class_names if len(f"{name}.".splitlines()) > 1]
    if broken:
        raise ValueError(
            f"The class name {broken[0]!r} has a line break, but "
            "class_names.txt holds a name a line. Give the class another name."
        )
    shape = _served_shape(tuple(input_shape), image_size)
    return version_folders.checked_base(base), shape


def _check_model(model):
    if not isinstance(model, IncrementalClassifier):
        raise TypeError(
            f"publish got a {type(model).__name__}; expected an "
            "IncrementalClassifier. Make one of a trained Keras classifier "
            "with IncrementalClassifier.from_classifier."
        )
    if not model.num_classes:
        raise ValueError(
            "The model knows no classes yet, so there is nothing to serve. "
            "Teach it by a fit with an IncrementalCallback, or call "
            "add_classes(labels)."
        )
    if bad := not_finite(model.state_variables()):
        raise ValueError(
            f"{len(bad)} weights of the model are not finite, {bad[:3]} among "
            "them, so that its answers would not be. Publish the model as it "
            "was before its training went wrong."
        )


def _served_shape(shape, image_size):
    """Returns the shape of one input, with the height and width to serve."""
    if image_size is None:
        if None in shape:
            raise ValueError(
                f"The model takes inputs {shape} of any size. Pass "
                "image_size=(height, width), to which encoded images are "
                "resized, to keras_incremental.export.publish. Instead of "
                "publish_to, call it after fit."
            )
        return shape
    served = (*as_size(image_size), *shape[-1:])
    if not tf.TensorShape(shape).is_compatible_with(served):
        raise ValueError(
            f"image_size={image_size!r}, but the model takes inputs {shape}. "
            "Leave image_size out, or pass the size that the model takes."
        )
    return served


def _prune(base, keep, version):
    """Deletes old versions; if that fails, the new one is published still."""
    try:
        version_folders.prune(base, keep)
    except OSError as error:
        warnings.warn(
            f"{str(version)!r} is published, but older versions cannot be "
            f"deleted: {error}.",
            RuntimeWarning,
            stacklevel=3,
        )


def _as_os_error(error, base):
    """Returns the same error with the folder and what it means in its text."""
    reason = getattr(error, "strerror", None) or str(error)
    message = (
        f"Cannot publish into {str(base)!r}: {reason}. No version that was "
        "there is changed. Check that the folder can be written and that the "
        "disk is not full."
    )
    if isinstance(error, OSError) and error.errno is not None:
        return type(error)(error.errno, message)  # keeps PermissionError
    return OSError(message)
