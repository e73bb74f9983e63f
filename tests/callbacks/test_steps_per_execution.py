"""Several steps in one call: the same training, in fewer calls."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki


class Calls(keras.callbacks.Callback):
    """Writes down the first and the last step of each call."""

    def __init__(self):
        super().__init__()
        self.begun, self.ended = [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.begun.append(batch)

    def on_train_batch_end(self, batch, logs=None):
        self.ended.append(batch)


@pytest.fixture(name="train", scope="module")
def _train(make_tiny_backbone, blobs):
    """Returns a function that learns two tasks, so many steps a call."""

    def run(
        callbacks=(),
        method=None,
        tasks=([0, 1], [2, 3]),
        epochs=3,
        **options,
    ):
        model = ki.IncrementalClassifier(make_tiny_backbone())
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), **options)
        incremental = ki.IncrementalCallback(
            ki.ExemplarMemory(9),
            method
            or ki.EEIL(
                finetune_epochs=2,
                gradient_noise=ki.methods.GradientNoise(eta=1e-2),
            ),
        )
        histories = [
            model.fit(
                *blobs(labels),
                batch_size=5,  # 24 and 33 images: 5 and 7 steps; then 2 or 3
                epochs=epochs,
                verbose=0,
                validation_data=blobs(labels, seed=1),
                callbacks=[incremental, *callbacks],
            ).history
            for labels in tasks
        ]
        return model, histories

    return run


@pytest.fixture(name="by_one", scope="module")
def _by_one(train):
    """Histories, weights and number of steps of single steps."""
    model, histories = train()
    weights = [np.array(v) for v in model.state_variables()]
    return histories, weights, int(model.optimizer.iterations)


@pytest.fixture(name="by_three", scope="module")
def _by_three(train):
    return train(steps_per_execution=3)


@pytest.fixture
def taught(by_three, restored):
    """A model of four classes, three steps a call; a test's changes go."""
    model, _ = by_three
    with restored(model):
        yield model


