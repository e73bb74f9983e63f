"""The exemplar memory: which samples to keep, keeping them, rehearsing them.

`selection.py` ranks samples (NumPy only), `memory.py` owns the exemplars,
`codecs.py` stores their images, `folder_format.py` saves them, `rehearsal.py`
feeds them to training beside new data, through tf.data.
"""

from keras_incremental.exemplars.byte_size import parse_bytes
from keras_incremental.exemplars.class_exemplars import ClassExemplars
from keras_incremental.exemplars.codecs import (
    DiskStorage,
    JpegStorage,
    PngStorage,
    RawStorage,
    Storage,
    storage_record,
)
from keras_incremental.exemplars.memory import ExemplarMemory
from keras_incremental.exemplars.rehearsal import (
    balanced_samples,
    training_batches,
)
from keras_incremental.exemplars.selection import (
    herding_order,
    nearest_to_mean_order,
    random_order,
)

__all__ = [
    "ClassExemplars",
    "DiskStorage",
    "ExemplarMemory",
    "JpegStorage",
    "PngStorage",
    "RawStorage",
    "Storage",
    "balanced_samples",
    "herding_order",
    "nearest_to_mean_order",
    "parse_bytes",
    "random_order",
    "storage_record",
    "training_batches",
]
