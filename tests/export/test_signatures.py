"""What a published version computes.

`test_served.py` has a process without Keras compute it.
"""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.export import publish

Image = pytest.importorskip("PIL.Image", reason="Pillow writes the photos")
BATCH_SIZES = (1, 3, 12)  # files are decoded ten at a time
ENCODED = ("serving_bytes", "classify", "classification")


def png_files(images):
    return [tf.io.encode_png(image).numpy() for image in images]


def example(image_bytes):
    value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image_bytes]))
    features = tf.train.Features(feature={"image/encoded": value})
    return tf.train.Example(features=features).SerializeToString()


def inputs_of(images, files):
    """Returns what each signature takes for the same images."""
    examples = [example(file) for file in files]
    return {
        "serving_default": images.astype("float32"),
        "serving_bytes": np.array(files),
        "classify": np.array(examples),
        "classification": np.array(examples),
    }


def signatures_of(version):
    return tf.saved_model.load(str(version)).signatures


@pytest.fixture(scope="module")
def grown_signatures(grown_version):
    return signatures_of(grown_version)


@pytest.fixture(scope="module")
def branched_signatures(branched_version):
    return signatures_of(branched_version)


def run(function, values):
    """Returns the outputs of a signature by name."""
    (key,) = function.structured_input_signature[1]
    dtype = "float32" if key == "images" else "string"
    return function(**{key: tf.constant(values, dtype)})


@pytest.fixture(scope="module")
def outputs(grown_signatures, branched_signatures, digit_images):
    """Outputs of both versions, `name/signature/batch size/output`."""
    found = {}
    inputs = inputs_of(digit_images, png_files(digit_images))
    for name, served in (
        ("grown", grown_signatures),
        ("branched", branched_signatures),
    ):
        for signature, values in inputs.items():
            for size in BATCH_SIZES:
                for key, value in run(served[signature], values[:size]).items():
                    array = value.numpy()
                    if array.dtype == object:  # to bytes of a fixed width
                        array = np.array(array.tolist())
                    found[f"{name}/{signature}/{size}/{key}"] = array
    return found


@pytest.fixture(scope="module")
def all_expected(grown, digit_images, probabilities_of):
    return probabilities_of(grown, digit_images)


@pytest.mark.parametrize("size", BATCH_SIZES)
@pytest.mark.parametrize(
    "signature", ["serving_default", "serving_bytes", "classify"]
)
class TestPredictSignature:
    @pytest.fixture
    def expected(self, all_expected, size):
        return all_expected[:size]

    @pytest.fixture
    def get(self, outputs, signature, size):
        return lambda name: outputs[f"grown/{signature}/{size}/{name}"]

    def test_probabilities_are_the_model_s(self, get, expected):
        found = get("probabilities")
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.ptp(found, axis=1).min() > 0.05  # else this shows nothing

    def test_ids_rank_all_classes(self, get, expected):
        assert get("class_ids").dtype == np.int32
        ids = get("class_ids")
        np.testing.assert_array_equal(
            np.sort(ids, axis=1), np.tile(np.arange(5), (len(ids), 1))
        )
        # Classes that are equally probable may be in either order.
        ranked = np.take_along_axis(expected, ids, axis=1)
        assert np.diff(ranked, axis=1).max() < 1e-5

    def test_classes_are_the_names_of_the_ids(self, get, grown):
        names = np.char.decode(get("classes"), "utf-8")
        np.testing.assert_array_equal(
            names, np.array(grown.class_names)[get("class_ids")]
        )


@pytest.mark.parametrize("size", BATCH_SIZES)
def test_classification_gives_names_and_scores_best_first(outputs, size):
    wanted = outputs[f"grown/classify/{size}/probabilities"]
    np.testing.assert_array_equal(
        outputs[f"grown/classification/{size}/classes"],
        outputs[f"grown/classify/{size}/classes"],
    )
    np.testing.assert_array_equal(
        outputs[f"grown/classification/{size}/scores"],
        -np.sort(-wanted, axis=1),
    )


