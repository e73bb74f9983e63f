"""The phases of a task: optimizer, teacher, noise and schedule of each."""

import dataclasses
import functools
from collections.abc import Callable

import keras
import numpy as np
import pytest

import keras_incremental as ki
from keras_incremental.losses import classification_loss
from keras_incremental.methods import ClosedFormPhase, Phase
from keras_incremental.objectives import CrossEntropy
from keras_incremental.samples import ArraySamples


@dataclasses.dataclass(frozen=True)
class Weighted(ki.objectives.Objective):
    """Cross-entropy times a factor."""

    factor: float = 0.0

    def terms(self, batch):
        loss = classification_loss(batch.units, batch.logits)
        return {"classification": self.factor * loss}


@dataclasses.dataclass(frozen=True)
class Scripted(ki.Method):
    """The phases that a test wants: keyword arguments of each `Phase`."""

    script: tuple = ()

    def phases(self, task):
        return [
            Phase(
                **{
                    "name": f"phase {index}",
                    "epochs": 1,
                    "sources": lambda: [task.samples],
                    **options,
                }
            )
            for index, options in enumerate(self.script)
        ]


class Watch(keras.callbacks.Callback):
    """Keeps the trained weights after each batch, the first before all."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_begin(self, logs=None):
        self._look()

    def on_train_batch_end(self, batch, logs=None):
        self._look()

    def _look(self):
        weights = self.model.trainable_variables
        self.seen.append(np.concatenate([w.numpy().ravel() for w in weights]))

    @property
    def moves(self):
        return np.diff(self.seen, axis=0)


@pytest.fixture
def model(lend_tiny):
    model = lend_tiny()
    model.optimizer.learning_rate = 0.5
    return model


@pytest.fixture
def run(model, blobs):
    """Returns a function that runs scripted phases on 24 images, and a watch.

    Each epoch has two batches. `script` is a dict of options for each phase.
    """

    def run(*script, labels=(0, 1), memory=None, callbacks=(), **options):
        watch = Watch()
        incremental = ki.IncrementalCallback(
            memory, Scripted(script), measure_statistics=False, **options
        )
        history = model.fit(
            *blobs(labels),
            batch_size=12,
            verbose=0,
            callbacks=[incremental, watch, *callbacks],
        )
        return watch, history, incremental.reports[-1]

    return run


STILL = Weighted(0.0)


def test_a_phases_own_augmentation_takes_the_place_of_the_callbacks(run):
    class Counting:
        copies, stored = 1, False

        def __init__(self):
            self.calls = 0

        def __call__(self, images, seed):
            self.calls += 1
            return images

    own, common = Counting(), Counting()
    run({"augment": own}, {"augmented": False}, augment=common)
    assert own.calls and not common.calls
    run({}, labels=[2], augment=common)
    assert common.calls


def test_a_phases_own_augmentation_is_not_cached():
    with pytest.raises(ValueError, match="'a' has an augmentation of its own"):
        Phase("a", 1, list, augment=ki.augmentation.CropFlip(), copies=2)


def test_momentum_does_not_run_on_into_the_next_phase(run):
    watch, _, _ = run({"objective": Weighted(1.0)}, {"objective": STILL})
    first, second = np.abs(watch.moves).max(axis=1).reshape(2, 2)
    assert first.min() > 1e-3
    np.testing.assert_array_equal(second, 0)


def test_momentum_does_not_run_on_into_the_next_task(run):
    run({"objective": Weighted(1.0)})
    watch, _, _ = run({"objective": STILL}, labels=[2])
    np.testing.assert_array_equal(watch.moves, 0)


def test_noise_is_drawn_anew_in_each_step_and_each_phase(run):
    """Without a gradient a step is the noise times the learning rate."""
    noisy = {
        "objective": STILL,
        "noise_stddev": lambda epoch: 0.01,
        "learning_rate_factor": lambda epoch: 1.0,
    }
    watch, _, _ = run(noisy, noisy)
    moves = watch.moves.copy()
    moves[1::2] -= 0.9 * moves[::2]  # the momentum of the step before
    draws = moves / 0.5
    np.testing.assert_allclose(draws.std(axis=1), 0.01, rtol=0.3)
    correlations = np.corrcoef(draws) - np.eye(4)
    assert np.abs(correlations).max() < 0.5


def test_noise_is_drawn_anew_in_each_task(run):
    noisy = {"objective": STILL, "noise_stddev": lambda epoch: 0.01}
    first = run(noisy)[0].moves[0]
    second = run(noisy, labels=[2])[0].moves[0]
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.5


def test_noise_ends_with_the_task(run, model):
    run({"objective": STILL, "noise_stddev": lambda epoch: 0.01})
    assert float(model.gradient_noise.stddev) == 0


def test_noise_follows_the_schedule_of_its_phase(run):
    fading = {
        "epochs": 2,
        "objective": STILL,
        "noise_stddev": lambda epoch: [0.01, 0.0][epoch],
    }
    first, second, third, fourth = run(fading)[0].moves
    assert np.abs(first).max() > 1e-3
    # In the second epoch momentum alone moves the weights.
    np.testing.assert_allclose(third, 0.9 * second, atol=1e-6)
    np.testing.assert_allclose(fourth, 0.9 * third, atol=1e-6)


def test_rates_follow_each_phases_own_schedule(run):
    rates = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: rates.append(
            float(look.model.optimizer.learning_rate)
        )
    )
    run(
        {"epochs": 3, "learning_rate_factor": lambda e: [1, 0.1, 0.1][e]},
        {"epochs": 2, "learning_rate_factor": lambda e: [0.2, 0.4][e]},
        callbacks=[look],
    )
    np.testing.assert_allclose(rates, [0.5, 0.05, 0.05, 0.1, 0.2], rtol=1e-6)
    assert float(look.model.optimizer.learning_rate) == pytest.approx(0.5)


def test_a_rate_that_a_callback_has_lowered_starts_anew_in_the_next_phase(run):
    rates = []

    def lower(epoch, logs):
        rates.append(float(look.model.optimizer.learning_rate))
        look.model.optimizer.learning_rate = 0.01

    look = keras.callbacks.LambdaCallback(on_epoch_begin=lower)
    run({"epochs": 2}, {"epochs": 1}, callbacks=[look])
    np.testing.assert_allclose(rates, [0.5, 0.01, 0.5], rtol=1e-6)


def test_a_factor_that_is_not_above_zero_is_refused(run, model):
    with pytest.raises(ValueError, match="learning_rate_factor gave 0"):
        run({"learning_rate_factor": lambda epoch: 0.0})
    assert model.num_classes == 0


def test_phases_see_the_data_of_their_own_sources(run, blobs):
    seen = []

    def sources(*labels):
        seen.append(labels)
        return [ArraySamples(*blobs(labels))]

    _, history, _ = run(
        {"sources": functools.partial(sources, 0, 1)},
        {"sources": functools.partial(sources, 1)},
    )
    assert seen == [(0, 1), (1,)]  # once each
    assert history.epoch == [0, 1]


def test_old_classes_cannot_train_a_branch(blobs, lend_tiny):
    """A branch has units for its own classes alone."""
    model, memory = lend_tiny(branch_at=0.0), ki.ExemplarMemory(6)
    model.add_classes([0])
    memory.add_from(model, *blobs([0]))
    incremental = ki.IncrementalCallback(memory, Rehearsing())
    with pytest.raises(ValueError, match=r"classes \[0\].*not trained"):
        model.fit(*blobs([1]), verbose=0, callbacks=[incremental])
    assert model.labels == [0] == memory.labels


@dataclasses.dataclass(frozen=True)
class Cached(ki.Method):
    """One head on all branches, two variants of each image cached."""

    def grow(self, task):
        network = ki.networks.OneHeadNetwork.on(task.model.network)
        task.model.network = network.with_branch()
        super().grow(task)

    def phases(self, task):
        return [Phase("cached", 1, lambda: [task.samples], copies=2)]


def test_a_stored_augmentation_is_refused_where_copies_are_cached(
    blobs, lend_tiny
):
    """It would be left out without a word."""
    model = lend_tiny(branch_at=0.0)
    incremental = ki.IncrementalCallback(
        method=Cached(), augment=ki.augmentation.StoredEEILAugmentation()
    )
    with pytest.raises(ValueError, match=r"copies=2.*Pass the on-line one"):
        model.fit(*blobs([0, 1]), verbose=0, callbacks=[incremental])


class Rehearsing(ki.PartialSharing):
    """Partial sharing with exemplars mixed in, which cannot work."""

    def phases(self, task):
        (phase,) = super().phases(task)
        return [
            dataclasses.replace(
                phase, sources=lambda: [task.samples, *task.exemplars()]
            )
        ]


# The teacher.


class Teachers(keras.callbacks.Callback):
    """Compares the teacher's logits with the network's, before each epoch."""

    def __init__(self, probe):
        super().__init__()
        self._probe, self.teacher, self.network = probe, [], []

    def on_epoch_begin(self, epoch, logs=None):
        columns = {"images": self._probe}
        self.teacher.append(self.model.teacher_logits(columns))
        self.network.append(self.model.logits_and_scores(self._probe)[0])


def test_the_teacher_is_the_network_at_the_start_of_each_stage(model, blobs):
    """Before the task in stage 1, at the end of stage 1 in stage 2."""
    incremental = ki.IncrementalCallback(ki.ExemplarMemory(8), ki.EEIL(2))
    probe = blobs([0, 1, 2], per_class=3)[0]
    teachers = Teachers(probe)
    options = {"epochs": 2, "batch_size": 12, "verbose": 0}
    model.fit(*blobs([0, 1]), callbacks=[incremental], **options)
    before, _ = model.logits_and_scores(probe)
    model.fit(*blobs([2]), callbacks=[incremental, teachers], **options)
    teacher = [logits[:, :3] for logits in teachers.teacher]
    assert len(teacher) == 4
    for logits in teacher[:2]:  # stage 1
        # Two functions, traced apart: equal to rounding.
        np.testing.assert_allclose(logits[:, :2], before, atol=1e-5)
    end_of_stage_1 = teachers.network[2]
    assert np.abs(end_of_stage_1[:, :2] - before).max() > 1e-2
    for logits in teacher[2:]:  # stage 2
        np.testing.assert_allclose(logits, end_of_stage_1, atol=1e-5)
    assert np.abs(teachers.network[3] - end_of_stage_1).max() > 1e-4


# Closed form.


@dataclasses.dataclass(frozen=True)
class Between(ki.Method):
    """A phase in closed form between two that are trained."""

    solve: Callable = print

    def phases(self, task):
        def phase(name):
            return Phase(name, 1, lambda: [task.samples], CrossEntropy())

        return [
            phase("first"),
            ClosedFormPhase("solved", lambda: self.solve(task)),
            phase("last"),
        ]


def test_a_closed_form_phase_runs_in_its_turn_without_epochs(model, blobs):
    turns = []

    def solve(task):
        turns.append("solve")

    look = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: turns.append(epoch),
        on_epoch_end=lambda epoch, logs: turns.append("end"),
    )
    incremental = ki.IncrementalCallback(
        method=Between(solve), measure_statistics=False
    )
    history = model.fit(
        *blobs([0, 1]), verbose=0, callbacks=[incremental, look]
    )
    assert turns == [0, "end", "solve", 1, "end"]
    assert history.epoch == [0, 1]
    assert incremental.reports[-1].epochs == 2
