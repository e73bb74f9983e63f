"""A backbone and one head, all of it trained."""

import random
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_incremental.graphs import (
    Graph,
    cloned_layer,
    copy_weights,
    differ_in_weights_alone,
    finalize_normalizations,
    find_cut,
    split,
)
from keras_incremental.layers import ExpandableDense
from keras_incremental.networks.network import (
    Network,
    traced,
    traced_inference,
)
from keras_incremental.networks.trainable import all_layers


@keras.saving.register_keras_serializable(package="keras_incremental")
class SingleNetwork(Network):
    """A backbone and a head that takes new classes; all of it is trained.

    It may know a place where it can be cut, which networks that add branches
    need: `trunk` is the part before it, `tail` the part after.

    Args:
        backbone: a built Functional or Sequential model from raw images to
            feature vectors.
        head: the classification layer, or `None` for a new one, with the
            regularizer of the backbone's last kernel.
        branch_at: where to cut the backbone: a layer's name, a fraction of its
            weight layers, or `None`.
        capacity: classes that a new head has room for.
        **kwargs: those of `keras.layers.Layer`.

    Raises:
        TypeError, ValueError: if the backbone cannot be cut there.

    >>> backbone = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> network = SingleNetwork(backbone)
    >>> _ = network.grow(2)
    >>> logits, features = network(keras.ops.ones((5, 4)))
    >>> logits.shape, features.shape
    (TensorShape([5, 2]), TensorShape([5, 3]))
    """

    def __init__(
        self,
        backbone: keras.Model,
        head: ExpandableDense | None = None,
        branch_at: str | float | None = None,
        capacity: int = 128,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.backbone = backbone
        self.head = head or ExpandableDense(
            capacity=capacity,
            kernel_regularizer=_last_regularizer(backbone),
            name="head",
        )
        if not self.head.built:
            self.head.build((None, backbone.output_shape[-1]))
        self.cut = (
            None if branch_at is None else CutBackbone(backbone, branch_at)
        )
        self._trainable_before: list = []
        self.built = True
        self.finalize_state()

    def base(self):
        return self

    def head_layers(self):
        return [self.head]

    @property
    def feature_dim(self):
        return self.backbone.output_shape[-1]

    @property
    def branch_at(self) -> str | float | None:
        """The layer where the backbone is cut, 0.0, 1.0, or `None`."""
        return None if self.cut is None else self.cut.branch_at

    @property
    def shared_layers(self) -> float | None:
        """The share of the weight layers before the cut, or `None`."""
        return None if self.cut is None else self.cut.place.layers

    @property
    def trunk(self) -> keras.Model | None:
        """The backbone before the cut, or `None`."""
        return None if self.cut is None else self.cut.trunk

    @property
    def tail(self) -> keras.Model | None:
        """The backbone after the cut, or `None`."""
        return None if self.cut is None else self.cut.tail

    def shrink(self, num_heads):
        self.head.truncate(num_heads)
        return self

    def inference(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns logits and features, by a function that is traced once."""
        # A head that has grown has other variables: traced anew.
        return self._inference(images, self.head.allocated)

    def trained(self, frozen, training=False):
        features = self.backbone(frozen, training=training)
        return self.head(features), features

    def reinitialize(self, seed: Sequence[int]) -> None:
        """Draws anew all that training changes, heads and backbone.

        Trained variables get new values of their initializers, and moving
        statistics their first ones. Frozen layers, and state that is no
        result of training, stay as they are.

        Args:
            seed: integers. The same ones draw the same values, but for an
                initializer with a seed of its own, which has the last word.
        """
        moving = {
            id(variable)
            for layer in all_layers(self.backbone)
            if isinstance(layer, keras.layers.BatchNormalization)
            and layer.trainable
            for variable in (layer.moving_mean, layer.moving_variance)
        }
        fresh = _fresh_clone(self.backbone, seed)
        for variable, value in zip(
            self.backbone.variables, fresh.variables, strict=True
        ):
            if variable.trainable or id(variable) in moving:
                variable.assign(value)
        self.with_structure(self, self.structure())

    def structure(self):
        return {"heads": [head.stop - head.start for head in self.heads]}

    @classmethod
    def with_structure(cls, base, structure):
        base.shrink(0)
        for size in structure["heads"]:
            base.grow(size)
        return base

    def twin(self):
        backbone = keras.models.clone_model(
            self.backbone, clone_function=cloned_layer
        )
        head = ExpandableDense.from_config(self.head.get_config())
        twin = type(self)(backbone, head, self.branch_at)
        twin._copy_values(self)
        return twin

    def copy_from(self, other):
        if type(other) is not type(self) or not self.is_like(other):
            return False
        self._copy_values(other)
        return True

    def _copy_values(self, other: "SingleNetwork") -> None:
        copy_weights(self.backbone, other.backbone)
        self.head.copy_from(other.head)

    def is_like(self, other: "SingleNetwork") -> bool:
        """Whether the two differ in weights alone.

        The other's head may have more columns.
        """
        return self.head.has_room_of(other.head) and differ_in_weights_alone(
            self.backbone, other.backbone
        )

    def state_variables(self):
        return [*self.backbone.variables, *self.head.variables]

    def activate(self):
        for layer, trainable in self._trainable_before:
            layer.trainable = trainable
        self._trainable_before = []

    def freeze(self, but_trunk: bool = False) -> None:
        """Freezes backbone and head, until `activate`.

        Args:
            but_trunk: whether the trunk stays as trainable as it was.
        """
        if not self._trainable_before:
            self._trainable_before = [
                (layer, layer.trainable)
                for part in (self.backbone, self.head)
                for layer in all_layers(part)
            ]
        in_trunk = set(map(id, all_layers(self.trunk))) if but_trunk else ()
        for layer, trainable in self._trainable_before:
            layer.trainable = trainable and id(layer) in in_trunk

    def finalize_state(self):
        finalize_normalizations(self.backbone)
        self._inference = traced(lambda images, columns: self.outputs(images))
        if self.cut is not None:
            self.cut.finalize_state()

    def get_config(self):
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "head": keras.saving.serialize_keras_object(self.head),
            "branch_at": self.branch_at,
        }

    @classmethod
    def from_config(cls, config):
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("backbone", "head")
        }
        return cls(**{**config, **parts})


def _fresh_clone(network: keras.Model, seed: Sequence[int]) -> keras.Model:
    """Returns a clone with newly drawn weights.

    Keras takes the seed of an initializer without one from Python's generator,
    which is put back as it was.
    """
    state = random.getstate()
    random.seed(repr([*map(int, seed)]))
    try:
        return keras.models.clone_model(network)
    finally:
        random.setstate(state)


def _last_regularizer(backbone: keras.Model):
    """Returns the regularizer of the last layer that may have one."""
    found = [
        layer.kernel_regularizer
        for layer in all_layers(backbone)
        if hasattr(layer, "kernel_regularizer")
    ]
    return found[-1] if found else None


class CutBackbone:
    """Trunk and tail of a backbone; a plain object.

    They use the backbone's own layers, so that Keras tracks and saves them with
    the backbone alone.
    """

    def __init__(self, backbone: keras.Model, branch_at: str | float):
        graph = Graph(backbone)
        self.place = find_cut(graph, branch_at)
        self.trunk, self.tail = split(graph, self.place)
        # The cut layer's name; 0.0 or 1.0 before or after all layers.
        ends = {graph.output_index: 1.0, 0: 0.0}
        self.branch_at = ends.get(self.place.index, self.place.name)

    def trunk_outputs(self, images: tf.Tensor) -> Any:
        """Returns what the trunk makes of images, in inference mode."""
        return images if self.branch_at == 0.0 else self._trunk(images)

    def finalize_state(self) -> None:
        """Traces anew, as `Network.finalize_state` asks for."""
        self._trunk = traced_inference(self.trunk)
        self.tail_features = traced_inference(self.tail)
