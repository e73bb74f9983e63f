"""Moving statistics measured over data, against plain NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_incremental.layers import FusedBatchNormalization
from keras_incremental.models.batch_statistics import BatchStatistics
from keras_incremental.networks import BranchedNetwork, SingleNetwork

KINDS = [keras.layers.BatchNormalization, FusedBatchNormalization]


def network_of(normalization, momentum=0.99):
    """A convolution, a normalisation, and one more that sees its output."""
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            keras.layers.Conv2D(3, 1, name="first"),
            normalization(momentum=momentum, name="norm_1"),
            keras.layers.ReLU(),
            keras.layers.Conv2D(3, 1),
            normalization(momentum=momentum, name="norm_2"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    network = SingleNetwork(backbone, branch_at="norm_1")
    network.grow(2)
    return network


@pytest.fixture
def batches():
    random = np.random.default_rng(0)
    return [
        random.normal(5.0, 3.0, (size, 4, 4, 2)).astype("float32")
        for size in (8, 8, 7)
    ]


def columns(batches):
    return [{"images": tf.constant(images)} for images in batches]


def measure(network, batches):
    strategy = tf.distribute.get_strategy()
    BatchStatistics(network, strategy).measure(columns(batches))


def plain_statistics(network, batches):
    """Means over batches of each layer's batch mean and biased variance."""
    backbone, found = network.backbone, []
    for images in batches:
        values, row = images, []
        for layer in backbone.layers:
            if not isinstance(layer, keras.layers.BatchNormalization):
                values = np.asarray(layer(values))
                continue
            mean = values.mean((0, 1, 2), dtype="float64")
            variance = values.var((0, 1, 2), dtype="float64")
            row += [mean, variance]
            values = (values - mean) / np.sqrt(variance + layer.epsilon)
            values = (values * layer.gamma + layer.beta).astype("float32")
        found.append(row)
    return np.mean(found, axis=0)


def statistics(network):
    return [
        np.asarray(variable)
        for layer in (
            network.backbone.get_layer("norm_1"),
            network.backbone.get_layer("norm_2"),
        )
        for variable in (layer.moving_mean, layer.moving_variance)
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("momentum", [0.0, 0.999])
def test_statistics_are_those_of_a_plain_account(kind, momentum, batches):
    network = network_of(kind, momentum)
    expected = plain_statistics(network, batches)
    weights = [np.asarray(v) for v in network.trainable_variables]
    measure(network, batches)
    np.testing.assert_allclose(statistics(network), expected, 1e-4, 1e-5)
    for before, after in zip(weights, network.trainable_variables, strict=True):
        np.testing.assert_array_equal(before, after)


def test_where_they_began_does_not_matter(batches):
    network = network_of(keras.layers.BatchNormalization)
    measure(network, batches)
    once = statistics(network)
    measure(network, batches)
    np.testing.assert_array_equal(once, statistics(network))


@pytest.mark.parametrize("change", ["frozen", "never moved"])
def test_layers_that_training_does_not_move_stay(change, batches):
    network = network_of(keras.layers.BatchNormalization)
    layer = network.backbone.get_layer("norm_1")
    if change == "frozen":
        layer.trainable = False
    else:
        layer.momentum = 1.0
    measure(network, batches)
    mean, variance, *others = statistics(network)
    assert (mean == 0).all() and (variance == 1).all()
    assert not np.allclose(others[0], 0)


def test_of_a_branch_the_newest_alone_is_measured(batches):
    base = network_of(keras.layers.BatchNormalization)
    network = BranchedNetwork(base).with_branch()
    network.grow(2)
    before = [np.asarray(v) for v in base.variables]
    newest = network.branches[-1].backbone
    (layer,) = [
        layer
        for layer in newest.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    measure(network, batches)
    assert not np.allclose(layer.moving_variance, 1)
    for value, variable in zip(before, base.variables, strict=True):
        np.testing.assert_array_equal(value, variable)


def test_layers_within_layers_are_found(batches):
    @keras.saving.register_keras_serializable("tests")
    class Block(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.norm = keras.layers.BatchNormalization()

        def call(self, inputs, training=None):
            return self.norm(inputs, training=training)

    block = Block()
    backbone = keras.Sequential(
        [keras.Input((4, 4, 2)), block, keras.layers.GlobalAveragePooling2D()]
    )
    measure(SingleNetwork(backbone), batches)
    assert not np.allclose(block.norm.moving_mean, 0)


def test_synchronised_layers_are_measured_on_every_replica(batches):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        network = network_of(
            lambda **options: keras.layers.BatchNormalization(
                synchronized=True, **options
            )
        )
    expected = plain_statistics(network, batches)
    BatchStatistics(network, strategy).measure(columns(batches))
    np.testing.assert_allclose(statistics(network), expected, 1e-4, 1e-5)


def test_one_trace_for_batches_of_any_size(batches, monkeypatch):
    network = network_of(keras.layers.BatchNormalization)
    traces = []

    def frozen(images):
        traces.append(images.shape.as_list())
        return images

    monkeypatch.setattr(network, "frozen", frozen)
    measured = BatchStatistics(network, tf.distribute.get_strategy())
    measured.measure(columns(batches))
    measured.measure(columns(batches[::-1]))
    assert [sizes for sizes, *_ in traces] == [None]
    assert measured.fits(network)
    assert not measured.fits(network_of(keras.layers.BatchNormalization))
