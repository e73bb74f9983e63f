"""Images and labels of one task, checked once, in a fixed order.

`fit` accepts arrays and batched datasets; behind it everything works on
`Samples`: rows can be counted, looked up by index, and read again. Data
that fits the cache is kept as arrays, so that a dataset is decoded once; larger
data is kept in a temporary file. What is computed once for each sample, such
as the outputs of frozen layers, is a `CachedColumn`.
"""

from keras_incremental.samples.batches import training_batches
from keras_incremental.samples.cached_columns import CachedColumn, cache_column
from keras_incremental.samples.pixels import Pixels
from keras_incremental.samples.reading import DEFAULT_CACHE_BYTES, read_samples
from keras_incremental.samples.samples import (
    ArraySamples,
    ChosenSamples,
    MappedSamples,
    Samples,
    call_in_graph,
    look_up_in_arrays,
)

__all__ = [
    "DEFAULT_CACHE_BYTES",
    "ArraySamples",
    "CachedColumn",
    "ChosenSamples",
    "MappedSamples",
    "Pixels",
    "Samples",
    "cache_column",
    "call_in_graph",
    "look_up_in_arrays",
    "read_samples",
    "training_batches",
]
