"""The search on a user's own network, and what it leaves alone."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_incremental as ki
from keras_incremental import sharing
from keras_incremental.models import IncrementalClassifier

POINTS = [1.0, "relu1", 0.5, "bn1", "relu2", "image", 0]
QUICK = {"epochs": 1, "batch_size": 16, "verbose": 0}


def user_network():
    """A convolution, a residual block, a convolution, and 12 features."""
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Rescaling(1 / 255, name="scale")(image)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv1")(x)
    x = layers.BatchNormalization(name="bn1")(x)
    shortcut = x = layers.ReLU(name="relu1")(x)
    x = layers.Conv2D(8, 3, padding="same", name="conv2")(x)
    x = layers.Add(name="add")([shortcut, x])
    x = layers.ReLU(name="relu2")(x)
    x = layers.Conv2D(12, 3, strides=2, name="conv3")(x)
    x = layers.ReLU(name="relu3")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, x, name="user")


def compiled(backbone, **options):
    model = IncrementalClassifier(backbone, **options)
    model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
    return model


@pytest.fixture(scope="module")
def scenario():
    """Tasks of 4, 3 and 3 digits, 15 training images of each."""
    return ki.ClassIncrementalScenario.from_arrays(
        *ki.scenarios.load_digits(),
        classes_per_task=[4, 3, 3],
        samples_per_class=15,
    )


@pytest.fixture(scope="module")
def base(scenario):
    """A model and a memory that know the first task."""
    keras.utils.set_random_seed(0)
    model, memory = compiled(user_network()), ki.ExemplarMemory(40)
    incremental = ki.IncrementalCallback(memory, ki.FineTune())
    model.fit(
        scenario[0].train.batch(16),
        epochs=2,
        verbose=0,
        callbacks=[incremental],
    )
    return model, memory


def state(model, memory):
    """All that a search could change, as copies."""
    return {
        "weights": [np.array(weight) for weight in model.weights],
        "optimizer": [np.array(value) for value in model.optimizer.variables],
        "trainable": [layer.trainable for layer in model.backbone.layers],
        "labels": model.labels,
        "names": model.class_names,
        "branch_at": model.branch_at,
        "memory": {k: memory.images(k).copy() for k in memory.labels},
    }


@dataclasses.dataclass
class Searched:
    """A finished search, its models by point, and the base around it."""

    curve: sharing.SharingCurve
    models: dict
    before: dict
    after: dict


def run_search(patch, model, *args, **options):
    """Returns the curve, and each point's model after its tasks."""
    models, original = {}, IncrementalClassifier.with_branch_at

    def with_branch_at(self, point):
        made = original(self, point)
        models.setdefault(made.branch_at, made)
        return made

    patch.setattr(IncrementalClassifier, "with_branch_at", with_branch_at)
    return sharing.search(model, *args, **{**QUICK, **options}), models


@pytest.fixture(scope="module")
def searched(scenario, base):
    """A search over two tasks, with a memory."""
    model, memory = base
    before = state(model, memory)
    with pytest.MonkeyPatch.context() as patch:
        curve, models = run_search(
            patch,
            model,
            [scenario[1], scenario[2]],
            POINTS,
            0.25,
            memory=memory,
        )
    return Searched(curve, models, before, state(model, memory))


@pytest.fixture
def blob_tasks(blobs):
    """Two tasks of two easy classes, labelled by words."""
    images, labels = blobs(["cat", "dog", "emu", "fox"])
    return ki.ClassIncrementalScenario.from_arrays(
        images,
        labels,
        *blobs(["cat", "dog", "emu", "fox"], per_class=4, seed=1),
        classes_per_task=2,
        class_order=["cat", "dog", "emu", "fox"],
    )


@pytest.fixture
def blob_base(tiny_backbone):
    """A model of the first of these tasks, untrained."""
    model = compiled(tiny_backbone)
    model.add_classes(["cat", "dog"])
    return model


@pytest.fixture
def never_fit(monkeypatch):
    """Any training fails the test."""

    def fit(*args, **kwargs):
        pytest.fail("training began")

    monkeypatch.setattr(IncrementalClassifier, "fit", fit)


# What was found.


def test_points_are_tried_once_each_from_none_shared_to_all(searched):
    points = searched.curve.points
    assert [point.branch_at for point in points] == [
        0.0, "bn1", "relu1", "relu2", 1.0,
    ]  # fmt: skip
    shares = [point.layers for point in points]
    assert shares == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 1])


def units_of(head):
    return range(head.start, head.stop)


