"""A closed-form classifier on a frozen network, without exemplars."""

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_incremental.closed_form import LDA, Solver, Sums
from keras_incremental.graphs import check_cloneable, clone_network
from keras_incremental.methods.method import Method, check_count
from keras_incremental.methods.phase import ClosedFormPhase, Phase
from keras_incremental.methods.schedules import StepDecay
from keras_incremental.methods.task_step import TaskStep
from keras_incremental.networks import OneHeadNetwork
from keras_incremental.score_rules import ClosedForm


@dataclasses.dataclass(frozen=True)
class Analytic(Method):
    """Adds up features of images, and solves a linear classifier of them.

    The network is frozen, so it is at its best where it has seen much already:
    `keras_incremental.backbones.efficientnet_lite0(weights="imagenet")`. There
    is one pass over the images, without epochs and exemplars. What is kept are
    sums of features for each class (`keras_incremental.closed_form.Sums`), so
    any order and any split of the images give the same classifier as all of
    them at once; old classes can get more images at any time, and
    `model.forget_classes` takes a class out as if it had never been there.

    Source: ridge regression as in ACIL (Zhuang et al., NeurIPS 2022,
    arXiv:2205.14922); LDA as in SLDA (Hayes and Kanan, CVPRW 2020,
    arXiv:1909.01520); random features and the adaptation to the first task as
    in RanPAC (McDonnell et al., NeurIPS 2023, arXiv:2307.02251).

    Args:
        solver: what is solved: `closed_form.LDA()`, `Ridge()` or
            `NearestClassMean()`. LDA's prior makes it the nearest mean where
            images are few.
        random_features: how many random features, `relu(f R)`, take the place
            of the network's; 0 for none.
        random_seed: of `R`.
        forgettable: whether sums of squares are kept for each class, so that
            one can be forgotten; else one for all of them takes less room.
        adapt: whether the first task trains a clone of the layers behind the
            model's branch point, of which the features are used as well.
        learning_rate_factor: epoch -> factor on the compiled learning rate,
            while it is trained.

    Raises:
        ValueError: for a number below 0.

    >>> Analytic().needs_optimizer
    False
    """

    solver: Solver = dataclasses.field(default_factory=LDA)
    random_features: int = 0
    random_seed: int = 0
    forgettable: bool = True
    adapt: bool = False
    learning_rate_factor: Callable[[int], float] = StepDecay()

    def __post_init__(self):
        check_count("random_features", self.random_features, 0)

    @property
    def needs_optimizer(self):
        return self.adapt

    @property
    def needs_branch_point(self):
        return self.adapt

    def check(self, model, memory):
        super().check(model, memory)
        if self.adapt:
            check_cloneable(OneHeadNetwork.on(model.network).tail)

    def grow(self, task: TaskStep) -> None:
        model, rule = task.model, task.model.score_rule
        if self.adapt and not task.known_classes:
            network = OneHeadNetwork.on(model.network)
            model.network = network.with_branch(clone_network(network.tail))
        super().grow(task)
        if isinstance(rule, ClosedForm):  # its sums go on
            model.score_rule = rule

    def phases(self, task: TaskStep) -> list[Phase | ClosedFormPhase]:
        solve = ClosedFormPhase("closed form", lambda: self._solve(task))
        if not self.adapt or task.known_classes:
            return [solve]
        adaptation = Phase(
            name="adaptation to the first task",
            epochs=task.epochs,
            sources=lambda: [task.samples],
            learning_rate_factor=self.learning_rate_factor,
        )
        return [adaptation, solve]

    def _solve(self, task: TaskStep) -> None:
        model, features = task.model, task.features(task.samples)
        units = model.classes.to_units(task.samples.labels)
        rule = self._rule(model.score_rule, features.shape[1])
        counts = np.bincount(units, minlength=model.num_classes)
        counts[: len(rule.sums.counts)] += rule.sums.counts
        missing = [model.labels[unit] for unit in np.flatnonzero(counts == 0)]
        if missing:
            raise ValueError(
                f"Analytic has no sums of the classes {missing[:10]}, which "
                "the model was taught in another way. Pass images of them as "
                "well, in this fit or before it."
            )
        model.score_rule = rule.plus(features, units, model.num_classes)

    def _rule(self, rule, dim: int) -> ClosedForm:
        """Returns the rule whose sums go on."""
        if not isinstance(rule, ClosedForm):
            sums = Sums.none(self.random_features or dim, self.forgettable)
            return ClosedForm(
                self.solver, dim, sums, self.random_features, self.random_seed
            )
        same = (self.random_features, self.random_seed, self.forgettable)
        if same != (rule.random_features, rule.seed, rule.sums.by_class):
            raise ValueError(
                "The model's sums are of random_features="
                f"{rule.random_features}, random_seed={rule.seed} and "
                f"forgettable={rule.sums.by_class}, which cannot change; "
                f"{self} differs."
            )
        return rule.with_solver(self.solver)
