"""Crafted files: refused by name, before memory is taken or code is run."""

import hashlib
import io
import json
import pathlib
import re
import shutil
import tracemalloc
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import keras_incremental as ki
from keras_incremental.archives import variables_within
from keras_incremental.backups import BackupFolder
from keras_incremental.exemplars import (
    DiskStorage,
    ExemplarMemory,
    JpegStorage,
    RawStorage,
)
from keras_incremental.model_files import load_model
from keras_incremental.reports import read_results
from keras_incremental.samples import ArraySamples

LARGE = 10**9
CALLS = []
DEEP = "[" * 100_000 + "]" * 100_000


@keras.saving.register_keras_serializable("test_archives")
class NoStorage:
    """Registered, and neither a storage nor a selection."""

    def __init__(self, *args, **kwargs):
        CALLS.append(self)

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls()


def memory_of(storage):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6, 8, 8, 3), np.uint8)
    memory = ExemplarMemory(6, storage=storage)
    samples = ArraySamples(images, np.repeat([5, 2], 3))
    memory.update(samples, extract=None, features=np.zeros((6, 1)))
    return memory


def parts_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(path, changes, **options):
    """Writes an archive again with other entries, and right checksums."""
    parts = {**parts_of(path), **changes}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def npy(array, **changes):
    """An array as NumPy writes it, with another header."""
    buffer = io.BytesIO()
    header = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": False,
        "shape": array.shape,
        **changes,
    }
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + array.tobytes()


