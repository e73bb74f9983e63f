"""What people pass to `fit` by mistake, or as other parts of Keras give it."""

import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.exemplars import JpegStorage

# `tf.keras` has it; the module `keras` does not list it.
ImageDataGenerator = importlib.import_module(
    "keras._tf_keras.keras.preprocessing.image"
).ImageDataGenerator


@pytest.fixture
def make(lend_tiny):
    """Returns a function that gives a model, traced before, and a callback."""

    def pair(memory=None, method=None, **options):
        memory = ki.ExemplarMemory(12) if memory is None else memory
        method = method or ki.FineTune()
        options.setdefault("measure_statistics", False)
        return lend_tiny(), ki.IncrementalCallback(memory, method, **options)

    return pair


@pytest.fixture
def learned(make, blobs):
    """A model with a callback that have learned two classes."""
    model, callback = make(class_names={0: "ant", 1: "bee"})
    fit(model, callback, *blobs([0, 1]))
    return model, callback


@pytest.fixture(scope="module")
def folders(tmp_path_factory, blobs):
    """Two folders of class folders, as they arrive one after the other."""
    paths = []
    for names in (["ant", "bee"], ["cat", "dog"]):
        paths.append(tmp_path_factory.mktemp("photos"))
        for name in names:
            (paths[-1] / name).mkdir()
            for index, image in enumerate(blobs([name], per_class=20)[0]):
                file = paths[-1] / name / f"{index}.png"
                keras.utils.save_img(file, image, scale=False)
    return paths


def fit(model, callback, *data, **options):
    options = {"epochs": 1, "verbose": 0, **options}
    return model.fit(*data, callbacks=[callback], **options)


def of_folder(path):
    return keras.utils.image_dataset_from_directory(
        path, image_size=(4, 4), color_mode="grayscale", verbose=False
    )


# Labels that start again at 0.


@pytest.mark.parametrize("names", [["cat", "dog"], {1: "dog", 2: "cat"}])
def test_names_that_contradict_the_known_ones_are_refused(
    learned, blobs, names
):
    model, callback = learned
    callback.class_names = names
    with pytest.raises(ValueError, match=r"'(cat|dog)'.*'(ant|bee)'.*offset"):
        fit(model, callback, *blobs([0, 1]))
    assert model.class_names == ["ant", "bee"] and len(callback.reports) == 1


def test_known_names_may_be_passed_again(learned, blobs):
    model, callback = learned
    callback.class_names = ["ant", "bee", "cat"]
    fit(model, callback, *blobs([1, 2]))
    assert model.class_names == ["ant", "bee", "cat"]


def test_a_second_folder_whose_labels_start_at_0_is_refused(make, folders):
    first, second = map(of_folder, folders)
    model, callback = make()
    fit(model, callback, first)
    names = dict(zip(model.labels, model.class_names, strict=True))
    assert names == {0: "ant", 1: "bee"}
    for use in (
        lambda: fit(model, callback, second),
        lambda: model.fit(second, verbose=0),
        lambda: model.evaluate(second, verbose=0),
        lambda: callback.memory.add_from(model, second),
        lambda: fit(model, callback, first, validation_data=second),
    ):
        with pytest.raises(ValueError, match=r"label \d '(cat|dog)'.*knows it"):
            use()
    assert model.num_classes == 2 and len(callback.reports) == 1


def with_names(data):
    names = tf.constant(data.class_names)
    return data.map(lambda x, y: (x, tf.gather(names, y)))


def test_two_folders_are_two_tasks_with_names_as_labels(make, folders):
    model, callback = make()
    for path in folders:
        fit(model, callback, with_names(of_folder(path)))
    assert sorted(model.class_names[:2]) == ["ant", "bee"]
    assert sorted(model.class_names[2:]) == ["cat", "dog"]


def test_two_folders_are_two_tasks_with_an_offset(make, folders):
    model, callback = make()
    fit(model, callback, of_folder(folders[0]))
    data, first = of_folder(folders[1]), max(model.labels) + 1
    callback.class_names = dict(enumerate(data.class_names, start=first))
    fit(model, callback, data.map(lambda x, y: (x, y + first)))
    assert sorted(zip(model.labels, model.class_names, strict=True)) == [
        *enumerate(["ant", "bee", "cat", "dog"])
    ]


