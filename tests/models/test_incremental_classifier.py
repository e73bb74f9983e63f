"""IncrementalClassifier: labels, Keras' own fit, saving."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki


@pytest.fixture
def model(tiny_backbone):
    """A model whose steps run eagerly: they are quick to start."""
    model = ki.IncrementalClassifier(tiny_backbone)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, run_eagerly=True)
    return model


@pytest.fixture
def traced(model):
    """A model as users compile it."""
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    return model


def test_predict_has_a_column_for_each_class_and_classify_gives_names(model):
    model.add_classes([40, 7], ["forty", "seven"])
    model.add_classes([300])
    x = np.random.default_rng(0).integers(0, 255, (9, 4, 4, 1), "uint8")
    logits = model.predict(x, verbose=0)
    assert logits.shape == (9, 3) == (9, model.num_classes)
    assert model.class_names == ["forty", "seven", "300"]
    names = model.classify(x, verbose=0)
    expected = np.array(model.class_names)[logits.argmax(1)]
    assert names.tolist() == expected.tolist()


def test_old_logits_are_bit_equal_after_new_classes(tiny_backbone):
    model = ki.IncrementalClassifier(tiny_backbone, capacity=4)
    x = np.random.default_rng(0).integers(0, 255, (9, 4, 4, 1), "uint8")
    model.add_classes([1, 2, 3])
    before = model.predict(x, verbose=0)
    for label in range(10, 16):  # beyond the capacity, twice
        model.add_classes([label])
    after = model.predict(x, verbose=0)
    np.testing.assert_array_equal(after[:, :3], before)
    assert after.shape == (9, 9)


@pytest.mark.slow
def test_fit_without_the_callback_is_keras_own_fit(tiny_backbone, blobs):
    """The same weights as a plain model of the same layers and seed."""
    x, y = blobs([40, 7])
    units = np.where(y == 40, 0, 1)
    ours = ki.IncrementalClassifier(tiny_backbone, capacity=2)
    ours.add_classes([40, 7])
    plain_backbone = keras.models.clone_model(tiny_backbone)
    dense = keras.layers.Dense(2)
    plain = keras.Sequential([plain_backbone, dense])
    plain.build((None, 4, 4, 1))
    plain_backbone.set_weights(tiny_backbone.get_weights())
    dense.set_weights([w.numpy() for w in ours.network.head.trainable_weights])
    for model, targets in ((ours, y), (plain, units)):
        model.compile(
            optimizer=keras.optimizers.SGD(0.05, momentum=0.9),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        model.fit(x, targets, epochs=3, batch_size=8, shuffle=False, verbose=0)
    np.testing.assert_allclose(
        ours.predict(x, verbose=0), plain.predict(x, verbose=0), atol=1e-4
    )


def test_default_loss_is_cross_entropy_over_all_classes(model, blobs):
    x, y = blobs([40, 7])
    model.add_classes([40, 7])
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    expected = keras.losses.sparse_categorical_crossentropy(
        np.where(y == 40, 0, 1), model.predict(x, verbose=0), from_logits=True
    )
    assert logs["loss"] == pytest.approx(float(np.mean(expected)), rel=1e-5)
    assert set(logs) == {"loss", "accuracy"}


@pytest.mark.slow
def test_evaluate_and_fit_take_arrays_datasets_and_pydatasets(traced, blobs):
    model = traced
    x, y = blobs([40, 7])
    model.add_classes([40, 7])
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)

    begun = []

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            rows = slice(8 * index, 8 * index + 8)
            return x[rows], y[rows]

        def on_epoch_begin(self):
            begun.append(self)

    def generator():
        for start in range(0, 24, 8):
            yield x[start : start + 8], y[start : start + 8]

    expected = model.evaluate(x, y, verbose=0)
    for source in (data, Batches(), generator()):
        actual = model.evaluate(source, verbose=0)
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
    history = model.fit(Batches(), epochs=5, verbose=0, validation_data=data)
    assert history.history["val_accuracy"][-1] > 0.9
    assert len(begun) == 5 + 1  # of fit and of evaluate


def test_single_batches_are_refused(model, blobs):
    model.add_classes([40, 7])
    for function in (model.train_on_batch, model.test_on_batch):
        with pytest.raises(NotImplementedError, match="by fit and evaluate"):
            function(*blobs([7, 40]))


def test_arguments_of_evaluate_and_predict_have_keras_order(model, blobs):
    x, y = blobs([40, 7])
    model.add_classes([40, 7])
    parameters = inspect.signature(keras.Model.evaluate).parameters
    assert [*inspect.signature(model.evaluate).parameters] == [*parameters][1:]
    parameters = inspect.signature(keras.Model.predict).parameters
    assert [*inspect.signature(model.predict).parameters] == [*parameters][1:]
    found = model.evaluate(x, y, 4, 0, None, 2, None, True)
    expected = model.evaluate(x[:8], y[:8], verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-5)
    assert model.evaluate(x, y, verbose=0, steps=0) == pytest.approx(
        model.evaluate(x, y, verbose=0)
    )
    assert model.predict(x, 4, 0, 2).shape == (8, 2)


def test_validation_data_uses_the_users_labels(model, blobs):
    x, y = blobs([40, 7])
    model.add_classes([40, 7])
    history = model.fit(
        x, y, epochs=1, verbose=0, validation_data=(x, y), batch_size=8
    )
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert history.history["val_loss"][-1] == pytest.approx(
        logs["loss"], rel=1e-4
    )


def test_users_metrics_and_loss_are_honoured(tiny_backbone, blobs):
    x, y = blobs([40, 7])
    model = ki.IncrementalClassifier(tiny_backbone)
    model.add_classes([40, 7])
    model.compile(
        optimizer="sgd",
        loss=lambda units, logits: 0 * tf.reduce_sum(logits, -1) + 3.0,
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2)],
        run_eagerly=True,
    )
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(3.0)
    assert logs["sparse_top_k_categorical_accuracy"] == 1.0


def test_regularisation_of_the_users_layers_is_part_of_the_loss(blobs):
    x, y = blobs([0, 1])
    backbone = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(1)),
        ]
    )
    model = ki.IncrementalClassifier(backbone)
    model.add_classes([0, 1])
    model.compile(optimizer="sgd", run_eagerly=True)
    loss = model.evaluate(x, y, verbose=0)[0]
    kernels = backbone.layers[1].kernel, model.network.head_weights(0)[0]
    penalty = sum(float(np.sum(np.square(kernel))) for kernel in kernels)
    bare = keras.losses.sparse_categorical_crossentropy(
        y, model.predict(x, verbose=0), from_logits=True
    )
    assert penalty > 0.1
    assert loss == pytest.approx(float(np.mean(bare)) + penalty, rel=1e-4)
    # Nothing in this network does otherwise in training.
    history = model.fit(x, y, batch_size=len(x), verbose=0).history
    trained = history["loss"][0]
    assert trained == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("as_dataset", [False, True])
def test_unknown_labels_are_a_clear_error(traced, blobs, as_dataset):
    model = traced
    x, y = blobs([40, 7])
    model.add_classes([40, 8])
    data = (x, y)
    if as_dataset:
        data = (tf.data.Dataset.from_tensor_slices((x, y)).batch(8),)
    with pytest.raises(ValueError, match=r"not been taught.*7"):
        model.evaluate(*data, verbose=0)


def test_a_model_without_classes_says_so(model, blobs):
    x, y = blobs([1])
    for action in (
        lambda: model.predict(x),
        lambda: model.evaluate(x, y),
        lambda: model.fit(x, y),
    ):
        with pytest.raises(ValueError, match="knows no classes"):
            action()
    with pytest.raises(ValueError, match="no labels"):
        model.add_classes([])


def test_fit_before_compile_says_so(tiny_backbone, blobs):
    x, y = blobs([1])
    model = ki.IncrementalClassifier(tiny_backbone)
    with pytest.raises(ValueError, match="compile"):
        model.fit(x, y, callbacks=[ki.IncrementalCallback()])


def test_keras_file_round_trip_keeps_everything_and_growth(
    model, blobs, tmp_path
):
    x, y = blobs([40, 7, 300])
    model.add_classes([40, 7], ["forty", "seven"])
    model.add_classes([300])
    model.fit(x, y, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    assert again.class_names == ["forty", "seven", "300"]
    assert again.labels == [40, 7, 300]
    assert again.heads == model.heads
    incremental = ki.IncrementalCallback(ki.ExemplarMemory(20))
    again.fit(*blobs([9]), epochs=1, verbose=0, callbacks=[incremental])
    assert again.num_classes == 4


def test_the_teacher_is_neither_saved_nor_trained(model, blobs, tmp_path):
    weights = len(model.weights)
    incremental = ki.IncrementalCallback(ki.ExemplarMemory(20))
    model.fit(*blobs([1, 2]), epochs=1, verbose=0, callbacks=[incremental])
    assert len(model.weights) == weights
    path = tmp_path / "model.keras"
    model.save(path)
    assert len(keras.models.load_model(path).weights) == weights


def test_class_weight_of_a_plain_fit_is_by_label(tiny_backbone, blobs):
    x, y = blobs([40, 0])
    model = ki.IncrementalClassifier(tiny_backbone)
    model.add_classes([40, 0])
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    history = model.fit(
        x, y, verbose=0, batch_size=len(x), class_weight={40: 0.0, 0: 1.0}
    )
    logits = model(x, training=True)
    losses = keras.losses.sparse_categorical_crossentropy(
        np.where(y == 40, 0, 1), logits, from_logits=True
    )
    expected = float(np.sum(losses * (y == 0)) / len(y))
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-3)


@pytest.fixture(scope="module")
def untaught(make_tiny_backbone):
    """A model that refuses what it is compiled with."""
    return ki.IncrementalClassifier(make_tiny_backbone())


@pytest.mark.parametrize(
    "loss",
    [
        "sparse_categorical_crossentropy",
        "SparseCategoricalCrossentropy",
        keras.losses.SparseCategoricalCrossentropy(),
        keras.losses.sparse_categorical_crossentropy,
        ["sparse_categorical_crossentropy"],
    ],
)
def test_a_loss_that_takes_probabilities_is_refused(untaught, loss):
    with pytest.raises(ValueError, match="from_logits=True"):
        untaught.compile(optimizer="sgd", loss=loss)


def losses_of_keras():
    """Returns the names of all losses of Keras but the one that works."""
    return [
        name
        for name, item in vars(keras.losses).items()
        if inspect.isclass(item)
        and issubclass(item, keras.Loss)
        and name != "SparseCategoricalCrossentropy"
    ]


@pytest.mark.parametrize("name", losses_of_keras())
def test_a_loss_that_cannot_teach_classes_is_refused(untaught, name):
    kind = getattr(keras.losses, name)
    takes_logits = "from_logits" in inspect.signature(kind).parameters
    loss = kind(from_logits=True) if takes_logits else kind()
    with pytest.raises(ValueError, match=r"integer classes.*Leave loss out"):
        untaught.compile(optimizer="sgd", loss=loss)


def of_probabilities(units, scores):
    return -keras.ops.log(keras.ops.take_along_axis(scores, units[:, None], 1))


def test_a_loss_of_the_users_that_is_not_finite_on_logits_is_refused(untaught):
    with pytest.raises(ValueError, match="nan for wrong ones"):
        untaught.compile(optimizer="sgd", loss=of_probabilities)


def squared_gap(units, logits):
    units = tf.cast(tf.reshape(units, [-1]), logits.dtype)
    return (units - logits[:, 0]) ** 2


def test_a_loss_function_of_logits_is_taken(tiny_backbone, blobs):
    model = ki.IncrementalClassifier(tiny_backbone)
    model.add_classes([0, 1])
    x, y = blobs([0, 1])
    expected = np.mean((y - model.predict(x, verbose=0)[:, 0]) ** 2)
    model.compile("sgd", loss=squared_gap, run_eagerly=True)
    found = model.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    assert found == pytest.approx(expected, rel=1e-5)


def test_weights_of_another_number_of_classes_are_refused(
    tiny_backbone, blobs, tmp_path
):
    model = ki.IncrementalClassifier(tiny_backbone)
    model.add_classes(["a", "b"])
    model.save_weights(tmp_path / "two.weights.h5")
    model.add_classes(["c"])
    with pytest.raises(ValueError, match=r"of 2 units.* has 3.*load the whole"):
        model.load_weights(tmp_path / "two.weights.h5")
    x, _ = blobs([0])
    assert model(x).shape == model.predict(x, verbose=0).shape == (12, 3)
    model.remove_classes(1)
    model.load_weights(tmp_path / "two.weights.h5")


def test_string_labels_for_an_integer_model_are_a_clear_error(traced, blobs):
    model = traced
    x, y = blobs([1, 2])
    model.add_classes([1, 2])
    data = tf.data.Dataset.from_tensor_slices((x, y.astype(str))).batch(8)
    with pytest.raises(ValueError, match="not been taught"):
        model.evaluate(data, verbose=0)
