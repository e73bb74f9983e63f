"""PartialSharing: what is shared, what is cloned, what is trained on what."""

import gc
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental import metrics
from keras_incremental.methods import partial_sharing, task_step
from keras_incremental.methods.similarity import similarities
from keras_incremental.networks import BranchedNetwork, SingleNetwork
from keras_incremental.predictions import predict
from keras_incremental.samples import ArraySamples, CachedColumn
from keras_incremental.score_rules import AffinePerHead, ScoreRule


class CountImages(keras.layers.Layer):
    """Counts the images that pass, and changes nothing."""

    def build(self, input_shape):
        self.seen = self.add_weight(
            name="seen", shape=(), initializer="zeros", trainable=False
        )

    def call(self, inputs):
        batch = keras.ops.cast(keras.ops.shape(inputs)[0], "float32")
        self.seen.assign_add(batch)
        return inputs


class Same:
    """An on-line augmentation that changes nothing."""

    stored = False

    def __call__(self, images, seed):
        return images


def network(*first_layers):
    """Two convolutions with batch normalisation; cut after the first."""

    def block(name):
        return [
            keras.layers.Conv2D(16, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.8),
            keras.layers.ReLU(name=name),
        ]

    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            *first_layers,
            keras.layers.Rescaling(1 / 255),
            *block("shared"),
            *block("own"),
            keras.layers.Flatten(),
        ]
    )


def make_model(branch_at="shared", layers=()):
    model = ki.IncrementalClassifier(network(*layers), branch_at=branch_at)
    model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
    return model


def callback(memory=None, augment=None, **options):
    return ki.IncrementalCallback(
        memory,
        ki.PartialSharing(**options),
        augment=augment,
        measure_statistics=False,
    )


@pytest.fixture
def make():
    """Returns a function that makes a compiled model and a callback."""

    def pair(
        memory=None, branch_at="shared", augment=None, layers=(), **options
    ):
        model = make_model(branch_at, layers)
        return model, callback(memory, augment, **options)

    return pair


@pytest.fixture(name="with_base", scope="module")
def _with_base(blobs):
    """A model with a base of the classes 40 and 7, traced and trained."""
    model = make_model()
    fit(model, callback(), *blobs([40, 7]), epochs=2)
    return model


@pytest.fixture
def base(with_base, restored):
    """The model with a base; all that a test does to it is undone."""
    with restored(with_base):
        yield with_base


@pytest.fixture(name="with_branches", scope="module")
def _with_branches(blobs):
    """A model with a base and branches of the classes 300, 5 and 6, 1."""
    model = make_model()
    fit(model, callback(), *blobs([40, 7]), epochs=2)
    for labels in ([300, 5], [6, 1]):
        fit(model, callback(), *blobs(labels))
    return model


@pytest.fixture
def branched(with_branches, restored):
    """The model with branches; all that a test does to it is undone."""
    with restored(with_branches):
        yield with_branches


@pytest.fixture(name="with_counter", scope="module")
def _with_counter():
    """A model with a base, a branch, and a counter in the trunk."""
    counter = CountImages()
    model = make_model(layers=[counter])
    model.add_classes([40, 7])
    model.network = BranchedNetwork.on(model.network).with_branch()
    model.add_classes([9])
    return model, counter


@pytest.fixture
def count(with_counter, restored):
    """A function that returns how many images a task sends through the trunk.

    Its arguments are those of `callback` and of `fit`.
    """
    model, counter = with_counter

    def count(incremental, *data, **options):
        before = int(counter.seen)
        fit(model, incremental, *data, **options)
        return int(counter.seen) - before

    with restored(model):
        count.model = model
        yield count


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


def assert_equal(weights, before):
    for weight, value in zip(values(weights), before, strict=True):
        np.testing.assert_array_equal(weight, value)


def with_exemplars(model, data, capacity=24):
    """Returns a memory of what a model knows already."""
    memory = ki.ExemplarMemory(capacity)
    memory.add_from(model, *data)
    return memory