def refuses(load, path):
    """Checks that loading names the file and takes less than 50 MB."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=str(path)) as error:
            load()
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    return str(error.value)


# A memory.

PIXELS = np.zeros((3, 8, 8, 3), np.uint8)
ENTRIES = {
    "more images than bytes": npy(PIXELS, shape=(LARGE, 8, 8, 3)),
    "fewer images than bytes": npy(PIXELS, shape=(2, 8, 8, 3)),
    "a negative side": npy(PIXELS, shape=(-3, -8, 8, 3)),
    "another byte order": npy(PIXELS.astype(">u2")),
    "text": npy(np.zeros((3, 8, 8, 3), "<U1")),
    "records": npy(np.zeros(3, [("a", "u1"), ("b", "u1")])),
    "items of no bytes": npy(np.zeros(0, "u1"), descr="|V0", shape=(LARGE,)),
    "objects": npy(np.zeros(3, "i8"), descr="|O"),
    "a long header": b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
    "no header": b"",
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_header_must_fit_its_entry(tmp_path, entry):
    memory_of(RawStorage()).save(tmp_path)
    path = tmp_path / "memory.npz"
    rewritten(path, {"0/images.npy": ENTRIES[entry]})
    message = refuses(lambda: ExemplarMemory.load(tmp_path), path)
    message = message.replace(str(path), "")  # has the test's name in it
    assert re.search("its entry|header|magic|exemplars string", message)


RECORDS = {
    "capacity": [-1, 1, 2.5, "6", True, [6]],
    "per_class": [3, "3"],
    "seed": ["0", None, [0], 1.5],
    "labels": [[5, 5], [5], [5, 2, 3], [[5], 2], [True, 2], {"5": 2}, "52"],
    "selection": [
        "test_archives>NoStorage",
        "keras_incremental>RawStorage",
        "nothing",
        7,
    ],
    "storage": [
        {"name": "test_archives>NoStorage", "config": {}},
        {"name": "keras_incremental>herding_order", "config": {}},
        {"name": "keras_incremental>RawStorage", "config": {"more": 1}},
        {"name": "keras_incremental>RawStorage", "config": []},
        {"name": ["RawStorage"], "config": {}},
        {"config": {}},
        "keras_incremental>RawStorage",
        None,
    ],
}


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field in RECORDS for value in RECORDS[field]],
    ids=str,
)
def test_a_record_must_have_its_types(tmp_path, field, value):
    memory_of(RawStorage()).save(tmp_path)
    path = tmp_path / "memory.npz"
    record = json.loads(parts_of(path)["memory.json"])
    record[field] = value
    CALLS.clear()
    rewritten(path, {"memory.json": json.dumps(record)})
    refuses(lambda: ExemplarMemory.load(tmp_path), path)
    assert not CALLS


def test_a_folder_is_never_taken_from_a_file(tmp_path):
    folder = tmp_path / "memory"
    memory_of(DiskStorage(tmp_path / "mine")).save(folder)
    path = folder / "memory.npz"
    record = json.loads(parts_of(path)["memory.json"])
    record["storage"]["config"] = {"folder": str(tmp_path / "theirs")}
    rewritten(path, {"memory.json": json.dumps(record)})
    assert "yours to choose" in refuses(
        lambda: ExemplarMemory.load(folder), path
    )
    assert not (tmp_path / "theirs").exists()


def test_deep_and_doubled_keys_are_refused(tmp_path):
    memory_of(RawStorage()).save(tmp_path)
    path = tmp_path / "memory.npz"
    text = parts_of(path)["memory.json"].decode()
    for changed in (DEEP, text.replace("{", '{"seed": 1,', 1), "[]", ""):
        rewritten(path, {"memory.json": changed})
        refuses(lambda: ExemplarMemory.load(tmp_path), path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_is_not_compressed_and_names_nothing_twice(tmp_path):
    memory_of(RawStorage()).save(tmp_path)
    path = tmp_path / "memory.npz"
    whole = path.read_bytes()
    bomb = npy(np.zeros((10**7, 1, 1, 1), np.uint8))
    rewritten(path, {"0/images.npy": bomb}, compression=zipfile.ZIP_DEFLATED)
    assert "compressed" in refuses(lambda: ExemplarMemory.load(tmp_path), path)
    path.write_bytes(whole)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("0/images.npy", parts_of(path)["1/images.npy"])
    assert "twice" in refuses(lambda: ExemplarMemory.load(tmp_path), path)
    path.write_bytes(whole)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("2/images.npy", npy(PIXELS))
    assert "none of its classes" in refuses(
        lambda: ExemplarMemory.load(tmp_path), path
    )


JPEG = {
    "a negative size": {"sizes": np.array([-1, 900, 900])},
    "sizes beyond the bytes": {"sizes": np.array([LARGE] * 3)},
    "sizes of another type": {"sizes": np.array([1.0, 2.0, 3.0])},
    "a larger image": {"images": np.empty((0, LARGE, LARGE, 3), np.uint8)},
    "no image": {"bytes": np.zeros(3, np.uint8), "sizes": np.ones(3, int)},
}


@pytest.mark.parametrize("change", JPEG)
def test_encoded_images_must_be_as_large_as_they_say(tmp_path, change):
    memory_of(JpegStorage()).save(tmp_path)
    path = tmp_path / "memory.npz"
    changes = {f"0/{key}.npy": npy(JPEG[change][key]) for key in JPEG[change]}
    rewritten(path, changes)
    refuses(lambda: ExemplarMemory.load(tmp_path), path)


def test_an_encoded_image_of_few_bytes_and_many_pixels_is_refused():
    image = np.zeros((40_000, 3, 3), np.uint8)
    content = bytearray(tf.io.encode_jpeg(image[:8]).numpy())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = b"\x9c\x40" * 2  # 40,000 squared
    arrays = {
        "images": np.empty((0, 40_000, 40_000, 3), np.uint8),
        "bytes": np.frombuffer(bytes(content), np.uint8),
        "sizes": np.array([len(content)]),
    }
    with pytest.raises(ValueError, match="says that it is"):
        JpegStorage().from_arrays(arrays)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=True)
    | st.text(max_size=3),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(st.text(max_size=3), values, max_size=3)
    ),
    max_leaves=5,
)


@given(field=st.sampled_from([*RECORDS]), value=JSON)
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_record_is_loaded_as_it_is_or_refused(tmp_path, field, value):
    memory = memory_of(RawStorage())
    memory.save(tmp_path)
    path = tmp_path / "memory.npz"
    record = json.loads(parts_of(path)["memory.json"])
    record[field] = value
    rewritten(path, {"memory.json": json.dumps(record)})
    try:
        loaded = ExemplarMemory.load(tmp_path)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        for mine, theirs in zip(memory.labels, loaded.labels, strict=True):
            np.testing.assert_array_equal(
                memory.images(mine), loaded.images(theirs)
            )


# A model.


@pytest.fixture(scope="module")
def saved(make_tiny_backbone, tmp_path_factory):
    """The file of a model, for tests to copy."""
    model = ki.IncrementalClassifier(make_tiny_backbone(), capacity=4)
    model.add_classes(["cat", "dog"])
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    return path


@pytest.fixture(name="path")
def _path(saved, tmp_path):
    return pathlib.Path(shutil.copy(saved, tmp_path))


def with_config(path, change):
    config = json.loads(parts_of(path)["config.json"])
    change(config["config"])
    rewritten(path, {"config.json": json.dumps(config)})


def head_of(config):
    return config["network"]["config"]["head"]["config"]


MODELS = {
    "capacity": lambda config: head_of(config).update(capacity=LARGE),
    "blocks": lambda config: head_of(config).update(blocks=60),
    "heads": lambda config: head_of(config).update(heads=[LARGE]),
    "more heads": lambda config: head_of(config).update(heads=[2, 2]),
    "a unit": lambda config: config.update(labels=["cat"], class_names=["cat"]),
    "network": lambda config: config.update(network=config["score_rule"]),
    "rule": lambda config: config.update(score_rule=config["network"]),
}


@pytest.mark.parametrize("change", MODELS)
def test_a_model_is_no_larger_than_its_weights(path, change):
    with_config(path, MODELS[change])
    refuses(lambda: load_model(path), path)


def test_units_of_any_layer_are_bounded_by_the_weights(tmp_path):
    path = tmp_path / "model.keras"
    layers = [keras.Input((2,)), keras.layers.Dense(3)]
    keras.Sequential(layers).save(path)

    def enlarge(config):
        config["layers"][1]["config"]["units"] = LARGE
        config["layers"][1]["build_config"] = {"input_shape": [None, 2]}

    with_config(path, enlarge)
    message = refuses(lambda: load_model(path), path)
    assert "variables of more than" in message


@pytest.mark.parametrize("kind", ["chunked", "unwritten", "external", "shared"])
def test_weights_are_in_the_file_as_they_say(path, kind):
    content = io.BytesIO(parts_of(path)["model.weights.h5"])
    with h5py.File(content, "a") as file:
        names = []
        file.visititems(
            lambda name, item: (
                names.append(name) if isinstance(item, h5py.Dataset) else None
            )
        )
        name = names[0]
        shape = file[name].shape
        del file[name]
        if kind == "chunked":  # 4 GB from next to nothing
            file.create_dataset(name, (LARGE,), "f4", chunks=True, fillvalue=0)
        elif kind == "unwritten":  # zeros in place of what was there
            file.create_dataset(name, shape, "f4")
        elif kind == "external":
            file.create_dataset(
                name, (4,), "f4", external=[("/dev/zero", 0, 16)]
            )
        else:
            file[name] = h5py.SoftLink("/nowhere")
    rewritten(path, {"model.weights.h5": content.getvalue()})
    refuses(lambda: load_model(path), path)


def test_a_model_of_a_deep_configuration_is_refused(path):
    rewritten(path, {"config.json": DEEP})
    refuses(lambda: load_model(path), path)


def test_variables_are_counted_before_they_are_made():
    with (
        pytest.raises(ValueError, match="for weights of 1000 bytes"),
        variables_within(1000),
    ):
        keras.Variable(initializer="glorot_uniform", shape=(LARGE, LARGE))


# Results and backups.


@pytest.mark.parametrize(
    "change",
    [
        {"tasks": {}},
        {"tasks": [3]},
        {"tasks": [{"seen_classes": "2", "accuracy": 1.0}]},
        {"accuracy_matrix": [3]},
        {"accuracy_matrix": [["1"]]},
        {"final_accuracy": "high"},
        {"method": 7},
    ],
    ids=str,
)
def test_results_must_have_their_types(tmp_path, change):
    results = {
        "dataset": "digits", "method": "EEIL", "seed": 0,
        "accuracy_matrix": [[1.0]], "average_incremental_accuracy": 1.0,
        "final_accuracy": 1.0, "forgetting": None, "backward_transfer": 0,
        "tasks": [{"seen_classes": 2, "accuracy": 1.0}],
    }  # fmt: skip
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    assert read_results(tmp_path) == results
    path.write_text(json.dumps({**results, **change}))
    refuses(lambda: read_results(tmp_path), path)
    path.write_text(DEEP)
    refuses(lambda: read_results(tmp_path), path)


def test_a_backup_s_arrays_must_fit_their_headers(tmp_path):
    folder = BackupFolder(tmp_path)
    blob = folder.put({"0": np.zeros(3)})
    path = tmp_path / f"{blob}.npz"
    rewritten(path, {"0.npy": ENTRIES["more images than bytes"]})
    crafted = hashlib.sha256(path.read_bytes()).hexdigest()
    path.rename(tmp_path / f"{crafted}.npz")
    refuses(lambda: folder.get(crafted), tmp_path / crafted)


@pytest.mark.parametrize("blob", ["../../etc/passwd", 7, None])
def test_a_backup_names_no_other_file(tmp_path, blob):
    folder = BackupFolder(tmp_path)
    folder.commit({}, {})
    path = pathlib.Path(next(tmp_path.glob("state-*.json")))
    path.unlink()
    folder.commit({}, {"model": blob})
    refuses(folder.read, tmp_path)


@pytest.mark.parametrize("text", [DEEP, "[]", "7", "null", '{"sha256": 1}'])
def test_a_backup_s_state_must_have_its_types(tmp_path, text):
    folder = BackupFolder(tmp_path)
    folder.commit({}, {})
    path = next(tmp_path.glob("state-*.json"))
    path.write_text(text)
    refuses(folder.read, path)
