"""The warm-up requests, read by TensorFlow Serving's own protocol buffers."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from keras_incremental.export import publish, warm_up

PATH = "assets.extra/tf_serving_warmup_requests"


@pytest.fixture(scope="module")
def logs(grown_version):
    return read_logs(grown_version)


@pytest.fixture(scope="module")
def signatures(grown_version):
    return tf.saved_model.load(str(grown_version)).signatures


def read_logs(version):
    return [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(version / PATH))
    ]


def unknown_fields(message):
    """Whether a message holds anything that its definition does not."""
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return known.ByteSize() != message.ByteSize()


@pytest.mark.slow
def test_there_is_one_request_for_each_signature(logs):
    predicted = [
        log.predict_log.request.model_spec.signature_name for log in logs[:3]
    ]
    assert predicted == ["serving_default", "serving_bytes", "classify"]
    (classified,) = logs[3:]
    assert classified.WhichOneof("log_type") == "classify_log"
    spec = classified.classify_log.request.model_spec
    assert spec.signature_name == "classification"


@pytest.mark.slow
def test_requests_hold_nothing_that_the_server_does_not_know(logs):
    assert not any(unknown_fields(log) for log in logs)


@pytest.mark.slow
def test_predict_requests_run(signatures, logs):
    for log in logs[:3]:
        request = log.predict_log.request
        signature = signatures[request.model_spec.signature_name]
        outputs = signature(
            **{
                key: tf.constant(tf.make_ndarray(value))
                for key, value in request.inputs.items()
            }
        )
        assert outputs["probabilities"].shape == (1, 5)


@pytest.mark.slow
def test_the_classify_request_holds_an_example_that_runs(signatures, logs):
    examples = logs[3].classify_log.request.input.example_list.examples
    assert len(examples) == 1
    outputs = signatures["classification"](
        inputs=tf.constant([examples[0].SerializeToString()])
    )
    assert outputs["scores"].shape == (1, 5)


@pytest.mark.slow
def test_requests_are_of_one_black_image(logs):
    inputs = logs[0].predict_log.request.inputs
    np.testing.assert_array_equal(
        tf.make_ndarray(inputs["images"]), np.zeros((1, 8, 8, 1))
    )
    (data,) = tf.make_ndarray(logs[1].predict_log.request.inputs["image_bytes"])
    np.testing.assert_array_equal(tf.io.decode_image(data), np.zeros((8, 8, 1)))


@pytest.mark.slow
def test_images_of_any_size_are_warmed_up_at_the_size_asked_for(
    any_size_version,
):
    logs = read_logs(any_size_version)
    images = logs[0].predict_log.request.inputs["images"]
    assert tf.make_ndarray(images).shape == (1, 11, 9, 3)


def test_vectors_have_one_request(vectors, tmp_path):
    (log,) = read_logs(publish(vectors, tmp_path))
    images = log.predict_log.request.inputs["images"]
    assert tf.make_ndarray(images).shape == (1, 6)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, b"\x00"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (300, b"\xac\x02"),  # the example of the encoding's documentation
        (2**21, b"\x80\x80\x80\x01"),
    ],
)
def test_lengths_are_written_in_groups_of_seven_bits(number, expected):
    assert warm_up._varint(number) == expected