def logits_of(model, images):
    return model.logits_and_scores(images)[0]


def task_aware(model, x, y):
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    found = predict(model, dataset)
    return metrics.per_task_accuracy(
        found.task_aware_classes, found.units, found.task_of_unit
    )


# What never changes.


@pytest.mark.slow
def test_old_logits_and_task_aware_accuracy_stay_as_they_were(branched, blobs):
    memory = with_exemplars(branched, blobs([40, 7, 300, 5, 6, 1]))
    incremental = callback(memory)
    fit(branched, incremental, *blobs([2]))  # a task of one class
    x, y = blobs(branched.labels, seed=9)
    logits, accuracy = logits_of(branched, x), task_aware(branched, x, y)
    assert accuracy[0] > 0.6
    fit(branched, incremental, *blobs([3, 8]))
    now = logits_of(branched, x)
    np.testing.assert_array_equal(now[:, :7], logits)
    np.testing.assert_array_equal(task_aware(branched, x, y)[:4], accuracy)
    assert incremental.reports[-1].details["calibrated"]
    calibrated = branched.predict(x, verbose=0)[:, :7]
    assert np.abs(calibrated - logits).max() > 1e-3


@pytest.mark.slow
def test_without_a_memory_predictions_themselves_stay_as_they_were(
    branched, blobs
):
    incremental = callback()
    x, _ = blobs([40, 7, 300, 5])
    before = branched.predict(x, verbose=0)
    for labels in ([2, 3], [8]):
        fit(branched, incremental, *blobs(labels))
        after = branched.predict(x, verbose=0)
        np.testing.assert_array_equal(after[:, : before.shape[1]], before)
        assert incremental.reports[-1].details["calibrated"] is False
        before = after
    assert before.shape[1] == 9


def test_trunk_base_and_old_branches_keep_weights_and_statistics(base, blobs):
    frozen = [*base.backbone.weights, *base.network.head.weights]
    weights = values(frozen)
    names = [weight.path for weight in base.network.trunk.weights]
    assert any("moving_variance" in name for name in names)
    learned, trained = [], set()
    for labels in ([300, 5], [6, 1]):
        fit(base, callback(), *blobs(labels))
        assert_equal(frozen, weights)
        *old, newest = base.network.branches
        for branch, before in zip(old, learned, strict=True):
            assert_equal(branch.weights, before)
        learned.append(values(newest.weights))
        # The same variables each time: the train function stays valid.
        trained.add(tuple(id(v) for v in base.trainable_variables))
    assert len(trained) == 1
    # Each has learned.
    assert any((a != b).any() for a, b in zip(*learned, strict=True))


# The trunk runs once.


def test_the_trunk_sees_each_image_once(count, blobs):
    """One more image is the probe for the outputs' shape."""
    for labels, images in (([300, 5], 24), ([6, 1, 2], 36)):
        seen = count(callback(), *blobs(labels), epochs=3)
        assert seen == images + 1


def test_selection_needs_no_trunk_and_calibration_the_exemplars_alone(
    count, blobs
):
    memory = with_exemplars(count.model, blobs([40, 7, 9]), capacity=10)
    incremental = callback(memory)
    assert count(incremental, *blobs([300, 5]), epochs=2) == 24 + 1 + 10
    assert incremental.reports[-1].details["calibrated"]


@pytest.mark.parametrize(
    ("copies", "images"),
    [
        (1, 24),
        (3, 3 * 24),
        # Votes, each of four epochs, and the check of scores at the end.
        (0, 24 + 4 * 24 + 24),
    ],
)
def test_with_augmentation_the_trunk_runs_once_for_each_copy(
    count, blobs, copies, images
):
    incremental = callback(augment=ki.augmentation.CropFlip(1), copies=copies)
    seen = count(incremental, *blobs([300, 5]), epochs=4)
    probe = 1 if copies else 0
    assert seen == images + probe


