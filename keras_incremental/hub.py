"""Models in a folder with a card, and on the Hugging Face Hub.

    ki.hub.save_pretrained(model, "birds/", incremental)
    ki.hub.push(model, "me/birds", incremental)
    model = ki.hub.load_pretrained("me/birds")

The folder has the model's `.keras` file and `README.md`, the card that the Hub
shows. Exemplars are not among it: they are images.
"""

import dataclasses
import json
import pathlib
import tempfile
from collections.abc import Mapping

from keras_incremental._types import PathLike
from keras_incremental._version import __version__
from keras_incremental.callbacks import IncrementalCallback
from keras_incremental.callbacks.settings import call_of
from keras_incremental.files import atomic_write
from keras_incremental.model_files import load_model
from keras_incremental.models import IncrementalClassifier
from keras_incremental.optional import imported

__all__ = ["load_pretrained", "push", "save_pretrained"]

_MODEL, _CARD = "model.keras", "README.md"
_TAGS = ["keras_incremental", "class-incremental-learning"]
_TEXT = """\
# {name}

A Keras classifier of {count} classes, which has learned them in {tasks} by
keras_incremental {version}. It takes batches of raw images of shape {shape};
preprocessing is part of the model.

## How to load it

`pip install "keras_incremental[hub]"`, then

```python
import keras_incremental as ki

model = ki.hub.load_pretrained({name!r})
names = model.classify(images)
```

It learns more classes by `model.fit` with a `ki.IncrementalCallback`.

## Classes

In the order of the model's outputs:

```text
{classes}
```
"""
_TASK = """
## The last task

Method: `{method}`. Images and accuracy of each class, before and after:

```text
{report}
```
"""


def save_pretrained(
    model: IncrementalClassifier,
    folder: PathLike,
    incremental: IncrementalCallback | None = None,
    metadata: Mapping | None = None,
) -> pathlib.Path:
    """Writes a model and its card into a folder.

    Args:
        model: What is written to `model.keras`.
        folder: `str` or path-like; made if missing. A model and a card that are
            in it are replaced.
        incremental: The callback that has taught the model; its method, and the
            report of its last task, are in the card.
        metadata: For the head of the card, beside library, task, tags and
            classes, such as `{"license": "mit", "datasets": ["cifar10"]}`.

    Returns:
        `pathlib.Path(folder)`.

    Raises:
        TypeError: If the model is no `IncrementalClassifier`, or `metadata` is
            not of JSON types.

    >>> import keras_incremental as ki
    >>> model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
    >>> model.add_classes(["cat", "dog"])
    >>> folder = save_pretrained(model, tempfile.mkdtemp())
    >>> load_pretrained(folder).class_names
    ['cat', 'dog']
    """
    folder = pathlib.Path(folder)
    _save(model, folder, folder.resolve().name, incremental, metadata)
    return folder


def push(
    model: IncrementalClassifier,
    repo_id: str,
    incremental: IncrementalCallback | None = None,
    metadata: Mapping | None = None,
    private: bool | None = None,
) -> str:
    """Uploads what `save_pretrained` writes to the Hugging Face Hub.

    Log in first, by `hf auth login` or the environment variable `HF_TOKEN`.

    Args:
        model, incremental, metadata: As of `save_pretrained`.
        repo_id: `user/name`; the repository is made if there is none.
        private: Whether a new one is; by default as the Hub has it.

    Returns:
        The address of the commit.

    Raises:
        ImportError: If huggingface_hub is not installed.
    """
    api = _api()
    with tempfile.TemporaryDirectory() as folder:
        _save(model, pathlib.Path(folder), repo_id, incremental, metadata)
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=f"{model.num_classes} classes",
        )
    return str(commit.commit_url)


def load_pretrained(
    folder_or_repo: PathLike, revision: str | None = None
) -> IncrementalClassifier:
    """Loads a model from a folder, or from the Hugging Face Hub.

    All of the file is checked before any of it is used, and no code in it is
    executed (`keras_incremental.model_files.load_model`).

    Args:
        folder_or_repo: What `save_pretrained` or `push` was given.
        revision: Branch, tag or commit of the Hub's repository; by default
            `main`.

    Raises:
        FileNotFoundError: If the folder has no `model.keras`.
        ImportError: If it is no folder, and huggingface_hub is not installed.
        ValueError: If the file is damaged.
    """
    folder = pathlib.Path(folder_or_repo)
    if folder.is_dir():
        return load_model(folder / _MODEL)
    if folder.is_absolute() or len(folder.parts) > 2:
        raise FileNotFoundError(
            f"There is no folder {str(folder)!r}. Pass one that "
            'save_pretrained has written, or a repository, "name/model".'
        )
    file = _api().hf_hub_download(
        str(folder_or_repo), _MODEL, revision=revision
    )
    return load_model(file)


def _api():
    """Returns the client of the Hub, to which it names this package."""
    return imported("huggingface_hub", "hub").HfApi(
        library_name="keras_incremental", library_version=__version__
    )


def _save(model, folder: pathlib.Path, name: str, incremental, metadata):
    if not isinstance(model, IncrementalClassifier):
        raise TypeError(
            f"model is a {type(model).__name__}; expected an "
            "IncrementalClassifier, such as IncrementalClassifier."
            "from_classifier(model) makes of a Keras classifier."
        )
    card = _card(model, name, incremental, metadata or {})
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / _MODEL)
    with atomic_write(folder / _CARD, "w") as file:
        file.write(card)


def _card(model, name: str, incremental, metadata: Mapping) -> str:
    """Returns the text of a model card, with its metadata."""
    head = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": _TAGS,
        "classes": model.class_names,
        **metadata,
    }
    # JSON is YAML too.
    lines = [
        f"{key}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in head.items()
    ]
    tasks = len(model.heads)
    text = _TEXT.format(
        name=name,
        count=model.num_classes,
        tasks="one task" if tasks == 1 else f"{tasks} tasks",
        version=__version__,
        shape=tuple(model.input_shape[1:]),
        classes="\n".join(model.class_names),
    )
    if incremental is not None and incremental.reports:
        # Where it was published on this machine is nobody else's business.
        report = dataclasses.replace(
            incremental.reports[-1], published=None, not_published=None
        )
        text += _TASK.format(method=call_of(incremental.method), report=report)
    return "\n".join(["---", *lines, "---", "", text])
