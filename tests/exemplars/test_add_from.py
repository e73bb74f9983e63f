"""Exemplars of a model trained elsewhere, and classes that have none."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_incremental import (
    EEIL,
    ExemplarMemory,
    IncrementalCallback,
    IncrementalClassifier,
    PartialSharing,
)
from keras_incremental.exemplars import balanced_samples
from keras_incremental.exemplars.ranking import rank_classes
from keras_incremental.labels import ClassIndex
from keras_incremental.samples import ArraySamples

SHAPE = (2, 2, 1)


class Model:
    """What `add_from` asks of a model; the features are the pixels."""

    input_shape = (None, *SHAPE)

    def __init__(self, labels):
        self.classes = ClassIndex(labels)

    @property
    def labels(self):
        return list(self.classes.labels)

    def extract_features(self, images):
        rows = [image.ravel() for image in images.as_numpy_iterator()]
        return np.array(rows, "float32").reshape(len(rows), 4)


def first_come(features, count, seed):
    return np.arange(len(features))[:count]


def images_of(values):
    """One image for each value, every pixel of it that value."""
    values = np.array(values, "uint8")
    return np.broadcast_to(
        values[:, None, None, None], (len(values), *SHAPE)
    ).copy()


def values_of(images):
    return images[:, 0, 0, 0].tolist()


def samples_of(counts):
    labels = np.repeat(list(counts), list(counts.values()))
    return ArraySamples(images_of(np.arange(len(labels))), labels)


def filled(labels, given, **options):
    """A memory of a model of `labels` with `given` images a class."""
    options = options or {"capacity": 6}
    memory = ExemplarMemory(selection=first_come, **options)
    samples = samples_of(given)
    memory.add_from(Model(labels), samples.all_images(), samples.labels)
    return memory


# Filling.


def test_exemplars_are_ranked_by_the_selection_on_the_models_features():
    seen = []

    def brightest(features, count, seed):
        seen.append(features)
        return np.argsort(-features.sum(axis=1))[:count]

    memory = ExemplarMemory(per_class=2, selection=brightest)
    memory.add_from(Model([5, 3]), images_of([9, 30, 10]), [3, 3, 3])
    assert values_of(memory.images(3)) == [30, 10]
    np.testing.assert_array_equal(seen, [[[9] * 4, [30] * 4, [10] * 4]])


def test_classes_without_images_are_listed_without_exemplars():
    memory = filled([7, 40, 9], {40: 4})
    assert memory.labels == [7, 40, 9]
    assert [len(memory.images(k)) for k in memory.labels] == [0, 4, 0]
    assert memory.images(7).shape == (0, *SHAPE)
    assert memory.images(7).dtype == np.uint8
    assert 7 in memory and len(memory) == 4
    assert memory.labels_with_exemplars() == [40]
    assert memory.labels_without_exemplars([7, 40, 8]) == [7, 8]
    assert memory.image_spec == tf.TensorSpec(SHAPE, tf.uint8)


def test_classes_without_images_take_no_share_of_the_budget():
    memory = filled(range(10), {4: 9, 2: 9}, capacity=6)
    counts = {k: len(memory.images(k)) for k in memory.labels_with_exemplars()}
    assert counts == {2: 3, 4: 3}


def test_several_calls_fill_class_by_class_within_the_budget():
    model, memory = Model([0, 1, 2]), ExemplarMemory(7, selection=first_come)
    sizes = []
    for label in (2, 0, 1):
        memory.add_from(model, images_of(range(9)), [label] * 9)
        sizes.append([len(memory.images(k)) for k in memory.labels])
    assert memory.labels == [0, 1, 2]
    assert sizes == [[0, 0, 7], [4, 0, 3], [3, 2, 2]]
    assert values_of(memory.images(2)) == [0, 1]  # what is ranked first stays
    memory.add_from(model, images_of([50]), [1])
    assert values_of(memory.images(1)) == [0, 1]
    assert len(memory) == 7


def test_batched_datasets_are_taken_like_arrays():
    samples = samples_of({0: 5, 1: 3})
    dataset = tf.data.Dataset.from_tensor_slices(
        (samples.all_images(), samples.labels)
    )
    memory = ExemplarMemory(6, selection=first_come)
    memory.add_from(Model([0, 1]), dataset.batch(3))
    arrays = filled([0, 1], {0: 5, 1: 3})
    for label in (0, 1):
        np.testing.assert_array_equal(
            memory.images(label), arrays.images(label)
        )


def test_no_old_data_at_all_changes_nothing():
    model, memory = Model([0, 1]), ExemplarMemory(6)
    memory.add_from(model, np.zeros((0, *SHAPE)), [])
    nothing = tf.data.Dataset.from_tensor_slices((images_of([1]), [0]))
    memory.add_from(model, nothing.take(0).batch(2))
    memory.add_from(model, nothing.filter(lambda image, k: k > 5).batch(2))
    assert len(memory) == 0 and memory.labels == []
    memory = filled([0, 1], {0: 2})
    memory.add_from(model, [], [])
    assert values_of(memory.images(0)) == [0, 1]


def test_string_labels():
    memory = ExemplarMemory(4, selection=first_come)
    memory.add_from(Model(["cat", "dog"]), images_of([1, 2]), ["dog", "dog"])
    assert memory.labels == ["cat", "dog"]
    assert memory.samples().labels.tolist() == ["dog", "dog"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 8], r"not been taught: \[8\]"),
        (["0", "1"], r"not been taught: \['0', '1'\]"),
    ],
)
def test_labels_unknown_to_the_model_are_refused(labels, message):
    memory = filled([0, 1], {1: 2})
    with pytest.raises(ValueError, match=message):
        memory.add_from(Model([0, 1]), images_of([1, 2]), labels)
    assert memory.labels == [0, 1] and len(memory) == 2


def test_a_memory_of_another_model_is_refused():
    memory = filled([0, 1], {1: 2})
    with pytest.raises(ValueError, match=r"holds classes \[0\] that the model"):
        memory.add_from(Model([1, 2]), images_of([1]), [1])


def test_a_capacity_below_the_classes_that_have_images_is_refused():
    memory = filled(range(5), {0: 2, 1: 2}, capacity=2)
    with pytest.raises(ValueError, match="capacity=2 holds less than one"):
        memory.add_from(Model(range(5)), images_of([1]), [4])
    assert [len(memory.images(k)) for k in range(5)] == [1, 1, 0, 0, 0]
    memory.check_room([0, 1])
    with pytest.raises(ValueError, match="3 classes"):
        memory.check_room([0, 8])


def test_images_of_another_shape_or_dtype_are_refused():
    memory = filled([0, 1], {1: 2})
    with pytest.raises(ValueError, match="model takes"):
        memory.add_from(Model([0, 1]), np.zeros((2, 4, 4, 1)), [0, 0])
    with pytest.raises(ValueError, match="The new images are float64"):
        memory.add_from(Model([0, 1]), np.full((2, *SHAPE), 0.5), [0, 0])


# Every use of a memory in which some classes have no exemplars.


def test_samples_hold_what_there_is():
    memory = filled([7, 40, 9], {40: 2, 9: 1})
    assert memory.samples().labels.tolist() == [40, 40, 9]
    images = memory.samples().images()
    assert [int(image[0, 0, 0]) for image in images] == [0, 1, 2]


def test_an_update_brings_the_first_exemplars_of_a_listed_class():
    memory = filled([7, 40, 9], {40: 6})
    extract = Model([]).extract_features
    memory.update(samples_of({9: 5, 11: 5}), extract)
    assert memory.labels == [7, 40, 9, 11]
    assert [len(memory.images(k)) for k in memory.labels] == [0, 2, 2, 2]
    chosen = rank_classes(memory, samples_of({7: 3}), extract, {7: 2})
    assert values_of(chosen[7].decoded()) == [0, 1]


def test_save_and_load_keep_classes_without_exemplars(tmp_path):
    memory = filled([7, 40, 9], {40: 3})
    memory.save(tmp_path / "memory")
    loaded = ExemplarMemory.load(tmp_path / "memory", selection=first_come)
    assert loaded.labels == [7, 40, 9]
    for label in loaded.labels:
        images = loaded.images(label)
        np.testing.assert_array_equal(images, memory.images(label))
        assert images.shape[1:] == SHAPE
    assert loaded.image_spec == memory.image_spec
    loaded.add_from(Model([7, 40, 9]), images_of([80]), [7])
    assert [len(loaded.images(k)) for k in loaded.labels] == [1, 3, 0]


def test_a_balanced_set_needs_every_class():
    memory = filled([7, 40], {40: 3})
    extract = Model([]).extract_features
    with pytest.raises(ValueError, match=r"no exemplar of the old .*\[7\]"):
        balanced_samples(memory, samples_of({1: 5}), extract)
    with pytest.raises(ValueError, match="the memory is empty"):
        balanced_samples(ExemplarMemory(5), samples_of({1: 5}), extract)
    # New images of the class itself will do.
    balanced = balanced_samples(memory, samples_of({1: 5, 7: 4}), extract)
    labels, counts = np.unique(balanced.labels, return_counts=True)
    assert labels.tolist() == [1, 7, 40]
    assert len({*counts.tolist()}) == 1


# With a real model and the callback.


@pytest.fixture
def adopted(tiny_backbone):
    def make(**options):
        trained = keras.Sequential(
            [
                keras.Input((4, 4, 1)),
                *tiny_backbone.layers,
                keras.layers.Dense(3),
            ]
        )
        model = IncrementalClassifier.from_classifier(
            trained, ["zero", "one", "two"], **options
        )
        model.compile(optimizer=keras.optimizers.SGD(0.01))
        return model

    return make


@pytest.mark.slow
def test_eeil_skips_the_balanced_set_until_every_class_has_exemplars(
    adopted, blobs, caplog
):
    model, memory = adopted(), ExemplarMemory(12)
    memory.add_from(model, *blobs([0, 2]))
    callbacks = [IncrementalCallback(memory, EEIL(finetune_epochs=1))]
    with caplog.at_level(logging.WARNING):
        history = model.fit(
            *blobs([3]), epochs=1, verbose=0, callbacks=callbacks
        )
    assert len(history.epoch) == 1
    assert "no exemplar of the known classes [1]" in caplog.text
    assert memory.labels == [0, 1, 2, 3]
    assert [len(memory.images(k)) for k in memory.labels] == [4, 0, 4, 4]
    memory.add_from(model, *blobs([1]))
    history = model.fit(*blobs([4]), epochs=1, verbose=0, callbacks=callbacks)
    assert len(history.epoch) == 2
    assert len(memory) == 12 and not memory.labels_without_exemplars(
        model.labels
    )


@pytest.mark.slow
def test_a_memory_of_fewer_images_than_old_classes_will_do_without_them(
    adopted, blobs
):
    model, memory = adopted(), ExemplarMemory(2)
    model.fit(
        *blobs([3, 4]),
        epochs=1,
        verbose=0,
        callbacks=[IncrementalCallback(memory, EEIL(finetune_epochs=1))],
    )
    counts = {k: len(memory.images(k)) for k in memory.labels}
    assert counts == {0: 0, 1: 0, 2: 0, 3: 1, 4: 1}


@pytest.mark.slow
def test_calibration_is_left_out_while_a_class_has_no_exemplar(
    adopted, blobs, caplog
):
    model, memory = adopted(branch_at=0.0), ExemplarMemory(12)
    memory.add_from(model, *blobs([0, 2]))
    callback = IncrementalCallback(memory, PartialSharing())
    with caplog.at_level(logging.WARNING):
        model.fit(*blobs([3]), epochs=1, verbose=0, callbacks=[callback])
    assert callback.reports[-1].details["calibrated"] is False
    assert "Calibration is left out" in caplog.text
    memory.add_from(model, *blobs([1]))
    model.fit(*blobs([4]), epochs=1, verbose=0, callbacks=[callback])
    assert callback.reports[-1].details["calibrated"] is True
