"""The phases of EEIL: heads, temperature, schedules, noise."""

import dataclasses

import numpy as np
import pytest

import keras_incremental as ki
from keras_incremental.methods import GradientNoise, StepDecay, TaskStep
from keras_incremental.objectives import CrossDistilled, CrossEntropy
from keras_incremental.samples import ArraySamples


@pytest.fixture(name="known", scope="module")
def _known(make_tiny_backbone):
    model = ki.IncrementalClassifier(make_tiny_backbone())
    model.add_classes([0, 1])
    model.add_classes([2, 3])
    return model


@pytest.fixture
def task(known, blobs):
    """The second task: classes 0, 1 known, 2 and 3 new, in two heads."""
    memory = ki.ExemplarMemory(6)
    memory.update(ArraySamples(*blobs([0, 1])), known.extract_features)
    return TaskStep(
        model=known,
        memory=memory,
        samples=ArraySamples(*blobs([2, 3])),
        past=(),
        new_labels=[2, 3],
        new_names=["2", "3"],
        known_classes=2,
        epochs=40,
        batch_size=10,
    )


def test_the_first_task_distils_nothing(task):
    first = dataclasses.replace(task, known_classes=0, memory=None)
    (phase,) = ki.EEIL().phases(first)
    assert not phase.objective.distils and phase.epochs == 40


def test_the_first_task_may_have_epochs_and_an_augmentation_of_its_own(task):
    own = ki.augmentation.CropFlip()
    method = ki.EEIL(first_epochs=100, first_augment=own)
    first = dataclasses.replace(task, known_classes=0)
    (phase,) = method.phases(first)
    assert (phase.epochs, phase.augment) == (100, own)
    # Stretched: divided by 10 every 25 epochs in place of 10.
    factors = [phase.learning_rate_factor(e) for e in (0, 24, 25, 50, 75, 99)]
    np.testing.assert_allclose(factors, [1, 1, 0.1, 0.01, 1e-3, 1e-3])
    training, finetuning = method.phases(task)
    assert (training.epochs, training.augment) == (40, None)
    assert training.learning_rate_factor(10) == pytest.approx(0.1)
    assert training.augmented and finetuning.augmented


def test_the_second_stage_may_be_without_augmentation(task):
    training, finetuning = ki.EEIL(finetune_augmented=False).phases(task)
    assert training.augmented and not finetuning.augmented


@pytest.mark.parametrize("epochs", [0, -1, 1.5, True])
def test_first_epochs_below_one_are_refused(epochs):
    with pytest.raises(ValueError, match=f"first_epochs={epochs}.*>= 1"):
        ki.EEIL(first_epochs=epochs)


def test_stage_1_distils_every_old_head_and_stage_2_every_head(task):
    training, finetuning = ki.EEIL(finetune_epochs=7).phases(task)
    # The newest old head included, and in stage 2 the new head.
    assert training.objective == CrossDistilled(2, temperature=2.0)
    assert finetuning.objective == CrossDistilled(4, temperature=2.0)
    assert (training.epochs, finetuning.epochs) == (40, 7)


def test_temperature_and_classification_reach_both_stages(task):
    classification = Doubled()
    method = ki.EEIL(temperature=3.5, classification=classification)
    for phase in method.phases(task):
        assert phase.objective.temperature == 3.5
        assert phase.objective.classification is classification
    (alone, _) = ki.EEIL(
        distillation=False, classification=classification
    ).phases(task)
    assert alone.objective is classification


@dataclasses.dataclass(frozen=True)
class Doubled(CrossEntropy):
    """Twice the cross-entropy."""

    def terms(self, batch):
        return {"classification": 2 * super().terms(batch)["classification"]}


def test_stage_1_mixes_all_new_data_with_all_exemplars(task):
    sources = ki.EEIL().phases(task)[0].sources()
    assert [len(source) for source in sources] == [24, 6]
    assert set(sources[1].labels.tolist()) == {0, 1}


