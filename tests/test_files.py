"""`files`: at every moment a whole file can be found."""

import os
import pathlib
import stat
import zipfile

import pytest
import tensorflow as tf

from keras_incremental import files


def test_file_holds_what_the_body_wrote(tmp_path):
    with files.atomic_write(tmp_path / "a.bin") as file:
        file.write(b"\x00\x01")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\x01"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_text_is_written_as_utf_8(tmp_path):
    with files.atomic_write(str(tmp_path / "a.txt"), "w") as file:
        file.write("größe")
    assert (tmp_path / "a.txt").read_bytes() == "größe".encode()


def test_readers_see_the_old_file_until_the_body_has_finished(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with files.atomic_write(path, "w") as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_old_file_survives_an_error_and_nothing_else_is_left(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), files.atomic_write(path, "w") as file:
        file.write("half")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_no_file_appears_if_the_first_write_fails(tmp_path):
    with pytest.raises(OSError), files.atomic_write(tmp_path / "a") as file:
        file.write(b"half")
        raise OSError
    assert os.listdir(tmp_path) == []


def test_missing_parent_folders_are_made(tmp_path):
    with files.atomic_write(tmp_path / "b" / "c" / "a.txt", "w") as file:
        file.write("x")
    assert (tmp_path / "b" / "c" / "a.txt").read_text() == "x"


def test_new_file_obeys_the_umask_and_an_old_one_keeps_its_mode(tmp_path):
    path = tmp_path / "a.txt"
    before = os.umask(0o027)
    try:
        with files.atomic_write(path):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o600)
    with files.atomic_write(path):
        pass
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with files.atomic_write(tmp_path / "link", "w") as file:
        file.write("x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "x"


def test_writing_a_file_over_a_folder_is_an_error_before_the_body(tmp_path):
    ran = []
    with (
        pytest.raises(IsADirectoryError, match="is a folder"),
        files.atomic_write(tmp_path),
    ):
        ran.append(True)
    assert not ran


class Killed(BaseException):
    """Stands for the end of the process at one call."""


@pytest.mark.parametrize("call", ["fsync", "replace", "unlink"])
def test_the_old_file_is_whole_if_the_process_is_killed_before_it_is_replaced(
    tmp_path, monkeypatch, call
):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def killed(*args, **kwargs):
        raise Killed

    module = files.os if call == "fsync" else pathlib.Path
    with monkeypatch.context() as patch:
        patch.setattr(module, call, killed)
        with pytest.raises(Killed), files.atomic_write(path, "w") as file:
            file.write("new")
            if call == "unlink":
                raise Killed
    assert path.read_text() == "old"


def test_content_is_flushed_before_the_rename_and_the_folder_after_it(
    tmp_path, monkeypatch
):
    """Else a power failure after the rename leaves an empty file."""
    path, events = tmp_path / "a.bin", []
    fsync, replace = os.fsync, pathlib.Path.replace

    def noted_fsync(descriptor):
        events.append(("fsync", os.fstat(descriptor).st_ino))
        assert os.fstat(descriptor).st_size >= 4
        fsync(descriptor)

    def noted_replace(self, target):
        events.append(("replace", os.stat(self).st_ino))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(pathlib.Path, "replace", noted_replace)
    with files.atomic_write(path) as file:
        file.write(b"1234")
    new, folder = os.stat(path).st_ino, os.stat(tmp_path).st_ino
    assert events == [("fsync", new), ("replace", new), ("fsync", folder)]


def test_a_tree_is_flushed_with_all_that_is_in_it(tmp_path, monkeypatch):
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "a.txt").write_text("a")
    flushed, fsync = set(), os.fsync

    def noted(descriptor):
        flushed.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    files.sync_tree(tmp_path)
    paths = [tmp_path, *tmp_path.rglob("*")]
    assert flushed == {path.stat().st_ino for path in paths}


def test_a_file_that_is_replaced_may_be_written_by_its_path(tmp_path):
    with files.replacing(tmp_path / "model.keras") as temporary:
        assert temporary.suffix == ".keras"
        temporary.write_bytes(b"model")
    assert (tmp_path / "model.keras").read_bytes() == b"model"
    assert os.listdir(tmp_path) == ["model.keras"]


def write_archive(path, content=b"what was saved"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", content)
        archive.writestr("b.txt", content)


def test_all_of_an_archive_is_compared_with_its_checksums(tmp_path):
    path = tmp_path / "a.zip"
    write_archive(path)
    with files.checked_archive(path) as local:
        assert local == path
    whole = path.read_bytes()
    for start in (whole.index(b"what"), whole.rindex(b"what")):
        path.write_bytes(whole[:start] + b"W" + whole[start + 1 :])
        with (
            pytest.raises(zipfile.BadZipFile, match=r"'[ab]\.txt' is not what"),
            files.checked_archive(path),
        ):
            pass


def test_a_remote_archive_is_read_from_a_local_copy(tmp_path, bucket):
    write_archive(tmp_path / "a.zip")
    path = files.as_path(f"{bucket}/a.zip")
    with files.replacing(path) as temporary:
        write_archive(temporary)
    with files.checked_archive(path) as local:
        assert zipfile.ZipFile(local).namelist() == ["a.txt", "b.txt"]
    assert not local.exists()


def test_a_remote_file_is_replaced_as_a_whole(bucket):
    path = files.as_path(f"{bucket}/deeper/replaced.txt")
    for text in ("longer than the next", "größe"):
        with files.atomic_write(path, "w") as file:
            file.write(text)
        assert path.read_bytes() == text.encode()
    with pytest.raises(RuntimeError), files.atomic_write(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_text() == "größe"
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_an_upload_that_fails_leaves_the_old_remote_file(bucket, monkeypatch):
    path = files.as_path(f"{bucket}/a.txt")
    with files.atomic_write(path, "w") as file:
        file.write("old")

    def gone(*args, **kwargs):
        raise tf.errors.UnavailableError(None, None, "gone")

    for call in ("copy", "rename"):
        with monkeypatch.context() as patch:
            patch.setattr(tf.io.gfile, call, gone)
            with (
                pytest.raises(tf.errors.UnavailableError, match="gone"),
                files.atomic_write(path, "w") as file,
            ):
                file.write("new")
    assert path.read_text() == "old"
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_a_missing_remote_file_is_not_found(bucket):
    path = files.as_path(f"{bucket}/none")
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        path.read_bytes()


def test_paths_are_local_or_remote():
    assert files.is_remote("gs://bucket/a") and files.is_remote("s3://bucket/a")
    assert not files.is_remote("bucket/a") and not files.is_remote("C:/bucket")
    assert isinstance(files.as_path("bucket/a"), pathlib.Path)
    path = files.as_path("gs://bucket/a/")
    assert files.as_path(path) == path and str(path) == "gs://bucket/a"


@pytest.mark.parametrize("path", ["foo://bar", "ram://bar/a", "hdfs://bar"])
def test_a_scheme_that_is_not_opened_is_refused(path):
    with pytest.raises(ValueError, match=r"nor one that etils\.epath opens"):
        files.as_path(path)


def test_a_remote_path_that_pathlib_has_shortened_is_refused():
    with pytest.raises(ValueError, match=r"'gs:/bucket/a'.*as a string"):
        files.as_path(pathlib.Path("gs://bucket/a"))
