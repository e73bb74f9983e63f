"""Scenarios made of TensorFlow Datasets, mocked and real."""

import collections
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from keras_incremental.scenarios import ClassIncrementalScenario

tfds = pytest.importorskip("tensorflow_datasets")

FROM = ClassIncrementalScenario.from_tfds
REAL_DATA = pathlib.Path(
    os.environ.get(
        "KERAS_INCREMENTAL_TFDS_DIR",
        pathlib.Path(__file__).parents[3] / "shared" / "data" / "tfds",
    )
)
needs_cifar10 = pytest.mark.skipif(
    not (REAL_DATA / "cifar10").is_dir(),
    reason=f"no prepared cifar10 in {REAL_DATA}; set "
    "KERAS_INCREMENTAL_TFDS_DIR to the data_dir that holds it",
)


def mocked(image_shapes, labels, test_labels=None):
    """Mocks TFDS by PNG images: image `i` is a plain grey of value `i`."""
    test_labels = labels if test_labels is None else test_labels

    def as_dataset(self, split, decoders=None, **_):
        del self, decoders
        values = labels if split == "train" else test_labels

        def examples():
            for i, label in enumerate(values):
                shape = image_shapes[i % len(image_shapes)]
                image = tf.fill(shape, tf.constant(i % 256, "uint8"))
                yield {"image": tf.io.encode_png(image), "label": label}

        return tf.data.Dataset.from_generator(
            examples,
            output_signature={
                "image": tf.TensorSpec((), "string"),
                "label": tf.TensorSpec((), "int64"),
            },
        )

    return tfds.testing.mock_data(as_dataset_fn=as_dataset)


def grey_values(dataset):
    return [int(image[0, 0, 0]) for image, _ in dataset]


def as_arrays(dataset):
    images, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.stack(images), np.array(labels)


@pytest.mark.slow
def test_random_mock_of_cifar10_gives_its_shapes_and_counts():
    with tfds.testing.mock_data(num_examples=80):
        scenario = FROM("cifar10", classes_per_task=5, seed=1993)
        tasks = list(scenario)
        assert scenario.image_shape == (32, 32, 3)
        assert scenario.name == "cifar10"
        assert sum(len(task.train) for task in tasks) == 80
        assert len(tasks[-1].seen_test) == 80
        images, labels = as_arrays(tasks[0].train)
        assert images.shape == (len(tasks[0].train), 32, 32, 3)
        assert (images.dtype, labels.dtype) == ("uint8", "int64")
        assert set(labels.tolist()) == set(tasks[0].labels)


@pytest.mark.parametrize("cache_bytes", [2**30, 0], ids=["cached", "streamed"])
def test_datasets_hold_what_a_plain_scan_selects(cache_bytes):
    labels = [5, 2, 5, 99, 2, 5, 2, 99]
    with mocked([(32, 32, 3)], labels, [99, 5, 2, 2]):
        scenario = FROM(
            "cifar100",
            classes_per_task=[1, 2],
            class_order=[5, 99, 2],
            samples_per_class=2,
            cache_bytes=cache_bytes,
        )
        first, second = scenario
        assert grey_values(first.train) == [0, 2]
        assert grey_values(second.train) == [1, 3, 4, 7]
        assert [int(label) for _, label in second.train] == [2, 99, 2, 99]
        assert grey_values(second.train) == [1, 3, 4, 7]
        assert grey_values(first.test) == [1]
        assert grey_values(second.test) == [0, 2, 3]
        assert grey_values(second.seen_test) == [0, 1, 2, 3]
        counts = [(len(t.train), len(t.seen_test)) for t in (first, second)]
        assert counts == [(2, 1), (4, 4)]
        assert first.train.element_spec == (
            tf.TensorSpec((32, 32, 3), "uint8"),
            tf.TensorSpec((), "int64"),
        )


def test_cache_decodes_only_the_images_in_use_and_only_once(monkeypatch):
    decoded = []
    decode = tfds.features.Image.decode_example

    def counted(self, example):
        tf.py_function(lambda: decoded.append(1), [], [])
        return decode(self, example)

    monkeypatch.setattr(tfds.features.Image, "decode_example", counted)
    with mocked([(32, 32, 3)], [0, 1] * 10, [0, 1]):
        tasks = list(FROM("cifar100", classes_per_task=1, samples_per_class=3))
        for task in tasks + tasks:
            list(task.train)
            list(task.test)
    assert len(decoded) == 6 + 2


