"""What sharing the first layers saves, counted and measured."""

import dataclasses
import functools

import keras

from keras_incremental.cost import counting, timing
from keras_incremental.cost.cost_report import CostReport
from keras_incremental.cost.energy import HOROWITZ_45NM, EnergyConstants
from keras_incremental.cost.part_cost import PartCost, part_cost, total
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
    with timing.unchanged_random_state():
        parts = _parts(model.network)
        trunk = None if trunk_cached else base.trunk
        rows, without = _counted(parts, trunk, batch_size, constants)
        if measure:
            seconds = _measured(
                rows, parts, base.trunk, trunk_cached, batch_size
            )
            rows = [
                dataclasses.replace(row, **measured)
                for row, measured in zip(rows, seconds, strict=True)
            ]
            without = [
                dataclasses.replace(row, **seconds[0]) for row in without
            ]
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
    if base is network:
        return [whole, _next_branch(base)]
    later = zip(network.networks[1:], network.branch_heads(), strict=True)
    return [whole] + [
        _Part(f"branch {number}", branch, head)
        for number, (branch, head) in enumerate(later, start=1)
    ]


def _next_branch(base: Network) -> _Part:
    latest = base.heads[-1]
    head = ExpandableDense(
        (latest.stop - latest.start,), capacity=base.head.capacity
    )
    head.build(base.tail.output_shape)
    return _Part(NEXT_BRANCH, base.tail, head)


def _counted(
    parts, trunk, batch_size, constants
) -> tuple[list[PartCost], list[PartCost]]:
    """Returns the cost of each part with sharing, and of each task without.

    With sharing, `trunk` (if any) runs in each step of a branch. Without, each
    task has a whole network, with a head of the task's units.
    """
    # Each network with each size of its head is counted once.
    count = functools.cache(counting.count_part)

    def cost(part, network, trunk=None) -> PartCost:
        operations = count(network, part.head.units)
        before = counting.Work()
        if trunk is not None:
            before = counting.inference(count(trunk), batch_size)
        return part_cost(
            part.name,
            counting.parameters(operations),
            counting.inference(operations, batch_size),
            counting.training(operations, batch_size) + before,
            constants,
        )

    whole, *branches = parts
    rows = [cost(branch, branch.network, trunk) for branch in branches]
    without = [cost(part, whole.network) for part in parts]
    # The base network is the same with sharing.
    return [without[0], *rows], without


def _measured(
    rows, parts, trunk, trunk_cached, batch_size
) -> list[dict[str, float]]:
    """Returns the measured seconds of one image, for each part.

    The base network runs as a whole, in one call, as it would without sharing:
    run in two, its parts would pay for the call twice.
    """
    images = timing.random_images(parts[0].network, batch_size)
    inputs = [images]
    if len(parts) > 1:
        inputs += [trunk(images, training=False)] * (len(parts) - 1)
    keys, steps = [], {}
    for row, part, batch in zip(rows, parts, inputs, strict=True):
        key = dataclasses.replace(row, name=""), part.head.allocated, id(batch)
        if (key, "run") not in steps:
            arguments = part.network, part.head, batch
            steps[key, "run"] = timing.inference_step(*arguments)
            steps[key, "train"] = timing.training_step(*arguments)
        keys.append(key)
    if not trunk_cached and len(parts) > 1:
        steps["trunk"] = timing.inference_step(trunk, None, images)
    seconds = timing.median_seconds(steps)
    before = [0.0] + [seconds.get("trunk", 0.0)] * (len(parts) - 1)
    return [
        {
            "inference_seconds": seconds[key, "run"] / batch_size,
            "training_seconds": (seconds[key, "train"] + extra) / batch_size,
        }
        for key, extra in zip(keys, before, strict=True)
    ]


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
