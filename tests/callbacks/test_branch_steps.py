"""Tasks that add a branch, as a user would run them; and their undoing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.methods import partial_sharing
from keras_incremental.networks import BranchedNetwork, SingleNetwork


def network():
    """Two convolutions with batch normalisation; cut after the first."""

    def block(name):
        return [
            keras.layers.Conv2D(8, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.8),
            keras.layers.ReLU(name=name),
        ]

    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Rescaling(1 / 255),
            *block("shared"),
            *block("own"),
            keras.layers.Flatten(),
        ]
    )


@pytest.fixture
def make():
    """Returns a function that makes a compiled model and a callback."""

    def pair(memory=None, branch_at="shared", backbone=None, **compiled):
        keras.utils.set_random_seed(0)
        backbone = network() if backbone is None else backbone
        model = ki.IncrementalClassifier(backbone, branch_at=branch_at)
        compiled.setdefault(
            "optimizer", keras.optimizers.SGD(0.05, momentum=0.9)
        )
        model.compile(**compiled)
        return model, sharing(memory)

    return pair


@pytest.fixture(name="with_base", scope="module")
def _with_base(blobs):
    """A model with a base of the classes 40 and 7, traced and trained."""
    keras.utils.set_random_seed(0)
    model = ki.IncrementalClassifier(network(), branch_at="shared")
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9))
    fit(model, sharing(), *blobs([40, 7]))
    return model


@pytest.fixture(name="with_branch", scope="module")
def _with_branch(blobs):
    """A model with a base and a branch of the classes 300 and 5."""
    keras.utils.set_random_seed(0)
    model = ki.IncrementalClassifier(network(), branch_at="shared")
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9))
    for labels in ([40, 7], [300, 5]):
        fit(model, sharing(), *blobs(labels))
    return model


@pytest.fixture
def base(with_base, restored):
    """The model with a base; all that a test does to it is undone."""
    with restored(with_base):
        yield with_base


@pytest.fixture
def branched(with_branch, restored):
    """The model with a branch; all that a test does to it is undone."""
    with restored(with_branch):
        yield with_branch


def sharing(memory=None, **options):
    method = ki.PartialSharing(**options)
    return ki.IncrementalCallback(memory, method, measure_statistics=False)


def with_exemplars(model, data, capacity):
    """Returns a memory of what a model knows already."""
    memory = ki.ExemplarMemory(capacity)
    memory.add_from(model, *data)
    return memory


def add_branch(model, labels):
    model.network = BranchedNetwork.on(model.network).with_branch()
    model.add_classes(labels)


def logits_of(model, images):
    return model.logits_and_scores(images)[0]


def fit(model, incremental, x, y=None, epochs=1, callbacks=(), **options):
    return model.fit(
        x,
        y,
        batch_size=8,
        epochs=epochs,
        verbose=0,
        callbacks=[incremental, *callbacks],
        **options,
    )


def values(weights):
    return [keras.ops.convert_to_numpy(weight).copy() for weight in weights]


# A step is all or nothing.


class Stop(keras.callbacks.Callback):
    """Interrupts the training, after a look at all logits."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.predict(np.zeros((4, 4, 4, 1), "uint8"), verbose=0)
        raise KeyboardInterrupt


