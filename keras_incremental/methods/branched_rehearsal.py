"""A branch for each task, trained with exemplars and distillation."""

import dataclasses
import logging

import numpy as np

from keras_incremental.closed_form import LDA, Sums
from keras_incremental.graphs import check_cloneable, clone_network
from keras_incremental.methods.eeil import EEIL
from keras_incremental.methods.method import check_count
from keras_incremental.methods.phase import ClosedFormPhase, Phase
from keras_incremental.methods.task_step import TaskStep
from keras_incremental.methods.weight_aligning import aligning_phases
from keras_incremental.networks import (
    Network,
    OneHeadNetwork,
    SingleNetwork,
    TrainedTrunkNetwork,
)
from keras_incremental.objectives import (
    Auxiliary,
    BalancedSoftmax,
    Objective,
    OldClassifier,
)
from keras_incremental.score_rules import BesideClosedForm, ClosedForm

_FEW_CLASSES = 10
_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class BranchedRehearsal(EEIL):
    """EEIL on branches: old ones are frozen, one classifier sees all features.

    The first `free_tasks` tasks train the whole network, as `EEIL`. Each later
    one adds a branch, a clone of the newest one's layers after the model's
    branch point (`IncrementalClassifier(backbone, branch_at=...)`), and trains
    it, and the classifier on the features of all branches, on new data and all
    exemplars. Loss: `EEIL`'s, with balanced softmax for its classification,
    plus an auxiliary cross-entropy on the newest features alone, whose
    classifier is dropped after the task (`objectives.Auxiliary`).

    The trunk, the layers before the branch point, is

    - **frozen** (the default): its outputs and old branches' features are
      computed once for each image and exemplar, and cached; an epoch costs the
      newest branch alone. The teacher is the old classifier on the old
      features, and costs nothing (`objectives.OldClassifier`). A trunk that has
      seen few classes, and is not pretrained, costs accuracy.
    - **trained on** (`train_trunk=True`): old branches keep their weights, but
      their features change. All of them run in every step, and so does the
      teacher, the network before the task. The network is traced anew for each
      branch.

    Branches earn their bytes where the trunk is pretrained or has seen many
    classes, or where a task must be quick. A network without branches,
    trained by `Replay`, is often as accurate from scratch.

    Source: MEMO (Zhou et al., ICLR 2023, arXiv:2205.13218), with EEIL's
    distillation; `branch_at=0` is DER (Yan et al., CVPR 2021,
    arXiv:2103.16788). The authors start the new features' weights for old
    classes at random; here at 0, so that growth changes no logit.

    Args:
        finetune_epochs: epochs of `EEIL`'s second stage, on the newest branch
            and the classifier; balanced softmax needs none.
        classification: the objective beside the distillation, with one term.
        align: whether the new classes' weights are aligned at the end, as by
            `WeightAligning`.
        auxiliary_weight: of the auxiliary loss.
        free_tasks: so many tasks train the whole network, but for a trunk that
            is frozen from the start. With 0 the first task adds a branch as
            well, and the base stays as it was: for a pretrained one.
        train_trunk: whether the trunk is trained with every branch.
        clone_base: whether a branch is a clone of the base's own layers, not
            of the newest branch's. That is better where they are pretrained.
        most_branches: after so many the newest one goes on learning, with the
            network before the task as teacher; `None` adds one in each task.
        closed_form_weight: above 0, a closed form of the base's own features
            decides as well, with this weight (`BesideClosedForm`). Its sums
            over all images are kept; no image is. With `free_tasks=0` alone,
            since these features must never change.

    Raises:
        ValueError: for a value out of range.

    >>> BranchedRehearsal(free_tasks=3).temperature
    2.0
    """

    finetune_epochs: int = 0
    classification: Objective = dataclasses.field(
        default_factory=BalancedSoftmax
    )
    align: bool = False
    auxiliary_weight: float = 1.0
    free_tasks: int = 1
    train_trunk: bool = False
    clone_base: bool = False
    most_branches: int | None = None
    closed_form_weight: float = 0.0
    needs_branch_point = True

    def __post_init__(self):
        super().__post_init__()
        check_count("free_tasks", self.free_tasks, 0)
        if self.most_branches is not None:
            check_count("most_branches", self.most_branches, 1)
        for name in ("auxiliary_weight", "closed_form_weight"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"{name}={getattr(self, name)}; expected 0 or more."
                )
        if self.closed_form_weight and (self.free_tasks or self.train_trunk):
            raise ValueError(
                f"closed_form_weight={self.closed_form_weight} needs a base "
                "that is never trained: free_tasks=0 and train_trunk=False."
            )

    def check(self, model, memory):
        super().check(model, memory)
        network = self._branching(model.network)
        check_cloneable(network.tail)
        has_sums = isinstance(model.score_rule, BesideClosedForm)
        if self.closed_form_weight and model.num_classes and not has_sums:
            raise ValueError(
                f"closed_form_weight={self.closed_form_weight}, and there are "
                f"no sums of the {model.num_classes} classes that the model "
                "knows. Pass it from the first task on, or leave it out."
            )
        if self.train_trunk and network.branch_at == 0.0:
            raise ValueError(
                "train_trunk=True, and the model has branch_at=0: no layer "
                "comes before the branches. Leave train_trunk out, or build "
                "the model with another branch point."
            )

    def grow(self, task: TaskStep) -> None:
        model, new = task.model, len(task.new_labels)
        branches = len(getattr(model.network, "branches", ()))
        has_room = self.most_branches is None or branches < self.most_branches
        if new and has_room and len(model.heads) >= self.free_tasks:
            if isinstance(model.network, SingleNetwork) and self.free_tasks:
                self._warn_of_small_base(task)
            network = self._branching(model.network)
            source = network.networks[0 if self.clone_base else -1]
            network = network.with_branch(clone_network(source))
            network.add_auxiliary(new + 1)
            model.network = network
        super().grow(task)

    def phases(self, task: TaskStep) -> list[Phase | ClosedFormPhase]:
        phases = super().phases(task)
        if isinstance(task.model.network, OneHeadNetwork):
            phases = [
                dataclasses.replace(
                    phase,
                    objective=self._on_branches(task, phase.objective, index),
                )
                for index, phase in enumerate(phases)
            ]
        aligning = aligning_phases(task) if self.align else []
        return [*phases, *aligning]

    def finish(self, task: TaskStep) -> None:
        model = task.model
        if isinstance(model.network, OneHeadNetwork):
            model.network.auxiliary.clear()
            with model.distribute_strategy.scope():
                model.follow_network()
                # The new optimizer is saved with the model.
                model.optimizer.build(model.trainable_variables)

        if self.closed_form_weight:
            model.score_rule = self._beside_closed_form(task)

    def _beside_closed_form(self, task: TaskStep) -> BesideClosedForm:
        """Returns the rule with the sums of the task's images."""
        model, rule = task.model, task.model.score_rule
        dim = model.network.tail.output_shape[-1]
        if isinstance(rule, BesideClosedForm):
            old = rule.closed_form
        else:
            old = ClosedForm(LDA(), dim, Sums.none(dim, by_class=False))
        found = old.plus(
            task.features(task.samples)[:, :dim],
            model.classes.to_units(task.samples.labels),
            model.num_classes,
        )
        return BesideClosedForm(found, self.closed_form_weight)

    def _branching(self, network: Network) -> OneHeadNetwork:
        kind = TrainedTrunkNetwork if self.train_trunk else OneHeadNetwork
        return kind.on(network)

    def _on_branches(
        self, task: TaskStep, objective: Objective, index: int
    ) -> Objective:
        """Returns the objective of a stage in which a new branch is trained.

        Balanced fine-tuning, the second one, has no auxiliary loss, and
        distils the new head as well, which takes a teacher network.
        """
        network, old = task.model.network, task.known_classes
        if not network.auxiliary:  # there was no new class
            return objective
        if network.has_frozen_part and not index:
            objective = OldClassifier(objective, *_old_classifier(network))
        weight = 0.0 if index else self.auxiliary_weight
        return Auxiliary(objective, network.auxiliary[0], old, weight)

    def _warn_of_small_base(self, task: TaskStep) -> None:
        network, known = task.model.network, task.known_classes
        freezes = not self.train_trunk and network.branch_at != 0.0
        if freezes and known < _FEW_CLASSES:
            _logger.warning(
                "The layers before %r are frozen from now on, and the model "
                "has learned %d classes. Unless they are pretrained, they have "
                "seen too little for later tasks: train them for more tasks "
                "first with BranchedRehearsal(free_tasks=...), or go on "
                "training them with train_trunk=True.",
                network.branch_at,
                known,
            )


def _old_classifier(network: OneHeadNetwork) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel and bias of the old heads on the old features."""
    features = network.feature_dim - network.networks[-1].output_shape[-1]
    heads = [(np.zeros((network.feature_dim, 0)), np.zeros(0))]
    heads += map(network.head_weights, range(len(network.heads) - 1))
    kernels, biases = zip(*heads, strict=True)
    return np.concatenate(kernels, 1)[:features], np.concatenate(biases)
