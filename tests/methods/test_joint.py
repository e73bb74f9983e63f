"""The upper bound, from scratch."""

import keras
import numpy as np
import pytest

import keras_incremental as ki
from keras_incremental.networks import SingleNetwork

EPOCHS = 2


class Starts(keras.callbacks.Callback):
    """Keeps the weights at the start of each fit, and momentum."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_train_begin(self, logs=None):
        self.weights.append(values(self.model))


def values(model):
    return [np.array(v) for v in model.network.backbone.variables]


@pytest.fixture
def model(lend_tiny):
    return lend_tiny()


def fit(model, incremental, data, starts=None):
    callbacks = [incremental, *([starts] if starts else [])]
    return model.fit(*data, epochs=EPOCHS, verbose=0, callbacks=callbacks)


def test_from_scratch_each_task_starts_from_fresh_weights(model, blobs):
    starts = Starts()
    incremental = ki.IncrementalCallback(method=ki.Joint(from_scratch=True))
    ends, traces = [], set()
    for labels in ([0, 1], [2], [3, 4]):
        fit(model, incremental, blobs(labels), starts)
        ends.append(values(model))
        traces.add(model.train_function_traces)
    assert len(traces) == 1
    for start, end in zip(starts.weights[1:], ends, strict=False):
        kernel, gamma, beta, mean, variance = start
        assert np.abs(kernel - end[0]).min() > 0
        np.testing.assert_array_equal(gamma, 1)
        np.testing.assert_array_equal(beta, 0)
        np.testing.assert_array_equal(mean, 0)
        np.testing.assert_array_equal(variance, 1)
    kernels = [start[0] for start in starts.weights]
    assert len({kernel.tobytes() for kernel in kernels}) == 3
    deviations = [kernel.std() for kernel in kernels]
    np.testing.assert_allclose(deviations, deviations[0], rtol=0.2)


def test_it_does_not_depend_on_what_was_learned_before(model, blobs, restored):
    learned, results = [], []
    for first_rate in (0.1, 0.001):
        incremental = ki.IncrementalCallback(method=ki.Joint(from_scratch=True))
        with restored(model):
            model.optimizer.learning_rate = first_rate
            fit(model, incremental, blobs([0, 1]))
            learned.append(values(model)[0])
            model.optimizer.learning_rate = 0.1
            fit(model, incremental, blobs([2, 3]))
            results.append(model.get_weights())
    assert np.abs(np.subtract(*learned)).max() > 1e-3
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_task_that_fails_leaves_what_was_learned(model, blobs):
    class Fail(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError

    incremental = ki.IncrementalCallback(method=ki.Joint(from_scratch=True))
    fit(model, incremental, blobs([0, 1]))
    before = model.get_weights()
    with pytest.raises(RuntimeError):
        fit(model, incremental, blobs([2]), Fail())
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_known_classes_without_their_data_are_refused(model, blobs):
    fit(model, ki.IncrementalCallback(method=ki.Joint()), blobs([0, 1]))
    incremental = ki.IncrementalCallback(method=ki.Joint(from_scratch=True))
    with pytest.raises(ValueError, match="would forget the 2 classes"):
        fit(model, incremental, blobs([2]))
    assert model.labels == [0, 1]


def test_a_network_with_branches_is_refused(make_tiny_backbone, blobs):
    model = ki.IncrementalClassifier(make_tiny_backbone(), branch_at=0.0)
    model.add_classes([0])
    model.network = ki.networks.OneHeadNetwork.on(model.network).with_branch()
    model.compile("sgd")
    incremental = ki.IncrementalCallback(method=ki.Joint(from_scratch=True))
    with pytest.raises(ValueError, match="is a OneHeadNetwork"):
        fit(model, incremental, blobs([1]))


def test_frozen_layers_and_adapted_statistics_are_kept():
    adapted = keras.layers.Normalization(axis=-1)
    adapted.adapt(np.arange(12.0).reshape(4, 3))
    frozen = keras.layers.BatchNormalization(trainable=False)
    backbone = keras.Sequential(
        [
            keras.Input((3,)),
            adapted,
            keras.layers.Dense(3, name="frozen", trainable=False),
            frozen,
            keras.layers.Dense(3, name="trained"),
        ]
    )
    frozen.moving_mean.assign([1.0, 2.0, 3.0])
    network = SingleNetwork(backbone)
    network.grow(2)
    backbone.get_layer("trained").bias.assign([1.0, 2.0, 3.0])
    network.head.set_head_weights(0, np.full((3, 2), 9.0), np.ones(2))
    before = {v.path: np.array(v) for v in backbone.variables}
    drawn = []
    for seed in ((1, 2), (1, 3), (1, 2)):
        network.reinitialize(seed)
        drawn.append(backbone.get_layer("trained").kernel.numpy())
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert np.abs(drawn[0] - drawn[1]).min() > 0
    for variable in backbone.variables:
        if "trained" not in variable.path:
            np.testing.assert_array_equal(before[variable.path], variable)
    np.testing.assert_array_equal(backbone.get_layer("trained").bias, 0)
    kernel, bias = network.head_weights(0)
    assert np.abs(kernel).max() < 2
    np.testing.assert_array_equal(bias, 0)
