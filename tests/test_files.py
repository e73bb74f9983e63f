"""`files`: at every moment a whole file can be found."""

import errno
import gc
import os
import pathlib
import signal
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


def in_a_process(body, end=lambda: os.kill(os.getpid(), signal.SIGKILL)):
    """Runs a body in a forked process, which then ends by `end`."""
    child = os.fork()
    if not child:
        try:
            body()
            end()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def write_and_be_killed(path):
    with files.atomic_write(path, "w") as file:
        file.write("half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_has_left_goes_with_the_next_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    in_a_process(lambda: write_and_be_killed(path))
    assert path.read_text() == "old" and len(os.listdir(tmp_path)) == 2
    with files.atomic_write(tmp_path / "another.txt"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "another.txt"]


def test_what_a_living_process_has_is_left_alone(tmp_path):
    """However old it is; of this process, and of another."""
    gc.freeze()  # leaves few objects to search
    mine = files.OwnedFolder(tmp_path)
    (mine.path / "a.txt").write_text("mine")
    os.utime(mine.path, (0, 0))

    def write_beside():
        with files.atomic_write(tmp_path / "b.txt"):
            pass

    write_beside()
    in_a_process(write_beside)
    assert (mine.path / "a.txt").read_text() == "mine"
    del mine
    gc.collect()
    assert os.listdir(tmp_path) == ["b.txt"]


def test_a_forked_process_deletes_nothing_of_its_parent(tmp_path):
    mine = files.OwnedFolder(tmp_path)
    in_a_process(mine.close, end=gc.collect)
    assert mine.path.is_dir()


def test_a_folder_whose_owner_was_killed_at_its_start_goes(tmp_path):
    (tmp_path / f".a.{32 * '0'}.tmp").mkdir()
    (tmp_path / f".a.{32 * '1'}.tmp").mkdir()
    (tmp_path / f".a.{32 * '1'}.tmp" / "of someone else").touch()
    files.OwnedFolder(tmp_path).close()
    assert os.listdir(tmp_path) == [f".a.{32 * '1'}.tmp"]


def test_nothing_is_deleted_where_a_file_system_has_no_locks(
    tmp_path, monkeypatch
):
    in_a_process(lambda: write_and_be_killed(tmp_path / "a.txt"))

    def no_locks(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    with files.atomic_write(tmp_path / "b.txt"):
        pass
    assert len(os.listdir(tmp_path)) == 2 and (tmp_path / "b.txt").exists()


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EACCES, "may write"),
        (errno.EROFS, "may write"),
    ],
)
@pytest.mark.parametrize("call", ["mkdir", "fsync", "replace"])
def test_an_error_of_the_disk_names_the_path_and_what_to_do(
    tmp_path, monkeypatch, number, advice, call
):
    path = tmp_path / "new" / "a.txt"

    def fails(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fails)
    expected = rf"'{path}' cannot be written: {os.strerror(number)}.*{advice}"
    with (
        pytest.raises(OSError, match=expected) as error,
        files.atomic_write(path) as file,
    ):
        file.write(b"new")
    assert error.value.errno == number and not path.exists()


def test_an_error_of_the_disk_is_found_behind_another(tmp_path):
    """`zipfile` cannot close an archive that it could not write."""

    def fails():
        try:
            raise OSError(errno.ENOSPC, "full")
        finally:
            raise ValueError("an entry is open")

    with (
        pytest.raises(OSError, match=r"a\.txt' cannot be written"),
        files.atomic_write(tmp_path / "a.txt"),
    ):
        fails()


def test_an_error_in_another_folder_is_left_as_it_is(tmp_path):
    with (
        pytest.raises(PermissionError, match="elsewhere"),
        files.atomic_write(tmp_path / "a.txt"),
    ):
        raise PermissionError(errno.EACCES, "not readable", "/elsewhere")


def test_a_folder_that_cannot_be_written_is_known_before(tmp_path, monkeypatch):
    files.check_writable(tmp_path / "not" / "there")
    assert os.listdir(tmp_path) == []

    def fails(*args):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), args[0])

    monkeypatch.setattr(os, "mkdir", fails)
    expected = "not/there' cannot be written: Read-only"
    with pytest.raises(OSError, match=expected):
        files.check_writable(tmp_path / "not" / "there")


def test_new_folders_are_on_disk_with_their_parents(tmp_path, monkeypatch):
    flushed, fsync = [], os.fsync

    def noted(descriptor):
        flushed.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    files.make_folder(tmp_path / "a" / "b")
    assert flushed == [tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino]
    files.make_folder(tmp_path / "a" / "b")
    assert len(flushed) == 2


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
