"""The cross-distilled loss of End-to-End Incremental Learning.

`L = L_C + sum over distilled heads f of L_Df`, a batch mean, no weights
between the terms, on all samples, new ones and exemplars (EEIL, Castro et
al., ECCV 2018, Eq. 1). The train step adds the two terms given here.
"""

import tensorflow as tf


def classification_loss(units: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the softmax cross-entropy over all classes, per example.

    `L_C = -log softmax(z)_y`, temperature 1, over every class seen so far.

    Source: EEIL (Castro et al., ECCV 2018), Eq. 3.

    Args:
        units: `(batch,)` integers, the position of the true class.
        logits: `(batch, classes)`, any float dtype; computed in float32.

    Returns:
        `(batch,)` float32, in nats.

    >>> classification_loss([0], [[0.0, 0.0]]).numpy().round(4)
    array([0.6931], dtype=float32)
    """
    return tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=units, logits=tf.cast(logits, tf.float32)
    )


def head_log_softmax(
    logits: tf.Tensor, head_of_unit: tf.Tensor, num_heads: int | tf.Tensor
) -> tf.Tensor:
    """Returns the log-softmax of each unit among the units of its own head.

    One segment-wise pass serves any number of heads, so the graph does not
    change as heads arrive.

    Args:
        logits: `(batch, units)` float32.
        head_of_unit: `(units,)` integers in `[0, num_heads)`.
        num_heads: integer, or integer scalar tensor.

    Returns:
        `(batch, units)` float32, in nats; each head's entries are the
        logarithms of probabilities that sum to 1.
    """
    by_unit = tf.transpose(logits)
    highest = tf.math.unsorted_segment_max(
        tf.stop_gradient(by_unit), head_of_unit, num_heads
    )
    shifted = by_unit - tf.gather(highest, head_of_unit)
    total = tf.math.unsorted_segment_sum(
        tf.exp(shifted), head_of_unit, num_heads
    )
    return tf.transpose(shifted - tf.gather(tf.math.log(total), head_of_unit))


def distillation_loss(
    logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    head_of_unit: tf.Tensor,
    distilled_units: int | tf.Tensor,
    temperature: float | tf.Tensor = 2.0,
) -> tf.Tensor:
    """Returns the distillation terms of the distilled heads, summed.

    `sum_f L_Df`, `L_Df = -sum_{j in f} p_j log q_j`, with `p` and `q` the
    softmax over head f alone of the teacher's and the student's logits
    divided by the temperature. No factor T^2 and no mean over heads or
    classes, as in the authors' `vl_nnsoftmaxdiff.m` (mode MI). The teacher
    gets no gradient.

    Units are numbered in order of arrival, so the distilled heads are always
    the first `distilled_units` units: the classes known before the step while
    training, all classes while fine-tuning, none in the first step.

    Source: EEIL (Castro et al., ECCV 2018), Eqs. 1, 4 and 5.

    Args:
        logits: `(batch, units)`, the student's, any float dtype.
        teacher_logits: `(batch, units)`, the teacher's.
        head_of_unit: `(units,)` integers, ascending from 0.
        distilled_units: integer (or scalar tensor) of 1 or more; ends at the
            end of a head.
        temperature: T > 0, a number or scalar tensor.

    Returns:
        `(batch,)` float32, in nats.

    >>> zeros = tf.zeros((1, 2))
    >>> distillation_loss(zeros, zeros, [0, 0], 2).numpy().round(4)
    array([0.6931], dtype=float32)
    """
    heads = tf.convert_to_tensor(head_of_unit)[:distilled_units]
    num_heads = heads[-1] + 1
    student, teacher = (
        tf.cast(z, tf.float32)[:, :distilled_units] / temperature
        for z in (logits, teacher_logits)
    )
    log_q = head_log_softmax(student, heads, num_heads)
    log_p = head_log_softmax(teacher, heads, num_heads)
    p = tf.stop_gradient(tf.exp(log_p))
    return -tf.reduce_sum(p * log_q, axis=-1)
