"""IncrementalClassifier with a branch point: growth, inference, saving."""

import json
import os
import pathlib
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.graphs import clone_network

ROOT = pathlib.Path(__file__).parents[2]
X = np.random.default_rng(0).integers(0, 255, (9, 4, 4, 1), "uint8")


@pytest.fixture
def make():
    """Returns a function that makes a compiled model with base classes."""

    def model(branch_at="stage2", base=(40, 7), **options):
        keras.utils.set_random_seed(0)
        model = ki.IncrementalClassifier(
            ki.backbones.small((4, 4, 1)), branch_at=branch_at, **options
        )
        model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
        if base:
            model.add_classes(base)
        return model

    return model


def teach(model, x, y):
    incremental = ki.IncrementalCallback(method=ki.PartialSharing())
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[incremental])


def flags(model):
    return [layer.trainable for layer in (*model.backbone.layers, model.head)]


# Growth.


def test_a_branch_adds_its_logits_behind_those_of_the_base(make):
    model = make()
    before = model.predict(X, verbose=0)
    model.add_branch([300, 5, 6], ["three hundred", "five", "six"])
    model.add_branch([1])
    logits = model.predict(X, verbose=0)
    outputs = model.trunk(X)
    first, second = model.branches.branches
    by_hand = [
        model.head(model.tail(outputs)),
        first.head(first.network(outputs)),
        second.head(second.network(outputs)),
    ]
    np.testing.assert_allclose(logits, np.concatenate(by_hand, 1), atol=1e-5)
    np.testing.assert_array_equal(logits[:, :2], before)
    assert logits.shape == (9, 6) == (9, model.num_classes)
    assert model.labels == [40, 7, 300, 5, 6, 1]
    assert model.class_names[2:] == ["three hundred", "five", "six", "1"]
    assert model.heads == [slice(0, 2), slice(2, 5), slice(5, 6)]
    names = model.classify(X, verbose=0)
    expected = np.array(model.class_names)[logits.argmax(1)]
    assert names.tolist() == expected.tolist()


