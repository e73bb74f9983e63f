"""What a model holds for training alone; never saved."""

import contextlib

import tensorflow as tf

from keras_incremental import distribution
from keras_incremental.models.batch_statistics import BatchStatistics
from keras_incremental.models.gradient_noise import NoiseSettings
from keras_incremental.models.teacher import Teacher
from keras_incremental.networks import Network
from keras_incremental.objectives import (
    CrossEntropy,
    Objective,
    TracedObjective,
)


class TrainingState:
    """Objective, teacher, noise and traces of a model; a plain object.

    Keras neither saves nor trains what is in it.

    Attributes:
        objective: the one in use.
        teacher: For objectives that need one, or `None`.
        noise: Settings of the gradient noise.
        train_traces, test_traces: how often each step has been traced.
        is_testing: whether the metrics are those of the test step.
        variables, trained_variables: of the network, when it was last looked
            at.
    """

    def __init__(self):
        self.objective = TracedObjective(CrossEntropy())
        self.teacher: Teacher | None = None
        self.noise = NoiseSettings()
        self.train_traces = self.test_traces = 0
        self.is_testing, self.is_distilling = False, False
        self.variables, self.trained_variables = [], []
        self._objectives = [self.objective]
        self._averaged, self._average = [], None
        self._statistics: BatchStatistics | None = None

    def use(self, objective: Objective) -> TracedObjective:
        """Sets the objective, with the trace of one that differs in numbers."""
        self.is_distilling = objective.distils
        for traced in self._objectives:
            if traced.fits(objective):
                traced.assign(objective)
                self.objective = traced
                return traced
        self.objective = TracedObjective(objective)
        self._objectives.append(self.objective)
        return self.objective

    def follow_network(self, network: Network) -> bool:
        """Makes the teacher equal to a network.

        Returns:
            Whether it was made anew, so that traces that call it are void.
        """
        if self.teacher is not None and self.teacher.follow(network):
            return False
        self.teacher = Teacher(network)
        return True

    def forget_traces(self) -> None:
        """Has every objective's train function traced again."""
        for traced in self._objectives:
            traced.train_function = None

    def average(self, strategy: tf.distribute.Strategy, variables) -> None:
        """Gives variables their mean over all replicas."""
        if strategy.num_replicas_in_sync == 1 or not variables:
            return
        identities = [id(variable) for variable in variables]
        if identities != self._averaged:
            self._averaged = identities
            self._average = distribution.averaging(strategy, variables)
        self._average()

    def statistics(
        self, network: Network, strategy: tf.distribute.Strategy
    ) -> BatchStatistics:
        """Returns what measures the network's statistics, traced once."""
        if self._statistics is None or not self._statistics.fits(network):
            self._statistics = BatchStatistics(network, strategy)
        return self._statistics

    @contextlib.contextmanager
    def testing(self):
        """While it is open, the metrics are those of the test step."""
        before, self.is_testing = self.is_testing, True
        try:
            yield
        finally:
            self.is_testing = before
