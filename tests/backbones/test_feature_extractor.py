"""Guarantees for a network that the user brings."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_incremental import backbones
from keras_incremental.backbones import as_feature_extractor


class Subclassed(keras.Model):
    """A model without a graph: its input shape cannot be read."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def functional(output_of, shape=(8, 8, 3), name=None):
    image = keras.Input(shape)
    return keras.Model(image, output_of(image), name=name)


def sequential(*stack, shape=(8, 8, 3)):
    return keras.Sequential([keras.Input(shape), *stack])


def images(shape=(8, 8, 3)):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (4, *shape)).astype("float32")


@pytest.mark.parametrize(
    "backbone",
    [
        functional(lambda x: layers.Dense(5)(layers.Flatten()(x))),
        sequential(layers.Flatten(), layers.Dense(5)),
        backbones.small((8, 8, 3)),
    ],
    ids=["functional", "sequential", "small"],
)
def test_model_of_feature_vectors_is_returned_as_it_is(backbone):
    assert as_feature_extractor(backbone) is backbone


@pytest.mark.parametrize(
    "backbone",
    [
        functional(lambda x: layers.Conv2D(6, 3)(x)),
        sequential(layers.Conv2D(6, 3)),
        functional(lambda x: layers.Conv2D(6, 3)(x), shape=(None, None, 3)),
        sequential(layers.Conv2D(6, 3, name="features")),
    ],
    ids=["functional", "sequential", "open_size", "layer_called_features"],
)
def test_feature_maps_are_averaged_over_height_and_width(backbone):
    extractor = as_feature_extractor(backbone)
    assert extractor.output_shape == (None, 6)
    np.testing.assert_allclose(
        extractor(images()),
        np.mean(backbone(images()), axis=(1, 2)),
        rtol=1e-5,
        atol=1e-5,
    )


def test_pooled_model_shares_the_weights_and_keeps_the_layer_names():
    backbone = sequential(layers.Conv2D(6, 3, name="mine"))
    extractor = as_feature_extractor(backbone)
    assert extractor.get_layer("mine") is backbone.get_layer("mine")
    assert extractor.name == backbone.name


@pytest.mark.parametrize(
    "last",
    [[], [layers.Flatten()], [layers.Reshape((216,))]],
    ids=["maps", "flatten", "reshape"],
)
def test_sequential_model_built_by_one_batch_is_taken_for_any_size(last):
    backbone = keras.Sequential([layers.Conv2D(6, 3), *last])
    features = backbone(images())
    extractor = as_feature_extractor(backbone)
    assert extractor.input_shape == (None, 8, 8, 3)
    assert extractor.output_shape[0] is None
    if last:
        # A batch of another size may be added up in another order.
        np.testing.assert_allclose(
            extractor(images()[:3]), features[:3], rtol=1e-5, atol=1e-6
        )
    assert extractor.weights[0] is backbone.weights[0]


def test_keras_application_is_pooled():
    vgg16 = keras.applications.VGG16(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    extractor = as_feature_extractor(vgg16)
    assert extractor.output_shape == (None, 512)
    assert extractor.count_params() == vgg16.count_params()


def test_lists_of_one_tensor_are_unwrapped():
    image = keras.Input((8, 8, 3))
    vectors = layers.Dense(5)(layers.Flatten()(image))
    extractor = as_feature_extractor(keras.Model([image], [vectors]))
    assert extractor(images()).shape == (4, 5)


def test_as_feature_extractor_twice_is_as_once():
    once = as_feature_extractor(sequential(layers.Conv2D(6, 3)))
    assert as_feature_extractor(once) is once


def test_wrapped_subclassed_model_is_taken_as_the_error_says():
    model = Subclassed()
    image = keras.Input((7,))
    wrapped = keras.Model(image, model(image))
    assert as_feature_extractor(wrapped).output_shape == (None, 2)


def test_saved_extractor_gives_equal_features(tmp_path):
    extractor = as_feature_extractor(sequential(layers.Conv2D(6, 3)))
    extractor.save(tmp_path / "extractor.keras")
    loaded = keras.models.load_model(tmp_path / "extractor.keras")
    for found, saved in zip(
        loaded.get_weights(), extractor.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(found, saved)
    # The loaded network is another one, which may round in another way.
    np.testing.assert_allclose(
        loaded(images()), extractor(images()), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("value", [None, "resnet32", layers.Dense(3)])
def test_what_is_no_keras_model_is_refused(value):
    with pytest.raises(TypeError, match=type(value).__name__):
        as_feature_extractor(value)


def test_unbuilt_sequential_model_is_refused():
    with pytest.raises(ValueError, match=r"keras.Input\(shape\)"):
        as_feature_extractor(keras.Sequential([layers.Dense(3)]))


def test_subclassed_model_is_refused_even_if_built():
    model = Subclassed()
    model(np.zeros((1, 3), "float32"))
    with pytest.raises(ValueError, match="wrap a subclassed model"):
        as_feature_extractor(model)


def test_several_inputs_are_refused():
    a, b = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([a, b], layers.Add()([a, b]))
    with pytest.raises(ValueError, match="2 inputs and 1 outputs"):
        as_feature_extractor(model)


def test_several_outputs_are_refused():
    model = functional(lambda x: [layers.Flatten()(x), layers.ReLU()(x)])
    with pytest.raises(ValueError, match="1 inputs and 2 outputs"):
        as_feature_extractor(model)


def test_sequences_are_refused():
    model = functional(lambda x: layers.Reshape((64, 3))(x))
    with pytest.raises(ValueError, match=r"\(None, 64, 3\)"):
        as_feature_extractor(model)


def test_unknown_number_of_features_is_refused():
    model = functional(lambda x: layers.Flatten()(x), shape=(None, 8, 3))
    with pytest.raises(ValueError, match="must be known"):
        as_feature_extractor(model)


@pytest.mark.parametrize(
    "softmax",
    [
        lambda x: layers.Dense(3, activation="softmax")(x),
        lambda x: layers.Softmax()(layers.Dense(3)(x)),
        lambda x: layers.Activation("softmax", dtype="float32")(x),
        lambda x: sequential(
            layers.Dense(3, activation="softmax"), shape=(192,)
        )(x),
    ],
    ids=["dense", "softmax_layer", "activation_layer", "nested"],
)
def test_classifier_that_ends_in_a_softmax_is_refused(softmax):
    model = functional(lambda x: softmax(layers.Flatten()(x)))
    with pytest.raises(ValueError, match="from_classifier"):
        as_feature_extractor(model)


def test_softmax_inside_the_network_is_no_classifier():
    model = functional(
        lambda x: layers.Dense(4)(layers.Softmax()(layers.Flatten()(x)))
    )
    assert as_feature_extractor(model) is model