def test_branches_are_served_like_the_model(
    outputs, branched, digit_images, probabilities_of
):
    expected = probabilities_of(branched, digit_images)
    for signature in ("serving_default", "serving_bytes", "classify"):
        for size in BATCH_SIZES:
            np.testing.assert_allclose(
                outputs[f"branched/{signature}/{size}/probabilities"],
                expected[:size],
                atol=1e-5,
            )


def reached_operations(graph_def, start):
    """Returns the types of the operations that computing a node can reach.

    A function that is called twice counts twice.
    """
    functions = {f.signature.name: f for f in graph_def.library.function}

    def of(nodes):
        for node in nodes:
            yield node.op
            for value in node.attr.values():
                if value.WhichOneof("value") == "func":
                    yield from of(functions[value.func.name].node_def)

    return list(of([node for node in graph_def.node if node.name == start]))


def convolutions(version, signature):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.load(
            session, ["serve"], str(version)
        )
    output = meta_graph.signature_def[signature].outputs["class_ids"].name
    operations = reached_operations(meta_graph.graph_def, output.split(":")[0])
    return operations.count("Conv2D")


@pytest.mark.parametrize("signature", ["serving_default", "serving_bytes"])
def test_the_trunk_is_computed_once(branched_version, signature):
    # Two of the trunk, one of the base, one of the branch.
    assert convolutions(branched_version, signature) == 4


def test_the_count_of_convolutions_sees_those_of_the_whole_net(grown_version):
    assert convolutions(grown_version, "serving_default") == 3


@pytest.mark.slow
def test_files_are_prepared_as_for_training(probabilities_of, tmp_path):
    """Files of other sizes, shapes and formats, from a folder of classes."""
    random = np.random.default_rng(0)
    folder = tmp_path / "photos" / "cat"
    folder.mkdir(parents=True)
    for index, shape in enumerate([(10, 6), (23, 40), (5, 3), (31, 7)]):
        # Smooth, as JPEG keeps noise badly.
        image = tf.image.resize(random.uniform(0, 255, (3, 3, 3)), shape)
        image = tf.cast(image, tf.uint8)
        png = tf.io.encode_png(image).numpy()
        (folder / f"{index}.png").write_bytes(png)
        jpeg = tf.io.encode_jpeg(image).numpy()
        (folder / f"{index}.jpg").write_bytes(jpeg)
    grey = tf.io.encode_png(random.integers(0, 256, (9, 9, 1), np.uint8))
    (folder / "grey.png").write_bytes(grey.numpy())
    photo = Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side
    photo.save(folder / "photo.jpg", exif=exif)
    if int(tf.__version__.split(".")[1]) >= 20:  # decodes WebP
        photo.save(folder / "photo.webp", exif=exif)
    photo.quantize(9).save(folder / "palette.gif", transparency=1)
    photo.quantize(9).save(folder / "palette.bmp")

    scenario = ki.ClassIncrementalScenario.from_directory(
        tmp_path / "photos",
        image_size=(10, 6),
        classes_per_task=1,
        test_path=tmp_path / "photos",
    )
    model = ki.IncrementalClassifier(
        keras.Sequential(
            [
                keras.Input((10, 6, 3)),
                keras.layers.Rescaling(1 / 255),
                keras.layers.Conv2D(4, 3, strides=2),
                keras.layers.Flatten(),
            ]
        )
    )
    model.add_classes(["cat", "dog", "cow"])
    trained_on = np.stack([image for image, _ in scenario[0].train])
    files = [path.read_bytes() for path in sorted(folder.iterdir())]
    served = signatures_of(publish(model, tmp_path))["serving_bytes"]

    found = served(image_bytes=tf.constant(files))["probabilities"].numpy()
    expected = probabilities_of(model, trained_on)
    assert len(found) == len(expected) == len(files) >= 12
    np.testing.assert_allclose(
        np.sort(found, axis=0), np.sort(expected, axis=0), atol=1e-5
    )
    assert np.ptp(found, axis=0).min() > 1e-3


def test_a_file_that_is_no_image_is_refused(grown_signatures):
    with pytest.raises(tf.errors.InvalidArgumentError):
        grown_signatures["serving_bytes"](
            image_bytes=tf.constant([b"no image"])
        )


