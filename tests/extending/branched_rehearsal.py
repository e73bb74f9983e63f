"""Branches with one head on all features, exemplars and distillation."""

import dataclasses

import keras_incremental as ki


@dataclasses.dataclass(frozen=True)
class SimpleBranchedRehearsal(ki.Method):
    """MEMO (Zhou et al., ICLR 2023) in its simplest form."""

    needs_memory = True
    needs_branch_point = True

    def grow(self, task):
        model = task.model
        if task.known_classes:
            network = ki.networks.OneHeadNetwork.on(model.network)
            clone = ki.graphs.clone_network(network.networks[-1])
            model.network = network.with_branch(clone)
        super().grow(task)

    def phases(self, task):
        return [
            ki.methods.Phase(
                name="training",
                epochs=task.epochs,
                sources=lambda: [task.samples, *task.exemplars()],
                objective=ki.objectives.CrossDistilled(task.known_classes),
                learning_rate_factor=ki.methods.StepDecay(),
            ),
            *self._balance(task),
        ]

    def _balance(self, task):
        if not task.known_classes:
            return
        yield ki.methods.Phase(
            name="balanced fine-tuning",
            epochs=task.epochs,
            sources=lambda: [task.balanced()],
            objective=ki.objectives.CrossDistilled(task.model.num_classes),
            learning_rate_factor=lambda epoch: 0.1,
        )
