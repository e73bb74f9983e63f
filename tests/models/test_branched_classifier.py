"""IncrementalClassifier with branches of either kind."""

import json
import os
import pathlib
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.graphs import clone_network
from keras_incremental.models import copy_state
from keras_incremental.networks import (
    BranchedNetwork,
    OneHeadNetwork,
    SingleNetwork,
)
from keras_incremental.score_rules import AffinePerHead, ScoreRule

ROOT = pathlib.Path(__file__).parents[2]
X = np.random.default_rng(0).integers(0, 255, (9, 4, 4, 1), "uint8")


def classifier(branch_at="stage2", base=(40, 7), eager=True, capacity=128):
    """Makes a compiled model with base classes.

    Its steps run eagerly, but for the networks' own traced parts.
    """
    keras.utils.set_random_seed(0)
    model = ki.IncrementalClassifier(
        ki.backbones.small((4, 4, 1)), branch_at=branch_at, capacity=capacity
    )
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), run_eagerly=eager)
    if base:
        model.add_classes(base)
    return model


@pytest.fixture
def make(lent):
    """Returns a function that lends what `classifier` makes."""
    return lambda *args: lent(classifier, *args)


def scores_of(model):
    """As `predict`, without a pipeline of data."""
    return model(X, training=False).numpy()


def teach(model, x, y):
    incremental = ki.IncrementalCallback(method=ki.PartialSharing())
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[incremental])


def flags(model):
    head = model.network.base().head
    return [layer.trainable for layer in (*model.backbone.layers, head)]


def logits_of(model):
    return model.logits_and_scores(X)[0]


# Growth.


def test_a_branch_adds_its_logits_behind_those_of_the_base(make, add_branch):
    model = make()
    before = logits_of(model)
    add_branch(model, [300, 5, 6], ["three hundred", "five", "six"])
    add_branch(model, [1])
    logits = model.predict(X, verbose=0)
    network = model.network
    outputs = network.trunk(X)
    by_hand = [network.base().head(network.tail(outputs))]
    by_hand += [
        branch.head(branch.backbone(outputs)) for branch in network.branches
    ]
    np.testing.assert_allclose(logits, np.concatenate(by_hand, 1), atol=1e-5)
    np.testing.assert_allclose(logits[:, :2], before, atol=1e-5)
    assert logits.shape == (9, 6) == (9, model.num_classes)
    assert model.labels == [40, 7, 300, 5, 6, 1]
    assert model.class_names[2:] == ["three hundred", "five", "six", "1"]
    assert model.heads == [slice(0, 2), slice(2, 5), slice(5, 6)]
    names = model.classify(X, verbose=0)
    expected = np.array(model.class_names)[logits.argmax(1)]
    assert names.tolist() == expected.tolist()


def test_the_newest_branch_alone_is_trained(make, add_branch):
    model = make()
    assert len(model.trainable_variables) == 11  # 3 x 3 and the head's 2
    for label in (1, 2):
        add_branch(model, [label])
        assert len(model.trainable_variables) == 3 + 2
        assert {id(v) for v in model.trainable_variables} == {
            id(v) for v in model.network.branches[-1].trainable_variables
        }


@pytest.mark.slow
def test_removing_classes_takes_branches_and_their_score_rule_back(
    make, add_branch
):
    model = make()
    before = model.predict(X, verbose=0)
    model.score_rule = AffinePerHead([2], [2.0], [0.5])
    add_branch(model, [300, 5])
    assert model.score_rule.head_sizes == [2, 2]
    one, _ = model.logits_and_scores(X)
    add_branch(model, [1])
    assert model.predict(X, verbose=0).shape == (9, 5)
    model.remove_classes(2)
    assert model.labels == [40, 7, 300, 5] and len(model.network.branches) == 1
    np.testing.assert_array_equal(model.logits_and_scores(X)[0], one)
    model.remove_classes(1)
    assert model.labels == [40, 7]
    assert isinstance(model.network, SingleNetwork)
    np.testing.assert_allclose(model.predict(X, verbose=0), before, atol=1e-4)
    assert len(model.trainable_variables) == 11


