"""What a step reports, what it refuses to keep, and what it lets out."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.export import Gate

METHODS = {
    "eeil": ki.EEIL(finetune_epochs=1),
    "finetune": ki.FineTune(),
    "joint": ki.Joint(),
    "partial_sharing": ki.PartialSharing(),
}
QUICK = [("eeil", True)]


@pytest.fixture
def make(lend_tiny):
    """Returns a function that gives a model and its callback."""

    def make(learning_rate=0.1, memory=True, **options):
        branched = options.get("method") is METHODS["partial_sharing"]
        model = lend_tiny(0.0 if branched else None)
        model.optimizer.learning_rate = learning_rate
        exemplars = ki.ExemplarMemory(12) if memory else None
        options.setdefault("method", METHODS["eeil"])
        options.setdefault("measure_statistics", False)
        return model, ki.IncrementalCallback(exemplars, **options)

    return make


def fit(model, callback, data, epochs=4, **options):
    options.setdefault("verbose", 0)
    return model.fit(*data, epochs=epochs, callbacks=[callback], **options)


def values(model):
    return [np.asarray(variable) for variable in model.state_variables()]


def assert_undone(model, memory, before):
    assert model.labels == [0, 1]
    for value, variable in zip(before, model.state_variables(), strict=True):
        np.testing.assert_array_equal(value, variable)
    assert memory is None or memory.labels == [0, 1]


# What is not finite.


@pytest.mark.parametrize(
    ("method", "memory"),
    [
        *QUICK,
        *(
            pytest.param(method, memory, marks=pytest.mark.slow)
            for method, memory in itertools.product(METHODS, [True, False])
            if (method, memory) not in QUICK
        ),
    ],
)
def test_a_step_that_diverges_is_undone(make, blobs, tmp_path, method, memory):
    served = tmp_path / "served"
    model, callback = make(
        method=METHODS[method], memory=memory, publish_to=served
    )
    fit(model, callback, blobs([0, 1]))
    before = values(model)
    model.optimizer.learning_rate = 1e30
    with pytest.raises(ValueError, match="undone"):
        fit(model, callback, blobs([2, 3]))
    assert_undone(model, callback.memory, before)
    assert [path.name for path in served.iterdir()] == ["1"]
    assert len(callback.reports) == 1
    model.optimizer.learning_rate = 0.1
    fit(model, callback, blobs([2, 3]))
    assert model.labels == [0, 1, 2, 3]


def test_the_error_names_phase_and_epoch_of_a_loss(make, blobs):
    model, callback = make()
    images, labels = blobs([0, 1])
    fit(model, callback, (images, labels))
    before = values(model)

    class SetsNaN(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 4:
                kernel, bias = self.model.network.head_weights(0)
                self.model.network.set_head_weights(0, kernel * np.nan, bias)

    with pytest.raises(
        ValueError, match=r"phase 'balanced fine-tuning', epoch 1: the loss"
    ):
        model.fit(
            *blobs([2]), epochs=4, verbose=0, callbacks=[SetsNaN(), callback]
        )
    assert_undone(model, callback.memory, before)


def test_a_backup_of_a_step_that_diverged_has_nothing_of_it(
    make, blobs, tmp_path
):
    model, callback = make(backup_dir=tmp_path)
    fit(model, callback, blobs([0, 1]))
    before = values(model)
    model.optimizer.learning_rate = 1e30
    with pytest.raises(ValueError, match="undone"):
        fit(model, callback, blobs([2]))
    again, resumed = make(backup_dir=tmp_path)
    fit(again, resumed, blobs([0, 1]))
    assert_undone(again, resumed.memory, before)


def test_a_closed_form_that_is_not_finite_is_undone(make, blobs):
    class Solved(ki.Method):
        def phases(self, task):
            def solve():
                kernel, bias = task.model.network.head_weights(-1)
                task.model.network.set_head_weights(-1, kernel / 0.0, bias)

            return [ki.methods.ClosedFormPhase("ridge regression", solve)]

    model, callback = make(method=Solved(), memory=False)
    with pytest.raises(ValueError, match="phase 'ridge regression': "):
        fit(model, callback, blobs([0, 1]))
    assert model.labels == []


def test_scores_that_overflow_are_undone(make, blobs):
    class Enormous(ki.FineTune):
        def finish(self, task):
            kernel, bias = task.model.network.head_weights(-1)
            task.model.network.set_head_weights(
                -1, np.full_like(kernel, 3e38), bias
            )

    model, callback = make(method=Enormous())
    with pytest.raises(ValueError, match="at its end: logits or scores"):
        fit(model, callback, blobs([0, 1]))
    assert model.labels == [] and callback.memory.labels == []


def test_a_model_that_is_not_finite_is_not_published(make, blobs, tmp_path):
    model, callback = make()
    fit(model, callback, blobs([0, 1]))
    kernel, bias = model.network.head_weights(0)
    model.network.set_head_weights(0, kernel * np.inf, bias)
    with pytest.raises(ValueError, match=r"not finite.*kernel"):
        ki.export.publish(model, tmp_path)
    assert not list(tmp_path.iterdir())


# The report.


def dataset_of(data):
    return tf.data.Dataset.from_tensor_slices(data).batch(5)


class Sequence(keras.utils.PyDataset):
    def __init__(self, data):
        super().__init__()
        self.images, self.labels = data

    def __len__(self):
        return -(-len(self.labels) // 5)

    def __getitem__(self, index):
        rows = slice(5 * index, 5 * index + 5)
        return self.images[rows], self.labels[rows]


@pytest.mark.parametrize(
    "kind",
    [
        tuple,
        pytest.param(dataset_of, marks=pytest.mark.slow),
        pytest.param(Sequence, marks=pytest.mark.slow),
    ],
)
def test_accuracies_are_those_of_a_plain_count(make, blobs, kind):
    model, callback = make(class_names={0: "zero", 1: "one", 2: "two"})
    fit(model, callback, blobs([0, 1]))
    images, labels = blobs([0, 1, 2], per_class=9, seed=3)
    was = model.predict(images, verbose=0).argmax(1)
    fit(model, callback, blobs([2], 30), validation_data=kind((images, labels)))
    now = model.predict(images, verbose=0).argmax(1)
    report = callback.reports[-1]
    old = labels < 2
    assert report.old_accuracy_before == np.mean(was[old] == labels[old])
    assert report.old_accuracy == np.mean(now[old] == labels[old])
    assert report.new_accuracy == np.mean(now[~old] == labels[~old])
    assert report.accuracy_by_class == {
        name: np.mean(now[labels == label] == label)
        for label, name in enumerate(["zero", "one", "two"])
    }
    assert report.images_by_class == {"two": 30}
    assert report.validation_images_by_class == {"zero": 9, "one": 9, "two": 9}
    assert report.published is None
    assert not report.notes


def test_without_validation_data_the_report_says_what_it_cannot(make, blobs):
    model, callback = make()
    fit(model, callback, blobs([0, 1], 30))
    report = callback.reports[-1]
    assert report.old_accuracy is report.new_accuracy is None
    assert report.accuracy_by_class is None
    assert "not known: fit got no validation_data" in str(report)


def test_classes_without_validation_images_are_named(make, blobs):
    model, callback = make()
    fit(model, callback, blobs([0, 1], 30), validation_data=blobs([1]))
    assert "accuracy of 1 classes is not known" in str(callback.reports[-1])
    assert callback.reports[-1].new_accuracy is not None


def test_very_few_images_of_a_new_class_are_warned_of(make, blobs):
    model, callback = make(class_names={0: "many", 1: "few"})
    many, few = blobs([0], 40), blobs([1], 8)
    data = [np.concatenate(parts) for parts in zip(many, few, strict=True)]
    with pytest.warns(UserWarning, match=r"fewer than 20 images: few \(8\)"):
        fit(model, callback, data)
    assert "few (8)" in str(callback.reports[-1])
    assert "many" not in callback.reports[-1].notes[0]


def test_validation_labels_that_nobody_learns_are_refused(make, blobs):
    model, callback = make()
    with pytest.raises(ValueError, match=r"validation_data.*\[5\].*learns"):
        fit(model, callback, blobs([0, 1]), validation_data=blobs([0, 5]))
    assert model.num_classes == 0


# The gate.


def test_a_gate_keeps_a_bad_model_in(make, blobs, tmp_path):
    served = tmp_path / "served"
    model, callback = make(
        method=ki.FineTune(),
        publish_to=served,
        publish_if=Gate(max_old_accuracy_drop=0.2, min_new_accuracy=0.6),
    )
    test = blobs([0, 1, 2, 3], seed=5)

    def learn(labels):
        seen = np.isin(test[1], [*model.labels, *labels])
        data = (test[0][seen], test[1][seen])
        fit(model, callback, blobs(labels, 40), 15, validation_data=data)
        return callback.reports[-1]

    first = learn([0, 1])
    assert first.published == str(served / "1") and not first.not_published
    second = learn([2, 3])  # forgets: it is fine-tuned on new data alone
    assert second.published is None
    assert "accuracy of old classes fell from" in second.not_published
    assert "Not published: the accuracy" in str(second)
    assert model.labels == [0, 1, 2, 3]
    assert [path.name for path in served.iterdir()] == ["1"]


def test_the_version_carries_the_report(make, blobs, tmp_path):
    model, callback = make(
        publish_to=tmp_path, publish_if=Gate(min_new_accuracy=0.0)
    )
    data = blobs([0, 1], 30)
    fit(model, callback, data, validation_data=data)
    report = callback.reports[-1]
    path = tmp_path / "1" / "assets.extra" / "report.json"
    written = json.loads(path.read_text())
    assert written["new_accuracy"] == report.new_accuracy
    assert written["images_by_class"] == {"0": 30, "1": 30}


def test_a_gate_needs_data_to_judge_by(make, blobs, tmp_path):
    def refused(match, **options):
        with pytest.raises(ValueError, match=match):
            fit(model, callback, blobs([2]), **options)
        assert model.labels == [0, 1]

    model, callback = make(
        memory=False,
        publish_to=tmp_path,
        publish_if=Gate(max_old_accuracy_drop=0.0),
    )
    model.add_classes([0, 1])
    refused("no image of the new classes .2.")
    refused("no image of the new classes", validation_data=blobs([0, 1]))
    refused("no image of old classes", validation_data=blobs([2]))


def test_gates_that_are_none_are_refused(make, tmp_path):
    with pytest.raises(TypeError, match=r"publish_if=0\.5"):
        make(publish_to=tmp_path, publish_if=0.5)
    with pytest.raises(ValueError, match="publish_to"):
        make(publish_if=Gate(min_new_accuracy=0.5))


def test_a_kill_before_the_note_does_not_publish_twice(
    make, blobs, tmp_path, monkeypatch
):
    """The process dies between the publication and its record."""
    backup, served = tmp_path / "backup", tmp_path / "served"
    data = blobs([0, 1])
    model, callback = make(backup_dir=backup, publish_to=served)

    def killed(*args):
        raise KeyboardInterrupt

    noted = "keras_incremental.training.backup.Backup.note_published"
    with monkeypatch.context() as patch:
        patch.setattr(noted, killed)
        with pytest.raises(KeyboardInterrupt):
            fit(model, callback, data)
    for _ in range(2):
        model, callback = make(backup_dir=backup, publish_to=served)
        fit(model, callback, data)
        assert callback.reports[-1].published == str(served / "1")
    assert [path.name for path in served.iterdir()] == ["1"]


def test_a_resumed_run_remembers_a_refusal(make, blobs, tmp_path):
    def run():
        model, callback = make(
            backup_dir=tmp_path / "backup",
            publish_to=tmp_path / "served",
            publish_if=Gate(min_new_accuracy=1.0),
            learning_rate=1e-9,
        )
        fit(model, callback, blobs([0, 1, 2]), validation_data=blobs([0, 1, 2]))
        return callback.reports[-1]

    assert run().not_published == run().not_published is not None
    assert not (tmp_path / "served").exists()
