"""Going on from a trained classifier: logits, untouched original, refusals."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_incremental as ki
from keras_incremental import EEIL, ExemplarMemory, IncrementalCallback
from keras_incremental.models import IncrementalClassifier

NAMES = ["cat", "dog", "fox"]


def images(shape, count=5):
    return np.random.default_rng(3).uniform(0, 255, (count, *shape))


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def small_cnn(*end):
    """A Sequential network with preprocessing and batch normalisation."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Rescaling(1 / 255, offset=-0.5),
            layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization(momentum=0.0),
            layers.ReLU(),
            layers.Flatten(),
            *end,
        ]
    )


def warmed_up(network):
    """Gives weights, biases and statistics values that a mistake would show.

    Kernels are as initialised; biases and offsets are drawn, and the moving
    statistics become those of a batch, so that the signal does not fade.
    """
    random = np.random.default_rng(5)
    for layer in network._flatten_layers(include_self=False):
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    network(images(network.input_shape[1:], 8), training=True)
    for weight in network.trainable_weights:
        if len(weight.shape) == 1:
            weight.assign(weight + random.normal(0, 0.1, weight.shape))
    return network


def adopt(trained, count=None, **options):
    count = trained.output_shape[-1] if count is None else count
    names = [f"class {unit}" for unit in range(count)]
    return IncrementalClassifier.from_classifier(trained, names, **options)


def logits_of(model, x):
    """As `predict`, without its tracing, which takes most of a test's time."""
    return model(x, training=False).numpy()


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(7)


# Logits.


def test_a_linear_classifier_by_hand():
    trained = keras.Sequential(
        [keras.Input((1, 2, 1)), layers.Flatten(), layers.Dense(2)]
    )
    trained.set_weights([np.array([[1.0, 2], [3, 4]]), np.array([10.0, 20])])
    model = IncrementalClassifier.from_classifier(trained, ["low", "high"])
    x = np.array([[[[1.0], [1.0]]], [[[0.0], [2.0]]]])
    assert model.predict(x, verbose=0).tolist() == [[14, 26], [16, 28]]
    assert model.class_names == ["low", "high"]
    assert model.labels == [0, 1]
    assert model.classify(x).tolist() == ["high", "high"]


@pytest.mark.parametrize(
    "end",
    [
        lambda: [layers.Dense(3)],
        lambda: [layers.Dense(3, use_bias=False)],
        lambda: [layers.Dense(8, activation="relu"), layers.Dense(3)],
        lambda: [layers.Dropout(0.5), layers.Dense(3, activation="linear")],
        lambda: [layers.Dense(3), layers.Activation("linear")],
        lambda: [layers.Dense(3), layers.Dropout(0.1), layers.Identity()],
    ],
)
def test_a_model_of_logits_keeps_them(end):
    trained = warmed_up(small_cnn(*end()))
    x = images((6, 6, 1))
    expected = logits_of(trained, x)
    got = logits_of(adopt(trained), x)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "end",
    [
        lambda: [layers.Dense(3, activation="softmax", name="last")],
        lambda: [layers.Dense(3, name="last"), layers.Softmax()],
        lambda: [layers.Dense(3, name="last"), layers.Activation("softmax")],
        lambda: [
            layers.Reshape((1, 1, -1)),
            layers.Conv2D(3, 1, name="last"),
            layers.Flatten(),
            layers.Softmax(),
        ],
        lambda: [
            layers.Reshape((4, 4, 4)),
            layers.Conv2D(3, 4, name="last"),
            layers.Softmax(),
            layers.Reshape((3,)),
        ],
        lambda: [
            layers.Reshape((1, 64)),
            layers.Dense(3, name="last"),
            layers.Reshape((3,)),
            layers.Softmax(),
        ],
    ],
)
def test_a_model_of_probabilities_gives_the_logits_before_them(end):
    trained = warmed_up(small_cnn(*end()))
    x = images((6, 6, 1))
    last = trained.get_layer("last")
    before = keras.Model(trained.inputs, last.output)
    got = logits_of(adopt(trained), x)
    expected = logits_of(trained, x)
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(softmax(got), expected, atol=1e-6)
    if last.activation is keras.activations.linear:
        np.testing.assert_allclose(
            got, logits_of(before, x).reshape(-1, 3), rtol=1e-5
        )


