"""`fit` with an IncrementalCallback, as a user would use it."""

import csv
import dataclasses
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.methods import StepDecay


@pytest.fixture
def make(lend_tiny):
    """Returns a function that gives a compiled model and a callback."""

    def pair(memory=None, method=None, **options):
        model, method = lend_tiny(), method or ki.FineTune()
        options.setdefault("measure_statistics", False)
        return model, ki.IncrementalCallback(memory, method=method, **options)

    return pair


EEIL = ki.EEIL(finetune_epochs=2)


def fit(model, incremental, x, y=None, epochs=1, callbacks=(), **options):
    return model.fit(
        x,
        y,
        epochs=epochs,
        verbose=0,
        callbacks=[incremental, *callbacks],
        **options,
    )


@pytest.mark.slow
def test_classes_learned_one_task_after_another_are_all_known(make, blobs):
    model, incremental = make(ki.ExemplarMemory(20), ki.EEIL(10))
    tasks = [[40, 7], [300], [5, 6, 1]]  # a task of one class, sizes differ
    for labels in tasks:
        fit(model, incremental, *blobs(labels), epochs=15, batch_size=8)
    x, y = blobs([40, 7, 300, 5, 6, 1], seed=9)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["accuracy"] > 0.9
    assert [h.stop - h.start for h in model.heads] == [2, 1, 3]
    assert sorted(model.labels[:2]) == [7, 40] and model.labels[2] == 300
    assert len(incremental.memory) <= 20
    names = model.classify(x, verbose=0)
    assert (names == y.astype(str)).mean() > 0.9


@pytest.mark.slow
def test_forgetting_without_rehearsal_is_what_the_memory_prevents(make, blobs):
    model, incremental = make(None, ki.FineTune())
    for labels in ([0, 1], [2, 3]):
        fit(model, incremental, *blobs(labels), epochs=15, batch_size=8)
    logs = model.evaluate(*blobs([0, 1]), verbose=0, return_dict=True)
    assert logs["accuracy"] < 0.5


def test_units_follow_the_first_appearance_in_the_data(make, blobs):
    model, incremental = make(ki.ExemplarMemory(9), class_names={7: "seven"})
    x, y = blobs([40, 7, 300])
    order = np.argsort([{300: 0, 7: 1, 40: 2}[k] for k in y.tolist()])
    fit(model, incremental, x[order], y[order])
    assert model.labels == [300, 7, 40]
    assert model.class_names == ["300", "seven", "40"]
    assert incremental.memory.labels == model.labels


@pytest.mark.slow
def test_arrays_and_datasets_train_the_same(make, blobs, restored):
    x, y = blobs([0, 1, 2])
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    model, _ = make()
    results = []
    for source in ((x, y), (data,)):
        incremental = ki.IncrementalCallback(ki.ExemplarMemory(9))
        options = {"batch_size": 8} if len(source) == 2 else {}
        with restored(model):
            keras.utils.set_random_seed(3)
            fit(model, incremental, *source, epochs=2, **options)
            results.append(model.predict(x, verbose=0))
    np.testing.assert_array_equal(results[0], results[1])


def test_string_labels_work_in_arrays_and_datasets(make, blobs):
    model, incremental = make(ki.ExemplarMemory(9))
    x, y = blobs(["ram", "ewe"])
    fit(model, incremental, x, y)
    x2, y2 = blobs(["lamb"])
    fit(
        model,
        incremental,
        tf.data.Dataset.from_tensor_slices((x2, y2)).batch(4),
    )
    assert sorted(model.class_names) == ["ewe", "lamb", "ram"]
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    assert set(model.evaluate(data, verbose=0, return_dict=True)) == {
        "loss",
        "accuracy",
    }


class Recorder(keras.callbacks.Callback):
    """Writes down what a user's callback sees."""

    def __init__(self):
        super().__init__()
        self.calls, self.batches, self.rates, self.logs = [], {}, [], []

    def on_train_begin(self, logs=None):
        self.calls.append("begin")
        self.epochs = self.params["epochs"]

    def on_train_end(self, logs=None):
        self.calls.append("end")

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(epoch)
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(logs)
        self.batches[epoch] = self.params["steps"]


