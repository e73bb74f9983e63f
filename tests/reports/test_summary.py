"""Means and deviations over seeds, in tables and pictures."""

import numpy as np
import pytest

from keras_incremental import reports


@pytest.fixture
def groups(make_results):
    """A method of three seeds, and a bound of one."""
    stored = {"parameters": 100, "exemplar_bytes": 600, "kept_bytes": 50}

    def run(seed, final, **changes):
        results = make_results(seed=seed, accuracies=(0.9, final), **changes)
        return {**results, **stored}

    return {
        "ours": [run(0, 0.5), run(1, 0.6), run(2, 0.7)],
        "joint": [{**run(0, 0.8, method="joint"), "exemplar_bytes": None}],
    }


def test_rows_have_mean_and_sample_deviation(groups):
    ours, joint = reports.summarize(groups)
    assert ours["seeds"] == [0, 1, 2]
    assert ours["final_accuracy"] == pytest.approx([0.6, 0.1])
    assert ours["average_incremental_accuracy"] == pytest.approx([0.75, 0.05])
    assert ours["forgetting"] == pytest.approx([0.3, 0.1])
    # 4 bytes a parameter, of 100, 600 and 50; 2 tasks of 3.1 + 0.4 seconds.
    assert (ours["bytes"], ours["exemplars"]) == (1050, 100)
    assert ours["seconds"] == pytest.approx(7.0)
    assert joint["final_accuracy"] == [0.8, None]
    assert joint["bytes"] is None


def test_markdown_says_what_is_not_known(groups):
    groups["joint"][0]["final_accuracy"] = None
    head, _, ours, joint = reports.markdown(groups).splitlines()
    assert head.count("|") == ours.count("|") == joint.count("|") == 10
    assert "| 60.0 ± 10.0 |" in ours
    assert "| - |" in joint


def test_curve_is_the_mean_in_a_band_of_one_deviation(groups):
    picture = reports.accuracy_figure(groups, "digits", bounds=["joint"])
    ours, joint = picture.axes[0].lines
    np.testing.assert_allclose(ours.get_ydata(), [0.9, 0.6])
    assert ours.get_linestyle() == "-" and joint.get_linestyle() == "--"
    (band,) = picture.axes[0].collections
    corners = band.get_paths()[0].vertices
    at_the_end = corners[corners[:, 0] == 4, 1]
    np.testing.assert_allclose(
        [at_the_end.min(), at_the_end.max()], [0.5, 0.7], atol=1e-6
    )
    texts = [text.get_text() for text in picture.legends[0].get_texts()]
    assert texts == [
        "joint         80.0        85.0",
        "ours   60.0 ± 10.0  75.0 ± 5.0",
    ]
    assert picture.axes[0].get_title() == "digits"


def test_seeds_of_other_scenarios_are_no_curve(groups, make_results):
    groups["ours"].append(make_results(seen=(3, 6)))
    with pytest.raises(ValueError, match=r"'ours'.*\[3, 6\].*one scenario"):
        reports.accuracy_figure(groups)


def test_points_are_final_accuracies_over_megabytes(groups):
    picture = reports.bytes_figure(groups, "digits", bounds=["joint"])
    axes = picture.axes[0]
    point = axes.containers[0].lines[0]
    assert np.ravel(point.get_data()).tolist() == pytest.approx([0.00105, 0.6])
    assert axes.get_xlim()[0] == 0
    rows = [text.get_text().split() for text in picture.legends[0].get_texts()]
    assert rows == [
        ["joint", "80.0", "-"],
        ["ours", "60.0", "±", "10.0", "0.00"],
    ]


def test_a_method_looks_the_same_in_all_plots(groups):
    groups = {"joint": groups["joint"], "ours": groups["ours"]}
    line = reports.accuracy_figure(groups, bounds=["joint"]).axes[0].lines[1]
    axes = reports.bytes_figure(groups, bounds=["joint"]).axes[0]
    point = axes.containers[0].lines[0]
    assert point.get_color() == line.get_color() == "#0072B2"
    assert point.get_marker() == line.get_marker() == "o"


def test_nothing_to_show_is_refused(groups):
    groups["ours"][0]["final_accuracy"] = None
    with pytest.raises(ValueError, match="no final accuracy"):
        reports.bytes_figure({"ours": groups["ours"]})


def test_results_need_neither_exemplars_nor_seeds_to_be_described():
    tasks = [{"seen_classes": 2, "accuracy": 0.9}]
    run = {"dataset": "digits", "tasks": tasks}
    assert reports.describe([run]) == "digits: 2 classes in 1 task"
