"""Scenarios made of folders of image files."""

import numpy as np
import pytest
import tensorflow as tf

from keras_incremental.scenarios import ClassIncrementalScenario
from keras_incremental.scenarios.image_files import resize_and_crop

Image = pytest.importorskip("PIL.Image", reason="Pillow writes the images")
FROM = ClassIncrementalScenario.from_directory


def write_image(path, grey, size=(6, 8), mode="RGB"):
    """Writes a plain image of (height, width) `size`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size
    image = Image.new("L", (width, height), grey).convert(mode)
    image.save(path)


def write_classes(folder, counts, grey=0):
    """Writes PNG images of the grey values `grey`, `grey + 1`, ..."""
    for name, count in counts.items():
        for i in range(count):
            write_image(folder / name / f"{i:03}.png", grey)
            grey += 1
    return folder


def grey_values(dataset):
    return [int(image[0, 0, 0]) for image, _ in dataset]


@pytest.fixture
def animals(tmp_path):
    return write_classes(tmp_path / "animals", {"dog": 10, "cat": 5, "ant": 4})


def test_labels_are_numbered_and_named_by_sorted_folder(animals):
    scenario = FROM(animals, 4, classes_per_task=2, class_order=[2, 0, 1])
    assert scenario.class_names == {2: "dog", 0: "ant", 1: "cat"}
    assert [task.class_names for task in scenario] == [["dog", "ant"], ["cat"]]
    assert scenario.name == "animals"
    assert scenario.image_shape == (4, 4, 3)


def test_names_can_be_given(animals):
    scenario = FROM(animals, 4, classes_per_task=3, class_names=["a", "b", "c"])
    assert scenario.class_names == {0: "a", 1: "b", 2: "c"}


def test_split_is_stratified_complete_and_of_known_size(animals):
    tasks = list(
        FROM(str(animals), 4, classes_per_task=1, class_order=[2, 1, 0])
    )
    assert [(len(t.train), len(t.test)) for t in tasks] == [
        (8, 2),
        (4, 1),
        (3, 1),
    ]
    assert len(tasks[2].seen_test) == 4
    dogs = grey_values(tasks[0].train) + grey_values(tasks[0].test)
    assert sorted(dogs) == list(range(10))


def test_split_repeats_for_a_seed_and_changes_with_it(animals):
    def drawn(seed):
        task = FROM(animals, 4, classes_per_task=3, seed=seed)[0]
        return grey_values(task.train), grey_values(task.test)

    first = drawn(5)
    assert drawn(5) == first
    assert set(drawn(6)[1]) != set(first[1])


def test_split_of_a_class_is_untouched_by_a_new_class_folder(animals):
    before = FROM(animals, 4, classes_per_task=3, class_order=[2, 1, 0])[0]
    write_classes(animals, {"bee": 6}, grey=100)
    after = FROM(animals, 4, classes_per_task=4)[0]
    old = [grey for grey in grey_values(after.test) if grey < 100]
    assert sorted(old) == sorted(grey_values(before.test))


def test_training_order_mixes_the_classes(tmp_path):
    write_classes(tmp_path, {"a": 12, "b": 12})
    task = FROM(tmp_path, 4, classes_per_task=2)[0]
    labels = [int(label) for _, label in task.train]
    assert labels != sorted(labels)
    assert grey_values(task.train) == grey_values(task.train)


def test_every_class_keeps_an_image_on_both_sides(tmp_path):
    write_classes(tmp_path, {"a": 2, "b": 2})
    for fraction in (0.01, 0.99):
        task = FROM(tmp_path, 4, classes_per_task=2, test_fraction=fraction)[0]
        assert (len(task.train), len(task.test)) == (2, 2)


def test_test_path_is_taken_whole(tmp_path):
    train = write_classes(tmp_path / "train", {"a": 3, "b": 1})
    test = write_classes(tmp_path / "val", {"b": 2, "a": 1}, grey=50)
    task = FROM(train, 4, classes_per_task=2, test_path=test)[0]
    assert sorted(grey_values(task.train)) == [0, 1, 2, 3]
    assert grey_values(task.test) == [52, 50, 51]


def test_samples_per_class_limits_training_images_only(animals):
    task = FROM(animals, 4, classes_per_task=3, samples_per_class=2)[0]
    assert (len(task.train), len(task.test)) == (6, 4)
    labels = [int(label) for _, label in task.train]
    assert sorted(labels) == [0, 0, 1, 1, 2, 2]


FORMATS = [
    ("jpg", "RGB"),
    ("jpg", "L"),
    ("jpg", "CMYK"),  # as printers take it
    ("png", "RGBA"),
    ("png", "LA"),
    ("png", "P"),
    ("bmp", "RGB"),
    ("bmp", "L"),
    ("gif", "P"),
    ("webp", "RGB"),
    ("webp", "RGBA"),
]
if int(tf.__version__.split(".")[1]) < 20:  # decodes no WebP
    FORMATS = FORMATS[:-2]


@pytest.mark.parametrize(
    "channels", [pytest.param(1, marks=pytest.mark.slow), 3]
)
def test_every_format_is_decoded_to_the_channels(tmp_path, channels):
    for ending, mode in FORMATS:
        if (mode, channels) != ("CMYK", 1):
            path = tmp_path / "a" / f"{mode}.{ending}"
            write_image(path, 120, mode=mode)
    task = FROM(
        tmp_path, 4, classes_per_task=1, channels=channels, test_path=tmp_path
    )[0]
    spec = tf.TensorSpec((4, 4, channels), "uint8")
    assert task.train.element_spec == (spec, tf.TensorSpec((), "int64"))
    assert len(task.train) == len(FORMATS) - (channels == 1)
    for image, label in task.train:
        assert int(label) == 0
        np.testing.assert_allclose(image, 120, atol=2)


def test_hidden_files_and_files_beside_the_classes_are_ignored(animals):
    for name in (".DS_Store", "dog/.DS_Store", "README.txt"):
        (animals / name).write_bytes(b"text")
    (animals / ".cache").mkdir()
    assert FROM(animals, 4, classes_per_task=1).num_classes == 3


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        FROM(tmp_path / "nowhere", 4, classes_per_task=1)


def test_missing_test_folder_is_named(animals, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        FROM(animals, 4, classes_per_task=1, test_path=tmp_path / "nowhere")


def test_file_in_place_of_a_folder_is_an_error(animals):
    with pytest.raises(NotADirectoryError, match=r"000\.png"):
        FROM(animals / "dog" / "000.png", 4, classes_per_task=1)


def test_folder_of_images_without_classes_is_an_error(animals):
    with pytest.raises(ValueError, match="has no sub-folders"):
        FROM(animals / "dog", 4, classes_per_task=1)


def test_empty_class_folder_is_named(animals):
    (animals / "bee").mkdir()
    (animals / "bee" / ".DS_Store").write_bytes(b"")
    with pytest.raises(ValueError, match="bee' is empty"):
        FROM(animals, 4, classes_per_task=1)


@pytest.mark.parametrize("content", [b"hello", b"", b"\x89PNG is text"])
def test_file_that_is_no_image_is_named_whatever_its_ending(animals, content):
    (animals / "cat" / "fake.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"1 of 20 files .*fake\.png"):
        FROM(animals, 4, classes_per_task=1)


def test_folder_inside_a_class_folder_is_named(animals):
    (animals / "cat" / "kittens").mkdir()
    with pytest.raises(ValueError, match="holds the folder 'kittens'"):
        FROM(animals, 4, classes_per_task=1)


def test_class_with_one_image_cannot_be_split(tmp_path):
    write_classes(tmp_path, {"a": 2, "lonely": 1})
    with pytest.raises(ValueError, match="'lonely' holds one image"):
        FROM(tmp_path, 4, classes_per_task=1)


def test_different_test_classes_are_named(animals, tmp_path):
    test = write_classes(tmp_path / "t", {"dog": 1, "cat": 1, "cow": 1})
    with pytest.raises(ValueError, match=r"test data: \['cow'\].*: \['ant'\]"):
        FROM(animals, 4, classes_per_task=1, test_path=test)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"test_fraction": 0}, ValueError, "test_fraction=0"),
        ({"test_fraction": 1.0}, ValueError, "test_fraction=1.0"),
        ({"channels": 4}, ValueError, "channels=4"),
        ({"image_size": 0}, ValueError, "image_size=0"),
        ({"image_size": (4, 4, 3)}, ValueError, r"\(4, 4, 3\)"),
        ({"image_size": 4.5}, ValueError, "image_size=4.5"),
        ({"image_size": None}, ValueError, "image_size=None"),
        ({"classes_per_task": -1}, ValueError, "classes_per_task is -1"),
    ],
)
def test_bad_argument_is_named(animals, arguments, error, message):
    arguments = {"image_size": 4, "classes_per_task": 1} | arguments
    with pytest.raises(error, match=message):
        FROM(animals, **arguments)


def test_image_of_the_right_size_is_unchanged():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), "uint8")
    fitted = resize_and_crop(tf.constant(image), (5, 7))
    np.testing.assert_array_equal(fitted, image)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_wide_image_loses_its_sides_and_keeps_its_aspect(dtype):
    # 4 x 8, left quarter 0, middle half 100, right quarter 200: at 4 x 4 the
    # middle remains, at 8 x 8 it is twice as large.
    row = np.array([0, 0, 100, 100, 100, 100, 200, 200], dtype)
    image = tf.constant(np.tile(row[None, :, None], (4, 1, 1)))
    same = resize_and_crop(image, (4, 4))
    assert same.dtype == dtype
    np.testing.assert_array_equal(same, np.full((4, 4, 1), 100))
    double = resize_and_crop(image, (8, 8))
    np.testing.assert_array_equal(double[:, 1:-1], np.full((8, 6, 1), 100))


def test_tall_image_is_cropped_to_a_wide_size():
    column = np.repeat(np.array([0, 90, 180], "uint8"), 4)
    image = tf.constant(np.tile(column[:, None, None], (1, 8, 1)))
    fitted = resize_and_crop(image, (4, 8))
    np.testing.assert_array_equal(fitted, np.full((4, 8, 1), 90))


@pytest.mark.parametrize("size", [(1, 1), (3, 10), (10, 3), (37, 41)])
@pytest.mark.parametrize("shape", [(1, 1), (2, 99), (53, 17)])
def test_any_image_fits_any_size(shape, size):
    image = tf.fill((*shape, 3), tf.constant(7, "uint8"))
    np.testing.assert_array_equal(
        resize_and_crop(image, size), np.full((*size, 3), 7)
    )
