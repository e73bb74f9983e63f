"""`files`: at every moment a whole file or folder can be found."""

import os
import pathlib
import stat

import pytest

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
    with files.atomic_directory(tmp_path / "d" / "e" / "f"):
        pass
    assert (tmp_path / "b" / "c" / "a.txt").read_text() == "x"
    assert (tmp_path / "d" / "e" / "f").is_dir()


def test_new_file_obeys_the_umask_and_an_old_one_keeps_its_mode(tmp_path):
    path = tmp_path / "a.txt"
    before = os.umask(0o027)
    try:
        with files.atomic_write(path):
            pass
        with files.atomic_directory(tmp_path / "d"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750
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


@pytest.mark.parametrize("mode", ["a", "r", "r+b", "x"])
def test_modes_that_cannot_be_atomic_are_errors(tmp_path, mode):
    with (
        pytest.raises(ValueError, match=f"mode='{mode[0]}.*'wb'"),
        files.atomic_write(tmp_path / "a", mode),
    ):
        pass


def test_writing_a_file_over_a_folder_is_an_error_before_the_body(tmp_path):
    ran = []
    with (
        pytest.raises(IsADirectoryError, match="is a folder"),
        files.atomic_write(tmp_path),
    ):
        ran.append(True)
    assert not ran


def write_folder(path, text):
    with files.atomic_directory(path) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text(text)


def read_folder(path):
    return (pathlib.Path(path) / "sub" / "a.txt").read_text()


def test_folder_holds_what_the_body_wrote(tmp_path):
    write_folder(tmp_path / "memory", "x")
    assert read_folder(tmp_path / "memory") == "x"
    assert os.listdir(tmp_path) == ["memory"]


def test_older_folder_is_replaced_as_a_whole(tmp_path):
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "stale.txt").write_text("stale")
    write_folder(f"{tmp_path}/memory/", "new")
    assert read_folder(tmp_path / "memory") == "new"
    assert os.listdir(tmp_path / "memory") == ["sub"]
    assert os.listdir(tmp_path) == ["memory"]


def test_older_folder_is_untouched_while_the_body_runs(tmp_path):
    write_folder(tmp_path / "memory", "old")
    with files.atomic_directory(tmp_path / "memory") as folder:
        assert os.listdir(folder) == []
        assert folder.parent == tmp_path
        assert read_folder(tmp_path / "memory") == "old"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_older_folder_survives_an_error_and_nothing_is_left(tmp_path, error):
    write_folder(tmp_path / "memory", "old")
    with (
        pytest.raises(error),
        files.atomic_directory(tmp_path / "memory") as folder,
    ):
        (folder / "half.txt").write_text("half")
        raise error
    assert read_folder(tmp_path / "memory") == "old"
    assert os.listdir(tmp_path) == ["memory"]


class Killed(BaseException):
    """Stands for the end of the process at one call."""


@pytest.mark.parametrize("stale_old", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_a_whole_folder_is_found_wherever_the_process_is_killed(
    tmp_path, monkeypatch, first, stale_old
):
    """Stops at each rename or half-way a removal in turn; no clean-up."""
    survived = False
    for calls_left in range(20):
        path = tmp_path / str(calls_left) / "memory"
        old = path.with_name("memory.old")
        if not first:
            write_folder(path, "old")
            if stale_old:
                write_folder(old, "older")
        if killed_after(calls_left, path, monkeypatch):
            found = files.recover_directory(path)
            if first and not found.exists():
                continue  # Nothing was there before either.
            assert read_folder(found) in ("old", "new")
            assert not old.exists() or read_folder(old) in ("older", "old")
        else:
            survived = True
            break
    assert survived
    assert calls_left >= (1 if first else 3)


def killed_after(calls_left, path, monkeypatch):
    """Whether writing "new" to `path` is killed at the call given."""
    left = iter(range(calls_left))
    dead = []
    rmtree = files.shutil.rmtree

    def mortal(function):
        def call(*args, **kwargs):
            if not dead and next(left, None) is None:
                dead.append(True)
                if function is rmtree:
                    rmtree(args[0] / "sub")
            if dead:
                raise Killed
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "rename", mortal(pathlib.Path.rename))
        patch.setattr(files.shutil, "rmtree", mortal(rmtree))
        try:
            write_folder(path, "new")
        except Killed:
            return True
    return False


