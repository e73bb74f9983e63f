"""The cost report, against hand counts; and that it changes nothing."""

import json
import random

import keras
import numpy as np
import pytest
from keras import layers

import keras_incremental as ki
from keras_incremental.cost import (
    HOROWITZ_45NM,
    EnergyConstants,
    PartCost,
    timing,
)
from keras_incremental.cost import report as cost_report
from keras_incremental.cost.part_cost import QUANTITIES
from keras_incremental.graphs import clone_network

# By hand, for batches of 1, in values of 4 bytes; see `make_model`.
TRUNK = 16 + 32 + 18
TAIL = (32 + 12 + 54) + (12 + 3)


def head(units):
    return 3 + units + 4 * units


def counted(part):
    """All that is not measured."""
    return {
        name: getattr(part, name)
        for name in QUANTITIES
        if not name.endswith("seconds")
    }


def test_inference_runs_the_trunk_once_and_then_all_branches(make_model):
    model = make_model(later=(2, 5))
    report = cost_report(model, batch_size=1, measure=False)
    assert [row.name for row in report.rows] == ["base", "branch 1", "branch 2"]
    base, first, second = report.rows
    assert base.inference_macs == 288 + 216 + 3 * 4
    assert first.inference_macs == 216 + 3 * 2
    assert second.inference_macs == 216 + 3 * 5
    assert base.inference_bytes == 4 * (TRUNK + TAIL + head(4))
    assert first.inference_bytes == 4 * (TAIL + head(2))
    assert report.with_sharing.inference_bytes == 4 * (
        TRUNK + 3 * TAIL + head(4) + head(2) + head(5)
    )
    assert report.without_sharing.inference_bytes == 4 * (
        3 * (TRUNK + TAIL) + head(4) + head(2) + head(5)
    )


def test_parameters_are_the_weights_in_use(make_model):
    report = cost_report(make_model(later=(2,)), measure=False)
    base, branch = report.rows
    assert base.parameters == 18 + 54 + 4 * 4
    assert branch.parameters == 54 + 4 * 2
    assert branch.bytes_stored == 4 * branch.parameters
    assert report.with_sharing.parameters == 18 + 54 + 16 + 54 + 8
    assert report.without_sharing.parameters == 2 * (18 + 54) + 16 + 8
    assert report.ratios["parameters"] == 150 / 168


def test_training_of_a_branch_stops_at_the_branch_point(make_model):
    base, branch = cost_report(
        make_model(later=(2,)), batch_size=1, measure=False
    ).rows
    # Forward; gradients of the weights; gradients of the inputs but the first.
    forward, later = 288 + 216 + 12, 216 + 12
    assert base.training_macs == forward + forward + later
    assert branch.training_macs == (216 + 6) + (216 + 6) + 6
    backward = (32 + 12) + 2 * 54 + 5 * 54  # `second`: no gradient of its input
    backward += 12 + 3 + 12
    backward += (3 + 2 + 3) + 2 * 8 + 5 * 8
    assert branch.training_bytes == 4 * (TAIL + head(2) + backward)


def test_a_trunk_whose_outputs_are_not_cached_runs_forward(make_model):
    model = make_model(later=(2,))
    cached = cost_report(model, batch_size=1, measure=False)
    run = cost_report(model, batch_size=1, measure=False, trunk_cached=False)
    assert run.rows[0] == cached.rows[0]
    assert run.without_sharing == cached.without_sharing
    difference = run.rows[1].training_macs - cached.rows[1].training_macs
    assert difference == 288
    moved = run.rows[1].training_bytes - cached.rows[1].training_bytes
    assert moved == 4 * TRUNK
    assert run.rows[1].inference_bytes == cached.rows[1].inference_bytes
    assert "are cached" not in str(run) and "runs the shared layers" in str(run)


def test_energy_follows_from_macs_and_bytes(make_model):
    model = make_model(later=(2,))
    constants = EnergyConstants(1e-12, 2e-12, 100e-12)
    report = cost_report(model, constants=constants, measure=False)
    for part in (*report.rows, report.with_sharing, report.without_sharing):
        for phase in ("inference", "training"):
            macs = getattr(part, f"{phase}_macs")
            moved = getattr(part, f"{phase}_bytes")
            assert getattr(part, f"{phase}_energy") == pytest.approx(
                3e-12 * macs + 25e-12 * moved
            )