def test_callbacks_see_one_run_of_all_epochs(make, blobs):
    model, incremental = make(
        ki.ExemplarMemory(8),
        ki.EEIL(finetune_epochs=2, learning_rate_factor=StepDecay(2, 0.1)),
    )
    fit(model, incremental, *blobs([0, 1]), batch_size=8)
    recorder = Recorder()
    history = fit(
        model,
        incremental,
        *blobs([2, 3]),
        epochs=3,
        batch_size=8,
        callbacks=[recorder],
    )
    assert recorder.calls == ["begin", 0, 1, 2, 3, 4, "end"]
    assert recorder.epochs == 5
    # 24 new images and 8 exemplars, then 4 for each of 4 classes.
    assert recorder.batches == {0: 4, 1: 4, 2: 4, 3: 2, 4: 2}
    np.testing.assert_allclose(recorder.rates, [0.1, 0.1, 0.01, 0.01, 0.01])
    assert history.epoch == [0, 1, 2, 3, 4]
    terms = {"loss", "classification_loss", "distillation_loss", "accuracy"}
    assert terms | {"learning_rate"} == set(recorder.logs[0])
    for logs in recorder.logs:
        assert logs["loss"] == pytest.approx(
            logs["classification_loss"] + logs["distillation_loss"], rel=1e-3
        )
        assert logs["distillation_loss"] > 0
    assert float(model.optimizer.learning_rate) == pytest.approx(0.1)


def test_progress_bar_names_the_phase_and_shows_the_loss_terms(
    make, blobs, capsys
):
    model, incremental = make(ki.ExemplarMemory(8), EEIL)
    fit(model, incremental, *blobs([0, 1]))
    assert capsys.readouterr().out == ""
    model.fit(
        *blobs([2]), epochs=2, verbose=2, callbacks=[incremental], batch_size=4
    )
    text = capsys.readouterr().out
    headings = re.findall(r"^.* [0-9]/[0-9]$", text, re.MULTILINE)
    assert headings == [
        "training 1/2",
        "training 2/2",
        "balanced fine-tuning 1/2",
        "balanced fine-tuning 2/2",
    ]
    assert "classification_loss" in text and "distillation_loss" in text


@pytest.mark.slow
def test_keras_callbacks_work_along(make, blobs, tmp_path):
    model, incremental = make(ki.ExemplarMemory(8))
    x, y = blobs([0, 1])
    fit(
        model,
        incremental,
        x,
        y,
        epochs=4,
        validation_data=(x, y),
        callbacks=[
            keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
            keras.callbacks.TensorBoard(str(tmp_path / "logs")),
            keras.callbacks.ReduceLROnPlateau("loss", patience=1),
            keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras")),
        ],
    )
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3]
    assert "val_accuracy" in rows[0] and "classification_loss" in rows[0]
    assert list((tmp_path / "logs").rglob("events*"))
    assert keras.models.load_model(tmp_path / "best.keras").num_classes == 2


def test_a_users_learning_rate_scheduler_wins(make, blobs):
    model, incremental = make(ki.ExemplarMemory(8))
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.03)
    recorder = Recorder()
    fit(
        model,
        incremental,
        *blobs([0]),
        epochs=3,
        callbacks=[scheduler, recorder],
    )
    np.testing.assert_allclose(recorder.rates, [0.03] * 3)


def test_early_stopping_ends_its_phase_and_restores_before_selection(
    make, blobs
):
    model, incremental = make(ki.ExemplarMemory(8), ki.EEIL(finetune_epochs=3))
    fit(model, incremental, *blobs([0, 1]))

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    history = fit(model, incremental, *blobs([2]), epochs=9, callbacks=[Stop()])
    assert history.epoch == [0, 1, 9, 10, 11]


