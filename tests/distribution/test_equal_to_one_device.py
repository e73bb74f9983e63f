"""Whole scenarios on two devices and in two workers, against one device."""

import dataclasses
import json
import pathlib

import keras
import numpy as np
import pytest

import keras_incremental as ki

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2700)]

EXACT = [
    "eeil",
    "synchronized",
    "joint",
    "partial_sharing",
]
MIXED = ["mixed_float16"]  # rounding decides close calls
ALL = [*EXACT, "batch_norm", *MIXED]
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@dataclasses.dataclass
class Results:
    """What one process has written."""

    folder: pathlib.Path

    def weights(self, run):
        with np.load(self.folder / f"{run}.npz") as arrays:
            return [arrays[k] for k in arrays.files if k != "exemplars"]

    def exemplars(self, run):
        with np.load(self.folder / f"{run}.npz") as arrays:
            return arrays["exemplars"]

    def figures(self, run):
        return json.loads((self.folder / f"{run}.json").read_text())


@pytest.fixture(scope="module")
def results(tmp_path_factory, one_process, two_workers):
    home = tmp_path_factory.mktemp("runs")
    runs = "--runs=" + ",".join([*EXACT, *MIXED])
    with one_process(home, "one_device,two_devices", runs) as group:
        group.succeed()
    runs = "--runs=" + ",".join(ALL)
    with two_workers(home / "workers", runs) as group:
        group.succeed()
    return {
        "one device": Results(home / "one_device"),
        "two devices": Results(home / "two_devices"),
        "worker 0": Results(home / "workers" / "0"),
        "worker 1": Results(home / "workers" / "1"),
    }


many = pytest.mark.parametrize(
    "many", ["two devices", "worker 0", "worker 1"], ids=str
)


def assert_close(found, expected):
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, **TOLERANCE),
        found,
        expected,
    )


@many
@pytest.mark.parametrize("run", EXACT)
def test_weights_equal_those_of_one_device(results, run, many):
    assert_close(results[many].weights(run), results["one device"].weights(run))


@many
@pytest.mark.parametrize("run", EXACT)
def test_the_same_exemplars_are_chosen(results, run, many):
    np.testing.assert_array_equal(
        results[many].exemplars(run), results["one device"].exemplars(run)
    )


@many
@pytest.mark.parametrize("run", EXACT)
@pytest.mark.parametrize("part", ["history", "evaluated", "predicted"])
def test_figures_equal_those_of_one_device(results, run, many, part):
    assert_close(
        results[many].figures(run)[part],
        results["one device"].figures(run)[part],
    )


@many
@pytest.mark.parametrize("run", MIXED)
def test_mixed_precision_learns_the_same_to_its_precision(results, run, many):
    found, expected = (
        results[name].figures(run)["history"] for name in (many, "one device")
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one["loss"], other["loss"], rtol=0.01)
    found, expected = (
        np.concatenate([np.ravel(w) for w in results[name].weights(run)])
        for name in (many, "one device")
    )
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


@pytest.mark.parametrize("run", ALL)
def test_workers_end_with_the_same_weights_to_the_bit(results, run):
    first, second = (results[f"worker {index}"] for index in range(2))
    for one, other in zip(first.weights(run), second.weights(run), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(first.exemplars(run), second.exemplars(run))


@many
@pytest.mark.parametrize("run", EXACT)
@pytest.mark.parametrize("traces", ["traces", "test_traces"])
def test_nothing_is_traced_more_often(results, run, many, traces):
    assert (
        results[many].figures(run)[traces]
        <= results["one device"].figures(run)[traces]
    )


def test_the_first_worker_alone_is_the_chief_and_writes(results):
    chief, other = (results[f"worker {index}"] for index in range(2))
    assert chief.figures("eeil")["is_chief"]
    assert not other.figures("eeil")["is_chief"]
    assert sorted(p.name for p in (chief.folder / "serving").iterdir()) == [
        "1",
        "2",
        "3",
    ]
    assert any((chief.folder / "backup").iterdir())
    assert not (other.folder / "serving").exists()
    assert not (other.folder / "backup").exists()


@pytest.mark.parametrize("run", ["eeil", "partial_sharing"])
def test_what_the_chief_saves_opens_without_a_strategy(results, run):
    chief = results["worker 0"]
    model = keras.models.load_model(chief.folder / f"{run}.keras")
    assert isinstance(model, ki.IncrementalClassifier)
    np.testing.assert_allclose(
        model.predict(np.zeros((5, 8, 8, 1)), verbose=0),
        chief.figures(run)["predicted"],
        **TOLERANCE,
    )