def test_a_larger_batch_shares_the_weights(make_model):
    model = make_model()
    one = cost_report(model, batch_size=1, measure=False).rows[0]
    four = cost_report(model, batch_size=4, measure=False).rows[0]
    assert one.inference_bytes - four.inference_bytes == pytest.approx(
        4 * 0.75 * one.parameters
    )
    assert one.inference_macs == four.inference_macs


@pytest.mark.parametrize("trunk_cached", [True, False])
def test_sharing_nothing_costs_what_no_sharing_costs(make_model, trunk_cached):
    report = cost_report(
        make_model(branch_at=0.0, later=(2, 3)),
        measure=False,
        trunk_cached=trunk_cached,
    )
    assert counted(report.with_sharing) == counted(report.without_sharing)
    assert "sharing no layers" in str(report)


def test_sharing_all_layers_leaves_the_heads(make_model):
    report = cost_report(make_model(branch_at=1.0, later=(2,)), measure=False)
    branch = report.rows[1]
    assert (branch.parameters, branch.inference_macs) == (8, 6)
    assert branch.training_macs == 2 * 6
    assert "all layers but the classifier" in str(report)


def test_deeper_sharing_costs_less(make_model):
    totals = [
        cost_report(make_model(at, later=(2,)), measure=False).with_sharing
        for at in (0.0, "cut", 1.0)
    ]
    for name in counted(totals[0]):
        values = [getattr(part, name) for part in totals]
        assert values == sorted(values, reverse=True), name
        assert len(set(values)) == 3, name


def test_the_next_branch_costs_what_it_will_cost(make_model):
    before = cost_report(make_model(), measure=False)
    after = cost_report(make_model(later=(4,)), measure=False)
    assert [row.name for row in before.rows] == ["base", "next branch"]
    assert counted(before.rows[1]) == counted(after.rows[1])
    assert counted(before.with_sharing) == counted(after.with_sharing)
    assert counted(before.without_sharing) == counted(after.without_sharing)


def test_the_next_head_is_as_large_as_the_latest(make_model):
    model = make_model()
    model.add_classes([10, 11, 12])
    branch = cost_report(model, measure=False).rows[1]
    assert branch.parameters == 54 + 4 * 3


def test_a_thinner_branch_is_compared_with_whole_networks(
    make_model, add_branch
):
    model = make_model()
    thinner = clone_network(model.network.tail, 1 / 3)
    add_branch(model, [10, 11], network=thinner)
    report = cost_report(model, measure=False)
    assert report.rows[1].parameters == 18 + 2 * 2
    assert report.without_sharing.parameters == 2 * 72 + 16 + 8


def test_without_a_branch_point_it_is_the_network_alone(make_model):
    report = cost_report(make_model(branch_at=None), measure=False)
    (row,) = report.rows
    assert row.name == "network"
    assert row.inference_macs == 288 + 216 + 12
    assert report.with_sharing is report.without_sharing is None
    assert report.ratios == {}
    assert report.branch_at is None
    assert "sharing" not in str(report)


# Measured seconds.


@pytest.mark.parametrize("branch_at", [None, "cut"])
def test_seconds_are_measured_for_every_part(make_model, branch_at):
    report = cost_report(make_model(branch_at), batch_size=2)
    parts = [*report.rows]
    if branch_at is not None:
        parts += [report.with_sharing, report.without_sharing]
        assert report.with_sharing.training_seconds == pytest.approx(
            sum(row.training_seconds for row in report.rows)
        )
        base = report.rows[0]
        assert report.without_sharing.inference_seconds == pytest.approx(
            2 * base.inference_seconds
        )
    for part in parts:
        assert 0 < part.inference_seconds < 1
        assert 0 < part.training_seconds < 1


def test_seconds_are_none_where_they_are_not_measured(make_model):
    report = cost_report(make_model(), measure=False)
    for part in (*report.rows, report.with_sharing, report.without_sharing):
        assert part.inference_seconds is part.training_seconds is None
    assert report.ratios["training_seconds"] is None


@pytest.fixture
def fake_clock(monkeypatch):
    """Every step of k-th making takes k seconds a call; returns their keys."""
    made = []

    def median(steps):
        made.extend(steps)
        return {key: float(k) for k, key in enumerate(steps, start=1)}

    monkeypatch.setattr(timing, "median_seconds", median)
    return made