class State:
    """What a step that fails must leave as it was."""

    def __init__(self, model, memory, x):
        self.model, self.memory, self.x = model, memory, x
        self.weights = list(model.weights)
        self.before = values(self.weights)
        self.seen = self.look()

    def look(self):
        model, memory = self.model, self.memory
        network = model.network
        branches = getattr(network, "branches", [])
        layers = [*model.backbone.layers, network.base().head, *branches]
        layers += [n for b in branches for n in (*b.backbone.layers, b.head)]
        return {
            "labels": model.labels,
            "names": model.class_names,
            "heads": model.heads,
            "flags": [layer.trainable for layer in layers],
            "trained": [id(v) for v in model.trainable_variables],
            "logits": model.predict(self.x, verbose=0).tolist(),
            "raw": logits_of(model, self.x).tolist(),
            "rule": id(model.score_rule),
            "memory": {k: memory.images(k).tolist() for k in memory.labels},
            "rate": float(model.optimizer.learning_rate),
        }

    def check(self, may_grow=False):
        seen = self.look()
        if may_grow:  # a larger head is no other model, and stays
            del seen["trained"], self.seen["trained"]
        else:
            assert len(self.model.weights) == len(self.weights)
        for key in seen:
            assert seen[key] == self.seen[key], key
        now = {id(weight) for weight in self.model.weights}
        assert {id(weight) for weight in self.weights} <= now
        for weight, value in zip(
            values(self.weights), self.before, strict=True
        ):
            np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize(
    ("known", "width", "new"),
    [
        pytest.param([40, 7], 1.0, [1, 2], marks=pytest.mark.slow),
        pytest.param([40, 7, 300, 5], 1.0, [1, 2], marks=pytest.mark.slow),
        pytest.param([40, 7, 300, 5, 6], 1.0, [1], marks=pytest.mark.slow),
        pytest.param([40, 7, 300, 5], 0.5, [1, 2], marks=pytest.mark.slow),
        pytest.param(
            [40, 7, 300, 5], 1.0, range(100, 120), marks=pytest.mark.slow
        ),
    ],
    ids=["first", "second", "third", "thinner", "larger head"],
)
def test_an_interrupted_branch_leaves_no_trace(
    request, blobs, known, width, new
):
    model = request.getfixturevalue("branched" if known[2:] else "base")
    memory = with_exemplars(model, blobs(known[:4], per_class=6), 40)
    if known[4:]:
        fit(model, sharing(memory), *blobs(known[4:], per_class=6))
    x, _ = blobs([40, 7, 1], per_class=4)
    state = State(model, memory, x)
    incremental = sharing(memory, width=width)
    task = blobs(new, per_class=4)
    with pytest.raises(KeyboardInterrupt):
        fit(model, incremental, *task, callbacks=[Stop()])
    state.check(may_grow=len(new) > 16)
    fit(model, incremental, *task)
    assert set(model.labels[-len(new) :]) == set(new)
    known = len(state.seen["labels"])
    after = logits_of(model, x)
    assert after[:, :known].tolist() == state.seen["raw"]
    assert after.shape == (12, known + len(new))
    assert incremental.reports[-1].details["calibrated"]


@pytest.mark.slow
def test_a_failure_after_the_memory_was_updated_undoes_both(
    branched, blobs, monkeypatch
):
    memory = with_exemplars(branched, blobs([40, 7, 300, 5]), 10)
    incremental = sharing(memory)
    state = State(branched, memory, blobs([40, 300])[0])

    def fail(*arguments):
        assert 1 in memory
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(partial_sharing, "fit_calibration", fail)
        with pytest.raises(KeyboardInterrupt):
            fit(branched, incremental, *blobs([1]))
    state.check()
    fit(branched, incremental, *blobs([1]))
    assert 1 in memory and branched.num_classes == 5


@pytest.mark.slow
def test_a_failure_while_the_branch_is_added_leaves_the_base(
    make, blobs, monkeypatch
):
    model, incremental = make()
    fit(model, incremental, *blobs([40, 7]))
    x, _ = blobs([40, 7])
    logits = model.predict(x, verbose=0)

    def fail(*args, **options):
        raise ValueError("no room for another head")

    with monkeypatch.context() as patch:
        patch.setattr(BranchedNetwork, "grow", fail)
        with pytest.raises(ValueError, match="no room"):
            fit(model, incremental, *blobs([1]))
    assert set(model.labels) == {40, 7}
    assert isinstance(model.network, SingleNetwork)
    np.testing.assert_array_equal(model.predict(x, verbose=0), logits)
    assert all(layer.trainable for layer in model.backbone.layers)


@pytest.mark.slow
def test_a_users_frozen_layers_are_as_before_after_a_failed_first_branch(
    make, blobs
):
    backbone = network()
    backbone.layers[1].trainable = False
    model, incremental = make(backbone=backbone)
    before = [layer.trainable for layer in backbone.layers]
    assert before.count(False) == 1
    fit(model, incremental, *blobs([40, 7]))
    kernel = values(backbone.layers[1].weights)
    with pytest.raises(KeyboardInterrupt):
        fit(model, incremental, *blobs([1]), callbacks=[Stop()])
    assert [layer.trainable for layer in backbone.layers] == before
    incremental.method = ki.FineTune()  # trains all that is not frozen
    fit(model, incremental, *blobs([1]))
    np.testing.assert_array_equal(backbone.layers[1].weights[0], kernel[0])


# Keras' own callbacks and options.


def newest_of(model):
    return model.network.branches[-1]


@pytest.mark.slow
def test_early_stopping_restores_the_branchs_best_weights(branched, blobs):
    incremental, best = sharing(ki.ExemplarMemory(10)), []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            best.append(values(newest_of(self.model).backbone.weights))

    stopping = keras.callbacks.EarlyStopping(
        "learning_rate", mode="min", patience=2, restore_best_weights=True
    )
    history = fit(
        branched,
        incremental,
        *blobs([1, 2]),
        epochs=9,
        callbacks=[Watch(), stopping],
    )
    assert history.epoch == [0, 1, 2]  # the first is best, and two more
    newest = values(newest_of(branched).backbone.weights)
    for weight, first, last in zip(newest, best[0], best[-1], strict=True):
        np.testing.assert_array_equal(weight, first)
        assert (weight != last).any()
    assert incremental.reports[-1].epochs == 3


