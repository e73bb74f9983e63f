"""Guarantees of the twelve variants of EEIL, on line and stored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_incremental.augmentation import (
    EEILAugmentation,
    StoredEEILAugmentation,
)

SEED = (5, 6)
KINDS = pytest.mark.parametrize(
    "kind", [EEILAugmentation, StoredEEILAugmentation]
)


def slow_variant(
    image, variant, brightness, contrast, offset, padding, value_range
):
    """One image at a time, one named step after the other."""
    height, width, _ = image.shape
    x = image.astype("float32")
    if variant in (1, 4, 7, 10):
        x = x + brightness
    if variant in (2, 5, 8, 11):
        for channel in range(x.shape[-1]):
            mean = x[..., channel].mean(dtype="float64")
            x[..., channel] = mean + contrast * (x[..., channel] - mean)
    if variant % 3 != 0:
        x = np.clip(x, *value_range)
    if variant in (3, 4, 5, 9, 10, 11):
        padded = np.zeros(
            (height + 2 * padding, width + 2 * padding, x.shape[-1]), "float32"
        )
        padded[padding : padding + height, padding : padding + width] = x
        top, left = offset
        x = padded[top : top + height, left : left + width]
    if variant >= 6:
        x = x[:, ::-1]
    return np.rint(x) if image.dtype.kind in "iu" else x


def slow_reference(images, draws, augmentation):
    """`images`: one for each image made."""
    return np.array(
        [
            slow_variant(
                image, *each, augmentation.padding, augmentation.value_range
            )
            for image, *each in zip(
                images, *(values.numpy() for values in draws), strict=True
            )
        ]
    )


def assert_pixels_equal(result, expected):
    """Equal but for float32 rounding, which may tip an integer's rounding."""
    if result.dtype.is_floating:
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-3)
        return
    gap = np.abs(result.numpy().astype("int64") - expected.astype("int64"))
    assert gap.max(initial=0) <= 1
    assert (gap > 0).mean() < 0.001


def random_images(batch=48, dtype="uint8", size=(8, 6), channels=3):
    rng = np.random.default_rng(0)
    return rng.integers(1, 256, (batch, *size, channels)).astype(dtype)


@KINDS
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_images_are_those_of_the_slow_reference(kind, dtype):
    augmentation, images = kind(), random_images(dtype=dtype)
    draws = augmentation.draw(SEED, len(images))
    repeated = np.repeat(images, augmentation.copies, axis=0)
    expected = slow_reference(repeated, draws, augmentation)
    assert_pixels_equal(augmentation(images, SEED), expected)


@settings(max_examples=20, deadline=None)
@given(
    brightness=st.integers(0, 300),
    contrast=st.tuples(st.floats(0, 3), st.floats(0, 3)).map(sorted),
    padding=st.integers(0, 5),
    value_range=st.sampled_from([(0, 255), (0, 1), (-1, 1), (-128, 127)]),
    seed=st.tuples(st.integers(0, 1000), st.integers(0, 1000)),
)
def test_any_setting_agrees_with_the_slow_reference(
    brightness, contrast, padding, value_range, seed
):
    darkest, brightest = value_range
    images = random_images(batch=6, size=(4, 5), dtype="float32") / 255
    images = darkest + (brightest - darkest) * images
    for kind in (EEILAugmentation, StoredEEILAugmentation):
        augmentation = kind(brightness, tuple(contrast), padding, value_range)
        draws = augmentation.draw(seed, 6)
        repeated = np.repeat(images, augmentation.copies, axis=0)
        expected = slow_reference(repeated, draws, augmentation)
        assert_pixels_equal(augmentation(images, seed), expected)


def test_brightness_and_contrast_by_hand():
    # Channel means 100 and 10: contrast 0.5 halves the distance from them.
    image = np.array([[[90, 0], [110, 20]]], "float32")
    at = (0, 0)
    brighter = slow_variant(image, 1, 200, 0.5, at, 0, (0, 255))
    np.testing.assert_array_equal(brighter, [[[255, 200], [255, 220]]])
    flatter = slow_variant(image, 2, 200, 0.5, at, 0, (0, 255))
    np.testing.assert_array_equal(flatter, [[[95, 5], [105, 15]]])
    augmentation = StoredEEILAugmentation(contrast=(0.5, 0.5))
    np.testing.assert_allclose(
        augmentation(image[None], SEED)[2], flatter, rtol=1e-6
    )