@pytest.mark.slow
@pytest.mark.parametrize(
    "with_calls_between", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_a_branch_of_more_classes_than_its_heads_capacity(
    make, blobs, add_branch, with_calls_between
):
    """The newest branch's head grows by variables, and is called by all."""
    model = make("stage2", (40, 7), not with_calls_between)
    add_branch(model, [1, 2])
    if with_calls_between:  # functions traced before the growth
        before = logits_of(model)
        model.predict(X, verbose=0)
    teach(model, *blobs(range(100, 120), per_class=1))
    newest = model.network.branches[-1]
    assert newest.head.allocated == 32
    logits = model(X).numpy()
    assert logits.shape == (9, 24)
    assert model.predict(X, verbose=0).shape == (9, 24)
    assert logits_of(model).shape == (9, 24)
    np.testing.assert_allclose(
        logits[:, 4:], newest(model.network.trunk(X))[0], atol=1e-5
    )
    if with_calls_between:
        np.testing.assert_allclose(logits[:, :4], before, atol=1e-5)
    add_branch(model, [3])
    np.testing.assert_array_equal(model(X)[:, :24], logits)


def test_a_base_that_grew_after_its_first_branch_was_taken_back(
    make, add_branch
):
    model = make("stage2", (40, 7), True, 2)
    add_branch(model, [1])
    model(X)  # traces the base's logits
    model.remove_classes(1)
    model.add_classes([2, 3, 4])
    assert logits_of(model).shape == (9, 5)
    add_branch(model, [1])
    assert model(X).shape == logits_of(model).shape == (9, 6)


def test_branches_may_follow_a_base_of_several_heads(make, add_branch):
    model = make()
    model.add_classes([2])
    add_branch(model, [3, 4])
    assert model.heads == [slice(0, 2), slice(2, 3), slice(3, 5)]


# Inference.


def test_scores_are_scaled_and_shifted_branch_by_branch(make, add_branch):
    model = make()
    add_branch(model, [1, 2, 3])
    raw = model.predict(X, verbose=0)
    model.score_rule = AffinePerHead([2, 3], [2.0, 0.5], [-1.0, 3.0])
    np.testing.assert_allclose(
        model.predict(X, verbose=0),
        raw * [2, 2, 0.5, 0.5, 0.5] + [-1, -1, 3, 3, 3],
        rtol=1e-5,
        atol=1e-5,
    )
    np.testing.assert_allclose(logits_of(model), raw, rtol=1e-5, atol=1e-5)


def test_features_are_those_of_the_newest_branch(make, add_branch, tmp_path):
    model = make()
    images = tf.data.Dataset.from_tensor_slices(X)
    np.testing.assert_allclose(
        model.extract_features(images),
        model.backbone(X),
        rtol=1e-5,
        atol=1e-5,
    )
    add_branch(model, [1, 2])
    draw(model.network.branches[-1])
    features = model.extract_features(images)
    expected = model.network.branches[-1](model.network.trunk(X))[1]
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(model.extract_features(X), features)
    assert np.abs(features - model.backbone(X)).max() > 1e-3
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.extract_features(images), features)
    model.remove_classes(1)
    np.testing.assert_allclose(
        model.extract_features(images),
        model.backbone(X),
        rtol=1e-5,
        atol=1e-5,
    )
    assert model.extract_features(X[:0]).shape == (0, features.shape[1])


# A user's own frozen layers.


def test_a_users_frozen_layers_stay_frozen_and_come_back(add_branch):
    backbone = ki.backbones.small((4, 4, 1))
    for layer in backbone.layers[:4]:
        layer.trainable = False
    model = ki.IncrementalClassifier(backbone, branch_at="stage2")
    model.add_classes([40, 7])
    before = flags(model)
    assert before == [False] * 4 + [True] * (len(before) - 4)
    add_branch(model, [1])
    add_branch(model, [2])
    assert not any(flags(model))
    model.remove_classes(2)
    assert not any(flags(model))
    model.remove_classes(1)
    assert flags(model) == before


# Another branch point.


@pytest.mark.slow
def test_a_copy_cut_elsewhere_predicts_the_same(make, blobs):
    model = make()
    model.fit(*blobs([40, 7]), verbose=0)
    copy = model.with_branch_at("stage1")
    assert (copy.branch_at, model.branch_at) == ("stage1", "stage2")
    np.testing.assert_allclose(
        copy.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-5
    )
    assert copy.labels == model.labels and copy.compiled
    before = model.get_weights()
    teach(copy, *blobs([1]))
    for mine, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, old)


def test_only_a_model_without_branches_can_be_cut_elsewhere(make, add_branch):
    model = make(None)
    assert model.branch_at is None
    model = model.with_branch_at(0.5)
    add_branch(model, [1])
    assert scores_of(model).shape == (9, 3)
    with pytest.raises(ValueError, match="before the first branch"):
        model.with_branch_at("stage1")


# Errors.


def test_a_plain_fit_would_change_a_branch_and_is_refused(
    make, blobs, add_branch
):
    model = make()
    add_branch(model, [1])
    with pytest.raises(ValueError, match="method=PartialSharing"):
        model.fit(*blobs([1]))


def test_classes_that_cannot_be_added_leave_the_network_as_it_is(make):
    model = make()
    before = logits_of(model)
    for labels, message in (([], "no labels"), ([1, 7], "occur")):
        with pytest.raises(ValueError, match=message):
            model.add_classes(labels)
        assert model.labels == [40, 7] and all(flags(model))
    np.testing.assert_array_equal(logits_of(model), before)


def test_an_unknown_kind_of_network_is_named(make):
    model = make()
    structure = {**model.structure(), "network": "someone>Else"}
    with pytest.raises(ValueError, match=r"someone>Else.*Import the module"):
        model.restore_structure(structure)
    assert model.labels == [40, 7]


# State and files, of either kind.