def test_validation_data_may_hold_new_and_old_classes(make, blobs):
    model, incremental = make(ki.ExemplarMemory(8))
    fit(model, incremental, *blobs([0, 1]))
    data = tf.data.Dataset.from_tensor_slices(blobs([0, 1, 2])).batch(8)
    history = fit(model, incremental, *blobs([2]), validation_data=data)
    logs = model.evaluate(data, verbose=0, return_dict=True)
    assert history.history["val_accuracy"][-1] == pytest.approx(
        logs["accuracy"]
    )
    with pytest.raises(ValueError, match=r"\[77\].*neither knows nor learns"):
        fit(model, incremental, *blobs([3]), validation_data=blobs([77]))


def test_more_data_of_known_classes_grows_nothing(make, blobs):
    model, incremental = make(ki.ExemplarMemory(8), EEIL)
    fit(model, incremental, *blobs([0, 1]))
    history = fit(model, incremental, *blobs([1], seed=5))
    assert model.num_classes == 2 and len(model.heads) == 1
    assert incremental.reports[-1].new_labels == []
    assert history.history["distillation_loss"][0] > 0
    assert len(incremental.memory) == 8


def test_a_learning_rate_schedule_of_the_optimizer_is_left_alone(
    tiny_backbone, blobs
):
    model = ki.IncrementalClassifier(tiny_backbone)
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 50)
    model.compile(optimizer=keras.optimizers.SGD(schedule))
    incremental = ki.IncrementalCallback(method=ki.FineTune())
    history = fit(model, incremental, *blobs([0, 1]), epochs=3)
    rates = history.history["learning_rate"]
    assert rates[0] > rates[-1] > 0.09


@dataclasses.dataclass(frozen=True)
class Unchanged:
    """An on-line augmentation that changes nothing; the teacher runs along."""

    copies, stored = 1, False

    def __call__(self, images, seed):
        return images


@pytest.mark.slow
def test_cached_teacher_logits_change_no_result(make, blobs, restored):
    model, _ = make()
    weights = []
    for augment in (None, Unchanged()):
        incremental = ki.IncrementalCallback(
            ki.ExemplarMemory(12), method=EEIL, augment=augment
        )
        with restored(model):
            keras.utils.set_random_seed(0)
            for task in ([0, 1], [2], [3, 4]):
                fit(model, incremental, *blobs(task), epochs=3)
            weights.append(model.get_weights())
    for cached, in_the_loop in zip(*weights, strict=True):
        # Two ways to compute the same logits; rounding grows over 15 epochs.
        np.testing.assert_allclose(cached, in_the_loop, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "branch_at"),
    [
        (ki.EEIL(finetune_epochs=1), None),
        pytest.param(ki.PartialSharing(), 0.0, marks=pytest.mark.slow),
        pytest.param(ki.FineTune(), None, marks=pytest.mark.slow),
    ],
    ids=["eeil", "partial_sharing", "finetune"],
)
def test_traces_do_not_grow_with_the_tasks(
    tiny_backbone, blobs, method, branch_at
):
    model = ki.IncrementalClassifier(
        tiny_backbone, capacity=4, branch_at=branch_at
    )
    model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    incremental = ki.IncrementalCallback(ki.ExemplarMemory(8), method)
    x, y = blobs(range(4), per_class=3)
    traces = []
    for task in range(4):
        rows = y == task
        fit(model, incremental, x[rows], y[rows], batch_size=4)
        traces.append(model.train_function_traces)
    model.evaluate(x, y, verbose=0)
    # A first branch trains other variables than the base.
    growing = branch_at is not None
    assert traces == [1, *[1 + growing] * 3]
    assert model.test_function_traces == 1
    assert model.num_classes == 4 and len(incremental.reports) == 4