def test_log_probabilities_and_operations_are_softmaxes_too():
    source = keras.Input((4,))
    dense = layers.Dense(3)
    x = images((4,)) / 255
    for last in (keras.ops.softmax, keras.ops.log_softmax):
        trained = keras.Model(source, last(dense(source)))
        np.testing.assert_allclose(
            logits_of(adopt(trained), x), dense(x), rtol=1e-6
        )
    trained = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, activation="log_softmax")]
    )
    np.testing.assert_allclose(
        np.log(softmax(logits_of(adopt(trained), x))),
        logits_of(trained, x),
        atol=1e-6,
    )


def test_functional_models_with_merges_and_nested_models():
    source = keras.Input((6, 6, 1))
    stem = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Rescaling(1 / 255), layers.Conv2D(4, 3)]
    )
    inner = keras.Input((4, 4, 4))
    block = keras.Model(
        inner, layers.add([inner, layers.Conv2D(4, 3, padding="same")(inner)])
    )
    pooled = layers.GlobalAveragePooling2D()(block(stem(source)))
    end = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, activation="relu"),
            layers.Dense(5, activation="softmax"),
        ]
    )
    trained = warmed_up(keras.Model(source, end(pooled)))
    x = images((6, 6, 1))
    model = adopt(trained)
    expected = logits_of(trained, x)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(softmax(logits_of(model, x)), expected, 1e-5)
    assert model.backbone.output_shape == (None, 8)


def test_normalisation_that_was_adapted_is_kept():
    scale = layers.Normalization(axis=-1)
    scale.adapt(images((6, 6, 1), 20))
    trained = keras.Sequential(
        [keras.Input((6, 6, 1)), scale, layers.Flatten(), layers.Dense(3)]
    )
    x = images((6, 6, 1))
    np.testing.assert_allclose(
        logits_of(adopt(trained), x), logits_of(trained, x), rtol=1e-5
    )