def test_copies_are_drawn_by_the_callbacks_augmentation_anew_each_task(
    branched, blobs, monkeypatch
):
    incremental = callback(augment=ki.augmentation.CropFlip(1), copies=3)
    incremental.cache_bytes, incremental.seed = 12345678, 6
    calls, real = [], task_step.cache_column

    def spy(*arguments, **options):
        column = real(*arguments, **options)
        calls.append((options, column.copies))
        return column

    monkeypatch.setattr(task_step, "cache_column", spy)
    for labels in ([2], [8]):
        fit(branched, incremental, *blobs(labels), epochs=2)
    assert [copies for _, copies in calls] == [3, 3]
    for options, _ in calls:
        assert options["augment"] is incremental.augment
        assert options["memory_bytes"] == 12345678
    assert [options["seed"] for options, _ in calls] == [(6, 3), (6, 4)]


@pytest.mark.slow
def test_a_trunk_in_the_loop_trains_the_branch_as_a_cached_one_does(
    branched, blobs, restored
):
    """Without augmentation the two ways differ by float rounding alone."""
    results = []
    for augment in (None, Same()):
        with restored(branched):
            begin = Begin()
            fit(
                branched,
                callback(augment=augment),
                *blobs([2, 3]),
                epochs=2,
                callbacks=[begin],
            )
            results.append(
                values(branched.network.branches[-1].backbone.weights)
            )
    for cached, in_loop in zip(*results, strict=True):
        np.testing.assert_allclose(in_loop, cached, atol=2e-3)
    moved = [
        np.abs(a - b).max()
        for a, b in zip(results[0], begin.weights, strict=True)
    ]
    assert max(moved) > 0.02


@pytest.mark.slow
def test_a_trunk_in_the_loop_learns_from_augmented_images(branched, blobs):
    incremental = callback(augment=ki.augmentation.CropFlip(0))
    x, _ = blobs([40, 7])
    before = branched.predict(x, verbose=0)
    history = fit(branched, incremental, *blobs([2, 3]), epochs=8)
    assert history.history["accuracy"][-1] > 0.9
    after = branched.predict(x, verbose=0)
    np.testing.assert_array_equal(after[:, :6], before)


@pytest.mark.slow
def test_outputs_in_a_file_train_the_same_and_the_file_goes(
    branched, blobs, restored, mapped_files
):
    files, results = [], []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            files.append(mapped_files())

    for cache_bytes in (10**9, 1000):
        incremental = callback(ki.ExemplarMemory(10))
        incremental.cache_bytes = cache_bytes
        with restored(branched):
            fit(
                branched,
                incremental,
                *blobs([2, 3]),
                epochs=2,
                callbacks=[Watch()],
            )
            results.append(values(branched.weights))
        gc.collect()
        assert mapped_files() == 0
    assert files == [0, 0, 1, 1]
    for in_memory, in_file in zip(*results, strict=True):
        np.testing.assert_array_equal(in_file, in_memory)


def test_images_in_a_file_train_as_arrays_do(branched, blobs, restored):
    results = []
    for cache_bytes in (10**9, 100):
        incremental = callback(ki.ExemplarMemory(10))
        incremental.cache_bytes = cache_bytes
        data = tf.data.Dataset.from_tensor_slices(blobs([2, 3]))
        with restored(branched):
            fit(branched, incremental, data.batch(8))
            results.append(values(branched.weights))
    for arrays, in_file in zip(*results, strict=True):
        np.testing.assert_array_equal(in_file, arrays)


# The clone source.


def network_of_columns(*units):
    """A stand-in for a network whose logits are the pixels of the image."""
    return types.SimpleNamespace(
        frozen=lambda images: images,
        part_logits=lambda images: tf.split(
            tf.reshape(tf.cast(images, tf.float32), [-1, sum(units)]),
            units,
            axis=1,
        ),
    )