# 3 ends one of the phases at the end of a call, 100 none.
@pytest.mark.parametrize(
    "at_once", [3, pytest.param(100, marks=pytest.mark.slow)]
)
def test_weights_and_metrics_are_those_of_single_steps(
    train, by_one, by_three, at_once
):
    expected, weights, steps = by_one
    model, histories = (
        by_three if at_once == 3 else train(steps_per_execution=at_once)
    )
    for one, other in zip(model.state_variables(), weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert histories == expected
    assert int(model.optimizer.iterations) == steps
    assert model.train_function_traces == 1


@pytest.mark.parametrize("at_once", [0, -1, 2.5, "auto"])
def test_no_number_of_steps_is_refused_and_nothing_is_learned(
    at_once, tiny_backbone, blobs
):
    model = ki.IncrementalClassifier(tiny_backbone)
    model.compile("sgd", steps_per_execution=at_once)
    with pytest.raises(ValueError, match=r"steps_per_execution=.*integer, 1"):
        model.fit(*blobs([0]), callbacks=[ki.IncrementalCallback()], verbose=0)
    assert model.num_classes == 0


@pytest.mark.slow
def test_callbacks_see_the_first_and_the_last_step_of_a_call(train):
    calls = Calls()
    train([calls], method=ki.FineTune(), steps_per_execution=3)
    first, second = [0, 3] * 3, [0, 3] * 3
    assert calls.begun == first + second
    assert calls.ended == [2, 4] * 6


@pytest.mark.slow
def test_a_stop_within_an_epoch_does_not_shift_the_next(taught, blobs):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    calls = Calls()
    incremental = ki.IncrementalCallback(method=ki.FineTune())
    for label in (7, 8):
        taught.fit(
            *blobs([label], per_class=24),
            batch_size=5,
            epochs=3,
            verbose=0,
            callbacks=[incremental, Stop(), calls],
        )
    assert calls.begun == [0] * 2  # one call of each task
    assert max(calls.ended) == 2


@pytest.mark.slow
def test_eager_steps_train_as_well(train):
    options = {
        "method": ki.FineTune(),
        "run_eagerly": True,
        "tasks": ([0, 1],),
        "epochs": 1,
    }
    _, expected = train(**options)
    _, found = train(**options, steps_per_execution=3)
    assert found == expected


@pytest.mark.slow
def test_a_plain_fit_after_it_has_all_its_steps(taught, blobs):
    model, traces = taught, taught.train_function_traces
    x, y = blobs([0, 1, 2, 3])  # 48 images: 7 batches of 7
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(7)
    for source, number, expected in (
        (data, None, 14),
        (data.repeat(), 4, 8),  # Keras would run 6 in each of two epochs
        (data.repeat(), 3, 6),
    ):
        before = int(model.optimizer.iterations)
        model.fit(source, epochs=2, verbose=0, steps_per_epoch=number)
        assert int(model.optimizer.iterations) - before == expected
    # Of data that end, and of labels of another dtype than the callback's.
    assert model.train_function_traces <= traces + 2


def test_finite_data_with_a_number_of_steps_are_left_to_keras(
    taught, tiny_backbone, blobs
):
    model = taught
    plain = keras.Sequential([tiny_backbone, keras.layers.Dense(4)])
    plain.compile("sgd", "mse", steps_per_execution=3)
    steps = []
    for one in (plain, model):
        data = tf.data.Dataset.from_tensor_slices(blobs([0, 1], per_class=40))
        before = int(one.optimizer.iterations)
        one.fit(data.batch(4), epochs=6, steps_per_epoch=4, verbose=0)
        steps.append(int(one.optimizer.iterations) - before)
    assert steps[0] == steps[1]


def test_single_batches_and_missing_parts_work_after_it(taught, blobs):
    model = taught
    x, y = blobs([0, 1])
    before = int(model.optimizer.iterations)
    model.train_on_batch(x, y)
    assert int(model.optimizer.iterations) == before + 1
    endless = tf.data.Dataset.from_tensor_slices((x, y)).batch(5).repeat()
    model.evaluate(endless, steps=2, verbose=0)
    assert model.test_on_batch(x, y, return_dict=True) == pytest.approx(
        model.evaluate(x, y, verbose=0, return_dict=True), rel=1e-5
    )


def test_predict_takes_the_steps_it_is_told(taught, blobs):
    model = taught
    x, _ = blobs([0, 1])
    data = tf.data.Dataset.from_tensor_slices(x).batch(4)
    assert len(model.predict(data, steps=4, verbose=0)) == 16
    assert len(model.predict(data.repeat(), steps=7, verbose=0)) == 28


def test_evaluate_of_endless_data_takes_the_steps_it_is_told(taught, blobs):
    model = taught
    x, y = blobs([0, 1, 2, 3])
    y[10:] = 3 - y[10:]  # so that more steps give another accuracy
    endless = tf.data.Dataset.from_tensor_slices((x, y)).batch(5).repeat()
    found = model.evaluate(endless, steps=2, verbose=0, return_dict=True)
    expected = model.evaluate(x[:10], y[:10], verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-5)
    whole = model.evaluate(x, y, verbose=0, return_dict=True)
    assert whole["accuracy"] != expected["accuracy"]


@pytest.mark.slow
def test_evaluation_of_finite_data_takes_the_steps_it_is_told(taught, blobs):
    model = taught
    x, y = blobs([0, 1, 2, 3], per_class=8)  # 32 images: 8 batches
    y[10:] = 3 - y[10:]  # so that other steps give another accuracy
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    for steps in (2, 4, 100):
        rows = slice(4 * steps)
        expected = model.evaluate(x[rows], y[rows], verbose=0, return_dict=True)
        found = model.evaluate(data, steps=steps, verbose=0, return_dict=True)
        assert found == pytest.approx(expected, rel=1e-5)
        for callbacks in ([Still()], [Still(), ki.IncrementalCallback()]):
            history = model.fit(
                x,
                y,
                epochs=2,
                verbose=0,
                validation_data=data,
                validation_steps=steps,
                callbacks=callbacks,
            ).history
            assert history["val_accuracy"] == pytest.approx(
                [expected["accuracy"]] * 2, rel=1e-5
            )


class Still(keras.callbacks.Callback):
    """Holds the model as it is."""

    def on_train_begin(self, logs=None):
        self.model.optimizer.learning_rate = 0.0
        self.kept = [v.numpy() for v in self.model.weights]

    def on_epoch_end(self, epoch, logs=None):
        self._put_back()

    def on_train_batch_end(self, batch, logs=None):
        self._put_back()

    def _put_back(self):
        for variable, value in zip(self.model.weights, self.kept, strict=True):
            variable.assign(value)


def test_the_progress_bar_ends_at_the_last_step(taught, blobs, capsys):
    taught.fit(
        *blobs([9]),
        batch_size=3,
        verbose=1,
        callbacks=[ki.IncrementalCallback(method=ki.FineTune())],
    )
    shown = capsys.readouterr().out
    assert "4/4" in shown
    assert "6/4" not in shown
