"""How a class is decided: each rule by hand, as it grows, shrinks, is saved."""

import json

import keras
import numpy as np
import pytest

import keras_incremental as ki
from keras_incremental.score_rules import AffinePerHead, NearestMean, ScoreRule

FEATURES = np.array([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]], "float32")
LOGITS = np.array([[1.0, 2.0, 8.0], [0.0, -1.0, 1.0], [5.0, 0.0, 0.0]], "f")


def test_the_simplest_rule_is_the_logits():
    rule = ScoreRule()
    np.testing.assert_array_equal(rule(FEATURES, LOGITS), LOGITS)
    assert rule.grown(3) is rule
    assert not rule.weights


def test_a_scale_and_a_bias_for_each_head():
    rule = AffinePerHead([2, 1], [2.0, 0.5], [-1.0, 3.0])
    np.testing.assert_allclose(
        rule(FEATURES, LOGITS), LOGITS * [2, 2, 0.5] + [-1, -1, 3], rtol=1e-6
    )
    assert not rule.trainable_weights
    half = rule(FEATURES, LOGITS.astype("float16"))
    assert half.dtype == "float16"
    plain = AffinePerHead([2, 1])
    np.testing.assert_array_equal(plain(FEATURES, LOGITS), LOGITS)


def test_a_head_comes_and_the_others_keep_their_numbers():
    rule = AffinePerHead([2, 1], [2.0, 0.5], [-1.0, 3.0])
    grown = rule.grown(4)
    assert grown.head_sizes == [2, 1, 4]
    assert grown.scales.numpy().tolist() == [2.0, 0.5, 1.0]
    assert grown.biases.numpy().tolist() == [-1.0, 3.0, 0.0]


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_scales_that_are_not_above_0_are_refused(scale):
    with pytest.raises(ValueError, match=r"expected all above 0"):
        AffinePerHead([1, 1], [3.0, scale])


@pytest.mark.parametrize(
    ("scales", "biases"),
    [([2.0], [1.0]), ([2.0, 2, 2], [1.0]), ([], []), ([1.0, 1.0], [0.0])],
)
def test_another_number_of_scales_or_biases_is_refused(scales, biases):
    with pytest.raises(ValueError, match="one number of each for each head"):
        AffinePerHead([2, 3], scales, biases)


def test_the_nearest_mean_by_hand():
    rule = NearestMean([[1.0, 0.0], [0.0, 5.0]])
    np.testing.assert_allclose(
        rule(FEATURES, LOGITS),
        # Features of length 1: (0.6, 0.8), (0, 1); none has no direction.
        [[-0.8, -0.4], [-2.0, 0.0], [-1.0, -1.0]],
        atol=1e-6,
    )
    half = rule(FEATURES.astype("float16"), LOGITS)
    assert half.dtype == "float32"
    # New classes have no mean: the logits decide until there is one.
    assert type(rule.grown(1)) is ScoreRule


@pytest.mark.parametrize(
    "means", [[1.0, 2.0], [[1.0, float("nan")]], [[[1.0]]]]
)
def test_means_that_are_no_finite_rows_are_refused(means):
    with pytest.raises(ValueError, match="one finite row of features a class"):
        NearestMean(means)


@pytest.mark.parametrize(
    "rule",
    [
        ScoreRule(name="rule"),
        AffinePerHead([2, 1], [2.0, 0.5], [-1.0, 3.0]),
        NearestMean([[1.0, 0.0], [0.0, 5.0], [1.0, 1.0]]),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_a_rule_comes_back_with_its_model(rule, tmp_path):
    backbone = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model = ki.IncrementalClassifier(backbone)
    model.add_classes([0, 1, 2])
    model.score_rule = rule
    x = np.random.default_rng(0).normal(size=(5, 4))
    scores = model.predict(x, verbose=0)
    np.testing.assert_allclose(
        scores,
        rule(model.extract_features(x), model.logits_and_scores(x)[0]),
        rtol=1e-5,
        atol=1e-5,
    )
    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.models.load_model(path)
    np.testing.assert_array_equal(again.predict(x, verbose=0), scores)
    assert type(again.score_rule) is type(rule)
    assert again.score_rule.get_config() == rule.get_config()
    json.dumps(rule.get_config())
    # Keras tracks and saves the rule in use alone.
    other = AffinePerHead([3])
    model.score_rule = other
    assert {id(w) for w in rule.weights}.isdisjoint(map(id, model.weights))
    assert {id(w) for w in other.weights} <= {*map(id, model.weights)}
