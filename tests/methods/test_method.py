"""A method of one's own, from public names: growth, phases, rule, details."""

import contextlib
import dataclasses

import keras
import numpy as np
import pytest

import keras_incremental as ki
from keras_incremental.methods import ClosedFormPhase, Phase
from keras_incremental.networks import BranchedNetwork, OneHeadNetwork
from keras_incremental.samples import CachedColumn
from keras_incremental.score_rules import AffinePerHead, NearestMean
from keras_incremental.training import phase_runner


@dataclasses.dataclass(frozen=True)
class Ridge(ki.Method):
    """Assigns the kernel of each class by ridge regression, in closed form."""

    ridge: float = 1.0

    def phases(self, task):
        return [ClosedFormPhase("ridge regression", lambda: self._solve(task))]

    def _solve(self, task):
        model = task.model
        features = task.features(task.samples)
        units = model.classes.to_units(task.samples.labels)
        targets = np.eye(model.num_classes)[units]
        gram = features.T @ features + self.ridge * np.eye(features.shape[1])
        kernel = np.linalg.solve(gram, features.T @ targets)
        for index, head in enumerate(model.heads):
            model.network.set_head_weights(
                index, kernel[:, head], np.zeros(head.stop - head.start)
            )

    def finish(self, task):
        task.details["ridge"] = self.ridge


@dataclasses.dataclass(frozen=True)
class Shared(ki.Method):
    """Branches with one head, trained with exemplars mixed in."""

    def check(self, model, memory):
        OneHeadNetwork.on(model.network)

    def grow(self, task):
        if task.known_classes:
            network = OneHeadNetwork.on(task.model.network)
            task.model.network = network.with_branch()
        super().grow(task)

    def phases(self, task):
        return [
            Phase(
                "training",
                task.epochs,
                lambda: [task.samples, *task.exemplars()],
                ki.objectives.CrossDistilled(task.known_classes),
            )
        ]

    def finish(self, task):
        sizes = [head.stop - head.start for head in task.model.heads]
        task.model.score_rule = AffinePerHead(sizes, np.full(len(sizes), 2.0))


@dataclasses.dataclass(frozen=True)
class Ncm(ki.Method):
    """Trains on new data; the nearest mean of exemplars decides."""

    def phases(self, task):
        return [
            Phase("training", task.epochs, lambda: [task.samples], copies=0)
        ]

    def finish(self, task):
        features = task.model.extract_features(task.memory.samples().images())
        labels = task.memory.samples().labels
        task.model.score_rule = NearestMean(
            [features[labels == k].mean(axis=0) for k in task.model.labels]
        )


@pytest.fixture
def model(lend_tiny):
    return lend_tiny(branch_at=0.0)


def fit(model, incremental, data, callbacks=(), **options):
    return model.fit(
        *data,
        batch_size=8,
        verbose=0,
        callbacks=[incremental, *callbacks],
        **options,
    )


# A phase in closed form.


def test_a_closed_form_task_has_no_epochs_and_gives_a_history(model, blobs):
    incremental = ki.IncrementalCallback(method=Ridge())
    data = blobs([3, 1], per_class=30)
    turns, traces = [], model.train_function_traces
    look = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: turns.append("begin"),
        on_epoch_begin=lambda epoch, logs: turns.append(epoch),
        on_train_end=lambda logs: turns.append("end"),
    )
    history = fit(model, incremental, data, [look], epochs=5)
    assert isinstance(history, keras.callbacks.History)
    assert history.epoch == [] and history.history == {}
    assert turns == ["begin", "end"]
    report = incremental.reports[-1]
    assert (report.epochs, report.train_seconds) == (0, 0)
    assert report.overhead_seconds > 0
    assert report.details == {"ridge": 1.0}
    # By hand: the least squares of one-hot targets on the features.
    features, units = (
        model.extract_features(data[0]),
        model.classes.to_units(data[1]),
    )
    kernel, _ = model.network.head_weights(0)
    residual = features.T @ (features @ kernel - np.eye(2)[units]) + kernel
    np.testing.assert_allclose(residual, 0, atol=1e-2)
    assert (model.predict(data[0], verbose=0).argmax(1) == units).all()
    assert model.train_function_traces == traces


def test_a_closed_form_phase_that_fails_is_undone(model, blobs):
    memory = ki.ExemplarMemory(4)
    fit(model, ki.IncrementalCallback(memory, Ridge()), blobs([3, 1]))
    before = [v.numpy() for v in model.state_variables()]

    class Broken(Ridge):
        def _solve(self, task):
            super()._solve(task)
            raise np.linalg.LinAlgError("singular")

    with pytest.raises(np.linalg.LinAlgError, match="singular"):
        fit(model, ki.IncrementalCallback(memory, Broken()), blobs([2]))
    assert set(model.labels) == set(memory.labels) == {3, 1}
    for variable, value in zip(model.state_variables(), before, strict=True):
        np.testing.assert_array_equal(variable, value)
    fit(model, ki.IncrementalCallback(memory, Ridge()), blobs([2]))
    assert model.num_classes == 3


