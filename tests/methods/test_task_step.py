"""A task, as a method sees it: exemplars, features and cached columns."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.methods import TaskStep
from keras_incremental.networks import BranchedNetwork, OneHeadNetwork
from keras_incremental.samples import ArraySamples, read_samples


def make_model(policy="float32", branch_at="stage1"):
    keras.utils.set_random_seed(0)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        backbone = ki.backbones.small((4, 4, 1))
    finally:
        keras.config.set_dtype_policy(before)
    model = ki.IncrementalClassifier(backbone, branch_at=branch_at)
    model.add_classes([40, 7])
    return model


def with_branch(kind, **options):
    model = make_model(**options)
    model.network = kind.on(model.network).with_branch()
    model.add_classes([300])
    return model


@pytest.fixture(name="branched", scope="module")
def _branched():
    return with_branch(BranchedNetwork)


def task_of(model, samples, memory=None, **options):
    return TaskStep(
        model=model,
        memory=memory,
        samples=samples,
        past=(),
        new_labels=[300],
        new_names=["300"],
        known_classes=2,
        epochs=1,
        batch_size=8,
        **options,
    )


@pytest.fixture
def samples(blobs):
    return ArraySamples(*blobs([300]))


def test_exemplars_are_those_of_before_or_none(branched, samples, blobs):
    memory = ki.ExemplarMemory(6)
    assert task_of(branched, samples).exemplars() == []
    assert task_of(branched, samples, memory).exemplars() == []
    memory.update(ArraySamples(*blobs([40, 7])), branched.extract_features)
    (exemplars,) = task_of(branched, samples, memory).exemplars()
    assert len(exemplars) == 6 and set(exemplars.labels) == {40, 7}


def test_images_per_class_are_counted_by_unit(branched, samples, blobs):
    task = task_of(branched, samples)
    sources = [
        ArraySamples(*blobs([7, 300], per_class=2)),
        ArraySamples(*blobs([7], per_class=3)),
    ]
    counts = task.images_per_class(sources)
    assert counts.tolist() == [0, 5, 2]
    assert counts.dtype == np.int64


@pytest.mark.parametrize("kind", [BranchedNetwork, OneHeadNetwork])
def test_features_are_those_of_extract_features_cached_or_not(kind, blobs):
    model = with_branch(kind)
    samples = ArraySamples(*blobs([300], per_class=200))  # two batches
    task = task_of(model, samples)
    expected = model.extract_features(samples.all_images())
    plain = task.features(samples)
    column = task.cached(samples)
    calls = []
    real = model.network.frozen

    def counted(images):
        calls.append(images)
        return real(images)

    model.network.frozen = counted
    cached = task.features(samples)
    assert not calls and column.copies == 1
    assert plain.shape == cached.shape == (200, model.network.feature_dim)
    assert plain.dtype == cached.dtype == np.float32
    # Batches of other sizes, and cached outputs: equal to rounding.
    np.testing.assert_allclose(plain, expected, atol=1e-5)
    np.testing.assert_allclose(cached, expected, atol=1e-5)


def test_features_of_samples_in_a_file_are_those_of_arrays(branched, blobs):
    x, y = blobs([300])
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(5)
    in_file = read_samples(data, image_shape=x.shape[1:], cache_bytes=0)
    task = task_of(branched, in_file)
    expected = branched.extract_features(x)
    np.testing.assert_allclose(task.features(in_file), expected, atol=1e-5)
    task.cached(in_file)
    np.testing.assert_allclose(task.features(in_file), expected, atol=1e-5)


def test_a_column_is_cached_once_for_samples_network_and_copies(
    branched, samples, blobs
):
    task = task_of(
        branched, samples, augment=ki.augmentation.CropFlip(padding=1)
    )
    column = task.cached(samples)
    assert task.cached(samples) is column
    assert task.cached(samples, copies=2) is not column
    assert task.cached(samples, copies=2) is task.cached(samples, copies=2)
    others = ArraySamples(*blobs([300]))
    assert task.cached(others) is not column
    other = OneHeadNetwork(branched.network.base())
    assert task.cached(samples, network=other) is not column


def test_cached_rows_are_what_the_trunk_makes_of_the_augmented_images(blobs):
    model, images = make_model(), make_model(branch_at=0.0)
    samples = ArraySamples(*blobs([300], per_class=20))
    augment = ki.augmentation.CropFlip(padding=1)

    def rows(model, **options):
        network = BranchedNetwork.on(model.network)
        task = task_of(model, samples, augment=augment, **options)
        return task.cached(samples, 3, network).rows

    inputs = rows(images)  # cut before all layers: the images themselves
    assert inputs.dtype == np.uint8
    np.testing.assert_array_equal(inputs[0], samples.all_images())
    assert (inputs[1] != inputs[2]).any()
    outputs = rows(model)
    trunk = model.network.trunk
    for copy in range(3):
        np.testing.assert_allclose(
            outputs[copy], trunk(inputs[copy], training=False), atol=1e-5
        )
    np.testing.assert_array_equal(rows(images), inputs)
    assert (rows(images, seed=1)[1] != inputs[1]).any()
    images.add_classes([8])  # another task draws anew
    assert (rows(images)[1] != inputs[1]).any()


@pytest.mark.parametrize("cache_bytes", [0, 10**9])
def test_half_precision_rows_take_half_the_room(samples, cache_bytes):
    model = with_branch(BranchedNetwork, policy="mixed_bfloat16")
    task = task_of(model, samples, cache_bytes=cache_bytes)
    column = task.cached(samples)
    assert column.rows.shape == (1, 12, 4, 4, 32)
    assert column.rows.nbytes == 12 * 4 * 4 * 32 * 2
    expected = model.network.frozen(samples.all_images())
    assert expected.dtype == tf.bfloat16
    np.testing.assert_allclose(
        tf.cast(column.rows[0], tf.float32),
        tf.cast(expected, tf.float32),
        rtol=0.02,
    )
    features = task.features(samples)
    assert features.dtype == np.float32 and np.isfinite(features).all()


@pytest.mark.usefixtures("impatient")
def test_a_progress_bar_is_shown_unless_silent(branched, samples, capsys):
    task_of(branched, samples).cached(samples)
    assert capsys.readouterr().out == ""
    task_of(branched, samples, verbose=1).cached(samples)
    assert "batch" in capsys.readouterr().out


def test_the_balanced_set_has_as_many_images_of_each_class(
    branched, samples, blobs
):
    memory = ki.ExemplarMemory(6)
    memory.update(ArraySamples(*blobs([40, 7])), branched.extract_features)
    balanced = task_of(branched, samples, memory).balanced()
    assert collections.Counter(balanced.labels.tolist()) == {
        40: 3,
        7: 3,
        300: 3,
    }
