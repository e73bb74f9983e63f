"""What `IncrementalClassifier.fit` asks of an incremental callback."""

import abc
import dataclasses
from typing import Any


@dataclasses.dataclass(repr=False)
class FitRequest:
    """The arguments of one `fit`, as the user gave them.

    `options` holds those of Keras' `fit` that have no field of their own.
    """

    x: Any
    y: Any
    batch_size: int | None
    epochs: int
    verbose: Any
    callbacks: list
    options: dict[str, Any]


class IncrementalFit(abc.ABC):
    """Takes over a whole `fit` when it is among its callbacks.

    Keras builds the optimizer and the train function before it calls any
    callback, so growth cannot wait for `on_train_begin`.
    """

    @property
    def needs_optimizer(self) -> bool:
        """Whether the model has to be compiled."""
        return True

    @abc.abstractmethod
    def run_fit(self, model, request: FitRequest):
        """Teaches `model` what `request` brings; returns a Keras `History`."""
