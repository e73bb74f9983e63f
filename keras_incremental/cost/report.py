"""What sharing the first layers saves, counted and measured."""

import dataclasses
import numbers
from collections.abc import Iterator, Mapping

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
    model,
    *,
    batch_size: int = 32,
    constants: EnergyConstants = HOROWITZ_45NM,
    macs: Mapping | None = None,
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
    equal shapes are timed once, and without sharing each task's network counts
    the seconds of the base network. Nothing of the model changes. A branch's
    calibration, two numbers, is left out.

    Args:
        model: an `IncrementalClassifier` that knows a class at least.
        batch_size: images of one batch: weights are read, and updated, once
            for them.
        constants: energy of one operation, bytes of one value.
        macs: for layers of other kinds, a dict from a layer class, or a
            layer's name, to a `function(layer, input_shapes, output_shape)`
            that returns the multiply-accumulates of one image.
        measure: whether to measure seconds as well.
        trunk_cached: whether the shared layers' outputs are cached while a
            branch is trained. If not, each of its steps runs them forward.

    Returns:
        A `CostReport`: `print` it, or `save` or `plot` it.

    Raises:
        TypeError: if `model` is no such model, or another argument is of a
            wrong type.
        ValueError: for `batch_size` below 1, a model without classes, a
            network whose input shape is not complete, or layers whose
            multiply-accumulates are not known.

    >>> import keras_incremental as ki
    >>> model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
    >>> model.add_classes(range(10))
    >>> cost = report(model, measure=False).rows[0]
    >>> cost.parameters, cost.inference_macs
    (56874, 903808)
    """
    _check_arguments(batch_size, constants)
    _check_model(model)
    with unchanged_random_state():
        plan = _Plan(model, batch_size, constants, macs, trunk_cached)
        return _fill(plan, _measure(plan) if measure else {})


def _fill(plan: "_Plan", seconds: Mapping) -> CostReport:
    base = _base_row(plan, seconds)
    rows, totals = (base,), (None, None)
    if plan.trunk is not None:
        rows += tuple(_branch_rows(plan, seconds))
        totals = (
            total("total with sharing", rows),
            total("total without sharing", [base, *_whole_rows(plan, base)]),
        )
    return CostReport(
        rows=rows,
        with_sharing=totals[0],
        without_sharing=totals[1],
        branch_at=plan.branch_at,
        batch_size=plan.batch_size,
        constants=plan.constants,
        trunk_cached=plan.trunk_cached,
    )


# The parts of a model.


@dataclasses.dataclass(frozen=True)
class _Branch:
    """A network to features and the head on them."""

    name: str
    network: keras.Model
    head: ExpandableDense


class _Plan:
    """The parts of a model and their operations."""

    def __init__(self, model, batch_size, constants, macs, trunk_cached):
        self.batch_size, self.constants = int(batch_size), constants
        self.macs, self.trunk_cached = macs, bool(trunk_cached)
        base = model.network.base()
        self.branch_at = base.branch_at
        self.whole = _Branch("network", base.backbone, base.head)
        self.trunk, self.branches, self._counted = base.trunk, [], {}
        if self.branch_at is not None:
            self.branches = _later_branches(model.network)

    def operations(self, branch: _Branch):
        """The operations of a branch and its head."""
        key = id(branch.network), branch.head.units
        if key not in self._counted:
            self._counted[key] = count_part(
                branch.network, branch.head.units, self.macs
            )
        return self._counted[key]

    def shape(self, branch: _Branch):
        """Equal for branches that take equally long."""
        anonymous = tuple(
            dataclasses.replace(node, name="")
            for node in self.operations(branch)
        )
        weights = tuple(tuple(w.shape) for w in branch.network.weights)
        return anonymous, weights, branch.head.allocated

    def work_before(self) -> Work:
        """What one image of a branch's training takes before the branch."""
        if self.trunk_cached:
            return Work()
        return inference(
            count_part(self.trunk, macs=self.macs), self.batch_size
        )


def _later_branches(network: Network) -> list[_Branch]:
    if network.base() is not network:
        parts = zip(network.networks[1:], network.branch_heads(), strict=True)
        return [
            _Branch(f"branch {number}", later, head)
            for number, (later, head) in enumerate(parts, start=1)
        ]
    latest = network.heads[-1]
    head = ExpandableDense(
        (latest.stop - latest.start,), capacity=network.head.capacity
    )
    head.build(network.tail.output_shape)
    return [_Branch(NEXT_BRANCH, network.tail, head)]


# The rows.


def _cost_of(plan, branch, name, seconds, before=None) -> PartCost:
    """The cost of a branch; `before`: what its training does before it."""
    operations = plan.operations(branch)
    trained = training(operations, plan.batch_size)
    return part_cost(
        name,
        parameters(operations),
        inference(operations, plan.batch_size),
        trained if before is None else trained + before,
        plan.constants,
        seconds,
    )


def _base_row(plan, seconds) -> PartCost:
    name = "network" if plan.trunk is None else "base"
    return _cost_of(plan, plan.whole, name, seconds.get("base"))


def _branch_rows(plan, seconds) -> Iterator[PartCost]:
    before = plan.work_before()
    for branch in plan.branches:
        name = branch.name
        yield _cost_of(plan, branch, name, seconds.get(name), before)


def _whole_rows(plan, base) -> Iterator[PartCost]:
    """A whole network for each later task, as long as the base network."""
    seconds = (base.inference_seconds, base.training_seconds)
    for branch in plan.branches:
        whole = dataclasses.replace(plan.whole, head=branch.head)
        yield _cost_of(plan, whole, branch.name, seconds)


# Measured seconds.


def _measure(plan: _Plan) -> dict[str, tuple[float, float]]:
    """Seconds per image of inference and training, by row.

    The base network runs as a whole, in one call, as it would without sharing:
    run in two, its parts would pay for the call twice.
    """
    images = random_images(plan.whole.network, plan.batch_size)
    steps = _steps_of("base", plan.whole, images)
    keys = {branch.name: plan.shape(branch) for branch in plan.branches}
    if plan.trunk is not None:
        kept = plan.trunk(images, training=False)
        steps["trunk", "run"] = inference_step(plan.trunk, None, images)
        for branch in plan.branches:
            if (keys[branch.name], "run") not in steps:
                steps |= _steps_of(keys[branch.name], branch, kept)
    seconds = {
        key: duration / plan.batch_size
        for key, duration in median_seconds(steps).items()
    }
    extra = (
        0.0
        if plan.trunk is None or plan.trunk_cached
        else seconds["trunk", "run"]
    )
    return {
        "base": (seconds["base", "run"], seconds["base", "train"]),
        **{
            name: (seconds[key, "run"], seconds[key, "train"] + extra)
            for name, key in keys.items()
        },
    }


def _steps_of(key, branch, inputs):
    network, head = branch.network, branch.head
    return {
        (key, "run"): inference_step(network, head, inputs),
        (key, "train"): training_step(network, head, inputs),
    }


# Arguments.


def _check_arguments(batch_size, constants) -> None:
    if isinstance(batch_size, bool) or not isinstance(
        batch_size, numbers.Integral
    ):
        raise TypeError(f"batch_size={batch_size!r}; expected an int >= 1.")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}; expected 1 or more images.")
    if not isinstance(constants, EnergyConstants):
        raise TypeError(
            f"constants={constants!r}; expected an EnergyConstants, such as "
            "keras_incremental.cost.HOROWITZ_45NM."
        )


def _check_model(model) -> None:
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
