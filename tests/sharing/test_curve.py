"""The choice, the table, the file and the picture of a sharing search."""

import dataclasses
import json
import os
import re

import keras
import matplotlib
import numpy as np
import pytest
from keras import layers
from matplotlib import colors
from PIL import Image

import keras_incremental as ki
from keras_incremental.sharing import SharingCurve, SharingPoint
from keras_incremental.sharing.plots import curve_figure


def network():
    """Two convolutions, 18 and 54 weights, and 3 features.

    On a 4x4 image the first takes 288 MACs, the second 216.
    """
    image = keras.Input((4, 4, 1), name="image")
    x = layers.Conv2D(2, 3, padding="same", use_bias=False, name="first")(image)
    x = layers.Conv2D(3, 3, use_bias=False, name="second")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, x)


@pytest.fixture(scope="module")
def costs(add_branch):
    """The cost of a base of 4 classes and a task of 2, by branch point."""
    reports = {}
    for point in (0.0, "first", 1.0):
        model = ki.IncrementalClassifier(network(), branch_at=point)
        model.add_classes(range(4))
        add_branch(model, [4, 5])
        reports[point] = ki.cost.report(model, batch_size=1, measure=False)
    return reports


@pytest.fixture
def make_curve(costs):
    """Returns a function from task-aware accuracies to a curve.

    The first point shares nothing, the last everything, if there are several;
    those between are named p1, p2, ...
    """

    def make(*accuracies, tolerance=0.01, **changes):
        last = max(len(accuracies) - 1, 1)
        points = []
        for index, accuracy in enumerate(accuracies):
            name = {0: 0.0, last: 1.0}.get(index, f"p{index}")
            kind = name if isinstance(name, float) else "first"
            point = SharingPoint(
                branch_at=name,
                layers=index / last,
                task_aware_accuracy=accuracy,
                uncalibrated_accuracy=accuracy / 2,
                accuracy=accuracy / 4,
                uncalibrated_accuracy_of_all=0.625,
                accuracy_of_all=0.75,
                calibrated=True,
                similarity=(0.5, 0.25),
                seconds_per_epoch=8.0 - index,
                seconds=100.0,
                cost=costs[kind],
            )
            points.append(dataclasses.replace(point, **changes))
        return SharingCurve(tuple(points), tolerance)

    return make


def strict_json(text):
    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


# The choice.


@pytest.mark.parametrize(
    ("accuracies", "tolerance", "expected"),
    [
        ((0.9, 0.9, 0.9), 0.0, 1.0),
        ((0.9, 0.9, 0.85), 0.01, "p1"),
        ((0.9, 0.89, 0.85), 0.02, "p1"),
        ((0.9, 0.89, 0.85), 0.06, 1.0),
        # Deeper counts for more than better, and a dip before does not matter.
        ((0.9, 0.99, 0.5, 0.89), 0.02, 1.0),
        ((0.9, 0.5, 0.95, 0.5), 0.0, "p2"),
    ],
)
def test_deepest_point_within_the_tolerance_is_chosen(
    make_curve, accuracies, tolerance, expected
):
    curve = make_curve(*accuracies, tolerance=tolerance)
    assert curve.chosen.branch_at == expected
    assert curve.to_dict()["chosen"] == expected


@pytest.mark.parametrize(
    ("best", "sharing", "tolerance"),
    # In floating point 0.8 - 0.1 > 0.7, and 0.9 - 0.89 > 0.01.
    [(0.8, 0.7, 0.1), (0.9, 0.89, 0.01), (1.0, 0.95, 0.05), (0.3, 0.2, 0.1)],
)
def test_a_loss_of_just_the_tolerance_is_allowed(
    make_curve, best, sharing, tolerance
):
    curve = make_curve(best, sharing, tolerance=tolerance)
    assert curve.chosen.branch_at == 1.0


def test_a_loss_of_one_image_in_a_million_too_many_is_not(make_curve):
    curve = make_curve(0.8, 0.7 - 1e-6, tolerance=0.1)
    with pytest.raises(ValueError, match="within tolerance"):
        _ = curve.chosen


