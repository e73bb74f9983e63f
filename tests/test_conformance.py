"""Every layer of the package: config, saving, precision, traces."""

import copy
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.backbones.cifar_resnet import ZeroPadShortcut
from keras_incremental.closed_form import Ridge
from keras_incremental.layers import FusedBatchNormalization
from keras_incremental.networks import (
    BranchedNetwork,
    FrozenTrunkNetwork,
    Network,
    OneHeadNetwork,
    SingleNetwork,
    TrainedTrunkNetwork,
)
from keras_incremental.score_rules import (
    AffinePerHead,
    BesideClosedForm,
    ClosedForm,
    NearestMean,
    ScoreRule,
)

VECTORS = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
LOGITS = np.random.default_rng(1).normal(size=(4, 5)).astype("float32")
MAPS = np.random.default_rng(0).normal(size=(4, 8, 8, 2)).astype("float32")


def base(kind=SingleNetwork):
    backbone = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(5, "relu", name="trunk"),
            keras.layers.Dense(4, "relu"),
        ]
    )
    head = ki.ExpandableDense((2,), capacity=8)
    return kind(backbone, head, branch_at="trunk")


def branched(kind):
    network = kind(base())
    for units in (1, 2):
        network = network.with_branch()
        network.grow(units, seed=0)
    network.activate()
    return network


def closed_form():
    rule = ClosedForm(Ridge(), dim=6, random_features=7)
    return rule.plus(np.eye(5, 6) + 0.1, np.arange(5), classes=5)


PAIR = (VECTORS, LOGITS)
LAYERS = {
    "AffinePerHead": (lambda: AffinePerHead([2, 3], [1, 2], [3, 4]), PAIR),
    "BesideClosedForm": (lambda: BesideClosedForm(closed_form(), 0.5), PAIR),
    "BranchedNetwork": (lambda: branched(BranchedNetwork), VECTORS),
    "ClosedForm": (lambda: closed_form(), PAIR),
    "ExpandableDense": (
        lambda: ki.ExpandableDense((2, 3), capacity=3, name="head"),
        VECTORS,
    ),
    "FusedBatchNormalization": (lambda: FusedBatchNormalization(), MAPS),
    "FrozenTrunkNetwork": (lambda: base(FrozenTrunkNetwork), VECTORS),
    "NearestMean": (lambda: NearestMean(np.eye(5, 6) + 0.1), PAIR),
    "OneHeadNetwork": (lambda: branched(OneHeadNetwork), VECTORS),
    "ScoreRule": (lambda: ScoreRule(), PAIR),
    "SingleNetwork": (lambda: base(), VECTORS),
    "TrainedTrunkNetwork": (lambda: branched(TrainedTrunkNetwork), VECTORS),
    "ZeroPadShortcut": (lambda: ZeroPadShortcut(4, strides=2), MAPS),
}


@pytest.fixture(params=LAYERS, name="case")
def _case(request):
    return LAYERS[request.param]


@pytest.fixture(params=LAYERS)
def model_and_x(request):
    """A model of each layer, and what it takes."""
    x = LAYERS[request.param][1]
    return model_of(request.param), [*x] if isinstance(x, tuple) else x


def inputs_of(x):
    return x if isinstance(x, tuple) else (x,)


def output(call, x):
    """Returns the first output, the logits of a network."""
    found = call(*inputs_of(x))
    return found[0] if isinstance(found, tuple) else found


@functools.cache
def model_of(name):
    """Returns a model of the layer, for the tests that only read it."""
    make, x = LAYERS[name]
    inputs = tuple(keras.Input(part.shape[1:]) for part in inputs_of(x))
    result = output(make(), inputs)
    return keras.Model(inputs[0] if len(inputs) == 1 else [*inputs], result)


def test_every_layer_of_the_package_is_in_this_file():
    ours = {
        name.split(">")[1]
        for name, item in keras.saving.get_custom_objects().items()
        if name.startswith("keras_incremental>")
        and isinstance(item, type)
        and issubclass(item, keras.layers.Layer)
        and not issubclass(item, keras.Model)
    }
    assert ours == set(LAYERS)


def test_config_round_trip(case):
    make, x = case
    layer = make()
    before = output(layer, x)
    config = layer.get_config()
    again = type(layer).from_config(copy.deepcopy(config))
    output(again, x)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(output(again, x), before)
    assert [w.trainable for w in again.weights] == [
        w.trainable for w in layer.weights
    ]
    assert again.get_config().keys() == config.keys()
    if not isinstance(layer, Network):
        # Keras numbers the tensors of a Functional model anew.
        assert again.get_config() == config


def test_keras_file_round_trip_without_custom_objects(model_and_x, tmp_path):
    model, x = model_and_x
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), model(x))


def test_saved_model_round_trip(model_and_x, tmp_path):
    model, x = model_and_x
    model.export(str(tmp_path / "saved"), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    # Another graph: float32, to rounding.
    np.testing.assert_allclose(loaded.serve(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(case, policy):
    make, x = case
    keras.config.set_dtype_policy(policy)
    try:
        layer = make()
        found = output(layer, x)
    finally:
        keras.config.set_dtype_policy("float32")
    if not isinstance(layer, ScoreRule):  # in the dtype of its inputs
        assert found.dtype == layer.compute_dtype
    assert all(
        w.dtype in ("float32", "float64", "int32") for w in layer.weights
    )
    reference = make()
    output(reference, x)
    reference.set_weights(layer.get_weights())
    np.testing.assert_allclose(
        tf.cast(found, tf.float32), output(reference, x), atol=0.1
    )


def test_one_trace_for_any_batch_size(case):
    make, x = case
    layer, traces = make(), []
    output(layer, x)

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, *part.shape[1:]), tf.float32)
            for part in inputs_of(x)
        ]
    )
    def call(*inputs):
        traces.append(1)
        return output(layer, inputs)

    for size in (1, 3, 4):
        rows = [part[:size] for part in inputs_of(x)]
        assert call(*rows).shape[0] == size
    assert len(traces) == 1
