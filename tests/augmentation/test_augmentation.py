"""Guarantees that every augmentation gives."""

import numpy as np
import pytest
import tensorflow as tf

from keras_incremental.augmentation import (
    CropFlip,
    EEILAugmentation,
    StoredEEILAugmentation,
)

EVERY = pytest.mark.parametrize(
    "augmentation",
    [CropFlip(), EEILAugmentation(), StoredEEILAugmentation()],
    ids=lambda augmentation: type(augmentation).__name__,
)
SEED = (7, 11)


def random_images(batch=5, size=(8, 6), channels=3, dtype="uint8"):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (batch, *size, channels)).astype(dtype)


def test_number_of_copies_and_whether_they_are_kept():
    kinds = (CropFlip, EEILAugmentation, StoredEEILAugmentation)
    assert [kind.copies for kind in kinds] == [1, 1, 12]
    assert [kind.stored for kind in kinds] == [False, False, True]


@EVERY
@pytest.mark.parametrize(
    "dtype", ["uint8", "int32", "uint16", "float16", "float32", "float64"]
)
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_type_and_image_shape_are_kept(augmentation, dtype, batch):
    images = random_images(batch=batch, dtype=dtype)
    result = augmentation(images, SEED)
    assert result.dtype.name == dtype
    assert result.shape == (batch * augmentation.copies, 8, 6, 3)


@EVERY
def test_bfloat16_images_are_taken(augmentation):
    images = tf.cast(random_images(), tf.bfloat16)
    assert augmentation(images, SEED).dtype == tf.bfloat16


@EVERY
@pytest.mark.parametrize("seed_type", ["int32", "int64", "uint32"])
def test_same_seed_of_any_type_gives_the_same_images(augmentation, seed_type):
    images = random_images()
    first = augmentation(images, SEED)
    second = augmentation(images, np.array(SEED, seed_type))
    np.testing.assert_array_equal(first, second)


@EVERY
@pytest.mark.parametrize("other", [(7, 12), (8, 11)])
def test_another_seed_gives_other_images(augmentation, other):
    images = random_images()
    first, second = augmentation(images, SEED), augmentation(images, other)
    assert np.any(first != second)


@EVERY
def test_images_of_one_batch_are_changed_each_in_its_own_way(augmentation):
    images = np.repeat(random_images(batch=1), 40, axis=0)
    result = augmentation(images, SEED).numpy()
    result = result.reshape(40, augmentation.copies, -1)
    assert len(np.unique(result, axis=0)) > 10


@EVERY
def test_images_passed_are_not_modified(augmentation):
    images = random_images()
    before = images.copy()
    augmentation(images, SEED)
    np.testing.assert_array_equal(images, before)


@EVERY
@pytest.mark.parametrize("batch", [None, 5])
def test_static_shape_survives_in_a_dataset(augmentation, batch):
    images = random_images(batch=10)
    dataset = tf.data.Dataset.from_tensor_slices(images)
    dataset = dataset.batch(5, drop_remainder=batch is not None)
    dataset = dataset.map(lambda batch: augmentation(batch, SEED))
    expected = None if batch is None else batch * augmentation.copies
    assert tuple(dataset.element_spec.shape) == (expected, 8, 6, 3)
    np.testing.assert_array_equal(
        next(iter(dataset)), augmentation(images[:5], SEED)
    )


@EVERY
def test_open_image_size_gives_the_same_images(augmentation):
    traced = tf.function(
        augmentation,
        input_signature=[
            tf.TensorSpec([None] * 4, tf.uint8),
            tf.TensorSpec([2], tf.int64),
        ],
    )
    images = random_images()
    np.testing.assert_array_equal(
        traced(images, tf.constant(SEED, tf.int64)), augmentation(images, SEED)
    )


@EVERY
@pytest.mark.parametrize("shape", [(8, 6, 3), (5, 8, 6), (1, 5, 8, 6, 3)])
def test_what_is_no_batch_of_images_is_refused(augmentation, shape):
    with pytest.raises(ValueError, match="rank 4"):
        augmentation(np.zeros(shape, "uint8"), SEED)


@EVERY
@pytest.mark.parametrize("seed", [3, (1, 2, 3), (0.5, 1.0)])
def test_what_is_no_seed_pair_is_refused(augmentation, seed):
    with pytest.raises(ValueError, match="two integers"):
        augmentation(random_images(), seed)


KINDS = pytest.mark.parametrize(
    "kind", [CropFlip, EEILAugmentation, StoredEEILAugmentation]
)


@KINDS
def test_negative_padding_is_refused(kind):
    with pytest.raises(ValueError, match="padding=-1"):
        kind(padding=-1)


@KINDS
@pytest.mark.parametrize("padding", [1.5, "4", None, True])
def test_padding_that_is_no_int_is_refused(kind, padding):
    with pytest.raises(ValueError, match="number of pixels"):
        kind(padding=padding)


@KINDS
def test_fields_cannot_be_changed_and_equal_ones_compare_equal(kind):
    with pytest.raises(AttributeError):
        kind().padding = 2
    assert kind(padding=2) == kind(padding=2) != kind(padding=3)
