"""The pictures show the data they were given."""

import ast
import os
import pathlib

import matplotlib
import numpy as np
import pytest
from PIL import Image

from keras_incremental import reports


def texts(picture):
    picture.draw_without_rendering()
    return [text.get_text() for text in picture.findobj(matplotlib.text.Text)]


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_lines_are_the_accuracies_over_classes_seen(make_results):
    runs = {
        "a": make_results(seen=(2, 4, 6), accuracies=(1.0, 0.5, 0.25)),
        "b": make_results(seen=(50, 60), accuracies=(0.75, 0.5)),
    }
    axes = reports.accuracy_figure(runs).axes[0]
    lines = [np.transpose(line.get_data()).tolist() for line in axes.lines]
    assert lines == [
        [[2, 1.0], [4, 0.5], [6, 0.25]],
        [[50, 0.75], [60, 0.5]],
    ]


def test_accuracy_axis_runs_from_0_to_100_percent(make_results):
    picture = reports.accuracy_figure({"a": make_results()})
    low, high = picture.axes[0].get_ylim()
    assert low == 0 and 1 < high < 1.1
    assert {"0%", "50%", "100%"} <= set(texts(picture))


def test_title_has_data_tasks_and_memory(make_results):
    one = make_results()
    other = make_results(seed=1)
    other["tasks"][-1]["exemplars"] = 2000
    axes = reports.accuracy_figure({"a": [one, other], "b": one}).axes[0]
    assert axes.get_title() == (
        "digits: 4 classes in 2 tasks, 100 to 2,000 exemplars, "
        "mean and deviation of 2 seeds"
    )
    assert axes.get_title() == reports.describe([one, other])
    longer = make_results(seen=(2, 4, 6), accuracies=(1.0, 0.5, 0.5))
    longer["dataset"] = "cifar10"
    assert reports.describe([one, longer]) == (
        "cifar10, digits: 4 to 6 classes in 2 to 3 tasks, 100 exemplars"
    )


def test_many_methods_above_90_percent_are_drawn_apart(make_results):
    """Linear up to three; 95% of the height is 90% with one more."""
    finals = (0.99, 0.97, 0.95, 0.92)
    runs = {
        str(final): make_results(accuracies=(1.0, final)) for final in finals
    }
    stretched = reports.accuracy_figure(runs).axes[0]
    del runs["0.92"]
    linear = reports.accuracy_figure(runs).axes[0]
    assert linear.get_yscale() == "linear"
    assert "stretched" not in linear.get_ylabel()
    assert "stretched towards 100%" in stretched.get_ylabel()
    place = stretched.transScale + stretched.transLimits
    heights = place.transform([(2, y) for y in (0.0, 0.75, 0.99, 1.0)])[:, 1]
    # As the square root of the error: 1, 0.5 and 0.1 of the whole below 100%.
    np.testing.assert_allclose(heights, [0, 0.5, 0.9, 1.0], atol=0.03)
    assert {"0%", "90%", "98%", "100%"} <= set(texts(stretched.figure))


def test_legend_is_a_table_of_accuracies_the_best_first(make_results):
    runs = {
        "eeil": make_results(accuracies=(0.9, 0.6)),
        "_joint $1": make_results(accuracies=(1.0, 0.902)),
    }
    picture = reports.accuracy_figure(runs, bounds=["_joint $1"])
    (legend,) = picture.legends
    assert legend.get_title().get_text().split() == [
        "final",
        "%",
        "average",
        "%",
    ]
    rows = [text.get_text() for text in legend.get_texts()]
    assert [row.split() for row in rows] == [
        ["_joint", r"\$1", "90.2", "95.1"],
        ["eeil", "60.0", "75.0"],
    ]
    assert len(rows[1]) == len(rows[0].replace("\\", ""))  # columns
    styles = [line.get_linestyle() for line in legend.get_lines()]
    assert styles == ["--", "-"]


def test_table_of_many_methods_is_within_the_picture(make_results):
    runs = {f"{i} {'n' * 30}": make_results() for i in range(13)}
    picture = reports.accuracy_figure(runs)
    picture.draw_without_rendering()
    legend = picture.legends[0].get_window_extent()
    axes = picture.axes[0].get_window_extent()
    assert axes.x1 <= legend.x0 and legend.x1 <= picture.bbox.x1
    assert legend.y0 >= 0 and legend.y1 <= picture.bbox.y1
    assert axes.width > 5.5 * picture.dpi


def test_values_are_written_at_the_points_of_a_single_run(make_results):
    run = make_results(accuracies=(0.901, 0.602))
    assert {"90.1", "60.2"} <= set(texts(reports.accuracy_figure({"a": run})))
    both = reports.accuracy_figure({"a": run, "b": run})
    assert not {"90.1", "60.2"} & set(texts(both))


def test_unknown_accuracy_leaves_a_gap(make_results):
    run = make_results()
    run["tasks"][0]["accuracy"] = None
    run["average_incremental_accuracy"] = None
    picture = reports.accuracy_figure({"a": run})
    np.testing.assert_array_equal(
        picture.axes[0].lines[0].get_ydata(), [np.nan, 0.6]
    )
    title = picture.axes[0].get_title()
    assert title.startswith("a: final 60.0%, average -%\n")


