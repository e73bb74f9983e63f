"""PartialSharing: what is shared, what is cloned, what is trained on what."""

import gc
import itertools
import tempfile
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental import metrics
from keras_incremental.methods import partial_sharing
from keras_incremental.methods.partial_sharing import similarities
from keras_incremental.samples import ArraySamples, KeptSamples


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


@pytest.fixture
def make():
    """Returns a function that makes a compiled model and a callback."""

    def pair(
        memory=None, branch_at="shared", augment=None, layers=(), **options
    ):
        model = ki.IncrementalClassifier(network(*layers), branch_at=branch_at)
        model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
        return model, ki.IncrementalCallback(
            memory, ki.PartialSharing(**options), augment=augment
        )

    return pair


@pytest.fixture
def count(make):
    """Returns a function that makes a model with a counter in its trunk."""

    def triple(*arguments, **options):
        counter = CountImages()
        pair = make(*arguments, layers=[counter], **options)
        return *pair, counter

    return triple


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


def task_aware(model, x, y):
    sizes = [head.stop - head.start for head in model.heads]
    task_of_unit = np.repeat(np.arange(len(sizes)), sizes)
    units = model.classes.to_units(y)
    predictions = metrics.task_aware_predictions(
        model.uncalibrated_logits(x).numpy(), units, task_of_unit
    )
    return metrics.per_task_accuracy(predictions, units, task_of_unit)


# What never changes.


def test_old_logits_and_task_aware_accuracy_stay_as_they_were(make, blobs):
    model, incremental = make(ki.ExemplarMemory(24))
    fit(model, incremental, *blobs([40, 7]), epochs=2)
    fit(model, incremental, *blobs([300]))  # a task of one class
    x, y = blobs([40, 7, 300], seed=9)
    logits, accuracy = model.uncalibrated_logits(x), task_aware(model, x, y)
    assert accuracy[0] > 0.6
    for labels in ([5, 6], [1], [2, 3]):
        fit(model, incremental, *blobs(labels))
        now = model.uncalibrated_logits(x)
        np.testing.assert_array_equal(now[:, :3], logits)
        np.testing.assert_array_equal(task_aware(model, x, y)[:2], accuracy)
        assert incremental.reports[-1].details["calibrated"]
    calibrated = model.predict(x, verbose=0)[:, :3]
    assert np.abs(calibrated - logits).max() > 1e-3


def test_without_a_memory_predictions_themselves_stay_as_they_were(make, blobs):
    model, incremental = make()
    fit(model, incremental, *blobs([40, 7]))
    x, _ = blobs([40, 7, 300, 5])
    before = model.predict(x, verbose=0)
    for labels in ([300, 5], [6], [1, 2, 3]):
        fit(model, incremental, *blobs(labels))
        after = model.predict(x, verbose=0)
        np.testing.assert_array_equal(after[:, : before.shape[1]], before)
        assert incremental.reports[-1].details["calibrated"] is False
        before = after
    assert before.shape[1] == 8


def test_trunk_base_and_old_branches_keep_weights_and_statistics(make, blobs):
    model, incremental = make()
    fit(model, incremental, *blobs([40, 7]))
    base = values([*model.backbone.weights, *model.head.weights])
    names = [weight.path for weight in model.trunk.weights]
    assert any("moving_variance" in name for name in names)
    learned = []
    for labels in ([300, 5], [6, 1], [2]):
        fit(model, incremental, *blobs(labels))
        assert_equal([*model.backbone.weights, *model.head.weights], base)
        *old, newest = model.branches.branches
        for branch, weights in zip(old, learned, strict=True):
            assert_equal(branch.weights, weights)
        learned.append(values(newest.weights))
    for one, other in itertools.pairwise(learned):  # each has learned
        assert any((a != b).any() for a, b in zip(one, other, strict=True))


def test_ten_tasks_take_two_traces_and_train_the_same_variables(make, blobs):
    model, incremental = make(ki.ExemplarMemory(40))
    x, y = blobs(range(20), per_class=3)
    newest = None
    for task in range(10):
        rows = np.isin(y, [2 * task, 2 * task + 1])
        fit(model, incremental, x[rows], y[rows])
        if task:
            ids = [id(variable) for variable in model.trainable_variables]
            assert newest in (None, ids)
            newest = ids
    assert model.train_function_traces <= 2
    assert model.num_classes == 20 and len(model.branches) == 9


# The trunk runs once.


def test_the_trunk_sees_each_image_once(count, blobs):
    """One more image is the probe for the outputs' shape."""
    model, incremental, counter = count()
    fit(model, incremental, *blobs([40, 7]))
    for labels, images in (([300, 5], 24), ([6, 1, 2], 36)):
        before = int(counter.seen)
        fit(model, incremental, *blobs(labels), epochs=3)
        assert int(counter.seen) - before == images + 1


