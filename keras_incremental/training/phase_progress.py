"""Keras' progress bar, headed by the phase."""

import sys

import keras

from keras_incremental.methods import Phase


class PhaseProgress(keras.callbacks.ProgbarLogger):
    """Heads each epoch by its phase: "balanced fine-tuning 3/30".

    Keras' own heading would be "Epoch 43/70".
    """

    async_safe = True  # as Keras' own, or every batch would wait for its logs

    def __init__(self):
        super().__init__()
        self._phase, self._first_epoch = None, 0

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


def say(text: str) -> None:
    """Writes a line where Keras' progress bars are written."""
    if keras.config.is_interactive_logging_enabled():
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
