"""Columns of samples that are computed once, and looked up from then on."""

import errno
import gc
import os
import weakref

import numpy as np
import pytest
import tensorflow as tf

from keras_incremental.samples import (
    CachedColumn,
    cache_column,
    cached_columns,
    read_samples,
)

SHAPE = (2, 2, 1)


def column(rows=None):
    """Two variants of five samples; row (c, i) is filled with 10 c + i."""
    if rows is None:
        rows = np.zeros((2, 5, 3), "float32")
        rows += (10 * np.arange(2)[:, None] + np.arange(5))[..., None]
    return CachedColumn("frozen", rows, np.array([3, 1, 3, 1, 3]))


def make_samples(count, cache_bytes=10**6):
    """Image i is filled with i."""
    images = np.zeros((count, *SHAPE), "uint8")
    images += np.arange(count, dtype="uint8")[:, None, None, None]
    data = tf.data.Dataset.from_tensor_slices((images, np.arange(count)))
    return read_samples(
        data.batch(4), image_shape=SHAPE, cache_bytes=cache_bytes
    )


def first_pixels(images):
    return tf.cast(images[:, 0, 0, :], tf.float32)


class Brighter:
    """Adds 100 to every pixel, and notes the seeds that it is given."""

    stored = False

    def __init__(self):
        self.seeds = []

    def __call__(self, images, seed):
        self.seeds.append(tuple(np.asarray(seed).tolist()))
        return images + 100


def test_a_column_gives_its_first_variant_by_index():
    cached = column()
    assert len(cached) == 5 and cached.copies == 2
    np.testing.assert_array_equal(cached.take([4, 0]), cached.rows[0, [4, 0]])


def test_a_look_up_is_of_the_variant_that_the_epoch_asks_for():
    look_up = column().look_up()
    data = tf.data.Dataset.from_tensors((3, [4, 0, 4])).map(look_up)
    assert data.element_spec == {"frozen": tf.TensorSpec((None, 3), tf.float32)}
    (batch,) = data.as_numpy_iterator()
    assert batch["frozen"][:, 0].tolist() == [14, 10, 14]
    assert look_up(0, [2])["frozen"][:, 0].numpy().tolist() == [2]


def test_a_column_of_several_tensors_keeps_their_structure():
    wide, deep = np.arange(30.0).reshape(2, 5, 3), np.arange(10).reshape(2, 5)
    cached = column(rows=(wide, deep))
    assert cached.copies == 2
    for found in (
        cached.take([4, 1]),
        cached.look_up()(2, tf.constant([4, 1]))["frozen"],
    ):
        assert isinstance(found, tuple)
        np.testing.assert_array_equal(found[0], wide[0, [4, 1]])
        np.testing.assert_array_equal(found[1], deep[0, [4, 1]])


def test_a_column_may_be_mapped_from_a_file(tmp_path):
    rows = np.memmap(tmp_path / "rows", "uint8", "w+", shape=(1, 5, *SHAPE))
    rows[0] = np.arange(20).reshape(5, *SHAPE)
    found = column(rows=rows).look_up()(7, [3])["frozen"]
    np.testing.assert_array_equal(found, rows[0, [3]])


def test_rows_are_freed_with_their_column():
    """TensorFlow keeps functions of datasets till the process ends."""
    gc.freeze()  # leaves few objects to search
    cached = column()
    freed = weakref.ref(cached.rows)
    indices = tf.data.Dataset.from_tensors((0, [0, 1]))
    assert len(list(indices.map(cached.look_up()))) == 1
    del cached
    gc.collect()
    assert freed() is None


@pytest.mark.parametrize("cache_bytes", [10**6, 0])
@pytest.mark.parametrize("memory_bytes", [10**6, 0])
def test_a_column_is_computed_once_for_each_sample(cache_bytes, memory_bytes):
    computed = []

    def function(images):
        computed.append(len(images))
        return first_pixels(images), tf.cast(images, tf.int32)

    cached = cache_column(
        "frozen",
        function,
        make_samples(150, cache_bytes),
        memory_bytes=memory_bytes,
    )
    assert cached.name == "frozen" and cached.copies == 1
    assert cached.labels.tolist() == [*range(150)]
    assert computed == [1, 128, 22]  # one image to see the shapes
    features, images = cached.take(np.arange(150))
    assert isinstance(cached.rows[0], np.memmap) is (memory_bytes == 0)
    assert features[:, 0].tolist() == [*range(150)]
    assert features.dtype == np.float32 and images.dtype == np.int32
    assert images[:, 1, 1, 0].tolist() == [*range(150)]


