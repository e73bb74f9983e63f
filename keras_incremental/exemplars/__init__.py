"""The exemplar memory: which samples to keep, keeping them, rehearsing them.

`selection.py` ranks samples (NumPy only), `memory.py` owns the stored ones,
`rehearsal.py` feeds them to training next to new data, through tf.data.
"""

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
    "ExemplarMemory",
    "balanced_samples",
    "herding_order",
    "nearest_to_mean_order",
    "random_order",
    "training_batches",
]
