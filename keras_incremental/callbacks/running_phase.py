"""A phase of a step while it is trained."""

from keras_incremental.callbacks.learning_rate import LearningRate
from keras_incremental.methods import Phase
from keras_incremental.models import IncrementalClassifier


class RunningPhase:
    """Sets model, optimizer and learning rate for a phase.

    Args:
        phase: the plan.
        first_epoch: epochs of the run before it.
        model: the classifier in training.
        rate: of its optimizer.
    """

    def __init__(
        self,
        phase: Phase,
        first_epoch: int,
        model: IncrementalClassifier,
        rate: LearningRate,
    ):
        self.phase, self.first_epoch, self.rate = phase, first_epoch, rate
        self._model, self._settings = model, model.training_settings

    def begin(self, seed: tuple[int, int, int]) -> None:
        """Moves the teacher and starts the optimizer anew.

        Args:
            seed: (seed, heads, phase), for the gradient noise.
        """
        if self.phase.distilled_units:
            self._model.update_teacher()
        self._settings.distilled_units.assign(self.phase.distilled_units)
        self._settings.temperature.assign(self.phase.temperature)
        base, heads, index = seed
        self._settings.noise_seed.assign([base, heads * 256 + index])
        self._model.restart_optimizer()
        self.rate.restart()

    def begin_epoch(self, epoch: int) -> None:
        """Sets learning rate and noise for an epoch of the run."""
        epoch -= self.first_epoch
        self.rate.apply(self.phase.learning_rate_factor(epoch))
        self._settings.noise_stddev.assign(self.phase.noise_stddev(epoch))