def test_selection_needs_no_trunk_and_calibration_the_exemplars_alone(
    count, blobs
):
    model, incremental, counter = count(ki.ExemplarMemory(10))
    fit(model, incremental, *blobs([40, 7]))
    before = int(counter.seen)
    fit(model, incremental, *blobs([300, 5]), epochs=2)
    assert int(counter.seen) - before == 24 + 1 + 10


@pytest.mark.parametrize(
    ("copies", "images"),
    [
        (1, 24),
        (3, 3 * 24),
        (0, 24 + 4 * 24),  # votes, then each of four epochs
    ],
)
def test_with_augmentation_the_trunk_runs_once_for_each_copy(
    count, blobs, copies, images
):
    model, incremental, counter = count(
        copies=copies, augment=ki.augmentation.CropFlip(1)
    )
    fit(model, incremental, *blobs([40, 7]))
    before = int(counter.seen)
    fit(model, incremental, *blobs([300, 5]), epochs=4)
    probe = 1 if copies else 0
    assert int(counter.seen) - before == images + probe


def test_copies_are_drawn_by_the_callbacks_augmentation_anew_each_step(
    make, blobs, monkeypatch
):
    model, incremental = make(copies=3, augment=ki.augmentation.CropFlip(1))
    incremental.cache_bytes, incremental.seed = 12345678, 6
    calls, real = [], partial_sharing.keep_trunk_outputs

    def spy(*arguments, **options):
        kept = real(*arguments, **options)
        calls.append((options, kept.copies))
        return kept

    monkeypatch.setattr(partial_sharing, "keep_trunk_outputs", spy)
    for labels in ([40, 7], [300, 5], [6]):
        fit(model, incremental, *blobs(labels), epochs=2)
    assert [copies for _, copies in calls] == [3, 3]
    for options, _ in calls:
        assert options["augment"] is incremental.augment
        assert options["memory_bytes"] == 12345678
    assert [options["seed"] for options, _ in calls] == [(6, 1), (6, 2)]


def test_a_trunk_in_the_loop_trains_the_branch_as_a_kept_one_does(make, blobs):
    """Without augmentation the two ways differ by float rounding alone."""
    results = []
    for augment in (None, Same()):
        model, incremental = make(augment=augment)
        fit(model, incremental, *blobs([40, 7]))
        fit(model, incremental, *blobs([300, 5]), epochs=2)
        results.append(values(model.branches.newest.network.weights))
    start = values(model.tail.weights)
    for kept, in_loop in zip(*results, strict=True):
        np.testing.assert_allclose(in_loop, kept, atol=2e-3)
    moved = [
        np.abs(a - b).max() for a, b in zip(results[0], start, strict=True)
    ]
    assert max(moved) > 0.02


def test_a_trunk_in_the_loop_learns_from_augmented_images(make, blobs):
    model, incremental = make(augment=ki.augmentation.CropFlip(0))
    fit(model, incremental, *blobs([40, 7]))
    before = model.predict(blobs([40, 7])[0], verbose=0)
    history = fit(model, incremental, *blobs([300, 5]), epochs=8)
    accuracy = history.history["accuracy"]
    assert accuracy[-1] > 0.9 and model.train_function_traces == 2
    after = model.predict(blobs([40, 7])[0], verbose=0)
    np.testing.assert_array_equal(after[:, :2], before)


