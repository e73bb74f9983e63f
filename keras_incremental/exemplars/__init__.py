"""The exemplar memory: which samples to keep, keeping them, balancing them.

`selection.py` ranks samples (NumPy only), `memory.py` owns the exemplars,
`storages.py` stores their images, `folder_format.py` saves them, and
`balanced.py` makes the set of balanced fine-tuning.
"""

from keras_incremental.exemplars.balanced import balanced_samples
from keras_incremental.exemplars.class_exemplars import ClassExemplars
from keras_incremental.exemplars.folder_format import storage_record
from keras_incremental.exemplars.memory import ExemplarMemory
from keras_incremental.exemplars.selection import (
    herding_order,
    nearest_to_mean_order,
    random_order,
)
from keras_incremental.exemplars.storages import (
    DiskStorage,
    JpegStorage,
    RawStorage,
    Storage,
)

__all__ = [
    "ClassExemplars",
    "DiskStorage",
    "ExemplarMemory",
    "JpegStorage",
    "RawStorage",
    "Storage",
    "balanced_samples",
    "herding_order",
    "nearest_to_mean_order",
    "random_order",
    "storage_record",
]
