"""Reading and checking what a user passes to fit."""

import gc
import os
import pathlib
import subprocess
import sys
import weakref

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from keras_incremental.samples import (
    ArraySamples,
    KeptSamples,
    StreamedSamples,
    look_up_in_arrays,
    read_samples,
)

SHAPE = (4, 4, 1)
IMAGES = np.arange(10 * 16, dtype="uint8").reshape(10, *SHAPE)
LABELS = np.array([3, 1] * 5)


def dataset(images=IMAGES, labels=LABELS, batch=4):
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch)


def read(x, y=None, **options):
    return read_samples(x, y, image_shape=SHAPE, **options)


@pytest.mark.parametrize("cache_bytes", [10**6, 0])
def test_a_dataset_gives_the_same_samples_cached_or_streamed(cache_bytes):
    samples = read(dataset(), cache_bytes=cache_bytes)
    kind = ArraySamples if cache_bytes else StreamedSamples
    assert isinstance(samples, kind)
    assert samples.labels.tolist() == LABELS.tolist()
    images = np.stack(list(samples.images().as_numpy_iterator()))
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(samples.take([7, 0, 7]), IMAGES[[7, 0, 7]])
    assert samples.image_spec == tf.TensorSpec(SHAPE, tf.uint8)


@pytest.mark.parametrize("cache_bytes", [10**6, 0])
@pytest.mark.parametrize("count", [0, 1, 150])
def test_parts_bring_each_image_asked_for_once(cache_bytes, count):
    images = np.arange(200 * 16).reshape(200, *SHAPE).astype("int32")
    data = dataset(images, np.zeros(200, int), batch=30)
    samples = read(data, cache_bytes=cache_bytes)
    indices = np.random.default_rng(0).permutation(200)[:count]
    found = np.full((count, *SHAPE), -1)
    for positions, part in samples.parts(indices):
        assert (found[positions] == -1).all() and len(part) <= 64
        found[positions] = part
    np.testing.assert_array_equal(found, images[indices])


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


def test_a_streamed_dataset_whose_order_changes_is_an_error():
    labels = np.arange(10)
    shuffled = dataset(labels=labels, batch=1).shuffle(10, seed=1)
    samples = read(shuffled, cache_bytes=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="shuffle"):
        list(samples.images())


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


def kept(owner=None, rows=None):
    """Two variants of five samples; row (c, i) is filled with 10 c + i."""
    if rows is None:
        rows = np.zeros((2, 5, 3), "float32")
        rows += (10 * np.arange(2)[:, None] + np.arange(5))[..., None]
    return KeptSamples(rows, np.array([3, 1, 3, 1, 3]), owner)


def test_kept_samples_show_their_first_variant_as_images():
    samples = kept()
    assert len(samples) == 5 and samples.copies == 2
    assert samples.image_spec == tf.TensorSpec((3,), tf.float32)
    data = samples.images()
    assert data.element_spec == samples.image_spec
    assert data.cardinality() == 5
    images = np.stack(list(data.as_numpy_iterator()))
    np.testing.assert_array_equal(images, samples.rows[0])
    np.testing.assert_array_equal(samples.take([4, 0]), samples.rows[0, [4, 0]])
    assert samples.of_label(1).tolist() == [1, 3]


def test_a_batch_of_kept_samples_is_of_the_variant_asked_for():
    samples = kept()
    data = tf.data.Dataset.from_tensors((1, [4, 0, 4])).map(samples.batch)
    assert data.element_spec == tf.TensorSpec((None, 3), tf.float32)
    (batch,) = data.as_numpy_iterator()
    assert batch[:, 0].tolist() == [14, 10, 14]
    assert samples.batch(0, [2])[:, 0].numpy().tolist() == [2]


def test_kept_samples_may_be_mapped_from_a_file(tmp_path):
    rows = np.memmap(tmp_path / "rows", "uint8", "w+", shape=(1, 5, 4, 4, 1))
    rows[0] = IMAGES[:5]
    samples = kept(rows=rows)
    images = np.stack(list(samples.images().as_numpy_iterator()))
    np.testing.assert_array_equal(images, IMAGES[:5])
    np.testing.assert_array_equal(samples.batch(0, [3]), IMAGES[3:4])


def test_rows_are_freed_with_the_kept_samples():
    """TensorFlow keeps functions of datasets till the process ends."""

    class Folder:
        pass

    owner = Folder()
    samples, freed = kept(owner), weakref.ref(owner)
    assert len(list(samples.images())) == 5
    indices = tf.data.Dataset.from_tensors((0, [0, 1]))
    assert len(list(indices.map(samples.batch))) == 1
    del owner, samples
    gc.collect()
    assert freed() is None


@hypothesis.given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=3).filter(sum),
    shape=st.sampled_from([(2, 3, 1), (3,), (1, 1, 1)]),
    dtype=st.sampled_from(
        [tf.uint8, tf.int8, tf.int64, tf.bfloat16, tf.float32, tf.float64]
    ),
    data=st.data(),
)
@hypothesis.settings(deadline=None, max_examples=50)
def test_arrays_are_looked_up_behind_one_another(counts, shape, dtype, data):
    numbers = np.random.default_rng(0)
    arrays = [
        numbers.integers(0, 100, (count, *shape)).astype(dtype.as_numpy_dtype)
        for count in counts
    ]
    rows = np.concatenate(arrays)
    indices = data.draw(st.lists(st.integers(0, len(rows) - 1)))
    found = look_up_in_arrays(arrays)(0, tf.constant(indices, tf.int64))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.numpy(), rows[indices])


def test_the_look_up_does_not_see_later_changes_of_the_array():
    images = np.zeros((2, 2, 2, 1), "uint8")
    look_up = ArraySamples(images, np.arange(2)).look_up()
    images[:] = 1
    assert not look_up(0, tf.constant([0, 1])).numpy().any()


RAM_SCRIPT = """
import gc
import numpy as np
import tensorflow as tf
from keras_incremental.exemplars import training_batches
from keras_incremental.samples import ArraySamples

def megabytes(kind):
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith(kind))
    return int(line.split()[1]) * 1024 / 1e6

def use(samples):
    for _ in samples.images().batch(64).prefetch(1):
        pass
    batches, _ = training_batches(
        [samples], lambda labels: labels.astype("int32"), batch_size=16
    )
    batches = iter(batches)
    for _ in range(3):
        next(batches)

few = ArraySamples(np.ones((64, 64, 64, 3), "uint8"), np.arange(64))
use(few)
images = np.ones((24000, 64, 64, 3), "uint8")  # 295 MB
print(images.nbytes / 1e6, megabytes("VmRSS"))
use(ArraySamples(images, np.arange(len(images))))
gc.collect()
print(megabytes("VmHWM"), megabytes("VmRSS"))
"""


@pytest.mark.skipif(
    not pathlib.Path("/proc/self/status").exists(), reason="needs Linux"
)
def test_training_takes_one_copy_of_the_images_and_gives_it_back():
    root = pathlib.Path(__file__).parents[1]
    output = subprocess.run(
        [sys.executable, "-c", RAM_SCRIPT],
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": str(root),
        },
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    size, before, peak, after = map(float, output.split())
    assert size > 290
    assert peak - before < 1.25 * size
    assert after - before < 0.25 * size
