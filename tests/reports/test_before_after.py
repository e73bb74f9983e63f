"""What a task did to each class, as one picture."""

import types

import matplotlib
import numpy as np
import pytest

from keras_incremental import reports


def make_report(before, after, images=10):
    """A report of a task, with the accuracies of some classes."""
    return types.SimpleNamespace(
        accuracy_by_class_before=before or None,
        accuracy_by_class=after or None,
        validation_images_by_class=dict.fromkeys(after, images),
        old_accuracy_before=np.mean([*before.values()]) if before else None,
        old_accuracy=np.mean([after[k] for k in before]) if before else None,
        new_accuracy=0.25,
    )


BEFORE = {"cat": 0.75, "dog": 0.5, "fox": 1.0}
AFTER = {"cat": 0.75, "dog": 0.625, "fox": 0.5, "$owl": 0.25}


@pytest.fixture
def axes():
    return reports.before_after_figure(make_report(BEFORE, AFTER)).axes[0]


def names(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_classes_that_lost_most_come_first_and_new_ones_last(axes):
    expected = ["fox (10)", "cat (10)", "dog (10)", r"\$owl (10)"]
    assert names(axes) == expected
    low, high = axes.get_ylim()
    assert low > 3 and high < 0  # the first row is on top


def test_points_are_the_accuracies_before_and_after(axes):
    points = {
        (line.get_xdata()[0], line.get_ydata()[0], line.get_color())
        for line in axes.lines
        if len(line.get_xdata()) == 1
    }
    before, lost, kept, new = "0.55", "#D55E00", "#0072B2", "#009E73"
    assert points == {
        (1.0, 0, before),
        (0.5, 0, lost),
        (0.75, 1, before),
        (0.75, 1, kept),
        (0.5, 2, before),
        (0.625, 2, kept),
        (0.25, 3, new),
    }
    assert [text.get_text() for text in axes.texts] == [
        "100 → 50%",
        "75 → 75%",
        "50 → 62%",
        "25%",
    ]


def test_title_has_old_and_new_accuracy(axes):
    figures = "old classes 75.0% → 62.5%, new classes 25.0%"
    assert axes.get_title() == figures
    report = make_report(BEFORE, AFTER)
    axes = reports.before_after_figure(report, "task 2").axes[0]
    assert axes.get_title() == f"task 2\n{figures}"


def test_the_first_task_has_new_classes_alone():
    report = make_report({}, {"cat": 0.25})
    axes = reports.before_after_figure(report).axes[0]
    assert names(axes) == ["cat (10)"]
    assert axes.get_title() == "new classes 25.0%"


def test_of_many_classes_those_are_shown_that_changed_the_most():
    before = {f"old {i}": 0.5 for i in range(50)}
    after = {f"old {i}": i / 100 for i in range(50)} | {"old 40": 1.0}
    after |= {f"new {i}": 1 - i / 100 for i in range(50)}
    picture = reports.before_after_figure(make_report(before, after))
    axes = picture.axes[0]
    shown = [name.split(" (")[0] for name in names(axes)]
    assert shown[:15] == [*(f"old {i}" for i in range(14)), "old 40"]
    assert shown[15:] == [f"new {i}" for i in range(49, 34, -1)]
    assert axes.get_xlabel().endswith("; 30 of 100 classes")


def test_no_text_is_outside_of_the_picture_or_on_another():
    before = {"n" * 40: 1.0, "m": 0.0}
    report = make_report(before, {**before, "o": 1.0}, images=12345)
    picture = reports.before_after_figure(report, "a title")
    picture.draw_without_rendering()
    boxes = [
        text.get_window_extent()
        for text in picture.findobj(matplotlib.text.Text)
        if text.get_text() and text.get_visible()
    ]
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= picture.bbox.x1 and box.y1 <= picture.bbox.y1
    overlaps = [
        (first, second)
        for index, first in enumerate(boxes)
        for second in boxes[:index]
        if first.overlaps(second)
    ]
    assert not overlaps


def test_a_report_without_accuracies_is_refused():
    with pytest.raises(ValueError, match="had no validation_data"):
        reports.before_after_figure(make_report({}, {}))


def test_the_file_is_a_picture(tmp_path):
    path = reports.plot_before_after(
        make_report(BEFORE, AFTER), tmp_path / "a.png"
    )
    assert path.read_bytes().startswith(b"\x89PNG")
