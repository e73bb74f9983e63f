"""Old data of the classes that a model learned elsewhere."""

from collections.abc import Sequence

import tensorflow as tf

from keras_incremental.samples import Samples, read_samples


def read_old_data(model, images, labels, known: Sequence) -> Samples | None:
    """Returns old data as samples; `None` if there is no image.

    Args:
        model: An `IncrementalClassifier`.
        images: As for `ExemplarMemory.add_from`.
        labels: As for `ExemplarMemory.add_from`.
        known: Labels that the memory lists already.

    Raises:
        ValueError: For labels that the model does not know.
    """
    if _is_nothing(images, labels):
        return None
    samples = read_samples(images, labels, image_shape=model.input_shape[1:])
    unknown = model.classes.unknown(samples.labels)
    if unknown:
        raise ValueError(
            f"add_from got images of the classes {unknown[:10]}, which the "
            f"model does not know; it knows {model.labels[:10]} "
            f"({len(model.labels)} in all). Teach it new classes by a fit."
        )
    strangers = [label for label in known if label not in model.classes]
    if strangers:
        raise ValueError(
            f"The memory holds classes {strangers[:10]} that the model "
            f"does not know; it knows {model.labels[:10]}. Use a memory of "
            "its own for each model."
        )
    return samples


def _is_nothing(images, labels) -> bool:
    """Returns whether no image was passed."""
    if isinstance(images, tf.data.Dataset):
        return labels is None and not any(True for _ in images.take(1))
    return labels is not None and not len(labels) and not len(images)