def test_a_plateau_lowers_the_rate_of_this_task_alone(branched, blobs):
    for labels in ([1], [2]):
        plateau = keras.callbacks.ReduceLROnPlateau(
            "loss", factor=0.5, patience=1, min_delta=1e9
        )
        history = fit(
            branched, sharing(), *blobs(labels), epochs=4, callbacks=[plateau]
        )
        rates = history.history["learning_rate"]
        np.testing.assert_allclose(rates, [0.05, 0.05, 0.025, 0.0125])
        rate = float(branched.optimizer.learning_rate)
        assert rate == pytest.approx(0.05)


@pytest.mark.slow
def test_validation_data_may_hold_new_and_old_classes(branched, blobs):
    data, incremental = blobs([40, 7, 300, 1], seed=1), sharing()
    history = fit(
        branched, incremental, *blobs([1]), epochs=2, validation_data=data
    )
    logs = branched.evaluate(*data, verbose=0, return_dict=True)
    for name in ("loss", "accuracy"):
        last = history.history[f"val_{name}"][-1]
        assert last == pytest.approx(logs[name], rel=1e-4)
    assert set(history.history) == {
        "loss", "classification_loss", "accuracy", "val_loss", "val_accuracy",
        "learning_rate",
    }  # fmt: skip


def test_a_branchs_loss_is_over_its_own_classes(branched, blobs):
    """By hand from the logits of the first batch, which holds all images."""
    model = branched
    model.optimizer.learning_rate = 1e-9
    x, y = blobs([1, 2, 3], per_class=2)
    history = fit(model, sharing(), x, y)
    logits, _ = model.network.trained(model.network.frozen(x), training=True)
    losses = keras.losses.sparse_categorical_crossentropy(
        model.classes.to_units(y) - 4, logits, from_logits=True
    )
    assert history.history["loss"] == [
        pytest.approx(float(np.mean(losses)), rel=1e-3)
    ]


def test_regularisation_is_that_of_the_newest_branch(make, blobs):
    backbone = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Conv2D(2, 3, kernel_regularizer="l2", name="shared"),
            keras.layers.Conv2D(
                2, 1, kernel_regularizer=keras.regularizers.L2(0.5)
            ),
            keras.layers.Flatten(),
        ]
    )
    model, _ = make(backbone=backbone)
    model.add_classes([40])
    add_branch(model, [1])
    add_branch(model, [2])
    newest = newest_of(model)
    kernels = newest.backbone.trainable_variables[0], newest.head_weights(0)[0]
    expected = 0.5 * sum(np.sum(np.square(kernel)) for kernel in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_a_compiled_loss_and_metrics_work_in_every_task(make, blobs):
    model, incremental = make(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalCrossentropy(from_logits=True)],
    )
    model.add_classes([40, 7])
    for labels in ([300, 5], [1]):
        logs = fit(model, incremental, *blobs(labels)).history
        assert np.isfinite(logs["sparse_categorical_crossentropy"]).all()


@pytest.mark.slow
def test_a_learning_rate_schedule_starts_anew_with_each_branch(make, blobs):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 3, 0.5)
    model, incremental = make(optimizer=keras.optimizers.SGD(schedule))
    model.add_classes([40, 7])
    for labels in ([300, 5], [1, 2]):
        history = fit(model, incremental, *blobs(labels), epochs=2)
        rates = history.history["learning_rate"]  # after 3 and after 6 steps
        np.testing.assert_allclose(rates, [0.025, 0.0125])


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer", ["adamw", pytest.param("rmsprop", marks=pytest.mark.slow)]
)
def test_other_optimizers_train_branches(make, blobs, optimizer):
    model, incremental = make(optimizer=optimizer)
    model.add_classes([40, 7])
    for labels in ([300, 5], [1]):
        fit(model, incremental, *blobs(labels))
    assert model.train_function_traces == 1


# Labels, networks, policies.


