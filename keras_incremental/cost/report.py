"""What sharing the first layers saves, counted and measured."""

import dataclasses
import functools

import keras

from keras_incremental.cost.cost_report import CostReport
from keras_incremental.cost.counting import (
    Work,
    count_part,
    inference,
    parameters,
    training,
)
from keras_incremental.cost.energy import HOROWITZ_45NM, EnergyConstants
from keras_incremental.cost.part_cost import PartCost, part_cost, total
from keras_incremental.cost.timing import (
    inference_step,
    median_seconds,
    random_images,
    training_step,
    unchanged_random_state,
)
from keras_incremental.layers import ExpandableDense
from keras_incremental.networks import Network

NEXT_BRANCH = "next branch"


def report(
    model: keras.Model,
    *,
    batch_size: int = 32,
    constants: EnergyConstants = HOROWITZ_45NM,
    measure: bool = True,
    trunk_cached: bool = True,
) -> CostReport:
    """Counts and measures what a model takes, with and without sharing.

    With sharing, an image runs once through the shared layers and then through
    every branch; a new task trains its branch alone. Without, each task has a
    whole network (the base network, with a head of the task's units) that runs
    and is trained on its own. All counts follow from the layers by the rules
    of `keras_incremental.cost.counting`, the energy from

        energy = MACs * (add + multiply) + bytes / 4 * dram_32_bits

    with the constants of Horowitz (ISSCC 2014). Partial network sharing:
    Sarwar et al. 2019 (arXiv:1712.02719); the rules are the package's own.

    Seconds are medians, in turns, on random images: of inference, and of
    training steps of clones, whole network and branch by branch. Branches of
    equal counts are timed once, and without sharing each task's network counts
    the seconds of the base network. Nothing of the model changes. A branch's
    calibration, two numbers, is left out.

    Args:
        model: an `IncrementalClassifier` that knows a class at least.
        batch_size: images of one batch: weights are read, and updated, once
            for them.
        constants: energy of one operation, bytes of one value.
        measure: whether to measure seconds as well.
        trunk_cached: whether the shared layers' outputs are cached while a
            branch is trained. If not, each of its steps runs them forward.

    Returns:
        A `CostReport`: `print` it, or `save` it.

    Raises:
        TypeError: if `model` is no such model.
        ValueError: for `batch_size` below 1, a model without classes, a
            network whose input shape is not complete, or a layer that runs a
            loop.

    >>> import keras_incremental as ki
    >>> model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
    >>> model.add_classes(range(10))
    >>> cost = report(model, measure=False).rows[0]
    >>> cost.parameters, cost.inference_macs
    (56874, 903808)
    """
    _check(model, batch_size)
    base = model.network.base()
    with unchanged_random_state():
        parts = _parts(model.network)
        counter = _Counter(batch_size, constants)
        trunk = None if trunk_cached else base.trunk
        rows = _rows(counter, parts, trunk)
        without = _rows_without_sharing(counter, parts)
        if measure:
            rows = _timed(rows, parts, base.trunk, trunk_cached, batch_size)
            without = [_as_long_as(rows[0], row) for row in without]
    shares = base.branch_at is not None
    return CostReport(
        rows=tuple(rows),
        with_sharing=total("total with sharing", rows) if shares else None,
        without_sharing=(
            total("total without sharing", without) if shares else None
        ),
        branch_at=base.branch_at,
        batch_size=batch_size,
        constants=constants,
        trunk_cached=trunk_cached,
        kept_bytes=model.score_rule.kept_bytes,
    )


@dataclasses.dataclass(frozen=True)
class _Part:
    """A network to features and the head on them."""

    name: str
    network: keras.Model
    head: ExpandableDense


def _parts(network: Network) -> list[_Part]:
    """The base network, and where there is a branch point the branches."""
    base = network.base()
    if base.branch_at is None:
        return [_Part("network", base.backbone, base.head)]
    whole = _Part("base", base.backbone, base.head)
    return [whole, *_later_branches(network)]