@pytest.mark.slow
def test_a_head_beyond_its_capacity_costs_one_more_trace(tiny_backbone, blobs):
    model = ki.IncrementalClassifier(tiny_backbone, capacity=2)
    model.compile("sgd")
    incremental = ki.IncrementalCallback(method=ki.FineTune())
    traces = []
    for labels in ([0, 1], [2], [3]):  # room for 2, then for 4
        fit(model, incremental, *blobs(labels, per_class=3))
        traces.append(model.train_function_traces)
    assert traces == [1, 2, 2]


@pytest.mark.slow
def test_same_seed_same_weights_another_seed_others(make, blobs, restored):
    model, _ = make()

    def run(seed):
        incremental = ki.IncrementalCallback(
            ki.ExemplarMemory(8),
            method=ki.EEIL(
                finetune_epochs=1, gradient_noise=ki.methods.GradientNoise()
            ),
            augment=ki.augmentation.CropFlip(1),
            seed=seed,
        )
        with restored(model):
            keras.utils.set_random_seed(7)
            for labels in ([0, 1], [2]):
                fit(model, incremental, *blobs(labels), batch_size=8)
            return model.get_weights()

    first, again, other = run(1), run(1), run(2)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != c).any() for a, c in zip(first, other, strict=True))


@pytest.mark.slow
def test_data_in_a_file_trains_like_data_in_memory(make, blobs):
    model, incremental = make(ki.ExemplarMemory(8), EEIL, cache_bytes=100)
    for labels in ([0, 1], [2]):
        data = tf.data.Dataset.from_tensor_slices(blobs(labels)).batch(8)
        fit(model, incremental, data, epochs=15)
    logs = model.evaluate(*blobs([0, 1, 2]), verbose=0, return_dict=True)
    assert logs["accuracy"] > 0.7
    assert len(incremental.memory) == 8


def test_joint_remembers_without_a_memory(make, blobs):
    model, incremental = make(None, ki.Joint())
    for labels in ([0, 1], [2, 3]):
        fit(model, incremental, *blobs(labels), epochs=15, batch_size=8)
    logs = model.evaluate(*blobs([0, 1, 2, 3]), verbose=0, return_dict=True)
    assert logs["accuracy"] > 0.9


class Interrupt(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


def test_a_task_that_fails_changes_nothing(make, blobs):
    model, incremental = make(ki.ExemplarMemory(8), EEIL)
    fit(model, incremental, *blobs([0, 1]))
    before = [w.numpy() for w in model.weights]
    stored = incremental.memory.images(0)
    with pytest.raises(KeyboardInterrupt):
        fit(model, incremental, *blobs([2, 3]), callbacks=[Interrupt()])
    assert model.labels == incremental.memory.labels
    assert len(model.heads) == 1
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    np.testing.assert_array_equal(incremental.memory.images(0), stored)
    assert float(model.gradient_noise.stddev) == 0
    assert float(model.optimizer.learning_rate) == pytest.approx(0.1)
    fit(model, incremental, *blobs([2, 3]))
    assert model.num_classes == 4


X, Y = np.zeros((6, 4, 4, 1), "uint8"), np.array([0, 1] * 3)
NAN = np.full(X.shape, np.nan, "float32")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": X[:, :3], "y": Y}, ValueError, "the model takes"),
        ({"x": X.astype(str), "y": Y}, TypeError, "raw pixels"),
        ({"x": NAN, "y": Y}, ValueError, "NaN"),
        ({"x": X, "y": Y * 1.0}, TypeError, "astype"),
        ({"x": X, "y": Y - 1}, ValueError, "negative label -1"),
        ({"x": X, "y": None}, ValueError, "missing"),
        ({"x": X[:0], "y": Y[:0]}, ValueError, "no images"),
        ({"x": X, "y": Y, "epochs": 0}, ValueError, "epochs=0"),
        ({"x": X, "y": Y, "batch_size": 0}, ValueError, "batch_size=0"),
        ({"x": X, "y": Y, "sample_weight": Y}, ValueError, "sample_weight"),
        ({"x": X, "y": Y, "class_weight": {9: 2}}, ValueError, "neither knows"),
        ({"x": X, "y": Y, "class_weight": {1: -1}}, ValueError, "class_weight"),
        ({"x": X, "y": Y, "steps_per_epoch": 3}, ValueError, "steps_per"),
        ({"x": X, "y": Y, "validation_split": 0.5}, ValueError, "pass valid"),
        ({"x": X, "y": Y, "shuffle": False}, ValueError, "shuffle=False"),
        ({"x": X, "y": Y, "workers": 3}, TypeError, "'workers'"),
    ],
)
def test_bad_input_is_refused_before_anything_changes(
    make, arguments, error, message
):
    model, incremental = make(ki.ExemplarMemory(8))
    with pytest.raises(error, match=message):
        fit(model, incremental, **arguments)
    assert model.num_classes == 0 and len(incremental.memory) == 0


