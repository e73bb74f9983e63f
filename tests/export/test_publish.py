"""Where versions go, which are kept, and that a failure changes nothing."""

import errno
import os
import pathlib
import resource
import shutil

import keras
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental import files
from keras_incremental.export import publish, version_folders
from keras_incremental.export.version_folders import MARKER


def make_model():
    backbone = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
        ]
    )
    model = ki.IncrementalClassifier(backbone)
    model.add_classes([0, 1], ["a", "b"])
    return model


@pytest.fixture(scope="module")
def model():
    """A model that tests publish and leave as it is."""
    return make_model()


@pytest.fixture(scope="module")
def published(model, tmp_path_factory):
    """A version of `model` to copy."""
    return publish(model, tmp_path_factory.mktemp("published"))


@pytest.fixture
def instant(monkeypatch):
    """Has `publish` write a marker instead of a whole SavedModel."""

    def write(functions, names, shape, folder, *notes):
        del functions, names, shape, notes
        (folder / MARKER).parent.mkdir()
        (folder / MARKER).write_text("{}")

    monkeypatch.setattr("keras_incremental.export.saved_model.write", write)
    monkeypatch.setattr(
        "keras_incremental.export.publishing.signatures", lambda *args: {}
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def contents(folder):
    """Returns every file below a folder, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_versions_are_counted_from_1(model, tmp_path):
    base = tmp_path / "not yet" / "my_model"
    assert publish(model, str(base)) == base / "1"
    assert publish(model, base) == base / "2"
    assert names(base) == ["1", "2"]
    assert (base / "2" / "saved_model.pb").is_file()


@pytest.mark.usefixtures("instant")
class TestNumbers:
    @pytest.mark.parametrize(
        ("there", "expected"),
        [
            (["7"], "8"),
            (["9", "10"], "11"),
            (["007"], "8"),  # the server reads it as 7
            ([" 3", "+4"], "5"),
            (["-5"], "1"),
            (["0"], "1"),
            (["latest", "2x", "1.5", "v3", ".tmp-4", "٣", "1_0"], "1"),
            (["20240131", "3"], "20240132"),
            (["99999999999999999999"], "1"),  # no number to the server
        ],
    )
    def test_the_next_is_above_all_that_a_server_sees(
        self, model, tmp_path, there, expected
    ):
        for name in there:
            (tmp_path / name).mkdir()
        assert publish(model, tmp_path, keep=1).name == expected
        assert names(tmp_path) == sorted([*there, expected])

    def test_a_file_with_a_number_is_not_overwritten(self, model, tmp_path):
        (tmp_path / "4").write_text("mine")
        assert publish(model, tmp_path, keep=1).name == "5"
        assert (tmp_path / "4").read_text() == "mine"

    def test_there_is_nothing_above_the_highest(self, model, tmp_path):
        (tmp_path / str(2**63 - 1)).mkdir()
        with pytest.raises(OSError, match="highest number"):
            publish(model, tmp_path)
        assert names(tmp_path) == [str(2**63 - 1)]

    @pytest.mark.parametrize("kind", ["folder", "file"])
    def test_a_number_that_is_taken_meanwhile_is_passed_over(
        self, model, tmp_path, monkeypatch, kind
    ):
        """Another publisher renames between our look and our rename."""
        (tmp_path / "1").mkdir()
        next_number = version_folders._next_number
        taken = []

        def too_slow(base):
            number = next_number(base)
            if not taken:
                taken.append(base / str(number))
                if kind == "file":
                    taken[0].write_text("theirs")
                else:
                    taken[0].mkdir()
                    (taken[0] / "saved_model.pb").write_text("theirs")
            return number

        monkeypatch.setattr(version_folders, "_next_number", too_slow)
        assert publish(model, tmp_path).name == "3"
        assert taken == [tmp_path / "2"]
        theirs = taken[0] if kind == "file" else taken[0] / "saved_model.pb"
        assert theirs.read_text() == "theirs"


@pytest.mark.usefixtures("instant")
class TestKeep:
    def publish_times(self, times, model, base, **options):
        for _ in range(times):
            publish(model, base, **options)

    @pytest.mark.parametrize("keep", [1, 2, 4])
    def test_the_newest_stay(self, model, tmp_path, keep):
        self.publish_times(12, model, tmp_path, keep=keep)
        expected = sorted(str(n) for n in range(13 - keep, 13))
        assert names(tmp_path) == expected

    def test_five_stay_by_default(self, model, tmp_path):
        self.publish_times(8, model, tmp_path)
        assert names(tmp_path) == ["4", "5", "6", "7", "8"]

    def test_none_keeps_all(self, model, tmp_path):
        self.publish_times(8, model, tmp_path, keep=None)
        assert len(names(tmp_path)) == 8

    def test_what_was_not_published_is_never_deleted(self, model, tmp_path):
        """A model exported otherwise, notes, and folders that are no number."""
        mine = ["1", "03", "best", "12.5"]
        for name in mine:
            (tmp_path / name).mkdir()
            (tmp_path / name / "saved_model.pb").write_text("mine")
        (tmp_path / "best" / MARKER).parent.mkdir()
        (tmp_path / "best" / MARKER).write_text("{}")
        (tmp_path / "README.txt").write_text("mine")
        before = contents(tmp_path)
        self.publish_times(3, model, tmp_path, keep=1)
        assert names(tmp_path) == sorted([*mine, "README.txt", "6"])
        assert before.items() <= contents(tmp_path).items()

    def test_a_version_that_another_process_deletes_is_no_error(
        self, model, tmp_path, monkeypatch
    ):
        self.publish_times(3, model, tmp_path)
        written_here = version_folders.written_here
        monkeypatch.setattr(
            version_folders,
            "written_here",
            lambda base: [base / "gone", *written_here(base)],
        )
        publish(model, tmp_path, keep=1)
        assert names(tmp_path) == ["4"]

    def test_a_version_that_cannot_be_deleted_is_a_warning(
        self, model, tmp_path, monkeypatch
    ):
        self.publish_times(2, model, tmp_path)

        def rename(self, target):
            raise PermissionError(errno.EPERM, "not yours", str(self))

        monkeypatch.setattr(pathlib.Path, "rename", rename)
        with pytest.warns(RuntimeWarning, match=r"3' is published.*not yours"):
            publish(model, tmp_path, keep=1)
        assert names(tmp_path) == ["1", "2", "3"]

    def test_leftovers_of_killed_processes_go_and_those_at_work_stay(
        self, model, tmp_path
    ):
        dead = tmp_path / f".version.{32 * '0'}.tmp"
        (dead / "version").mkdir(parents=True)
        (dead / "owner.lock").touch()
        alive = files.OwnedFolder(tmp_path, "version")
        others = [".tmp-notes", ".old-models", ".git"]
        for name in others:
            (tmp_path / name).mkdir()
        publish(model, tmp_path)
        assert names(tmp_path) == sorted([alive.path.name, *others, "1"])


@pytest.fixture
def served(published, tmp_path):
    """A folder with one version, and what it holds."""
    base = tmp_path / "served"
    shutil.copytree(published, base / "1")
    return base, contents(base)


class TestFailure:
    def assert_unchanged(self, served):
        base, before = served
        assert contents(base) == before
        assert names(base) == ["1"]

    def test_a_full_disk(self, model, served):
        """No file can grow beyond 20 kB, as if the disk were full then."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        try:
            with pytest.raises(OSError, match=r"Cannot publish.*served"):
                publish(model, served[0])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        self.assert_unchanged(served)

    def test_a_disk_that_is_full_when_it_is_synced(
        self, model, served, monkeypatch
    ):
        def fsync(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="No space left") as caught:
            publish(model, served[0])
        assert caught.value.errno == errno.ENOSPC
        assert str(served[0]) in str(caught.value)
        self.assert_unchanged(served)

    def test_a_full_disk_that_tensorflow_reports(
        self, model, served, monkeypatch
    ):
        def save(*args):
            raise tf.errors.ResourceExhaustedError(None, None, "disk is full")

        monkeypatch.setattr(tf.saved_model, "save", save)
        with pytest.raises(OSError, match=r"served.*disk is full"):
            publish(model, served[0])
        self.assert_unchanged(served)

    def test_a_read_only_folder(self, model, served, monkeypatch):
        if os.geteuid():
            served[0].chmod(0o555)
        else:  # root may write everywhere

            def mkdir(self, *args, **options):
                if self.name.startswith("."):
                    raise PermissionError(errno.EACCES, "Permission denied")

            monkeypatch.setattr(pathlib.Path, "mkdir", mkdir)
        try:
            with pytest.raises(
                PermissionError, match=r"Cannot.*served.*denied"
            ):
                publish(model, served[0])
        finally:
            served[0].chmod(0o755)
        monkeypatch.undo()
        self.assert_unchanged(served)

    def test_an_interrupt_leaves_nothing_behind(
        self, model, served, monkeypatch
    ):
        def save(module, folder, *args):
            (pathlib.Path(folder) / "half").write_text("half")
            raise KeyboardInterrupt

        monkeypatch.setattr(tf.saved_model, "save", save)
        with pytest.raises(KeyboardInterrupt):
            publish(model, served[0])
        self.assert_unchanged(served)

    def test_everything_is_synced_before_it_has_its_name(
        self, model, tmp_path, monkeypatch
    ):
        """Else a power cut could leave a version with empty files."""
        log, fsync, rename = [], os.fsync, os.rename

        def noted_fsync(descriptor):
            log.append(os.stat(descriptor).st_ino)
            fsync(descriptor)

        def noted_rename(source, target):
            rename(source, target)
            log.append("rename")

        monkeypatch.setattr(os, "fsync", noted_fsync)
        monkeypatch.setattr(os, "rename", noted_rename)
        version = publish(model, tmp_path)
        before = set(log[: log.index("rename")])
        inside = {path.stat().st_ino for path in [version, *version.rglob("*")]}
        assert inside <= before
        assert log[-1] == tmp_path.stat().st_ino


class TestBadInput:
    def test_a_model_that_is_no_incremental_classifier(
        self, tiny_backbone, tmp_path
    ):
        with pytest.raises(TypeError, match=r"Sequential.*from_classifier"):
            publish(tiny_backbone, tmp_path)

    def test_a_model_without_classes(self, tiny_backbone, tmp_path):
        with pytest.raises(ValueError, match="knows no classes"):
            publish(ki.IncrementalClassifier(tiny_backbone), tmp_path)

    @pytest.mark.parametrize("name", ["two\nlines", "end\r", "a\u2028b"])
    def test_a_name_with_a_line_break(self, tiny_backbone, tmp_path, name):
        model = ki.IncrementalClassifier(tiny_backbone)
        model.add_classes([0, 1], ["fine", name])
        with pytest.raises(ValueError, match="line break"):
            publish(model, tmp_path)
        assert not names(tmp_path)

    @pytest.mark.parametrize("keep", [0, -1])
    def test_keep_below_1(self, model, tmp_path, keep):
        with pytest.raises(ValueError, match=f"keep={keep} would delete"):
            publish(model, tmp_path, keep=keep)

    def test_a_base_that_is_a_file(self, model, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(NotADirectoryError, match=r"is a file.*/file"):
            publish(model, tmp_path / "file")
        assert (tmp_path / "file").read_text() == "mine"

    def test_a_base_below_a_file(self, model, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(OSError, match=r"Cannot publish.*file/base"):
            publish(model, tmp_path / "file" / "base")

    def test_a_base_that_is_a_version(self, model, served):
        base, before = served
        with pytest.raises(ValueError, match="SavedModel itself"):
            publish(model, base / "1")
        assert contents(base) == before

    @pytest.mark.parametrize("base", ["gs://bucket/model", "hdfs://x/y"])
    def test_a_base_that_is_not_local(self, model, base):
        with pytest.raises(ValueError, match="not a local folder"):
            publish(model, base)

    def test_an_empty_base(self, model):
        with pytest.raises(ValueError, match="base is empty"):
            publish(model, "")


@pytest.mark.slow
def test_publishing_leaves_the_model_as_it_was(tmp_path):
    model = make_model()
    images = tf.random.stateless_uniform((3, 4, 4, 1), (1, 2)) * 255
    before = model.predict(images, verbose=0)
    weights, config = model.get_weights(), model.get_config()
    publish(model, tmp_path)
    keras.tree.map_structure(
        lambda a, b: tf.debugging.assert_equal(a, b),
        weights,
        model.get_weights(),
    )
    assert model.get_config() == config
    assert (model.predict(images, verbose=0) == before).all()
    model.add_classes([2])
    assert publish(model, tmp_path).name == "2"
