"""Backups whose record is not what a run writes, checksums notwithstanding."""

import re

import pytest

from keras_incremental.backups import BackupFolder
from keras_incremental.training.backup import Backup

REPORT = {
    "new_labels": [0], "epochs": 1, "exemplars": 0, "train_seconds": 0.0,
    "overhead_seconds": 0.0, "details": {},
}  # fmt: skip
TASK = {"data": {}, "report": REPORT, "published": False}
RECORD = {
    "settings": {"seed": 0},
    "tasks": [TASK],
    "progress": {"state": {"phase": 0, "epochs": 2}, "data": {}},
    "traces": 1,
    "structure": {"labels": [0]},
    "memory_labels": [0],
}


def opened(path, record):
    BackupFolder(path).commit(record, {})
    return Backup(path, {"seed": 0})


def test_a_record_of_a_run_is_read(tmp_path):
    assert opened(tmp_path, RECORD).finished_tasks == 1


@pytest.mark.parametrize(
    "change",
    [
        {"tasks": {}},
        {"tasks": [{**TASK, "report": {"epochs": 1}}]},
        {"tasks": [{**TASK, "report": {**REPORT, "more": 1}}]},
        {"tasks": [{**TASK, "data": 3}]},
        {"tasks": [7]},
        {"progress": {"state": {"phase": -1}}},
        {"progress": {"state": {"phase": "0"}}},
        {"progress": {"state": {"more": 0}}},
        {"progress": []},
        {"traces": "many"},
        {"settings": None},
        {"memory_labels": [0, 1]},
        {"memory_labels": None},
        {"structure": 7},
    ],
    ids=str,
)
def test_another_record_is_an_error_that_names_the_folder(tmp_path, change):
    message = re.escape(f"The newest backup in {tmp_path} is damaged")
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, {**RECORD, **change})