def test_a_memory_too_small_for_the_classes_is_refused_first(make, blobs):
    model, incremental = make(ki.ExemplarMemory(2))
    fit(model, incremental, *blobs([0, 1]))
    with pytest.raises(ValueError, match="Use capacity >= 3"):
        fit(model, incremental, *blobs([2]))
    assert model.num_classes == 2


def test_memory_and_model_that_disagree_are_refused(make, blobs):
    model, incremental = make(ki.ExemplarMemory(8))
    fit(model, incremental, *blobs([0, 1]))
    other, _ = make()
    with pytest.raises(ValueError, match=r"memory holds classes \[.*not know"):
        fit(other, incremental, *blobs([2]))
    floats = blobs([2])[0] + np.float32(0.5)
    with pytest.raises(ValueError, match="float32"):
        fit(model, incremental, floats, np.full(len(floats), 2))


def test_wrong_arguments_of_the_callback_are_refused(make, blobs):
    with pytest.raises(TypeError, match="ExemplarMemory"):
        ki.IncrementalCallback(memory=2000)
    with pytest.raises(TypeError, match="Method"):
        ki.IncrementalCallback(method="eeil")
    with pytest.raises(TypeError, match="augment"):
        ki.IncrementalCallback(augment="crop_flip")
    model, incremental = make()
    with pytest.raises(ValueError, match="expected one"):
        fit(
            model,
            incremental,
            *blobs([0]),
            callbacks=[ki.IncrementalCallback()],
        )


def test_a_class_name_list_too_short_is_refused_before_growth(make, blobs):
    model, incremental = make(class_names=["zero"])
    with pytest.raises(ValueError, match="list of 1 names"):
        fit(model, incremental, *blobs([0, 1]))
    assert model.num_classes == 0


def test_seconds_are_split_into_training_and_the_rest(make, blobs):
    model, incremental = make(ki.ExemplarMemory(8))
    fit(model, incremental, *blobs([0, 1]), epochs=3)
    report = incremental.reports[0]
    assert report.train_seconds > 0 and report.overhead_seconds > 0
    assert report.epochs == 3 and report.exemplars == 8


@pytest.mark.parametrize(
    "augment",
    [ki.augmentation.CropFlip(1), ki.augmentation.StoredEEILAugmentation()],
)
def test_exemplars_are_raw_images_whatever_the_augmentation(
    make, blobs, augment
):
    model, incremental = make(ki.ExemplarMemory(8), augment=augment)
    raw = set()
    for labels in ([0, 1], [2]):
        x, y = blobs(labels)
        raw |= {image.tobytes() for image in x}
        fit(model, incremental, x, y, epochs=1, batch_size=16)
    stored = incremental.memory.samples().all_images()
    assert len(stored) == 8
    assert {image.tobytes() for image in stored} <= raw
    assert stored.dtype == np.uint8


def test_memory_is_updated_with_the_final_network(make, blobs):
    model, incremental = make(ki.ExemplarMemory(18), EEIL)
    fit(model, incremental, *blobs([0, 1]))
    x, y = blobs([2])
    images = tf.data.Dataset.from_tensor_slices(x)

    def order():
        return ki.exemplars.herding_order(model.extract_features(images), 6)

    before = order()
    fit(model, incremental, x, y)
    assert order().tolist() != before.tolist()
    np.testing.assert_array_equal(incremental.memory.images(2), x[order()])


