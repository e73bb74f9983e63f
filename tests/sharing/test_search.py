"""The search on a user's own network, and what it leaves alone."""

import dataclasses
import json
import types

import keras
import numpy as np
import pytest
from keras import layers

import keras_incremental as ki
from keras_incremental import sharing
from keras_incremental.models import IncrementalClassifier
from keras_incremental.score_rules import AffinePerHead

POINTS = [1.0, "relu1", 0.5, "bn1", "relu2", "image", 0]
ANIMALS = ["cat", "dog", "emu", "fox"]


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
    model.compile(
        optimizer=keras.optimizers.SGD(0.05, momentum=0.9),
        run_eagerly=True,  # quick to start
    )
    return model


@pytest.fixture(scope="module")
def scenario():
    """Tasks of 4, 3 and 3 digits, 15 training images of each."""
    return list(
        ki.ClassIncrementalScenario.from_arrays(
            *ki.scenarios.load_digits(),
            classes_per_task=[4, 3, 3],
            samples_per_class=15,
        )
    )


@pytest.fixture(scope="module")
def base(scenario):
    """A model that knows the first task, and exemplars of it."""
    keras.utils.set_random_seed(0)
    model, memory = compiled(user_network()), ki.ExemplarMemory(40)
    model.add_classes(scenario[0].labels)
    images, labels = next(iter(scenario[0].train.batch(60)))
    memory.add_from(model, images.numpy(), labels.numpy())
    return model, memory


@pytest.fixture(scope="module")
def untrained_search(add_branch):
    """Returns a function that searches with models that are not trained.

    It returns the curve, and model and callback of each branch point.
    """

    def search(model, *args, **options):
        calls = {}

        def train(candidate, tasks, incremental, **options):
            del options
            calls[candidate.branch_at] = candidate, incremental
            return set_weights(candidate, tasks, incremental, add_branch)

        return sharing.search(model, *args, train=train, **options), calls

    return search


def set_weights(model, tasks, incremental, add_branch):
    """Adds a random branch for each task in place of training one."""
    random = np.random.default_rng(0)
    calibrated = incremental.memory is not None
    for seed, task in enumerate(tasks):
        add_branch(model, task.labels, task.class_names, seed=seed)
    if calibrated:
        parts = model.network.part_sizes
        model.score_rule = AffinePerHead(
            parts,
            random.uniform(0.5, 2, len(parts)),
            random.uniform(-1, 1, len(parts)),
        )
    details = {"calibrated": calibrated, "similarity": 0.75}
    report = types.SimpleNamespace(train_seconds=3, epochs=2, details=details)
    return [report for _ in tasks]


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
    """A finished search, and its models by point."""

    curve: sharing.SharingCurve
    models: dict


@pytest.fixture(scope="module")
def searched(scenario, base, untrained_search):
    """A search over two tasks, with a memory, that trains nothing."""
    model, memory = base
    tasks = [scenario[1], scenario[2]]
    curve, calls = untrained_search(
        model, tasks, POINTS, 0.25, batch_size=16, memory=memory
    )
    return Searched(curve, {point: call[0] for point, call in calls.items()})


@dataclasses.dataclass
class Trained:
    """A search that trained, the calls of `fit`, and the base around it."""

    curve: sharing.SharingCurve
    calls: list
    method: ki.PartialSharing
    augment: object
    before: dict
    after: dict


@pytest.fixture(scope="module")
def trained():
    """A search over two tasks of one class, with a memory and copies."""
    keras.utils.set_random_seed(0)
    scenario = ki.ClassIncrementalScenario.from_arrays(
        *shades(8),
        *shades(4),
        classes_per_task=[2, 1, 1],
        class_order=ANIMALS,
    )
    model, memory = compiled(dense_network()), ki.ExemplarMemory(8)
    model.add_classes(scenario[0].labels)
    model.optimizer.build(model.trainable_variables)
    images, labels = next(iter(scenario[0].train.batch(16)))
    memory.add_from(model, images.numpy(), labels.numpy())
    method, augment = ki.PartialSharing(copies=1), ki.augmentation.CropFlip(1)
    before, calls, fit = state(model, memory), [], IncrementalClassifier.fit

    def recorded(self, x, **options):
        calls.append((self.branch_at, x, options))
        return fit(self, x, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IncrementalClassifier, "fit", recorded)
        curve = sharing.search(
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
    after = state(model, memory)
    return Trained(curve, calls, method, augment, before, after)


def dense_network():
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(8),
            layers.BatchNormalization(momentum=0.8),
        ]
    )


