"""Keras' progress bar, headed by the phase."""

import contextlib

import keras

from keras_incremental.methods import Phase
from keras_incremental.progress import say, told_if_long

_TRACED = "tracing the train step"


class PhaseProgress(keras.callbacks.ProgbarLogger):
    """Heads each epoch by its phase: "balanced fine-tuning 3/30".

    Keras' own heading would be "Epoch 43/70". A first step that takes long is
    explained.
    """

    async_safe = True  # as Keras' own, or every batch would wait for its logs

    def __init__(self):
        super().__init__()
        self._phase, self._first_epoch = None, 0
        self._first_step = contextlib.ExitStack()

    def begin_phase(self, phase: Phase, first_epoch: int) -> None:
        """A phase begins after so many epochs of the run."""
        self._phase, self._first_epoch = phase, first_epoch

    def set_params(self, params):
        # Keras heads the epochs of a run of several.
        super().set_params({**params, "epochs": 1})

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        if self.verbose:
            done = epoch - self._first_epoch + 1
            say(f"{self._phase.name} {done}/{self._phase.epochs}")
            self._first_step.enter_context(told_if_long(_TRACED))

    def on_train_batch_end(self, batch, logs=None):
        self._first_step.close()
        super().on_train_batch_end(batch, logs)

    def on_train_end(self, logs=None):
        self._first_step.close()
        super().on_train_end(logs)
