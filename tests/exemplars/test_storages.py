"""Storages: what is kept is what was given, wherever it is kept."""

import copy
import dataclasses
import errno
import gc
import io
import os
import pathlib
import pickle
import signal
import weakref

import numpy as np
import pytest
import tensorflow as tf

from keras_incremental.augmentation import StoredEEILAugmentation
from keras_incremental.exemplars import (
    ClassExemplars,
    DiskStorage,
    ExemplarMemory,
    JpegStorage,
    RawStorage,
    balanced_samples,
)
from keras_incremental.samples import (
    ArraySamples,
    read_samples,
    training_batches,
)

SHAPE = (8, 10, 3)
LOSSLESS = (RawStorage(), DiskStorage())
ALL = (*LOSSLESS, JpegStorage(80))
every_storage = pytest.mark.parametrize("storage", ALL, ids=str)
lossless = pytest.mark.parametrize("storage", LOSSLESS, ids=str)


def first_come(features, count, seed):
    return np.arange(len(features))[:count]


def images_of(count, seed=0, shape=SHAPE, dtype="uint8"):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, *shape)).astype(dtype)


def samples_of(counts, seed=0):
    labels = np.repeat(list(counts), list(counts.values()))
    return ArraySamples(images_of(len(labels), seed), labels)


def extract(images):
    rows = [image.mean(axis=(0, 1)) for image in images.as_numpy_iterator()]
    return np.array(rows, "float32")


def filled(storage, counts=None, **options):
    options = options or {"capacity": 9}
    memory = ExemplarMemory(storage=storage, selection=first_come, **options)
    memory.update(samples_of(counts or {3: 6, 1: 6}), extract)
    return memory


def in_a_file(samples):
    data = tf.data.Dataset.from_tensor_slices(
        (samples.all_images(), samples.labels)
    )
    return read_samples(data.batch(4), image_shape=SHAPE, cache_bytes=0)


def to_units(labels):
    return labels.astype("int32")


def take(dataset, batches):
    pairs = dataset.take(batches).as_numpy_iterator()
    return [(columns["images"], units) for columns, units in pairs]


# What is stored.


@lossless
def test_images_come_back_as_they_were(storage):
    samples = samples_of({3: 6, 1: 6})
    memory = filled(storage)
    np.testing.assert_array_equal(memory.images(3), samples.all_images()[:5])
    np.testing.assert_array_equal(memory.images(1), samples.all_images()[6:10])
    images = memory.samples().images()
    np.testing.assert_array_equal([*images][:5], memory.images(3))
    assert int(images.cardinality()) == len(memory) == 9


