"""What a person sees who looks at an object: a few lines, no arrays."""

import numpy as np
import pytest

import keras_incremental as ki
from keras_incremental.cost import CostReport, EnergyConstants
from keras_incremental.cost.part_cost import PartCost
from keras_incremental.models import FitRequest
from keras_incremental.predictions import Predictions


@pytest.fixture(scope="module")
def scenario():
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (40, 4, 4, 1), "uint8")
    labels = np.tile(np.arange(8), 5)
    return ki.ClassIncrementalScenario.from_arrays(
        images, labels, images, labels, classes_per_task=8, class_order=range(8)
    )


def test_model_memory_and_callback_say_what_they_know(lend_tiny):
    model, memory = lend_tiny(), ki.ExemplarMemory(capacity=5)
    model.add_classes(range(8))
    assert repr(model) == (
        f"<IncrementalClassifier {model.name}: 8 classes: 0, 1, 2, 3, 4, 5, "
        "...>"
    )
    assert repr(model.classes) == (
        "<ClassIndex: 8 classes: 0, 1, 2, 3, 4, 5, ...>"
    )
    empty = "<ExemplarMemory: 0 exemplars of 0 classes, capacity=5, "
    assert repr(memory) == f"{empty}RawStorage()>"
    assert "per_class=3" in repr(ki.ExemplarMemory(per_class=3))
    step = ki.IncrementalCallback(memory, ki.WeightAligning(temperature=3.0))
    assert repr(step) == (
        "<IncrementalCallback: 0 tasks learned by "
        f"WeightAligning(temperature=3.0) with {empty}RawStorage()>>"
    )


def test_a_task_counts_its_images(scenario):
    assert repr(scenario[0]) == (
        "<Task 0: 8 new classes: 0, 1, 2, 3, 4, 5, ...; images: 40 to learn, "
        "40 to test, 40 of all classes>"
    )


def test_a_report_has_accuracies_in_one_line():
    report = ki.training.TaskReport(
        [7], 1, 0, 1.0, 0.1, {}, ["seven"], {"seven": 50},
        {"one": 10, "seven": 10}, {"one": 1.0}, {"one": 0.9, "seven": 0.6},
    )  # fmt: skip
    assert repr(report) == (
        "<TaskReport: new classes seven: 60.0%; old classes: 100.0% before, "
        "90.0% after; print it for a table>"
    )


def test_a_cost_report_has_its_totals():
    row = PartCost("network", 1234, 4936, 5678.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    report = CostReport((row,), None, None, None, 1, EnergyConstants(), False)
    assert repr(report) == (
        "<CostReport: 1,234 parameters, 5,678 MACs an image; print it for a "
        "table>"
    )


@pytest.mark.parametrize(
    "value",
    [
        Predictions(
            np.zeros(9, int), np.ones((9, 2)), np.ones((9, 2)), np.zeros(2)
        ),
        ki.closed_form.Sums.none(3).plus(
            np.ones((9, 3)), np.zeros(9, int), classes=1
        ),
        FitRequest(np.ones((9, 3)), np.ones(9), None, 1, 0, [], {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_arrays_are_not_printed(value):
    assert "array" not in repr(value) and "\n" not in repr(value)
    assert type(value).__name__ in repr(value)