def shades(per_class):
    """Images of a grey of their own for each animal."""
    labels = np.repeat(ANIMALS, per_class)
    greys = np.repeat([30, 90, 150, 210], per_class)
    noise = np.random.default_rng(per_class).integers(-9, 10, (len(greys), 16))
    images = (greys[:, None] + noise).reshape(-1, 4, 4, 1)
    return images.astype("uint8"), labels


@pytest.fixture(scope="module")
def animal_tasks():
    """Two tasks of two classes, labelled by words."""
    return list(
        ki.ClassIncrementalScenario.from_arrays(
            *shades(8), *shades(4), classes_per_task=2, class_order=ANIMALS
        )
    )


@pytest.fixture(scope="module")
def animal_base():
    """A model of the first of these tasks, untrained."""
    model = compiled(dense_network())
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
    images, labels = map(
        np.array, zip(*task.seen_test.as_numpy_iterator(), strict=True)
    )
    raw_logits = model.logits_and_scores(images)[0]
    all_logits = model.predict_on_batch(images)
    for raw, logits, label in zip(
        raw_logits, all_logits, labels.tolist(), strict=True
    ):
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
        model.logits_and_scores(images)[0][:, :4]
        for model in searched.models.values()
    ]
    for other in logits[1:]:
        # Cut elsewhere, the network adds up in another order.
        np.testing.assert_allclose(other, logits[0], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_points_hold_what_the_steps_reported(searched, trained):
    for point in searched.curve.points:
        assert point.calibrated is True
        assert point.similarity == (0.75, 0.75)
        assert point.seconds_per_epoch == 1.5
    for point in trained.curve.points:
        assert point.calibrated is True
        assert len(point.similarity) == 2
        assert all(0 < score <= 1 for score in point.similarity)
        # Two steps of two epochs.
        assert 0 < 4 * point.seconds_per_epoch < point.seconds


@pytest.mark.slow
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


@pytest.mark.slow
def test_model_is_not_changed(trained):
    for part in ("weights", "optimizer"):
        before, after = trained.before[part], trained.after[part]
        assert len(before) == len(after) > 0
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(old, new)
    for part in ("trainable", "labels", "names", "branch_at"):
        assert trained.before[part] == trained.after[part]


@pytest.mark.slow
def test_memory_is_not_changed(trained):
    before, after = trained.before["memory"], trained.after["memory"]
    assert list(before) == list(after) == ["cat", "dog"]
    for label, images in before.items():
        np.testing.assert_array_equal(images, after[label])


# What each point is trained with.


def test_one_task_without_a_memory_is_not_calibrated(
    untrained_search, animal_base, animal_tasks
):
    task = animal_tasks[1]
    curve, calls = untrained_search(animal_base, task, [1.0], tolerance=0.5)
    assert [point.branch_at for point in curve.points] == [0.0, 1.0]
    assert curve.tolerance == 0.5
    for point in curve.points:
        model, incremental = calls[point.branch_at]
        assert incremental.memory is None
        assert point.calibrated is False
        assert point.accuracy == point.uncalibrated_accuracy
        assert point.accuracy_of_all == point.uncalibrated_accuracy_of_all
        assert len(point.similarity) == 1 and len(point.cost.rows) == 2
        expected = by_hand(model, task, task.labels)
        found = {name: getattr(point, name) for name in expected}
        assert found == pytest.approx(expected)


def test_branches_are_thin_but_for_a_bare_classifier(
    untrained_search, animal_base, animal_tasks
):
    method = ki.PartialSharing(width=0.5, copies=2)
    _, calls = untrained_search(
        animal_base, animal_tasks[1], [1.0], method=method
    )
    assert calls[0.0][1].method == method
    assert calls[1.0][1].method == ki.PartialSharing(width=1.0, copies=2)


@pytest.mark.parametrize(
    ("copies", "augment", "kept"),
    [(0, False, True), (0, True, False), (2, True, True)],
)
def test_cost_says_whether_the_trunk_runs_in_every_step(
    untrained_search, animal_base, animal_tasks, copies, augment, kept
):
    curve, _ = untrained_search(
        animal_base,
        animal_tasks[1],
        (),
        method=ki.PartialSharing(copies=copies),
        augment=ki.augmentation.CropFlip(padding=1) if augment else None,
    )
    (point,) = curve.points
    assert point.branch_at == 0.0
    assert point.cost.trunk_cached is kept
    with pytest.raises(ValueError, match="no sharing alone"):
        _ = curve.chosen


def test_arguments_reach_every_step(trained):
    calls = trained.calls
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
        assert callback.method == trained.method
        assert callback.augment is trained.augment
        assert callback.seed == 11
        memories.append(callback.memory)
    assert memories[0] is memories[1] is not memories[2] is memories[3]
    for used in (memories[0], memories[2]):
        assert sorted(used.labels) == ANIMALS


# Names, and copies.


def test_classes_have_the_names_of_their_tasks(untrained_search):
    """The text of a new label may be the name of an old class."""
    names = {0: "3", 1: "2", 2: "1", 3: "0"}
    images, animals = shades(2)
    labels = [ANIMALS.index(animal) for animal in animals]
    scenario = ki.ClassIncrementalScenario.from_arrays(
        *2 * (images, labels),
        classes_per_task=2,
        class_order=range(4),
        class_names=names,
    )
    model = compiled(dense_network())
    model.add_classes([0, 1], ["3", "2"])
    _, calls = untrained_search(model, scenario[1], ())
    assert calls[0.0][1].class_names == {2: "1", 3: "0"}


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
    # In two parts the same sums may be taken in another order.
    np.testing.assert_allclose(
        cut.predict(images, verbose=0),
        model.predict(images, verbose=0),
        rtol=1e-5,
        atol=1e-6,
    )


# What is refused, before any training.


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
def test_models_that_cannot_be_searched_are_refused(
    case, scenario, never_fit, add_branch
):
    del never_fit
    make, message = MODELS[case]
    model = make()
    if case != "no classes":
        model.add_classes(scenario[0].labels)
    if case == "branches":
        add_branch(model, [77])
    with pytest.raises(ValueError, match=message):
        sharing.search(model, scenario[1])


WRONG = {
    "unknown layer": ({"points": ["relu9"]}, ValueError, "relu9.*'relu"),
    "inside a block": ({"points": ["conv2"]}, ValueError, "conv2.*'relu1'"),
    "the output": ({"points": ["pool"]}, ValueError, "pool.*branch_at=1.0"),
    "fraction above 1": ({"points": [0.5, 1.5]}, ValueError, "1.5"),
    "no fraction": ({"points": [True]}, TypeError, "True"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_refused(case, scenario, base, never_fit):
    del never_fit
    options, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        sharing.search(base[0], scenario[1], **{"points": (), **options})


def test_a_point_where_no_layer_can_be_thinned_is_refused(scenario, never_fit):
    del never_fit
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, name="only"),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
        ]
    )
    model = compiled(network)
    model.add_classes(scenario[0].labels)
    method = ki.PartialSharing(width=0.5)
    with pytest.raises(ValueError, match=r"width=0.5.*can be thinned"):
        sharing.search(model, scenario[1], ["only"], method=method)


TASKS = {
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
        sharing.search(base[0], [scenario[index] for index in indices], ())


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
        sharing.search(model, scenario[1:], (), memory=make(memory))
