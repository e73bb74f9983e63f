"""What networks that add branches to a frozen base have in common."""

import abc
from typing import Any

import keras

from keras_incremental.layers import ExpandableDense
from keras_incremental.networks.network import Network
from keras_incremental.networks.single_network import SingleNetwork
from keras_incremental.networks.trainable import set_trainable


class BranchingNetwork(Network):
    """A frozen base whose first layers, the trunk, feed all branches.

    Args:
        base: a `SingleNetwork` with a branch point. It is frozen.
        **kwargs: those of `keras.layers.Layer`.

    Raises:
        ValueError: if the base has no branch point.
    """

    has_frozen_part = True

    def __init__(self, base: SingleNetwork, **kwargs: Any):
        super().__init__(**kwargs)
        if base.branch_at is None:
            raise ValueError(
                f"{type(self).__name__} needs a branch point. Build the model "
                'with one: IncrementalClassifier(backbone, branch_at="stage2");'
                " keras_incremental.sharing.cut_points(backbone) lists them."
            )
        self._base = base

    @classmethod
    def on(cls, network: Network) -> "BranchingNetwork":
        """Returns a network of this kind that continues another.

        Args:
            network: A network of this kind, which is returned as it is, or a
                `SingleNetwork`, which becomes the base.

        Raises:
            TypeError: for a network with branches of another kind.
            ValueError: for a network without a branch point.
        """
        if type(network) is cls:
            return network
        if not isinstance(network, SingleNetwork):
            raise TypeError(
                f"The model has branches of a {type(network).__name__}; "
                f"{cls.__name__} cannot go on with them. Use the method that "
                "added them."
            )
        return cls(network)

    def base(self):
        return self._base

    @property
    def branch_at(self) -> str | float:
        """The layer where the backbone is cut, 0.0 or 1.0."""
        return self._base.branch_at

    @property
    def shared_layers(self) -> float:
        """The share of the weight layers before the cut."""
        return self._base.shared_layers

    @property
    def trunk(self) -> keras.Model:
        """The frozen part that all branches share."""
        return self._base.trunk

    @property
    def tail(self) -> keras.Model:
        """The base's own part of the backbone."""
        return self._base.tail

    @abc.abstractmethod
    def with_branch(
        self, network: keras.Model | None = None
    ) -> "BranchingNetwork":
        """Returns a network with one more branch, without classes.

        `grow` adds its classes. All branches before it are frozen.

        Args:
            network: from the trunk's outputs to feature vectors; it may become
                part of the branch. By default a clone of the base's own part.

        Returns:
            this network, or a new one that shares its layers.
        """

    @property
    @abc.abstractmethod
    def networks(self) -> list[keras.Model]:
        """From the trunk's outputs to features: the base's, each branch's."""

    @abc.abstractmethod
    def branch_heads(self) -> list[ExpandableDense]:
        """A layer as large as what each branch adds to the heads."""

    def frozen(self, images):
        return self._base.cut.trunk_outputs(images)

    def structure(self):
        branches = keras.saving.serialize_keras_object(self.branches)
        return {"base": self._base.structure(), "branches": branches}

    @classmethod
    def with_structure(cls, base, structure):
        parts = keras.saving.deserialize_keras_object(
            {**structure, "base": None}
        )
        parts["base"] = base.with_structure(base, structure["base"])
        return cls(**parts)

    def state_variables(self):
        variables = self._base.state_variables()
        for branch in self.branches:
            variables += branch.variables
        return variables

    def activate(self):
        self._base.freeze()
        for branch in self.branches:
            set_trainable(branch, branch is self.branches[-1])

    def finalize_state(self):
        self._base.finalize_state()

    def get_config(self):
        return {
            **super().get_config(),
            "base": keras.saving.serialize_keras_object(self._base),
            "structure": self.structure(),
        }

    @classmethod
    def from_config(cls, config):
        base = keras.saving.deserialize_keras_object(config["base"])
        # It was saved frozen; what was frozen before that is not known.
        set_trainable(base.backbone, True)
        set_trainable(base.head, True)
        network = cls.with_structure(base, config["structure"])
        network.name = config["name"]
        network.activate()
        return network
