"""Trunk outputs kept in memory or in a file, of images and their copies."""

import collections
import gc
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.methods import trunk_outputs
from keras_incremental.methods.trunk_outputs import keep_trunk_outputs
from keras_incremental.samples import ArraySamples

PLENTY = 10**9


@pytest.fixture
def make_model():
    def make(branch_at="stage1"):
        keras.utils.set_random_seed(0)
        backbone = ki.backbones.small((4, 4, 1))
        return ki.IncrementalClassifier(backbone, branch_at=branch_at)

    return make


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Returns a function that lists the files of kept outputs."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return lambda: [*tmp_path.glob("trunk_outputs_*/*")]


def make_samples(count=20):
    images = np.random.default_rng(0).integers(1, 255, (count, 4, 4, 1))
    return ArraySamples(images.astype("uint8"), np.arange(count) % 3)


class Stamp:
    """Replaces all images of a batch by one with two pixels drawn."""

    stored = False

    def __call__(self, images, seed):
        drawn = tf.random.stateless_uniform([2], seed, 1, 255, tf.int32)
        pixels = tf.concat([drawn, tf.zeros([14], tf.int32)], 0)
        pixels = tf.cast(tf.reshape(pixels, [1, 4, 4, 1]), images.dtype)
        return tf.tile(pixels, [len(images), 1, 1, 1])


def test_outputs_are_those_of_the_trunk_in_the_order_of_the_samples(make_model):
    model, samples = make_model(), make_samples(200)  # more than one batch
    kept = keep_trunk_outputs(model, samples, memory_bytes=PLENTY)
    expected = model.trunk.predict(samples.all_images(), verbose=0)
    np.testing.assert_allclose(kept.rows[0], expected, atol=1e-6)
    assert kept.rows.shape == (1, 200, 4, 4, 32)
    assert kept.rows.dtype == np.float32
    np.testing.assert_array_equal(kept.labels, samples.labels)
    assert kept.image_spec == tf.TensorSpec((4, 4, 32), tf.float32)


def test_copy_0_is_the_plain_image_and_the_others_have_draws_of_their_own(
    make_model,
):
    """Cut before all layers, the kept rows are the images themselves."""
    model, samples = make_model(0.0), make_samples(300)  # three batches
    kept = keep_trunk_outputs(
        model, samples, augment=Stamp(), copies=4, memory_bytes=PLENTY
    )
    np.testing.assert_array_equal(kept.rows[0], samples.all_images())
    assert kept.rows.dtype == np.uint8
    stamps = collections.Counter(
        tuple(image.ravel()[:2]) for image in kept.rows[1:].reshape(900, 16)
    )
    # One stamp for each copy of each batch, of 128, 128 and 44 images.
    assert sorted(stamps.values()) == [44] * 3 + [128] * 6


def test_the_trunk_sees_the_augmented_images(make_model):
    model, samples = make_model(), make_samples(9)
    augment = ki.augmentation.CropFlip(padding=1)
    images = keep_trunk_outputs(
        make_model(0.0), samples, augment=augment, copies=3, memory_bytes=PLENTY
    )
    outputs = keep_trunk_outputs(
        model, samples, augment=augment, copies=3, memory_bytes=PLENTY
    )
    assert (images.rows[1] != images.rows[2]).any()
    for copy in range(3):
        np.testing.assert_allclose(
            outputs.rows[copy], model.trunk(images.rows[copy]), atol=1e-5
        )


def test_the_same_seed_draws_the_same_copies_and_another_others(make_model):
    model, samples = make_model(0.0), make_samples()

    def rows(seed):
        return keep_trunk_outputs(
            model,
            samples,
            augment=ki.augmentation.CropFlip(padding=1),
            copies=2,
            seed=seed,
            memory_bytes=PLENTY,
        ).rows

    np.testing.assert_array_equal(rows((3, 1)), rows((3, 1)))
    assert (rows((3, 1)) != rows((3, 2))).any()
    assert (rows((3, 1)) != rows((4, 1))).any()


def test_outputs_beyond_the_memory_are_the_same_in_a_file(make_model, files):
    model, samples = make_model(), make_samples()
    size = 20 * 4 * 4 * 32 * 4  # float32
    in_memory = keep_trunk_outputs(model, samples, memory_bytes=size)
    assert not files()
    in_file = keep_trunk_outputs(model, samples, memory_bytes=size - 1)
    (path,) = files()
    assert path.stat().st_size == size
    np.testing.assert_array_equal(in_file.rows, in_memory.rows)
    np.testing.assert_array_equal(
        in_file.take([7, 0]), in_memory.rows[0, [7, 0]]
    )


def test_the_file_is_deleted_once_nobody_uses_the_outputs(make_model, files):
    kept = keep_trunk_outputs(make_model(), make_samples(), memory_bytes=0)
    batches = list(kept.images().batch(8))
    assert len(batches) == 3 and files()
    del kept
    gc.collect()
    assert not files()


def test_too_little_room_on_the_disk_is_refused_with_the_numbers(
    make_model, files, monkeypatch
):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(
        trunk_outputs.shutil, "disk_usage", lambda path: usage(9000, 8000, 1000)
    )
    model, samples = make_model(), make_samples()
    size = 20 * 4 * 4 * 32 * 4
    message = f"take {size} bytes.*cache_bytes=10, and than the 1000 bytes free"
    with pytest.raises(ValueError, match=message):
        keep_trunk_outputs(model, samples, memory_bytes=10)
    gc.collect()
    assert not files()
    keep_trunk_outputs(model, samples, memory_bytes=size)  # needs no disk


@pytest.mark.parametrize("memory_bytes", [0, PLENTY])
def test_half_precision_outputs_take_half_the_room(
    make_model, files, memory_bytes
):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = make_model()
    finally:
        keras.config.set_dtype_policy(policy)
    samples = make_samples()
    kept = keep_trunk_outputs(model, samples, memory_bytes=memory_bytes)
    assert kept.rows.nbytes == 20 * 4 * 4 * 32 * 2
    (batch,) = kept.images().batch(20)
    assert batch.dtype == tf.bfloat16
    expected = model.trunk_outputs(samples.all_images())
    np.testing.assert_allclose(
        tf.cast(batch, tf.float32), tf.cast(expected, tf.float32), rtol=0.02
    )


def test_a_progress_bar_is_shown_unless_silent(make_model, capsys):
    model, samples = make_model(), make_samples()
    keep_trunk_outputs(model, samples, memory_bytes=PLENTY)
    assert capsys.readouterr().out == ""
    keep_trunk_outputs(model, samples, memory_bytes=PLENTY, verbose=1)
    assert "/trunk batch" in capsys.readouterr().out
