"""The closed-form classifier, as a user runs it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.closed_form import LDA, NearestClassMean, Ridge


def make_model(make_backbone, compiled=True):
    model = ki.IncrementalClassifier(make_backbone(), branch_at=0.5)
    if compiled:
        model.compile("sgd")
    return model


@pytest.fixture
def make(lent, make_tiny_backbone):
    def make(**options):
        options.setdefault("solver", Ridge())
        callback = ki.IncrementalCallback(method=ki.Analytic(**options))
        return lent(make_model, make_tiny_backbone), callback

    return make


def fit(model, callback, data, **options):
    model.fit(*data, verbose=0, callbacks=[callback], **options)


def by_name(model, images):
    logits = model.predict(images, verbose=0)
    return dict(zip(model.labels, logits.T, strict=True))


def assert_same(model, other, images, tolerance=1e-4):
    ours, theirs = by_name(model, images), by_name(other, images)
    assert set(ours) == set(theirs)
    for label, logits in ours.items():
        np.testing.assert_allclose(logits, theirs[label], atol=tolerance)


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"solver": LDA()}, marks=pytest.mark.slow),
        pytest.param({"random_features": 40}, marks=pytest.mark.slow),
        pytest.param({"forgettable": False}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_any_split_gives_the_joint_classifier(make, blobs, options):
    images, labels = blobs(range(4))
    joint, callback = make(**options)
    fit(joint, callback, (images, labels))
    split, callback = make(**options)
    for chosen in ([2, 0], [3], [1]):
        part = np.isin(labels, chosen)
        fit(split, callback, (images[part], labels[part]))
    half = make(**options)
    for part in (slice(20), slice(20, None)):  # old classes get more images
        fit(*half, (images[part], labels[part]))
    assert_same(joint, split, images)
    assert_same(joint, half[0], images)
    assert (joint.classify(images, verbose=0) == labels.astype(str)).all()


def test_forgetting_a_class_is_never_having_seen_it(make, blobs):
    images, labels = blobs(range(4))
    never, callback = make()
    kept = np.isin(labels, [0, 2])
    fit(never, callback, (images[kept], labels[kept]))
    model, callback = make()
    fit(model, callback, (images, labels))
    model.forget_classes([1, 3])
    assert model.labels == never.labels and model.num_classes == 2
    assert_same(model, never, images)
    again = np.isin(labels, [3])
    fit(model, callback, (images[again], labels[again]))
    assert set(model.classify(images, verbose=0)) == {"0", "2", "3"}


def test_what_was_forgotten_is_nowhere_in_the_file(make, blobs, tmp_path):
    model, callback = make()
    fit(model, callback, blobs(range(3)))
    model.forget_classes([0])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    sums = loaded.score_rule.sums
    assert len(sums.counts) == len(sums.factors) == 2
    head = loaded.network.trained_head
    assert not np.asarray(head.weights[0])[:, 2:].any()


def test_what_cannot_be_forgotten_is_refused_and_nothing_changes(make, blobs):
    model, callback = make()
    data = blobs(range(3))
    fit(model, callback, data)
    before = by_name(model, data[0])
    with pytest.raises(ValueError, match="all 3 classes"):
        model.forget_classes([0, 1, 2])
    with pytest.raises(ValueError, match=r"\[9\]"):
        model.forget_classes([0, 9])
    for label, logits in by_name(model, data[0]).items():
        np.testing.assert_array_equal(logits, before[label])
    together, callback = make(forgettable=False)
    fit(together, callback, data)
    with pytest.raises(ValueError, match="forgettable"):
        together.forget_classes([0])
    model.score_rule = ki.score_rules.ScoreRule()
    with pytest.raises(ValueError, match="trained on their images"):
        model.forget_classes([0])


@pytest.mark.slow
def test_it_goes_on_in_another_process(make, blobs, tmp_path):
    images, labels = blobs(range(4))
    joint, callback = make(random_features=30)
    fit(joint, callback, (images, labels))
    model, callback = make(random_features=30)
    first = labels < 2
    fit(model, callback, (images[first], labels[first]))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(loaded, model, images, 0)
    callback = ki.IncrementalCallback(method=callback.method)
    fit(loaded, callback, (images[~first], labels[~first]))
    assert_same(joint, loaded, images)


def test_a_published_version_is_a_dense_layer(make, blobs, tmp_path):
    model, callback = make()
    images, labels = blobs(range(3))
    fit(model, callback, (images, labels))
    path = ki.export.publish(model, tmp_path / "served")
    variables = tf.train.list_variables(f"{path}/variables/variables")
    stored = sum(np.prod(shape, dtype=int) for _, shape in variables)
    rule = model.score_rule
    dense = np.size(rule.kernel) + np.size(rule.bias)
    network = sum(map(np.size, model.network.variables))
    assert stored <= network + dense + 20
    assert sum(map(np.size, rule.sums.factors)) > 20


def test_classes_without_sums_are_named(make, blobs):
    model, callback = make()
    model.add_classes([7, 8])
    with pytest.raises(ValueError, match=r"no sums of the classes \[7, 8\]"):
        fit(model, callback, blobs([0, 1]))
    assert model.labels == [7, 8]
    fit(model, callback, blobs([0, 7, 8]))
    assert model.labels == [7, 8, 0]


def test_another_kind_of_sums_is_refused(make, blobs):
    model, callback = make()
    fit(model, callback, blobs([0, 1]))
    other = ki.IncrementalCallback(method=ki.Analytic(random_features=8))
    with pytest.raises(ValueError, match="random_features=0"):
        fit(model, other, blobs([2]))
    solver = ki.IncrementalCallback(method=ki.Analytic(NearestClassMean()))
    fit(model, solver, blobs([2]))
    assert model.score_rule.solver == NearestClassMean()


def test_the_first_task_adapts_a_branch_that_is_frozen_then(
    make, make_tiny_backbone, blobs
):
    _, callback = make(adapt=True)
    model = make_model(make_tiny_backbone, compiled=False)
    with pytest.raises(ValueError, match="compile"):
        fit(model, callback, blobs([0, 1]))
    model.compile(keras.optimizers.SGD(0.05))
    fit(model, callback, blobs([0, 1]), epochs=3)
    branch = [np.asarray(w) for w in model.network.branches[0].weights]
    assert model.score_rule.dim == 2 * model.backbone.output_shape[-1]
    history = len(callback.reports)
    fit(model, callback, blobs([2]), epochs=3)
    assert len(callback.reports) == history + 1
    for before, now in zip(
        branch, model.network.branches[0].weights, strict=True
    ):
        np.testing.assert_array_equal(before, now)
    images, labels = blobs(range(3), seed=5)
    assert (
        model.classify(images, verbose=0) == labels.astype(str)
    ).mean() > 0.9


def test_the_cost_report_counts_the_sums(make, make_tiny_backbone, blobs):
    _, callback = make()
    model = make_model(make_tiny_backbone, compiled=False)  # it needs not be
    fit(model, callback, blobs(range(3)))
    report = ki.cost.report(model, measure=False)
    # For each class 12 rows of 16 features, their sum, and a count.
    assert report.kept_bytes == 3 * 8 * (12 * 16 + 16 + 1)
    assert "Sums kept with the model: 0.0 MB" in str(report)