@pytest.mark.slow
def test_string_labels_name_the_classes_of_branches(make, blobs):
    memory = ki.ExemplarMemory(9)
    model, incremental = make(memory)
    for labels in (["ram", "ewe"], ["lamb"], ["goat", "kid"]):
        data = tf.data.Dataset.from_tensor_slices(blobs(labels)).batch(8)
        fit(model, incremental, data)
    assert sorted(model.labels) == ["ewe", "goat", "kid", "lamb", "ram"]
    assert model.labels[2] == "lamb" == model.class_names[2]
    assert memory.labels == model.labels and len(memory) == 9
    names = model.classify(blobs(["kid"])[0], verbose=0)
    assert set(names) <= set(model.class_names)


def test_class_names_are_those_of_the_callback(branched, blobs):
    incremental = sharing()
    incremental.class_names = {1: "one"}
    fit(branched, incremental, *blobs([1, 2]))
    assert set(branched.class_names[4:]) == {"one", "2"}


@pytest.mark.slow
def test_a_base_and_branches_of_one_class_each(make, blobs):
    model, incremental = make(ki.ExemplarMemory(9))
    for label in (40, 7, 300):
        history = fit(model, incremental, *blobs([label]))
        assert history.history["accuracy"][-1] == 1.0
    assert model.labels == [40, 7, 300]
    assert np.isfinite(model.predict(blobs([7])[0], verbose=0)).all()


@pytest.mark.slow
@pytest.mark.parametrize("branch_at", [0.0, 1.0])
def test_nothing_or_all_of_the_network_is_shared(make, blobs, branch_at):
    model, incremental = make(branch_at=branch_at)
    fit(model, incremental, *blobs([40, 7]), epochs=3)
    x, _ = blobs([40, 7])
    before = logits_of(model, x)
    for labels in ([300, 5], [1, 2]):
        history = fit(model, incremental, *blobs(labels), epochs=8)
        assert history.history["accuracy"][-1] > 0.8
        np.testing.assert_array_equal(logits_of(model, x)[:, :2], before)
    assert model.train_function_traces == 2
    own = {0.0: 8, 1.0: 2}  # two convolutions, their norms and the head
    assert len(model.trainable_variables) == own[branch_at]


@pytest.mark.slow
def test_the_fixtures_sequential_backbone_grows_branches(
    make, tiny_backbone, blobs
):
    flatten = tiny_backbone.layers[1].name
    model, incremental = make(
        ki.ExemplarMemory(20), flatten, backbone=tiny_backbone
    )
    for labels in ([40, 7], [300, 5]):
        fit(model, incremental, *blobs(labels), epochs=10)
    x, y = blobs([40, 7, 300, 5], seed=3)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["accuracy"] > 0.6
    assert model.branch_at == flatten


@pytest.mark.slow
def test_dropout_and_random_layers_of_a_branch_are_off_in_inference(
    make, blobs
):
    backbone = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Rescaling(1 / 255, name="shared"),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dropout(0.5, seed=1),
        ]
    )
    model, incremental = make(backbone=backbone)
    model.add_classes([40, 7])
    fit(model, incremental, *blobs([300, 5]))
    x, _ = blobs([40, 7])
    before = model.predict(x, verbose=0)
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)
    fit(model, incremental, *blobs([1]))
    np.testing.assert_array_equal(model.predict(x, verbose=0)[:, :4], before)


@pytest.mark.slow
def test_half_precision_outputs_in_a_file_train_a_branch(make, blobs):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model, incremental = make()
    finally:
        keras.config.set_dtype_policy(before)
    model.add_classes([40, 7])
    incremental.cache_bytes = 100
    x, _ = blobs([40, 7])
    raw = logits_of(model, x)
    history = fit(model, incremental, *blobs([300, 5]), epochs=3)
    assert np.isfinite(history.history["loss"]).all()
    np.testing.assert_array_equal(logits_of(model, x)[:, :2], raw)
    for weight in model.trainable_variables:
        assert weight.dtype == "float32"
    frozen = model.network.frozen(x)
    assert frozen.dtype == "bfloat16"


@pytest.mark.slow
def test_mobilenet_grows_a_branch(make):
    backbone = keras.applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, include_top=False, weights=None
    )
    model, incremental = make(branch_at=0.7, backbone=backbone)
    images = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), "uint8")
    model.add_classes([0, 1])
    before = model.predict(images, verbose=0)
    statistics = values(model.backbone.weights)
    fit(model, incremental, images, np.array([2, 3] * 4))
    after = model.predict(images, verbose=0)
    assert after.shape == (8, 4)
    # A branched model is another function than the base: equal to rounding.
    np.testing.assert_allclose(after[:, :2], before, atol=1e-5)
    assert 0.7 <= model.network.shared_layers < 0.8
    for weight, value in zip(
        values(model.backbone.weights), statistics, strict=True
    ):
        np.testing.assert_array_equal(weight, value)
