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
    StreamedSamples,
    look_up_in_arrays,
)

_STORED_AT_ONCE = 512
_STREAMED_AT_ONCE = 32
_PREFETCHED = 4
_LOOKED_UP_AT_ONCE = 256
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
    Sources in host memory are shuffled as a whole, streamed ones through a
    buffer of `cache_bytes`. The order is drawn from `(seed, epoch)` alone, so
    that a run can go on at any epoch without the state of an iterator.

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
            the same rows, and they are not streamed, they are computed once
            before the first epoch; elsewhere they are left out.
        seed: non-negative integers, e.g. (seed, task, phase).
        first_epoch: the epoch that the first batches belong to.
        cache_bytes: bound of the shuffle buffer and of stored augmentation.
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
    if look_up is not None:
        labels = np.concatenate([source.labels for source in sources])
        units = to_units(labels)
        if augment is None and all(s.copies == 1 for s in sources):
            for name, column in (columns or {}).items():
                look_up = _with_column(look_up, count, name, column)
        batches = _gathered(look_up, units, steps, epochs, base)
    else:
        batches = _streamed(sources, to_units, steps, epochs, base, cache_bytes)
    if augment is not None:
        batches = batches.map(
            lambda columns, units, seed: (
                {**columns, "images": augment(columns["images"], seed)},
                units,
                seed,
            ),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    batches = batches.map(lambda columns, units, seed: (columns, units))
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


def _look_up(sources) -> LookUp | None:
    """Returns a look-up in all sources behind one another, if each has one."""
    if all(isinstance(source, ArraySamples) for source in sources):
        return look_up_in_arrays([source.all_images() for source in sources])
    look_ups = [source.look_up() for source in sources]
    if None in look_ups:
        return None
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


def _gathered(look_up, units, steps, epochs, base) -> tf.data.Dataset:
    """Batches looked up by index: whole-epoch permutations."""
    units, count = tf.constant(units), len(units)

    def indices_of_epoch(epoch):
        seed = tf.random.experimental.stateless_fold_in(base, epoch)
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed)
        return tf.data.Dataset.range(steps).map(
            lambda step: (
                epoch,
                order[step * count // steps : (step + 1) * count // steps],
                _batch_seed(seed, step),
            )
        )

    return epochs.flat_map(indices_of_epoch).map(
        lambda epoch, index, seed: (
            look_up(epoch, index),
            tf.gather(units, index),
            seed,
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def _streamed(
    sources, to_units, steps, epochs, base, cache_bytes
) -> tf.data.Dataset:
    """Batches of samples too large for memory: buffers, mixed by count."""
    counts = [len(source) for source in sources]
    sizes = np.diff(np.arange(steps + 1) * sum(counts) // steps)
    origin = tf.repeat(tf.range(len(sources), dtype=tf.int64), counts)
    orders = [_orders(source, to_units, cache_bytes) for source in sources]

    def batches_of_epoch(epoch):
        seed = tf.random.experimental.stateless_fold_in(base, epoch)
        order = tf.random.experimental.stateless_shuffle(origin, seed)
        mixed = tf.data.Dataset.choose_from_datasets(
            [
                shuffled(_batch_seed(seed, -1 - number))
                for number, shuffled in enumerate(orders)
            ],
            tf.data.Dataset.from_tensor_slices(order),
        )
        batches = mixed.batch(sizes.max()).rebatch(sizes).enumerate()
        return batches.map(
            lambda step, batch: (*batch, _batch_seed(seed, step))
        )

    return epochs.flat_map(batches_of_epoch)


def _orders(source, to_units, cache_bytes) -> Callable:
    """Returns a function from a seed to single images and units, shuffled."""
    units = tf.constant(to_units(source.labels))
    look_up = source.look_up()
    if look_up is not None and not isinstance(source, ArraySamples):
        return lambda seed: _shuffled_look_up(look_up, units, seed)
    pairs = tf.data.Dataset.zip(
        source.images().map(lambda image: {"images": image}),
        tf.data.Dataset.from_tensor_slices(units),
    )
    rows = max(1, min(len(source), cache_bytes // _image_bytes(source)))
    return lambda seed: _shuffled(pairs, rows, seed)


def _shuffled(dataset, rows, seed) -> tf.data.Dataset:
    """`dataset.shuffle(rows, seed)`, with a tensor of two as the seed.

    The method takes no tensor while the global seed is 0.
    """
    specs = tf.nest.flatten(dataset.element_spec)
    seed = tf.cast(seed, tf.int64)
    variant = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(dataset),
        buffer_size=rows,
        seed=seed[0],
        seed2=seed[1],
        output_types=[spec.dtype for spec in specs],
        output_shapes=[spec.shape for spec in specs],
        reshuffle_each_iteration=False,
    )
    return tf.data.experimental.from_variant(variant, dataset.element_spec)


def _shuffled_look_up(look_up, units, seed) -> tf.data.Dataset:
    """Shuffles indices, of which there is room for all."""
    order = tf.random.experimental.stateless_shuffle(tf.range(len(units)), seed)
    indices = tf.data.Dataset.from_tensor_slices(order)
    batches = indices.batch(_STREAMED_AT_ONCE).map(
        lambda index: (look_up(0, index), tf.gather(units, index)),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return batches.unbatch()


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


def _batch_seed(epoch_seed, step):
    return tf.random.experimental.stateless_fold_in(epoch_seed, step)


def _image_bytes(source: Samples) -> int:
    spec = source.image_spec
    return (spec.shape.num_elements() or 1) * spec.dtype.size


def _augmented(sources, augment, seed, cache_bytes) -> ArraySamples:
    """Makes all copies of all images, once."""
    count = sum(len(source) for source in sources) * augment.copies
    size = count * _image_bytes(sources[0])
    if size > cache_bytes or any(
        isinstance(source, StreamedSamples) for source in sources
    ):
        raise ValueError(
            f"Stored augmentation would keep {count} images, {size} bytes, "
            f"and cache_bytes is {cache_bytes}. Use the on-line form "
            "(keras_incremental.augmentation.EEILAugmentation), or raise "
            "cache_bytes."
        )
    images = _concatenated_images(sources)
    labels = np.concatenate([source.labels for source in sources])
    copies = [
        augment(
            tf.constant(images[start : start + _STORED_AT_ONCE]),
            _batch_seed(seed, start),
        ).numpy()
        for start in range(0, len(images), _STORED_AT_ONCE)
    ]
    labels = np.repeat(labels, augment.copies)
    return ArraySamples(np.concatenate(copies), labels)


def _concatenated_images(sources) -> np.ndarray:
    return np.concatenate([_all_images(source) for source in sources])


def _all_images(source: Samples) -> np.ndarray:
    if isinstance(source, ArraySamples):
        return source.all_images()
    return source.take(np.arange(len(source)))