def by_hand(model, task, new_labels):
    """Accuracies of a model, image by image."""
    hits = {"aware": [], "raw": [], "calibrated": []}
    of_all = {"raw": [], "calibrated": []}
    for image, label in task.seen_test.as_numpy_iterator():
        raw = np.asarray(model.uncalibrated_logits(image[None]))[0]
        logits = model.predict_on_batch(image[None])[0]
        label = label.decode() if isinstance(label, bytes) else label
        unit = model.labels.index(label)
        (own,) = [
            head for head in model.heads if head.start <= unit < head.stop
        ]
        aware = own.start + int(np.argmax(raw[own]))
        guesses = {"raw": np.argmax(raw), "calibrated": np.argmax(logits)}
        for kind, guess in guesses.items():
            of_all[kind].append(guess == unit)
        if label in new_labels:
            hits["aware"].append(aware == unit)
            for kind, guess in guesses.items():
                hits[kind].append(guess == unit)
    return {
        "task_aware_accuracy": np.mean(hits["aware"]),
        "uncalibrated_accuracy": np.mean(hits["raw"]),
        "accuracy": np.mean(hits["calibrated"]),
        "uncalibrated_accuracy_of_all": np.mean(of_all["raw"]),
        "accuracy_of_all": np.mean(of_all["calibrated"]),
    }


@pytest.mark.parametrize("index", [0, 3])
def test_accuracies_are_those_of_the_test_images_one_by_one(
    searched, scenario, index
):
    point = searched.curve.points[index]
    model = searched.models[point.branch_at]
    new = [*scenario[1].labels, *scenario[2].labels]
    expected = by_hand(model, scenario[2], new)
    found = {name: getattr(point, name) for name in expected}
    assert found == pytest.approx(expected)


def test_every_point_starts_from_the_base(searched, scenario):
    images = np.stack([x for x, _ in scenario[0].test.as_numpy_iterator()])
    logits = [
        np.asarray(model.uncalibrated_logits(images))[:, :4]
        for model in searched.models.values()
    ]
    for other in logits[1:]:
        np.testing.assert_allclose(other, logits[0], rtol=1e-5, atol=1e-5)


def test_points_hold_what_the_steps_reported(searched):
    for point in searched.curve.points:
        assert point.calibrated is True
        assert len(point.similarity) == 2
        assert all(0 < score <= 1 for score in point.similarity)
        # Two steps of one epoch.
        assert 0 < 2 * point.seconds_per_epoch < point.seconds


def test_costs_are_those_of_the_models(searched):
    for point in searched.curve.points:
        model = searched.models[point.branch_at]
        expected = ki.cost.report(model, batch_size=16, measure=False)
        assert point.cost == expected
        assert len(point.cost.rows) == 3


def test_parameters_added_are_those_counted_by_hand(searched):
    conv1, conv2, conv3 = 9 * 8 + 4 * 8, 9 * 8 * 8 + 8, 9 * 8 * 12 + 12
    head = 3 * 12 + 3
    expected = {
        0.0: conv1 + conv2 + conv3 + head,
        "bn1": conv2 + conv3 + head,
        "relu1": conv2 + conv3 + head,
        "relu2": conv3 + head,
        1.0: head,
    }
    for point in searched.curve.points:
        added = [row.parameters for row in point.cost.rows[1:]]
        assert added == 2 * [expected[point.branch_at]]


def test_chosen_is_the_deepest_point_within_the_tolerance(searched):
    curve = searched.curve
    assert curve.tolerance == 0.25
    least = curve.points[0].task_aware_accuracy - 0.25
    within = [p for p in curve.points[1:] if p.task_aware_accuracy >= least]
    if within:
        assert curve.chosen is within[-1]
    else:
        with pytest.raises(ValueError, match="nearest"):
            _ = curve.chosen


def test_figures_are_plain_json(searched, tmp_path):
    path = searched.curve.save(tmp_path / "search.json")
    found = json.loads(path.read_text())
    assert found == searched.curve.to_dict()
    assert [p["branch_at"] for p in found["points"]][:2] == [0.0, "bn1"]


# What is left alone.


def test_model_is_not_changed(searched):
    for part in ("weights", "optimizer"):
        before, after = searched.before[part], searched.after[part]
        assert len(before) == len(after) > 0
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(old, new)
    for part in ("trainable", "labels", "names", "branch_at"):
        assert searched.before[part] == searched.after[part]


def test_memory_is_not_changed(searched):
    before, after = searched.before["memory"], searched.after["memory"]
    assert list(before) == list(after) and len(before) == 4
    for label, images in before.items():
        np.testing.assert_array_equal(images, after[label])


# One task, no memory.


