"""Images and labels in a fixed order, in arrays or in a file."""

import gc
import os
import pathlib
import shutil
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from keras_incremental.samples import (
    ArraySamples,
    MappedSamples,
    look_up_in_arrays,
    read_samples,
    training_batches,
)

SHAPE = (4, 4, 1)
IMAGES = np.arange(10 * 16, dtype="uint8").reshape(10, *SHAPE)
LABELS = np.array([3, 1] * 5)


def dataset(images=IMAGES, labels=LABELS, batch=4):
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch)


def read(x, **options):
    return read_samples(x, image_shape=SHAPE, **options)


@pytest.mark.parametrize("cache_bytes", [10**6, 160, 100, 0])
def test_a_dataset_gives_the_same_samples_in_memory_or_in_a_file(cache_bytes):
    samples = read(dataset(), cache_bytes=cache_bytes)
    kind = ArraySamples if cache_bytes >= 160 else MappedSamples
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


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float64, tf.int16])
def test_a_file_holds_images_of_any_dtype(dtype):
    images = tf.cast(IMAGES, dtype)
    samples = read(dataset(images), cache_bytes=0)
    assert samples.image_spec == tf.TensorSpec(SHAPE, dtype)
    np.testing.assert_array_equal(samples.take(range(10)), images)
    index = tf.constant([7, 0, 7])
    columns = samples.look_up()(0, index)
    np.testing.assert_array_equal(columns["images"], images.numpy()[[7, 0, 7]])


def test_images_without_room_on_the_disk_are_refused_before_they_are_read(
    monkeypatch,
):
    full = shutil.disk_usage("/")._replace(free=IMAGES.nbytes - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    expected = rf"{IMAGES.nbytes} bytes.*given 1 images.*disk has room.*TMPDIR"
    with pytest.raises(ValueError, match=expected):
        read(dataset(batch=1), cache_bytes=0)


@pytest.mark.parametrize("cache_bytes", [10**6, 0])
def test_a_dataset_is_read_once_whatever_its_order(cache_bytes):
    shuffled = dataset(labels=np.arange(10), batch=1).shuffle(10, seed=1)
    samples = read(shuffled, cache_bytes=cache_bytes)
    assert samples.labels.tolist() != [*range(10)]
    for _ in range(2):
        np.testing.assert_array_equal(
            [*samples.images()], IMAGES[samples.labels]
        )


def test_the_file_goes_with_the_samples(mapped_files):
    gc.freeze()  # leaves few objects to search
    samples = read(dataset(), cache_bytes=100)
    assert mapped_files() == 1
    assert len([*samples.images()]) == 10
    batches, _ = training_batches(
        [samples], lambda labels: labels.astype("int32"), batch_size=4
    )
    next(iter(batches))
    del batches, samples
    gc.collect()
    assert mapped_files() == 0


@pytest.mark.parametrize("cache_bytes", [10**6, 0])
def test_images_of_two_sizes_in_one_dataset_are_refused(cache_bytes):
    sizes = tf.data.Dataset.from_tensor_slices([[4, 6], [6, 4]])
    data = sizes.map(lambda size: (tf.zeros((2, *tf.unstack(size), 1)), [0, 1]))
    with pytest.raises(ValueError, match=r"\(2, 6, 4, 1\).*Resize"):
        read_samples(data, image_shape=(None, None, 1), cache_bytes=cache_bytes)


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
