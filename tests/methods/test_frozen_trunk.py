"""A trunk that is frozen from the start; heads that start from a solution."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.closed_form import LDA, Sums
from keras_incremental.methods import TaskStep
from keras_incremental.methods.warm_start import warm_start
from keras_incremental.networks import FrozenTrunkNetwork, OneHeadNetwork
from keras_incremental.samples import ArraySamples
from keras_incremental.score_rules import AffinePerHead

Counting = keras.saving.get_registered_object("test_methods>Counting")


class Same:
    """An on-line augmentation that changes nothing."""

    stored = False

    def __call__(self, images, seed):
        return images


def make_backbone():
    """A trunk of one dense layer, and a tail of one."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Rescaling(1 / 255),
            Counting(),
            keras.layers.Flatten(),
            keras.layers.Dense(16, activation="relu", name="cut"),
            keras.layers.Dense(12, use_bias=False),
            keras.layers.BatchNormalization(momentum=0.8),
            keras.layers.ReLU(),
        ]
    )


def make_model():
    model = ki.IncrementalClassifier(
        make_backbone(), capacity=8, branch_at="cut", freeze_trunk=True
    )
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    return model


def learn(
    model, method, blobs, tasks, epochs=2, memory=None, augment=None, **options
):
    """Fits the tasks; returns the images that ran through the trunk in each."""
    options = {"measure_statistics": False, **options}
    incremental = ki.IncrementalCallback(
        memory, method, augment=augment, **options
    )
    seen = []
    for labels in tasks:
        Counting.images = 0
        model.fit(
            *blobs(labels, per_class=30),
            epochs=epochs,
            verbose=0,
            callbacks=[incremental],
        )
        seen.append(Counting.images)
    return seen


def values(variables):
    return [keras.ops.convert_to_numpy(v) for v in variables]


@pytest.mark.slow
def test_the_trunk_runs_once_for_each_copy_of_an_image(lent, blobs):
    model, copies = lent(make_model), 3
    trunk = values(model.network.trunk.variables)
    tail = values(model.network.tail.variables)
    method = ki.Replay(copies=copies)
    memory = ki.ExemplarMemory(20)
    seen = learn(
        model, method, blobs, [[0, 1], [2]], 4, memory, augment=Same(),
        measure_statistics=True,
    )  # fmt: skip
    # One image more probes a shape, for each source.
    assert seen == [copies * 60 + 1, copies * (30 + 20) + 2]
    for mine, other in zip(trunk, model.network.trunk.variables, strict=True):
        np.testing.assert_array_equal(mine, other)
    for mine, other in zip(tail, model.network.tail.variables, strict=True):
        assert (mine != other.numpy()).any()
    x, y = blobs([0, 1, 2], seed=9)
    assert model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"] > 0.6


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        pytest.param(
            ki.EEIL(finetune_epochs=1, copies=2),
            # New images are ranked for the balanced set, which is cached.
            [2 * 60 + 1, 2 * (60 + 20) + 2 + 60 + 2 * 40 + 1],
            marks=pytest.mark.slow,
        ),
        (ki.Joint(copies=2), [2 * 60 + 1, 2 * (60 + 60) + 2]),
    ],
)
def test_stages_and_past_data_are_cached_as_well(method, expected, lent, blobs):
    """By hand; one image more probes a shape, for each source."""
    memory = None if method.keeps_all_data else ki.ExemplarMemory(20)
    tasks = [[0, 1], [2, 3]]
    seen = learn(lent(make_model), method, blobs, tasks, 3, memory, Same())
    assert seen == expected


@pytest.mark.slow
def test_a_frozen_trunk_is_saved_and_adopted(lent, blobs, tmp_path):
    model = lent(make_model)
    model.add_classes([0, 1])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.network) is FrozenTrunkNetwork
    x, _ = blobs([0, 1])
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5
    )
    trained = make_backbone()
    trained.add(keras.layers.Dense(2))
    adopted = ki.IncrementalClassifier.from_classifier(
        trained, ["a", "b"], branch_at="cut", freeze_trunk=True
    )
    assert type(adopted.network) is FrozenTrunkNetwork
    assert len(adopted.trainable_variables) == 3 + 2


@pytest.mark.slow
def test_branches_at_an_earlier_place_train_all_that_is_behind_it(lent, blobs):
    model = lent(make_model)
    learn(model, ki.PartialSharing(), blobs, [[0, 1]], epochs=1)
    whole = model.with_branch_at(0.0)
    trunk = values(whole.network.trunk.variables + whole.backbone.variables)
    learn(whole, ki.PartialSharing(), blobs, [[2, 3]], epochs=1)
    (branch,) = whole.network.branches
    assert len(branch.trainable_variables) == 2 + 3 + 2
    kernel = branch.backbone.get_layer("cut").kernel
    assert (kernel.numpy() != model.backbone.get_layer("cut").kernel).any()
    after = values(whole.network.trunk.variables + whole.backbone.variables)
    for mine, other in zip(trunk, after, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.fixture(name="beside", scope="module")
def _beside(blobs):
    """A model whose pretrained base is whole, and what the base was before."""
    model = make_model()
    before = values(model.backbone.variables)
    method = ki.BranchedRehearsal(
        free_tasks=0, clone_base=True, closed_form_weight=0.5
    )
    memory = ki.ExemplarMemory(20)
    tasks = [[0, 1], [2, 3]]
    learn(model, method, blobs, tasks, 1, memory, measure_statistics=True)
    return model, before


@pytest.mark.slow
def test_without_free_tasks_the_pretrained_base_stays_as_it_is(beside):
    model, before = beside
    assert type(model.network) is OneHeadNetwork
    assert len(model.network.branches) == 2
    for mine, other in zip(before, model.backbone.variables, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.slow
def test_a_closed_form_of_the_base_decides_beside_the_logits(
    beside, lent, blobs, tmp_path
):
    model, _ = beside
    x, _ = blobs([0, 1, 2, 3], seed=9)
    frozen = model.network.frozen(tf.constant(x))
    logits, features = model.network.outputs(frozen)
    seen = [blobs(labels, per_class=30) for labels in ([0, 1], [2, 3])]
    base = lent(make_model)  # the weights that it began with
    sums = Sums.none(12)
    for images, labels in seen:
        sums = sums.plus(base.extract_features(images), labels, 4)
    kernel, bias = LDA().solve(sums)
    expected = logits + 0.5 * (features[:, :12] @ kernel + bias)
    np.testing.assert_allclose(
        model.predict(x, verbose=0), expected, rtol=1e-3, atol=1e-3
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), expected, rtol=1e-3, atol=1e-3
    )
    assert model.score_rule.kept_bytes > 0
    # While new classes are learned, the logits decide.
    loaded.add_classes([4])
    logits, _ = loaded.network.outputs(frozen)
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), logits, rtol=1e-4, atol=1e-4
    )


