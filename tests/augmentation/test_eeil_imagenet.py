"""Mirror, brightness, contrast and crop of EEIL's authors for ImageNet."""

import numpy as np
import pytest
import tensorflow as tf

from keras_incremental.augmentation import ImageNetEEILAugmentation

SEED = (5, 6)


def random_images(count=64, dtype="uint8", size=(9, 7)):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, *size, 3)).astype(dtype)


def enlarged(image, padding):
    """Bilinear, corners on corners, by plain NumPy."""
    for axis in (0, 1):
        size = image.shape[axis]
        places = np.linspace(0, size - 1, size + 2 * padding)
        low = np.minimum(places.astype(int), size - 2)
        share = (places - low).reshape([-1, 1, 1] if axis == 0 else [1, -1, 1])
        image = (1 - share) * image.take(low, axis) + share * image.take(
            low + 1, axis
        )
    return image


def slow_reference(images, draws, padding):
    """One image at a time, one named step after the other."""
    results = []
    for image, mirrored, brightness, contrast, cropped, (top, left) in zip(
        images, *(values.numpy() for values in draws), strict=True
    ):
        x = image.astype(float)
        height, width, _ = x.shape
        if brightness:
            x = np.clip(x + brightness, 0, 255)
        if contrast != 1:
            mean = x.mean(axis=(0, 1))
            x = np.clip((x - mean) * contrast + mean, 0, 255)
        if cropped:
            x = enlarged(x, padding)[top : top + height, left : left + width]
        results.append(x[:, ::-1] if mirrored else x)
    return np.array(results)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_images_are_those_of_the_slow_reference(dtype):
    augmentation, images = ImageNetEEILAugmentation(padding=3), random_images()
    draws = augmentation.draw(SEED, len(images))
    expected = slow_reference(images, draws, 3)
    result = augmentation(images.astype(dtype), SEED)
    assert result.dtype == dtype and result.shape == images.shape
    gap = np.abs(result.numpy().astype(float) - expected)
    assert gap.max() < (0.502 if dtype == "uint8" else 0.01)


def test_each_change_is_drawn_for_one_image_in_two_apart_from_the_others():
    draws = ImageNetEEILAugmentation().draw(SEED, 4000)
    changes = np.stack(
        [
            draws.mirrored.numpy(),
            draws.brightness.numpy() != 0,
            draws.contrast.numpy() != 1,
            draws.cropped.numpy(),
        ]
    )
    np.testing.assert_allclose(changes.mean(axis=1), 0.5, atol=0.04)
    correlations = np.corrcoef(changes)[np.triu_indices(4, 1)]
    np.testing.assert_allclose(correlations, 0, atol=0.08)
    assert np.abs(draws.brightness).max() <= 63
    offsets = draws.offsets.numpy()
    assert (offsets.min(), offsets.max()) == (0, 32)


def test_the_same_seed_draws_the_same_in_a_graph_of_any_batch_size():
    augmentation, images = ImageNetEEILAugmentation(), random_images()
    data = tf.data.Dataset.from_tensor_slices(images).batch(40)
    (first, _) = data.map(lambda x: augmentation(x, SEED))
    np.testing.assert_array_equal(first, augmentation(images[:40], SEED))


def test_without_changes_images_stay_as_they_are():
    images = random_images(dtype="float32")
    neutral = ImageNetEEILAugmentation(0, (1, 1), padding=0)
    mirrored = neutral.draw(SEED, len(images)).mirrored.numpy()
    result = neutral(images, SEED).numpy()
    np.testing.assert_array_equal(result[~mirrored], images[~mirrored])
    np.testing.assert_allclose(
        result[mirrored], images[mirrored][:, :, ::-1], atol=1e-3
    )
