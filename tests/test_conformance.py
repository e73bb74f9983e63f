"""Every layer of the package: config, saving, precision, traces."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.backbones.cifar_resnet import ZeroPadShortcut
from keras_incremental.layers import Branch, Branches, FusedBatchNormalization

VECTORS = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
MAPS = np.random.default_rng(0).normal(size=(4, 8, 8, 2)).astype("float32")


def branch(*heads):
    features = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(6, "relu", kernel_initializer="identity"),
        ]
    )
    return Branch(features, ki.ExpandableDense(heads, capacity=3))


LAYERS = {
    "Branch": (lambda: branch(2, 3), VECTORS),
    "Branches": (lambda: Branches([branch(1), branch(2, 3)]), VECTORS),
    "ExpandableDense": (
        lambda: ki.ExpandableDense((2, 3), capacity=3, name="head"),
        VECTORS,
    ),
    "FusedBatchNormalization": (lambda: FusedBatchNormalization(), MAPS),
    "ZeroPadShortcut": (lambda: ZeroPadShortcut(4, strides=2), MAPS),
}


@pytest.fixture(params=LAYERS, name="case")
def _case(request):
    return LAYERS[request.param]


def model_of(make, x):
    inputs = keras.Input(x.shape[1:])
    return keras.Model(inputs, make()(inputs))


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
    layer(x)
    again = type(layer).from_config(layer.get_config())
    again(x)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(x).numpy(), layer(x).numpy())
    assert again.get_config() == layer.get_config()


def test_keras_file_round_trip_without_custom_objects(case, tmp_path):
    model, x = model_of(*case), case[1]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x).numpy(), model(x).numpy())


def test_saved_model_round_trip(case, tmp_path):
    model, x = model_of(*case), case[1]
    model.export(str(tmp_path / "saved"), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(loaded.serve(x), model(x), rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(case, policy):
    make, x = case
    keras.config.set_dtype_policy(policy)
    try:
        layer = make()
        output = layer(x)
    finally:
        keras.config.set_dtype_policy("float32")
    assert output.dtype == layer.compute_dtype
    assert all(w.dtype in ("float32", "int32") for w in layer.weights)
    reference = make()
    reference(x)
    reference.set_weights(layer.get_weights())
    np.testing.assert_allclose(
        tf.cast(output, tf.float32), reference(x), atol=0.1
    )


def test_one_trace_for_any_batch_size(case):
    make, x = case
    layer, traces = make(), []
    layer(x)

    @tf.function(
        input_signature=[tf.TensorSpec((None, *x.shape[1:]), tf.float32)]
    )
    def call(inputs):
        traces.append(1)
        return layer(inputs)

    for size in (1, 3, 4):
        assert call(x[:size]).shape[0] == size
    assert len(traces) == 1