def test_no_more_than_1000_classes_are_ranked(tmp_path):
    backbone = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    model = ki.IncrementalClassifier(backbone)
    model.add_classes(range(1200))
    served = tf.saved_model.load(str(publish(model, tmp_path)))
    outputs = served.signatures["serving_default"](
        images=tf.random.stateless_uniform((2, 6), (1, 2)) * 255
    )
    best = np.argsort(-outputs["probabilities"].numpy(), axis=1, kind="stable")
    assert outputs["probabilities"].shape == (2, 1200)
    np.testing.assert_array_equal(outputs["class_ids"], best[:, :1000])
    assert outputs["classes"].shape == (2, 1000)


@pytest.mark.slow
def test_images_of_any_size_get_the_size_that_is_asked_for(any_size_version):
    served = signatures_of(any_size_version)
    image = np.random.default_rng(0).integers(0, 256, (11, 9, 3), np.uint8)
    encoded = served["serving_bytes"](image_bytes=tf.io.encode_png(image)[None])
    raw = served["serving_default"](images=tf.cast(image, tf.float32)[None])
    np.testing.assert_allclose(
        encoded["probabilities"], raw["probabilities"], atol=1e-6
    )
    larger = served["serving_default"](images=tf.zeros((1, 20, 17, 3)))
    assert larger["probabilities"].shape == (1, 2)


def test_images_of_any_size_need_a_size(tmp_path, any_size):
    with pytest.raises(ValueError, match=r"Pass image_size=\(height, width\)"):
        publish(any_size, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_size_that_the_model_does_not_take_is_an_error(grown, tmp_path):
    with pytest.raises(ValueError, match=r"image_size=9.*\(8, 8, 1\)"):
        publish(grown, tmp_path, image_size=9)


def test_inputs_that_are_no_pictures_have_the_raw_signature_alone(
    vectors, tmp_path
):
    version = publish(vectors, tmp_path)
    served = tf.saved_model.load(str(version)).signatures
    assert list(served) == ["serving_default"]
    outputs = served["serving_default"](images=tf.ones((3, 6)))
    np.testing.assert_allclose(
        outputs["probabilities"],
        tf.nn.softmax(vectors.predict(np.ones((3, 6)), verbose=0)),
        atol=1e-6,
    )


def test_a_version_holds_names_marker_and_no_optimizer(tmp_path):
    keras.utils.set_random_seed(0)
    model = ki.IncrementalClassifier(
        keras.Sequential([keras.Input((16,)), keras.layers.Flatten()])
    )
    model.compile(optimizer="adam")
    model.add_classes([0, 1], ["zéro", "one/uno"])
    model.optimizer.build(model.trainable_variables)
    version = publish(model, tmp_path)
    names = (version / "assets" / "class_names.txt").read_bytes()
    assert names.decode("utf-8") == "zéro\none/uno\n"
    marker = version / "assets.extra" / "keras_incremental.json"
    record = json.loads(marker.read_text())
    assert len(record.pop("fingerprint")) == 64
    assert record == {"format_version": 1, "classes": 2}
    saved = tf.train.list_variables(str(version / "variables" / "variables"))
    shapes = [shape for name, shape in saved if "VARIABLE_VALUE" in name]
    # The head's columns in use, kernel and bias; not Adam's moments.
    assert sorted(shapes) == [[], [16, 128], [128]]


@pytest.mark.parametrize("kind", ["grown", "branched"])
def test_an_empty_batch_gives_empty_outputs(kind, request):
    served = request.getfixturevalue(f"{kind}_signatures")
    for signature, values in inputs_of(np.zeros((0, 8, 8, 1)), []).items():
        outputs = run(served[signature], values)
        assert outputs
        for values in outputs.values():
            assert values.shape == (0, 5)


def test_a_padded_empty_batch_does_not_show_in_others(grown_signatures):
    for size in (1, 2):
        outputs = grown_signatures["serving_default"](
            images=tf.zeros((size, 8, 8, 1))
        )
        assert outputs["probabilities"].shape == (size, 5)