@pytest.mark.slow
def test_the_classes_of_two_folders_are_all_told_apart(make, folders):
    model, callback = make(method=ki.EEIL(finetune_epochs=5))
    for path in folders:
        data = with_names(of_folder(path))
        fit(model, callback, data, epochs=15, validation_data=data)
    report = callback.reports[-1]
    assert report.new_accuracy > 0.9
    data = with_names(of_folder(folders[0]))
    logs = model.evaluate(data, verbose=0, return_dict=True)
    assert logs["accuracy"] > 0.9


def test_a_fit_without_a_new_class_says_so(learned, blobs, caplog):
    model, callback = learned
    fit(model, callback, *blobs([0]))
    said = "fit got no new class: its images are of the known classes ant (12)."
    assert said in caplog.messages and said in callback.reports[-1].notes
    fit(model, callback, *blobs([1, 2]))
    said = "fit got more images of the known classes bee (12)."
    assert said in caplog.messages and said in callback.reports[-1].notes
    assert not any(
        "known classes" in note for note in callback.reports[0].notes
    )


# The scale and the dtype of images.


def scaled(blobs, labels, factor, dtype="float32"):
    images, labels = blobs(labels)
    return (images * factor).astype(dtype), labels


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("factors", [(1.0, 1 / 255), (1 / 255, 1.0)])
def test_images_of_another_scale_are_refused(make, blobs, factors, memory):
    model, callback = make()
    callback.memory = callback.memory if memory else None
    fit(model, callback, *scaled(blobs, [0, 1], factors[0]))
    with pytest.raises(ValueError, match=r"from 0\.\d+ to [01][.\d]* ?") as got:
        fit(model, callback, *scaled(blobs, [2], factors[1]))
    assert "has been rescaled" in str(got.value)
    assert str(got.value).count(" from ") == 2
    assert model.labels in ([0, 1], [1, 0])


def test_images_of_0_to_1_after_uint8_exemplars_name_both_ranges(
    learned, blobs
):
    model, callback = learned
    message = r"float32 from 0\.\d+ to 0\.\d+.*uint8 from \d+ to \d+.*rescaled"
    with pytest.raises(ValueError, match=message):
        fit(model, callback, *scaled(blobs, [2], 1 / 255))


@pytest.mark.parametrize("in_dataset", [True, False])
def test_whole_float_images_after_uint8_ones_lose_nothing(
    learned, blobs, in_dataset
):
    model, callback = learned
    images, labels = blobs([2])
    data = (images.astype("float32"), labels)
    if in_dataset:
        data = [tf.data.Dataset.from_tensor_slices(data).batch(5)]
    fit(model, callback, *data)
    kept = callback.memory.images(2)
    assert kept.dtype == np.uint8
    whole = {image.tobytes() for image in images}
    assert all(image.tobytes() in whole for image in kept)


def test_uint8_images_after_float_ones_lose_nothing(make, blobs):
    model, callback = make()
    fit(model, callback, *scaled(blobs, [0, 1], 0.75))
    images, labels = blobs([2])
    fit(model, callback, images, labels)
    kept = callback.memory.images(2)
    assert kept.dtype == np.float32
    assert all((image == images).all(axis=(1, 2, 3)).any() for image in kept)


def test_values_that_exemplars_cannot_hold_are_refused(learned, blobs):
    model, callback = learned
    for factor in (0.75, 1.5, -1.0):
        with pytest.raises(ValueError, match=r"uint8 does not hold.*np\.round"):
            fit(model, callback, *scaled(blobs, [2], factor))
    assert model.num_classes == 2


def test_whole_float_images_can_be_kept_as_jpeg(make, blobs):
    model, callback = make(ki.ExemplarMemory(8, storage=JpegStorage()))
    fit(model, callback, *scaled(blobs, [0, 1], 1.0))
    assert callback.memory.images(0).dtype == np.uint8


# Keras' iterators.


class Batches(keras.utils.PyDataset):
    def __init__(self, images, labels, count=3):
        super().__init__()
        self.images, self.labels = images, labels
        self.count, self.read = count, []

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(index)
        return self.images[index::3], self.labels[index::3]


