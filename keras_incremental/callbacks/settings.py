"""What tells one run, and one task, from another."""

import contextlib
import dataclasses
import hashlib
import json
import zlib
from collections.abc import Mapping

import keras
import numpy as np

from keras_incremental.callbacks.fit_options import batch_size_of
from keras_incremental.exemplars import storage_record
from keras_incremental.labels import distinct_in_order, label_names
from keras_incremental.models import FitRequest, batches_of
from keras_incremental.samples import Samples

_READ_AT_ONCE = 256
_PLACES = ("keras_history", "input_layers", "output_layers")


def data_of(samples: Samples, model, class_names, request: FitRequest) -> dict:
    """Returns what tells one task's data and options from another's."""
    weights = request.options.get("class_weight") or {}
    labels = json.dumps(samples.labels.tolist())
    return {
        "samples": len(samples),
        "labels": hashlib.sha256(labels.encode()).hexdigest()[:16],
        "images": digest_of(samples),
        "names": _names(samples, class_names),
        "epochs": int(request.epochs),
        "batch_size": int(batch_size_of(request, samples)),
        "optimizer": _described(model.optimizer),
        "loss": _described(model.loss),
        "class_weight": {str(k): float(w) for k, w in weights.items()},
    }


def digest_of(samples: Samples) -> str:
    """Returns the CRC-32 of all pixels, in their order, with their type.

    It is there to notice other images, not to withstand a forger: of all
    functions of the standard library it takes the least time, and a millisecond
    for 1,000 images of 32 x 32 x 3 pixels.

    >>> from keras_incremental.samples import ArraySamples
    >>> digest_of(ArraySamples(np.zeros((2, 4, 4, 1), "uint8"), np.arange(2)))
    'uint8 (4, 4, 1), CRC-32 190a55ad'
    """
    value = 0
    for rows in batches_of(np.arange(len(samples)), _READ_AT_ONCE):
        images = samples.take(rows)
        value = zlib.crc32(np.ascontiguousarray(images), value)
    spec = samples.image_spec
    return f"{spec.dtype.name} {tuple(spec.shape)}, CRC-32 {value:08x}"


def call_of(method) -> str:
    """Returns the call that makes a method, without what is as by default.

    >>> from keras_incremental.methods import EEIL
    >>> call_of(EEIL(temperature=3.0))
    'EEIL(temperature=3.0)'
    """
    if not dataclasses.is_dataclass(method):
        return repr(method)
    changed = [
        f"{field.name}={value!r}"
        for field in dataclasses.fields(method)
        if repr(value := getattr(method, field.name)) != repr(field.default)
    ]
    return f"{type(method).__name__}({', '.join(changed)})"


def settings_of(model, incremental) -> dict:
    """Returns what tells one run from another, as JSON types."""
    backbone, places = structure_of(model.backbone)
    structure = {
        "backbone": backbone,
        "branch_at": places.get(model.branch_at, model.branch_at),
        "not_decayed": _not_decayed(model.optimizer),
    }
    return json.loads(json.dumps(_arguments(incremental) | structure))


def logged_settings(
    model, incremental, request: FitRequest, samples: Samples
) -> dict:
    """Returns what a person wants to know of a run, as JSON types."""
    training = {
        "backbone": model.backbone.name,
        "branch_at": model.branch_at,
        "epochs": int(request.epochs),
        "batch_size": int(batch_size_of(request, samples)),
        "optimizer": _described(model.optimizer),
    }
    return json.loads(json.dumps(_arguments(incremental) | training))


def _arguments(incremental) -> dict:
    """Returns the arguments of an `IncrementalCallback`."""
    budget, memory = None, incremental.memory
    if memory is not None:
        budget = {
            "capacity": memory.capacity,
            "per_class": memory.per_class,
            "selection": _described(memory.selection),
            "seed": memory.seed,
            "storage": storage_record(memory.storage),
        }
    return {
        "method": _described(incremental.method),
        "memory": budget,
        "augment": _described(incremental.augment),
        "seed": incremental.seed,
        "measure_statistics": incremental.measure_statistics,
    }


def structure_of(network: keras.Model) -> tuple[object, dict[str, int]]:
    """Returns what a network computes, whatever its layers are named.

    Keras numbers the names of what is built again in one process.

    Returns:
        Its configuration, JSON types, in which a layer's place stands for its
        name, and the places by name. Where a layer has no configuration, the
        shapes of the weights.
    """
    places: dict[str, int] = {}
    try:
        config = {**network.get_config(), "name": None}
    except NotImplementedError:
        shapes = [list(weight.shape) for weight in network.weights]
        return {"weights": shapes}, places
    return _without_names(config, places), places


def _without_names(item, places: dict[str, int]):
    """Describes a configuration of Keras without the names of its objects."""

    def place(part):
        if isinstance(part, str):
            return places.setdefault(part, len(places))
        return part

    if isinstance(item, (list, tuple)):
        return [_without_names(part, places) for part in item]
    if not isinstance(item, Mapping):
        return _described(item)
    if str(item.get("class_name")).endswith("DTypePolicy"):
        return _described(item)  # its name is what it is
    if isinstance(name := item.get("name"), str):
        place(name)
    return {
        key: keras.tree.map_structure(place, value)
        if key in _PLACES
        else _without_names(value, places)
        for key, value in item.items()
        if key != "name"
    }


def _described(item):
    """A method, a schedule, a function or a plain value in JSON types."""
    if dataclasses.is_dataclass(item):
        fields = dataclasses.fields(item)
        return {
            "type": type(item).__name__,
            **{f.name: _described(getattr(item, f.name)) for f in fields},
        }
    if item is None or isinstance(item, (bool, int, float, str)):
        return item
    if isinstance(item, (np.ndarray, np.generic)):
        return _described(item.tolist())
    if isinstance(item, (list, tuple)):
        return [_described(part) for part in item]
    if isinstance(item, Mapping):
        return {str(key): _described(value) for key, value in item.items()}
    kind = getattr(item, "__qualname__", type(item).__qualname__)
    if isinstance(item, (keras.optimizers.Optimizer, keras.Loss)):
        return {"type": kind, **_without_names(item.get_config(), {})}
    return kind


def _names(samples: Samples, class_names) -> dict[str, str]:
    """Returns the names by label, where there is one for each."""
    labels = distinct_in_order(samples.labels)
    with contextlib.suppress(ValueError):  # told of where it is needed
        names = label_names(labels, class_names)
        return {str(k): name for k, name in zip(labels, names, strict=True)}
    return {}


def _not_decayed(optimizer: keras.optimizers.Optimizer) -> dict:
    """Returns what is left out of weight decay.

    Keras tells it nowhere but in private attributes.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    return {
        "names": None if pattern is None else pattern.pattern,
        "variables": len(getattr(optimizer, "_exclude_from_weight_decay", ())),
    }
