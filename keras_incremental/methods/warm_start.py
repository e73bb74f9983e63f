"""A closed form as the start of a new head."""

import numpy as np

from keras_incremental.closed_form import LDA, Sums
from keras_incremental.methods.task_step import TaskStep


def warm_start(task: TaskStep) -> None:
    """Gives the newest head what a closed form makes of the present features.

    The closed form, `f @ V + c`, is solved for the classes of new data and
    exemplars. Its columns stand to the old ones, `w`, as the closed forms of
    both do: the new ones are `s v + u`, `s` the ratio of mean lengths of `w`
    and `v`, `u` the mean of `w - s v`, over old classes that have exemplars and
    a column in the same layer, columns centred over them. Where there are not
    two of these, the new columns are centred, and as long as the random ones
    that they replace: longer ones would leave little loss to learn from.
    Biases follow the same rule.

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
    kernel, bias = LDA().solve(sums.plus(features, units, len(present)))
    found = np.vstack([kernel, bias])  # (dim + 1, classes)
    heads = [
        np.vstack(network.head_weights(index))
        for index, head in enumerate(network.heads)
        if head.start >= trained.start
    ]
    old = np.hstack(heads)[:, present - trained.start]
    is_old = present < newest.start
    if is_old.sum() > 1:
        new = _as_related(found, old[:, is_old], is_old)
    else:
        new = found - found.mean(axis=1, keepdims=True)
        new *= _length(old[:, ~is_old]) / _length(new[:, ~is_old])
    new = new[:, ~is_old]
    network.set_head_weights(-1, new[:-1], new[-1])


def _as_related(found, old, is_old) -> np.ndarray:
    """Returns columns scaled and moved so that old ones are like `old`."""
    centre, target = (
        columns.mean(axis=1, keepdims=True)
        for columns in (found[:, is_old], old)
    )
    scale = _length(old - target) / _length(found[:, is_old] - centre)
    return scale * (found - centre) + target


def _length(columns: np.ndarray) -> float:
    """Returns the mean length of kernel columns; the bias is their last row."""
    return np.linalg.norm(columns[:-1], axis=0).mean()
