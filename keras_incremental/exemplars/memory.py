"""The exemplar memory: a few ranked raw images of each class seen so far."""

from collections.abc import Callable, Iterable, Mapping

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.exemplars import storage
from keras_incremental.exemplars.selection import (
    check_features,
    herding_order,
    nearest_to_mean_order,
    random_order,
)
from keras_incremental.labels import as_label, distinct_in_order
from keras_incremental.samples import ArraySamples, Samples, read_samples

Selection = Callable[[np.ndarray, int, object], np.ndarray]
Extract = Callable[[tf.data.Dataset], np.ndarray]

for _order in (herding_order, random_order, nearest_to_mean_order):
    keras.saving.register_keras_serializable("keras_incremental")(_order)


class ExemplarMemory:
    """Keeps a ranked list of raw images for each class, within a budget.

    With `capacity=K`, each of `C` classes has a quota of `floor(K / C)`, and
    the `K mod C` images left over go to the classes that came first: the
    total never exceeds K. With `per_class=m`, each class has a quota of m.
    A class is ranked once, when it is new; when its quota shrinks, the images
    ranked last are dropped. A class with fewer images than its quota keeps
    them all. If more data of a known class arrives, its stored exemplars and
    the new images are ranked again together. A class may be known of which
    there is no image: it has no share in the budget until one arrives.

    Source: EEIL (Castro et al., ECCV 2018), section 3.2. The authors' code
    loses the rank (`build_exemplars_set.m`); the text keeps it, and so does
    this class.

    Args:
        capacity: images in all, K. Give either this or `per_class`.
        per_class: images per class, m.
        selection: function `(features, count, seed) -> indices`, best first;
            `herding_order`, `random_order`, `nearest_to_mean_order`, or yours.
        seed: for selections that draw at random.

    Raises:
        ValueError: unless exactly one budget is given, 1 or more.
        TypeError: if `selection` is not callable.

    >>> ExemplarMemory(capacity=10).quotas(3)
    [4, 3, 3]
    """

    def __init__(
        self,
        capacity: int | None = None,
        per_class: int | None = None,
        *,
        selection: Selection = herding_order,
        seed: int = 0,
    ):
        if (capacity is None) == (per_class is None):
            raise ValueError(
                f"Got capacity={capacity} and per_class={per_class}; expected "
                "exactly one of them, e.g. ExemplarMemory(capacity=2000)."
            )
        budget = per_class if capacity is None else capacity
        if isinstance(budget, bool) or int(budget) != budget or budget < 1:
            raise ValueError(
                f"The memory's budget is {budget!r}; expected an integer of 1 "
                "or more images."
            )
        if not callable(selection):
            raise TypeError(
                f"selection={selection!r}; expected a function such as "
                "keras_incremental.exemplars.herding_order."
            )
        self.capacity = None if capacity is None else int(capacity)
        self.per_class = None if per_class is None else int(per_class)
        self.selection, self.seed = selection, seed
        self._images: dict[int | str, np.ndarray] = {}

    def __len__(self):
        return sum(len(images) for images in self._images.values())

    def __contains__(self, label):
        return label in self._images

    @property
    def labels(self) -> list[int | str]:
        """The classes in the memory, in order of arrival."""
        return list(self._images)

    @property
    def image_spec(self) -> tf.TensorSpec | None:
        """Shape and dtype of an exemplar; `None` while there is none."""
        for label in self.filled():
            images = self._images[label]
            return tf.TensorSpec(images.shape[1:], images.dtype)
        return None

    def filled(self) -> list[int | str]:
        """Returns the classes that have exemplars, in order of arrival."""
        return [label for label, images in self._images.items() if len(images)]

    def lacking(self, labels: Iterable) -> list[int | str]:
        """Returns those of `labels` that have no exemplar.

        >>> ExemplarMemory(10).lacking([40, 7])
        [40, 7]
        """
        filled = set(self.filled())
        return [label for label in labels if label not in filled]

    def images(self, label) -> np.ndarray:
        """Returns a class' exemplars, `(count, h, w, c)`, best first.

        Raises:
            KeyError: if the memory has no such class.
        """
        label = as_label(label)
        if label not in self._images:
            raise KeyError(
                f"The memory holds no class {label!r}; it holds "
                f"{self.labels[:10]} ({len(self.labels)} in all)."
            )
        return self._images[label]

    def quotas(self, num_classes: int) -> list[int]:
        """Returns how many images each of `num_classes` classes may keep.

        Raises:
            ValueError: if the capacity is below one image for each class.
        """
        if self.per_class is not None:
            return [self.per_class] * num_classes
        if num_classes > self.capacity:
            raise ValueError(
                f"capacity={self.capacity} holds less than one exemplar for "
                f"each of {num_classes} classes. Use capacity >= {num_classes}."
            )
        share, left = divmod(self.capacity, max(num_classes, 1))
        return [share + (unit < left) for unit in range(num_classes)]

    def samples(self) -> ArraySamples:
        """Returns all exemplars, class by class in order of arrival.

        Raises:
            ValueError: while the memory is empty.
        """
        if not len(self):
            raise ValueError(
                "The memory is empty. It is filled at the end of a fit with "
                "an IncrementalCallback."
            )
        counts = [len(images) for images in self._images.values()]
        labels = np.repeat(np.array(self.labels), counts)
        return ArraySamples(np.concatenate([*self._images.values()]), labels)

    def dataset(self) -> tf.data.Dataset:
        """Returns the exemplars as an unbatched dataset of (image, label).

        Images are raw, as they were given to `fit`; labels are the user's.

        Raises:
            ValueError: while the memory is empty.
        """
        samples = self.samples()
        labels = tf.data.Dataset.from_tensor_slices(samples.labels)
        return tf.data.Dataset.zip(samples.images(), labels)

    def select(
        self,
        samples: Samples,
        extract: Extract,
        counts: Mapping,
        features: np.ndarray | None = None,
    ) -> dict[int | str, np.ndarray]:
        """Ranks the images of the classes in `samples`; stores nothing.

        The exemplars that the memory already has of a class compete with the
        new images.

        Args:
            samples: new data.
            extract: maps a dataset of single images to `(samples, dim)`
                features.
            counts: how many images to choose, by label.
            features: `(samples, dim)` of `samples`, where they are at hand.

        Returns:
            the chosen images of each label in `samples`, best first.

        Raises:
            ValueError: for features that do not fit the images, or are not
                finite.
        """
        if features is None:
            features = extract(samples.images())
        features = check_features(features)
        if len(features) != len(samples):
            raise ValueError(
                f"{len(features)} rows of features for {len(samples)} images; "
                "expected one for each image, in their order."
            )
        arriving = distinct_in_order(samples.labels)
        position = {
            label: index
            for index, label in enumerate(dict.fromkeys(self.labels + arriving))
        }
        picks, rows = {}, []
        for label in arriving:
            index = samples.of_label(label)
            stored = self._images.get(label, ())
            candidates = features[index]
            if len(stored):
                old = tf.data.Dataset.from_tensor_slices(stored)
                candidates = np.concatenate([extract(old), candidates])
            seed = (self.seed, position[label])
            order = self.selection(candidates, counts[label], seed)
            picks[label] = np.asarray(order, int) - len(stored)
            rows.append(index[picks[label][picks[label] >= 0]])
        taken = samples.take(np.concatenate(rows))
        return self._assemble(picks, taken)

    def update(
        self,
        samples: Samples,
        extract: Extract,
        features: np.ndarray | None = None,
        known: Iterable = (),
    ) -> None:
        """Takes in new data and shrinks every class to its quota.

        Either all of it happens or, on an error, nothing.

        Args:
            samples: new data.
            extract: as for `select`, with the network as it is now.
            features: as for `select`.
            known: labels that the memory is to list even if there is no image
                of them.

        Raises:
            ValueError: if the capacity is too small for the classes, or the
                images are of another shape or dtype than the stored ones.
        """
        self.check_images(samples.image_spec)
        arriving = distinct_in_order(samples.labels)
        classes = list(dict.fromkeys([*self.labels, *known, *arriving]))
        absent = set(self.lacking(classes)).difference(arriving)
        filled = [label for label in classes if label not in absent]
        quota = dict(zip(filled, self.quotas(len(filled)), strict=True))
        chosen = self.select(samples, extract, quota, features)
        nothing = chosen[arriving[0]][:0]
        merged = {**self._images, **dict.fromkeys(absent, nothing), **chosen}
        self._images = {
            label: merged[label][: quota.get(label, 0)].copy()
            for label in classes
        }

    def add_from(self, model, images, labels=None) -> None:
        """Chooses exemplars from old data of the classes a model knows.

        For a model that was trained elsewhere: it knows its classes, and this
        memory does not. Call it as often as there is data; each call ranks
        the classes that it brings, and all are cut to their quotas. Classes
        of the model that no data has come for are listed without exemplars;
        balanced fine-tuning and calibration need exemplars of every class
        and are left out while there are such. No data at all changes nothing.

        Args:
            model: an `IncrementalClassifier`.
            images: raw images `(samples, h, w, c)`, or a batched
                `tf.data.Dataset` of `(images, labels)`.
            labels: the user's labels of the images; `None` with a dataset.

        Raises:
            ValueError: for labels that the model does not know, a memory of
                another model, a capacity too small for the classes, or images
                that do not fit.

        >>> import keras_incremental as ki
        >>> model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
        >>> model.add_classes(["cat", "dog"])
        >>> memory = ExemplarMemory(capacity=10)
        >>> memory.add_from(model, np.zeros((3, 8, 8, 1)), ["dog"] * 3)
        >>> memory.labels, len(memory)
        (['cat', 'dog'], 3)
        """
        if _is_nothing(images, labels):
            return
        samples = read_samples(
            images, labels, image_shape=model.input_shape[1:]
        )
        unknown = model.classes.unknown(samples.labels)
        if unknown:
            raise ValueError(
                f"add_from got images of the classes {unknown[:10]}, which the "
                f"model does not know; it knows {model.labels[:10]} "
                f"({len(model.labels)} in all). Teach it new classes by a fit."
            )
        strangers = [k for k in self.labels if k not in model.classes]
        if strangers:
            raise ValueError(
                f"The memory holds classes {strangers[:10]} that the model "
                f"does not know; it knows {model.labels[:10]}. Use a memory of "
                "its own for each model."
            )
        self.update(samples, model.extract_features, known=model.labels)

    def check_room(self, labels: Iterable) -> None:
        """Refuses more classes than the capacity has images for.

        Args:
            labels: of the images that are to come.

        Raises:
            ValueError: as `quotas`.
        """
        self.quotas(len({*self.filled(), *labels}))

    def restore(self, images: Mapping) -> None:
        """Takes over the exemplars of a backup, `(count, h, w, c)` by label."""
        self._images = dict(images)

    def check_images(self, spec: tf.TensorSpec) -> None:
        """Refuses images that differ in shape or dtype from the stored ones.

        Raises:
            ValueError: with both shapes and dtypes.
        """
        mine = self.image_spec
        if mine is not None and not (
            mine.shape.is_compatible_with(spec.shape)
            and mine.dtype == spec.dtype
        ):
            raise ValueError(
                f"The new images are {spec.dtype.name} {tuple(spec.shape)}, "
                f"the memory's exemplars {mine.dtype.name} "
                f"{tuple(mine.shape)}. Pass raw images of one kind throughout."
            )

    def save(self, directory) -> None:
        """Writes the memory to a folder; the old folder stays until it is done.

        `memory.json` holds budget, selection, labels and counts, `images.npy`
        the images, class by class.
        """
        settings = {
            "capacity": self.capacity,
            "per_class": self.per_class,
            "selection": keras.saving.get_registered_name(self.selection),
            "seed": self.seed,
        }
        storage.write(directory, settings, self._images)

    @classmethod
    def load(cls, directory, selection: Selection | None = None):
        """Reads a memory written by `save`; nothing in it is executed.

        Args:
            directory: the folder.
            selection: needed only if the memory was saved with a function that
                is not registered with `keras.saving`.

        Raises:
            FileNotFoundError: if the folder or a file in it is missing.
            ValueError: if a file is damaged or of a newer format; it is named.
        """
        settings, images = storage.read(directory)
        if selection is None:
            selection = _registered_selection(settings["selection"])
        memory = cls(
            settings["capacity"],
            settings["per_class"],
            selection=selection,
            seed=settings["seed"],
        )
        memory._images = images
        return memory

    def _assemble(self, picks, taken) -> dict[int | str, np.ndarray]:
        chosen, first = {}, 0
        for label, pick in picks.items():
            is_new = pick >= 0
            images = np.empty((len(pick), *taken.shape[1:]), taken.dtype)
            last = first + int(is_new.sum())
            images[is_new] = taken[first:last]
            if not is_new.all():
                images[~is_new] = self._images[label][pick[~is_new]]
            chosen[label], first = images, last
        return chosen


def _is_nothing(images, labels) -> bool:
    """Whether no image was passed."""
    if isinstance(images, tf.data.Dataset):
        return labels is None and not any(True for _ in images.take(1))
    return labels is not None and not len(labels) and not len(images)


def _registered_selection(name: str) -> Selection:
    selection = keras.saving.get_registered_object(name)
    if selection is None:
        raise ValueError(
            f"The memory was saved with the selection {name!r}, which is not "
            "registered. Pass it: ExemplarMemory.load(directory, selection=...)"
        )
    return selection