def test_stage_2_is_balanced_per_class(task):
    (source,) = ki.EEIL().phases(task)[1].sources()
    labels, counts = np.unique(source.labels, return_counts=True)
    assert labels.tolist() == [0, 1, 2, 3]
    assert counts.tolist() == [3, 3, 3, 3]


def test_the_balanced_set_waits_for_the_end_of_stage_1(task, monkeypatch):
    """It is chosen by the features of the network at that moment."""
    chosen = []
    monkeypatch.setattr(TaskStep, "balanced", lambda task: chosen.append(task))
    phases = ki.EEIL().phases(task)
    assert not chosen
    phases[1].sources()
    assert chosen == [task]


def test_learning_rate_falls_by_ten_every_ten_epochs_in_both_stages(task):
    training, finetuning = ki.EEIL().phases(task)
    factors = [training.learning_rate_factor(e) for e in (0, 9, 10, 39)]
    np.testing.assert_allclose(factors, [1, 1, 0.1, 1e-3])
    factors = [finetuning.learning_rate_factor(e) for e in (0, 9, 10, 29)]
    np.testing.assert_allclose(factors, [0.1, 0.1, 0.01, 1e-3])


def test_noise_fades_through_both_stages(task):
    method = ki.EEIL(gradient_noise=GradientNoise())
    training, finetuning = method.phases(task)
    # Epochs count from 1, as in the authors' code.
    expected = [(0.3 / (1 + e) ** 0.55) ** 0.5 / 10 for e in (1, 6, 41, 46)]
    actual = [training.noise_stddev(e) for e in (0, 5)]
    actual += [finetuning.noise_stddev(e) for e in (0, 5)]
    np.testing.assert_allclose(actual, expected)


def test_noise_scale_by_hand():
    # 0.3 / 1^0.55 = 0.3; as a variance sqrt(0.3) = 0.547723.
    assert GradientNoise().stddev(0, 128) == pytest.approx(0.547723 / 128)
    code = GradientNoise(is_variance=False)
    assert code.stddev(0, 128) == pytest.approx(0.3 / 128)
    # 0.3 / 4^0.55 = 0.3 / 2.143547 = 0.139955.
    assert code.stddev(3, 1) == pytest.approx(0.139955, rel=1e-5)
    mean = GradientNoise(is_variance=False, added_to_sum=False)
    assert mean.stddev(0, 128) == pytest.approx(0.3)


def test_without_noise_or_distillation_the_terms_are_off(task):
    for phase in ki.EEIL(distillation=False).phases(task):
        assert phase.objective == CrossEntropy()
        assert phase.noise_stddev(0) == 0


def test_balanced_fine_tuning_needs_exemplars_of_every_old_class(task, caplog):
    assert len(ki.EEIL(finetune_epochs=0).phases(task)) == 1
    without = dataclasses.replace(task, memory=None)
    assert len(ki.EEIL().phases(without)) == 1
    empty = dataclasses.replace(task, memory=ki.ExemplarMemory(6))
    assert len(ki.EEIL().phases(empty)) == 1
    assert "no exemplar of the known classes [0, 1]" in caplog.text


def test_fine_tune_uses_new_data_and_joint_all_data(task, blobs):
    (phase,) = ki.FineTune().phases(task)
    assert [len(s) for s in phase.sources()] == [24]
    past = (ArraySamples(*blobs([0, 1], per_class=5)),)
    (phase,) = ki.Joint().phases(dataclasses.replace(task, past=past))
    assert [len(s) for s in phase.sources()] == [10, 24]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ki.EEIL(finetune_epochs=-1),
        lambda: ki.EEIL(temperature=0),
        lambda: ki.EEIL(finetune_learning_rate=0),
        lambda: StepDecay(every=0),
    ],
)
def test_values_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()


def test_methods_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ki.EEIL().temperature = 3.0


def test_a_rate_decays_at_the_epochs_that_are_given():
    decay = ki.methods.StepDecay(factor=0.5, at=(2, 3))
    assert [decay(epoch) for epoch in range(5)] == [1, 1, 0.5, 0.25, 0.25]
    with pytest.raises(ValueError, match="of 1 or more"):
        ki.methods.StepDecay(at=(0, 3))