def test_a_closed_form_needs_a_base_that_never_changes(lent):
    with pytest.raises(ValueError, match="free_tasks=0 and train_trunk=False"):
        ki.BranchedRehearsal(closed_form_weight=1.0)
    model = lent(make_model)
    model.add_classes([0, 1])
    method = ki.BranchedRehearsal(free_tasks=0, closed_form_weight=1.0)
    with pytest.raises(ValueError, match="no sums of the 2 classes"):
        method.check(model, None)


# The warm start.


@pytest.fixture
def task(lent, blobs):
    """A second task of which the head is untrained."""
    model = lent(make_model)
    model.add_classes([0, 1], seed=0)
    model.add_classes([2, 3], seed=1)
    memory = ki.ExemplarMemory(20)
    old = ArraySamples(*blobs([0, 1], per_class=10))
    memory.update(old, model.extract_features)
    new = ArraySamples(*blobs([2, 3], per_class=30))
    return TaskStep(model, memory, new, (), [2, 3], ["2", "3"], 2, 1, 32)


def closed_form(task):
    """Kernel over bias of all classes, on new data and exemplars."""
    sources = [task.samples, *task.exemplars()]
    features = np.concatenate([task.features(source) for source in sources])
    units = np.concatenate([source.labels for source in sources])
    sums = Sums.none(features.shape[1]).plus(features, units, 4)
    return np.vstack(LDA().solve(sums)), features, units


def test_a_new_head_stands_to_the_old_as_their_closed_forms_do(task):
    network, (found, features, units) = task.model.network, closed_form(task)
    # Old columns are those of the closed form, on another scale, and shifted.
    shift = np.random.default_rng(0).normal(size=(len(found), 1))
    old = 0.5 * found[:, :2] + shift
    network.set_head_weights(0, old[:-1], old[-1])
    warm_start(task)
    new = np.vstack(network.head_weights(1))
    difference = new[:, 0] - new[:, 1]
    scale = (
        difference
        @ (found[:, 2] - found[:, 3])
        / np.sum(np.square(found[:, 2] - found[:, 3]))
    )
    assert scale > 0
    expected = scale * found
    expected += (old - expected[:, :2]).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(new, expected[:, 2:], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        np.vstack(network.head_weights(0)), old, rtol=1e-5, atol=1e-5
    )
    logits = features @ np.hstack([old, new])[:-1] + np.hstack([old, new])[-1]
    assert np.mean(logits.argmax(axis=1) == units) > 0.8


def test_without_old_images_the_new_head_is_the_scaled_closed_form(task):
    task.memory = None
    warm_start(task)
    kernel, bias = task.model.network.head_weights(1)
    logits = task.features(task.samples) @ kernel + bias
    assert np.mean(logits.argmax(axis=1) + 2 == task.samples.labels) > 0.9


@pytest.mark.parametrize(
    "method",
    [
        ki.Replay(warm_start=True),
        ki.EEIL(warm_start=True),
        ki.PartialSharing(warm_start=True),
    ],
)
def test_methods_start_warm_where_asked_to(method, task):
    model = task.model
    model.remove_classes(1)
    method.grow(task)
    kernel, bias = model.network.head_weights(-1)
    logits = task.features(task.samples) @ kernel + bias
    assert np.mean(logits.argmax(axis=1) + 2 == task.samples.labels) > 0.9


# Calibration without exemplars.


@pytest.mark.slow
def test_branches_are_standardized_on_their_own_data(lent, blobs):
    model = lent(make_model)
    method = ki.PartialSharing(standardize=True)
    learn(model, method, blobs, [[0, 1]])
    base = values(model.score_rule.variables)
    learn(model, method, blobs, [[2, 3]])
    for labels, part in (([0, 1], slice(0, 2)), ([2, 3], slice(2, 4))):
        x, _ = blobs(labels, per_class=30)
        scores = model.predict(x, verbose=0)[:, part]
        assert scores.mean() == pytest.approx(0, abs=1e-4)
        assert scores.std() == pytest.approx(1, rel=1e-4)
    for old, now in zip(base, model.score_rule.variables, strict=True):
        np.testing.assert_array_equal(now[:1], old)


@pytest.mark.slow
def test_a_base_without_known_statistics_is_not_standardized(
    lent, blobs, caplog
):
    model = lent(make_model)
    model.add_classes([0, 1])
    learn(model, ki.PartialSharing(standardize=True), blobs, [[2, 3]])
    assert "mean and deviation of its logits are not known" in caplog.text
    assert not isinstance(model.score_rule, AffinePerHead)