@pytest.mark.slow
def test_a_model_saved_after_a_failed_growth_loads(
    tiny_backbone, blobs, tmp_path
):
    model = ki.IncrementalClassifier(tiny_backbone, capacity=2)
    model.compile(optimizer="sgd")
    incremental = ki.IncrementalCallback(method=ki.FineTune())
    fit(model, incremental, *blobs([0, 1]))
    with pytest.raises(KeyboardInterrupt):
        fit(model, incremental, *blobs([2, 3]), callbacks=[Interrupt()])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = blobs([0, 1])[0]
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )


@pytest.mark.slow
def test_plain_fits_and_growth_between_tasks_keep_the_teacher_in_step(
    tiny_backbone, blobs
):
    model = ki.IncrementalClassifier(tiny_backbone, capacity=2)
    model.compile(optimizer="sgd")
    incremental = ki.IncrementalCallback(method=ki.EEIL())
    fit(model, incremental, *blobs([0, 1]))
    model.add_classes([2, 3, 4])  # beyond the capacity
    model.fit(*blobs([2, 3, 4]), verbose=0)
    history = fit(model, incremental, *blobs([5]))
    assert np.isfinite(history.history["loss"]).all()
    assert model.num_classes == 6


def test_early_stopping_starts_anew_with_each_phase(make, blobs):
    model, incremental = make(ki.ExemplarMemory(8), ki.EEIL(finetune_epochs=4))
    fit(model, incremental, *blobs([0, 1]))
    stopping = keras.callbacks.EarlyStopping(
        "learning_rate", mode="min", patience=2, restore_best_weights=True
    )
    history = fit(
        model, incremental, *blobs([2]), epochs=9, callbacks=[stopping]
    )
    # A constant never improves: the first epoch and two more, in each phase.
    assert history.epoch == [0, 1, 2, 9, 10, 11]


def test_a_plateau_starts_anew_with_each_phase(make, blobs):
    class Constant(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["constant"] = 1.0

    model, incremental = make(
        ki.ExemplarMemory(8),
        ki.EEIL(finetune_epochs=2, learning_rate_factor=lambda epoch: 1.0),
    )
    fit(model, incremental, *blobs([0, 1]))
    rates = []
    seen = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: rates.append(
            float(model.optimizer.learning_rate)
        )
    )
    plateau = keras.callbacks.ReduceLROnPlateau(
        "constant", mode="max", factor=0.5, patience=2
    )
    callbacks = [Constant(), plateau, seen]
    fit(model, incremental, *blobs([2]), epochs=3, callbacks=callbacks)
    # The third epoch is the second without a gain; fine-tuning has one.
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.05, 0.01, 0.01], rtol=1e-6)


def test_a_backup_that_does_not_know_of_phases_is_refused(make, blobs):
    model, incremental = make(ki.ExemplarMemory(8))
    backup = keras.callbacks.BackupAndRestore("backup")
    with pytest.raises(ValueError, match="backup_dir="):
        fit(model, incremental, *blobs([0]), callbacks=[backup])
    assert model.num_classes == 0


@pytest.mark.parametrize("at_once", [3, "auto"])
def test_several_steps_in_one_call_are_refused(tiny_backbone, blobs, at_once):
    model = ki.IncrementalClassifier(tiny_backbone)
    model.compile("sgd", steps_per_execution=at_once)
    with pytest.raises(ValueError, match="steps_per_execution="):
        model.fit(*blobs([0]), callbacks=[ki.IncrementalCallback()], verbose=0)
    assert model.num_classes == 0


def test_the_data_of_another_model_are_not_trained_on(make, blobs):
    model, incremental = make(method=ki.Joint())
    fit(model, incremental, *blobs([0, 1]))
    other, _ = make()
    with pytest.raises(ValueError, match=r"classes \[0, 1\].*does not know"):
        fit(other, incremental, *blobs([0, 1]))
    assert other.num_classes == 0
    fit(model, incremental, *blobs([2]))


