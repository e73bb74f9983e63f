"""A data set cut into tasks by class."""

import operator
import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from numpy.typing import ArrayLike

from keras_incremental._types import PathLike
from keras_incremental.labels import label_names
from keras_incremental.scenarios import (
    array_source,
    class_labels,
    directory_source,
    image_files,
    schedule,
    tfds_source,
)
from keras_incremental.scenarios.task import Task


class ClassIncrementalScenario:
    """A sequence of tasks, each bringing classes not seen before.

    Make one with `from_arrays`, `from_directory` or `from_tfds`. They share
    these arguments:

    - `classes_per_task`: an int (the last task is smaller if it does not
      divide the number of classes), or a list of ints, one a task, that adds
      up to the number of classes.
    - `class_order`: list of all labels in order of arrival; `None` draws
      `np.random.default_rng(seed).permutation(sorted labels)`.
    - `seed`: int >= 0.
    - `samples_per_class`: training images kept of each class, the first in
      data set order; `None` keeps all. Test images are all kept.
    - `class_names`: dict from label to name, or list indexed by label; `None`
      takes the data set's own names. A label without a name is named by its
      text.

    A scenario is iterable, has a length, and `scenario[i]` is task `i`.

    Attributes:
        name: name of the data set.
        seed: the seed.
        class_order: labels in order of arrival, Python ints or strings.
        class_names: dict from label to name, in order of arrival.
        image_shape: shape of one image.
        image_spec: its shape and dtype.

    Example:

    >>> import numpy as np
    >>> x, y = np.zeros((6, 8, 8, 1), "uint8"), np.array([40, 7, 3] * 2)
    >>> scenario = ClassIncrementalScenario.from_arrays(
    ...     x, y, x, y, classes_per_task=2, class_order=[7, 40, 3])
    >>> [(task.labels, len(task.train)) for task in scenario]
    [([7, 40], 4), ([3], 2)]
    """

    def __init__(
        self,
        train: Any,
        test: Any,
        class_schedule: schedule.ClassSchedule,
        *,
        name: str,
        class_names: Mapping | Sequence | None,
    ):
        """Cuts two image sources into tasks.

        Args:
            train: source of the training images. It has their `labels`,
                `image_shape` and `dtype`, and `dataset(indices)`, the unbatched
                `(image, label)` pairs of ascending indices.
            test: source of the test images, with the same classes.
            class_schedule: a `ClassSchedule`.
            name: name of the data set.
            class_names: a dict or list of names, or `None`.

        Raises:
            ValueError: classes that differ, or that the arguments do not fit.
        """
        class_labels.check_same_classes(train.labels, test.labels)
        self._train, self._test = train, test
        self._train_indices = class_labels.indices_by_label(
            train.labels, class_schedule.samples_per_class
        )
        self._test_indices = class_labels.indices_by_label(test.labels)
        self._tasks = class_schedule.tasks(list(self._train_indices))
        self.name = name
        self.seed = class_schedule.seed
        self.image_shape = train.image_shape
        self.image_spec = tf.TensorSpec(train.image_shape, train.dtype)
        self.class_order = [label for task in self._tasks for label in task]
        names = label_names(self.class_order, class_names)
        self.class_names = dict(zip(self.class_order, names, strict=True))

    @classmethod
    def from_arrays(
        cls,
        x_train: ArrayLike,
        y_train: ArrayLike,
        x_test: ArrayLike,
        y_test: ArrayLike,
        classes_per_task: int | Sequence[int],
        *,
        class_order: Sequence | None = None,
        seed: int = 0,
        samples_per_class: int | None = None,
        class_names: Mapping | Sequence | None = None,
    ) -> "ClassIncrementalScenario":
        """Makes a scenario of arrays in memory.

        Arguments that are not named here are those of the class.

        Args:
            x_train: `(images, height, width, channels)` training images of
                any numeric dtype; never converted.
            y_train: `(images,)` or `(images, 1)` labels: integers >= 0, in
                any order and with gaps, or strings.
            x_test: test images, of the same shape and dtype.
            y_test: their labels: the same classes.

        Returns:
            A `ClassIncrementalScenario` named `"arrays"`.

        Raises:
            TypeError: labels that are neither integers nor strings.
            ValueError: arrays that do not fit one another or the arguments.
        """
        class_schedule = schedule.ClassSchedule(
            classes_per_task, class_order, seed, samples_per_class
        )
        y_train = class_labels.as_labels(y_train, "y_train")
        y_test = class_labels.as_labels(y_test, "y_test")
        x_train = array_source.as_images(x_train, y_train, "x_train")
        x_test = array_source.as_images(x_test, y_test, "x_test")
        array_source.check_same_kind(x_train, x_test)
        return cls(
            array_source.ArrayImages(x_train, y_train),
            array_source.ArrayImages(x_test, y_test),
            class_schedule,
            name="arrays",
            class_names=class_names,
        )

    @classmethod
    def from_directory(
        cls,
        path: PathLike,
        image_size: int | tuple[int, int],
        *,
        classes_per_task: int | Sequence[int],
        test_fraction: float = 0.2,
        test_path: PathLike | None = None,
        channels: int = 3,
        on_error: str = "raise",
        class_order: Sequence | None = None,
        seed: int = 0,
        samples_per_class: int | None = None,
        class_names: Mapping | Sequence | None = None,
    ) -> "ClassIncrementalScenario":
        """Makes a scenario of a folder with one sub-folder a class.

        Labels are 0, 1, ... in sorted order of the folder names, which are
        the class names. Images (JPEG, PNG, BMP, GIF; WebP from TensorFlow
        2.20 on) are decoded when they are read, turned as their EXIF
        orientation says, resized until `image_size` is covered, and cropped at
        the centre, as uint8; a published model does the same. The order of the
        training images is drawn by `seed`.

        Arguments that are not named here are those of the class.

        Args:
            path: the folder.
            image_size: int or `(height, width)` in pixels.
            test_fraction: share of each class' images to test on, in (0, 1),
                drawn by `seed`; not used with `test_path`.
            test_path: folder of test images with the same class folders.
            channels: 3 (RGB) or 1 (grey).
            on_error: `"raise"`: a file that cannot be decoded is an error that
                names it, at the latest when it is read. `"skip"`: such files
                are left out, counted and listed by a warning; every file is
                decoded once for that, before anything else.

        Returns:
            A `ClassIncrementalScenario` named like the folder.

        Raises:
            FileNotFoundError: the folder does not exist.
            ValueError: no class folders, an empty one, or a file in one of
                them that is not an image.
        """
        class_schedule = schedule.ClassSchedule(
            classes_per_task, class_order, seed, samples_per_class
        )
        size = image_files.as_size(image_size)
        train, test, folders = directory_source.train_and_test(
            path, test_path, test_fraction, seed, size, channels, on_error
        )
        return cls(
            train,
            test,
            class_schedule,
            name=os.path.basename(os.path.abspath(path)),
            class_names=folders if class_names is None else class_names,
        )

    @classmethod
    def from_tfds(
        cls,
        name: str,
        data_dir: PathLike | None = None,
        *,
        classes_per_task: int | Sequence[int],
        download: bool = True,
        train_split: str = "train",
        test_split: str | None = None,
        image_size: int | tuple[int, int] | None = None,
        cache_bytes: int = 2**30,
        class_order: Sequence | None = None,
        seed: int = 0,
        samples_per_class: int | None = None,
        class_names: Mapping | Sequence | None = None,
    ) -> "ClassIncrementalScenario":
        """Makes a scenario of a TensorFlow Datasets (TFDS) data set.

        Data that is already prepared is used without asking the network. The
        labels of both splits are scanned once. A split whose decoded images
        fit into `cache_bytes` is loaded once (only the images in use);
        otherwise each pass reads the split's files and decodes the images of
        its classes.

        Arguments that are not named here are those of the class.

        Args:
            name: TFDS name, for example `"cifar100"`.
            data_dir: where prepared data is kept; `None` is TFDS's default.
            download: whether to download and prepare data that is not there.
            train_split: split to learn from, or a slice of one.
            test_split: split to test on; `None` takes `"test"` if there is
                one with labels, else `"validation"`, as in imagenet2012.
            image_size: int or `(height, width)` in pixels: resized until that
                is covered, cropped at the centre, same dtype. Needed where
                images vary in size; `None` keeps them as they are.
            cache_bytes: largest split to keep decoded in memory, in bytes.

        Returns:
            A `ClassIncrementalScenario` with the name of the data set.

        Raises:
            FileNotFoundError: the data is not prepared and cannot be had.
            ValueError: no such data set, or not one of labelled images.
        """
        class_schedule = schedule.ClassSchedule(
            classes_per_task, class_order, seed, samples_per_class
        )
        size = None if image_size is None else image_files.as_size(image_size)
        builder = tfds_source.open_builder(name, data_dir, download)
        test_split = test_split or tfds_source.choose_test_split(builder)
        if class_names is None:
            class_names = tfds_source.label_names(builder)
        return cls(
            tfds_source.TfdsImages(
                builder, train_split, size, cache_bytes, samples_per_class
            ),
            tfds_source.TfdsImages(builder, test_split, size, cache_bytes),
            class_schedule,
            name=builder.name,
            class_names=class_names,
        )

    @property
    def num_classes(self) -> int:
        """Number of classes of all tasks."""
        return len(self.class_order)

    def __len__(self):
        return len(self._tasks)

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index):
        if not -len(self) <= operator.index(index) < len(self):
            raise IndexError(
                f"There is no task {index}: the scenario has {len(self)} tasks."
            )
        index = range(len(self))[index]
        labels = self._tasks[index]
        seen = self.class_order[: sum(map(len, self._tasks[: index + 1]))]
        return Task(
            index=index,
            labels=list(labels),
            class_names=[self.class_names[label] for label in labels],
            train=self._pick(self._train, self._train_indices, labels),
            test=self._pick(self._test, self._test_indices, labels),
            seen_test=self._pick(self._test, self._test_indices, seen),
        )

    def __repr__(self):
        sizes = [len(labels) for labels in self._tasks]
        return (
            f"{type(self).__name__}(name={self.name!r}, seed={self.seed}, "
            f"num_classes={self.num_classes}, classes_per_task={sizes})"
        )

    @staticmethod
    def _pick(source, indices, labels):
        return source.dataset(class_labels.merged(indices, labels))