def test_images_of_another_dtype_and_size_are_taken_as_the_model_takes_them():
    trained = keras.Sequential(
        [
            keras.Input((None, None, 3), dtype="uint8"),
            layers.Resizing(4, 4),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    x = images((9, 7, 3)).astype("uint8")
    np.testing.assert_allclose(
        softmax(adopt(trained).predict(x, verbose=0)),
        trained.predict(x, verbose=0),
        atol=1e-6,
    )


def test_a_sequential_model_built_by_a_batch_takes_any_batch_size():
    trained = keras.Sequential([layers.Flatten(), layers.Dense(3)])
    trained(images((6, 6, 1), 4))
    x = images((6, 6, 1), 7) / 255
    np.testing.assert_allclose(
        logits_of(adopt(trained), x), trained(x), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_gives_the_same_logits(policy):
    keras.config.set_dtype_policy(policy)
    try:
        trained = small_cnn(
            layers.Dense(3, name="last"), layers.Activation("softmax")
        )
    finally:
        keras.config.set_dtype_policy("float32")
    warmed_up(trained)
    model = adopt(trained)
    x = images((6, 6, 1))
    before = keras.Model(trained.inputs, trained.get_layer("last").output)
    expected = logits_of(before, x).astype("float32")
    got = logits_of(model, x).astype("float32")
    assert model.network.head.compute_dtype == policy.removeprefix("mixed_")
    np.testing.assert_array_equal(got, expected)
    model.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    model.fit(x, [0, 1, 2, 0, 1], epochs=1, verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param("MobileNet", 32, marks=pytest.mark.slow),
        pytest.param("MobileNetV2", 32, marks=pytest.mark.slow),
        ("MobileNetV3Small", 32),
        ("VGG16", 32),
        pytest.param("EfficientNetB0", 32, marks=pytest.mark.slow),
        pytest.param("ConvNeXtTiny", 32, marks=pytest.mark.slow),
        pytest.param("DenseNet121", 32, marks=pytest.mark.slow),
        pytest.param("InceptionV3", 75, marks=pytest.mark.slow),
    ],
)
def test_applications_with_their_top(name, size):
    shape = (size, size, 3)
    trained = getattr(keras.applications, name)(
        weights=None, classes=6, input_shape=shape
    )
    if name != "VGG16":
        warmed_up(trained)
    x = images(shape, 2)
    expected = trained(x, training=False).numpy()
    model = adopt(trained)
    got = model(x, training=False).numpy()
    assert got.shape == (2, 6)
    assert np.ptp(got) > 1e-2
    np.testing.assert_allclose(softmax(got), expected, atol=1e-5)


def test_a_thousand_classes_have_one_block_of_columns():
    trained = keras.Sequential([keras.Input((4,)), layers.Dense(1000)])
    model = adopt(trained)
    assert model.network.head.allocated == model.network.head.capacity == 1024
    x = images((4,)) / 255
    np.testing.assert_allclose(
        logits_of(model, x), trained(x), rtol=1e-5, atol=1e-6
    )
    assert adopt(trained, capacity=2000).network.head.allocated == 2000


def test_l2_of_the_last_layer_goes_on_and_counts_old_columns_alone():
    trained = keras.Sequential(
        [keras.Input((2,)), layers.Dense(2, kernel_regularizer="l2")]
    )
    trained.set_weights([np.full((2, 2), 3.0), np.zeros(2)])
    model = adopt(trained)
    model(np.zeros((1, 2)))
    assert float(sum(model.losses)) == pytest.approx(0.01 * 4 * 9)


# The original.


@pytest.mark.slow
def test_training_the_new_model_leaves_the_trained_one_as_it_is():
    trained = warmed_up(small_cnn(layers.Dense(3, activation="softmax")))
    before = [weight.numpy() for weight in trained.weights]
    flags = [layer.trainable for layer in trained.layers]
    model = adopt(trained)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    start = [weight.numpy() for weight in model.backbone.weights]
    x = images((6, 6, 1), 12)
    model.fit(
        x, [3, 4] * 6, epochs=1, verbose=0, callbacks=[IncrementalCallback()]
    )
    moved = [
        np.abs(weight.numpy() - old).max()
        for weight, old in zip(model.backbone.weights, start, strict=True)
    ]
    assert min(moved) > 0
    for weight, old in zip(trained.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), old)
    assert [layer.trainable for layer in trained.layers] == flags
    assert not {id(v) for v in trained.variables} & {
        id(v) for v in model.variables
    }


def test_frozen_layers_stay_frozen_but_not_if_all_are():
    trained = small_cnn(layers.Dense(3))
    trained.layers[1].trainable = False
    adopted = adopt(trained)
    flags = {layer.name: layer.trainable for layer in adopted.backbone.layers}
    assert not flags[trained.layers[1].name]
    assert flags[trained.layers[2].name]
    trained.trainable = False
    adopted = adopt(trained)
    assert all(layer.trainable for layer in adopted.backbone.layers)
    assert adopted.network.head.trainable


# Going on.


@pytest.mark.slow
def test_new_classes_are_learned_and_old_ones_distilled_without_memory(
    tiny_backbone, blobs
):
    trained = keras.Sequential(
        [*tiny_backbone.layers, layers.Dense(2, activation="softmax")]
    )
    trained.compile("adam", "sparse_categorical_crossentropy")
    x, y = blobs([0, 1], per_class=30)
    trained.fit(x, y, epochs=30, verbose=0)
    model = IncrementalClassifier.from_classifier(trained, ["zero", "one"])
    model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
    memory = ExemplarMemory(capacity=20)
    step = IncrementalCallback(memory, EEIL(finetune_epochs=2), {2: "two"})
    x2, y2 = blobs([2], per_class=30)
    history = model.fit(x2, y2, epochs=5, verbose=0, callbacks=[step])
    assert min(history.history["distillation_loss"]) > 0
    assert len(history.epoch) == 5  # no balanced set without old exemplars
    assert model.class_names == ["zero", "one", "two"]
    assert memory.labels == [0, 1, 2]
    assert [len(memory.images(k)) for k in memory.labels] == [0, 0, 20]
    # The next step, too, on a memory that lacks the first classes.
    x3, y3 = blobs([3], per_class=30)
    step = IncrementalCallback(memory, EEIL(finetune_epochs=2))
    history = model.fit(x3, y3, epochs=2, verbose=0, callbacks=[step])
    assert min(history.history["distillation_loss"]) > 0
    assert [len(memory.images(k)) for k in memory.labels] == [0, 0, 10, 10]
    assert len(memory) == 20


@pytest.mark.slow
def test_distillation_alone_helps_to_tell_old_classes_apart():
    x, y, x_test, y_test = ki.scenarios.load_digits()
    x_test, y_test = x_test[y_test < 6], y_test[y_test < 6]
    trained = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(6, activation="softmax"),
        ]
    )
    trained.compile("adam", "sparse_categorical_crossentropy")
    trained.fit(x[y < 6], y[y < 6], epochs=15, verbose=0)

    def accuracy_among_old(distillation):
        model = adopt(trained)
        model.compile(optimizer=keras.optimizers.SGD(0.03, momentum=0.9))
        model.fit(
            x[y >= 6],
            y[y >= 6],
            epochs=10,
            verbose=0,
            callbacks=[
                IncrementalCallback(
                    ExemplarMemory(20), EEIL(distillation=distillation)
                )
            ],
        )
        logits = logits_of(model, x_test)[:, :6]
        return np.mean(logits.argmax(axis=1) == y_test)

    with_it, without = accuracy_among_old(True), accuracy_among_old(False)
    assert with_it > without + 0.02