def images_voting(votes, units):
    """Images that vote, in each branch, for the unit given."""
    rows = np.zeros((len(votes), sum(units)), "uint8")
    first = np.cumsum([0, *units[:-1]])
    for row, choices in zip(rows, votes, strict=True):
        row[first + np.array(choices)] = 9
    return rows.reshape(len(votes), 1, 1, -1)


def test_similarity_is_the_concentration_of_votes_by_hand():
    # Class 8 votes 0, 0, 1 in the base and 1, 1, 1, in the branch; class 3
    # votes 2, 2, 2, 0 and 0, 1, 0, 1. Base (2/3 + 3/4) / 2, branch (1 + 1/2)/2.
    units = (3, 2)
    votes = [(0, 1), (2, 0), (0, 1), (2, 1), (2, 0), (1, 1), (0, 1)]
    labels = np.array([8, 3, 8, 3, 3, 8, 3])
    samples = ArraySamples(images_voting(votes, units), labels)
    scores = similarities(network_of_columns(*units), samples)
    np.testing.assert_allclose(scores, [17 / 24, 3 / 4])


def test_a_branch_competes_among_its_own_classes():
    """A branch whose logits are small votes like any other."""
    rows = np.array([[200, 0, 1, 0], [200, 0, 0, 1]], "uint8")
    samples = ArraySamples(rows.reshape(2, 1, 1, 4), np.array([5, 5]))
    assert similarities(network_of_columns(2, 2), samples) == [1.0, 0.5]


def test_a_hundred_images_a_class_vote():
    votes = [(0, 0)] * 100 + [(1, 1)] * 50
    samples = ArraySamples(images_voting(votes, (2, 2)), np.full(150, 5))
    assert similarities(network_of_columns(2, 2), samples) == [1.0, 1.0]


def test_single_class_branches_are_left_out_unless_there_is_no_other():
    votes = [(0, 0, 0), (1, 0, 0)]
    samples = ArraySamples(images_voting(votes, (2, 1, 1)), np.array([5, 5]))
    scores = similarities(network_of_columns(2, 1, 1), samples)
    assert scores == [0.5, -1.0, -1.0]
    samples = ArraySamples(images_voting([(0, 0)], (1, 1)), np.array([5]))
    assert similarities(network_of_columns(1, 1), samples) == [1.0, 1.0]


def test_similarity_of_images_is_that_of_their_cached_outputs(branched, blobs):
    x, y = blobs([2, 3, 8])
    network = branched.network
    column = CachedColumn("frozen", network.frozen(x).numpy()[None], y)
    scores = similarities(network, ArraySamples(x, y))
    assert similarities(network, column) == scores
    votes = np.split(logits_of(branched, x), [2, 4], axis=1)
    for branch, score in zip(votes, scores, strict=True):
        shares = [
            np.bincount(branch[y == k].argmax(1)).max() / 12 for k in (2, 3, 8)
        ]
        assert score == pytest.approx(np.mean(shares))


class Begin(keras.callbacks.Callback):
    """Keeps the newest branch as it is before the first batch."""

    def on_train_begin(self, logs=None):
        self.weights = values(self.model.network.branches[-1].backbone.weights)


