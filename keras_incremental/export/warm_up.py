"""Requests that a server sends to a version before it serves it.

The first request to a signature is slow, as TensorFlow plans its graph then.
TensorFlow Serving sends those it finds in a version's folder beforehand:
https://www.tensorflow.org/tfx/serving/saved_model_warmup. They are records of
`tensorflow.serving.PredictionLog`, a protocol buffer of the distribution
`tensorflow-serving-api`. The few fields needed are written here, so that
publishing does not need it: each of them is a string or a message, and is
written as its number, its length and its bytes.
"""

import tensorflow as tf

from keras_incremental.export.signatures import ENCODED

FILE_NAME = "tf_serving_warmup_requests"
_LENGTH_DELIMITED = 2


def write(functions, shape, folder):
    """Writes one request for each signature, of one black image.

    Args:
        functions: concrete functions by name, as `signatures` returns them.
        shape: Shape of one raw input.
        folder: `pathlib.Path`, `assets.extra` of the version; it is made.
    """
    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / FILE_NAME)) as file:
        for name in functions:
            file.write(_request(name, shape))


def _request(name, shape):
    if name == "serving_default":
        return _predict_log(name, "images", tf.zeros((1, *shape)))
    image = tf.io.encode_png(tf.zeros(shape, tf.uint8)).numpy()
    if name == "serving_bytes":
        return _predict_log(name, "image_bytes", [image])
    value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
    example = tf.train.Example(
        features=tf.train.Features(feature={ENCODED: value})
    ).SerializeToString()
    if name == "classify":
        return _predict_log(name, "inputs", [example])
    return _classify_log(name, example)


def _predict_log(signature, key, tensor):
    """`PredictionLog.predict_log.request`: model_spec, inputs."""
    tensor = tf.make_tensor_proto(tensor).SerializeToString()
    entry = _field(1, key.encode()) + _field(2, tensor)
    request = _field(1, _model_spec(signature)) + _field(2, entry)
    return _field(6, _field(1, request))


def _classify_log(signature, example):
    """`PredictionLog.classify_log.request`: model_spec, input."""
    example_list = _field(1, example)
    request = _field(1, _model_spec(signature)) + _field(
        2, _field(1, example_list)
    )
    return _field(2, _field(1, request))


def _model_spec(signature):
    return _field(3, signature.encode())


def _field(number, value):
    """Returns a string or a message as a field of a protocol buffer."""
    key = number << 3 | _LENGTH_DELIMITED
    return _varint(key) + _varint(len(value)) + value


def _varint(number):
    """Returns an integer in groups of seven bits, the lowest first."""
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])
