"""A run that is cut off goes on where it was, to the same end."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki

TASKS = [[3, 1], [0, 2]]
RAW = ki.exemplars.RawStorage()


class CutError(Exception):
    """Stands in for a kill: what is on disk is all that is left."""


class Cut(keras.callbacks.Callback):
    """Raises after so many batches or epochs of this process."""

    def __init__(self, batches=None, epochs=None):
        super().__init__()
        self.batches, self.epochs = batches, epochs

    def on_train_batch_end(self, batch, logs=None):
        if self.batches is not None:
            self.batches -= 1
            if self.batches < 0:
                raise CutError

    def on_epoch_end(self, epoch, logs=None):
        if self.epochs is not None:
            self.epochs -= 1
            if self.epochs < 0:
                raise CutError


class CutAtEpoch(keras.callbacks.Callback):
    """Raises before the epoch of this number in this process."""

    def __init__(self, number):
        super().__init__()
        self.left = number

    def on_epoch_begin(self, epoch, logs=None):
        self.left -= 1
        if self.left < 0:
            raise CutError


@pytest.fixture(name="digits", scope="module")
def _digits():
    images, labels, _, _ = ki.scenarios.load_digits()
    rows = np.concatenate([np.flatnonzero(labels == k)[:24] for k in range(6)])
    return images[rows], labels[rows]


METHODS = {
    "eeil": lambda: ki.EEIL(
        finetune_epochs=2,
        learning_rate_factor=ki.methods.StepDecay(2),
        gradient_noise=ki.methods.GradientNoise(),
    ),
    "partial_sharing": ki.PartialSharing,
    "joint": ki.Joint,
}


class Run:
    """What one process holds: model, memory and callback."""

    def __init__(
        self,
        method,
        backup_dir,
        seed=0,
        finetune=None,
        storage=RAW,
        use_ema=False,
        **options,
    ):
        keras.utils.set_random_seed(seed)
        branched = method == "partial_sharing"
        self.model = ki.IncrementalClassifier(
            ki.backbones.small((8, 8, 1)), branch_at="stage2" if branched
            else None,
        )  # fmt: skip
        self.model.compile(
            keras.optimizers.SGD(0.05, momentum=0.9, use_ema=use_ema)
        )
        self.memory = None
        if method != "joint":
            self.memory = ki.ExemplarMemory(30, storage=storage)
        made = METHODS[method]() if finetune is None else ki.EEIL(finetune)
        self.callback = ki.IncrementalCallback(
            self.memory,
            made,
            augment=None if branched else ki.augmentation.CropFlip(1),
            backup_dir=backup_dir,
            **options,
        )

    def __call__(self, digits, cut=None, tasks=TASKS, epochs=3):
        images, labels = digits
        for task in tasks:
            chosen = np.isin(labels, task)
            self.model.fit(
                images[chosen],
                labels[chosen],
                batch_size=16,
                epochs=epochs,
                verbose=0,
                callbacks=[self.callback, *([cut] if cut else [])],
            )

    def state(self):
        arrays = [np.asarray(v) for v in self.model.state_variables()]
        if self.memory is not None:
            arrays += [self.memory.images(k) for k in self.memory.labels]
        return self.model.labels, [array.tobytes() for array in arrays]


@pytest.fixture(name="straight", scope="module")
def _straight(digits, tmp_path_factory):
    """Returns a run of a method that nothing cut off, made once."""

    @functools.cache
    def straight(method):
        run = Run(method, tmp_path_factory.mktemp(method))
        run(digits)
        return run

    return straight


@pytest.mark.parametrize("method", ["eeil", "partial_sharing"])
def test_a_run_cut_off_anywhere_ends_like_one_that_was_not(
    method, straight, digits, tmp_path
):
    for cut in (Cut(batches=4), Cut(epochs=4)):
        with pytest.raises(CutError):
            Run(method, tmp_path)(digits, cut)
    run = Run(method, tmp_path)
    run(digits)
    whole = straight(method)
    assert run.state() == whole.state()
    reports = zip(run.callback.reports, whole.callback.reports, strict=True)
    for mine, other in reports:
        assert (mine.epochs, mine.details) == (other.epochs, other.details)


def test_streamed_data_come_in_the_same_order_after_a_cut(digits, tmp_path):
    images, labels = digits
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(9)

    def run(folder, cut=()):
        run = Run("eeil", tmp_path / folder, cache_bytes=20 * 64)
        run.model.fit(data, epochs=4, verbose=0, callbacks=[run.callback, *cut])
        return run.state()

    whole = run("whole")
    with pytest.raises(CutError):
        run("cut", [Cut(epochs=2)])
    assert run("cut") == whole


def test_averaged_weights_are_there_after_a_cut_between_phases(
    digits, tmp_path
):
    whole = Run("eeil", tmp_path / "whole", use_ema=True)
    whole(digits)
    with pytest.raises(CutError):
        # After the second step's third epoch, before its fine-tuning.
        Run("eeil", tmp_path / "cut", use_ema=True)(digits, CutAtEpoch(6))
    run = Run("eeil", tmp_path / "cut", use_ema=True)
    run(digits)
    assert run.state() == whole.state()


def test_a_model_that_the_run_has_not_taught_is_refused(digits, tmp_path):
    for _ in range(2):  # a run, and the run again
        one, other = Run("joint", tmp_path), Run("joint", None)
        one(digits, tasks=TASKS[:1])
        other.callback = one.callback
        with pytest.raises(ValueError, match=r"has taught a model.*\[1, 3\]"):
            other(digits, tasks=TASKS[:1])
        assert other.model.num_classes == 0


def test_settings_of_numpy_are_taken(digits, tmp_path):
    run = Run("eeil", None)
    memory = ki.ExemplarMemory(
        np.int64(30),
        seed=np.int64(1),
        storage=ki.exemplars.JpegStorage(np.int64(90)),
    )
    run.callback = ki.IncrementalCallback(
        memory, seed=np.int64(2), backup_dir=tmp_path
    )
    run(digits, tasks=TASKS[:1], epochs=np.int64(1))
    memory.save(tmp_path / "memory")
    loaded = ki.ExemplarMemory.load(tmp_path / "memory")
    assert (loaded.seed, loaded.storage) == (1, memory.storage)


def test_joint_finds_the_data_of_earlier_steps_again(
    straight, digits, tmp_path
):
    with pytest.raises(CutError):
        Run("joint", tmp_path)(digits, Cut(epochs=4))
    run = Run("joint", tmp_path)
    run(digits)
    assert run.state() == straight("joint").state()


def test_a_finished_run_trains_nothing_when_run_again(digits, tmp_path):
    first = Run("eeil", tmp_path)
    first(digits)
    again = Run("eeil", tmp_path)
    again(digits, Cut(batches=0))
    assert again.state() == first.state()
    assert again.model.train_function_traces == 0
    images, _ = digits
    np.testing.assert_array_equal(
        again.model.predict(images, verbose=0),
        first.model.predict(images, verbose=0),
    )
    assert again.callback.train_function_traces == 1


@pytest.mark.parametrize(
    "storage",
    [ki.exemplars.JpegStorage(), ki.exemplars.DiskStorage()],
    ids=str,
)
def test_exemplars_come_back_as_they_were_stored(storage, digits, tmp_path):
    first = Run("eeil", tmp_path, storage=storage)
    first(digits, tasks=TASKS[:1], epochs=1)
    again = Run("eeil", tmp_path, storage=storage)
    again(digits, Cut(batches=0), tasks=TASKS[:1], epochs=1)
    assert again.memory.labels == first.memory.labels
    for label in first.memory.labels:
        ours, theirs = (run.memory.stored()[label] for run in (first, again))
        assert ours.storage == theirs.storage == storage
        assert [*map(storage.to_bytes, ours.rows)] == [
            *map(storage.to_bytes, theirs.rows)
        ]
    other = Run("eeil", tmp_path)
    with pytest.raises(ValueError, match=r"memory was .*Storage.*RawStorage"):
        other(digits, tasks=TASKS[:1], epochs=1)


@pytest.mark.parametrize("failing", ["memory", "backup"])
def test_cut_off_while_the_memory_or_the_backup_is_written(
    failing, straight, digits, tmp_path, monkeypatch
):
    def fail(*args, **kwargs):
        raise CutError

    target = {
        "memory": (ki.ExemplarMemory, "update"),
        "backup": (ki.callbacks.backup.BackupFolder, "commit"),
    }[failing]
    cut = Run("eeil", tmp_path / "cut")
    cut(digits, tasks=TASKS[:1])
    with monkeypatch.context() as patch, pytest.raises(CutError):
        patch.setattr(*target, fail)
        cut(digits, tasks=TASKS[1:])
    run = Run("eeil", tmp_path / "cut")
    run(digits)
    assert run.state() == straight("eeil").state()


def test_a_failed_step_starts_anew_in_the_same_process(digits, tmp_path):
    run = Run("eeil", tmp_path)
    run(digits, tasks=TASKS[:1])
    with pytest.raises(CutError):
        run(digits, Cut(epochs=1), tasks=TASKS[1:2])
    run(digits, tasks=TASKS[1:2])
    whole = Run("eeil", tmp_path / "whole")
    whole(digits, tasks=TASKS[:2])
    assert run.state() == whole.state()


def test_a_step_that_cannot_be_backed_up_is_undone(
    straight, digits, tmp_path, monkeypatch
):
    commit = ki.callbacks.backup.BackupFolder.commit

    def full(folder, record, blobs):
        if record["progress"] is None:  # the end of a step
            raise OSError(28, "No space left on device")
        commit(folder, record, blobs)

    run = Run("eeil", tmp_path)
    run(digits, tasks=TASKS[:1])
    before = run.state()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="space"):
        patch.setattr(ki.callbacks.backup.BackupFolder, "commit", full)
        run(digits, tasks=TASKS[1:])
    assert run.state() == before
    assert len(run.callback.reports) == 1
    run(digits, tasks=TASKS[1:])
    assert run.state() == straight("eeil").state()
    again = Run("eeil", tmp_path)
    again(digits, Cut(batches=0))
    assert again.state() == run.state()


def test_backup_of_another_run_is_refused(digits, tmp_path):
    Run("eeil", tmp_path)(digits, tasks=TASKS[:1])
    with pytest.raises(ValueError, match="another run: method was"):
        Run("eeil", tmp_path, finetune=7)(digits, tasks=TASKS[:1])


def test_other_data_or_options_are_refused(digits, tmp_path):
    Run("eeil", tmp_path)(digits, tasks=TASKS[:1])
    with pytest.raises(ValueError, match="step 0 had other data"):
        Run("eeil", tmp_path)(digits, tasks=[[0, 2]])
    with pytest.raises(ValueError, match="epochs 3, now 4"):
        Run("eeil", tmp_path)(digits, tasks=TASKS[:1], epochs=4)


def test_a_model_that_knows_other_classes_is_refused(digits, tmp_path):
    Run("eeil", tmp_path)(digits, tasks=TASKS[:1])
    other = Run("eeil", tmp_path)
    other.model.add_classes([9])
    with pytest.raises(ValueError, match="not the first of the backup's"):
        other(digits, tasks=TASKS[:1])


def test_early_stopping_before_a_cut_stays_in_effect(digits, tmp_path):
    images, labels = digits
    chosen = np.isin(labels, TASKS[0])

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    def fit(run, *callbacks):
        run.model.fit(
            images[chosen], labels[chosen], batch_size=16, epochs=5, verbose=0,
            callbacks=[run.callback, *callbacks],
        )  # fmt: skip

    def fail(*args, **kwargs):
        raise CutError

    cut = Run("eeil", tmp_path)
    cut.memory.update = fail
    with pytest.raises(CutError):
        fit(cut, Stop())
    run = Run("eeil", tmp_path)
    fit(run)
    assert run.callback.reports[0].epochs == 1


def test_a_run_is_backed_up_and_resumed_elsewhere(straight, digits, bucket):
    with pytest.raises(CutError):
        Run("eeil", bucket)(digits, Cut(epochs=4))
    run = Run("eeil", bucket)
    run(digits)
    assert run.state() == straight("eeil").state()