def test_the_first_variant_is_plain_and_each_other_has_draws_of_its_own():
    augment = Brighter()
    cached = cache_column(
        "frozen",
        first_pixels,
        make_samples(130),
        augment=augment,
        copies=3,
        seed=(1, 2),
        memory_bytes=10**6,
    )
    rows = cached.rows[..., 0]
    assert rows[0].tolist() == [*range(130)]
    plain = np.arange(130, dtype="uint8")
    assert (rows[1:] == plain + np.uint8(100)).all()
    assert len(set(augment.seeds)) == 4  # two batches of two variants


def test_the_draws_of_the_variants_follow_the_seed():
    def seeds(seed):
        augment = Brighter()
        cache_column(
            "frozen", first_pixels, make_samples(3), augment=augment,
            copies=2, seed=seed, memory_bytes=10**6,
        )  # fmt: skip
        return augment.seeds

    assert seeds((1, 2)) == seeds((1, 2)) != seeds((1, 3))


def test_files_of_a_column_go_with_it(mapped_files):
    gc.freeze()  # leaves few objects to search
    cached = cache_column(
        "frozen", first_pixels, make_samples(5), memory_bytes=0
    )
    assert isinstance(cached.rows, np.memmap) and mapped_files() == 1
    del cached
    gc.collect()
    assert mapped_files() == 0


def test_a_disk_without_room_names_what_can_be_done(monkeypatch):
    full = cached_columns.shutil.disk_usage("/")._replace(free=7)
    monkeypatch.setattr(cached_columns.shutil, "disk_usage", lambda path: full)
    with pytest.raises(
        ValueError, match=r"20 bytes.*cache_bytes=3.*7 bytes free.*copies=0"
    ):
        cache_column("frozen", first_pixels, make_samples(5), memory_bytes=3)


def test_room_that_another_takes_meanwhile_is_an_error_and_no_crash(
    monkeypatch, tmp_path, mapped_files
):
    """A mapped file that the disk has no room for would end the process."""
    gc.freeze()  # leaves few objects to search

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=rf"{tmp_path}.*No space left.*TMPDIR"):
        cache_column("frozen", first_pixels, make_samples(5), memory_bytes=0)
    gc.collect()
    assert mapped_files() == 0


def test_images_of_an_unknown_size_are_cached():
    data = tf.data.Dataset.from_generator(
        lambda: iter([(np.ones((3, *SHAPE), "uint8"), np.arange(3))]),
        output_signature=(
            tf.TensorSpec((None, None, None, 1), tf.uint8),
            tf.TensorSpec((None,), tf.int64),
        ),
    )
    samples = read_samples(data, image_shape=(None, None, 1), cache_bytes=0)
    cached = cache_column("frozen", first_pixels, samples, memory_bytes=10**6)
    np.testing.assert_array_equal(cached.rows, np.ones((1, 3, 1)))


def test_half_precision_takes_half_the_room():
    def function(images):
        return tf.cast(first_pixels(images), tf.bfloat16)

    for memory_bytes in (0, 10**6):
        cached = cache_column(
            "frozen", function, make_samples(5), memory_bytes=memory_bytes
        )
        assert cached.rows.nbytes == 5 * 2
        rows = cached.look_up()(0, tf.range(5))["frozen"]
        assert rows.dtype == tf.bfloat16
        assert tf.cast(rows, tf.int32)[:, 0].numpy().tolist() == [*range(5)]


def test_memory_is_used_up_to_the_last_byte():
    for memory_bytes, kind in ((20, np.ndarray), (19, np.memmap)):
        cached = cache_column(
            "frozen", first_pixels, make_samples(5), memory_bytes=memory_bytes
        )
        assert type(cached.rows) is kind


@pytest.mark.usefixtures("impatient")
def test_a_progress_bar_is_shown_unless_silent(capsys):
    cache_column("frozen", first_pixels, make_samples(5), memory_bytes=99)
    assert capsys.readouterr().out == ""
    cache_column(
        "frozen", first_pixels, make_samples(5), memory_bytes=99, verbose=1
    )
    assert "1/1" in capsys.readouterr().out
