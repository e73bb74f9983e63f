"""The balanced set: the same number of images for each class, old and new."""

import numpy as np

from keras_incremental.exemplars.memory import ExemplarMemory
from keras_incremental.exemplars.ranking import Extract, rank_classes
from keras_incremental.labels import distinct_in_order
from keras_incremental.samples import Samples


def balanced_samples(
    memory: ExemplarMemory, samples: Samples, extract: Extract
) -> Samples:
    """Returns the same number of images for each class, old and new.

    The number is the whole share of a class in the memory before it is
    updated, `floor(K / old classes)` or `per_class` (`quota_per_class`), or the
    size of the largest class there is, if that is less. Old classes give their
    exemplars, best first; new classes as many images, chosen by the memory's
    selection. A class with fewer images repeats them, so that no class weighs
    more than another. All images, old and new, are kept in the memory's
    storage, so that the losses of JPEG do not tell old from new.

    Source: EEIL (Castro et al., ECCV 2018), section 3.3.

    Args:
        memory: as it was before the step; not changed.
        samples: the step's new data.
        extract: maps a dataset of single images to `(samples, dim)` features,
            with the network at the end of the first stage.

    Raises:
        ValueError: if there is no exemplar of an old class, and no new image
            of it either.
    """
    per_class = memory.quota_per_class()
    if not per_class:
        raise ValueError(
            "A balanced set needs exemplars of the old classes, and the "
            "memory is empty."
        )
    counts = dict.fromkeys(distinct_in_order(samples.labels), per_class)
    chosen = memory.stored()
    chosen.update(rank_classes(memory, samples, extract, counts))
    lacking = [label for label, ranked in chosen.items() if not len(ranked)]
    if lacking:
        raise ValueError(
            "A balanced set needs images of every class, and the memory has "
            f"no exemplar of the old classes {lacking[:10]}."
        )
    per_class = min(per_class, max(map(len, chosen.values())))
    index = np.arange(per_class)
    rows = [ranked.rows[index % len(ranked)] for ranked in chosen.values()]
    labels = np.repeat(np.array([*chosen]), per_class)
    spec = next(iter(chosen.values())).image_spec
    return memory.storage.samples(np.concatenate(rows), spec, labels)
