"""Work of inference and training, against hand counts."""

import dataclasses

import keras
import pytest
from keras import layers

from keras_incremental.cost import HOROWITZ_45NM, EnergyConstants
from keras_incremental.cost.counting import (
    Work,
    count_part,
    inference,
    parameters,
    training,
)
from keras_incremental.cost.part_cost import (
    QUANTITIES,
    PartCost,
    part_cost,
    ratio,
    total,
)


@pytest.fixture
def network():
    """Convolution 72 MACs, 18 weights; normalisation 8 (4 trained); dense 24
    MACs, 27 weights. Activations: 16, 8, 8, 8, (8), 3.
    """
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Conv2D(2, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def test_inference_reads_inputs_and_weights_and_writes_outputs(network):
    activations = (16 + 8) + (8 + 8) + (8 + 8) + (8 + 3)
    weights = 18 + 8 + 27
    part = count_part(network)
    assert parameters(part) == weights == network.count_params()
    assert inference(part, 1) == Work(72 + 24, activations + weights)
    assert inference(part, 4) == Work(72 + 24, activations + weights / 4)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_training_adds_gradients_and_the_update(network, frozen, batch_size):
    network.trainable = not frozen
    forward = (16 + 8) + (8 + 8) + (8 + 8) + (8 + 3)
    # Saved inputs, gradient of the output, gradient of the input.
    backward = (16 + 8 + 0) + (8 + 8 + 8) + (8 + 8 + 8) + (8 + 3 + 8)
    trained = 18 + 4 + 27
    once = 2 * (18 + 8 + 27) + trained + 5 * trained
    work = training(count_part(network), batch_size)
    # The convolution is first: a gradient of its weights, none of its input.
    assert work.macs == (72 + 24) + 72 + 2 * 24
    assert work.values == forward + backward + once / batch_size


def test_a_head_is_a_dense_layer_on_the_features(network):
    part = count_part(network, head_units=5)
    assert part[-1].macs == 3 * 5
    assert parameters(part) == 53 + 3 * 5 + 5
    # 20 weights, forward and backward through 3 features to 5 logits.
    added = training(part, 1).values - training(count_part(network), 1).values
    assert added == (3 + 5 + 20) + (3 + 5 + 3) + 20 + 6 * 20


def test_what_comes_before_all_trained_weights_has_no_way_back():
    x = keras.Input((4,))
    y = layers.ReLU()(layers.Rescaling(2.0)(x))
    part = count_part(keras.Model(x, layers.Dense(2)(y)))
    before = 2 * (4 + 4)
    assert training(part, 1) == Work(
        8 + 8, before + (4 + 2 + 10) + (4 + 2) + 10 + 6 * 10
    )


def test_neither_of_two_first_layers_needs_a_gradient_of_its_input():
    x = keras.Input((4,))
    y = layers.Add()([layers.Dense(4)(x), layers.Dense(4)(x)])
    macs = training(count_part(keras.Model(x, layers.Dense(2)(y))), 1).macs
    assert macs == 2 * 16 * 2 + 8 * 3


def test_a_layer_behind_trained_normalisation_needs_one():
    x = keras.Input((4,))
    y = layers.Dense(2)(layers.BatchNormalization()(x))
    assert training(count_part(keras.Model(x, y)), 1).macs == 8 * 3


def test_only_the_inputs_that_lead_to_weights_get_a_gradient():
    x = keras.Input((4,))
    y = layers.Add()([x, layers.Dense(4, use_bias=False)(x)])
    forward = (4 + 4 + 16) + (4 + 4 + 4)
    dense = 4 + 4 + 16 + 6 * 16
    add = 4 + 4 + 4 + 4  # Two saved inputs, the output's gradient, one input's.
    part = count_part(keras.Model(x, y))
    assert training(part, 1).values == forward + dense + add


def test_a_layer_called_twice_is_stored_read_and_updated_once():
    dense, x = layers.Dense(4, use_bias=False), keras.Input((4,))
    part = count_part(keras.Model(x, dense(dense(x))))
    assert parameters(part) == 16
    assert inference(part, 1) == Work(32, 16 + 16)
    # Both calls have a gradient of the weights; the second also of its input.
    assert training(part, 1).macs == 2 * 16 + 16 + 2 * 16
    assert training(part, 1).values == 32 + (8 + 12) + 16 + 6 * 16


def test_an_identity_costs_nothing():
    x = keras.Input((4, 4, 2))
    for same in (keras.Model(x, x), keras.Model(x, layers.Identity()(x))):
        assert inference(count_part(same), 1) == Work(0, 0)
        assert training(count_part(same), 1) == Work(0, 0)


def test_energy_is_that_of_horowitz():
    one_mac, one_value = 0.9e-12 + 3.7e-12, 640e-12
    assert HOROWITZ_45NM.energy(1, 0) == pytest.approx(one_mac, rel=1e-12)
    assert HOROWITZ_45NM.energy(0, 4) == pytest.approx(one_value, rel=1e-12)
    assert HOROWITZ_45NM.energy(3, 8) == pytest.approx(
        3 * one_mac + 2 * one_value, rel=1e-12
    )


def test_bytes_and_energy_follow_the_constants():
    half = EnergyConstants(1.0, 2.0, 4.0, bytes_per_value=2)
    cost = part_cost("p", 10, Work(5, 6), Work(7, 8), half)
    assert cost == PartCost(
        name="p",
        parameters=10,
        bytes_stored=20,
        inference_macs=5,
        inference_bytes=12,
        inference_energy=5 * 3.0 + 12 / 4 * 4.0,
        training_macs=7,
        training_bytes=16,
        training_energy=7 * 3.0 + 16 / 4 * 4.0,
    )


def test_totals_and_ratios_of_what_is_not_measured_are_none():
    part = part_cost("p", 2, Work(3, 4), Work(5, 6), HOROWITZ_45NM)
    timed = dataclasses.replace(part, inference_seconds=1.0)
    both = total("both", [part, timed])
    assert (both.parameters, both.training_macs) == (4, 10)
    assert both.inference_seconds is None
    assert ratio(part, both, "inference_macs") == 0.5
    assert ratio(part, both, "inference_seconds") is None
    nothing = PartCost("n", **dict.fromkeys(QUANTITIES, 0))
    assert ratio(part, nothing, "inference_macs") is None