def test_failing_rename_puts_the_older_folder_back(tmp_path, monkeypatch):
    path = tmp_path / "memory"
    write_folder(path, "old")
    rename = pathlib.Path.rename

    def failing(self, target):
        if self.name.endswith(".tmp") and target == path:
            raise OSError("no space")
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", failing)
    with pytest.raises(OSError, match="no space"):
        write_folder(path, "new")
    assert read_folder(path) == "old"
    assert os.listdir(tmp_path) == ["memory"]


def test_recovery_renames_the_old_folder_only_if_there_is_no_other(tmp_path):
    write_folder(tmp_path / "memory.old", "old")
    assert files.recover_directory(tmp_path / "memory") == tmp_path / "memory"
    assert read_folder(tmp_path / "memory") == "old"
    write_folder(tmp_path / "memory.old", "older")
    files.recover_directory(str(tmp_path / "memory"))
    assert read_folder(tmp_path / "memory") == "old"


def test_recovery_of_a_missing_folder_returns_its_path(tmp_path):
    path = files.recover_directory(f"{tmp_path}/none/")
    assert path == tmp_path / "none"
    assert not path.exists()


def test_replacing_a_file_by_a_folder_is_an_error(tmp_path):
    (tmp_path / "memory").write_text("mine")
    with (
        pytest.raises(NotADirectoryError, match="memory' is a file"),
        files.atomic_directory(tmp_path / "memory"),
    ):
        pass
    assert (tmp_path / "memory").read_text() == "mine"


def test_replacing_a_mount_point_is_an_error():
    with (
        pytest.raises(OSError, match="mount point"),
        files.atomic_directory("/"),
    ):
        pass


def test_a_remote_file_is_replaced_as_a_whole():
    path = "ram://files/replaced.txt"
    for text in ("longer than the next", "größe"):
        with files.atomic_write(path, "w") as file:
            file.write(text)
        assert files.as_path(path).read_bytes() == text.encode()
    with pytest.raises(RuntimeError), files.atomic_write(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert files.as_path(path).read_text() == "größe"


def test_a_remote_folder_lists_its_own_names_alone():
    folder = files.as_path("ram://files/listed/")
    assert folder.glob("*") == []
    for name in ("a.txt", "b.npz", "deeper/c.txt"):
        (folder / name).write_bytes(b"x")
    assert {str(path) for path in folder.glob("*.txt")} == {f"{folder}/a.txt"}
    names = {path.name for path in folder.glob("*")}
    assert names == {"a.txt", "b.npz", "deeper"}
    assert (folder / "deeper").is_dir() and not (folder / "a.txt").is_dir()
    assert (folder / "a.txt").is_file() and not (folder / "deeper").is_file()


def test_parts_of_a_remote_path_are_those_of_a_local_one():
    path = files.as_path("ram://home/memory/state-1.json")
    assert (path.name, path.stem) == ("state-1.json", "state-1")
    assert path.parent == files.as_path("ram://home/memory/")
    assert files.as_path(path) == path
    assert os.fspath(path) == "ram://home/memory/state-1.json"


def test_a_remote_file_is_copied_both_ways(tmp_path):
    (tmp_path / "a").write_bytes(b"\x00\x01")
    path = files.as_path("ram://files/copied")
    path.copy_from(tmp_path / "a")
    path.copy_to(tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"\x00\x01"


def test_errors_elsewhere_are_those_of_python():
    path = files.as_path("ram://files/none")
    with pytest.raises(FileNotFoundError, match="ram://files/none"):
        path.read_bytes()
    with pytest.raises(FileNotFoundError, match="ram://files/none"):
        path.unlink()
    path.unlink(missing_ok=True)
    with pytest.raises(OSError, match=r"scheme 'foo' not implemented"):
        files.as_path("foo://bar").exists()


def test_a_remote_folder_cannot_be_replaced_at_once():
    with (
        pytest.raises(ValueError, match=r"'ram://a/b' is not a local path"),
        files.atomic_directory("ram://a/b"),
    ):
        pass


def test_a_remote_path_that_pathlib_has_shortened_is_refused():
    with pytest.raises(ValueError, match="'gs:/bucket/a' was a remote path"):
        files.as_path(pathlib.Path("gs://bucket/a"))
