"""What changes from epoch to epoch: learning rate and gradient noise."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class StepDecay:
    """A learning rate divided by a constant every few epochs.

    `factor ** (epoch // every)`. Source: EEIL, section 5.1: divided by 10
    every 10 epochs, in both stages.

    Args:
        every: epochs, 1 or more.
        factor: above 0.
        at: the epochs, counted from 0, from which on the rate is multiplied
            once more; in place of `every`.

    >>> StepDecay(every=10, factor=0.1)(25)
    0.010000000000000002
    >>> [StepDecay(at=(49, 63), factor=0.2)(epoch) for epoch in (48, 49)]
    [1.0, 0.2]
    """

    every: int = 10
    factor: float = 0.1
    at: tuple[int, ...] | None = None

    def __post_init__(self):
        if self.every < 1 or self.factor <= 0 or min(self.at or [1]) < 1:
            raise ValueError(
                f"{self}: expected every >= 1 epoch, factor > 0, and epochs "
                "of 1 or more."
            )

    def __call__(self, epoch: int) -> float:
        if self.at is None:
            return self.factor ** (epoch // self.every)
        return self.factor ** sum(epoch >= start for start in self.at)


@dataclasses.dataclass(frozen=True)
class GradientNoise:
    """Gaussian noise on the gradients that fades from epoch to epoch.

    `eta / (1 + epoch)^gamma`, epochs counted from 1 through both stages, in the
    first task too.

    Source: Neelakantan et al. 2015 (arXiv:1511.06807), Eq. 1, as used in
    EEIL, section 5.1. The text calls the value a variance; the authors' code
    takes it as a standard deviation and adds the noise to the gradient
    **summed** over the batch (`cnn_train_dag_exemplars.m:367`), so that the
    mean gradient sees `1 / batch_size` of it. Added to the mean gradient it
    destroys training, as users of other libraries report.

    Args:
        eta: the value before the first epoch.
        gamma: how fast it fades.
        is_variance: as in the text; `False` as in the authors' code.
        added_to_sum: the noise belongs to the sum over the batch; `False`
            adds it to the mean gradient.

    >>> GradientNoise(gamma=1, is_variance=False).stddev(1, batch_size=100)
    0.0015
    """

    eta: float = 0.3
    gamma: float = 0.55
    is_variance: bool = True
    added_to_sum: bool = True

    def stddev(self, epoch: int, batch_size: int) -> float:
        """Returns the standard deviation seen by the batch-mean gradient.

        Args:
            epoch: counted from 1.
            batch_size: images per batch.
        """
        value = self.eta / (1 + epoch) ** self.gamma
        if self.is_variance:
            value **= 0.5
        return value / batch_size if self.added_to_sum else value
