"""Logits and scores of labelled images, and the figures made of them."""

import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

import keras_incremental as ki
from keras_incremental.predictions import Predictions, predict
from keras_incremental.score_rules import AffinePerHead

LABELS = ["owl", "cat", "fox", "ant", "bee"]
HEADS = [2, 2, 1]


@pytest.fixture(scope="module")
def model():
    """An untrained classifier of three heads; the last one's scores win."""
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential(
        [keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    model = ki.IncrementalClassifier(backbone)
    first = 0
    for units in HEADS:
        model.add_classes(LABELS[first : first + units])
        first += units
    model.score_rule = AffinePerHead(HEADS, biases=[0.0, 0.0, 1e4])
    return model


def dataset(count):
    images = np.random.default_rng(0).integers(0, 255, (count, 2, 2, 1))
    labels = np.array([LABELS[-1 - i % 5] for i in range(count)])
    return tf.data.Dataset.from_tensor_slices(
        (images.astype("uint8"), labels)
    ), images.astype("uint8")


@pytest.mark.parametrize("batch_size", [3, 256])
def test_all_images_are_predicted_in_order(model, batch_size):
    data, images = dataset(7)
    found = predict(model, data, batch_size)
    logits, scores = model.logits_and_scores(images)
    # Other batch sizes may round otherwise.
    np.testing.assert_allclose(found.logits, logits, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-4, atol=1e-3)
    assert found.units.tolist() == [4, 3, 2, 1, 0, 4, 3]
    assert found.task_of_unit.tolist() == [0, 0, 1, 1, 2]


def test_scores_decide_and_logits_are_reported_beside_them(model):
    found = predict(model, dataset(10)[0])
    assert found.classes.tolist() == [4] * 10
    assert found.accuracy == 0.2
    best = found.logits.argmax(axis=1)
    assert found.uncalibrated_accuracy == np.mean(best == found.units)


def test_task_aware_classes_are_the_best_of_the_true_task_by_the_logits():
    found = Predictions(
        units=np.array([0, 1, 2]),
        logits=np.array([[1.0, 2.0, 9.0], [5.0, 4.0, 9.0], [7.0, 7.0, 1.0]]),
        scores=np.array([[9.0, 1.0, 1.0]] * 3),
        task_of_unit=np.array([0, 0, 1]),
    )
    assert found.task_aware_classes.tolist() == [1, 0, 2]
    assert found.classes.tolist() == [0, 0, 0]


@hypothesis.given(
    units=st.lists(st.integers(0, 4), min_size=1), first=st.integers(0, 3)
)
def test_images_of_late_tasks_are_those_of_the_classes_learned_then(
    units, first
):
    task_of_unit = np.array([0, 0, 1, 1, 2])
    numbers = np.arange(len(units))[:, None] + np.zeros(5)
    found = Predictions(np.array(units), numbers, -numbers, task_of_unit)
    late = found.of_tasks_from(first)
    rows = [i for i, unit in enumerate(units) if task_of_unit[unit] >= first]
    assert late.units.tolist() == [units[i] for i in rows]
    assert late.logits[:, 0].tolist() == rows
    assert late.scores[:, 0].tolist() == [-i for i in rows]
    assert late.task_of_unit is task_of_unit


def test_a_label_that_the_model_does_not_know_is_an_error(model):
    data = tf.data.Dataset.from_tensors((np.zeros((2, 2, 1)), "dog"))
    with pytest.raises(ValueError, match="dog"):
        predict(model, data)