def draw(part):
    random = np.random.default_rng(len(part.weights))
    part.set_weights([random.uniform(0.5, 1.5, w.shape) for w in part.weights])


@pytest.fixture(
    scope="module",
    params=[
        BranchedNetwork,
        pytest.param(OneHeadNetwork, marks=pytest.mark.slow),
    ],
)
def grown(request, add_branch):
    """A base and three branches, one thinner, with weights of their own."""
    model = classifier()
    draw(model.backbone)
    for labels, width in (([300, 5], 1.0), ([1], 1.0), ([2, 3], 0.5)):
        part = clone_network(model.network.base().tail, width)
        draw(part)
        add_branch(model, labels, network=part, kind=request.param, seed=1)
    rule = AffinePerHead([2, 2, 1, 2], [1.5, 0.5, 2, 0.7], [0.1, -0.2, 0, 4])
    model.score_rule = rule
    assert np.abs(np.diff(scores_of(model))).max() > 1e-3
    return model


@pytest.mark.slow
def test_a_structure_and_variables_are_a_whole_state(grown, make):
    structure = json.loads(json.dumps(grown.structure()))
    model = make("stage2", ())
    for _ in range(2):  # a structure can be read more than once
        model.restore_structure(structure)
        assert structure == json.loads(json.dumps(grown.structure()))
        copy_state(model, grown)
        assert type(model.network) is type(grown.network)
        assert model.heads == grown.heads and model.labels == grown.labels
        assert model.class_names == grown.class_names
        np.testing.assert_array_equal(scores_of(model), scores_of(grown))
        assert len(model.trainable_variables) == 5


@pytest.mark.slow
def test_a_keras_file_keeps_branches_scores_optimizer_and_growth(
    grown, add_branch, tmp_path
):
    model = grown
    model.optimizer.build(model.trainable_variables)
    for variable in model.optimizer.variables[2:]:  # the momenta
        variable.assign(variable + 0.25)
    model.save(tmp_path / "model.keras")
    with warnings.catch_warnings():
        # Keras warns of optimizer variables that do not fit.
        warnings.filterwarnings("error", message=".*[Ss]kipping variable.*")
        again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(scores_of(again), scores_of(model))
    assert again.labels == model.labels and again.heads == model.heads
    assert again.branch_at == "stage2"
    assert type(again.network) is type(model.network)
    assert len(again.trainable_variables) == 5
    for mine, theirs in zip(
        again.optimizer.variables, model.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    assert len(again.optimizer.variables) == 2 + 5
    before = logits_of(again)
    add_branch(again, [8, 9], kind=type(model.network))
    after = logits_of(again)
    # The parts run in another graph now.
    np.testing.assert_allclose(after[:, :7], before, rtol=1e-5, atol=1e-4)
    assert after.shape == (9, 9)
    assert again.score_rule.head_sizes == [2, 2, 1, 2, 2]


@pytest.mark.slow
def test_an_exported_branched_model_predicts_the_same(grown, tmp_path):
    signature = keras.InputSpec(shape=(None, 4, 4, 1), dtype="uint8")
    grown.export(
        tmp_path / "served", input_signature=[signature], verbose=False
    )
    served = tf.saved_model.load(tmp_path / "served")
    for rows in (X, X[:1]):
        np.testing.assert_allclose(
            served.serve(rows),
            grown.predict(rows, verbose=0),
            rtol=1e-5,
            atol=1e-4,
        )


@pytest.mark.slow
def test_models_load_and_go_on_in_a_fresh_process_that_imports_the_package(
    make, add_branch, blobs, tmp_path
):
    plain, model = make(None), make()
    add_branch(model, [300, 5])
    plain.save(tmp_path / "plain.keras")
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "plain.npy", plain.predict(X, verbose=0))
    np.save(tmp_path / "y.npy", model.predict(X, verbose=0))
    np.savez(tmp_path / "new.npz", *blobs([8, 9]))
    code = """
import keras, numpy as np, keras_incremental as ki
model = keras.models.load_model("model.keras")
x, new = np.load("x.npy"), np.load("new.npz")
y = np.load("y.npy")
plain = keras.models.load_model("plain.keras").predict(x, verbose=0)
np.testing.assert_array_equal(plain, np.load("plain.npy"))
np.testing.assert_array_equal(model.predict(x, verbose=0), y)
parts = model.network.part_logits(model.network.frozen(x))
incremental = ki.IncrementalCallback(method=ki.PartialSharing())
model.fit(new["arr_0"], new["arr_1"], verbose=0, callbacks=[incremental])
after = model.network.part_logits(model.network.frozen(x))
assert [part.shape[1] for part in after] == [2, 2, 2]
for old, new in zip(parts, after):
    np.testing.assert_array_equal(new, old)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True
    )


def test_a_model_without_branches_is_saved_with_its_branch_point(
    make, tmp_path
):
    for branch_at in (None, "stage1"):
        model = make(branch_at)
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(scores_of(again), scores_of(model))
        assert again.branch_at == branch_at
        assert type(again.network) is SingleNetwork
        assert type(again.score_rule) is ScoreRule
