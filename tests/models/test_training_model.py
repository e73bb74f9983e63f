"""The train step: teacher, noise, optimizer, and what the rule does not see."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.models.teacher import Teacher
from keras_incremental.networks import BranchedNetwork
from keras_incremental.objectives import CrossDistilled
from keras_incremental.score_rules import AffinePerHead, ScoreRule


@pytest.fixture(scope="module")
def made(make_tiny_backbone):
    model = ki.IncrementalClassifier(make_tiny_backbone(), capacity=8)
    for labels in ([0, 1], [2], [3, 4]):
        model.add_classes(labels)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    return model, model.get_weights()


@pytest.fixture
def model(made):
    """A model with heads (2, 1, 2), and a student other than its teacher."""
    model, start = made
    model.set_weights(start)
    model.optimizer.learning_rate = 0.0
    model.use_objective(CrossDistilled(0))
    for weight in model.trainable_weights:
        weight.assign_add(
            0.3 * tf.random.stateless_normal(weight.shape, [1, 2])
        )
    yield model
    model.gradient_noise.stddev.assign(0.0)


@pytest.fixture(scope="module")
def data(blobs):
    return blobs([0, 3], per_class=8)


def fit(model, data, **options):
    x, y = data
    return model.fit(x, y, batch_size=len(y), verbose=0, **options)


# The teacher.


@pytest.mark.slow
def test_cached_teacher_logits_train_like_the_teacher_in_the_loop(model, data):
    x, y = data
    results = []
    for distilled in (0, 3, 5):
        start = model.get_weights()
        model.use_objective(CrossDistilled(distilled))
        model.set_weights([value * 1.1 for value in start[:-1]] + start[-1:])
        cached = {
            "images": x,
            "teacher_logits": model.teacher_logits({"images": x}),
        }
        assert cached["teacher_logits"].shape == (len(x), 8)
        for inputs in (x, cached):
            model.optimizer.learning_rate = 0.0
            logs = model.fit_units(inputs, y, batch_size=len(x), verbose=0)
            results.append(
                [logs.history[name][0] for name in sorted(logs.history)]
            )
        np.testing.assert_allclose(*results[-2:], rtol=1e-5)
        model.set_weights(start)
    assert results[0] != results[2] != results[4]


def test_the_teacher_is_not_run_while_nothing_is_distilled(
    model, data, monkeypatch
):
    monkeypatch.setattr(
        Teacher, "all_logits", lambda *_: pytest.fail("the teacher ran")
    )
    found = model.teacher_logits({"images": data[0]})
    assert found.shape == (16, 8) and not found.any()


def test_the_teacher_runs_in_inference_mode_and_on_any_number(model, data):
    x, _ = data
    model.use_objective(CrossDistilled(5))
    logits = model.teacher_logits({"images": x})
    one_by_one = [
        model.teacher_logits({"images": x[i : i + 1]}) for i in range(len(x))
    ]
    np.testing.assert_allclose(
        logits, np.concatenate(one_by_one), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        logits[:, :5], model(x, training=False), rtol=1e-4, atol=1e-5
    )
    assert not logits[:, 5:].any()


def test_a_teacher_takes_frozen_outputs_as_well_as_images(add_branch):
    model = ki.IncrementalClassifier(
        ki.backbones.small((4, 4, 1)), branch_at="stage2"
    )
    model.add_classes([0, 1])
    add_branch(model, [2, 3])
    x = np.random.default_rng(0).integers(0, 255, (5, 4, 4, 1), "uint8")
    teacher = Teacher(model.network)
    found = teacher.all_logits({"frozen": model.network.frozen(x).numpy()})
    np.testing.assert_allclose(
        found, teacher.all_logits({"images": x}), atol=1e-5
    )
    # Of the newest branch alone: that is what is trained.
    np.testing.assert_allclose(
        found[:, :2], model.logits_and_scores(x)[0][:, 2:], atol=1e-5
    )


@pytest.mark.slow
def test_a_teacher_that_is_made_anew_is_the_one_in_the_loop(
    tiny_backbone, add_branch, data
):
    """That of branches is, and their train function stays valid."""
    model = ki.IncrementalClassifier(tiny_backbone, branch_at=0.0)
    model.add_classes([0, 1])
    add_branch(model, [2, 3])
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    x, y = data[0], data[1] // 3
    for moment in range(2):
        for weight in model.trainable_weights:
            weight.assign(tf.random.stateless_normal(weight.shape, [1, moment]))
        model.use_objective(CrossDistilled(2))
        cached = model.teacher_logits({"images": x})
        history = model.fit_units(x, y, batch_size=len(y), verbose=0).history
        model.reset_metrics()
        # One eager step; it moves no weight.
        looked_up = model.train_step(
            ({"images": tf.constant(x), "teacher_logits": cached}, y)
        )
        np.testing.assert_allclose(
            history["distillation_loss"],
            [looked_up["distillation_loss"]],
            rtol=1e-4,
        )


def test_a_teacher_normalises_like_an_adapted_backbone():
    images = np.random.default_rng(0).normal(50, 9, (4, 8, 8, 1))
    normalization = keras.layers.Normalization(axis=None)
    normalization.adapt(images)
    backbone = keras.Sequential(
        [keras.Input((8, 8, 1)), normalization, keras.layers.Flatten()]
    )
    model = ki.IncrementalClassifier(backbone)
    model.add_classes([0, 1])
    np.testing.assert_allclose(
        Teacher(model.network).logits(
            {"images": tf.constant(images, "float32")}
        ),
        model.predict(images, verbose=0),
        rtol=1e-5,
        atol=1e-5,
    )


# Noise.


def moves(model, data, **noise):
    """Returns how one step of rate 1 moves the first kernel."""
    start = model.get_weights()
    model.optimizer.learning_rate = 1.0
    for name, value in noise.items():
        getattr(model.gradient_noise, name).assign(value)
    before = model.backbone.trainable_weights[0].numpy()
    fit(model, data)
    after = model.backbone.trainable_weights[0].numpy()
    model.set_weights(start)
    return after - before


def test_noise_moves_weights_by_its_deviation_and_each_step_anew(model, data):
    without = moves(model, data, stddev=0.0)
    first, second = (
        moves(model, data, stddev=0.5, seed=[3, 4]) - without for _ in range(2)
    )
    # One step of rate 1: the difference is the noise itself.
    for noise in (first, second):
        assert np.std(noise) == pytest.approx(0.5, rel=0.15)
        assert abs(np.mean(noise)) < 0.1
    # 256 values: what is drawn in one step says nothing about the next.
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.3
    # The same step, by the same seed, draws the same; by another, another.
    for seed, is_same in (([3, 4], True), ([3, 5], False)):
        model.optimizer.iterations.assign(model.optimizer.iterations - 1)
        again = moves(model, data, stddev=0.5, seed=seed) - without
        correlation = np.corrcoef(second.ravel(), again.ravel())[0, 1]
        assert bool(correlation > 0.99) is is_same


# The optimizer.


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adagrad"])
def test_restart_sets_every_kind_of_optimizer_back(
    tiny_backbone, data, optimizer
):
    x, y = data
    model = ki.IncrementalClassifier(tiny_backbone)
    model.add_classes([0, 3])
    model.compile(optimizer=optimizer, run_eagerly=True)
    model.restart_optimizer()
    start = [variable.numpy() for variable in model.optimizer.variables]
    for _ in range(2):  # one it has built itself, then one that Keras used
        model.fit(x, y, batch_size=len(x), verbose=0)
        model.restart_optimizer()
        for variable, value in zip(
            model.optimizer.variables, start, strict=True
        ):
            np.testing.assert_array_equal(variable.numpy(), value)


def test_other_trained_variables_get_an_unused_optimizer(tiny_backbone):
    model = ki.IncrementalClassifier(tiny_backbone, capacity=2, branch_at=0.0)
    model.add_classes([0, 1])
    model.compile(optimizer=keras.optimizers.SGD(0.25, momentum=0.5))
    model.restart_optimizer()
    optimizer = model.optimizer
    model.follow_network()
    assert model.optimizer is optimizer
    for change in (
        lambda: model.add_classes([2]),  # beyond the capacity
        lambda: setattr(
            model, "network", BranchedNetwork.on(model.network).with_branch()
        ),
    ):
        change()
        assert model.optimizer is not optimizer
        optimizer = model.optimizer
        assert optimizer.get_config()["momentum"] == 0.5
        model.restart_optimizer()
    model.add_classes([3])
    assert model.optimizer is optimizer  # there was room in the branch


# The score rule.


def test_the_score_rule_decides_and_does_not_train(model, data):
    x, y = data
    start, raw = model.get_weights(), model.predict(x, verbose=0)
    plain = fit(model, data).history["loss"]
    model.set_weights(start)
    try:
        model.score_rule = AffinePerHead([2, 1, 2], [2, 1, 0.5], [0, 30, 1])
        expected = raw * [2, 2, 1, 0.5, 0.5] + [0, 0, 30, 1, 1]
        logits, scores = model.logits_and_scores(x)
        loss, accuracy = model.evaluate(x, y, verbose=0)
        for found in (scores, model.predict(x, verbose=0)):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        assert set(model.classify(x, verbose=0)) == {"2"} and accuracy == 0
        assert loss > 20  # by the scores
        np.testing.assert_allclose(logits, raw, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(fit(model, data).history["loss"], plain)
        assert not any(w.trainable for w in model.score_rule.weights)
    finally:
        model.score_rule = ki.score_rules.ScoreRule()


@pytest.mark.slow
def test_a_first_trace_in_each_task_is_not_taken_for_retracing(
    model, data, tensorflow_messages
):
    for _ in range(7):
        model.score_rule = ScoreRule()  # by it the functions are dropped
        model.evaluate(*data, batch_size=16, verbose=0)
    tf.get_logger().warning("another warning")
    assert tensorflow_messages == ["another warning"]
