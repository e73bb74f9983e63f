"""iCaRL, LwF.MC, weight aligning, BiC, separated softmax and Replay."""

import keras
import numpy as np
import pytest
import scipy.special

import keras_incremental as ki
from keras_incremental.methods import TaskStep
from keras_incremental.methods.bic import fit_correction
from keras_incremental.methods.icarl import means_of_exemplars
from keras_incremental.methods.weight_aligning import align_newest
from keras_incremental.samples import ArraySamples
from keras_incremental.score_rules import AffinePerHead, NearestMean

METHODS = {
    "icarl": ki.ICaRL(),
    "hybrid1": ki.ICaRL(decide="argmax"),
    "lwf_mc": ki.LwFMC(),
    "wa": ki.WeightAligning(),
    "bic": ki.BiC(),
    "ssil": ki.SeparatedSoftmax(),
    "replay": ki.Replay(),
    "aligned": ki.Replay(align=True),
}


@pytest.fixture(name="known", scope="module")
def _known(make_tiny_backbone):
    model = ki.IncrementalClassifier(make_tiny_backbone())
    model.add_classes([0, 1])
    model.add_classes([2, 3])
    return model


@pytest.fixture
def task(known, blobs):
    """The second task: classes 0, 1 known, 2 and 3 new, in two heads."""
    memory = ki.ExemplarMemory(40)
    memory.update(
        ArraySamples(*blobs([0, 1], per_class=30)), known.extract_features
    )
    return TaskStep(
        model=known,
        memory=memory,
        samples=ArraySamples(*blobs([2, 3], per_class=30)),
        past=(),
        new_labels=[2, 3],
        new_names=["2", "3"],
        known_classes=2,
        epochs=5,
        batch_size=10,
    )


def sizes(phase):
    return [len(source) for source in phase.sources()]


# iCaRL.


def test_icarl_divides_by_the_classes_to_come(task):
    (phase,) = ki.ICaRL(total_classes=100).phases(task)
    assert (phase.objective.distilled_units, phase.objective.classes) == (
        2,
        100,
    )
    (phase,) = ki.ICaRL().phases(task)
    assert phase.objective.classes == 4
    assert sizes(phase) == [60, 40]


def test_means_are_of_exemplars_and_mirrors_each_of_length_1(task):
    images = {label: task.memory.images(label) for label in (0, 1)}
    task.memory.update(task.samples, task.model.extract_features)
    means = means_of_exemplars(task)
    for label, mean in zip([0, 1], means, strict=False):
        images = task.memory.images(label)
        rows = []
        for image in [*images, *(image[:, ::-1] for image in images)]:
            (feature,) = task.model.extract_features(image[None])
            rows.append(feature / np.linalg.norm(feature))
        np.testing.assert_allclose(mean, np.mean(rows, axis=0), 1e-4, 1e-5)


def test_a_class_without_exemplars_has_no_mean(task):
    with pytest.raises(ValueError, match=r"no exemplar of the classes \[2, 3"):
        means_of_exemplars(task)


def test_icarl_without_a_memory_is_refused_first(known):
    with pytest.raises(ValueError, match="has no memory"):
        ki.ICaRL().check(known, None)
    ki.ICaRL(decide="argmax").check(known, None)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"decide": "mean"}, "decide='mean'"),
        ({"total_classes": 0}, "classes=0"),
    ],
)
def test_wrong_knobs_of_icarl_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        ki.ICaRL(**options)


def test_lwf_mc_never_sees_an_exemplar(task):
    (phase,) = ki.LwFMC(total_classes=10).phases(task)
    assert sizes(phase) == [60]
    assert phase.objective.distilled_units == 2


# Weight aligning.


def test_new_weights_get_the_mean_length_of_the_old(known, restored):
    with restored(known):
        network = known.network
        random = np.random.default_rng(0)
        kernels = [random.normal(size=(16, 2)) * s for s in (1.0, 5.0)]
        biases = [np.array([0.5, -1.0]), np.array([2.0, 3.0])]
        for index, (kernel, bias) in enumerate(
            zip(kernels, biases, strict=True)
        ):
            network.set_head_weights(index, kernel, bias)
        factor = align_newest(network)
        old, new = (np.linalg.norm(k, axis=0).mean() for k in kernels)
        assert factor == pytest.approx(old / new, rel=1e-5)
        kernel, bias = network.head_weights(1)
        np.testing.assert_allclose(kernel, kernels[1] * old / new, 1e-5)
        np.testing.assert_allclose(bias, biases[1])
        np.testing.assert_allclose(network.head_weights(0)[0], kernels[0], 1e-5)