@pytest.mark.slow
@pytest.mark.parametrize("cache_bytes", [2**30, 0], ids=["cached", "streamed"])
def test_varying_images_are_resized_and_cropped(cache_bytes):
    shapes = [(10, 20, 3), (9, 9, 3), (30, 8, 3)]
    with mocked(shapes, [0, 1, 1]):
        scenario = FROM(
            "cats_vs_dogs",
            classes_per_task=2,
            image_size=(8, 6),
            test_split="train",
            cache_bytes=cache_bytes,
        )
        images, _ = as_arrays(scenario[0].train)
        expected = np.broadcast_to(
            np.arange(3)[:, None, None, None], (3, 8, 6, 3)
        )
        np.testing.assert_array_equal(images, expected)
        assert scenario.image_shape == (8, 6, 3)
        assert scenario.class_names == {0: "cat", 1: "dog"}


def test_varying_images_need_a_size():
    with (
        mocked([(10, 20, 3)], [0, 1]),
        pytest.raises(ValueError, match=r"varying size\. Pass image_size"),
    ):
        FROM("cats_vs_dogs", classes_per_task=1)


@pytest.mark.slow
def test_fixed_images_can_be_resized():
    with mocked([(32, 32, 3)], [0, 1]):
        scenario = FROM("cifar100", classes_per_task=2, image_size=16)
        assert as_arrays(scenario[0].train)[0].shape == (2, 16, 16, 3)


def test_unlabelled_test_split_gives_way_to_validation():
    splits = []

    def as_dataset(self, split, **_):
        splits.append(split)
        labels = [-1, -1, -1] if split == "test" else [0, 1, 2]
        image = tf.io.encode_jpeg(np.zeros((9, 9, 3), "uint8"))
        return tf.data.Dataset.from_tensor_slices(
            {
                "image": tf.repeat(image[None], 3),
                "label": tf.constant(labels, "int64"),
            }
        )

    with tfds.testing.mock_data(as_dataset_fn=as_dataset):
        scenario = FROM("imagenet2012", classes_per_task=3, image_size=4)
        assert len(scenario[0].test) == 3
        assert splits[-1] == "validation"
        with pytest.raises(ValueError, match="'test' holds the negative"):
            FROM(
                "imagenet2012",
                classes_per_task=3,
                image_size=4,
                test_split="test",
            )


def test_class_missing_from_a_split_is_named():
    with (
        mocked([(32, 32, 3)], [0, 1], [0, 1, 7]),
        pytest.raises(ValueError, match=r"Only in the test data: \[7\]"),
    ):
        FROM("cifar100", classes_per_task=1)


def test_unknown_name_suggests_close_ones():
    with pytest.raises(ValueError, match=r"no data set 'cifra10'.*cifar10"):
        FROM("cifra10", classes_per_task=2)


def test_data_set_without_labelled_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'imdb_reviews' has the features"):
        FROM("imdb_reviews", tmp_path, classes_per_task=1, download=False)


def test_unprepared_data_without_download_says_how_to_prepare(tmp_path):
    with pytest.raises(FileNotFoundError, match="tfds build cifar100"):
        FROM("cifar100", tmp_path, classes_per_task=2, download=False)


def test_failed_download_says_why_and_how_to_prepare(tmp_path, monkeypatch):
    def no_network(self):
        raise ConnectionError("no network")

    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", no_network
    )
    message = "tfds build cifar100.*ConnectionError: no network"
    with pytest.raises(FileNotFoundError, match=message):
        FROM("cifar100", tmp_path, classes_per_task=2)


def test_bad_arguments_are_found_before_the_data_is_looked_for():
    with pytest.raises(ValueError, match="classes_per_task is 0"):
        FROM("no_such_data_set", classes_per_task=0)


@pytest.mark.slow
@needs_cifar10
@pytest.mark.parametrize("cache_bytes", [2**30, 0], ids=["cached", "streamed"])
def test_prepared_cifar10_is_read_without_download(cache_bytes, monkeypatch):
    def forbidden(self):
        raise AssertionError("prepared data must not be downloaded")

    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", forbidden
    )
    scenario = FROM(
        "cifar10",
        REAL_DATA,
        classes_per_task=5,
        class_order=range(10),
        train_split="train[:1000]",
        test_split="test[:300]",
        samples_per_class=4,
        cache_bytes=cache_bytes,
    )
    assert list(scenario.class_names.values())[:2] == ["airplane", "automobile"]
    taken, expected = collections.Counter(), []
    for image, label in tfds.load(
        "cifar10",
        data_dir=REAL_DATA,
        split="train[:1000]",
        download=False,
        as_supervised=True,
    ).as_numpy_iterator():
        taken[label] += 1
        if label < 5 and taken[label] <= 4:
            expected.append(image)
    images, labels = as_arrays(scenario[0].train)
    np.testing.assert_array_equal(images, np.stack(expected))
    assert sorted(labels) == sorted([0, 1, 2, 3, 4] * 4)
    assert len(scenario[1].seen_test) == 300