def test_what_is_no_array_or_dataset_is_named(make, blobs):
    model, incremental = make()
    batches = iter([blobs([0])])
    with pytest.raises(TypeError, match=r"x is a list_iterator.*from_generat"):
        fit(model, incremental, batches)
    listed = keras.callbacks.CallbackList([incremental], model=model)
    with pytest.raises(TypeError, match=r"Pass callbacks=\[incremental"):
        model.add_classes([0]), model.fit(*blobs([0]), callbacks=listed)


def test_optimizers_that_cannot_be_rebuilt_work_in_every_task(
    tiny_backbone, blobs
):
    model = ki.IncrementalClassifier(tiny_backbone)
    model.compile(optimizer=keras.optimizers.SGD(lambda: 0.1))
    incremental = ki.IncrementalCallback(method=ki.FineTune())
    for labels in ([0, 1], [2]):
        fit(model, incremental, *blobs(labels))
    assert model.num_classes == 3


def test_the_callback_on_another_model_says_where_it_works(
    tiny_backbone, blobs
):
    plain = keras.Sequential([tiny_backbone, keras.layers.Dense(2)])
    plain.compile(loss="mse")
    with pytest.raises(TypeError, match="IncrementalClassifier"):
        plain.fit(*blobs([0, 1]), callbacks=[ki.IncrementalCallback()])


def test_validation_data_come_in_batches_of_fits_batch_size(make, blobs):
    class Batches(keras.callbacks.Callback):
        seen = 0

        def on_test_batch_end(self, batch, logs=None):
            self.seen += 1

    model, incremental = make()
    data = blobs([0, 1], per_class=24)
    for options, expected in (
        ({"batch_size": 12}, 4),
        ({"batch_size": 12, "validation_batch_size": 24}, 2),
        ({}, 2),
    ):
        batches = Batches()
        fit(
            model, incremental, *data, callbacks=[batches],
            validation_data=data, **options,
        )  # fmt: skip
        assert batches.seen == expected


@pytest.mark.slow
def test_the_order_of_an_arrays_bytes_does_not_matter(make, blobs, restored):
    x, y = blobs([0, 1, 2])
    model, _ = make()
    chosen = []
    for dtype in ("<u2", ">u2", ">f4"):
        memory = ki.ExemplarMemory(9)
        incremental = ki.IncrementalCallback(memory, ki.FineTune())
        with restored(model):
            keras.utils.set_random_seed(0)
            fit(model, incremental, x.astype(dtype), y)
        chosen.append([np.array(memory.images(k), "f4") for k in (0, 1, 2)])
    for images in chosen[1:]:
        np.testing.assert_array_equal(images, chosen[0])


def test_a_memory_that_lacks_known_classes_is_refused(make, blobs):
    model, incremental = make(ki.ExemplarMemory(8))
    fit(model, incremental, *blobs([0, 1]))
    model.add_classes([2])
    with pytest.raises(ValueError, match=r"no exemplar of classes \[2\]"):
        fit(model, incremental, *blobs([3]))


def test_unknown_labels_in_a_validation_dataset_are_a_clear_error(make, blobs):
    model, incremental = make(ki.ExemplarMemory(8))
    data = tf.data.Dataset.from_tensor_slices(blobs([0, 77])).batch(8)
    with pytest.raises(ValueError, match=r"\[77\].*neither knows nor"):
        fit(model, incremental, *blobs([0]), validation_data=data)
    assert model.num_classes == 0


def test_joint_without_its_past_warns(make, blobs, caplog):
    model, _ = make()
    for labels in ([0], [1]):
        incremental = ki.IncrementalCallback(method=ki.Joint())
        fit(model, incremental, *blobs(labels))
    assert "no data of the 1 classes" in caplog.text


@pytest.mark.parametrize("seed", [-1, 0.5])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(ValueError, match="seed="):
        ki.IncrementalCallback(seed=seed)