def _later_branches(network: Network) -> list[_Part]:
    if network.base() is not network:
        parts = zip(network.networks[1:], network.branch_heads(), strict=True)
        return [
            _Part(f"branch {number}", later, head)
            for number, (later, head) in enumerate(parts, start=1)
        ]
    latest = network.heads[-1]
    head = ExpandableDense(
        (latest.stop - latest.start,), capacity=network.head.capacity
    )
    head.build(network.tail.output_shape)
    return [_Part(NEXT_BRANCH, network.tail, head)]


# Counted costs.


class _Counter:
    """Counts each network with each size of its head once."""

    def __init__(self, batch_size: int, constants: EnergyConstants):
        self.batch_size = batch_size
        self.constants = constants
        self.operations = functools.cache(count_part)

    def cost(self, part: _Part, before: Work) -> PartCost:
        """The cost of a part; `before`: what its training runs before it."""
        operations = self.operations(part.network, part.head.units)
        return part_cost(
            part.name,
            parameters(operations),
            inference(operations, self.batch_size),
            training(operations, self.batch_size) + before,
            self.constants,
        )


def _rows(counter, parts, trunk) -> list[PartCost]:
    """The parts with sharing; `trunk` runs in each step of a branch."""
    before = Work()
    if trunk is not None:
        before = inference(counter.operations(trunk), counter.batch_size)
    whole, *branches = parts
    rows = [counter.cost(branch, before) for branch in branches]
    return [counter.cost(whole, Work()), *rows]


def _rows_without_sharing(counter, parts) -> list[PartCost]:
    """A whole network for each task, with a head of the task's units."""
    return [
        counter.cost(dataclasses.replace(parts[0], head=part.head), Work())
        for part in parts
    ]


# Measured seconds.


def _timed(rows, parts, trunk, trunk_cached, batch_size) -> list[PartCost]:
    """Returns the rows with the measured seconds of one image.

    The base network runs as a whole, in one call, as it would without sharing:
    run in two, its parts would pay for the call twice.
    """
    images = random_images(parts[0].network, batch_size)
    inputs = [images]
    if len(parts) > 1:
        inputs += [trunk(images, training=False)] * (len(parts) - 1)
    keys, steps = [], {}
    for row, part, batch in zip(rows, parts, inputs, strict=True):
        key = dataclasses.replace(row, name=""), part.head.allocated, id(batch)
        if (key, "run") not in steps:
            steps[key, "run"] = inference_step(part.network, part.head, batch)
            steps[key, "train"] = training_step(part.network, part.head, batch)
        keys.append(key)
    if not trunk_cached and len(parts) > 1:
        steps["trunk"] = inference_step(trunk, None, images)
    seconds = median_seconds(steps)
    before = [0.0] + [seconds.get("trunk", 0.0)] * (len(parts) - 1)
    return [
        dataclasses.replace(
            row,
            inference_seconds=seconds[key, "run"] / batch_size,
            training_seconds=(seconds[key, "train"] + extra) / batch_size,
        )
        for row, key, extra in zip(rows, keys, before, strict=True)
    ]


def _as_long_as(base: PartCost, row: PartCost) -> PartCost:
    return dataclasses.replace(
        row,
        inference_seconds=base.inference_seconds,
        training_seconds=base.training_seconds,
    )


def _check(model, batch_size) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}; expected 1 or more images.")
    if not isinstance(getattr(model, "network", None), Network):
        raise TypeError(
            f"model is a {type(model).__name__}; expected an "
            "IncrementalClassifier. Wrap a network that gives features: "
            "keras_incremental.IncrementalClassifier(backbone, "
            "branch_at=...)."
        )
    if not model.network.units:
        raise ValueError(
            "The model knows no classes yet, so its head has no size. Teach "
            "it, or call model.add_classes(labels), before the report."
        )