def test_one_task_without_a_memory_is_not_calibrated(
    blob_base, blob_tasks, monkeypatch
):
    task = blob_tasks[1]
    curve, models = run_search(
        monkeypatch, blob_base, task, [1.0], tolerance=0.5
    )
    assert [point.branch_at for point in curve.points] == [0.0, 1.0]
    assert curve.tolerance == 0.5
    for point in curve.points:
        assert point.calibrated is False
        assert point.accuracy == point.uncalibrated_accuracy
        assert point.accuracy_of_all == point.uncalibrated_accuracy_of_all
        assert len(point.similarity) == 1 and len(point.cost.rows) == 2
    for point in curve.points:
        expected = by_hand(models[point.branch_at], task, task.labels)
        found = {name: getattr(point, name) for name in expected}
        assert found == pytest.approx(expected)


# Thin branches, and augmented copies.


def test_thin_branches_of_augmented_copies(scenario, base):
    curve = sharing.search(
        base[0],
        scenario[1],
        ["relu1", 1.0],
        method=ki.PartialSharing(width=0.5, copies=2),
        augment=ki.augmentation.CropFlip(padding=1),
        **QUICK,
    )
    # Only the last convolution feeds no merge layer: 6 of its 12 channels.
    conv1, conv2, conv3 = 9 * 8 + 4 * 8, 9 * 8 * 8 + 8, 9 * 8 * 6 + 6
    added = [point.cost.rows[-1].parameters for point in curve.points]
    thin_head, head = 3 * 6 + 3, 3 * 12 + 3
    assert added == [
        conv1 + conv2 + conv3 + thin_head,
        conv2 + conv3 + thin_head,
        head,
    ]
    assert all(point.cost.trunk_kept for point in curve.points)


@pytest.mark.parametrize(
    ("copies", "augment", "kept"),
    [(0, False, True), (0, True, False), (2, True, True)],
)
def test_cost_says_whether_the_trunk_runs_in_every_step(
    blob_base, blob_tasks, copies, augment, kept
):
    curve = sharing.search(
        blob_base,
        blob_tasks[1],
        (),
        method=ki.PartialSharing(copies=copies),
        augment=ki.augmentation.CropFlip(padding=1) if augment else None,
        **QUICK,
    )
    (point,) = curve.points
    assert point.branch_at == 0.0
    assert point.cost.trunk_kept is kept
    with pytest.raises(ValueError, match="no sharing alone"):
        _ = curve.chosen


def test_arguments_reach_every_step(tiny_backbone, blobs, monkeypatch):
    animals = ["cat", "dog", "emu", "fox"]
    scenario = ki.ClassIncrementalScenario.from_arrays(
        *blobs(animals),
        *blobs(animals, per_class=4, seed=1),
        classes_per_task=[2, 1, 1],
        class_order=animals,
    )
    model, memory = compiled(tiny_backbone), ki.ExemplarMemory(8)
    model.fit(
        scenario[0].train.batch(8),
        verbose=0,
        callbacks=[ki.IncrementalCallback(memory, ki.FineTune())],
    )
    method, augment = ki.PartialSharing(copies=1), ki.augmentation.CropFlip(1)
    calls = []
    fit = IncrementalClassifier.fit

    def recorded(self, x, **options):
        calls.append((self.branch_at, x, options))
        return fit(self, x, **options)

    monkeypatch.setattr(IncrementalClassifier, "fit", recorded)
    sharing.search(
        model,
        [scenario[1], scenario[2]],
        [1.0],
        epochs=2,
        batch_size=5,
        method=method,
        memory=memory,
        augment=augment,
        seed=11,
        verbose=0,
    )
    assert [point for point, _, _ in calls] == [0.0, 0.0, 1.0, 1.0]
    labels = [next(iter(x))[1].numpy()[0].decode() for _, x, _ in calls]
    assert labels == ["emu", "fox", "emu", "fox"]
    memories = []
    for _, x, options in calls:
        images, _ = next(iter(x))
        assert len(images) == 5
        assert options["epochs"] == 2
        assert options["batch_size"] == 5
        assert options["verbose"] == 0
        (callback,) = options["callbacks"]
        assert callback.method == method
        assert callback.augment is augment
        assert callback.seed == 11
        memories.append(callback.memory)
    assert memories[0] is memories[1] is not memories[2] is memories[3]
    for used in (memories[0], memories[2]):
        assert sorted(used.labels) == animals
    assert sorted(memory.labels) == ["cat", "dog"]


# Names, and copies.


