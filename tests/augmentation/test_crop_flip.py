"""Guarantees of the random crop and mirror."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_incremental.augmentation import CropFlip, windows


def slow_window(image, offset, mirrored, padding):
    """One image at a time, by slices of the padded image."""
    height, width, _ = image.shape
    sides = (padding, padding)
    padded = np.pad(image, (sides, sides, (0, 0)))
    top, left = offset
    cut = padded[top : top + height, left : left + width]
    return cut[:, ::-1] if mirrored else cut


def random_images(rng, *shape):
    # No zeros: a pixel of the padding cannot pass for one of the image.
    return rng.integers(1, 256, shape).astype("uint8")


@settings(max_examples=50, deadline=None)
@given(
    batch=st.integers(1, 4),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    padding=st.integers(0, 7),
    entropy=st.integers(0, 2**32 - 1),
)
def test_window_is_cut_from_the_zero_padded_image(
    batch, height, width, padding, entropy
):
    rng = np.random.default_rng(entropy)
    images = random_images(rng, batch, height, width, 2)
    offsets = rng.integers(0, 2 * padding + 1, (batch, 2)).astype("int32")
    mirrored = rng.random(batch) < 0.5
    np.testing.assert_array_equal(
        windows.window(windows.image_batch(images), offsets, mirrored, padding),
        [
            slow_window(*each, padding)
            for each in zip(images, offsets, mirrored, strict=True)
        ],
    )


def test_window_by_hand():
    image = windows.image_batch(np.array([[[[1], [2]], [[3], [4]]]]))
    cut = windows.window(
        image, np.array([[0, 1]], "int32"), np.array([False]), 1
    )
    np.testing.assert_array_equal(cut[0, :, :, 0], [[0, 0], [1, 2]])
    cut = windows.window(
        image, np.array([[0, 0]], "int32"), np.array([True]), 1
    )
    np.testing.assert_array_equal(cut[0, :, :, 0], [[0, 0], [1, 0]])


@pytest.mark.parametrize("flip", [True, False])
def test_output_is_the_drawn_windows(flip):
    images = random_images(np.random.default_rng(0), 50, 8, 6, 3)
    augmentation = CropFlip(padding=2, flip=flip)
    draws = augmentation.draw((1, 2), 50)
    expected = [
        slow_window(image, offset, mirrored, 2)
        for image, offset, mirrored in zip(
            images, draws.offsets.numpy(), draws.mirrored.numpy(), strict=True
        )
    ]
    np.testing.assert_array_equal(augmentation(images, (1, 2)), expected)


def test_every_offset_is_drawn_equally_often_and_no_other():
    offsets = CropFlip(padding=2).draw((3, 4), 10_000).offsets.numpy()
    counts = np.zeros((5, 5))
    np.add.at(counts, tuple(offsets.T), 1)
    # 400 expected in each of 25 cells; one standard deviation is 20.
    assert np.abs(counts - 400).max() < 100


def test_half_of_the_images_are_mirrored():
    mirrored = CropFlip().draw((3, 4), 10_000).mirrored.numpy()
    assert abs(mirrored.mean() - 0.5) < 0.03


def test_without_flip_no_image_is_mirrored():
    assert not CropFlip(flip=False).draw((3, 4), 1000).mirrored.numpy().any()


def test_without_padding_and_flip_images_stay_as_they_are():
    images = random_images(np.random.default_rng(0), 5, 8, 6, 3)
    result = CropFlip(padding=0, flip=False)(images, (1, 2))
    np.testing.assert_array_equal(result, images)


def test_padding_may_exceed_the_image():
    images = random_images(np.random.default_rng(0), 200, 2, 2, 1)
    result = CropFlip(padding=9)(images, (1, 2)).numpy()
    empty = (result == 0).all(axis=(1, 2, 3))
    assert empty.any() and not empty.all()
