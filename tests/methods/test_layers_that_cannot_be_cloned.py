"""A layer that a method would have to clone is named before the first step."""

import contextlib

import keras
import numpy as np
import pytest

import keras_incremental as ki

IMAGES = np.random.default_rng(0).uniform(0, 255, (12, 4, 4, 1))


class Scaled(keras.layers.Layer):
    """Takes no name and no dtype."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor


class Applied(keras.layers.Layer):
    """Has an argument that is in no configuration."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


def lambda_layer():
    return keras.layers.Lambda(lambda x: 2 * x)


LAYERS = {
    "lambda": lambda_layer,
    "no kwargs": lambda: Scaled(2),
    "no config": lambda: Applied(lambda x: 2 * x),
    "nested": lambda: keras.Sequential(
        [keras.Input((3,)), Scaled(2)], name="nested"
    ),
}
with contextlib.suppress(ValueError):  # older versions of Keras clone it
    keras.layers.Lambda.from_config(lambda_layer().get_config())
    del LAYERS["lambda"]


def network_with(layer):
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="first"),
            layer,
            keras.layers.Dense(2, name="last"),
        ]
    )


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(
    "method", [ki.EEIL(), ki.PartialSharing()], ids=["eeil", "sharing"]
)
def test_it_is_named_before_the_first_step(kind, method):
    layer = LAYERS[kind]()
    name = layer.layers[-1].name if kind == "nested" else layer.name
    model = ki.IncrementalClassifier(network_with(layer), branch_at="first")
    model.compile("sgd")
    incremental = ki.IncrementalCallback(
        ki.ExemplarMemory(10), method=method, class_names=None
    )
    message = rf"The layer '{name}' .*get_config"
    with pytest.raises(ValueError, match=message):
        method.check(model, incremental.memory)
    with pytest.raises(ValueError, match=message):
        model.fit(IMAGES, np.arange(12) % 2, callbacks=[incremental], verbose=0)
    assert model.num_classes == 0


@pytest.mark.parametrize("kind", LAYERS)
def test_a_classifier_that_is_adopted_is_cloned_at_once(kind):
    layer = LAYERS[kind]()
    name = layer.layers[-1].name if kind == "nested" else layer.name
    with pytest.raises(ValueError, match=f"The layer '{name}' .*"):
        ki.IncrementalClassifier.from_classifier(
            network_with(layer), class_names=["cat", "dog"]
        )


@pytest.mark.parametrize(
    "method", [ki.FineTune(), ki.EEIL(distillation=False, finetune_epochs=0)]
)
def test_methods_without_a_clone_take_it(method):
    model = ki.IncrementalClassifier(network_with(lambda_layer()))
    method.check(model, None)


def test_a_shared_part_may_hold_it():
    network = network_with(lambda_layer())
    model = ki.IncrementalClassifier(network, branch_at=network.layers[2].name)
    ki.PartialSharing().check(model, None)
