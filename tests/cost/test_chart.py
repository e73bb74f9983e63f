"""The picture shows the costs it was given."""

import itertools
import os

import pytest
from matplotlib import text

from keras_incremental import cost
from keras_incremental.cost import chart
from keras_incremental.cost.part_cost import QUANTITIES, PartCost, total


def part(name, value, seconds=None):
    values = dict.fromkeys(QUANTITIES, value)
    values["inference_energy"] = values["training_energy"] = value * 1e-9
    values["inference_seconds"] = values["training_seconds"] = seconds
    return PartCost(name, **values)


@pytest.fixture
def draw():
    """Returns a function from parts' values to the picture against 8."""

    def make(values, without=8e6, seconds=None):
        rows = [
            part("base" if not i else f"branch {i}", value, seconds)
            for i, value in enumerate(values)
        ]
        whole = part("without", without, seconds and 2 * seconds)
        return chart.sharing_figure(rows, total("with", rows), whole, "title")

    return make


def bars(picture):
    """The bars of each line, top to bottom, left to right: (left, width)."""
    lines = {}
    for bar in picture.axes[0].patches:
        y = round(bar.get_y() + bar.get_height() / 2, 6)
        lines.setdefault(y, []).append((bar.get_x(), bar.get_width()))
    return [lines[y] for y in sorted(lines)]


def texts(picture):
    picture.draw_without_rendering()
    return [
        item.get_text()
        for item in picture.findobj(text.Text)
        if item.get_text()
    ]


def test_bars_are_shares_of_the_total_without_sharing(draw):
    found = bars(draw([4e6, 1e6, 1e6]))
    assert len(found) == 7  # weights, and three of inference and of training
    for line in found:
        assert line == [(0, 1.0), (0, 0.5), (0.5, 0.125), (0.625, 0.125)]


def test_the_first_line_is_at_the_top(draw):
    picture = draw([4e6, 1e6])
    axes = picture.axes[0]
    low, high = axes.get_ylim()
    assert low > high
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:2] == ["weights", "multiply-accumulates"]


def test_values_and_shares_are_written(draw):
    found = texts(draw([4e6, 1e6, 1e6]))
    assert "75%   (6.00 of 8.00 million)" in found
    assert "75%   (6.00 of 8.00 MB)" in found
    assert {"title", "Storage", "base network"} <= set(found)
    assert "2 branches, one for each later task" in found
    assert {"0%", "50%", "100%"} <= set(found)


def test_time_is_drawn_where_it_was_measured(draw):
    assert "time (measured)" not in texts(draw([4e6, 1e6]))
    measured = draw([4e6, 1e6], seconds=0.25)
    labels = measured.axes[0].get_yticklabels()
    assert [x.get_text() for x in labels].count("time (measured)") == 2
    assert "100%   (500 of 500 ms)" in texts(measured)
    assert len(bars(measured)) == 9


@pytest.mark.parametrize("branches", [1, 3, 40])
@pytest.mark.parametrize("size", [1e6, 12e6])
def test_no_texts_overlap_and_none_is_cut_off(draw, branches, size):
    picture = draw([size, *[size / 4] * branches], seconds=0.1234)
    picture.draw_without_rendering()
    width, height = picture.bbox.size
    boxes = [
        item.get_window_extent()
        for item in picture.findobj(text.Text)
        if item.get_text() and item.get_visible()
    ]
    boxes = [box for box in boxes if box.width > 0]
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= width and box.y1 <= height
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other), (one, other)


def test_more_than_without_sharing_is_seen(draw):
    picture = draw([9e6, 9e6])
    axes = picture.axes[0]
    assert axes.get_xlim()[1] > 18 / 8
    assert "225%   (18.0 of 8.00 million)" in texts(picture)


def test_rounding_has_three_digits():
    values = [0, 0.001234, 0.1234, 1.234, 12.34, 123.4, 1234.0]
    assert [chart._rounded(value) for value in values] == [
        "0", "0.00123", "0.123", "1.23", "12.3", "123", "1,234",
    ]  # fmt: skip


def test_file_is_written_whole_and_of_a_known_kind(make_report, tmp_path):
    report = make_report()
    path = report.plot(tmp_path / "cost.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.pdf"):
        report.plot(tmp_path / "cost.txt")
    assert os.listdir(tmp_path) == ["cost.png"]


@pytest.fixture
def make_report(make_model):
    return lambda: cost.report(make_model(later=(2,)), measure=False)