def test_least_accuracy_is_that_without_sharing_less_the_tolerance(make_curve):
    curve = make_curve(0.75, 0.9, tolerance=0.25)
    assert curve.least_accuracy == 0.5


def test_error_names_the_nearest_point_and_a_tolerance_that_would_do(
    make_curve,
):
    curve = make_curve(0.9, 0.71234, 0.6, tolerance=0.01)
    with pytest.raises(ValueError, match=r"nearest is 'p1' with 0\.7123") as no:
        _ = curve.chosen
    assert "tolerance=0.01 of 0.9000" in str(no.value)
    # 0.9 - 0.71234 = 0.18766: rounded to 0.1877, up.
    assert "allow a tolerance of 0.1877," in str(no.value)
    assert make_curve(0.9, 0.71234, tolerance=0.1877).chosen


def test_the_tolerance_that_the_error_names_is_never_too_small(make_curve):
    curve = make_curve(0.9, 0.87659, tolerance=0)
    with pytest.raises(ValueError, match=r"a tolerance of 0\.0235,"):
        _ = curve.chosen
    assert make_curve(0.9, 0.87659, tolerance=0.0235).chosen


def test_no_sharing_alone_leaves_nothing_to_choose(make_curve):
    with pytest.raises(ValueError, match="expected points above 0"):
        _ = make_curve(0.9).chosen


# The table.


def table_of(curve):
    """The cells by line and heading, and the lines after the table."""
    rows, rest = str(curve).split("\n\n", 1)
    header, *rows = rows.splitlines()
    names = ["branch at", *header.removeprefix("branch at").split()]
    cells = [row.replace(" %", "%").split() for row in rows]
    return [dict(zip(names, row, strict=True)) for row in cells], rest


def test_table_holds_the_figures_of_each_point(make_curve):
    rows, _ = table_of(make_curve(0.8, 0.75, 0.5))
    assert [row["branch at"] for row in rows] == ["0.0", "p1", "1.0"]
    assert [row["shared"] for row in rows] == ["0%", "50%", "100%"]
    assert [row["aware"] for row in rows] == ["80.0", "75.0", "50.0"]
    assert [row["lost"] for row in rows] == ["0.0", "5.0", "30.0"]
    assert [row["raw"] for row in rows] == ["40.0", "37.5", "25.0"]
    assert [row["calib"] for row in rows] == ["20.0", "18.8", "12.5"]
    assert [row["s/epoch"] for row in rows] == ["8.00", "7.00", "6.00"]


def test_costs_in_the_table_are_those_counted_by_hand(make_curve):
    rows, _ = table_of(make_curve(0.8, 0.75, 0.5))
    # Kernels of 18, 54 and 3 x 2, and 2 biases.
    assert [row["added"] for row in rows] == ["80.0", "62.0", "8.0"]
    whole, second = 288 + 216, 216
    without = (whole + 12) + (whole + 6)
    assert [row["MACs"] for row in rows] == [
        "1.00",
        f"{(whole + 12 + second + 6) / without:.2f}",
        f"{(whole + 12 + 6) / without:.2f}",
    ]
    # Forward, gradients of weights, and of all inputs but the first one's.
    base = 2 * (whole + 12) + second + 12
    assert [row["train"] for row in rows] == [
        f"{(2 * (whole + 6) + second + 6) / base:.2f}",
        f"{(2 * (second + 6) + 6) / base:.2f}",
        f"{2 * 6 / base:.2f}",
    ]


def test_relative_bytes_and_energy_are_those_of_training_a_branch(
    make_curve, costs
):
    _, row, _ = table_of(make_curve(0.8, 0.75, 0.5))[0]
    base, branch = costs["first"].rows
    moved = branch.training_bytes / base.training_bytes
    energy = branch.training_energy / base.training_energy
    assert (row["bytes"], row["energy"]) == (f"{moved:.2f}", f"{energy:.2f}")


def test_accuracy_that_was_not_calibrated_is_a_dash(make_curve):
    rows, _ = table_of(make_curve(0.8, 0.75, calibrated=False))
    assert [row["calib"] for row in rows] == ["-", "-"]


