"""What happens at the start and the end of each epoch of a phase."""

import keras

from keras_incremental.methods import Phase
from keras_incremental.training.clock import Clock
from keras_incremental.training.finite import check_finite
from keras_incremental.training.learning_rate import LearningRate


class PhaseCallback(keras.callbacks.Callback):
    """Sets learning rate and noise for each epoch, and keeps the time.

    It comes before all other callbacks, so that none of them gets a model that
    is not finite.

    Args:
        rate: The learning rate of the model's optimizer.
        clock: The clock of the task.
        epochs: finished epochs of the task, where it goes on after a kill.
    """

    def __init__(self, rate: LearningRate, clock: Clock, epochs: int = 0):
        super().__init__()
        self.epochs = epochs
        self._rate, self._clock = rate, clock
        self._phase, self._first_epoch = None, 0

    def begin_phase(self, phase: Phase, first_epoch: int) -> None:
        """A phase begins after so many epochs of the run."""
        self._phase, self._first_epoch = phase, first_epoch

    def on_epoch_begin(self, epoch, logs=None):
        self._clock.begin_epoch()
        epoch -= self._first_epoch
        self._rate.apply(self._phase.learning_rate_factor(epoch))
        self.model.gradient_noise.stddev.assign(self._phase.noise_stddev(epoch))

    def on_epoch_end(self, epoch, logs=None):
        self.model.average_statistics()
        self._clock.end_epoch()
        done = epoch + 1 - self._first_epoch
        where = f"phase {self._phase.name!r}, epoch {done}"
        check_finite(self.model, where, (logs or {}).get("loss", 0.0))
        self.epochs += 1
        if logs is not None:
            logs["learning_rate"] = self._rate.now

    def on_test_begin(self, logs=None):
        self._clock.begin_test()

    def on_test_end(self, logs=None):
        self._clock.end_test()