class TestStored:
    def test_twelve_variants_of_one_image_are_adjacent_and_in_order(self):
        images = random_images(batch=3)
        augmentation = StoredEEILAugmentation()
        variant = augmentation.draw(SEED, 3).variant
        np.testing.assert_array_equal(variant, [*range(12)] * 3)
        result = augmentation(images, SEED).numpy().reshape(3, 12, 8, 6, 3)
        np.testing.assert_array_equal(result[:, 0], images)
        np.testing.assert_array_equal(result[:, 6:], result[:, :6, :, ::-1])

    def test_crops_are_cut_from_the_very_images_before_them(self):
        augmentation = StoredEEILAugmentation(padding=2)
        result = augmentation(random_images(batch=9), SEED).numpy()
        result = result.reshape(9, 12, 8, 6, 3)
        offsets = augmentation.draw(SEED, 9).offsets.numpy()
        offsets = offsets.reshape(9, 12, 2)
        for i in range(9):
            for colour in range(3):
                whole = np.pad(result[i, colour], ((2, 2), (2, 2), (0, 0)))
                top, left = offsets[i, colour + 3]
                np.testing.assert_array_equal(
                    result[i, colour + 3],
                    whole[top : top + 8, left : left + 6],
                )

    def test_three_crops_of_one_image_are_at_places_of_their_own(self):
        offsets = StoredEEILAugmentation().draw(SEED, 50).offsets.numpy()
        first, second, third = offsets.reshape(50, 12, 2)[:, 3:6].swapaxes(0, 1)
        assert np.any(first != second) and np.any(second != third)


class TestOnLine:
    def test_each_variant_is_drawn_for_one_image_in_twelve(self):
        variant = EEILAugmentation().draw(SEED, 12_000).variant.numpy()
        counts = np.bincount(variant, minlength=12)
        # 1000 expected; one standard deviation is 30.
        assert len(counts) == 12
        assert np.abs(counts - 1000).max() < 150

    def test_original_is_untouched_even_outside_the_range(self):
        images = 1000 + random_images(dtype="float32") / 7
        augmentation = EEILAugmentation()
        variant = augmentation.draw(SEED, len(images)).variant.numpy()
        result = augmentation(images, SEED).numpy()
        assert (variant == 0).any()
        np.testing.assert_array_equal(
            result[variant == 0], images[variant == 0]
        )


@KINDS
@pytest.mark.parametrize(
    ("value_range", "largest"),
    [((0, 255), 63), ((0, 1), 63 / 255), ((-1, 1), 2 * 63 / 255)],
)
def test_draws_fill_their_ranges(kind, value_range, largest):
    draws = kind(value_range=value_range).draw(SEED, 5000)
    brightness, contrast = draws.brightness.numpy(), draws.contrast.numpy()
    assert np.abs(brightness).max() <= largest * (1 + 1e-6)
    assert np.ptp(brightness) > 1.99 * largest
    assert abs(brightness.mean()) < 0.05 * largest
    assert 0.2 <= contrast.min() < 0.21 and 1.79 < contrast.max() <= 1.8
    offsets = draws.offsets.numpy()
    assert (offsets.min(), offsets.max()) == (0, 8)


@KINDS
def test_pixels_stay_in_the_range(kind):
    extreme = kind(brightness=255, contrast=(0, 20))
    result = extreme(random_images(dtype="float32"), SEED).numpy()
    assert (result.min(), result.max()) == (0, 255)


@KINDS
def test_settings_without_effect_leave_only_mirrors(kind):
    images = random_images()
    neutral = kind(brightness=0, contrast=(1, 1), padding=0)
    result = neutral(images, SEED).numpy()
    images = np.repeat(images, neutral.copies, axis=0)
    mirrored = (neutral.draw(SEED, 48).variant >= 6).numpy()
    np.testing.assert_array_equal(result[~mirrored], images[~mirrored])
    np.testing.assert_array_equal(
        result[mirrored], images[mirrored][:, :, ::-1]
    )


@KINDS
@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"brightness": -1}, "brightness=-1.*brightness >= 0"),
        ({"contrast": (1.8, 0.2)}, r"contrast=\(.*0 <= low <= high"),
        ({"contrast": (-0.2, 1.8)}, r"contrast=\(.*0 <= low <= high"),
        ({"value_range": (255, 0)}, r"value_range=\(.*lowest, highest"),
        ({"value_range": (1, 1)}, r"value_range=\(.*lowest, highest"),
    ],
)
def test_setting_that_makes_no_sense_is_refused(kind, setting, match):
    with pytest.raises(ValueError, match=match):
        kind(**setting)


@KINDS
@pytest.mark.parametrize("value_range", [(-1, 1), (0, 256)])
def test_range_that_the_image_type_cannot_hold_is_refused(kind, value_range):
    with pytest.raises(ValueError, match="does not fit into images of"):
        kind(value_range=value_range)(random_images(), SEED)
