"""Methods in files of their own, by public names alone, do all ours can do."""

import importlib
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki

FOLDER = pathlib.Path(__file__).parent
METHODS = {
    "weight_aligning:WeightAligning": 0.90,
    "nearest_mean:NearestMeanOfExemplars": 0.90,
    "balanced_softmax:BalancedReplay": 0.90,
    "ridge:Ridge": 0.90,
    "branched_rehearsal:SimpleBranchedRehearsal": 0.92,
}
LONGEST = 60
every_method = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.fixture(scope="module")
def scenario():
    return ki.ClassIncrementalScenario.from_arrays(
        *ki.scenarios.load_digits(), classes_per_task=[4, 3, 3]
    )


def method_of(name):
    module, kind = name.split(":")
    return getattr(importlib.import_module(module), kind)()


def start(name, make_backbone, branch_at, **options):
    """Returns a compiled model and the callback, from one seed."""
    keras.utils.set_random_seed(0)
    model = ki.IncrementalClassifier(make_backbone(), 10, branch_at=branch_at)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.02),
    )
    return model, ki.IncrementalCallback(
        ki.ExemplarMemory(100), method_of(name), **options
    )


def learn(model, incremental, tasks, epochs, *callbacks):
    for task in tasks:
        model.fit(
            task.train.batch(64),
            epochs=epochs,
            callbacks=[incremental, *callbacks],
            verbose=0,
        )


class Kill(keras.callbacks.Callback):
    """Interrupts a run once so many epochs have ended."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs -= 1
        if self.epochs < 0:
            raise KeyboardInterrupt


def test_each_file_is_short_and_uses_public_names_alone():
    wrong = []
    for name in METHODS:
        text = (FOLDER / f"{name.split(':')[0]}.py").read_text("utf-8")
        if text.count("\n") > LONGEST or "keras_incremental." in text:
            wrong.append(name)
        if re.search(r"(?<!self)\._[a-z]", text):
            wrong.append(name)
    assert not wrong


def served_names(folder, images):
    """Returns what a published version calls each image."""
    served = tf.saved_model.load(str(folder))
    images = tf.cast(images, tf.float32)
    answers = served.signatures["serving_default"](images)
    return answers["classes"][:, 0].numpy().astype(str).tolist()


@pytest.mark.slow
@every_method
def test_survives_saving_and_publication(
    name, blobs, make_tiny_backbone, tmp_path
):
    model = ki.IncrementalClassifier(make_tiny_backbone(), 4, branch_at=0.5)
    model.compile(keras.optimizers.SGD(0.01))
    incremental = ki.IncrementalCallback(
        ki.ExemplarMemory(8), method_of(name), measure_statistics=False
    )
    for labels in ([3, 1], [0, 2]):
        model.fit(*blobs(labels), verbose=0, callbacks=[incremental])
    images = blobs([0, 1, 2, 3])[0]
    scores = model.predict(images, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        loaded.predict(images, verbose=0), scores, rtol=1e-4, atol=1e-4
    )
    served = ki.export.publish(model, tmp_path / "served")
    names = np.array(model.class_names)[scores.argmax(axis=1)]
    assert served_names(served, images) == names.tolist()


@pytest.mark.slow
@every_method
def test_learns_the_digits(name, scenario):
    model, incremental = start(
        name, lambda: ki.backbones.small(scenario.image_shape), "stage1"
    )
    learn(model, incremental, scenario, 20)
    data = scenario[2].seen_test.batch(450)
    accuracy = model.evaluate(data, return_dict=True, verbose=0)["accuracy"]
    assert accuracy >= METHODS[name]


@pytest.mark.slow
@every_method
def test_a_killed_run_ends_with_the_same_weights(
    name, make_tiny_backbone, blobs, tmp_path
):
    data = blobs(range(7), per_class=30)
    small = ki.ClassIncrementalScenario.from_arrays(
        *data, *data, classes_per_task=[4, 3]
    )
    tiny = make_tiny_backbone, 0.5
    model, incremental = start(name, *tiny)
    learn(model, incremental, small, 3)
    for kill in (1, 3 + 1):
        folder = tmp_path / str(kill)
        resumed, again = start(name, *tiny, backup_dir=folder)
        with pytest.raises(KeyboardInterrupt):
            learn(resumed, again, [small[0]], 3, Kill(kill))
            learn(resumed, again, [small[1]], 3, Kill(kill - 3))
            raise KeyboardInterrupt  # a closed form may have no epoch to kill
        resumed, again = start(name, *tiny, backup_dir=folder)
        learn(resumed, again, small, 3)
        ours, theirs = model.state_variables(), resumed.state_variables()
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(mine.numpy(), other.numpy())
