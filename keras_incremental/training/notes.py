"""What a person should know about a task, in sentences."""

import numpy as np

from keras_incremental.labels import ClassIndex
from keras_incremental.methods import TaskStep
from keras_incremental.training.validation import ClassCounts

FEW_IMAGES = 20


def count_images(labels: np.ndarray) -> dict:
    """Returns how many images each label has.

    >>> count_images(np.array([7, 9, 7]))
    {7: 2, 9: 1}
    """
    distinct, counts = np.unique(labels, return_counts=True)
    return dict(zip(distinct.tolist(), counts.tolist(), strict=True))


def note_on_few_images(labels: np.ndarray, new_labels, new_names) -> str | None:
    """Returns a warning if new classes have very few images, or `None`.

    >>> note_on_few_images(np.array([7] * 8 + [9] * 80), [7, 9], ["a", "b"])
    'New classes with fewer than 20 images: a (8). Most images of such a ...'
    """
    counts = count_images(labels)
    few = [
        f"{name} ({counts[label]})"
        for label, name in zip(new_labels, new_names, strict=True)
        if counts[label] < FEW_IMAGES
    ]
    if not few:
        return None
    return (
        f"New classes with fewer than {FEW_IMAGES} images: "
        f"{', '.join(few[:10])}. Most images of such a class may be taken for "
        "another class, which an accuracy over all classes hides: look at the "
        "accuracy by class, and add images."
    )


def note_on_known_classes(
    labels: np.ndarray, new_labels, classes: ClassIndex
) -> str | None:
    """Returns a note if a task has images of known classes, or `None`.

    >>> note_on_known_classes(np.array([7, 7]), [], ClassIndex([7], ["a"]))
    'fit got no new class: its images are of the known classes a (2).'
    """
    name_of = dict(zip(classes.labels, classes.names, strict=True))
    known = [
        f"{name_of[label]} ({count})"
        for label, count in count_images(labels).items()
        if label not in new_labels
    ]
    if not known:
        return None
    known = ", ".join(known[:10])
    if len(new_labels):
        return f"fit got more images of the known classes {known}."
    return f"fit got no new class: its images are of the known classes {known}."


def notes_on(task: TaskStep, validation: ClassCounts) -> list[str]:
    """Returns the notes of a report.

    Args:
        task: that is learned.
        validation: of `fit`'s validation data.
    """
    few = note_on_few_images(
        task.samples.labels, task.new_labels, task.new_names
    )
    model = task.model
    known = note_on_known_classes(
        task.samples.labels, task.new_labels, model.classes
    )
    notes = [note for note in (few, known) if note]
    missing = [
        name
        for label, name in zip(model.labels, model.class_names, strict=True)
        if label not in validation.images
    ]
    if not validation.images:
        notes.append(
            "The accuracy of old and new classes is not known: fit got no "
            "validation_data (arrays, a tf.data.Dataset or a PyDataset)."
        )
    elif missing:
        notes.append(
            f"The accuracy of {len(missing)} classes is not known: "
            f"validation_data has no image of {', '.join(missing[:10])}."
        )
    return notes
