"""A run that is cut off goes on where it was, to the same end."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.methods import ClosedFormPhase, Phase
from keras_incremental.score_rules import NearestMean

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


@dataclasses.dataclass(frozen=True)
class Noisy:
    """An augmentation that draws by its seed, in few operations."""

    copies, stored = 1, False

    def __call__(self, images, seed):
        noise = tf.random.stateless_uniform(
            tf.shape(images), seed, 0, 9, tf.int32
        )
        return tf.bitwise.bitwise_xor(images, tf.cast(noise, images.dtype))


@dataclasses.dataclass(frozen=True)
class Solved(ki.Method):
    """A phase in closed form between two trained ones, and a score rule."""

    def phases(self, task):
        def phase(name):
            return Phase(
                name, task.epochs, lambda: [task.samples, *task.exemplars()]
            )

        return [
            phase("before"),
            ClosedFormPhase("solved", lambda: self._solve(task)),
            phase("after"),
        ]

    def _solve(self, task):
        network = task.model.network
        shift = task.features(task.samples).mean()
        for index in range(len(network.heads)):
            kernel, bias = network.head_weights(index)
            network.set_head_weights(index, 0.5 * kernel, bias + shift)

    def finish(self, task):
        exemplars = task.memory.samples()
        features = task.features(exemplars)
        task.model.score_rule = NearestMean(
            [
                features[exemplars.labels == label].mean(axis=0)
                for label in task.model.labels
            ]
        )


METHODS = {
    "eeil": ki.EEIL(
        finetune_epochs=2,
        learning_rate_factor=ki.methods.StepDecay(2),
        gradient_noise=ki.methods.GradientNoise(),
    ),
    "partial_sharing": ki.PartialSharing(),
    "joint": ki.Joint(),
    "joint_from_scratch": ki.Joint(from_scratch=True),
    "solved": Solved(),
}


class Run:
    """What one process holds: model, memory and callback."""

    def __init__(
        self, model, method, backup_dir, finetune=None, storage=RAW, **options
    ):
        self.model, self.memory = model, None
        if method != "joint":
            self.memory = ki.ExemplarMemory(30, storage=storage)
        branched = method == "partial_sharing"
        self.callback = ki.IncrementalCallback(
            self.memory,
            METHODS[method] if finetune is None else ki.EEIL(finetune),
            augment=None if branched else Noisy(),
            measure_statistics=method != "solved",
            backup_dir=backup_dir,
            **options,
        )

    def __call__(self, data, cut=None, tasks=TASKS, epochs=2):
        images, labels = data
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
        rule = type(self.model.score_rule).__name__
        return self.model.labels, rule, [array.tobytes() for array in arrays]


@pytest.fixture(name="data", scope="module")
def _data(blobs):
    return blobs(range(4), per_class=24)


class Processes:
    """Starts processes one after the other, each from the same new model.

    All but the fresh ones share a model, so that it is traced once.
    """

    def __init__(self, make, pool):
        self._make, self._pool = make, pool
        self._straight = {}

    def __call__(
        self, method, backup_dir, fresh=False, use_ema=False, **options
    ):
        """Returns the run of a new process; the one before has ended."""
        self.end()
        kind = 0.0 if method == "partial_sharing" else None, use_ema
        model = self._make(*kind) if fresh else self._pool(self._make, *kind)
        model.optimizer.learning_rate = 0.05
        return Run(model, method, backup_dir, **options)

    def end(self):
        """Ends the process that was started last."""
        self._pool.take_back()

    def straight(self, method, data):
        """Returns the end of a run that nothing cut off, made once."""
        if method not in self._straight:
            run = self(method, None)
            run(data)
            reports = [(r.epochs, r.details) for r in run.callback.reports]
            self._straight[method] = run.state(), reports
        return self._straight[method]


@pytest.fixture(name="all_processes", scope="module")
def _all_processes(make_tiny_classifier, model_pool):
    return Processes(make_tiny_classifier, model_pool)


@pytest.fixture
def start(all_processes):
    yield all_processes
    all_processes.end()


@pytest.mark.parametrize(
    "method",
    [
        "eeil",
        pytest.param("solved", marks=pytest.mark.slow),
        pytest.param("partial_sharing", marks=pytest.mark.slow),
        pytest.param("joint_from_scratch", marks=pytest.mark.slow),
    ],
)
def test_a_run_cut_off_anywhere_ends_like_one_that_was_not(
    method, start, data, tmp_path
):
    whole, reports = start.straight(method, data)
    for cut in (Cut(batches=4), Cut(epochs=2)):
        with pytest.raises(CutError):
            start(method, tmp_path)(data, cut)
    run = start(method, tmp_path, fresh=True)
    run(data)
    assert run.state() == whole
    assert [(r.epochs, r.details) for r in run.callback.reports] == reports


@pytest.mark.slow
def test_a_cut_within_fine_tuning_finds_teacher_and_balanced_set(
    start, data, tmp_path
):
    """Both are of the network at the start of that phase."""
    whole, _ = start.straight("eeil", data)
    for epoch in (4, 5):  # the two of fine-tuning
        folder = tmp_path / str(epoch)
        with pytest.raises(CutError):
            start("eeil", folder)(data, CutAtEpoch(epoch))
        run = start("eeil", folder)
        run(data)
        assert run.state() == whole, epoch


@pytest.mark.slow
def test_closed_forms_and_rules_come_back_at_any_epoch(start, data, tmp_path):
    """Before and after the phase in closed form, and after a whole task."""
    whole, reports = start.straight("solved", data)
    assert whole[1] == "NearestMean"
    assert [epochs for epochs, _ in reports] == [4, 4]
    for epoch in (2, 3, 4):
        folder = tmp_path / str(epoch)
        with pytest.raises(CutError):
            start("solved", folder)(data, CutAtEpoch(epoch))
        run = start("solved", folder)
        run(data)
        assert run.state() == whole, epoch


@pytest.mark.slow
def test_a_closed_form_that_fails_starts_the_task_anew(
    start, data, tmp_path, monkeypatch
):
    def fail(method, task):
        raise CutError

    whole, _ = start.straight("solved", data)
    run = start("solved", tmp_path)
    run(data, tasks=TASKS[:1])
    before = run.state()
    with monkeypatch.context() as patch, pytest.raises(CutError):
        patch.setattr(Solved, "_solve", fail)
        run(data, tasks=TASKS[1:])
    assert run.state() == before
    run(data, tasks=TASKS[1:])
    assert run.state() == whole


@pytest.mark.slow
def test_data_in_a_file_come_in_the_same_order_after_a_cut(
    start, data, tmp_path
):
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(9)

    def run(folder, cut=()):
        run = start("joint", tmp_path / folder, cache_bytes=20 * 16)
        run.model.fit(
            dataset, epochs=3, verbose=0, callbacks=[run.callback, *cut]
        )
        return run.state()

    whole = run("whole")
    with pytest.raises(CutError):
        run("cut", [Cut(epochs=1)])
    assert run("cut") == whole


@pytest.mark.slow
def test_averaged_weights_are_there_after_a_cut_between_phases(
    start, data, tmp_path
):
    whole = start("solved", None, use_ema=True)
    whole(data, tasks=TASKS[:1])
    expected = whole.state()
    with pytest.raises(CutError):
        # After the first phase's last epoch.
        start("solved", tmp_path, use_ema=True)(data, CutAtEpoch(2))
    run = start("solved", tmp_path, use_ema=True)
    run(data, tasks=TASKS[:1])
    assert run.state() == expected


@pytest.mark.slow
def test_a_model_that_the_run_has_not_taught_is_refused(start, data, tmp_path):
    for _ in range(2):  # a run, and the run again
        one = start("joint", tmp_path, fresh=True)
        one(data, tasks=TASKS[:1])
        other = start("joint", None)
        other.callback = one.callback
        with pytest.raises(ValueError, match=r"has taught a model.*[13], [13]"):
            other(data, tasks=TASKS[:1])
        assert other.model.num_classes == 0


def test_settings_of_numpy_are_taken(start, data, tmp_path):
    run = start("eeil", None)
    memory = ki.ExemplarMemory(
        np.int64(30),
        seed=np.int64(1),
        storage=ki.exemplars.JpegStorage(np.int64(90)),
    )
    run.callback = ki.IncrementalCallback(
        memory, seed=np.int64(2), backup_dir=tmp_path
    )
    run(data, tasks=TASKS[:1], epochs=np.int64(1))
    memory.save(tmp_path / "memory")
    loaded = ki.ExemplarMemory.load(tmp_path / "memory")
    assert (loaded.seed, loaded.storage) == (1, memory.storage)


@pytest.mark.slow
def test_joint_finds_the_data_of_earlier_tasks_again(start, data, tmp_path):
    whole, _ = start.straight("joint", data)
    with pytest.raises(CutError):
        start("joint", tmp_path)(data, Cut(epochs=3))
    run = start("joint", tmp_path)
    run(data)
    assert run.state() == whole


@pytest.mark.slow
def test_a_finished_run_trains_nothing_when_run_again(start, data, tmp_path):
    first = start("eeil", tmp_path, fresh=True)
    first(data)
    expected = first.state()
    again = start("eeil", tmp_path, fresh=True)
    again(data, Cut(batches=0))
    assert again.state() == expected
    assert again.model.train_function_traces == 0
    images, _ = data
    np.testing.assert_array_equal(
        again.model.predict(images, verbose=0),
        first.model.predict(images, verbose=0),
    )
    assert again.callback.train_function_traces == 1


def test_the_score_rule_of_a_finished_task_comes_back(start, data, tmp_path):
    run = start("solved", tmp_path)
    run(data, tasks=TASKS[:1])
    expected = run.state()
    assert expected[1] == "NearestMean"
    again = start("solved", tmp_path)
    again(data, Cut(batches=0), tasks=TASKS[:1])
    assert again.state() == expected


@pytest.mark.parametrize(
    "storage",
    [ki.exemplars.JpegStorage(), ki.exemplars.DiskStorage()],
    ids=str,
)
def test_exemplars_come_back_as_they_were_stored(
    storage, start, data, tmp_path
):
    first = start("eeil", tmp_path, storage=storage)
    first(data, tasks=TASKS[:1], epochs=1)
    again = start("eeil", tmp_path, storage=storage)
    again(data, Cut(batches=0), tasks=TASKS[:1], epochs=1)
    assert again.memory.labels == first.memory.labels
    for label in first.memory.labels:
        ours, theirs = (run.memory.stored()[label] for run in (first, again))
        assert ours.storage == theirs.storage == storage
        np.testing.assert_equal(ours.to_arrays(), theirs.to_arrays())
    other = start("eeil", tmp_path)
    with pytest.raises(
        ValueError, match=r"memory\.storage\..*Storage.*RawStorage"
    ):
        other(data, tasks=TASKS[:1], epochs=1)


@pytest.mark.slow
@pytest.mark.parametrize("failing", ["memory", "backup"])
def test_cut_off_while_the_memory_or_the_backup_is_written(
    failing, start, data, tmp_path, monkeypatch
):
    def fail(*args, **kwargs):
        raise CutError

    target = {
        "memory": (ki.ExemplarMemory, "update"),
        "backup": (ki.training.backup.BackupFolder, "commit"),
    }[failing]
    whole, _ = start.straight("eeil", data)
    cut = start("eeil", tmp_path / "cut")
    cut(data, tasks=TASKS[:1])
    with monkeypatch.context() as patch, pytest.raises(CutError):
        patch.setattr(*target, fail)
        cut(data, tasks=TASKS[1:])
    run = start("eeil", tmp_path / "cut")
    run(data)
    assert run.state() == whole


def test_a_failed_task_starts_anew_in_the_same_process(start, data, tmp_path):
    whole, _ = start.straight("eeil", data)
    run = start("eeil", tmp_path)
    run(data, tasks=TASKS[:1])
    with pytest.raises(CutError):
        run(data, Cut(epochs=1), tasks=TASKS[1:2])
    run(data, tasks=TASKS[1:2])
    assert run.state() == whole


@pytest.mark.slow
def test_a_task_that_cannot_be_backed_up_is_undone(
    start, data, tmp_path, monkeypatch
):
    commit = ki.training.backup.BackupFolder.commit

    def full(folder, record, blobs):
        if record["progress"] is None:  # the end of a task
            raise OSError(28, "No space left on device")
        commit(folder, record, blobs)

    whole, _ = start.straight("eeil", data)
    run = start("eeil", tmp_path)
    run(data, tasks=TASKS[:1])
    before = run.state()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="space"):
        patch.setattr(ki.training.backup.BackupFolder, "commit", full)
        run(data, tasks=TASKS[1:])
    assert run.state() == before
    assert len(run.callback.reports) == 1
    run(data, tasks=TASKS[1:])
    assert run.state() == whole
    again = start("eeil", tmp_path)
    again(data, Cut(batches=0))
    assert again.state() == whole


def test_a_backup_of_another_run_or_other_data_is_refused(
    start, data, tmp_path
):
    start("eeil", tmp_path)(data, tasks=TASKS[:1])
    for options, arguments, message in (
        ({"finetune": 7}, {}, r"run: method\.finetune_epochs 2, now 7"),
        ({}, {"tasks": [[0, 2]]}, "task 0 had other data"),
        ({}, {"epochs": 4}, "epochs 2, now 4"),
    ):
        with pytest.raises(ValueError, match=message):
            start("eeil", tmp_path, **options)(
                data, **{"tasks": TASKS[:1], **arguments}
            )


def test_a_model_that_knows_other_classes_is_refused(start, data, tmp_path):
    start("eeil", tmp_path)(data, tasks=TASKS[:1])
    other = start("eeil", tmp_path)
    other.model.add_classes([9])
    with pytest.raises(ValueError, match="not the first of the backup's"):
        other(data, tasks=TASKS[:1])


def test_early_stopping_before_a_cut_stays_in_effect(start, data, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    def fail(*args, **kwargs):
        raise CutError

    cut = start("eeil", tmp_path)
    cut.memory.update = fail
    with pytest.raises(CutError):
        cut(data, Stop(), tasks=TASKS[:1], epochs=5)
    run = start("eeil", tmp_path)
    run(data, tasks=TASKS[:1], epochs=5)
    assert run.callback.reports[0].epochs == 1


@pytest.mark.slow
def test_a_run_is_backed_up_and_resumed_elsewhere(start, data, bucket):
    whole, _ = start.straight("eeil", data)
    with pytest.raises(CutError):
        start("eeil", bucket)(data, Cut(epochs=3))
    run = start("eeil", bucket)
    run(data)
    assert run.state() == whole
