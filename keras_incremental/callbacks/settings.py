"""What tells one run, and one task, from another."""

import dataclasses
import hashlib
import json

import numpy as np

from keras_incremental.exemplars import storage_record
from keras_incremental.samples import Samples


def data_of(samples: Samples, epochs: int, batch_size: int) -> dict:
    """Returns what tells one task's data and options from another's."""
    labels = json.dumps(samples.labels.tolist())
    return {
        "samples": len(samples),
        "labels": hashlib.sha256(labels.encode()).hexdigest()[:16],
        "epochs": int(epochs),
        "batch_size": int(batch_size),
    }


def settings_of(model, memory, method, augment, seed: int) -> dict:
    """Returns what tells one run from another, as JSON types."""
    budget = None
    if memory is not None:
        budget = {
            "capacity": memory.capacity,
            "per_class": memory.per_class,
            "selection": _described(memory.selection),
            "seed": memory.seed,
            "storage": storage_record(memory.storage),
        }
    shapes = [tuple(weight.shape) for weight in model.backbone.weights]
    return json.loads(
        json.dumps(
            {
                "method": _described(method),
                "memory": budget,
                "augment": _described(augment),
                "seed": seed,
                "backbone": [model.backbone.name, len(shapes)],
                "backbone_shapes": hashlib.sha256(
                    repr(shapes).encode()
                ).hexdigest()[:16],
                "branch_at": model.branch_at,
            }
        )
    )


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
    if isinstance(item, (list, tuple, np.ndarray)):
        return [_described(part) for part in item]
    return getattr(item, "__qualname__", type(item).__qualname__)
