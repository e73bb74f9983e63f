"""`measure_statistics`: what batch normalisation has at the end of a phase."""

import keras
import numpy as np
import pytest

import keras_incremental as ki
from keras_incremental.networks import all_layers


def make_backbone():
    """Features behind a normalisation that follows too slowly by itself."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(8, name="dense"),
            keras.layers.BatchNormalization(momentum=0.999, name="norm"),
            keras.layers.ReLU(),
        ]
    )


def make_model():
    model = ki.IncrementalClassifier(make_backbone())
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    return model


@pytest.fixture
def model(lent):
    return lent(make_model)


def fit(model, method, data, **options):
    callback = ki.IncrementalCallback(None, method, **options)
    # All images in one batch: the mean over batches is exact.
    model.fit(*data, batch_size=1000, epochs=3, verbose=0, callbacks=[callback])


def statistics(model):
    layer = model.backbone.get_layer("norm")
    return np.array([layer.moving_mean, layer.moving_variance])


def plain_statistics(model, images):
    """Mean and variance of what the layer gets, in float64."""
    kernel, bias = model.backbone.get_layer("dense").get_weights()
    rows = images.reshape(len(images), -1) / 255.0 @ kernel + bias
    return np.array([rows.mean(0), rows.var(0)])


def test_they_are_those_of_the_phases_images(model, blobs):
    data = blobs([0, 1])
    fit(model, ki.FineTune(), data)
    expected = plain_statistics(model, data[0])
    np.testing.assert_allclose(statistics(model), expected, 1e-4, 1e-5)


class Halved:
    """An augmentation that can be computed beside it."""

    stored = False

    def __call__(self, images, seed):
        return images // 2


def test_they_are_those_of_augmented_images(model, blobs):
    """What was trained on padded images takes their mean to be 0."""
    images, labels = blobs([0, 1])
    fit(model, ki.FineTune(), (images, labels), augment=Halved())
    expected = plain_statistics(model, images // 2)
    np.testing.assert_allclose(statistics(model), expected, 1e-4, 1e-5)


def test_without_it_they_are_left_to_the_momentum(model, blobs):
    data = blobs([0, 1])
    fit(model, ki.FineTune(), data, measure_statistics=False)
    mean, variance = statistics(model)
    assert np.abs(mean).max() < 0.01 and np.abs(variance - 1).max() < 0.01


def test_an_adopted_network_is_measured_too(blobs):
    head = keras.layers.Dense(2, name="head")
    trained = keras.Sequential([make_backbone(), head])
    model = ki.IncrementalClassifier.from_classifier(trained, ["a", "b"])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    data = blobs([2, 3])
    fit(model, ki.FineTune(), data)
    (layer,) = [
        layer
        for layer in all_layers(model.backbone)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert np.abs(np.asarray(layer.moving_mean)).max() > 0.05


def test_the_next_phase_begins_with_them(model, blobs):
    """So the teacher, the balanced set and the exemplars have them."""
    data, seen = blobs([0, 1]), []

    class TwoPhases(ki.Method):
        def phases(self, task):
            def noted():
                found = statistics(model)
                seen.append((found, plain_statistics(model, data[0])))
                return [task.samples]

            return [
                ki.methods.Phase("one", 2, lambda: [task.samples]),
                ki.methods.Phase("two", 1, noted),
            ]

    fit(model, TwoPhases(), data)
    ((found, expected),) = seen
    np.testing.assert_allclose(found, expected, 1e-4, 1e-5)


def test_they_are_measured_on_the_best_weights_of_early_stopping(model, blobs):
    data = blobs([0, 1])
    best = keras.callbacks.EarlyStopping(
        "learning_rate", mode="min", patience=1, restore_best_weights=True
    )
    callback = ki.IncrementalCallback(None, ki.FineTune())
    model.fit(
        *data,
        batch_size=1000,
        epochs=4,
        verbose=0,
        callbacks=[callback, best],
    )
    expected = plain_statistics(model, data[0])
    np.testing.assert_allclose(statistics(model), expected, 1e-4, 1e-5)


@pytest.mark.parametrize("measured", [True, False])
def test_a_short_task_classifies_by_them(model, blobs, measured):
    """Keras' momentum leaves a network worse than chance would."""
    fit(model, ki.FineTune(), blobs([0, 1, 2]), measure_statistics=measured)
    logs = model.evaluate(*blobs([0, 1, 2]), verbose=0, return_dict=True)
    assert (logs["accuracy"] > 0.9) == measured
