"""A task that fails changes nothing: what is restored, part by part."""

import keras
import numpy as np
import pytest

import keras_incremental as ki
from keras_incremental.networks import BranchedNetwork, OneHeadNetwork
from keras_incremental.samples import ArraySamples
from keras_incremental.score_rules import AffinePerHead, NearestMean
from keras_incremental.training.rollback import undone_on_error


@pytest.fixture
def model(lend_tiny):
    model = lend_tiny(branch_at=0.0)
    model.add_classes([40, 7], ["forty", "seven"])
    model.score_rule = AffinePerHead([2], [0.5], [3.0])
    return model


@pytest.fixture
def memory(model, blobs):
    memory = ki.ExemplarMemory(6)
    memory.update(ArraySamples(*blobs([40, 7])), model.extract_features)
    return memory


class FailureError(Exception):
    """Raised in the middle of a task."""


def fail(model, memory, change):
    with pytest.raises(FailureError), undone_on_error(model, memory):
        change()
        raise FailureError


def values(variables):
    return [keras.ops.convert_to_numpy(v).copy() for v in variables]


def test_weights_statistics_and_rule_values_are_restored(model):
    variables = model.state_variables()
    before = values(variables)
    assert any("moving_mean" in variable.path for variable in variables)

    def change():
        for variable in variables:
            variable.assign(variable + 1.0)

    fail(model, None, change)
    assert [*map(id, model.state_variables())] == [*map(id, variables)]
    for value, expected in zip(values(variables), before, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_classes_names_and_heads_are_restored(model):
    fail(model, None, lambda: model.add_classes([300, 5]))
    assert model.labels == [40, 7]
    assert model.class_names == ["forty", "seven"]
    assert model.heads == [slice(0, 2)]
    model.add_classes([5])
    assert model.labels == [40, 7, 5]


def test_the_score_rule_is_restored(model, blobs):
    rule, images = model.score_rule, blobs([40])[0]
    logits, scores = model.logits_and_scores(images)
    np.testing.assert_allclose(scores, 0.5 * logits + 3.0, rtol=1e-5)

    def change():
        model.score_rule = NearestMean(np.eye(2, 16))

    fail(model, None, change)
    assert model.score_rule is rule
    np.testing.assert_array_equal(model.logits_and_scores(images)[1], scores)
    np.testing.assert_allclose(model.predict(images, verbose=0), scores)


@pytest.mark.parametrize("kind", [BranchedNetwork, OneHeadNetwork])
def test_the_kind_of_network_is_restored(model, blobs, kind):
    network, images = model.network, blobs([40])[0]
    trained = [*map(id, model.trainable_variables)]
    before = model.predict(images, verbose=0)

    def change():
        model.network = kind.on(model.network).with_branch()
        model.add_classes([300, 5])
        assert model.predict(images, verbose=0).shape == (12, 4)

    fail(model, None, change)
    assert model.network is network
    assert [*map(id, model.trainable_variables)] == trained
    np.testing.assert_array_equal(model.predict(images, verbose=0), before)


def test_the_memory_is_restored(model, memory, blobs):
    before = {label: memory.images(label) for label in memory.labels}
    model.add_classes([300])

    def change():
        samples = ArraySamples(*blobs([300]))
        memory.update(samples, model.extract_features)
        assert memory.labels == [40, 7, 300]

    fail(model, memory, change)
    assert memory.labels == [*before] == [40, 7]
    for label, images in before.items():
        np.testing.assert_array_equal(memory.images(label), images)


def test_an_interrupt_is_undone_and_goes_on(model):
    with pytest.raises(KeyboardInterrupt), undone_on_error(model):
        model.add_classes([300])
        raise KeyboardInterrupt
    assert model.num_classes == 2


def test_what_does_not_fail_stays(model):
    with undone_on_error(model):
        model.add_classes([300])
    assert model.labels == [40, 7, 300]