def enlarged(cost, factor):
    """The same cost with so many times the parameters."""
    rows = tuple(
        dataclasses.replace(row, parameters=factor * row.parameters)
        for row in cost.rows
    )
    return dataclasses.replace(cost, rows=rows)


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(16, "992.0"), (1000, "62.0k"), (37_388, "2.3M"), (10**8, "6.2G")],
)
def test_many_parameters_are_shown_with_a_unit(
    make_curve, costs, factor, expected
):
    cost = enlarged(costs["first"], factor)
    rows, _ = table_of(make_curve(0.8, 0.75, cost=cost))
    assert rows[1]["added"] == expected


LONG = "a_layer_with_quite_a_long_name_indeed"


def long_curve(make_curve, costs):
    """A curve with wide values in all columns."""
    return make_curve(
        1.0,
        1.0,
        1.0,
        branch_at=LONG,
        layers=1.0,
        seconds_per_epoch=12345.678,
        accuracy=1.0,
        uncalibrated_accuracy=1.0,
        cost=enlarged(costs[0.0], 12_345_678),
    )


@pytest.mark.parametrize("kind", ["short", "long", "nothing chosen"])
def test_table_is_aligned_and_no_wider_than_100_columns(
    make_curve, costs, kind
):
    curve = {
        "short": lambda: make_curve(0.8, 0.75, 0.5, tolerance=0.5),
        "long": lambda: long_curve(make_curve, costs),
        "nothing chosen": lambda: make_curve(0.8, 0.7, tolerance=0),
    }[kind]()
    text = str(curve)
    assert max(map(len, text.splitlines())) <= 100
    rows = text.split("\n\n")[0].splitlines()
    assert len(rows) == 1 + len(curve.points)
    assert len({len(row) for row in rows}) == 1
    # Ten columns of numbers, which end where their headings end.
    ends = [
        [match.end() for match in re.finditer(r"\S+( %)?", row)][-10:]
        for row in rows
    ]
    assert all(each == ends[0] for each in ends), text
    assert all(row[0] != " " for row in rows)


def test_long_names_are_cut_in_the_table(make_curve, costs):
    rows, _ = table_of(long_curve(make_curve, costs))
    assert {row["branch at"] for row in rows} == {LONG[:19]}


@pytest.mark.parametrize(
    ("accuracies", "tolerance", "expected"),
    [
        (
            (0.8, 0.79, 0.5),
            0.02,
            "Chosen: 'p1', 50 % of the layers shared. Accuracy against no "
            "sharing: -1.0 points (a loss of 2 is allowed).",
        ),
        (
            (0.75, 0.8),
            0.0,
            "Chosen: 1.0, 100 % of the layers shared. Accuracy against no "
            "sharing: +5.0 points (a loss of 0 is allowed).",
        ),
        (
            (0.75, 0.75),
            0.0,
            "Chosen: 1.0, 100 % of the layers shared. Accuracy against no "
            "sharing: +0.0 points (a loss of 0 is allowed).",
        ),
    ],
)
def test_table_ends_with_the_choice(
    make_curve, accuracies, tolerance, expected
):
    text = str(make_curve(*accuracies, tolerance=tolerance))
    choice = text.split("\n\n")[-1]
    assert " ".join(choice.splitlines()) == expected


def test_table_without_a_choice_says_why(make_curve):
    curve = make_curve(0.9, 0.7, 0.6)
    text = str(curve)
    with pytest.raises(ValueError, match="nearest") as no:
        _ = curve.chosen
    assert " ".join(text.split("\n\n")[-1].splitlines()) == str(no.value)
    assert len(table_of(curve)[0]) == 3


# The file.


@pytest.mark.parametrize("accuracies", [(0.8, 0.75, 0.5), (0.8, 0.1), (0.8,)])
def test_saved_file_holds_all_figures_as_json(make_curve, tmp_path, accuracies):
    curve = make_curve(*accuracies, tolerance=0.125)
    path = curve.save(f"{tmp_path}/new/search.json")
    assert path == tmp_path / "new" / "search.json"
    assert strict_json(path.read_text()) == curve.to_dict()
    assert os.listdir(path.parent) == ["search.json"]


