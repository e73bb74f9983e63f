"""Reading and checking what a user passes to fit."""

import numpy as np
import pytest
import tensorflow as tf

from keras_incremental.samples import Pixels, read_samples, reading

SHAPE = (4, 4, 1)
IMAGES = np.arange(10 * 16, dtype="uint8").reshape(10, *SHAPE)
LABELS = np.array([3, 1] * 5)


def dataset(images=IMAGES, labels=LABELS, batch=4):
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch)


def read(x, y=None, **options):
    return read_samples(x, y, image_shape=SHAPE, **options)


def test_a_dataset_that_fits_is_read_once_and_keeps_its_first_order():
    passes = []

    def generate():
        passes.append(1)
        yield from zip(IMAGES, LABELS, strict=True)

    data = tf.data.Dataset.from_generator(
        generate,
        output_signature=(
            tf.TensorSpec(SHAPE, tf.uint8),
            tf.TensorSpec((), tf.int64),
        ),
    )
    samples = read(data.batch(3))
    list(samples.images())
    samples.take([1])
    assert len(passes) == 1


def test_labels_of_shape_samples_by_one_are_flattened():
    samples = read(IMAGES, LABELS[:, None])
    assert samples.labels.tolist() == LABELS.tolist()
    samples = read(dataset(labels=LABELS[:, None]), cache_bytes=0)
    assert len(list(samples.images())) == 10


FLOAT = IMAGES.astype("float32")
NAN = FLOAT.copy()
NAN[6, 0, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (IMAGES[:, :3], LABELS, ValueError, r"takes \(None, 4, 4, 1\)"),
        (IMAGES.astype(bool), LABELS, TypeError, "bool"),
        (NAN, LABELS, ValueError, "Image 6 holds NaN"),
        (IMAGES, LABELS[:5], ValueError, "10 images but 5 labels"),
        (IMAGES, None, ValueError, "Labels are missing"),
        (IMAGES, LABELS * 1.0, TypeError, "float64"),
        (IMAGES, -LABELS, ValueError, "negative"),
        (IMAGES[:0], LABELS[:0], ValueError, "no images"),
        (iter([]), LABELS, TypeError, "from_generator"),
        (dataset(NAN), None, ValueError, "Image 6 holds NaN"),
        (dataset().unbatch(), None, ValueError, r"\.batch\(batch_size\)"),
        (dataset().repeat(), None, ValueError, r"\.repeat\(\)"),
        (dataset().take(0), None, ValueError, "no images"),
        (dataset(labels=LABELS * 1.0), None, TypeError, "float64"),
        (dataset(IMAGES[:, :3]), None, ValueError, "the model takes"),
        (dataset(), LABELS, ValueError, "inside the dataset"),
        (dataset().map(lambda x, y: x), None, ValueError, "batches"),
        (dataset().map(lambda x, y: (x, y, y)), None, ValueError, "weights"),
    ],
)
def test_bad_data_is_refused_with_the_reason(x, y, error, message):
    with pytest.raises(error, match=message):
        read(x, y)


def endless():
    """A dataset that does not tell that it never ends."""

    def generate():
        while True:
            yield IMAGES, LABELS

    return tf.data.Dataset.from_generator(
        generate,
        output_signature=(
            tf.TensorSpec((None, *SHAPE), tf.uint8),
            tf.TensorSpec((None,), tf.int64),
        ),
    )


@pytest.mark.usefixtures("impatient")
def test_an_endless_dataset_of_unknown_length_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(reading, "_MOST_OF_UNKNOWN_LENGTH", 300)
    message = r"given 310 images.*dataset\.take\(batches\).*assert_cardinality"
    with pytest.raises(ValueError, match=message):
        read(endless(), verbose=2)
    with pytest.raises(ValueError, match=message):
        read(endless(), verbose=1)
    assert "/Unknown" in capsys.readouterr().out
    ends = endless().take(40)
    told = ends.apply(tf.data.experimental.assert_cardinality(40))
    assert len(read(told)) == 400
    with pytest.raises(ValueError, match=r"never ends.*\.take"):
        read(endless().repeat())


def test_a_dataset_that_the_disk_has_no_room_for_is_refused(monkeypatch):
    monkeypatch.setattr(reading, "_MOST_OF_DISK", 1e-12)
    with pytest.raises(ValueError, match=r"disk has room.*TMPDIR"):
        read(dataset(), cache_bytes=0)


def test_the_range_of_all_batches_is_compared():
    like = Pixels(np.dtype("float32"), 0.0, 255.0)
    dark = np.zeros((6, *SHAPE), "float32")
    dark[5] = 0.5
    with pytest.raises(ValueError, match=r"from 0 to 0\.5.*from 0 to 255"):
        read(dark, np.zeros(6, int), like=like)
    dark[0] = 200
    samples = read(dataset(dark, np.zeros(6, int), 2), like=like)
    assert samples.pixels == Pixels(np.dtype("float32"), 0.0, 200.0)
    black = read(np.zeros((2, *SHAPE), "uint8"), np.zeros(2, int), like=like)
    assert black.image_spec.dtype == tf.float32