def test_outputs_in_a_file_train_the_same_and_the_file_goes(
    make, blobs, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files, results = [], []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            files.append(len([*tmp_path.glob("trunk_outputs_*/*")]))

    for cache_bytes in (10**9, 1000):
        model, incremental = make(ki.ExemplarMemory(10))
        fit(model, incremental, *blobs([40, 7]))
        incremental.cache_bytes = cache_bytes
        fit(model, incremental, *blobs([300, 5]), epochs=2, callbacks=[Watch()])
        results.append(values(model.weights))
        gc.collect()
        assert not [*tmp_path.glob("trunk_outputs_*")]
    assert files == [0, 0, 1, 1]
    for in_memory, in_file in zip(*results, strict=True):
        np.testing.assert_array_equal(in_file, in_memory)


def test_streamed_images_train_as_arrays_do(make, blobs):
    results = []
    for cache_bytes in (10**9, 100):
        model, incremental = make(ki.ExemplarMemory(10))
        fit(model, incremental, *blobs([40, 7]))
        incremental.cache_bytes = cache_bytes
        data = tf.data.Dataset.from_tensor_slices(blobs([300, 5]))
        fit(model, incremental, data.batch(8))
        results.append(values(model.weights))
    for arrays, streamed in zip(*results, strict=True):
        np.testing.assert_array_equal(streamed, arrays)


# The clone source.


def network_of_columns(*units):
    """A stand-in for a model whose logits are the pixels of the image."""
    return types.SimpleNamespace(
        head=types.SimpleNamespace(units=units[0]),
        branches=types.SimpleNamespace(
            branches=[types.SimpleNamespace(units=n) for n in units[1:]]
        ),
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


def test_similarity_of_images_is_that_of_their_trunk_outputs(make, blobs):
    model, incremental = make()
    for labels in ([40, 7], [300, 5]):
        fit(model, incremental, *blobs(labels))
    x, y = blobs([6, 1, 2])
    kept = KeptSamples(model.trunk_outputs(x).numpy()[None], y)
    scores = similarities(model, ArraySamples(x, y))
    assert similarities(model, kept) == scores
    votes = model.uncalibrated_logits(x).numpy()
    for branch, score in zip((votes[:, :2], votes[:, 2:]), scores, strict=True):
        shares = [
            np.bincount(branch[y == k].argmax(1)).max() / 12 for k in (6, 1, 2)
        ]
        assert score == pytest.approx(np.mean(shares))


class Begin(keras.callbacks.Callback):
    """Keeps the newest branch as it is before the first batch."""

    def on_train_begin(self, logs=None):
        self.weights = values(self.model.branches.newest.network.weights)


@pytest.mark.parametrize("scores", [[0.2, 0.9, 0.5], [0.9, 0.2, 0.9]])
def test_the_most_similar_branch_is_cloned(make, blobs, monkeypatch, scores):
    model, incremental = make()
    for labels in ([40, 7], [300, 5], [6, 1]):
        fit(model, incremental, *blobs(labels))
    source = int(np.argmax(scores))
    parts = [model.tail, *(b.network for b in model.branches.branches)]
    expected = values(parts[source].weights)
    monkeypatch.setattr(partial_sharing, "similarities", lambda *a: scores)
    begin = Begin()
    fit(model, incremental, *blobs([2, 3]), callbacks=[begin])
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
    return [b.network.count_params() for b in model.branches.branches]


def test_a_thin_branch_is_thinned_once(make, blobs, monkeypatch):
    """A clone of a thin branch is as wide, and needs no new variables."""
    model, incremental = make(width=0.5)
    for labels in ([40, 7], [300, 5]):
        fit(model, incremental, *blobs(labels))
    variables = [id(v) for v in model.trainable_variables]
    thin_source = values(model.branches.newest.network.weights)
    monkeypatch.setattr(partial_sharing, "similarities", lambda *a: [0.1, 0.9])
    begin = Begin()
    fit(model, incremental, *blobs([6, 1]), callbacks=[begin])
    one, two = branch_parameters(model)
    assert one == two < 0.6 * model.tail.count_params()
    assert [id(v) for v in model.trainable_variables] == variables
    assert model.train_function_traces == 2
    for mine, theirs in zip(begin.weights, thin_source, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_branches_of_the_base_are_as_thin_each_time(make, blobs, monkeypatch):
    model, incremental = make(width=0.5)
    monkeypatch.setattr(
        partial_sharing,
        "similarities",
        lambda model, samples: [0.9] + [0.0] * len(model.branches),
    )
    for labels in ([40, 7], [300, 5], [6, 1]):
        fit(model, incremental, *blobs(labels))
    one, two = branch_parameters(model)
    assert one == two and model.train_function_traces == 2


def test_width_may_change_from_step_to_step(make, blobs, monkeypatch):
    monkeypatch.setattr(
        partial_sharing,
        "similarities",
        lambda model, samples: [0.9] + [0.0] * len(model.branches),
    )
    model, incremental = make()
    fit(model, incremental, *blobs([40, 7]))
    x, _ = blobs([40, 7, 300])
    before = model.predict(x, verbose=0)
    for label, width in ((1, 0.5), (2, 0.25), (3, 1.0), (4, 0.5)):
        incremental.method = ki.PartialSharing(width=width)
        fit(model, incremental, *blobs([label]))
        after = model.predict(x, verbose=0)
        np.testing.assert_array_equal(after[:, : before.shape[1]], before)
        before = after
    half, quarter, full, again = branch_parameters(model)
    assert quarter < half == again < full == model.tail.count_params()
    assert len(model.trainable_variables) == 5


def test_a_thin_branch_learns(make, blobs):
    model, incremental = make(width=0.25)
    fit(model, incremental, *blobs([40, 7]), epochs=2)
    history = fit(model, incremental, *blobs([300, 5]), epochs=10)
    assert history.history["accuracy"][-1] > 0.9


# Calibration.


def balanced_cross_entropy(logits, units):
    losses = keras.losses.sparse_categorical_crossentropy(
        units, np.asarray(logits, "float32"), from_logits=True
    ).numpy()
    return np.mean([losses[units == unit].mean() for unit in np.unique(units)])


def test_calibration_lowers_the_exemplars_cross_entropy(make, blobs):
    model, incremental = make(ki.ExemplarMemory(17))
    for labels in ([40, 7], [300, 5], [6]):
        fit(model, incremental, *blobs(labels), epochs=4)
    exemplars = incremental.memory.samples()
    units = model.classes.to_units(exemplars.labels)
    raw = model.uncalibrated_logits(exemplars.all_images())
    calibrated = model.predict(exemplars.all_images(), verbose=0)
    assert balanced_cross_entropy(calibrated, units) < (
        balanced_cross_entropy(raw, units)
    )
    scales, biases = model.calibration()
    assert scales.min() > 0 and len(set(scales.tolist())) == 3
    np.testing.assert_allclose(calibrated, raw * scales + biases, rtol=1e-4)


def test_calibration_is_left_out_without_exemplars_of_all_classes(
    make, blobs, caplog
):
    for calibrate in (None, True):
        model, _ = make()
        base = ki.IncrementalCallback(method=ki.PartialSharing())
        fit(model, base, *blobs([40, 7]))
        incremental = ki.IncrementalCallback(
            ki.ExemplarMemory(10), ki.PartialSharing(calibrate=calibrate)
        )
        fit(model, incremental, *blobs([300, 5]))
        assert incremental.reports[-1].details["calibrated"] is False
        assert model.calibration()[0].tolist() == [1.0] * 4
        assert len(incremental.memory) == 10
        assert "no exemplar of the classes [40, 7]" in caplog.text
        caplog.clear()


def test_calibration_can_be_switched_off(make, blobs):
    model, incremental = make(ki.ExemplarMemory(10), calibrate=False)
    for labels in ([40, 7], [300, 5]):
        fit(model, incremental, *blobs(labels))
    assert incremental.reports[-1].details["calibrated"] is False
    assert model.calibration()[0].tolist() == [1.0] * 4


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


@pytest.mark.parametrize(
    "copies", [True, "a", np.nan, np.inf, 1.5, 2.0, -1, None]
)
def test_wrong_copies_are_refused(copies):
    with pytest.raises(ValueError, match=r"copies=.*expected an integer >= 0"):
        ki.PartialSharing(copies=copies)


@pytest.mark.parametrize("width", [True, "a", np.nan, np.inf, 1.5, 0, -1, None])
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


def test_calibration_without_a_memory_is_refused_first(make):
    model, incremental = make(calibrate=True)
    with pytest.raises(ValueError, match="has no memory"):
        fit(model, incremental, unread())


@pytest.mark.parametrize(("branch_at", "width"), [("shared", 1e-4), (1.0, 0.5)])
def test_a_width_that_leaves_nothing_is_refused_first(make, branch_at, width):
    model, incremental = make(branch_at=branch_at, width=width)
    with pytest.raises(ValueError, match="width="):
        fit(model, incremental, unread())


def test_data_of_known_classes_is_refused_before_training(make, blobs):
    model, incremental = make()
    fit(model, incremental, *blobs([40, 7]))
    before = values(model.weights)
    for labels in ([40, 300], [40], [40, 7]):
        with pytest.raises(ValueError, match=r"classes \[.*knows already"):
            fit(model, incremental, *blobs(labels))
        assert set(model.labels) == {40, 7} and not model.has_branches
        assert_equal(model.weights, before)


def test_stored_augmentation_is_refused_before_training(make, blobs):
    model, incremental = make()
    fit(model, incremental, *blobs([40, 7]))
    incremental.augment = ki.augmentation.StoredEEILAugmentation()
    before = values(model.weights)
    with pytest.raises(ValueError, match=r"copies=12"):
        fit(model, incremental, *blobs([300]))
    assert not model.has_branches
    assert_equal(model.weights, before)


def test_methods_that_train_the_whole_network_refuse_branches(make):
    model, incremental = make()
    model.add_classes([40, 7])
    model.add_branch([300])
    before = values(model.weights)
    for method in (ki.EEIL(), ki.FineTune(), ki.Joint()):
        incremental.method = method
        with pytest.raises(ValueError, match=r"frozen below 1 branches"):
            fit(model, incremental, unread())
        assert_equal(model.weights, before)


def test_the_first_step_trains_the_base(make, blobs):
    model, incremental = make(ki.ExemplarMemory(10))
    before = values(model.trunk.trainable_weights)
    history = fit(model, incremental, *blobs([40, 7]), epochs=2)
    assert not model.has_branches and model.num_classes == 2
    assert incremental.reports[-1].details == {}
    assert history.epoch == [0, 1]
    for weight, value in zip(
        values(model.trunk.trainable_weights), before, strict=True
    ):
        assert (weight != value).any()