def test_to_dict_holds_each_figure_under_its_name(make_curve, costs):
    found = make_curve(0.5, 0.75, tolerance=0.125).to_dict()
    assert found.keys() == {"tolerance", "chosen", "points"}
    assert (found["tolerance"], found["chosen"]) == (0.125, 1.0)
    assert found["points"][1] == {
        "branch_at": 1.0,
        "layers": 1.0,
        "task_aware_accuracy": 0.75,
        "uncalibrated_accuracy": 0.375,
        "accuracy": 0.1875,
        "uncalibrated_accuracy_of_all": 0.625,
        "accuracy_of_all": 0.75,
        "calibrated": True,
        "similarity": [0.5, 0.25],
        "seconds_per_epoch": 7.0,
        "seconds": 100.0,
        "cost": costs[1.0].to_dict(),
    }


@pytest.mark.parametrize("accuracies", [(0.8, 0.1), (0.8,)])
def test_to_dict_without_a_choice_says_none(make_curve, accuracies):
    found = make_curve(*accuracies).to_dict()
    assert found["chosen"] is None
    assert len(found["points"]) == len(accuracies)


def test_failed_save_leaves_the_older_file_and_nothing_else(
    make_curve, tmp_path
):
    path = tmp_path / "search.json"
    path.write_text("older")
    curve = make_curve(0.8, 0.75, similarity=(object(),))
    with pytest.raises(TypeError, match="JSON"):
        curve.save(path)
    assert path.read_text() == "older"
    assert os.listdir(tmp_path) == ["search.json"]


# The picture.


def lines(axes):
    """The curves by label: horizontal and vertical values."""
    return {
        line.get_label(): np.transpose(line.get_data()).tolist()
        for line in axes.lines
    }


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_upper_axes_show_accuracies_in_percent(make_curve):
    upper, _ = curve_figure(make_curve(0.75, 0.875, 0.5)).axes
    found = lines(upper)
    assert found["among the task's own classes"] == [
        [0, 75], [50, 87.5], [100, 50],
    ]  # fmt: skip
    assert found["among all classes, calibrated"] == [
        [0, 18.75], [50, 21.875], [100, 12.5],
    ]  # fmt: skip
    assert found["among all classes, uncalibrated"] == [
        [0, 37.5], [50, 43.75], [100, 25],
    ]  # fmt: skip
    assert found["chosen: p1"] == [[50, 87.5]]


def test_lower_axes_show_the_cost_of_training_against_no_sharing(
    make_curve, costs
):
    _, lower = curve_figure(make_curve(0.75, 0.875, 0.5)).axes
    found = lines(lower)
    whole, second = 2 * (504 + 6) + 216 + 6, 2 * (216 + 6) + 6
    np.testing.assert_allclose(
        found["multiply-accumulates"],
        [[0, 100], [50, 100 * second / whole], [100, 100 * 12 / whole]],
    )
    energy = [costs[p].rows[-1].training_energy for p in (0.0, "first", 1.0)]
    np.testing.assert_allclose(
        np.array(found["energy (estimate)"])[:, 1],
        [100 * value / energy[0] for value in energy],
    )
    assert found["seconds (measured)"] == [[0, 100], [50, 87.5], [100, 75]]
    assert lower.get_ylim()[0] == 0
    # Markers at 0 % are seen whole.
    assert not any(line.get_clip_on() for line in lower.lines)


def test_axes_are_named_and_run_from_none_to_all_layers(make_curve):
    picture = curve_figure(make_curve(0.75, 0.875, 0.5))
    upper, lower = picture.axes
    assert upper.get_ylabel() == "accuracy of the new tasks (%)"
    assert lower.get_ylabel() == "an epoch of a new task\n(% of no sharing)"
    assert "shared" in lower.get_xlabel() and "%" in lower.get_xlabel()
    assert upper.get_xlim() == lower.get_xlim() == (-4, 104)
    assert picture.get_suptitle()


