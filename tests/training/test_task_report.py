"""The report of a task: its figures, and the table a person reads."""

import dataclasses

import pytest

from keras_incremental.training import TaskReport


def report_of(**changes):
    report = TaskReport(
        new_labels=[7, 9],
        epochs=3,
        exemplars=20,
        train_seconds=1.25,
        overhead_seconds=0.5,
        details={},
        new_names=["seven", "nine"],
        images_by_class={"seven": 50, "nine": 8},
        validation_images_by_class={
            "one": 10,
            "two": 30,
            "seven": 10,
            "nine": 40,
        },
        accuracy_by_class_before={"one": 1.0, "two": 0.8},
        accuracy_by_class={"one": 0.9, "two": 0.5, "seven": 0.6, "nine": 0.1},
    )
    return dataclasses.replace(report, **changes)


def test_accuracies_are_over_images_not_over_classes():
    report = report_of()
    assert report.old_accuracy_before == pytest.approx((10 + 24) / 40)
    assert report.old_accuracy == pytest.approx((9 + 15) / 40)
    assert report.new_accuracy == pytest.approx((6 + 4) / 50)
    assert report.accuracy == pytest.approx((9 + 15 + 6 + 4) / 90)


def test_what_is_not_known_is_none():
    report = report_of(
        validation_images_by_class=None,
        accuracy_by_class_before=None,
        accuracy_by_class=None,
    )
    assert report.old_accuracy_before is None
    assert report.old_accuracy is None
    assert report.new_accuracy is report.accuracy is None
    assert "-" in str(report)


def test_of_a_first_task_there_are_no_old_classes():
    report = report_of(
        accuracy_by_class_before={},
        accuracy_by_class={"seven": 0.5, "nine": 1.0},
        validation_images_by_class={"seven": 10, "nine": 10},
    )
    assert report.old_accuracy is report.old_accuracy_before is None
    assert report.new_accuracy == 0.75


def test_the_table_has_new_classes_and_then_those_that_lost_most():
    lines = str(report_of()).splitlines()
    assert [line.split()[0] for line in lines[:7]] == [
        "class",
        "seven",
        "nine",
        "two",
        "one",
        "old",
        "new",
    ]
    assert lines[1].split() == ["seven", "50", "-", "60.0%"]
    assert lines[3].split() == ["two", "0", "80.0%", "50.0%"]
    assert lines[5].split() == ["old", "85.0%", "60.0%"]
    assert lines[6].split() == ["new", "58", "20.0%"]


def test_the_table_of_many_classes_is_short():
    names = [f"class {index}" for index in range(1000)]
    accuracy = dict.fromkeys(names, 0.5)
    report = report_of(
        validation_images_by_class=dict.fromkeys(names, 10),
        accuracy_by_class_before=accuracy,
        accuracy_by_class=accuracy | {"seven": 1.0, "nine": 1.0},
    )
    lines = str(report).splitlines()
    assert len(lines) < 30
    assert any("982 more" in line for line in lines)


def test_it_says_what_was_published_or_why_not():
    assert "Published as serving/7." in str(report_of(published="serving/7"))
    refused = report_of(not_published="too bad.", notes=["Few images."])
    assert "Not published: too bad." in str(refused)
    assert "Few images." in str(refused)


def test_it_is_json_and_comes_back():
    report = report_of(published="serving/7")
    assert TaskReport(**dataclasses.asdict(report)) == report