def test_branches_of_equal_shape_are_timed_once(make_model, fake_clock):
    model = make_model(later=(2, 5, 2))
    report = cost_report(model, batch_size=2)
    # Base, and two of the three branches: run and train.
    assert len(fake_clock) == 2 + 2 * 2
    base, first, second, third = report.rows
    assert (base.inference_seconds, base.training_seconds) == (0.5, 1.0)
    assert (first.inference_seconds, first.training_seconds) == (1.5, 2.0)
    assert third.training_seconds == first.training_seconds
    assert second.training_seconds == 3.0


def test_a_trunk_that_is_not_cached_takes_its_time(make_model, fake_clock):
    model = make_model(later=(2,))
    report = cost_report(model, batch_size=2, trunk_cached=False)
    assert report.rows[1].training_seconds == 2.0 + 2.5
    assert fake_clock[4] == "trunk"


@pytest.mark.parametrize("later", [(), (2, 2)])
def test_the_model_does_not_change(make_model, later):
    model = make_model(later=later)
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    x = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 1))
    logits = model(x)
    weights = model.get_weights()
    flags = [weight.trainable for weight in model.weights]
    draws = random.getstate()
    cost_report(model, batch_size=2)
    assert random.getstate() == draws
    assert [weight.trainable for weight in model.weights] == flags
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(model(x), logits)


# Output.


def test_table_aligns_parts_totals_and_ratios(make_model):
    text = str(cost_report(make_model(later=(2, 5)), measure=False))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "'cut'" in lines[0] and "batches of 32" in lines[0]
    start = next(i for i, line in enumerate(lines) if "Inference" in line)
    block = lines[start : lines.index("", start)]
    assert [line[:12].strip() for line in block] == [
        "Inference", "", "base", "branch 1", "branch 2", "------------",
        "total with s", "total withou", "with / witho",
    ]  # fmt: skip
    ends = {len(line) for line in block}
    assert len(ends) == 1, "the last column is not aligned"
    assert block[1].split() == ["M", "MB", "MMACs", "MB", "mJ", "ms"]
    assert block[2].split()[3] == "0.00052"
    # 224 of 260 weights, 969 of 1545 multiply-accumulates.
    assert block[-1].split()[3:6] == ["86.2%", "86.2%", "62.7%"]
    assert block[-1].split()[-1] == "-"


def test_dict_has_plain_types_and_all_that_is_known(make_model, tmp_path):
    report = cost_report(make_model(later=(2,)), measure=False)
    plain = report.to_dict()
    path = report.save(tmp_path / "new" / "cost.json")
    assert json.loads(path.read_text()) == plain
    assert plain["rows"][1]["parameters"] == 54 + 8
    assert plain["branch_at"] == "cut"
    assert plain["batch_size"] == 32
    assert plain["constants"]["add"] == HOROWITZ_45NM.add
    assert plain["ratios"]["inference_seconds"] is None
    assert PartCost(**plain["with_sharing"]) == report.with_sharing
    assert [p.name for p in path.parent.iterdir()] == ["cost.json"]


# Arguments.


@pytest.mark.parametrize("model", [None, "backbone"])
def test_another_model_is_an_error_that_says_to_wrap_it(model):
    network = ki.backbones.small((8, 8, 1)) if model else None
    with pytest.raises(TypeError, match=r"IncrementalClassifier\(backbone"):
        cost_report(network)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size_is_checked(make_model, batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size}"):
        cost_report(make_model(), batch_size=batch_size)


def test_a_model_without_classes_is_an_error(make_model):
    with pytest.raises(ValueError, match="add_classes"):
        cost_report(make_model(base_classes=0))


def test_columns_that_a_head_holds_in_reserve_cost_nothing(make_model):
    model = make_model(branch_at=None)
    row = cost_report(model, measure=False).rows[0]
    assert model.network.head.allocated > 4
    assert row.inference_macs == 288 + 216 + 3 * 4
    assert row.parameters == 18 + 54 + 3 * 4 + 4


def test_layers_of_the_user_are_counted():
    class Odd(layers.Layer):
        def call(self, x):
            return keras.ops.matmul(x, keras.ops.ones((3, 3)))

    network = keras.Sequential([keras.Input((4,)), layers.Dense(3), Odd()])
    model = ki.IncrementalClassifier(network)
    model.add_classes([0, 1])
    report = cost_report(model, measure=False)
    assert report.rows[0].inference_macs == 12 + 9 + 6
