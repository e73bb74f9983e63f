"""Images and labels in a fixed order, in arrays or streamed."""

import os
import pathlib
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from keras_incremental.samples import (
    ArraySamples,
    StreamedSamples,
    look_up_in_arrays,
    read_samples,
)

SHAPE = (4, 4, 1)
IMAGES = np.arange(10 * 16, dtype="uint8").reshape(10, *SHAPE)
LABELS = np.array([3, 1] * 5)


def dataset(images=IMAGES, labels=LABELS, batch=4):
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch)


def read(x, **options):
    return read_samples(x, image_shape=SHAPE, **options)


@pytest.mark.parametrize("cache_bytes", [10**6, 0])
def test_a_dataset_gives_the_same_samples_cached_or_streamed(cache_bytes):
    samples = read(dataset(), cache_bytes=cache_bytes)
    kind = ArraySamples if cache_bytes else StreamedSamples
    assert isinstance(samples, kind)
    assert samples.labels.tolist() == LABELS.tolist()
    assert samples.of_label(1).tolist() == [1, 3, 5, 7, 9]
    data = samples.images()
    assert data.element_spec == samples.image_spec
    assert data.cardinality() == len(samples) == 10
    images = np.stack(list(data.as_numpy_iterator()))
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


def test_a_streamed_dataset_whose_order_changes_is_an_error():
    labels = np.arange(10)
    shuffled = dataset(labels=labels, batch=1).shuffle(10, seed=1)
    samples = read(shuffled, cache_bytes=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="shuffle"):
        list(samples.images())


def test_streamed_samples_cannot_be_looked_up():
    assert read(dataset(), cache_bytes=0).look_up() is None


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
    columns = look_up_in_arrays(arrays)(0, tf.constant(indices, tf.int64))
    assert columns.keys() == {"images"}
    assert columns["images"].dtype == dtype
    np.testing.assert_array_equal(columns["images"].numpy(), rows[indices])


def test_the_look_up_does_not_see_later_changes_of_the_array():
    images = np.zeros((2, 2, 2, 1), "uint8")
    look_up = ArraySamples(images, np.arange(2)).look_up()
    images[:] = 1
    assert not look_up(0, tf.constant([0, 1]))["images"].numpy().any()


RAM_SCRIPT = """
import gc
import numpy as np
import tensorflow as tf
from keras_incremental.samples import ArraySamples, training_batches

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

few = ArraySamples(np.ones((64, 128, 128, 3), "uint8"), np.arange(64))
use(few)
images = np.ones((6000, 128, 128, 3), "uint8")  # 295 MB
print(images.nbytes / 1e6, megabytes("VmRSS"))
use(ArraySamples(images, np.arange(len(images))))
gc.collect()
print(megabytes("VmHWM"), megabytes("VmRSS"))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not pathlib.Path("/proc/self/status").exists(), reason="needs Linux"
)
def test_training_takes_one_copy_of_the_images_and_gives_it_back():
    root = pathlib.Path(__file__).parents[2]
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
