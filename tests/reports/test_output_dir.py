"""An output folder is claimed once."""

import os
import tempfile

import pytest

from keras_incremental.reports import claim_output_dir


def test_folder_is_made_with_its_parents(tmp_path):
    assert claim_output_dir(f"{tmp_path}/a/b") == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()


def test_nothing_is_left_in_a_claimed_folder(tmp_path):
    claim_output_dir(tmp_path)
    claim_output_dir(tmp_path)
    assert os.listdir(tmp_path) == []


def test_files_of_nobodys_run_do_not_matter(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    claim_output_dir(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["results.json", "accuracy.png", "before_after.png", "model.keras"]
)
def test_file_of_another_run_is_an_error_that_names_it(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(FileExistsError, match=f"{name} .*--output_dir"):
        claim_output_dir(tmp_path)


def test_folders_of_another_run_are_an_error_that_names_them(tmp_path):
    (tmp_path / "memory").mkdir()
    (tmp_path / "tensorboard").mkdir()
    with pytest.raises(FileExistsError, match="memory, tensorboard"):
        claim_output_dir(tmp_path)


@pytest.mark.parametrize("below", ["", "/a", "/a/b"])
def test_file_in_the_way_is_an_error_that_names_it(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match=f"file{below}' cannot be written"):
        claim_output_dir(f"{tmp_path}/file{below}")


@pytest.fixture
def read_only_folder():
    """A folder this process may read but not write, also if it is root."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            os.chmod(folder, 0o755)


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
@pytest.mark.parametrize("below", ["", "/a"])
def test_folder_that_cannot_be_written_is_an_error(read_only_folder, below):
    with pytest.raises(OSError, match=r"cannot be written \(Perm"):
        claim_output_dir(read_only_folder + below)


def test_a_folder_elsewhere_is_refused_and_none_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="'gs://bucket/out' is not local"):
        claim_output_dir("gs://bucket/out")
    assert not list(tmp_path.iterdir())
