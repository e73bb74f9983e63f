"""What a run that is resumed has to have in common with the one before."""

import gc
import re
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.callbacks.settings import digest_of, structure_of
from keras_incremental.export.publishing import fingerprint_of
from keras_incremental.samples import ArraySamples, MappedSamples
from keras_incremental.training import Backup

NAMES = {0: "zero", 1: "one"}


def network(units=16, name=None, activation="relu"):
    """A small network; Keras numbers the layers' names, build by build."""
    layers = keras.layers
    inputs = keras.Input((4, 4, 1))
    shared = layers.Dense(units)(layers.Flatten()(inputs / 255))
    own = layers.Dense(units, activation=activation)(shared)
    return keras.Model(inputs, own + shared, name=name)


def learn(
    data,
    folder,
    backbone=None,
    cut=2,
    optimizer=None,
    loss=None,
    not_decayed=(),
    **options,
):
    """One fit of one process; returns its model and callback."""
    keras.utils.set_random_seed(0)
    backbone = network() if backbone is None else backbone
    model = ki.IncrementalClassifier(
        backbone, branch_at=backbone.layers[cut].name
    )
    optimizer = optimizer or keras.optimizers.AdamW(0.25)
    optimizer.exclude_from_weight_decay(var_names=not_decayed)
    model.compile(optimizer, loss)
    callback = ki.IncrementalCallback(
        ki.ExemplarMemory(4),
        ki.FineTune(),
        backup_dir=folder,
        **{"class_names": NAMES, **options},
    )
    model.fit(*data, verbose=0, callbacks=[callback])
    return model, callback


@pytest.fixture(name="data", scope="module")
def _data(blobs):
    return blobs([0, 1], 24)


@pytest.fixture(name="folder", scope="module")
def _folder(data, tmp_path_factory):
    """The backup of a run of one task."""
    folder = tmp_path_factory.mktemp("backup")
    learn(data, folder)
    return folder


def test_layers_and_models_of_other_names_are_the_same_run(data, folder):
    """As those of a second build in one notebook."""
    names = set()
    for name in ("one", "other"):
        backbone = network(name=name)
        names.update(layer.name for layer in backbone.layers)
        model, callback = learn(data, folder, backbone)
        assert model.train_function_traces == 0
        assert len(callback.reports) == 1
    assert len(names) > len(backbone.layers)


def other_pixels(data):
    images, labels = data
    images = images.copy()
    images[-1, 3, 3] ^= 1
    return images, labels


@pytest.mark.parametrize(
    "message, options",
    [
        (
            "optimizer.learning_rate 0.25, now 0.5",
            [keras.optimizers.AdamW, 0.5],
        ),
        ("optimizer.type 'AdamW', now 'Adam'", [keras.optimizers.Adam, 0.25]),
        ("not_decayed.names None, now 'bias'", {"not_decayed": ["bias"]}),
        ("measure_statistics True, now", {"measure_statistics": False}),
        ("names.1 'one', now '1'", {"class_names": {0: "zero"}}),
        ("backbone.layers[4].config.activation 'relu', now 'elu'", "elu"),
        ("branch_at 3, now 2", {"cut": 1}),
        (
            "loss None, now {'type': 'SparseCategoricalCrossentropy'",
            {"loss": keras.losses.SparseCategoricalCrossentropy(True)},
        ),
    ],
)
def test_another_option_is_refused_and_named(data, folder, message, options):
    if isinstance(options, list):
        kind, rate = options
        options = {"optimizer": kind(rate)}
    if isinstance(options, str):
        options = {"backbone": network(activation=options)}
    with pytest.raises(ValueError, match=re.escape(message)):
        learn(data, folder, **options)


def test_other_pixels_are_refused_and_named(data, folder):
    images, labels = data
    for other, message in (
        (other_pixels(data), r"images 'uint8 .*CRC-32 \w+', now 'uint8"),
        ((images.astype("float32"), labels), "images 'uint8.*, now 'float32"),
    ):
        with pytest.raises(ValueError, match=message):
            learn(other, folder)


def test_all_that_differs_is_named_at_once(data, folder):
    with pytest.raises(ValueError, match=r"images .*; optimizer\.type 'AdamW'"):
        learn(other_pixels(data), folder, optimizer=keras.optimizers.SGD(0.1))


def test_a_version_is_known_again_whatever_the_first_batch_was(tiny_backbone):
    model = ki.IncrementalClassifier(tiny_backbone)
    model.add_classes([0, 1])
    found = set()
    for size in (2, 5):
        model.score_rule = ki.score_rules.ScoreRule(name="rule")
        model(np.zeros((size, 4, 4, 1)))  # so does evaluate
        found.add(fingerprint_of(model))
    assert len(found) == 1


def test_wiring_counts_and_names_do_not():
    def wired(swapped):
        layers = keras.layers
        inputs = keras.Input((4,))
        one, two = layers.Dense(4, "relu")(inputs), layers.Dense(4)(inputs)
        return keras.Model(inputs, one - two if swapped else two - one)

    ours, theirs = (structure_of(wired(False))[0] for _ in range(2))
    assert ours == theirs != structure_of(wired(True))[0]


def test_a_layer_without_a_configuration_is_known_by_its_weights():
    class Scale(keras.layers.Layer):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def call(self, inputs):
            return inputs * self.factor

    def scaled(units):
        inputs = keras.Input((4,))
        scaled = Scale(np.ones(4))(inputs)
        return keras.Model(inputs, keras.layers.Dense(units)(scaled))

    assert structure_of(scaled(3))[0] == {"weights": [[4, 3], [3]]}


def test_pixels_are_told_apart_in_memory_and_in_files_alike(data, tmp_path):
    images, labels = data
    mapped = np.memmap(tmp_path / "images", images.dtype, "w+", 0, images.shape)
    mapped[:] = images
    digest = digest_of(ArraySamples(images, labels))
    assert digest_of(MappedSamples(mapped, labels)) == digest
    assert digest_of(ArraySamples(images[::-1], labels)) != digest
    assert digest_of(ArraySamples(other_pixels(data)[0], labels)) != digest


@pytest.mark.slow
@pytest.mark.timed
def test_images_are_told_apart_in_milliseconds():
    """Measured: 1.2 ms for 1,000 images of CIFAR, 0.8 s for a gigabyte."""
    images = np.random.default_rng(0).integers(
        0, 256, (20_000, 32, 32, 3), np.uint8
    )
    samples = ArraySamples(images, np.zeros(len(images), np.int64))
    start = time.perf_counter()
    digest_of(samples)
    assert time.perf_counter() - start < 20 * 0.006


def test_one_process_at_a_time_and_workers_that_only_read(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    Backup(tmp_path, {}, writes=False)
    assert not (tmp_path / ".lock").exists()
    chief = Backup(tmp_path, {})
    with open(tmp_path / ".lock") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert chief.finished_tasks == 0
        del chief
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError, match=str(tmp_path)):
            Backup(tmp_path, {})
        Backup(tmp_path, {}, writes=False)


def test_a_folder_in_use_is_refused_before_any_data_is_read(data, folder):
    fcntl = pytest.importorskip("fcntl")

    def unread():
        pytest.fail("The data set was read.")
        yield

    dataset = tf.data.Dataset.from_generator(
        unread,
        output_signature=(
            tf.TensorSpec((None, 4, 4, 1), tf.uint8),
            tf.TensorSpec((None,), tf.int64),
        ),
    )
    gc.collect()  # what earlier tests have left
    with open(folder / ".lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError, match="is alive"):
            learn((dataset,), folder)
