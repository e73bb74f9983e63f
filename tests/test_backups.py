"""Backups: the newest whole one counts, whatever happened to the files."""

import hashlib
import json

import numpy as np
import pytest

from keras_incremental.backups import BackupFolder
from keras_incremental.files import atomic_write

RANDOM = np.random.default_rng(0)


def commit(folder, epoch, extra=None):
    blobs = {
        "model": folder.put({"weights": np.full((50, 3), epoch, "float32")}),
        "memory": folder.put({"images": np.zeros((4, 8, 8, 1), "uint8")}),
    }
    folder.commit({"epoch": epoch, "extra": extra}, blobs)


@pytest.fixture(name="folder")
def _folder(tmp_path):
    folder = BackupFolder(tmp_path / "backup")
    folder.lock()
    for epoch in (1, 2, 3):
        commit(folder, epoch)
    return folder


def weights(folder):
    record, blobs = folder.read()
    arrays = folder.get(blobs["model"])
    assert (arrays["weights"] == record["epoch"]).all()
    return record["epoch"]


def test_the_newest_is_read_and_the_one_before_is_kept(folder):
    assert weights(folder) == 3
    states = sorted(path.name for path in folder.path.glob("state-*.json"))
    assert states == ["state-00000001.json", "state-00000002.json"]


def test_what_does_not_change_is_written_once(folder):
    assert len(list(folder.path.glob("*.npz"))) == 3  # two models, a memory


def test_an_empty_folder_holds_no_backup(tmp_path):
    assert BackupFolder(tmp_path / "new").read() is None


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "backup").write_text("")
    with pytest.raises(NotADirectoryError, match="backup"):
        BackupFolder(tmp_path / "backup")


def test_leftovers_of_a_kill_are_removed_and_never_read(folder):
    left = folder.path / f".state-00000009.json.{32 * 'a'}.tmp"
    left.mkdir()
    (left / "owner.lock").write_text("")
    (left / "state-00000009.json").write_text("{")
    (folder.path / ("0" * 64 + ".npz")).write_bytes(b"half")
    assert weights(folder) == 3
    commit(folder, 4)
    assert weights(folder) == 4
    names = {path.name for path in folder.path.iterdir()}
    assert not any(name.endswith(".tmp") for name in names)
    assert "0" * 64 + ".npz" not in names


def test_a_backup_that_another_process_has_made_stops_this_one(folder):
    other = BackupFolder(folder.path)  # as where nothing can be locked
    assert weights(other) == 3
    commit(other, 4)
    with pytest.raises(RuntimeError, match=r"3\.json was written by another"):
        commit(folder, 5)
    assert weights(other) == 4
    commit(other, 5)


@pytest.mark.parametrize("pattern", ["state-00000002.json", "*.npz"])
@pytest.mark.parametrize("kind", ["flip", "truncate"])
def test_damage_at_a_hundred_places_gives_the_backup_before(
    folder, pattern, kind
):
    paths = sorted(folder.path.glob(pattern))
    seen = set()
    for _ in range(100):
        path = paths[RANDOM.integers(len(paths))]
        whole = path.read_bytes()
        place = int(RANDOM.integers(len(whole)))
        damaged = bytearray(whole)
        if kind == "flip":
            damaged[place] ^= 1 << int(RANDOM.integers(8))
        else:
            del damaged[place:]
        path.write_bytes(bytes(damaged))
        try:
            seen.add(weights(folder))  # checks that weights and record agree
        except ValueError as error:
            seen.add("error")
            assert str(folder.path) in str(error)
        path.write_bytes(whole)
    assert seen <= {2, 3, "error"}
    assert 2 in seen


def test_another_value_in_the_newest_state_gives_the_backup_before(folder):
    path = folder.path / "state-00000002.json"
    text = path.read_text()
    path.write_text(text.replace('"epoch": 3', '"epoch": 7'))
    assert path.read_text() != text
    assert weights(folder) == 2


def test_a_damaged_blob_is_written_again(folder):
    path = next(folder.path.glob("*.npz"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    for epoch in (2, 3):
        commit(folder, epoch)
    assert weights(folder) == 3
    assert path.read_bytes() == whole


def test_no_whole_backup_is_an_error_that_names_the_files(folder):
    for path in folder.path.glob("state-*.json"):
        path.write_text("{}")
    with pytest.raises(ValueError, match=r"state-00000002\.json is damaged"):
        folder.read()


@pytest.mark.parametrize("fields", [{"record": {}}, {"b": {}, "more": 1}])
def test_other_fields_are_an_error_that_names_the_file(tmp_path, fields):
    folder = BackupFolder(tmp_path)
    with atomic_write(tmp_path / "state-00000000.json", "w") as file:
        text = json.dumps(fields, sort_keys=True)
        checksum = hashlib.sha256(text.encode()).hexdigest()
        json.dump({"sha256": checksum, **fields}, file)
    with pytest.raises(ValueError, match=r"00000\.json has the fields"):
        folder.read()


def test_arrays_of_objects_are_refused(folder):
    with pytest.raises(ValueError, match="allow_pickle"):
        folder.put({"weights": np.array([object()])})


def test_a_full_disk_leaves_the_backup_before(folder, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        commit(folder, 4)
    monkeypatch.undo()
    assert weights(folder) == 3


def test_backups_are_kept_elsewhere_as_well(bucket):
    folder = BackupFolder(f"{bucket}/run")
    assert folder.read() is None
    for epoch in (1, 2, 3):
        commit(folder, epoch)
    assert weights(BackupFolder(f"{bucket}/run/")) == 3
    states = sorted(path.name for path in folder.path.glob("state-*.json"))
    assert states == ["state-00000001.json", "state-00000002.json"]
    assert len([*folder.path.glob("*.npz")]) == 3  # two models, a memory
    newest = folder.path / states[-1]
    content = newest.read_text()
    with atomic_write(newest, "w") as file:
        file.write(content[:-9])
    assert weights(folder) == 2


def test_a_file_elsewhere_is_no_folder(bucket):
    with atomic_write(f"{bucket}/file") as file:
        file.write(b"x")
    with pytest.raises(NotADirectoryError, match=f"{bucket}/file"):
        BackupFolder(f"{bucket}/file")