def test_classes_have_the_names_of_their_tasks(
    tiny_backbone, blobs, monkeypatch
):
    """The text of a new label may be the name of an old class."""
    names = {0: "3", 1: "2", 2: "1", 3: "0"}
    scenario = ki.ClassIncrementalScenario.from_arrays(
        *blobs(range(4)),
        *blobs(range(4), per_class=4, seed=1),
        classes_per_task=2,
        class_order=range(4),
        class_names=names,
    )
    model = compiled(tiny_backbone)
    model.add_classes([0, 1], ["3", "2"])
    _, models = run_search(monkeypatch, model, scenario[1], ())
    found = models[0.0]
    assert dict(zip(found.labels, found.class_names, strict=True)) == names


def test_copies_compute_the_same_with_an_adapted_normalization():
    images = np.arange(128, dtype="float32").reshape(2, 8, 8, 1)
    normalization = layers.Normalization(axis=None)
    normalization.adapt(images)
    model = compiled(
        keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                normalization,
                layers.Conv2D(4, 3),
                layers.GlobalAveragePooling2D(),
            ]
        )
    )
    model.add_classes([0, 1])
    cut = model.with_branch_at(0.5)
    np.testing.assert_array_equal(
        cut.predict(images, verbose=0), model.predict(images, verbose=0)
    )


# What is refused, before any training.


def test_other_models_are_refused(scenario, never_fit):
    del never_fit
    with pytest.raises(TypeError, match=r"Functional.*IncrementalClassifier"):
        sharing.search(user_network(), scenario[1])


MODELS = {
    "no classes": (lambda: compiled(user_network()), "knows 0 classes"),
    "not compiled": (
        lambda: IncrementalClassifier(user_network()),
        "is not compiled",
    ),
    "branches": (
        lambda: compiled(user_network(), branch_at="relu1"),
        "has some branches, and is compiled",
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_models_that_cannot_be_searched_are_refused(case, scenario, never_fit):
    del never_fit
    make, message = MODELS[case]
    model = make()
    if case != "no classes":
        model.add_classes(scenario[0].labels)
    if case == "branches":
        model.add_branch([77])
    with pytest.raises(ValueError, match=message):
        sharing.search(model, scenario[1])


WRONG = {
    "tolerance below 0": ({"tolerance": -0.1}, ValueError, "tolerance=-0.1"),
    "tolerance of 1": ({"tolerance": 1.0}, ValueError, r"in \[0, 1\)"),
    "tolerance that is no number": (
        {"tolerance": float("nan")},
        ValueError,
        "tolerance=nan",
    ),
    "another method": ({"method": ki.EEIL()}, TypeError, "EEIL.*PartialShar"),
    "calibration of nothing": (
        {"method": ki.PartialSharing(calibrate=True)},
        ValueError,
        "memory=",
    ),
    "unknown layer": ({"points": ["relu9"]}, ValueError, "relu9.*'relu"),
    "inside a block": ({"points": ["conv2"]}, ValueError, "conv2.*'relu1'"),
    "the output": ({"points": ["pool"]}, ValueError, "pool.*branch_at=1.0"),
    "fraction above 1": ({"points": [0.5, 1.5]}, ValueError, "1.5"),
    "no fraction": ({"points": [True]}, TypeError, "True"),
    "width too small at one point": (
        {"method": ki.PartialSharing(width=0.01), "points": [1.0]},
        ValueError,
        "width=0.01.*conv3",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_refused(case, scenario, base, never_fit):
    del never_fit
    options, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        sharing.search(base[0], scenario[1], **options)


TASKS = {
    "none": ([], "no tasks"),
    "known to the model": ([0], r"Task 0 .*knows already"),
    "twice": ([1, 1], r"Task 1 .*knows already"),
    "one left out": ([2], r"never taught, \[.*all tasks that follow"),
    "another order": ([2, 1], r"lacks classes of the tasks, \["),
}


@pytest.mark.parametrize("case", TASKS)
def test_tasks_that_do_not_follow_the_model_are_refused(
    case, scenario, base, never_fit
):
    del never_fit
    indices, message = TASKS[case]
    with pytest.raises(ValueError, match=message):
        sharing.search(base[0], [scenario[index] for index in indices])


MEMORIES = {
    "empty": (lambda full: ki.ExemplarMemory(40), r"no exemplar of .* None"),
    "too small": (lambda full: limited(full, 9), "Use capacity >= 10"),
}


def limited(memory, capacity):
    """A memory of the same exemplars with another capacity."""
    smaller = ki.ExemplarMemory(capacity)
    smaller.restore(memory.stored())
    return smaller


@pytest.mark.parametrize("case", MEMORIES)
def test_memories_that_do_not_go_with_the_model_are_refused(
    case, scenario, base, never_fit
):
    del never_fit
    model, memory = base
    make, message = MEMORIES[case]
    with pytest.raises(ValueError, match=message):
        sharing.search(model, [scenario[1], scenario[2]], memory=make(memory))
