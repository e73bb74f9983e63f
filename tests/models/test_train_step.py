"""The train step against a plain NumPy account of both losses."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.models.teacher import Teacher
from keras_incremental.models.training_settings import add_noise


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


@pytest.fixture
def grown(tiny_backbone, blobs):
    """A model with heads (2, 1, 2), a teacher, and two classes' images."""
    model = ki.IncrementalClassifier(tiny_backbone)
    for labels in ([0, 1], [2], [3, 4]):
        model.add_classes(labels)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    model.use_teacher(True)
    for weight in model.trainable_weights:  # so that the student differs
        weight.assign_add(
            0.3 * tf.random.stateless_normal(weight.shape, [1, 2])
        )
    return model, *blobs([0, 3], per_class=8)


def teacher_logits(model, x):
    return model._untracked.teacher.logits(x).numpy()


@pytest.mark.parametrize(
    ("distilled", "heads"),
    [
        (0, []),
        (3, [slice(0, 2), slice(2, 3)]),
        (5, [slice(0, 2), slice(2, 3), slice(3, 5)]),
    ],
)
def test_loss_terms_are_those_of_a_plain_account(grown, distilled, heads):
    model, x, y = grown
    model.training_settings.distilled_units.assign(distilled)
    student = model(x, training=True).numpy()
    teacher = teacher_logits(model, x)
    classification = -log_softmax(student)[np.arange(len(y)), y].mean()
    distillation = 0.0
    for head in heads:
        p = np.exp(log_softmax(teacher[:, head] / 2))
        q = log_softmax(student[:, head] / 2)
        distillation -= (p * q).sum(axis=1).mean()
    logs = model.fit(x, y, batch_size=len(x), verbose=0).history
    assert logs["classification_loss"][0] == pytest.approx(
        classification, rel=1e-4
    )
    assert logs["distillation_loss"][0] == pytest.approx(
        distillation, rel=1e-4, abs=1e-6
    )
    assert logs["loss"][0] == pytest.approx(
        classification + distillation, rel=1e-4
    )


@pytest.mark.parametrize("distilled", [0, 3, 5])
def test_kept_teacher_logits_train_like_the_teacher_in_the_loop(
    grown, distilled
):
    model, x, y = grown
    model.training_settings.distilled_units.assign(distilled)
    kept = {"images": x, "teacher_logits": model.teacher_logits(x)}
    assert kept["teacher_logits"].shape == (len(x), model.head.allocated)
    results = []
    for inputs in (x, kept):
        logs = model.fit_units(inputs, y, batch_size=len(x), verbose=0).history
        results.append([logs[name][0] for name in sorted(logs)])
    np.testing.assert_allclose(*results, rtol=1e-5)


def test_the_teacher_is_not_run_while_nothing_is_distilled(grown, monkeypatch):
    model, x, _ = grown
    monkeypatch.setattr(
        Teacher, "all_logits", lambda *_: pytest.fail("the teacher ran")
    )
    assert not model.teacher_logits(x).any()


def test_teacher_runs_in_inference_mode_and_does_not_move(grown):
    model, x, y = grown
    before = teacher_logits(model, x)
    one_by_one = np.concatenate(
        [teacher_logits(model, x[i : i + 1]) for i in range(len(x))]
    )
    np.testing.assert_allclose(before, one_by_one, atol=1e-5)
    model.optimizer.learning_rate = 0.1
    model.training_settings.distilled_units.assign(3)
    model.fit(x, y, epochs=3, verbose=0)
    np.testing.assert_array_equal(teacher_logits(model, x), before)


def test_update_teacher_makes_it_the_network_of_now(grown):
    model, x, _ = grown
    assert np.abs(teacher_logits(model, x) - model(x)).max() > 0.01
    model.update_teacher()
    np.testing.assert_array_equal(teacher_logits(model, x), model(x))


def test_noise_has_the_given_deviation_and_none_when_off():
    gradients = [tf.zeros((200, 100)), None, tf.ones((300,))]
    same = add_noise(gradients, tf.constant(0.0), [1, 2])
    np.testing.assert_array_equal(same[0], gradients[0])
    assert same[1] is None
    noisy = add_noise(gradients, tf.constant(0.25), [1, 2])
    assert noisy[1] is None
    assert np.std(noisy[0]) == pytest.approx(0.25, rel=0.02)
    assert np.mean(noisy[2]) == pytest.approx(1, abs=0.1)
    again = add_noise(gradients, tf.constant(0.25), [1, 2])
    np.testing.assert_array_equal(noisy[0], again[0])
    scaled = add_noise(gradients, tf.constant(0.25), [1, 2], 8.0)
    np.testing.assert_allclose(scaled[0], 8 * noisy[0], rtol=1e-5)


def test_noise_in_training_moves_weights_by_its_deviation(grown):
    model, x, y = grown
    model.optimizer.learning_rate = 1.0
    moves = []
    start = model.get_weights()
    for stddev in (0.0, 0.5):
        model.set_weights(start)
        model.training_settings.noise_stddev.assign(stddev)
        model.fit(x, y, batch_size=len(x), verbose=0)
        moves.append(model.backbone.trainable_weights[0].numpy())
    # One step of rate 1: the difference is the noise itself.
    assert np.std(moves[1] - moves[0]) == pytest.approx(0.5, rel=0.15)


def test_restart_sets_every_kind_of_optimizer_back(tiny_backbone, blobs):
    for optimizer in ("sgd", "adam", "adagrad"):
        model = ki.IncrementalClassifier(tiny_backbone)
        model.add_classes([0, 1])
        model.compile(optimizer=optimizer)
        model.restart_optimizer()
        start = [v.numpy() for v in model.optimizer.variables]
        model.fit(*blobs([0, 1]), verbose=0)
        model.restart_optimizer()
        for variable, value in zip(
            model.optimizer.variables, start, strict=True
        ):
            np.testing.assert_array_equal(variable.numpy(), value)


def test_teacher_normalizes_like_an_adapted_backbone():
    images = np.random.default_rng(0).normal(50, 9, (4, 8, 8, 1))
    normalization = keras.layers.Normalization(axis=None)
    normalization.adapt(images)
    backbone = keras.Sequential(
        [keras.Input((8, 8, 1)), normalization, keras.layers.Flatten()]
    )
    model = ki.IncrementalClassifier(backbone)
    model.add_classes([0, 1])
    teacher = Teacher(model.backbone, model.head)
    np.testing.assert_allclose(
        teacher.logits(tf.constant(images, tf.float32)),
        model.predict(images, verbose=0),
        rtol=1e-5,
    )
