"""`results.json` is whole, stable, valid JSON, and checked when read."""

import json
import os
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_incremental.reports import (
    read_results,
    with_checksum,
    write_results,
)
from keras_incremental.reports.results import CHECKSUM

NAN = float("nan")


def test_reading_gives_what_was_written(tmp_path, make_results):
    results = make_results()
    path = write_results(results, tmp_path / "new" / "out")
    assert path == tmp_path / "new" / "out" / "results.json"
    assert read_results(tmp_path / "new" / "out") == results
    assert os.listdir(path.parent) == ["results.json"]


def test_nan_and_infinity_become_null(tmp_path, make_results):
    results = make_results(seen=(10,), accuracies=(0.9,))
    results["accuracy_matrix"] = np.array([[0.5, np.nan], [0.25, 0.5]])
    results["flags"]["limit"] = np.float32("inf")
    path = write_results(results, tmp_path)

    def reject(constant):
        raise AssertionError(f"{constant} is not JSON")

    json.loads(path.read_text(), parse_constant=reject)
    read = read_results(tmp_path)
    assert read["accuracy_matrix"] == [[0.5, None], [0.25, 0.5]]
    assert read["average_incremental_accuracy_after_first"] is None
    assert read["flags"]["limit"] is None


def test_keys_keep_the_order_they_were_given_in(tmp_path, make_results):
    results = make_results() | {"zebra": 1, "aardvark": {"b": 1, "a": 2}}
    first = write_results(results, tmp_path / "a").read_bytes()
    read = read_results(tmp_path / "a")
    assert list(read) == list(results)
    assert write_results(read, tmp_path / "b").read_bytes() == first


def test_lists_of_numbers_take_one_line_each(tmp_path):
    results = {"class_order": [3, 1], "accuracy_matrix": [[1.0, None], [0, 1]]}
    text = write_results(results, tmp_path).read_text()
    assert text == (
        '{\n "class_order": [3, 1],\n "accuracy_matrix": [\n'
        "  [1.0, null],\n  [0, 1]\n ]\n}\n"
    )


def test_numpy_paths_and_other_alphabets_are_written(tmp_path):
    results = {
        "class_names": ("größe", "数"),
        "confusion_matrix": np.eye(2, dtype=np.int64),
        "flag": np.bool_(True),
        "folder": pathlib.PurePosixPath("a/b"),
        7: np.float32(0.5),
    }
    text = write_results(results, tmp_path).read_text(encoding="utf-8")
    assert json.loads(text) == {
        "class_names": ["größe", "数"],
        "confusion_matrix": [[1, 0], [0, 1]],
        "flag": True,
        "folder": "a/b",
        "7": 0.5,
    }
    assert "größe" in text


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=50, deadline=None)
@given(value=json_values)
def test_any_json_value_is_read_back_equal(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("out")
    path = write_results({"value": value}, folder)
    assert json.loads(path.read_text(encoding="utf-8")) == {"value": value}


def test_value_json_cannot_hold_is_an_error_that_names_its_key(tmp_path):
    write_results({"seed": 0}, tmp_path)
    with pytest.raises(TypeError, match=r"results\['flags'\]\['f'\]\[1\]"):
        write_results({"flags": {"f": [1, object()]}}, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == {"seed": 0}


def test_a_folder_without_results_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(FileNotFoundError, match=f"{folder}' .*no results"):
            read_results(folder)


@pytest.mark.parametrize("text", ["", "{", '{"seed": 0'])
def test_broken_json_is_an_error_that_names_the_file(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match=r"results\.json' is not valid JSON"):
        read_results(tmp_path)


def test_bytes_that_are_no_text_are_an_error_that_names_the_file(tmp_path):
    (tmp_path / "results.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"results\.json' is not valid JSON"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    "key",
    ["method", "tasks", "accuracy_matrix", "final_accuracy", "forgetting"],
)
def test_missing_key_is_an_error_that_names_file_and_key(
    tmp_path, make_results, key
):
    results = make_results()
    del results[key]
    write_results(results, tmp_path)
    with pytest.raises(ValueError, match=rf"results\.json' .*'{key}'"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("tasks", "match"),
    [
        ([], "'seen_classes'"),
        ({"a": 1}, "TypeError"),
        ([1], "TypeError"),
        ([{"seen_classes": 2}], "'accuracy'"),
    ],
)
def test_tasks_without_accuracies_are_an_error(
    tmp_path, make_results, tasks, match
):
    write_results(make_results() | {"tasks": tasks}, tmp_path)
    with pytest.raises(ValueError, match=rf"results\.json' .*{match}"):
        read_results(tmp_path)


def test_another_json_value_is_an_error(tmp_path):
    (tmp_path / "results.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"results\.json' .*TypeError"):
        read_results(tmp_path)


def test_damage_is_an_error_that_names_the_file(
    damaged, tmp_path, make_results
):
    results = with_checksum(make_results())
    path = write_results(results, tmp_path)
    whole, errors = read_results(tmp_path), 0
    assert whole == results
    for copy in damaged(path.read_bytes()):
        path.write_bytes(copy)
        try:
            read = read_results(tmp_path)
        except ValueError as error:
            errors += 1
            assert str(path) in str(error)
        else:
            # At most the checksum's own name has changed.
            assert len(read) == len(whole)
            content = whole.keys() - {CHECKSUM}
            assert all(read[key] == whole[key] for key in content)
    assert errors > 150


def test_results_of_before_there_was_a_checksum_are_read(
    tmp_path, make_results
):
    results = make_results()
    write_results(results, tmp_path)
    assert read_results(tmp_path) == results


def test_the_checksum_is_of_what_is_written(make_results):
    results = make_results() | {"matrix": np.array([[1.5, np.nan]])}
    plain = make_results() | {"matrix": [[1.5, None]]}
    assert with_checksum(results)[CHECKSUM] == with_checksum(plain)[CHECKSUM]
    again = with_checksum(with_checksum(plain))
    assert again == with_checksum(plain)
    other = plain | {"seed": 17}
    assert with_checksum(other)[CHECKSUM] != again[CHECKSUM]


def test_damage_to_the_name_of_the_checksum_is_noticed(tmp_path, make_results):
    path = write_results(with_checksum(make_results()), tmp_path)
    path.write_text(path.read_text().replace(CHECKSUM, CHECKSUM[:-1] + "r"))
    with pytest.raises(ValueError, match="is damaged"):
        read_results(tmp_path)
