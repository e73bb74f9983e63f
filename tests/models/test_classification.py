"""`classify`: photos in whatever form, names and probabilities out."""

import pathlib

import keras
import numpy as np
import pytest
from PIL import Image

import keras_incremental as ki
from keras_incremental.models.classification import as_image_batch
from keras_incremental.scenarios.image_files import image_reader

NAMES = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def model():
    """Names the brightest colour: its logits are the colours' means."""
    backbone = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    model = ki.IncrementalClassifier(backbone)
    model.add_classes([7, 3, 9], NAMES)
    model.network.set_head_weights(0, 10 * np.eye(3), np.zeros(3))
    model.compile("sgd", run_eagerly=True)  # quick to start
    return model


def picture(red, green, blue, size=(4, 4)):
    return np.full((*size, 3), (red, green, blue), "uint8")


def test_names_come_with_probabilities_the_most_probable_first(model):
    image = picture(0, 255, 51)
    result = model.classify(image, top_k=2, verbose=0)
    total = 1 + np.exp(10) + np.exp(2)
    assert [name for name, _ in result] == ["green", "blue"]
    np.testing.assert_allclose(
        [share for _, share in result],
        [np.exp(10) / total, np.exp(2) / total],
        rtol=1e-5,
    )
    assert f"{result}" == "green 100.0%, blue 0.0%"
    results = model.classify(np.stack([image, image]), top_k=3, verbose=0)
    assert repr(results[:1]) == "[(green 100.0%, blue 0.0%, red 0.0%)]"
    assert len(results) == 2 and results[0][:2] == result


def test_without_top_k_an_image_has_one_name_and_a_batch_an_array(model):
    image = picture(9, 0, 0)
    assert model.classify(image, verbose=0) == "red"
    batch = np.stack([image, picture(0, 0, 9)])
    assert model.classify(batch, verbose=0).tolist() == ["red", "blue"]
    one = model.classify([image], verbose=0)
    assert one.tolist() == ["red"]


def test_paths_pillow_images_and_other_sizes_are_read_as_folders_are(
    model, tmp_path
):
    random = np.random.default_rng(0)
    array = random.integers(0, 255, (9, 6, 3), "uint8")
    file = tmp_path / "wide.png"
    image = Image.fromarray(array)
    image.save(file)
    read = image_reader((4, 4), 3)(str(file))
    expected = model.classify(read, top_k=3, verbose=0)
    for photo in (file, str(file), array, image, image.convert("RGBA")):
        assert model.classify(photo, top_k=3, verbose=0) == expected
    mixed = [file, str(file), array, image, picture(9, 0, 0, (5, 7))]
    *results, last = model.classify(mixed, top_k=3, verbose=0)
    for result in results:
        np.testing.assert_allclose(result[0][1], expected[0][1], rtol=1e-6)
    assert last[0][0] == "red"


def test_pillow_images_are_turned_as_their_exif_says():
    upright = np.random.default_rng(0).integers(0, 255, (4, 4, 3), "uint8")
    image = Image.fromarray(np.rot90(upright, -1))
    image.getexif()[0x0112] = 8  # to be turned back by 90 degrees
    images, is_single = as_image_batch(image, (4, 4, 3))
    np.testing.assert_array_equal(images, upright[None])
    assert is_single


def test_grey_photos_are_read_for_a_model_of_one_channel(lend_tiny):
    model = lend_tiny()
    model.add_classes(["dark", "light"])
    grey = np.arange(16, dtype="uint8").reshape(4, 4, 1)
    image = Image.fromarray(grey[..., 0])
    expected = model.classify(grey, top_k=2, verbose=0)
    assert model.classify(image, top_k=2, verbose=0) == expected


@pytest.mark.parametrize(
    ("x", "top_k", "error", "message"),
    [
        (picture(1, 2, 3), 0, ValueError, "top_k=0; expected.* 1 to 3"),
        (picture(1, 2, 3), 4, ValueError, "top_k=4; expected.* 1 to 3"),
        (picture(1, 2, 3)[..., :1], 1, ValueError, r"shape \(4, 4, 1\)"),
        ([picture(1, 2, 3)[..., 0]], 1, ValueError, r"grey.*\[\.\.\., None\]"),
        (picture(1, 2, 3)[..., 0], 1, ValueError, r"shape \(4, 4\)"),
        (None, 1, ValueError, r"shape \(\).*takes a batch"),
        ([], 1, ValueError, "no images"),
        ("nowhere.png", 1, FileNotFoundError, "no image 'nowhere.png'"),
        ([pathlib.Path(__file__)], 1, ValueError, "cannot be read as an image"),
        (picture(1, 2, 3) / 255, 1, ValueError, r"0 to 255 itself.* \* 255"),
    ],
)
def test_what_cannot_be_classified_is_told(model, x, top_k, error, message):
    with pytest.raises(error, match=message):
        model.classify(x, top_k=top_k, verbose=0)


def test_a_model_without_classes_names_nothing(tiny_backbone):
    model = ki.IncrementalClassifier(tiny_backbone)
    with pytest.raises(ValueError, match="classify: the model knows no class"):
        model.classify(np.zeros((4, 4, 1)))


def test_a_model_of_any_size_takes_the_size_of_the_first_image():
    backbone = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    model = ki.IncrementalClassifier(backbone)
    model.add_classes(NAMES)
    model.compile("sgd", run_eagerly=True)
    images = [picture(1, 2, 3, (3, 5)), picture(1, 2, 3, (8, 8))]
    assert len(model.classify(images, verbose=0)) == 2
    with pytest.raises(ValueError, match="any size"):
        model.classify("photo.png")


def test_labels_of_another_kind_are_told_apart_from_unknown_ones(model):
    images = np.stack([picture(9, 0, 0)] * 2)
    with pytest.raises(ValueError, match=r"names, and.* taught integers.*zip"):
        model.evaluate(images, np.array(["red", "red"]), verbose=0)
    named = ki.IncrementalClassifier(model.backbone)
    named.add_classes(NAMES)
    named.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match=r"integers, and.* taught names"):
        named.evaluate(images, np.array([0, 1]), verbose=0)
    with pytest.raises(ValueError, match=r"\(3 in all\)\.$"):
        named.evaluate(images, np.array(["pink", "red"]), verbose=0)
