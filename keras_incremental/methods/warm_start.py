"""A closed form as the start of a new head."""

import numpy as np

from keras_incremental.closed_form import ByImages, Sums
from keras_incremental.methods.calibration import fit_calibration
from keras_incremental.methods.task_step import TaskStep


def warm_start(task: TaskStep) -> None:
    """Gives the newest head what a closed form makes of the present features.

    The closed form, `f @ V + c`, is solved for the classes of new data and
    exemplars, and multiplied by the scale `s` that is best by cross-entropy.
    With `u` the mean of `w_k - s v_k` over old classes `k` of the same head
    layer that have exemplars, the new columns are `s v + u`; so they stand to
    the old ones as the closed forms of the two do. Biases follow the same rule.

    Source: ours; the start by class means is that of weight imprinting (Qi et
    al., CVPR 2018, arXiv:1712.07136).

    Args:
        task: the model has grown.
    """
    if not task.new_labels:
        return
    model, network = task.model, task.model.network
    trained, newest = network.trained_units, network.heads[-1]
    sources = [task.samples, *task.exemplars()]
    units = [model.classes.to_units(source.labels) for source in sources]
    used = [
        (task.features(source), of_source)
        for source, of_source in zip(sources, units, strict=True)
        if of_source.min() >= trained.start
    ]
    features, units = map(np.concatenate, zip(*used, strict=True))
    present, units = np.unique(units, return_inverse=True)
    sums = Sums.none(features.shape[1], by_class=False)
    kernel, bias = ByImages().solve(sums.plus(features, units, len(present)))
    found = np.vstack([kernel, bias])  # (dim + 1, classes)
    logits = features @ kernel + bias
    scale, _ = fit_calibration(logits, units, np.zeros(len(present), int))
    found *= scale
    heads = [
        np.vstack(network.head_weights(i)) for i in _trained_heads(network)
    ]
    old = np.hstack(heads)[:, present - trained.start]
    is_old = present < newest.start
    if is_old.any():
        found += np.mean((old - found)[:, is_old], axis=1, keepdims=True)
    new = found[:, ~is_old]
    network.set_head_weights(-1, new[:-1], new[-1])


def _trained_heads(network) -> list[int]:
    """Returns the indices of the heads whose logits are trained."""
    first = network.trained_units.start
    return [i for i, head in enumerate(network.heads) if head.start >= first]