def test_many_runs_all_look_different(make_results):
    runs = {str(i): make_results() for i in range(20)}
    lines = reports.accuracy_figure(runs).axes[0].lines
    looks = {
        (line.get_color(), line.get_marker(), line.get_linestyle())
        for line in lines
    }
    assert len(looks) == len(lines) == 20
    assert len({line.get_color() for line in lines[:13]}) == 13
    assert len({line.get_marker() for line in lines[:13]}) == 13


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ((10,), ["10"]),
        ((50, 60, 70), ["50", "60", "70"]),
        (tuple(range(5, 101, 5)), [str(n) for n in range(10, 101, 10)]),
    ],
)
def test_ticks_are_numbers_of_classes_with_room_between(
    make_results, seen, expected
):
    run = make_results(seen=seen, accuracies=[0.5] * len(seen))
    axes = reports.accuracy_figure({"a": run}).axes[0]
    assert ticks(axes.xaxis) == expected
    assert axes.get_xlim()[0] < seen[0] and seen[-1] < axes.get_xlim()[1]


def test_no_run_is_an_error():
    with pytest.raises(ValueError, match="runs is empty"):
        reports.accuracy_figure({})


def test_confusion_shows_the_share_of_each_row():
    picture = reports.confusion_figure([[3, 1], [0, 5]], ["cat", "dog"])
    axes = picture.axes[0]
    shares = axes.images[0].get_array()
    np.testing.assert_array_equal(shares, [[0.75, 0.25], [0.0, 1.0]])
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "75", (1, 0): "25", (1, 1): "100"}
    assert ticks(axes.xaxis) == ["cat", "dog"]
    assert ticks(axes.yaxis) == ["cat (4)", "dog (5)"]
    assert axes.get_title() == "accuracy 88.9% of 9 images, 4 to 5 a class"


def test_confusion_has_its_title_above_the_accuracy():
    axes = reports.confusion_figure(np.eye(2), "ab", title="eeil $1").axes[0]
    above, below = axes.get_title().split("\n")
    assert above == r"eeil \$1"
    assert below == "accuracy 100.0% of 2 images, 1 a class"


def test_class_without_samples_is_an_empty_row():
    axes = reports.confusion_figure([[0, 0], [1, 1]], "ab").axes[0]
    shares = axes.images[0].get_array()
    np.testing.assert_array_equal(
        np.ma.getmaskarray(shares), [[True, True], [False, False]]
    )
    assert {text.get_position() for text in axes.texts} == {(0, 1), (1, 1)}


def test_lines_lie_between_the_tasks():
    axes = reports.confusion_figure(np.eye(6), "abcdef", [2, 4, 6]).axes[0]
    horizontal = [line.get_ydata()[0] for line in axes.lines[::2]]
    vertical = [line.get_xdata()[0] for line in axes.lines[1::2]]
    assert horizontal == vertical == [1.5, 3.5]


@pytest.mark.parametrize(
    ("classes", "named"), [(1, 1), (20, 20), (40, 40), (100, 34), (1000, 40)]
)
def test_as_many_classes_are_named_as_have_room(classes, named):
    names = [f"class {unit}" for unit in range(classes)]
    axes = reports.confusion_figure(np.eye(classes), names).axes[0]
    assert len(ticks(axes.xaxis)) == len(ticks(axes.yaxis)) == named
    assert len(axes.texts) == (classes if classes <= 20 else 0)
    step = -(-classes // 40)
    assert ticks(axes.xaxis) == names[::step]
    assert ("named" in axes.get_xlabel()) == (step > 1)


def test_names_are_cut_and_not_read_as_mathematics():
    names = ["n" * 25, "$1 and $2"]
    axes = reports.confusion_figure(np.eye(2), names).axes[0]
    assert ticks(axes.xaxis) == ["n" * 23 + "…", r"\$1 and \$2"]


def test_files_have_the_pixels_of_the_figures_at_150_dpi(
    tmp_path, make_results
):
    runs = {"a": make_results(), "b": make_results()}
    reports.plot_accuracy(runs, tmp_path / "accuracy.png")
    reports.plot_confusion(np.eye(10), range(10), f"{tmp_path}/confusion.png")
    for name, picture in (
        ("accuracy.png", reports.accuracy_figure(runs)),
        ("confusion.png", reports.confusion_figure(np.eye(10), range(10))),
    ):
        with Image.open(tmp_path / name) as image:
            pixels = np.array(image.convert("L"))
            size = tuple(
                int(150 * inches) for inches in picture.get_size_inches()
            )
            assert image.size == size
        assert pixels.min() < 100 and pixels.max() == 255
    assert sorted(os.listdir(tmp_path)) == ["accuracy.png", "confusion.png"]


@pytest.mark.parametrize("suffix", [".svg", ".pdf", ".PNG"])
def test_suffix_chooses_the_kind_of_file(tmp_path, make_results, suffix):
    starts = {".svg": b"<?xml", ".pdf": b"%PDF", ".PNG": b"\x89PNG"}
    path = reports.plot_accuracy({"a": make_results()}, tmp_path / f"a{suffix}")
    assert path.read_bytes().startswith(starts[suffix])


def test_a_kind_of_file_that_is_no_picture_is_an_error(tmp_path, make_results):
    with pytest.raises(ValueError, match="'json' is not supported"):
        reports.plot_accuracy({"a": make_results()}, tmp_path / "a.json")
    assert os.listdir(tmp_path) == []


def test_settings_of_matplotlib_stay_as_they_are(tmp_path, make_results):
    before = dict(matplotlib.rcParams)
    reports.plot_accuracy({"a": make_results()}, tmp_path / "a.png")
    reports.plot_confusion(np.eye(2), "ab", tmp_path / "b.png")
    assert dict(matplotlib.rcParams) == before


def test_no_report_imports_pyplot():
    for path in pathlib.Path(reports.__file__).parent.glob("*.py"):
        names = {
            f"{getattr(node, 'module', '')}.{alias.name}"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not [name for name in names if "pyplot" in name], path