def test_a_failing_finish_undoes_memory_and_score_rule(model, blobs):
    memory = ki.ExemplarMemory(6)
    fit(model, ki.IncrementalCallback(memory, Ncm()), blobs([3, 1]))
    rule, stored = model.score_rule, memory.images(3)

    class Broken(Ncm):
        def finish(self, task):
            super().finish(task)
            assert len(task.memory.labels) == 3
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        fit(model, ki.IncrementalCallback(memory, Broken()), blobs([2]))
    assert model.score_rule is rule and isinstance(rule, NearestMean)
    assert len(memory.labels) == 2
    np.testing.assert_array_equal(memory.images(3), stored)


# A score rule that is set at the end.


@pytest.mark.slow
def test_the_rule_of_finish_decides_and_logits_decide_while_training(
    model, blobs
):
    memory = ki.ExemplarMemory(9)
    rules = []

    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            rules.append(type(self.model.score_rule))

    for labels in ([3, 1], [2]):
        incremental = ki.IncrementalCallback(memory, Ncm())
        fit(model, incremental, blobs(labels), [Look()], epochs=4)
    assert rules == [ki.score_rules.ScoreRule] * 2
    x, y = blobs([3, 1, 2], seed=5)
    assert isinstance(model.score_rule, NearestMean)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["accuracy"] > 0.8
    scores = model.predict(x, verbose=0)
    assert scores.max() <= 0  # negative distances
    logits, same = model.logits_and_scores(x)
    np.testing.assert_allclose(scores, same, atol=1e-5)
    # Without rehearsal the logits have forgotten the first classes.
    hits = logits.argmax(1) == model.classes.to_units(y)
    assert hits.mean() < logs["accuracy"]


# Sharing with exemplars.


@pytest.mark.slow
def test_sharing_with_exemplars_mixes_cached_columns(model, blobs, monkeypatch):
    memory = ki.ExemplarMemory(12)
    incremental = ki.IncrementalCallback(
        memory, Shared(), measure_statistics=False
    )
    fit(model, incremental, blobs([3, 1]), epochs=4)
    calls, real = [], phase_runner.training_batches

    def spy(sources, *arguments, **options):
        calls.append(sources)
        return real(sources, *arguments, **options)

    monkeypatch.setattr(phase_runner, "training_batches", spy)
    stored = memory.samples()
    frozen = model.state_variables()[:5]
    before = [v.numpy() for v in frozen]
    history = fit(model, incremental, blobs([2, 5]), epochs=8)
    ((new, old),) = calls
    assert isinstance(new, CachedColumn) and isinstance(old, CachedColumn)
    assert set(new.labels) == {2, 5} and set(old.labels) == {3, 1}
    # Cut before all layers: images, and features of the base.
    np.testing.assert_array_equal(old.rows[0][0], stored.all_images())
    assert [rows.shape[2:] for rows in old.rows] == [(4, 4, 1), (16,)]
    assert history.history["distillation_loss"][0] > 0
    logs = model.evaluate(
        *blobs([3, 1, 2, 5], seed=4), verbose=0, return_dict=True
    )
    assert logs["accuracy"] > 0.75  # by new classes alone 0.5
    for variable, value in zip(frozen, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert isinstance(model.score_rule, AffinePerHead)
    assert model.score_rule.head_sizes == [2, 2]


@pytest.mark.slow
def test_a_frozen_part_in_the_loop_trains_as_a_cached_one(
    model, blobs, restored
):
    ends = []
    data = blobs([2, 5])

    class InTheLoop(Shared):
        def phases(self, task):
            (phase,) = super().phases(task)
            return [dataclasses.replace(phase, copies=0)]

    fit(model, ki.IncrementalCallback(method=Shared()), blobs([3, 1]))
    for method in (Shared(), InTheLoop()):
        with restored(model):
            keras.utils.set_random_seed(1)
            incremental = ki.IncrementalCallback(
                method=method,
                augment=Same() if method.__class__ is InTheLoop else None,
            )
            fit(model, incremental, data, epochs=2)
            ends.append(model.logits_and_scores(data[0])[0])
    # Two ways to compute the same: equal to rounding.
    np.testing.assert_allclose(ends[0], ends[1], atol=2e-3)


class Same:
    """An on-line augmentation that changes nothing."""

    stored = False

    def __call__(self, images, seed):
        return images


def test_a_base_that_must_be_whole_is_refused_by_default(model, blobs):
    model.add_classes([3])
    model.network = BranchedNetwork.on(model.network).with_branch()
    model.add_classes([1])
    with pytest.raises(ValueError, match="Ridge trains the whole network"):
        fit(model, ki.IncrementalCallback(method=Ridge()), blobs([2]))
    with pytest.raises(TypeError, match="branches of a BranchedNetwork"):
        fit(model, ki.IncrementalCallback(method=Shared()), blobs([2]))