@pytest.mark.parametrize(
    ("tolerance", "expected"),
    [
        (0.01, "tolerance: 1 % below no sharing"),
        (0.025, "tolerance: 2.5 % below no sharing"),
        (0.0, "tolerance: 0 % below no sharing"),
    ],
)
def test_band_is_the_tolerance(make_curve, tolerance, expected):
    curve = make_curve(0.75, 0.875, tolerance=tolerance)
    upper, _ = curve_figure(curve).axes
    assert expected in legend(upper)
    (band,) = upper.patches
    corners = band.get_extents().transformed(upper.transData.inverted())
    np.testing.assert_allclose(
        sorted([corners.y0, corners.y1]), [100 * (0.75 - tolerance), 75]
    )
    assert band.get_linewidth() > 0  # seen also where the tolerance is 0


def test_legend_names_all_lines(make_curve):
    upper, lower = curve_figure(make_curve(0.75, 0.875, 0.5)).axes
    assert set(lines(upper)) < set(legend(upper))
    assert len(legend(upper)) == 5
    assert set(lines(lower)) == set(legend(lower))


def test_no_calibration_draws_no_calibrated_accuracy(make_curve):
    curve = make_curve(0.75, 0.875, calibrated=False)
    upper, _ = curve_figure(curve).axes
    assert "among all classes, calibrated" not in lines(upper)
    assert len(upper.lines) == 3


@pytest.mark.parametrize("accuracies", [(0.8, 0.1), (0.8,)])
def test_nothing_chosen_draws_no_ring(make_curve, accuracies):
    upper, _ = curve_figure(make_curve(*accuracies)).axes
    assert not [name for name in lines(upper) if name.startswith("chosen")]


def test_chosen_names_are_cut_and_not_read_as_mathematics(make_curve):
    for name, expected in (
        ("$a$", r"chosen: \$a\$"),
        ("n" * 31, "chosen: " + "n" * 29 + "…"),
        ("n" * 30, "chosen: " + "n" * 30),
    ):
        curve = make_curve(0.75, 0.875, branch_at=name)
        assert expected in lines(curve_figure(curve).axes[0])


def test_every_line_looks_different(make_curve):
    for axes in curve_figure(make_curve(0.75, 0.875, 0.5)).axes:
        looks = {
            (
                colors.to_hex(line.get_color()),
                line.get_marker(),
                line.get_linestyle(),
                line.get_fillstyle(),
            )
            for line in axes.lines
        }
        assert len(looks) == len(axes.lines)


@pytest.mark.parametrize("kind", ["short", "long"])
def test_nothing_is_covered_or_cut_off(make_curve, costs, kind):
    curve = (
        make_curve(0.9, 0.9, 0.9)
        if kind == "short"
        else make_curve(
            0.9, 0.9, branch_at="n" * 60, seconds_per_epoch=1e6,
            cost=enlarged(costs["first"], 10**7),
        )
    )  # fmt: skip
    picture = curve_figure(curve)
    picture.draw_without_rendering()
    upper, lower = picture.axes
    whole = picture.bbox
    parts = [picture._suptitle.get_window_extent()]
    for axes in (upper, lower):
        parts += [axes.get_legend().get_window_extent()]
        parts += [axes.get_window_extent()]
    for index, part in enumerate(parts):
        assert whole.x0 <= part.x0 and part.x1 <= whole.x1
        assert whole.y0 <= part.y0 and part.y1 <= whole.y1
        for other in parts[index + 1 :]:
            overlap = matplotlib.transforms.Bbox.intersection(part, other)
            assert overlap is None or min(overlap.size) < 1


@pytest.mark.parametrize("accuracies", [(0.9, 0.85, 0.8), (0.0, 0.0)])
def test_written_picture_has_the_pixels_of_the_figure(
    make_curve, tmp_path, accuracies
):
    curve = make_curve(*accuracies)
    path = curve.plot(f"{tmp_path}/search.png")
    assert path == tmp_path / "search.png"
    with Image.open(path) as image:
        pixels = np.array(image.convert("L"))
        inches = curve_figure(curve).get_size_inches()
        assert image.size == tuple(int(150 * side) for side in inches)
    assert pixels.min() < 100 and pixels.max() == 255
    assert os.listdir(tmp_path) == ["search.png"]


def test_a_kind_of_file_that_is_no_picture_is_an_error(make_curve, tmp_path):
    with pytest.raises(ValueError, match="'json' is not supported"):
        make_curve(0.8, 0.75).plot(tmp_path / "search.json")
    assert os.listdir(tmp_path) == []
