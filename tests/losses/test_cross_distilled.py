"""The losses against plain NumPy and hand-computed values."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_incremental.losses import classification_loss, distillation_loss


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def reference_distillation(logits, teacher, heads, temperature):
    """One example at a time, one head at a time, one class at a time."""
    losses = []
    for z, t in zip(logits, teacher, strict=True):
        loss = 0.0
        for head in heads:
            p = softmax(t[head] / temperature)
            q = softmax(z[head] / temperature)
            for j in range(len(p)):
                loss -= p[j] * np.log(q[j])
        losses.append(loss)
    return losses


def slices(sizes):
    stops = np.cumsum(sizes)
    return [slice(b - a, b) for a, b in zip(sizes, stops, strict=True)]


def head_of_unit(sizes):
    return np.repeat(np.arange(len(sizes)), sizes).astype("int32")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
    st.integers(0, 2**31),
    st.sampled_from([1.0, 2.0, 5.0]),
    st.data(),
)
def test_distillation_equals_the_plain_sum_over_heads(
    sizes, seed, temperature, data
):
    distilled = data.draw(st.integers(1, len(sizes)))
    random = np.random.default_rng(seed)
    logits, teacher = random.normal(0, 8, (2, 3, sum(sizes))).astype("float32")
    expected = reference_distillation(
        logits, teacher, slices(sizes)[:distilled], temperature
    )
    actual = distillation_loss(
        logits,
        teacher,
        head_of_unit(sizes),
        sum(sizes[:distilled]),
        temperature,
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_one_head_of_two_classes_by_hand():
    # Student [2, 0], teacher [0, 0], T = 2: p = [.5, .5],
    # log q = [-log(1 + 1/e), -log(1 + e)] = [-0.31326, -1.31326].
    loss = distillation_loss([[2.0, 0.0]], [[0.0, 0.0]], [0, 0], 2, 2.0)
    np.testing.assert_allclose(loss, [0.81326], atol=1e-5)


def test_terms_are_summed_over_heads_without_a_mean_or_a_t_squared():
    zeros = tf.zeros((1, 6))
    # Three heads of two classes, uniform: ln 2 nats each, whatever T is.
    for temperature in (1.0, 2.0, 4.0):
        loss = distillation_loss(
            zeros, zeros, [0, 0, 1, 1, 2, 2], 6, temperature
        )
        np.testing.assert_allclose(loss, [3 * np.log(2)], rtol=1e-6)


def test_heads_are_normalised_apart():
    # A head's term does not see another head's logits.
    teacher = np.array([[1.0, 2.0, 0.0, 0.0]], "float32")
    near = np.array([[0.5, 1.0, 3.0, -3.0]], "float32")
    far = near + np.array([[0.0, 0.0, 100.0, 100.0]], "float32")
    heads = [0, 0, 1, 1]
    np.testing.assert_allclose(
        distillation_loss(near, teacher, heads, 4),
        distillation_loss(far, teacher, heads, 4),
        rtol=1e-5,
    )


def test_newest_units_left_out_get_no_gradient_and_others_do():
    logits = tf.Variable([[1.0, -1.0, 3.0, 0.5]])
    with tf.GradientTape() as tape:
        loss = distillation_loss(logits, tf.zeros((1, 4)), [0, 0, 1, 1], 2)
    gradient = tape.gradient(loss, logits).numpy()[0]
    assert np.all(gradient[2:] == 0) and np.all(gradient[:2] != 0)


def test_gradient_is_q_minus_p_over_t_and_none_reaches_the_teacher():
    logits = tf.Variable([[2.0, 0.0, 1.0]])
    teacher = tf.Variable([[0.0, 1.0, 0.0]])
    with tf.GradientTape() as tape:
        loss = distillation_loss(logits, teacher, [0, 0, 0], 3, 2.0)
    gradient, to_teacher = tape.gradient(loss, [logits, teacher])
    expected = softmax(logits.numpy()[0] / 2) - softmax(teacher.numpy()[0] / 2)
    np.testing.assert_allclose(gradient[0], expected / 2, atol=1e-6)
    assert to_teacher is None


def test_distillation_is_softmax_and_not_binary_cross_entropy():
    # Binary cross-entropy would also count (1 - p) log(1 - q), and the
    # published mistake averages over classes.
    loss = distillation_loss([[0.0, 0.0]], [[0.0, 0.0]], [0, 0], 2, 2.0)
    assert float(loss[0]) == pytest.approx(np.log(2))
    assert float(loss[0]) != pytest.approx(2 * np.log(2))


def test_huge_and_half_precision_logits_stay_finite():
    logits = np.array([[1e4, -1e4, 0.0, 3e4]], "float32")
    for dtype in (tf.float32, tf.float16, tf.bfloat16):
        cast = tf.cast(logits, dtype)
        loss = distillation_loss(cast, cast, [0, 0, 1, 1], 4)
        assert loss.dtype == tf.float32
        assert np.isfinite(loss.numpy()).all()


def test_classification_is_cross_entropy_over_all_classes():
    logits = np.array([[0.0, 0.0, 0.0, 0.0], [3.0, 1.0, 0.0, -1.0]], "float32")
    expected = [np.log(4), -np.log(softmax(logits[1])[1])]
    actual = classification_loss([2, 1], logits)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