def test_weight_aligning_weighs_by_the_share_of_old_classes(task):
    training, aligning = ki.WeightAligning(temperature=3.0).phases(task)
    assert training.objective.old_share == 0.5
    assert training.objective.temperature == 3.0
    assert aligning.name == "weight aligning" and aligning.epochs == 0


# BiC.


def test_a_tenth_is_held_out_of_exemplars_and_as_much_of_new_images(task):
    training, correction = ki.BiC(held_out=0.1).phases(task)
    assert sizes(training) == [60 - 2 * 2, 40 - 2 * 2]
    assert correction.epochs == 0
    (again, _) = ki.BiC(held_out=0.1).phases(task)
    for one, other in zip(training.sources(), again.sources(), strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)


def test_the_correction_is_that_of_a_plain_search():
    random = np.random.default_rng(0)
    logits = random.normal(size=(60, 4)) * 2
    units = random.integers(0, 4, 60)
    logits[np.arange(60), units] += 2
    logits[:, 2:] = 3 * logits[:, 2:] + 4  # new classes are too loud

    def loss(a, b):
        z = logits.copy()
        z[:, 2:] = a * z[:, 2:] + b
        chosen = z[np.arange(60), units]
        prior = ((a - 1) ** 2 + b**2) / 2
        return (scipy.special.logsumexp(z, axis=1) - chosen).mean() + (
            prior / len(units)
        )

    a, b = fit_correction(logits, units, 2)
    assert a < 0.7
    best = loss(a, b)
    for da in (-0.01, 0, 0.01):
        for db in (-0.01, 0, 0.01):
            assert best <= loss(a + da, b + db) + 1e-9


def test_few_images_that_are_easily_told_apart_change_little():
    """Cross-entropy alone has no minimum here: the scale goes to infinity."""
    logits = np.array([[2.0, 1.0], [1.0, 2.0]])
    a, b = fit_correction(logits, np.array([0, 1]), 1)
    assert 0.5 < a < 2 and abs(b) < 1


def test_corrections_of_earlier_tasks_stay_in_the_objective(task, restored):
    with restored(task.model):
        task.model.score_rule = AffinePerHead([2, 2], [0.5, 1.0], [1.0, 0.0])
        training, _ = ki.BiC().phases(task)
        np.testing.assert_allclose(training.objective.scales, [0.5, 0.5, 1, 1])
        np.testing.assert_allclose(training.objective.biases, [1, 1, 0, 0])


# Separated softmax and Replay.


def test_phases_of_one_stage(task):
    (phase,) = ki.SeparatedSoftmax(exemplar_share=0.3).phases(task)
    assert phase.objective.exemplar_share == 0.3
    assert sizes(phase) == [60, 40]
    (phase,) = ki.Replay(temperature=4.0).phases(task)
    assert phase.objective.temperature == 4.0
    assert sizes(phase) == [60, 40]
    assert len(ki.Replay(align=True).phases(task)) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: ki.SeparatedSoftmax(exemplar_share=1.0),
        lambda: ki.BiC(held_out=0),
    ],
)
def test_shares_that_are_none_are_refused(make):
    with pytest.raises(ValueError, match="above 0"):
        make()


# Each of them, in steps of a few images.


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_two_tasks_then_saved_and_loaded(name, lend_tiny, blobs, tmp_path):
    method, model = METHODS[name], lend_tiny()
    model.optimizer.learning_rate = 0.3
    traces = model.train_function_traces
    callback = ki.IncrementalCallback(ki.ExemplarMemory(40), method)
    for labels in ([3, 1], [0, 2], [4]):
        data = blobs(labels, per_class=30)
        model.fit(*data, epochs=8, verbose=0, callbacks=[callback])
    assert model.train_function_traces <= traces + 2
    x, y = blobs([0, 1, 2, 3, 4], seed=9)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    least = 0.2 if name == "lwf_mc" else 0.7
    assert logs["accuracy"] >= least
    kind = {"icarl": NearestMean, "bic": AffinePerHead}.get(name)
    assert kind is None or isinstance(model.score_rule, kind)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0),
        model.predict(x, verbose=0),
        rtol=1e-4,
        atol=1e-5,
    )