def test_a_py_dataset_is_read_once(make, blobs):
    images, labels = blobs([0, 1])
    data = Batches(images, labels.astype("float32"))
    model, callback = make()
    fit(model, callback, data, epochs=3)
    assert data.read == [0, 1, 2]
    assert callback.reports[0].images_by_class == {"0": 12, "1": 12}
    assert all(type(label) is int for label in model.labels)


def test_an_image_data_generator_is_read_once(make, blobs):
    images, labels = blobs([0, 1])
    model, callback = make()
    flow = ImageDataGenerator().flow(images, labels, batch_size=7)
    fit(model, callback, flow, validation_data=flow)
    assert callback.reports[0].images_by_class == {"0": 12, "1": 12}
    assert callback.reports[0].accuracy_by_class.keys() == {"0", "1"}


def test_an_iterator_over_a_folder_brings_its_names(make, folders):
    model, callback = make()
    options = {"target_size": (4, 4), "color_mode": "grayscale"}
    first, second = (
        ImageDataGenerator().flow_from_directory(
            path, class_mode="sparse", **options
        )
        for path in folders
    )
    fit(model, callback, first)
    assert sorted(model.class_names) == ["ant", "bee"]
    assert model.evaluate(first, verbose=0, return_dict=True)["accuracy"] >= 0
    with pytest.raises(ValueError, match=r"calls label \d '(cat|dog)'"):
        fit(model, callback, second)


def test_a_py_dataset_without_an_end_is_refused(make, blobs):
    model, callback = make()
    with pytest.raises(ValueError, match=r"never ends.*Give it a length"):
        fit(model, callback, Batches(*blobs([0, 1]), count=None))


# Callbacks and weights.


@pytest.mark.slow
@pytest.mark.parametrize("incremental", [True, False])
def test_the_accuracy_can_be_monitored_without_metrics(
    learned, blobs, tmp_path, incremental
):
    model, callback = learned
    new = blobs([2]) if incremental else blobs([0, 1])
    watching = [
        keras.callbacks.EarlyStopping("val_accuracy", patience=9),
        keras.callbacks.ReduceLROnPlateau("accuracy"),
        keras.callbacks.ModelCheckpoint(
            tmp_path / "best.keras", "val_accuracy", save_best_only=True
        ),
    ]
    model.fit(
        *new,
        epochs=2,
        verbose=0,
        validation_data=new,
        callbacks=[callback, *watching] if incremental else watching,
    )
    greater = keras.ops.greater
    assert [item.monitor_op for item in watching] == [greater] * 3
    assert (tmp_path / "best.keras").exists()


@pytest.mark.slow
def test_class_weight_multiplies_the_loss_of_an_image(learned, blobs):
    model, _ = learned
    images, labels = blobs([0, 2])
    still = ki.FineTune(learning_rate_factor=lambda epoch: 1e-30)
    losses = []
    for weights in (None, {0: 0.0}, {0: 3.0, 2: 1.0}):
        keras.utils.set_random_seed(0)  # of the new head
        callback = ki.IncrementalCallback(method=still)
        options = {"class_weight": weights, "batch_size": len(images)}
        history = fit(model, callback, images, labels, **options)
        losses += history.history["loss"]
        model.remove_classes(1)
    plain, new, trebled = losses
    assert trebled == pytest.approx(3 * plain - 2 * new, rel=1e-4)
    assert 0 < new < plain


def test_class_weight_leaves_balanced_fine_tuning_alone(learned, blobs):
    model, callback = learned
    callback.method = ki.EEIL(finetune_epochs=1)
    history = fit(
        model, callback, *blobs([2]), class_weight=dict.fromkeys([0, 1, 2], 0.0)
    )
    first, second = history.history["loss"]
    assert first == 0.0 < second


def test_a_closed_form_refuses_class_weight(make, blobs):
    class Solved(ki.Method):
        def phases(self, task):
            return [ki.methods.ClosedFormPhase("ridge", lambda: None)]

    model, callback = make(method=Solved())
    with pytest.raises(ValueError, match="'ridge' is solved in closed form"):
        fit(model, callback, *blobs([0, 1]), class_weight={0: 2.0})
    assert model.labels == []
