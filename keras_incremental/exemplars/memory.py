"""The exemplar memory: a few ranked images of each class seen so far."""

import numbers
from collections.abc import Callable, Iterable, Mapping

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.exemplars import folder_format
from keras_incremental.exemplars.budget import Budget
from keras_incremental.exemplars.class_exemplars import ClassExemplars
from keras_incremental.exemplars.codecs import (
    RawStorage,
    Storage,
    recorded_storage,
    storage_record,
)
from keras_incremental.exemplars.ranking import Ranking, Share, gather
from keras_incremental.exemplars.selection import (
    check_features,
    herding_order,
    nearest_to_mean_order,
    random_order,
)
from keras_incremental.labels import as_label, distinct_in_order
from keras_incremental.samples import Samples, read_samples

Selection = Callable[[np.ndarray, int, object], np.ndarray]
Extract = Callable[[tf.data.Dataset], np.ndarray]
_RAW = RawStorage()

for _order in (herding_order, random_order, nearest_to_mean_order):
    keras.saving.register_keras_serializable("keras_incremental")(_order)


class ExemplarMemory:
    """Keeps a ranked list of images for each class, within a budget.

    With `capacity=K`, each of `C` classes has a quota of `floor(K / C)`, and
    the `K mod C` images left over go to the classes that came first: the
    total never exceeds K. With `per_class=m`, each class has a quota of m.
    With `budget=B` bytes, what is stored never exceeds B: where all images
    take the same number of bytes, s, this is a capacity of `floor(B / s)`;
    where they do not, as in JPEG, each class has a share of `floor(B / C)`
    bytes and keeps the longest head of its ranking that fits into it.
    A class is ranked once, when it is new; when its quota shrinks, the images
    ranked last are dropped. A class with fewer images than its quota keeps
    them all. If more data of a known class arrives, its stored exemplars and
    the new images are ranked again together. A class may be known of which
    there is no image: it has no share in the budget until one arrives.

    Features of new images are computed before they are encoded, those of
    exemplars after they are decoded.

    Source: EEIL (Castro et al., ECCV 2018), section 3.2. The authors' code
    loses the rank (`build_exemplars_set.m`); the text keeps it, and so does
    this class.

    Args:
        capacity: images in all, K. Give this, `per_class` or `budget`.
        per_class: images per class, m.
        budget: bytes in all as they are stored, B: an integer, or a text such
            as "50MB" or "64MiB" (`parse_bytes`).
        storage: how images are kept: `RawStorage()`, `JpegStorage()`,
            `PngStorage()` or `DiskStorage()` of `keras_incremental.exemplars`;
            each says how much RAM it takes.
        selection: function `(features, count, seed) -> indices`, best first;
            `herding_order`, `random_order`, `nearest_to_mean_order`, or yours.
        seed: for selections that draw at random.

    Raises:
        ValueError: unless exactly one budget is given, 1 or more.
        TypeError: if `selection` is not callable, or `storage` is none.

    >>> ExemplarMemory(capacity=10).quotas(3)
    [4, 3, 3]
    >>> tiny = tf.TensorSpec((10, 10, 1), "uint8")
    >>> ExemplarMemory(budget="1kB").quotas(3, tiny)
    [4, 3, 3]
    """

    def __init__(
        self,
        capacity: int | None = None,
        per_class: int | None = None,
        *,
        budget: int | str | None = None,
        storage: Storage = _RAW,
        selection: Selection = herding_order,
        seed: int = 0,
    ):
        self._budget = Budget(capacity, per_class, budget)
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
        if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
            raise TypeError(f"seed={seed!r}; expected an integer.")
        self.storage = storage
        self.selection, self.seed = selection, int(seed)
        self._images: dict[int | str, ClassExemplars] = {}

    def __len__(self):
        return sum(len(images) for images in self._images.values())

    @property
    def capacity(self) -> int | None:
        """Images in all at most, if that is the budget."""
        return self._budget.capacity

    @property
    def per_class(self) -> int | None:
        """Images of each class at most, if that is the budget."""
        return self._budget.per_class

    @property
    def budget(self) -> int | None:
        """Bytes in all at most, if that is the budget."""
        return self._budget.size

    def __contains__(self, label):
        return label in self._images

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
        for label in self.labels_with_exemplars():
            return self._images[label].image_spec
        return None

    def labels_with_exemplars(self) -> list[int | str]:
        """Returns the classes that have exemplars, in order of arrival."""
        return [label for label, images in self._images.items() if len(images)]

    def labels_without_exemplars(self, labels: Iterable) -> list[int | str]:
        """Returns those of `labels` that have no exemplar.

        >>> ExemplarMemory(10).labels_without_exemplars([40, 7])
        [40, 7]
        """
        filled = set(self.labels_with_exemplars())
        return [label for label in labels if label not in filled]

    def images(self, label) -> np.ndarray:
        """Returns a class' exemplars, `(count, h, w, c)`, best first.

        They are decoded, if they are stored so; `stored` is cheaper.

        Raises:
            KeyError: if the memory has no such class.
        """
        label = as_label(label)
        if label not in self._images:
            raise KeyError(
                f"The memory holds no class {label!r}; it holds "
                f"{self.labels[:10]} ({len(self.labels)} in all)."
            )
        return self._images[label].decoded()

    def stored(self) -> dict[int | str, ClassExemplars]:
        """Returns all exemplars as they are stored, by label; `restore` them.

        Nothing is copied: stored images never change.
        """
        return dict(self._images)

    def quotas(
        self, num_classes: int, image_spec: tf.TensorSpec | None = None
    ) -> list[int]:
        """Returns how many images each of `num_classes` classes may keep.

        Args:
            num_classes: that share the budget.
            image_spec: of the images, for a budget in bytes while the memory
                is empty.

        Raises:
            ValueError: if the capacity is below one image for each class, or
                a budget in bytes is no number of images.
        """
        return self._budget.quotas(num_classes, self._image_bytes(image_spec))

    def quota_per_class(self) -> int:
        """Returns how many images a class' share holds now, 0 while empty.

        With a budget in bytes and images of different sizes, it is as many as
        the class with the most images has.
        """
        filled = self.labels_with_exemplars()
        if self._sizes_differ(None):
            return max((len(self._images[k]) for k in filled), default=0)
        return min(self.quotas(len(filled)), default=0) if filled else 0

    def samples(self) -> Samples:
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
        rows = np.concatenate([part.rows for part in self._images.values()])
        return self.storage.samples(rows, self.image_spec, labels)

    def dataset(self) -> tf.data.Dataset:
        """Returns the exemplars as an unbatched dataset of (image, label).

        Images are as they were given to `fit`, but for the losses of JPEG;
        labels are the user's.

        Raises:
            ValueError: while the memory is empty.
        """
        samples = self.samples()
        labels = tf.data.Dataset.from_tensor_slices(samples.labels)
        return tf.data.Dataset.zip(samples.images(), labels)

    def rank(
        self,
        samples: Samples,
        extract: Extract,
        counts: Mapping,
        features: np.ndarray | None = None,
    ) -> dict[int | str, ClassExemplars]:
        """Ranks the images of the classes in `samples`; keeps nothing.

        The exemplars that the memory already has of a class compete with the
        new images.

        Args:
            samples: new data.
            extract: maps a dataset of single images to `(samples, dim)`
                features.
            counts: how many images to choose, by label.
            features: `(samples, dim)` of `samples`, where they are at hand.

        Returns:
            the chosen images of each label in `samples`, best first, as they
            would be stored.

        Raises:
            ValueError: for features that do not fit the images, or are not
                finite.
        """
        shares = {label: Share(images=counts[label]) for label in counts}
        return self._rank(samples, extract, shares, features)

    def _rank(self, samples, extract, shares, features):
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
        rankings, spec = {}, _definite_spec(samples)
        for label in arriving:
            index = samples.of_label(label)
            old = self._images.get(label, ())
            candidates = self._with_exemplars(old, features[index], extract)
            count = min(shares[label].images, len(candidates))
            seed = (self.seed, position[label])
            order = self.selection(candidates, count, seed)
            rankings[label] = Ranking(
                np.asarray(order, int) - len(old),
                index,
                getattr(old, "rows", ()),
                lambda rows, share=shares[label]: share.fitting(
                    self.storage.sizes(rows, spec)
                ),
            )
        gather(rankings.values(), samples, self.storage.encode)
        return {
            # Popped: a class' single rows are freed once they are joined.
            label: ClassExemplars.of_rows(
                self.storage, spec, rankings.pop(label).rows()
            )
            for label in arriving
        }

    def _with_exemplars(self, old, features, extract) -> np.ndarray:
        """Returns the features of a class' exemplars, then of its new data."""
        if not len(old):
            return features
        exemplars = self.storage.samples(
            old.rows, old.image_spec, np.zeros(len(old), int)
        )
        return np.concatenate([extract(exemplars.images()), features])

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
            extract: as for `rank`, with the network as it is now.
            features: as for `rank`.
            known: labels that the memory is to list even if there is no image
                of them.

        Raises:
            ValueError: if the budget is too small for the classes, or the
                images are of another shape or dtype than the stored ones.
        """
        self.check_images(samples.image_spec)
        arriving = distinct_in_order(samples.labels)
        classes = list(dict.fromkeys([*self.labels, *known, *arriving]))
        absent = set(self.labels_without_exemplars(classes)).difference(
            arriving
        )
        filled = [label for label in classes if label not in absent]
        shares = self._shares(filled, _definite_spec(samples))
        chosen = self._rank(samples, extract, shares, features)
        nothing = chosen[arriving[0]].head(0)
        merged = {**self._images, **dict.fromkeys(absent, nothing), **chosen}
        self._images = self._cut({k: merged[k] for k in classes}, shares)

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

    def check_room(
        self, labels: Iterable, image_spec: tf.TensorSpec | None = None
    ) -> None:
        """Refuses more classes than the budget has images for.

        Where the size of an image is not known before it is encoded, as with
        `JpegStorage`, a black image and the exemplars there are have to fit.

        Args:
            labels: of the images that are to come.
            image_spec: of these images.

        Raises:
            ValueError: if there is less than one image for each class.
        """
        classes = list(dict.fromkeys([*self.labels_with_exemplars(), *labels]))
        if self._sizes_differ(image_spec):
            shares = self._shares(classes, image_spec)
            self._cut(
                self._images,
                {k: shares[k] for k in self.labels_with_exemplars()},
            )
            self._check_smallest(len(classes), image_spec)
        elif self.budget is None or self._image_bytes(image_spec):
            self.quotas(len(classes), image_spec)

    def restore(self, images: Mapping) -> None:
        """Takes over the exemplars that a memory had `stored`."""
        self._images = dict(images)

    def check_images(self, spec: tf.TensorSpec) -> None:
        """Refuses images that cannot be stored, or not beside those that are.

        Raises:
            ValueError: with shapes and dtypes.
        """
        self.storage.check(spec)
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

        `memory.json` holds budget, storage, selection, labels and counts,
        `images.npy` the images as they are stored, class by class.
        """
        settings = {
            "capacity": self.capacity,
            "per_class": self.per_class,
            "budget": self.budget,
            "storage": storage_record(self.storage),
            "selection": keras.saving.get_registered_name(self.selection),
            "seed": self.seed,
        }
        folder_format.write(directory, settings, self._images)

    @classmethod
    def load(
        cls,
        directory,
        selection: Selection | None = None,
        storage: Storage | None = None,
    ):
        """Reads a memory written by `save`; nothing in it is executed.

        Args:
            directory: the folder.
            selection: needed only if the memory was saved with a function that
                is not registered with `keras.saving`.
            storage: to keep the images otherwise than they were saved; by
                default as they were saved, a `DiskStorage` in the system's
                temporary folder.

        Raises:
            FileNotFoundError: if the folder or a file in it is missing.
            ValueError: if a file is damaged or of a newer format; it is named.
        """
        settings = folder_format.read_settings(directory)
        if selection is None:
            selection = _registered_selection(settings["selection"])
        saved = recorded_storage(settings["storage"])
        memory = cls(
            settings["capacity"],
            settings["per_class"],
            budget=settings["budget"],
            storage=storage or saved,
            selection=selection,
            seed=settings["seed"],
        )
        for label, images in folder_format.read_images(directory, saved):
            if memory.storage != saved:
                memory.storage.check(images.image_spec)
                images = images.moved_to(memory.storage)
            memory._images[label] = images
        shares = memory._shares(
            memory.labels_with_exemplars(), memory.image_spec
        )
        memory._images = memory._cut(memory._images, shares)
        return memory

    def _known_spec(self, image_spec) -> tf.TensorSpec | None:
        """Returns the exemplars' spec, or the one given if it is definite."""
        given = image_spec
        if given is not None and not given.shape.is_fully_defined():
            given = None
        return self.image_spec or given

    def _image_bytes(self, image_spec) -> int | None:
        """Returns the size of every image, where it is known and the same."""
        spec = self._known_spec(image_spec)
        return None if spec is None else self.storage.image_bytes(spec)

    def _sizes_differ(self, image_spec) -> bool:
        """Whether the classes share bytes, and not a number of images."""
        spec = self._known_spec(image_spec)
        return (
            self.budget is not None
            and spec is not None
            and self.storage.image_bytes(spec) is None
        )

    def _check_smallest(self, num_classes, image_spec) -> None:
        """Refuses shares that even an image without content exceeds."""
        spec = self._known_spec(image_spec)
        black = np.zeros((1, *spec.shape), spec.dtype.as_numpy_dtype)
        smallest = len(self.storage.to_bytes(*self.storage.encode(black)))
        if self.budget < num_classes * smallest:
            raise ValueError(
                f"budget={self.budget} bytes is less than one exemplar for "
                f"each of {num_classes} classes: with {self.storage!r} even a "
                f"black image takes {smallest} bytes. Use budget > "
                f"{num_classes * smallest}."
            )

    def _shares(self, classes, image_spec) -> dict[int | str, Share]:
        """Returns the share of each class in the budget, by label."""
        return self._budget.shares(
            classes,
            self._image_bytes(image_spec),
            self._sizes_differ(image_spec),
        )

    def _cut(self, images, shares) -> dict[int | str, ClassExemplars]:
        """Returns stored images cut to their shares, by label.

        Raises:
            ValueError: if not one image of a class fits into its share.
        """
        cut = {}
        for label, ranked in images.items():
            share = shares.get(label, Share(images=0))
            cut[label] = ranked.head(share.fitting(ranked.sizes))
            if label in shares and not len(cut[label]):
                raise ValueError(
                    f"The best exemplar of class {label!r} does not fit into "
                    f"its share of budget={self.budget}, {share.size} bytes. "
                    "Use a larger budget."
                )
        return cut


def _definite_spec(samples: Samples) -> tf.TensorSpec:
    """Returns shape and dtype of the images, also where a dataset has none."""
    spec = samples.image_spec
    if spec.shape.is_fully_defined():
        return spec
    return tf.TensorSpec(samples.take([0]).shape[1:], spec.dtype)


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