def test_a_branch_starts_as_an_exact_clone_of_the_tail(make, blobs):
    model = make()
    model.fit(*blobs([40, 7]), verbose=0)  # moves the batch statistics
    model.add_branch([300])
    for mine, theirs in zip(
        model.branches.newest.network.get_weights(),
        model.tail.get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_only_the_newest_branch_is_trainable(make):
    model = make()
    assert len(model.trainable_variables) == 11  # 3 x 3 and the head's 2
    for label in (1, 2):
        model.add_branch([label])
        newest = model.branches.newest
        assert {id(v) for v in model.trainable_variables} == {
            id(v)
            for v in (
                *newest.network.trainable_variables,
                *newest.head.trainable_variables,
            )
        }
        assert len(model.trainable_variables) == 3 + 2


def test_branches_may_follow_a_base_of_several_heads(make, blobs):
    model = make(base=())
    eeil = ki.IncrementalCallback(method=ki.EEIL(finetune_epochs=0))
    for labels in ([0, 1], [2]):
        model.fit(*blobs(labels), verbose=0, callbacks=[eeil])
    before = model.predict(X, verbose=0)
    teach(model, *blobs([3, 4]))
    assert model.heads == [slice(0, 2), slice(2, 3), slice(3, 5)]
    np.testing.assert_array_equal(model.predict(X, verbose=0)[:, :3], before)


def test_dropping_heads_takes_branches_back(make):
    model = make()
    before = model.predict(X, verbose=0)
    model.add_branch([300, 5])
    one = model.predict(X, verbose=0)
    model.add_branch([1])
    model.drop_heads(2)
    assert model.labels == [40, 7, 300, 5] and len(model.branches) == 1
    np.testing.assert_array_equal(model.predict(X, verbose=0), one)
    model.drop_heads(1)
    assert model.labels == [40, 7] and not model.has_branches
    np.testing.assert_array_equal(model.predict(X, verbose=0), before)
    assert len(model.trainable_variables) == 11


@pytest.mark.parametrize("with_calls_between", [False, True])
def test_a_branch_of_more_classes_than_its_heads_capacity(
    make, blobs, with_calls_between
):
    """The newest branch's head grows by variables, and is called by all."""
    model = make()
    teach(model, *blobs([1, 2]))
    if with_calls_between:  # a function traced before the growth
        before = model(X).numpy()
        model.uncalibrated_logits(X)
        model.predict(X, verbose=0)
    many = range(100, 140)
    teach(model, *blobs(many, per_class=2))
    assert model.branches.newest.head.allocated == 64
    logits = model(X).numpy()
    assert logits.shape == (9, 44)
    assert model.predict(X, verbose=0).shape == (9, 44)
    assert model.uncalibrated_logits(X).shape == (9, 44)
    outputs = model.trunk(X)
    newest = model.branches.newest
    np.testing.assert_allclose(
        logits[:, 4:], newest.head(newest.network(outputs)), atol=1e-5
    )
    if with_calls_between:
        np.testing.assert_array_equal(logits[:, :4], before)
    teach(model, *blobs([3]))
    np.testing.assert_array_equal(model(X)[:, :44], logits)


def test_branches_added_by_hand_beyond_the_capacity_can_be_followed(
    make, blobs
):
    model = make()
    model.add_branch([1, 2])
    model.add_branch(range(100, 120))
    teach(model, *blobs([3]))
    assert model.predict(X, verbose=0).shape == (9, 2 + 2 + 20 + 1)


def test_uncalibrated_logits_have_all_columns_after_the_head_has_grown(make):
    """They are what an experiment's figures are computed from."""
    model = make(branch_at=None, capacity=2)
    assert model.uncalibrated_logits(X).shape == (9, 2)
    model.add_classes([1, 2, 3])
    logits = model.uncalibrated_logits(X)
    assert logits.shape == (9, 5)
    np.testing.assert_allclose(
        logits, model.predict(X, verbose=0), rtol=1e-5, atol=1e-5
    )


def test_a_base_that_grew_after_its_first_branch_was_taken_back(make):
    model = make(capacity=2)
    model.add_branch([1])
    model(X)  # traces the base's logits
    model.drop_heads(1)
    model.add_classes([2, 3, 4])
    model.add_branch([1])
    assert model(X).shape == (9, 6)


# Inference.


def test_trunk_outputs_are_taken_wherever_images_are(make):
    model = make()
    for label in (1, 2):  # without a branch, and with one
        given = {"trunk_outputs": model.trunk_outputs(X)}
        labels = np.resize(model.labels, 9)
        np.testing.assert_allclose(
            model.predict(given, verbose=0),
            model.predict(X, verbose=0),
            atol=1e-5,
        )
        np.testing.assert_allclose(
            model.evaluate(given, labels, verbose=0),
            model.evaluate(X, labels, verbose=0),
            rtol=1e-4,
        )
        assert model.classify(given, verbose=0).shape == (9,)
        np.testing.assert_allclose(
            model.uncalibrated_logits(given),
            model.uncalibrated_logits(X),
            atol=1e-5,
        )
        model.add_branch([label])


def test_tail_of_trunk_is_the_backbone(make):
    model = make()
    np.testing.assert_allclose(
        model.tail(model.trunk(X)), model.backbone(X), atol=1e-5
    )
    np.testing.assert_array_equal(model.trunk_outputs(X), model.trunk(X))


def test_logits_are_scaled_and_shifted_branch_by_branch(make):
    model = make()
    model.add_branch([1, 2, 3])
    raw = model.predict(X, verbose=0)
    model.branches.calibrate([2.0, 0.5], [-1.0, 3.0])
    np.testing.assert_allclose(
        model.predict(X, verbose=0),
        raw * [2, 2, 0.5, 0.5, 0.5] + [-1, -1, 3, 3, 3],
        rtol=1e-5,
        atol=1e-5,
    )
    np.testing.assert_array_equal(model.uncalibrated_logits(X), raw)
    scales, biases = model.calibration()
    assert scales.tolist() == [2, 2, 0.5, 0.5, 0.5]
    assert biases.tolist() == [-1, -1, 3, 3, 3]


def test_calibration_of_a_model_without_branches_changes_nothing(make):
    for branch_at in (None, "stage2"):
        scales, biases = make(branch_at).calibration()
        assert scales.tolist() == [1, 1] and biases.tolist() == [0, 0]


def test_features_are_those_of_the_newest_branch(make, blobs, tmp_path):
    model = make()
    images = tf.data.Dataset.from_tensor_slices(X)
    np.testing.assert_allclose(
        model.extract_features(images), model.backbone(X), atol=1e-5
    )
    teach(model, *blobs([1, 2]))
    features = model.extract_features(images)
    expected = model.branches.newest.network(model.trunk(X), training=False)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert np.abs(features - model.backbone(X)).max() > 1e-3
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.extract_features(images), features)
    model.drop_heads(1)
    np.testing.assert_allclose(
        model.extract_features(images), model.backbone(X), atol=1e-5
    )


