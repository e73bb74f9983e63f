"""The exemplar memory: a few ranked images of each class seen so far."""

import numbers
from collections.abc import Iterable, Mapping

import keras
import numpy as np
import tensorflow as tf

from keras_incremental._types import Images, Labels, PathLike
from keras_incremental.exemplars import folder_format
from keras_incremental.exemplars.class_exemplars import ClassExemplars
from keras_incremental.exemplars.ranking import Extract, Selection, rank_classes
from keras_incremental.exemplars.selection import herding_order
from keras_incremental.exemplars.storages import RawStorage, Storage
from keras_incremental.labels import as_label, carried_names, distinct_in_order
from keras_incremental.samples import Pixels, Samples, read_samples

_RAW = RawStorage()
_EXEMPLARS_LOOKED_AT = 64


class ExemplarMemory:
    """Keeps a ranked list of images for each class, within a budget.

    With `capacity=K`, each of `C` classes has a quota of `floor(K / C)`, and
    the `K mod C` images left over go to the classes that came first. With
    `per_class=m`, each class has a quota of m.

    A class is ranked when it is new; when its quota shrinks, the images ranked
    last are dropped. If more data of a class arrives, its exemplars and the new
    images are ranked together. A class may be known without any image: it has
    no share in the budget until an image arrives. Features of exemplars are
    computed from the decoded images, those of new images from the originals.

    Source: EEIL (Castro et al., ECCV 2018), section 3.2. The authors' code
    loses the rank (`build_exemplars_set.m`); the text keeps it.

    Args:
        capacity: Images in all, K. Pass this, or `per_class`.
        per_class: Images per class, m.
        storage: How images are kept: `RawStorage()`, `JpegStorage()` or
            `DiskStorage()` of `keras_incremental.exemplars`; each says how much
            RAM it takes.
        selection: Function `(features, count, seed) -> indices`, best first:
            `herding_order`, `random_order`, `nearest_to_mean_order`, or yours.
        seed: For selections that draw at random.

    Raises:
        ValueError: Unless exactly one of the two is given, 1 or more.
        TypeError: If an argument has another type.

    >>> ExemplarMemory(capacity=10).quotas(3)
    [4, 3, 3]
    """

    def __init__(
        self,
        capacity: int | None = None,
        per_class: int | None = None,
        *,
        storage: Storage = _RAW,
        selection: Selection = herding_order,
        seed: int = 0,
    ):
        if (capacity is None) == (per_class is None):
            raise ValueError(
                f"Got capacity={capacity} and per_class={per_class}; expected "
                "exactly one of them, e.g. ExemplarMemory(capacity=2000)."
            )
        self.capacity = None if capacity is None else _checked_count(capacity)
        self.per_class = (
            None if per_class is None else _checked_count(per_class)
        )
        if not isinstance(storage, Storage):
            raise TypeError(
                f"storage={storage!r}; expected an object such as "
                "keras_incremental.exemplars.JpegStorage(quality=95)."
            )
        if not callable(selection):
            raise TypeError(
                f"selection={selection!r}; expected a function such as "
                "keras_incremental.exemplars.herding_order."
            )
        self.storage = storage
        self.selection, self.seed = selection, int(seed)
        self._images: dict[int | str, ClassExemplars] = {}

    def __len__(self):
        return sum(len(images) for images in self._images.values())

    def __contains__(self, label):
        return label in self._images

    def __repr__(self):
        name = "capacity" if self.per_class is None else "per_class"
        return (
            f"<ExemplarMemory: {len(self)} exemplars of {len(self.labels)} "
            f"classes, {name}={getattr(self, name)}, {self.storage}>"
        )

    @property
    def labels(self) -> list[int | str]:
        """The classes in the memory, in order of arrival."""
        return list(self._images)

    @property
    def nbytes(self) -> int:
        """Bytes of all exemplars as they are stored."""
        return sum(images.nbytes for images in self._images.values())

    @property
    def image_spec(self) -> tf.TensorSpec | None:
        """Shape and dtype of an exemplar; `None` while there is none."""
        labels = self.labels_with_exemplars()
        return self._images[labels[0]].image_spec if labels else None

    @property
    def pixels(self) -> Pixels | None:
        """What the memory asks of new images, by a few of its exemplars."""
        labels = self.labels_with_exemplars()[:_EXEMPLARS_LOOKED_AT]
        if not labels:
            dtype = self.storage.dtype
            return None if dtype is None else Pixels(np.dtype(dtype))
        count = _EXEMPLARS_LOOKED_AT // len(labels)
        images = np.concatenate(
            [self._images[label].head(count).decoded() for label in labels]
        )
        return Pixels(images.dtype, float(images.min()), float(images.max()))

    def labels_with_exemplars(self) -> list[int | str]:
        """Returns the classes that have exemplars, in order of arrival."""
        return [label for label, images in self._images.items() if len(images)]

    def labels_without_exemplars(self, labels: Iterable) -> list[int | str]:
        """Returns those of `labels` that have no exemplar.

        >>> ExemplarMemory(10).labels_without_exemplars([40, 7])
        [40, 7]
        """
        present = set(self.labels_with_exemplars())
        return [label for label in labels if label not in present]

    def images(self, label: int | str) -> np.ndarray:
        """Returns a class' exemplars, `(count, h, w, c)`, best first.

        Raises:
            KeyError: If the memory does not list the class.
        """
        label = as_label(label)
        if label not in self._images:
            raise KeyError(
                f"The memory holds no class {label!r}; it holds "
                f"{self.labels[:10]} ({len(self.labels)} in all)."
            )
        return self._images[label].decoded()

    def stored(self) -> dict[int | str, ClassExemplars]:
        """Returns all exemplars by label, without a copy, for `restore`."""
        return dict(self._images)

    def quotas(self, num_classes: int) -> list[int]:
        """Returns how many images each of `num_classes` classes may keep.

        Raises:
            ValueError: If it is less than one.
        """
        if self.capacity is None:
            return [self.per_class] * num_classes
        if num_classes > self.capacity:
            raise ValueError(
                f"capacity={self.capacity} holds less than one exemplar for "
                f"each of {num_classes} classes. Use capacity >= {num_classes}."
            )
        share, left = divmod(self.capacity, max(num_classes, 1))
        return [share + (index < left) for index in range(num_classes)]

    def quota_per_class(self) -> int:
        """Returns how many images a class may keep now, 0 while empty."""
        return min(self.quotas(len(self.labels_with_exemplars())), default=0)

    def samples(self) -> Samples:
        """Returns all exemplars, class by class in order of arrival.

        Raises:
            ValueError: While the memory is empty.
        """
        if not len(self):
            raise ValueError(
                "The memory is empty. It is filled at the end of a fit with "
                "an IncrementalCallback."
            )
        counts = [len(images) for images in self._images.values()]
        labels = np.repeat(np.array(self.labels), counts)
        rows = np.concatenate([part.rows for part in self._images.values()])
        return self.storage.samples(rows, self.image_spec, labels)

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
            samples: New data.
            extract: Maps a dataset of single images to `(samples, dim)`
                features, with the network as it is now.
            features: `(samples, dim)` of `samples`, if they are known.
            known: Labels that the memory is to list even without any image.

        Raises:
            ValueError: If the budget is too small for the classes, or the
                images have another shape or dtype than the exemplars.
        """
        self.check_images(samples.image_spec)
        arriving = distinct_in_order(samples.labels)
        classes = list(dict.fromkeys([*self.labels, *known, *arriving]))
        absent = set(self.labels_without_exemplars(classes)) - set(arriving)
        present = [label for label in classes if label not in absent]
        counts = dict(zip(present, self.quotas(len(present)), strict=True))
        chosen = rank_classes(self, samples, extract, counts, features)
        nothing = chosen[arriving[0]].head(0)
        merged = {**dict.fromkeys(absent, nothing), **self._images, **chosen}
        self._images = {
            label: merged[label].head(counts.get(label, 0)) for label in classes
        }

    def add_from(
        self, model: keras.Model, images: Images, labels: Labels | None = None
    ) -> None:
        """Chooses exemplars from old data of the classes a model knows.

        For a model that was trained elsewhere, as often as there is data: each
        call ranks the classes that it brings, and cuts all to their quotas.
        Classes of the model without data are listed without exemplars; while
        there are such, balanced fine-tuning and calibration are left out.

        Args:
            model: An `IncrementalClassifier`.
            images: Raw images `(samples, h, w, c)`, or a batched
                `tf.data.Dataset` of `(images, labels)`.
            labels: The user's labels of the images; `None` with a dataset.

        Raises:
            ValueError: For labels that the model does not know, a memory of
                another model, a budget that is too small for the classes, or
                images that do not fit.

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
        model.classes.check_names(carried_names(images), "The dataset")
        shape = model.input_shape[1:]
        samples = read_samples(
            images, labels, image_shape=shape, like=self.pixels
        )
        model.classes.to_units(samples.labels)  # refuses what it does not know
        self.check_classes(model.labels)
        self.update(samples, model.extract_features, known=model.labels)

    def check_classes(self, known: Iterable) -> None:
        """Refuses a model that does not know all classes of the memory.

        Args:
            known: Labels of the classes that the model knows.

        Raises:
            ValueError: Naming the classes that it does not know.
        """
        known = [*known]
        strangers = [label for label in self.labels if label not in known]
        if strangers:
            raise ValueError(
                f"The memory holds classes {strangers[:10]} that the model "
                f"does not know; it knows {known[:10]}. Pass the memory "
                "that was saved with this model; each needs one of its own."
            )

    def check_room(self, labels: Iterable) -> None:
        """Refuses more classes than there is room for.

        Args:
            labels: Labels of the images that are to come.

        Raises:
            ValueError: If there is less than one image for each class.
        """
        absent = self.labels_without_exemplars(dict.fromkeys(labels))
        self.quotas(len(self.labels_with_exemplars()) + len(absent))

    def restore(self, images: Mapping) -> None:
        """Takes over the exemplars that a memory had `stored`."""
        self._images = dict(images)

    def check_images(self, spec: tf.TensorSpec) -> None:
        """Refuses images that cannot be stored, or not beside those that are.

        Raises:
            ValueError: With shapes and dtypes.
        """
        self.storage.check(spec)
        mine = self.image_spec
        if mine is not None and not mine.is_compatible_with(spec):
            raise ValueError(
                f"The new images are {spec.dtype.name} {tuple(spec.shape)}, "
                f"the memory's exemplars {mine.dtype.name} "
                f"{tuple(mine.shape)}. Pass raw images of one kind throughout."
            )

    def check_stored(self) -> None:
        """Refuses exemplars that are not of one kind, or are too many.

        Raises:
            ValueError: With what differs.
        """
        for label in self.labels_with_exemplars():
            self.check_images(self._images[label].image_spec)
        quotas = self.quotas(len(self.labels_with_exemplars()))
        if len(self) > sum(quotas):
            raise ValueError(
                f"{len(self)} exemplars are more than the {sum(quotas)} that "
                f"capacity={self.capacity}, per_class={self.per_class} allow."
            )

    def save(self, directory: PathLike) -> None:
        """Writes the memory into one file of a folder, whole or not at all.

        Args:
            directory: A folder that is new, empty, or holds a memory, which is
                replaced; other files beside a memory stay as they are.

        Raises:
            FileExistsError: If it holds anything else.
            OSError: If it cannot be written; a memory in it is whole.
        """
        folder_format.write(directory, self)

    @classmethod
    def load(
        cls,
        directory: PathLike,
        selection: Selection | None = None,
        storage: Storage | None = None,
    ) -> "ExemplarMemory":
        """Reads a memory written by `save`; no code in it is executed.

        Args:
            directory: The folder.
            selection: Needed only if the memory was saved with a function that
                is not registered with `keras.saving`.
            storage: In place of the saved one, whose folder is not kept.

        Raises:
            FileNotFoundError: If the folder or its file is missing.
            ValueError: If the file is damaged, or says what cannot be; it is
                named.
        """
        path = folder_format.memory_file(directory)
        try:
            settings, images = folder_format.read(path, selection, storage)
            memory = cls(**settings)
            memory.restore(images)
            memory.check_stored()
        except Exception as error:  # of many kinds, for damage in many places
            raise ValueError(
                f"{path} is damaged, or cannot be loaded: {error}"
            ) from error
        return memory


def _checked_count(count) -> int:
    if not isinstance(count, numbers.Integral) or count < 1:
        raise ValueError(
            f"The memory's size is {count!r}; expected an integer of 1 or more "
            "images."
        )
    return int(count)


def _is_nothing(images, labels) -> bool:
    """Returns whether no image was passed."""
    if isinstance(images, tf.data.Dataset):
        return labels is None and not any(True for _ in images.take(1))
    return labels is not None and not len(labels) and not len(images)