@pytest.mark.parametrize("scores", [[0.2, 0.9, 0.5], [0.9, 0.2, 0.9]])
def test_the_most_similar_branch_is_cloned(
    branched, blobs, monkeypatch, scores
):
    incremental, source = callback(), int(np.argmax(scores))
    expected = values(branched.network.networks[source].weights)
    monkeypatch.setattr(partial_sharing, "similarities", lambda *a: scores)
    begin = Begin()
    fit(branched, incremental, *blobs([2, 3]), callbacks=[begin])
    for mine, theirs in zip(begin.weights, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    details = incremental.reports[-1].details
    assert details == {
        "clone_source": source,
        "similarity": scores[source],
        "calibrated": False,
    }


# Thin branches.


def branch_parameters(model):
    return [b.backbone.count_params() for b in model.network.branches]


def of_base(network, samples):
    """Similarities by which every branch is a clone of the base."""
    return [0.9] + [0.0] * len(network.branches)


@pytest.mark.slow
def test_a_thin_branch_is_thinned_once(base, blobs, monkeypatch):
    """A clone of a thin branch is as wide, and needs no new variables."""
    incremental, before = callback(width=0.5), base.train_function_traces
    fit(base, incremental, *blobs([300, 5]))
    variables = [id(v) for v in base.trainable_variables]
    thin_source = values(base.network.branches[-1].backbone.weights)
    monkeypatch.setattr(partial_sharing, "similarities", lambda *a: [0.1, 0.9])
    begin = Begin()
    fit(base, incremental, *blobs([6, 1]), callbacks=[begin])
    one, two = branch_parameters(base)
    assert one == two < 0.6 * base.network.tail.count_params()
    assert [id(v) for v in base.trainable_variables] == variables
    assert base.train_function_traces == before + 1
    for mine, theirs in zip(begin.weights, thin_source, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.slow
def test_width_may_change_from_task_to_task(base, blobs, monkeypatch):
    monkeypatch.setattr(partial_sharing, "similarities", of_base)
    x, _ = blobs([40, 7, 300])
    before = base.predict(x, verbose=0)
    trained = []
    for label, width in ((1, 0.5), (2, 0.5), (3, 1.0)):
        fit(base, callback(width=width), *blobs([label]))
        after = base.predict(x, verbose=0)
        np.testing.assert_array_equal(after[:, : before.shape[1]], before)
        before = after
        trained.append([id(v) for v in base.trainable_variables])
    half, again, full = branch_parameters(base)
    assert half == again < full == base.network.tail.count_params()
    assert trained[0] == trained[1] != trained[2]
    assert len(base.trainable_variables) == 5


@pytest.mark.slow
def test_a_thin_branch_learns(base, blobs):
    history = fit(base, callback(width=0.25), *blobs([300, 5]), epochs=10)
    assert history.history["accuracy"][-1] > 0.9


# Calibration.


def balanced_cross_entropy(logits, units):
    losses = keras.losses.sparse_categorical_crossentropy(
        units, np.asarray(logits, "float32"), from_logits=True
    ).numpy()
    return np.mean([losses[units == unit].mean() for unit in np.unique(units)])


def test_calibration_lowers_the_exemplars_cross_entropy(branched, blobs):
    memory = with_exemplars(branched, blobs(branched.labels), capacity=28)
    fit(branched, callback(memory), *blobs([2]), epochs=4)
    exemplars = memory.samples()
    units = branched.classes.to_units(exemplars.labels)
    raw = logits_of(branched, exemplars.all_images())
    calibrated = branched.predict(exemplars.all_images(), verbose=0)
    assert balanced_cross_entropy(calibrated, units) < (
        balanced_cross_entropy(raw, units)
    )
    rule, sizes = branched.score_rule, [2, 2, 2, 1]
    assert isinstance(rule, AffinePerHead) and rule.head_sizes == sizes
    scales, biases = values([rule.scales, rule.biases])
    assert scales.min() > 0 and len(set(scales.tolist())) == 4
    expected = raw * np.repeat(scales, sizes) + np.repeat(biases, sizes)
    np.testing.assert_allclose(calibrated, expected, rtol=1e-4, atol=1e-5)


def test_calibration_is_left_out_without_exemplars_of_all_classes(
    branched, blobs, caplog
):
    incremental = callback(ki.ExemplarMemory(10))
    fit(branched, incremental, *blobs([2, 3]))
    assert incremental.reports[-1].details["calibrated"] is False
    assert type(branched.score_rule) is ScoreRule
    assert len(incremental.memory) == 10
    assert "no exemplar of the classes" in caplog.text


def test_calibration_can_be_switched_off(branched, blobs):
    memory = with_exemplars(branched, blobs(branched.labels))
    incremental = callback(memory, calibrate=False)
    fit(branched, incremental, *blobs([2]))
    assert incremental.reports[-1].details["calibrated"] is False
    assert type(branched.score_rule) is ScoreRule


def test_a_calibration_holds_until_the_next_one(branched, blobs):
    """A later task that is not calibrated leaves the old scales as they are."""
    memory = with_exemplars(branched, blobs(branched.labels))
    fit(branched, callback(memory), *blobs([2]))
    rule = branched.score_rule
    scales, biases = values([rule.scales, rule.biases])
    fit(branched, callback(memory, calibrate=False), *blobs([3]))
    rule = branched.score_rule
    np.testing.assert_array_equal(values([rule.scales])[0], [*scales, 1.0])
    np.testing.assert_array_equal(values([rule.biases])[0], [*biases, 0.0])


# What is refused.


def unreadable():
    raise AssertionError("data was read before the step was refused")
    yield


def unread():
    signature = (
        tf.TensorSpec((None, 4, 4, 1), tf.uint8),
        tf.TensorSpec((None,), tf.int64),
    )
    return tf.data.Dataset.from_generator(
        unreadable, output_signature=signature
    )


@pytest.mark.parametrize("copies", ["a", np.nan, np.inf, 1.5, 2.0, -1, None])
def test_wrong_copies_are_refused(copies):
    with pytest.raises(ValueError, match=r"copies=.*expected an integer >= 0"):
        ki.PartialSharing(copies=copies)


@pytest.mark.parametrize("width", ["a", np.nan, np.inf, 1.5, 0, -1, None])
def test_wrong_widths_are_refused(width):
    with pytest.raises(ValueError, match=r"width=.*expected a fraction"):
        ki.PartialSharing(width=width)


def test_numpy_numbers_are_numbers():
    method = ki.PartialSharing(width=np.float32(0.5), copies=np.int64(2))
    assert (method.width, method.copies) == (0.5, 2)


def test_a_model_without_a_branch_point_is_refused_first(make):
    model, incremental = make(branch_at=None)
    with pytest.raises(ValueError, match="needs a branch point"):
        fit(model, incremental, unread())


def test_a_width_where_no_layer_can_be_thinned_is_refused_first(make):
    model, incremental = make(branch_at=1.0, width=0.5)
    with pytest.raises(ValueError, match="width="):
        fit(model, incremental, unread())


def test_data_of_known_classes_is_refused_before_training(base, blobs):
    before = values(base.weights)
    for labels in ([40, 300], [40], [40, 7]):
        with pytest.raises(ValueError, match=r"classes \[.*knows already"):
            fit(base, callback(), *blobs(labels))
        assert set(base.labels) == {40, 7}
        assert isinstance(base.network, SingleNetwork)
        assert_equal(base.weights, before)


def test_stored_augmentation_is_refused_where_copies_are_cached(base, blobs):
    before = values(base.weights)
    stored = ki.augmentation.StoredEEILAugmentation()
    with pytest.raises(ValueError, match=r"copies=3 variants.*on-line one"):
        fit(base, callback(augment=stored, copies=3), *blobs([300]))
    assert isinstance(base.network, SingleNetwork)
    assert_equal(base.weights, before)


def test_methods_that_train_the_whole_network_refuse_branches(branched):
    before = values(branched.weights)
    for method in (ki.EEIL(), ki.FineTune(), ki.Joint()):
        with pytest.raises(ValueError, match=r"frozen below 2 branches"):
            fit(branched, ki.IncrementalCallback(method=method), unread())
        assert_equal(branched.weights, before)


def test_the_first_task_trains_the_base(make, blobs):
    model, incremental = make(ki.ExemplarMemory(10))
    trunk = model.network.trunk
    before = values(trunk.trainable_weights)
    history = fit(model, incremental, *blobs([40, 7]), epochs=2)
    assert isinstance(model.network, SingleNetwork) and model.num_classes == 2
    assert incremental.reports[-1].details == {}
    assert history.epoch == [0, 1]
    for weight, value in zip(
        values(trunk.trainable_weights), before, strict=True
    ):
        assert (weight != value).any()