def test_labels_of_the_user_and_a_branch_point(add_branch):
    trained = warmed_up(small_cnn(layers.Dense(3)))
    name = trained.layers[1].name
    model = IncrementalClassifier.from_classifier(
        trained, NAMES, labels=[40, 7, 9], branch_at=name, name="grown"
    )
    assert model.labels == [40, 7, 9]
    assert model.name == "grown"
    assert model.branch_at == name
    x = images((6, 6, 1))
    before = logits_of(model, x)
    add_branch(model, [1])
    np.testing.assert_array_equal(logits_of(model, x)[:, :3], before)


def test_an_adopted_model_is_saved_and_loaded(tmp_path):
    trained = warmed_up(small_cnn(layers.Dense(3)))
    model = IncrementalClassifier.from_classifier(trained, NAMES)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = images((6, 6, 1))
    np.testing.assert_array_equal(logits_of(loaded, x), logits_of(model, x))
    assert loaded.class_names == NAMES


# Refusals.


@pytest.mark.parametrize(
    ("names", "labels", "error", "message"),
    [
        (["a", "b"], None, ValueError, "has 3 outputs.*2 class names"),
        (["a", "b", "a"], None, ValueError, "class name may occur once"),
        ([], None, ValueError, r"class_names=\[\]; expected a list"),
        (["a", " ", "c"], None, ValueError, "one for each output"),
        (["a", 2, "c"], None, ValueError, "'a', 2, 'c'.*expected a list"),
        ("abc", None, ValueError, "class_names='abc'; expected a list"),
        ({0: "a"}, None, ValueError, "'a'}; expected a list"),
        (None, None, ValueError, "class_names=None; expected a list"),
        (NAMES, [1, 2], ValueError, "3 class names for 2 labels"),
        (NAMES, [1, 2, 2], ValueError, "label may occur once"),
    ],
)
def test_wrong_names_and_labels_are_refused(names, labels, error, message):
    trained = small_cnn(layers.Dense(3))
    with pytest.raises(error, match=message):
        IncrementalClassifier.from_classifier(trained, names, labels)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (
            [layers.Dense(3, activation="sigmoid", name="last")],
            r"'last' \(Dense\), with the activation sigmoid, as for several",
        ),
        ([layers.Dense(3, activation="tanh")], "activation tanh"),
        ([layers.Dense(3, activation="relu")], "activation relu"),
        (
            [layers.Dense(3), layers.Activation("sigmoid")],
            r"\(Activation\), with the activation sigmoid",
        ),
        ([layers.Dense(1)], "with a single output"),
        ([layers.Dense(1, activation="softmax")], "with a single output"),
        ([layers.Dense(3), layers.BatchNormalization()], "BatchNormalization"),
        ([layers.Dense(3), layers.Softmax(), layers.Softmax()], "second"),
        (
            [layers.Dense(3, activation="softmax"), layers.Softmax()],
            "a second softmax",
        ),
        (
            [layers.Dense(6), layers.Reshape((2, 3)), layers.Softmax()],
            r"shape \(None, 2, 3\), not \(batch, classes\)",
        ),
        (
            [
                layers.Dense(6),
                layers.Reshape((2, 3)),
                layers.Softmax(),
                layers.Flatten(),
            ],
            r"\(Softmax\)",
        ),
        (
            [layers.Reshape((4, 4, 4)), layers.Conv2D(3, 1), layers.Softmax()],
            r"shape \(None, 4, 4, 3\), not \(batch, classes\)",
        ),
        (
            [layers.Reshape((4, 4, 4)), layers.Conv2D(3, 1), layers.Flatten()],
            r"applied to maps of shape \(None, 4, 4, 4\)",
        ),
        (
            [layers.Reshape((4, 4, 4)), layers.GlobalAveragePooling2D()],
            r"\(GlobalAveragePooling2D\).*Expected a classifier",
        ),
        ([], r"ends in the layer 're_lu.*'"),
    ],
)
def test_what_is_no_classifier_is_refused_with_what_was_found(end, message):
    trained = small_cnn(*(type(x).from_config(x.get_config()) for x in end))
    with pytest.raises(ValueError, match=message):
        adopt(trained, trained.output_shape[-1])


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def test_unbuilt_and_subclassed_models_are_refused():
    unbuilt = keras.Sequential([layers.Flatten(), layers.Dense(3)])
    with pytest.raises(ValueError, match="Sequential model that is not built"):
        adopt(unbuilt, 3)
    subclassed = Subclassed()
    subclassed(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="a Subclassed, cannot be seen"):
        adopt(subclassed, 3)
    with pytest.raises(TypeError, match="from_classifier got a str"):
        adopt("model.keras", 3)
    adopted = adopt(small_cnn(layers.Dense(3)))
    with pytest.raises(ValueError, match="cannot be seen"):
        adopt(adopted, 3)


def test_several_inputs_or_outputs_are_refused():
    first, second = keras.Input((4,)), keras.Input((4,))
    dense = layers.Dense(3)
    both = keras.Model([first, second], dense(layers.add([first, second])))
    with pytest.raises(ValueError, match="has 2 inputs and 1 outputs"):
        adopt(both, 3)
    twice = keras.Model(first, [dense(first), layers.Dense(2)(first)])
    with pytest.raises(ValueError, match="has 1 inputs and 2 outputs"):
        adopt(twice, 3)


def test_an_ensemble_and_a_shape_of_no_capacity_are_refused():
    source = keras.Input((4,))
    parts = [layers.Dense(3)(source), layers.Dense(3)(source)]
    mean = keras.Model(source, layers.average(parts))
    with pytest.raises(ValueError, match=r"\(Average\), from which logits"):
        adopt(mean)
    trained = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    with pytest.raises(ValueError, match="capacity=0"):
        adopt(trained, capacity=0)
