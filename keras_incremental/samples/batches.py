"""Batches for training: sources mixed, shuffled, augmented, through tf.data."""

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.samples.cached_columns import CachedColumn
from keras_incremental.samples.reading import DEFAULT_CACHE_BYTES
from keras_incremental.samples.samples import (
    ArraySamples,
    LookUp,
    Samples,
    look_up_in_arrays,
)

_STORED_AT_ONCE = 512
_PREFETCHED = 4
_LOOKED_UP_AT_ONCE = 256
_fold_in = tf.random.experimental.stateless_fold_in
ToUnits = Callable[[np.ndarray], np.ndarray]
# From columns by name, batch first, to the rows of one more column.
Column = Callable[[dict], np.ndarray]


def training_batches(
    sources: Sequence[Samples | CachedColumn],
    to_units: ToUnits,
    *,
    batch_size: int,
    augment=None,
    columns: Mapping[str, Column] | None = None,
    seed: Sequence[int] = (0,),
    first_epoch: int = 0,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    replicas: int = 1,
) -> tuple[tf.data.Dataset, int]:
    """Returns endless batches of all sources mixed, and the steps per epoch.

    Every epoch holds each sample (each stored augmented copy of it) once, in
    a new order; of a column cached in several variants, one variant an epoch.
    All sources are shuffled as a whole. The order is drawn from
    `(seed, epoch)` alone, so that a run can go on at any epoch without the
    state of an iterator.

    Args:
        sources: new data, exemplars, ...; images, or a column cached in place
            of them, the same in all sources. The mixing is uniform.
        to_units: maps labels `(samples,)` to units.
        batch_size: images per batch at most. The sizes of an epoch's batches
            differ by one at most, so that none is so small that its batch
            statistics mean nothing.
        augment: an object of `keras_incremental.augmentation`, or `None`.
        columns: further columns by name, each a function from a dict of
            columns, batch first, to rows `(batch, ...)`. Where every epoch has
            the same rows, they are computed once before the first epoch;
            elsewhere they are left out.
        seed: non-negative integers, e.g. (seed, task, phase).
        first_epoch: the epoch that the first batches belong to.
        cache_bytes: bound of stored augmentation.
        replicas: how many are to share each batch.

    Returns:
        `(dataset, steps_per_epoch)`; elements are `(columns, units)`, such as
        `({"images": images, "teacher_logits": logits}, units)`: images in the
        dtype of the sources, units int32.

    Raises:
        ValueError: if the sources do not have the same column, stored
            augmentation would take more than `cache_bytes`, or a batch has less
            than one image for each replica.
    """
    sources = [source for source in sources if len(source)]
    _check_names(sources)
    base = np.random.SeedSequence([*seed]).generate_state(2)
    base = tf.constant(base.astype(np.int64))
    # Not `Dataset.counter`, whose function TensorFlow keeps for ever.
    epochs = tf.data.Dataset.range(first_epoch, tf.int64.max)
    if augment is not None and augment.stored:
        sources = [_augmented(sources, augment, base, cache_bytes)]
        augment = None
    count = sum(len(source) for source in sources)
    steps = -(-count // batch_size)
    _check_replicas(count, steps, replicas)
    look_up = _look_up(sources)
    units = to_units(np.concatenate([source.labels for source in sources]))
    if augment is None and all(source.copies == 1 for source in sources):
        for name, column in (columns or {}).items():
            look_up = _with_column(look_up, count, name, column)
    batches = _gathered(look_up, units, augment, steps, epochs, base)
    endless = tf.data.experimental.assert_cardinality(
        tf.data.INFINITE_CARDINALITY
    )
    batches = batches.prefetch(_PREFETCHED).apply(endless)
    return batches.with_options(_as_it_is()), steps


def _check_names(sources) -> None:
    names = sorted({source.name for source in sources})
    if len(names) > 1:
        raise ValueError(
            f"The sources of a phase have the columns {names}; expected the "
            "same one in each, so that they can be mixed. Cache all of them or "
            "none."
        )


def _check_replicas(count, steps, replicas) -> None:
    smallest = count // steps
    if smallest < replicas:
        raise ValueError(
            f"An epoch of {count} images in {steps} batches has one of "
            f"{smallest}, which {replicas} replicas cannot share. Pass another "
            "batch_size to fit; it is that of all replicas together."
        )


def _look_up(sources) -> LookUp:
    """Returns a look-up in all sources behind one another."""
    if all(isinstance(source, ArraySamples) for source in sources):
        return look_up_in_arrays([source.all_images() for source in sources])
    look_ups = [source.look_up() for source in sources]
    if len(look_ups) == 1:
        return look_ups[0]
    return _joined(look_ups, [len(source) for source in sources])


def _with_column(look_up, count, name: str, column: Column) -> LookUp:
    """Returns a look-up that has one more column, computed here."""
    rows = []
    for first in range(0, count, _LOOKED_UP_AT_ONCE):
        last = min(first + _LOOKED_UP_AT_ONCE, count)
        rows.append(column(look_up(0, tf.range(first, last))))
    with tf.device("CPU:0"):  # a data set need not fit a GPU
        values = tf.constant(np.concatenate(rows))
    return lambda epoch, index: {
        **look_up(epoch, index),
        name: tf.gather(values, index),
    }


def _joined(look_ups: Sequence[LookUp], counts: Sequence[int]) -> LookUp:
    """Returns one look-up for several sources of so many samples."""
    firsts = np.cumsum([0, *counts]).tolist()

    def look_up(epoch, indices):
        places, columns = [], []
        for one, first, last in zip(
            look_ups, firsts[:-1], firsts[1:], strict=True
        ):
            is_here = (indices >= first) & (indices < last)
            place = tf.where(is_here)[:, 0]
            places.append(tf.cast(place, tf.int32))
            columns.append(one(epoch, tf.gather(indices, place) - first))
        return keras.tree.map_structure(
            lambda *rows: tf.dynamic_stitch(places, rows), *columns
        )

    return look_up


def _gathered(look_up, units, augment, steps, epochs, base) -> tf.data.Dataset:
    """Batches looked up by index: whole-epoch permutations."""
    units, count = tf.constant(units), len(units)

    @tf.autograph.experimental.do_not_convert
    def steps_of_epoch(epoch):
        seed = _fold_in(base, epoch)
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed)
        epoch = tf.data.Dataset.from_tensors((epoch, order, seed))
        return tf.data.Dataset.zip(
            tf.data.Dataset.range(steps), epoch.repeat(steps)
        )

    def batch(step, of_epoch):
        epoch, order, seed = of_epoch
        index = order[step * count // steps : (step + 1) * count // steps]
        columns = look_up(epoch, index)
        if augment is not None:
            seed = _fold_in(seed, step)
            columns = {**columns, "images": augment(columns["images"], seed)}
        return columns, tf.gather(units, index)

    return epochs.flat_map(steps_of_epoch).map(
        batch, num_parallel_calls=tf.data.AUTOTUNE
    )


def _as_it_is() -> tf.data.Options:
    """Turns off what tf.data would do to the pipeline by itself.

    Its tuning thread sleeps for up to a minute at a time, and now and then the
    end of an epoch's iterator waits for it to wake. Its rewriting of the graph
    copies all images that the graph refers to.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _augmented(sources, augment, seed, cache_bytes) -> ArraySamples:
    """Makes all copies of all images, once."""
    count = sum(len(source) for source in sources) * augment.copies
    spec = sources[0].image_spec
    size = count * spec.shape.num_elements() * spec.dtype.size
    if size > cache_bytes:
        raise ValueError(
            f"Stored augmentation would keep {count} images, {size} bytes, "
            f"and cache_bytes is {cache_bytes}. Use the on-line form "
            "(keras_incremental.augmentation.EEILAugmentation), or raise "
            "cache_bytes."
        )
    images = np.concatenate(
        [source.take(range(len(source))) for source in sources]
    )
    labels = np.concatenate([source.labels for source in sources])
    copies = [
        augment(
            tf.constant(images[start : start + _STORED_AT_ONCE]),
            _fold_in(seed, start),
        ).numpy()
        for start in range(0, len(images), _STORED_AT_ONCE)
    ]
    labels = np.repeat(labels, augment.copies)
    return ArraySamples(np.concatenate(copies), labels)
