"""The exemplar memory: which samples to keep, keeping them, balancing them.

`selection.py` ranks samples (NumPy only), `memory.py` owns the stored ones,
`image_storage.py` says how they are kept, and `balanced.py` makes the set of
balanced fine-tuning.
"""

from keras_incremental.exemplars.balanced import balanced_samples
from keras_incremental.exemplars.byte_size import parse_bytes
from keras_incremental.exemplars.image_storage import (
    DiskStorage,
    JpegStorage,
    PngStorage,
    RawStorage,
    Storage,
    storage_record,
)
from keras_incremental.exemplars.memory import ExemplarMemory
from keras_incremental.exemplars.selection import (
    herding_order,
    nearest_to_mean_order,
    random_order,
)
from keras_incremental.exemplars.stored_images import StoredImages

__all__ = [
    "DiskStorage",
    "ExemplarMemory",
    "JpegStorage",
    "PngStorage",
    "RawStorage",
    "Storage",
    "StoredImages",
    "balanced_samples",
    "herding_order",
    "nearest_to_mean_order",
    "parse_bytes",
    "random_order",
    "storage_record",
]