@pytest.mark.parametrize(
    ("branch_at", "name", "share"),
    [
        ("stage1", "stage1", 1 / 3),
        (0.5, "stage2", 2 / 3),
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
    ],
)
def test_the_branch_point_is_reported(make, branch_at, name, share):
    model = make(branch_at)
    assert model.branch_at == name
    assert model.shared_layers == pytest.approx(share)


def test_a_model_without_a_branch_point_has_no_parts(make):
    model = make(None)
    assert model.branch_at is model.trunk is model.tail is None
    assert model.shared_layers is None and not model.has_branches
    with pytest.raises(ValueError, match="branch_at="):
        model.trunk_outputs(X)
    with pytest.raises(ValueError, match="branch_at="):
        model.predict({"trunk_outputs": np.zeros((1, 2, 2, 64))}, verbose=0)


# A user's own frozen layers.


def test_a_users_frozen_layers_stay_frozen_and_come_back(make):
    backbone = ki.backbones.small((4, 4, 1))
    for layer in backbone.layers[:4]:
        layer.trainable = False
    model = ki.IncrementalClassifier(backbone, branch_at="stage2")
    model.add_classes([40, 7])
    before = flags(model)
    assert before == [False] * 4 + [True] * (len(before) - 4)
    model.add_branch([1])
    model.add_branch([2])
    assert not any(flags(model))
    model.drop_heads(2)
    assert not any(flags(model))
    model.drop_heads(1)
    assert flags(model) == before


def test_frozen_layers_of_a_nested_model_come_back():
    inner = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Conv2D(2, 3, name="frozen"),
            keras.layers.Conv2D(2, 1, name="open"),
        ]
    )
    inner.get_layer("frozen").trainable = False
    backbone = keras.Sequential(
        [keras.Input((4, 4, 1)), inner, keras.layers.Flatten(name="flat")]
    )
    model = ki.IncrementalClassifier(backbone, branch_at=0.0)
    model.add_classes([0])
    model.add_branch([1])
    assert not inner.get_layer("open").trainable
    model.drop_heads(1)
    assert not inner.get_layer("frozen").trainable
    assert inner.get_layer("open").trainable


# Another branch point.


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


def test_a_model_without_a_branch_point_can_be_given_one(make):
    model = make(None).with_branch_at(0.5)
    model.add_branch([1])
    assert model.predict(X, verbose=0).shape == (9, 3)


def test_a_model_with_branches_cannot_be_cut_elsewhere(make):
    model = make()
    model.add_branch([1])
    with pytest.raises(ValueError, match="before the first branch"):
        model.with_branch_at("stage1")


# Errors.


def test_a_plain_fit_would_change_a_branch_and_is_refused(make, blobs):
    model = make()
    model.add_branch([1])
    with pytest.raises(ValueError, match="method=PartialSharing"):
        model.fit(*blobs([1]), verbose=0)


