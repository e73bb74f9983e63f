"""The tour notebook runs from top to bottom and shows what it promises."""

import os
import pathlib
import re

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOK = ROOT / "colab" / "keras_incremental_tour.ipynb"


def read():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def executed():
    """The notebook after all cells ran, in the repository's folder."""
    notebook = read()
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    nbclient.NotebookClient(
        notebook,
        timeout=500,
        kernel_name="python3",
        resources={"metadata": {"path": str(ROOT)}},
    ).execute(env={**os.environ, "PYTHONPATH": path})
    return notebook


def outputs(notebook):
    for cell in notebook.cells:
        yield from cell.get("outputs", [])


def printed(notebook):
    return "".join(
        output["text"]
        for output in outputs(notebook)
        if output["output_type"] == "stream" and output["name"] == "stdout"
    )


def test_notebook_is_valid_and_stored_without_output():
    notebook = read()
    nbformat.validate(notebook)
    assert not list(outputs(notebook))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count is None for cell in code)


@pytest.mark.slow
def test_final_accuracy_is_above_nine_in_ten(executed):
    (final,) = re.findall(r"final accuracy: ([\d.]+)", printed(executed))
    assert float(final) > 0.9


@pytest.mark.slow
def test_one_line_is_printed_for_each_task(executed):
    lines = re.findall(
        r"task (\d): (\d+) classes, (\d+) exemplars", printed(executed)
    )
    assert [tuple(map(int, line)) for line in lines] == [
        (task, 2 * task + 2, 100) for task in range(5)
    ]


@pytest.mark.slow
def test_curve_and_confusion_matrix_are_shown(executed):
    images = [
        output["data"]["image/png"]
        for output in outputs(executed)
        if "image/png" in output.get("data", {})
    ]
    assert len(images) == 2


@pytest.mark.slow
def test_digits_are_classified_by_name(executed):
    pairs = re.findall(r"(\w+) was classified as (\w+)", printed(executed))
    assert len(pairs) == 8
    assert sum(true == answer for true, answer in pairs) >= 6
