"""A model as a SavedModel with all that TensorFlow Serving reads of it."""

import json

import tensorflow as tf

from keras_incremental.export import warm_up
from keras_incremental.export.version_folders import MARKER

FORMAT_VERSION = 1
REPORT = MARKER.with_name("report.json")


def write(functions, class_names, shape, folder, fingerprint, report=None):
    """Writes the functions of a model into an empty folder.

    Args:
        functions: concrete functions by signature, as `signatures` returns
            them.
        class_names: in the model's order.
        shape: Shape of one raw input, with the size that encoded images get.
        folder: `pathlib.Path`.
        fingerprint: tells the model from others; text.
        report: what to tell of the version, JSON types, or `None`.
    """
    module = tf.Module()
    # Not the model, but what the signatures read: no optimizer, no teacher,
    # and nothing that needs Keras to be loaded.
    module.read = list(functions["serving_default"].variables)
    tf.saved_model.save(
        module,
        str(folder),
        functions,
        tf.saved_model.SaveOptions(experimental_custom_gradients=False),
    )
    if "classification" in functions:
        _mark_for_classify(folder)
    _write_text(
        folder / "assets" / "class_names.txt",
        "".join(f"{name}\n" for name in class_names),
    )
    warm_up.write(functions, shape, folder / "assets.extra")
    record = {
        "format_version": FORMAT_VERSION,
        "classes": len(class_names),
        "fingerprint": fingerprint,
    }
    _write_text(folder / MARKER, json.dumps(record) + "\n")
    if report is not None:
        text = json.dumps(report, indent=1, ensure_ascii=False)
        _write_text(folder / REPORT, text + "\n")


def read_record(version):
    """Returns what `write` noted about a version; `{}` if it cannot be read."""
    try:
        record = json.loads((version / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _mark_for_classify(folder):
    """Makes `classification` a signature that the Classify method takes.

    `tf.saved_model.save` marks every signature as one for Predict.
    """
    signature_defs = tf.compat.v1.saved_model.signature_def_utils
    updater = signature_defs.MethodNameUpdater(str(folder))
    updater.replace_method_name(
        "classification",
        tf.saved_model.CLASSIFY_METHOD_NAME,
        tags=tf.saved_model.SERVING,
    )
    updater.save()


def _write_text(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode("utf-8"))