@pytest.mark.parametrize(
    ("branch_at", "base", "labels", "message"),
    [
        ("stage2", (40, 7), [], "no labels"),
        (None, (40, 7), [1], "branch_at="),
        ("stage2", (), [1], "knows no classes"),
        ("stage2", (40, 7), [1, 7], "occur"),
        ("stage2", (40, 7), [1, 1], "occur"),
    ],
)
def test_a_branch_that_cannot_be_added_changes_nothing(
    make, branch_at, base, labels, message
):
    model = make(branch_at, base)
    with pytest.raises(ValueError, match=message):
        model.add_branch(labels)
    assert model.labels == list(base) and not model.has_branches
    assert all(flags(model))


# Files.


@pytest.fixture
def grown(make):
    """A base and three branches, one thinner, with weights of their own."""
    model, random = make(), np.random.default_rng(0)

    def draw(part):
        part.set_weights(
            [random.uniform(0.5, 1.5, w.shape) for w in part.weights]
        )

    draw(model.backbone)
    for labels, width in (([300, 5], 1.0), ([1], 1.0), ([2, 3], 0.5)):
        model.add_branch(labels, network=clone_network(model.tail, width))
        draw(model.branches.newest.network)
    model.branches.calibrate([1.5, 0.5, 2, 0.7], [0.1, -0.2, 0, 4])
    logits = model.predict(X, verbose=0)
    assert np.abs(np.diff(logits)).max() > 1e-3
    return model


def test_keras_file_round_trip_keeps_branches_and_growth(
    grown, blobs, tmp_path
):
    model = grown
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        again.predict(X, verbose=0), model.predict(X, verbose=0)
    )
    assert again.labels == model.labels and again.heads == model.heads
    assert again.branch_at == "stage2"
    np.testing.assert_array_equal(again.calibration(), model.calibration())
    assert len(again.trainable_variables) == 5
    before = again.uncalibrated_logits(X).numpy()
    teach(again, *blobs([8, 9]))
    after = again.uncalibrated_logits(X).numpy()
    np.testing.assert_array_equal(after[:, :7], before)
    assert after.shape == (9, 9)


def test_a_branched_model_goes_on_in_a_fresh_process(grown, blobs, tmp_path):
    model = grown
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", model.predict(X, verbose=0))
    np.savez(tmp_path / "new.npz", *blobs([8, 9]))
    code = """
import keras, numpy as np, keras_incremental as ki
model = keras.models.load_model("model.keras")
x, new = np.load("x.npy"), np.load("new.npz")
np.testing.assert_array_equal(model.predict(x, verbose=0), np.load("y.npy"))
raw = model.uncalibrated_logits(x).numpy()
incremental = ki.IncrementalCallback(method=ki.PartialSharing())
model.fit(new["arr_0"], new["arr_1"], verbose=0, callbacks=[incremental])
after = model.uncalibrated_logits(x).numpy()
np.testing.assert_array_equal(after[:, :7], raw)
assert after.shape == (9, 9)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True
    )


def test_an_exported_branched_model_predicts_the_same(grown, tmp_path):
    model = grown
    signature = keras.InputSpec(shape=(None, 4, 4, 1), dtype="uint8")
    model.export(
        tmp_path / "served", input_signature=[signature], verbose=False
    )
    served = tf.saved_model.load(tmp_path / "served")
    for rows in (X, X[:1]):
        np.testing.assert_allclose(
            served.serve(rows), model.predict(rows, verbose=0), atol=1e-5
        )


def test_a_model_saved_before_there_were_branches_loads(make, blobs, tmp_path):
    model = make(None)
    model.fit(*blobs([40, 7]), verbose=0)
    path, old = tmp_path / "model.keras", tmp_path / "old.keras"
    model.save(path)
    with zipfile.ZipFile(path) as new, zipfile.ZipFile(old, "w") as file:
        for name in new.namelist():
            content = new.read(name)
            if name == "config.json":
                config = json.loads(content)
                del config["config"]["branches"], config["config"]["branch_at"]
                content = json.dumps(config).encode()
            file.writestr(name, content)
    again = keras.models.load_model(old)
    np.testing.assert_array_equal(
        again.predict(X, verbose=0), model.predict(X, verbose=0)
    )
    assert again.branch_at is None and not again.has_branches
