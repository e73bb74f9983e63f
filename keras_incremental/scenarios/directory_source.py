"""Images in a folder of class folders."""

import concurrent.futures
import os
import warnings

import numpy as np
import tensorflow as tf

from keras_incremental.progress import with_progress
from keras_incremental.scenarios.class_labels import check_same_classes, shown
from keras_incremental.scenarios.image_files import image_reader, is_image


class FileImages:
    """Image files of one split, decoded when they are read.

    Args:
        paths: `(images,)` text, path of each file.
        labels: `(images,)` int64.
        size: `(height, width)` in pixels.
        channels: 1 (grey) or 3 (RGB).
    """

    def __init__(self, paths, labels, size, channels):
        self.labels = labels
        self.image_shape = (*size, channels)
        self.dtype = tf.uint8
        self._paths, self._read_image = paths, image_reader(size, channels)

    def dataset(self, indices):
        """Returns the unbatched `(image, label)` pairs of `indices`."""
        files = (self._paths[indices], self.labels[indices])
        return tf.data.Dataset.from_tensor_slices(files).map(
            self._read, num_parallel_calls=tf.data.AUTOTUNE
        )

    def _read(self, path, label):
        # In Python, which alone can name the file in an error.
        image = tf.numpy_function(
            self._read_image, [path], self.dtype, stateful=False
        )
        return tf.ensure_shape(image, self.image_shape), label


def train_and_test(
    path, test_path, test_fraction, seed, size, channels, on_error
):
    """Returns the training and the test images of a folder.

    Args:
        path: folder with one sub-folder a class.
        test_path: folder of test images, or `None` to split `path`.
        test_fraction: see `split_folders`.
        seed: draws the split and the order of the training images.
        size: `(height, width)` in pixels.
        channels: 1 (grey) or 3 (RGB).
        on_error: see `ClassIncrementalScenario.from_directory`.

    Returns:
        Two `FileImages`, and the class names: the folder names by label.
    """
    if channels not in (1, 3):
        raise ValueError(
            f"channels={channels!r}; expected 3 for RGB or 1 for grey."
        )
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r}; expected 'raise' or 'skip'.")
    if test_path is None and not 0 < test_fraction < 1:
        raise ValueError(
            f"test_fraction={test_fraction}; expected a share between 0 and "
            "1, both excluded. For a test set of its own pass test_path."
        )
    readable = image_reader(size, channels) if on_error == "skip" else None
    train = class_folders(path, readable)
    if test_path is None:
        train, test = split_folders(train, test_fraction, seed)
    else:
        test = class_folders(test_path, readable)
        check_same_classes([*train], [*test])
    return (
        FileImages(*labelled_files(train, seed), size, channels),
        FileImages(*labelled_files(test), size, channels),
        list(train),
    )


def class_folders(path, reader=None):
    """Lists the images of each class folder of `path`.

    Hidden files and folders are ignored, and so are files beside the class
    folders. Every file's first bytes are read, so that a file that is no
    image is found now and not in the middle of training.

    Args:
        path: folder with one sub-folder a class.
        reader: of `image_reader`, to leave out all files that it cannot read,
            with a warning; `None` refuses files that are no images.

    Returns:
        Dict from folder name to its sorted file paths, sorted by name.

    Raises:
        OSError: `path` does not exist, or is a file.
        ValueError: no class folders, an empty one, a name that is not UTF-8,
            or a file in one of them that is not an image.
    """
    path = os.fspath(path)
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"There is no folder {path!r}; expected one that has a sub-folder "
            "for each class, named like the class, with its images inside."
        )
    names = [entry.name for entry in _visible(path) if entry.is_dir()]
    if not names:
        raise ValueError(
            f"{path!r} has no sub-folders; expected one for each class, "
            "named like the class, with its images inside."
        )
    folders = {name: _files(os.path.join(path, name)) for name in names}
    all_files = [file for files in folders.values() for file in files]
    if reader is None:
        _check_images(all_files)
        return folders
    skipped = _skipped(all_files, reader)
    folders = {
        name: [file for file in files if file not in skipped]
        for name, files in folders.items()
    }
    empty = [name for name, files in folders.items() if not files]
    if empty:
        raise ValueError(
            f"No image in the class folders {shown(empty)} can be read. Add "
            "images or remove the folders."
        )
    return folders