@pytest.mark.parametrize("storage", [RawStorage(), DiskStorage()], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_raw_and_disk_take_any_dtype_and_shape(storage, dtype):
    images = images_of(4, shape=(3, 5, 7), dtype=dtype)
    memory = ExemplarMemory(4, storage=storage, selection=first_come)
    memory.update(ArraySamples(images, np.zeros(4, int)), extract)
    np.testing.assert_array_equal(memory.images(0), images)
    assert memory.images(0).dtype == images.dtype
    assert memory.nbytes == images.nbytes


def test_jpeg_is_what_the_codec_makes_of_each_image():
    images, memory = samples_of({3: 6}).all_images(), filled(JpegStorage(80))
    for image, stored in zip(images, memory.images(3), strict=False):
        content = tf.io.encode_jpeg(image, quality=80)
        expected = tf.io.decode_jpeg(content, dct_method="INTEGER_ACCURATE")
        np.testing.assert_array_equal(stored, expected.numpy())
    assert not np.array_equal(memory.images(3), images[:5])
    assert memory.nbytes < sum(
        len(tf.io.encode_jpeg(image, quality=80).numpy())
        for image in images[:5]
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_one_and_three_channels_are_encoded(channels):
    images = images_of(3, shape=(8, 8, channels))
    memory = ExemplarMemory(3, storage=JpegStorage())
    memory.update(ArraySamples(images, np.zeros(3, int)), extract)
    assert memory.images(0).shape == images.shape


@pytest.mark.parametrize(
    ("shape", "dtype"), [((8, 8, 3), "float32"), ((8, 8, 4), "uint8")]
)
def test_images_that_cannot_be_encoded_are_refused_at_once(shape, dtype):
    memory = ExemplarMemory(3, storage=JpegStorage())
    with pytest.raises(ValueError, match=r"1 or 3 channels.*DiskStorage"):
        memory.check_images(tf.TensorSpec(shape, dtype))
    assert len(memory) == 0


@pytest.mark.parametrize("quality", [0, 101, 9.5, True])
def test_a_bad_quality_is_refused(quality):
    with pytest.raises(ValueError, match="from 1 to 100"):
        JpegStorage(quality=quality)


def test_a_storage_by_name_is_refused():
    with pytest.raises(TypeError, match="JpegStorage"):
        ExemplarMemory(3, storage="jpeg")


def test_images_are_encoded_once_however_often_the_memory_shrinks():
    memory = filled(JpegStorage())
    before = memory.stored()[3].rows.tolist()
    for label in (7, 8):
        memory.update(samples_of({label: 5}, seed=label), extract)
    rows = memory.stored()[3].rows.tolist()
    assert rows == before[: len(rows)] and len(rows) == 3


@pytest.mark.parametrize("as_file", [False, True])
def test_only_what_is_kept_is_encoded(as_file):
    encoded = []

    class Counting(RawStorage):
        def encode(self, images):
            encoded.append(len(images))
            return super().encode(images)

    memory = ExemplarMemory(5, storage=Counting(), selection=first_come)
    samples = samples_of({0: 200})
    memory.update(in_a_file(samples) if as_file else samples, extract)
    assert sum(encoded) == 5


@every_storage
@pytest.mark.parametrize("order", [[1, 4, 0, 5], [2, 0], [5, 3], []])
def test_old_and_new_images_are_stored_in_the_order_of_the_ranking(
    storage, order
):
    """Three exemplars, then three new images, in any order."""
    memory = filled(storage, {3: 3})
    memory.selection = lambda features, count, seed: np.array(order, int)
    old, new = memory.images(3), samples_of({3: 3}, seed=7)
    as_stored = filled(storage, {3: 3}, capacity=9)
    as_stored.restore({})
    as_stored.update(new, extract)
    memory.update(new, extract)
    candidates = np.concatenate([old, as_stored.images(3)])
    np.testing.assert_array_equal(memory.images(3), candidates[order])


def test_stored_exemplars_compete_as_they_are_stored():
    """Their features are computed of the decoded images, without a loss."""
    seen = []

    def spy(images):
        seen.extend(images.as_numpy_iterator())
        return np.ones((len(seen), 1))

    memory = filled(JpegStorage())
    stored = memory.images(3)
    again = samples_of({3: 2}, seed=5)
    memory.update(again, spy, features=np.ones((2, 1)))
    np.testing.assert_array_equal(seen, stored)


# Files.


def test_files_hold_the_images_and_go_with_the_memory(tmp_path):
    gc.freeze()  # leaves few objects to search
    memory = filled(DiskStorage(tmp_path / "scratch"))

    def files():
        return [*(tmp_path / "scratch").rglob("[0-9]*")]

    assert sum(path.stat().st_size for path in files()) >= memory.nbytes
    snapshot = memory.stored()
    memory.update(samples_of({8: 9}, seed=1), extract)
    gc.collect()
    memory.restore(snapshot)  # a step that failed
    np.testing.assert_array_equal(
        memory.images(3), filled(RawStorage()).images(3)
    )
    memory.update(samples_of({8: 9}, seed=1), extract)
    del snapshot
    gc.collect()
    assert len(files()) == len(memory) == 9
    del memory
    gc.collect()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_training_goes_on_when_the_memory_has_let_its_files_go(tmp_path):
    gc.freeze()  # leaves few objects to search
    memory = filled(DiskStorage(tmp_path))
    batches, _ = training_batches([memory.samples()], to_units, batch_size=3)
    memory.restore({})
    gc.collect()
    assert len(take(batches, 6)) == 6
    del batches
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_changed_is_named(tmp_path):
    memory = filled(DiskStorage(tmp_path))
    path = sorted(tmp_path.rglob("[0-9]*"))[0]
    path.write_bytes(b"short")
    with pytest.raises(Exception, match="holds 5 bytes of an exemplar's 240"):
        memory.images(3)


# Training.


@lossless
@pytest.mark.parametrize("with_new", [False, True])
def test_batches_are_those_of_raw_exemplars(storage, with_new):
    new = [samples_of({5: 13}, seed=2)] if with_new else []
    options = {"batch_size": 4, "seed": (3,)}
    plain, steps = training_batches(
        [*new, filled(RawStorage()).samples()], to_units, **options
    )
    stored, again = training_batches(
        [*new, filled(storage).samples()], to_units, **options
    )
    assert steps == again and plain.element_spec == stored.element_spec
    pairs = zip(take(plain, 2 * steps), take(stored, 2 * steps), strict=True)
    for (images, units), (same, same_units) in pairs:
        np.testing.assert_array_equal(images, same)
        np.testing.assert_array_equal(units, same_units)


@every_storage
def test_beside_data_in_a_file_every_epoch_holds_every_exemplar_once(storage):
    new, memory = samples_of({5: 13}, seed=2), filled(storage)
    batches, steps = training_batches(
        [in_a_file(new), memory.samples()], to_units, batch_size=4
    )
    expected = np.concatenate(
        [new.all_images(), memory.samples().take(range(9))]
    )
    epochs = take(batches, 2 * steps)
    for first in (0, steps):
        images = np.concatenate([x for x, _ in epochs[first : first + steps]])
        found = sorted(image.tobytes() for image in images)
        assert found == sorted(image.tobytes() for image in expected)


@lossless
def test_balanced_set_is_that_of_raw_exemplars(storage):
    new = samples_of({5: 9}, seed=4)
    plain = balanced_samples(filled(RawStorage()), new, extract)
    stored = balanced_samples(filled(storage), new, extract)
    np.testing.assert_array_equal(plain.labels, stored.labels)
    rows = np.arange(len(plain))
    np.testing.assert_array_equal(plain.take(rows), stored.take(rows))


def test_new_images_of_a_balanced_set_have_the_losses_of_old_ones():
    new, storage = samples_of({5: 9}, seed=4), JpegStorage(50)
    balanced = balanced_samples(filled(storage), new, extract)
    got = balanced.take(balanced.of_label(5))
    rows = storage.encode(new.all_images()[: len(got)])
    expected = ClassExemplars(storage, new.image_spec, rows)
    np.testing.assert_array_equal(got, expected.decoded())


def test_stored_augmentation_takes_encoded_exemplars():
    memory = filled(JpegStorage())
    batches, steps = training_batches(
        [memory.samples()],
        to_units,
        batch_size=9,
        augment=StoredEEILAugmentation(padding=1),
    )
    images = np.concatenate([x for x, _ in take(batches, steps)])
    assert len(images) == 12 * 9
    found = {image.tobytes() for image in images}
    assert {i.tobytes() for i in memory.samples().take(range(9))} <= found


@every_storage
def test_samples_are_taken_in_any_order_and_number(storage):
    samples = filled(storage).samples()
    whole = samples.take(range(9))
    np.testing.assert_array_equal(samples.take([8, 0, 8]), whole[[8, 0, 8]])
    assert samples.take([]).shape == (0, *SHAPE)
    look_up = tf.function(samples.look_up())
    index = tf.constant([4, 4, 1])
    np.testing.assert_array_equal(look_up(0, index)["images"], whole[[4, 4, 1]])
    assert look_up(0, index[:0])["images"].shape == (0, *SHAPE)


# Saving.


@every_storage
def test_saved_exemplars_load_as_they_are_stored(tmp_path, storage):
    memory = filled(storage)
    memory.save(tmp_path / "memory")
    again = ExemplarMemory.load(tmp_path / "memory", selection=first_come)
    assert again.capacity == memory.capacity
    assert again.storage == storage and again.labels == memory.labels
    assert again.nbytes == memory.nbytes
    for label in memory.labels:
        mine, theirs = memory.stored()[label], again.stored()[label]
        np.testing.assert_equal(mine.to_arrays(), theirs.to_arrays())
    again.save(tmp_path / "again")
    first = (tmp_path / "memory" / "memory.npz").read_bytes()
    assert first == (tmp_path / "again" / "memory.npz").read_bytes()


def test_a_memory_can_be_loaded_into_another_storage(tmp_path):
    memory, other = filled(RawStorage()), DiskStorage()
    memory.save(tmp_path / "m")
    moved = ExemplarMemory.load(
        tmp_path / "m", selection=first_come, storage=other
    )
    assert moved.storage == other
    for label in memory.labels:
        np.testing.assert_array_equal(moved.images(label), memory.images(label))


def test_a_storage_that_is_not_registered_is_named(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class HoloStorage(RawStorage):
        pass

    filled(HoloStorage()).save(tmp_path)
    with pytest.raises(ValueError, match=r"HoloStorage.*not registered"):
        ExemplarMemory.load(tmp_path, selection=first_come)


@every_storage
def test_arrays_of_stored_images_make_the_same_images(storage):
    ranked = filled(storage).stored()[3]
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **ranked.to_arrays())
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as arrays:
        again = ClassExemplars.from_arrays(storage, dict(arrays))
    assert again.image_spec == ranked.image_spec
    np.testing.assert_array_equal(again.decoded(), ranked.decoded())


def test_a_snapshot_of_the_memory_copies_nothing():
    memory = filled(RawStorage())
    snapshot = memory.stored()
    memory.restore(snapshot)
    assert all(memory.stored()[k] is snapshot[k] for k in snapshot)


def test_copies_of_exemplars_in_files_share_them(tmp_path, monkeypatch):
    gc.freeze()  # leaves few objects to search
    monkeypatch.chdir(tmp_path)
    memory = filled(DiskStorage("exemplars"))
    label = memory.labels[0]
    expected = memory.images(label)
    copied = copy.deepcopy(memory)
    with pytest.raises(TypeError, match=r"cannot be pickled.*\.save"):
        pickle.dumps(memory)
    del memory
    gc.collect()
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(copied.images(label), expected)


def test_a_full_disk_names_the_folder_of_the_files(tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(OSError, match=rf"{tmp_path}.*Free some space"):
        filled(DiskStorage(tmp_path))


def test_files_of_a_killed_process_go_with_the_next_memory(tmp_path):
    """Those of a living one stay, and share one folder."""
    gc.freeze()  # leaves few objects to search
    first = filled(DiskStorage(tmp_path))
    (folder,) = tmp_path.iterdir()
    child = os.fork()
    if not child:
        kept = DiskStorage(tmp_path).encode(np.zeros((2, *SHAPE)))
        os.kill(os.getpid(), signal.SIGKILL if len(kept) else 0)
    os.waitpid(child, 0)
    assert len([*tmp_path.iterdir()]) == 2
    del first
    gc.collect()
    second = filled(DiskStorage(tmp_path))
    third = filled(DiskStorage(tmp_path))
    (left,) = tmp_path.iterdir()
    assert left != folder and len(second) == len(third)


# Damage.


def image_files(folder):
    return sorted(path for path in folder.rglob("*") if path.name.isdecimal())


def flip(path, other):
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


def truncate(path, other):
    path.write_bytes(path.read_bytes()[:-1])


def exchange(path, other):
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def delete(path, other):
    path.unlink()


every_damage = pytest.mark.parametrize(
    "damage", [flip, truncate, exchange, delete]
)


@every_damage
def test_a_damaged_exemplar_is_named_wherever_it_is_read(tmp_path, damage):
    memory = filled(DiskStorage(tmp_path))
    path, other = image_files(tmp_path)[:2]
    samples = memory.samples()
    damage(path, other)
    with pytest.raises(ValueError, match=str(path)):
        memory.images(3)
    look_up = tf.function(samples.look_up())
    with pytest.raises(tf.errors.InvalidArgumentError, match=str(path)):
        look_up(0, tf.range(9))


@every_damage
def test_a_damaged_exemplar_is_never_saved(tmp_path, damage):
    memory = filled(DiskStorage(tmp_path / "scratch"))
    memory.save(tmp_path / "memory")
    saved = (tmp_path / "memory" / "memory.npz").read_bytes()
    path, other = image_files(tmp_path / "scratch")[:2]
    damage(path, other)
    with pytest.raises(ValueError, match=str(path)):
        memory.save(tmp_path / "memory")
    with pytest.raises(ValueError, match=str(path)):
        memory.stored()[3].to_arrays()  # as backups have it
    assert (tmp_path / "memory" / "memory.npz").read_bytes() == saved


def test_images_that_do_not_fit_their_checksums_are_not_taken():
    arrays = filled(DiskStorage()).stored()[3].to_arrays()
    images = arrays["images"].copy()
    images[0, 0, 0, 0] ^= 1
    with pytest.raises(ValueError, match="not the one that was stored"):
        DiskStorage().from_arrays({**arrays, "images": images})


def test_a_forked_process_deletes_nothing_of_its_parent(tmp_path):
    gc.freeze()  # leaves few objects to search
    memory = filled(DiskStorage(tmp_path))
    files = image_files(tmp_path)
    child = os.fork()
    if child == 0:
        try:
            memory.restore({})
            gc.collect()
            weakref.finalize._exitfunc()  # as `sys.exit` does
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert image_files(tmp_path) == files
    assert len(memory.images(3)) == 5
    del memory
    gc.collect()
    assert not image_files(tmp_path)