def split_folders(folders, test_fraction, seed):
    """Draws the test images of each class.

    A class's draw depends on the seed, its own name and its own files only,
    so a class folder that is added later changes no other class' split.

    Args:
        folders: dict of `class_folders`.
        test_fraction: share of each class' images, in (0, 1); rounded, at
            least one image and never all.
        seed: int >= 0.

    Returns:
        Two dicts like `folders`: training files and test files.

    Raises:
        ValueError: a class with only one image.
    """
    train, test = {}, {}
    for name, files in folders.items():
        if len(files) < 2:
            raise ValueError(
                f"The class folder {name!r} holds one image, which cannot be "
                "split into training and test. Add images or pass test_path."
            )
        rng = np.random.default_rng([seed, *name.encode("utf-8")])
        count = round(len(files) * test_fraction)
        count = min(max(count, 1), len(files) - 1)
        chosen = set(rng.permutation(len(files))[:count].tolist())
        test[name] = [f for i, f in enumerate(files) if i in chosen]
        train[name] = [f for i, f in enumerate(files) if i not in chosen]
    return train, test


def labelled_files(folders, seed=None):
    """Flattens class folders to paths and labels 0, 1, ... by folder order.

    Args:
        folders: dict from folder name to file paths.
        seed: shuffles the files, which are sorted by class otherwise.

    Returns:
        `(images,)` text paths and `(images,)` int64 labels.
    """
    counts = [len(files) for files in folders.values()]
    paths = np.array([file for files in folders.values() for file in files])
    labels = np.repeat(np.arange(len(counts), dtype="int64"), counts)
    if seed is None:
        return paths, labels
    order = np.random.default_rng(seed).permutation(len(paths))
    return paths[order], labels[order]


def _visible(path):
    with os.scandir(path) as entries:
        visible = [e for e in entries if not e.name.startswith(".")]
    for entry in visible:
        try:
            entry.path.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"The name {os.fsencode(entry.path)!r} is not UTF-8, which "
                "TensorFlow needs. Rename it, for example with convmv."
            ) from error
    return sorted(visible, key=lambda entry: entry.name)


def _files(folder):
    entries = _visible(folder)
    for entry in entries:
        if not (entry.is_dir() or entry.is_file()):
            raise ValueError(
                f"{entry.path!r} is no regular file, nor a link to one; "
                "expected images only. Remove it."
            )
        if entry.is_dir():
            raise ValueError(
                f"The class folder {folder!r} holds the folder "
                f"{entry.name!r}; expected images only. If {folder!r} is a "
                "split, pass it as path or test_path."
            )
    if not entries:
        raise ValueError(
            f"The class folder {folder!r} is empty. Add images or remove it."
        )
    return [entry.path for entry in entries]


def _by_file(function, files, title):
    """Calls a function with each file, several at a time; returns a dict."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        results = pool.map(function, files)
        shown_results = with_progress(results, len(files), title, "file")
        return dict(zip(files, shown_results, strict=True))


def _check_images(files):
    are_images = _by_file(is_image, files, "looking at files")
    wrong = [file for file, ok in are_images.items() if not ok]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(files)} files are not JPEG, PNG, GIF, BMP "
            f"or WebP images: {shown(wrong)}. Remove or convert them, or leave "
            'them out: from_directory(..., on_error="skip").'
        )


def _skipped(files, reader):
    """Returns the files that cannot be read, after a warning that lists them.

    All files are decoded for that.
    """

    def problem(file):
        try:
            reader(file)
        except ValueError as error:
            return str(error)
        return None

    found = _by_file(problem, files, "reading files")
    problems = {file: text for file, text in found.items() if text}
    if problems:
        warnings.warn(
            f"{len(problems)} of {len(files)} files are left out:\n"
            + "\n".join(problems.values()),
            stacklevel=2,
        )
    return set(problems)
