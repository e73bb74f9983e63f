"""A backbone cut into a trunk, which tasks share, and a tail to clone."""

import keras
import tensorflow as tf

from keras_incremental.layers import ExpandableDense, Traced
from keras_incremental.networks import Graph, find_cut, split

TRUNK_OUTPUTS = "trunk_outputs"


class SharedTrunk:
    """Trunk and tail of a backbone, cut at one layer; a plain object.

    Trunk and tail use the backbone's own layers, so that Keras tracks and
    saves them with the backbone alone.

    Args:
        backbone: a Functional or Sequential model.
        head: the classification layer of the base.
        branch_at: the name of a layer, or a fraction of the layers.

    Attributes:
        cut: the place.
        trunk: from images to the trunk's outputs.
        tail: from the trunk's outputs to features.

    Raises:
        TypeError, ValueError: where the backbone cannot be cut.
    """

    def __init__(
        self,
        backbone: keras.Model,
        head: ExpandableDense,
        branch_at: str | float,
    ):
        graph = Graph(backbone)
        self.cut = find_cut(graph, branch_at)
        self.trunk, self.tail = split(graph, self.cut)
        self._shares_nothing = self.cut.index == 0
        self._shares_all = self.cut.index == graph.output_index
        self._backbone, self._head = backbone, head
        self._flags: list[tuple[keras.layers.Layer, bool]] = []
        self.renew()

    def renew(self) -> None:
        """Has outputs and logits traced again."""
        trunk, tail, head = self.trunk, self.tail, self._head
        self._traced_trunk = Traced(
            lambda images: tf.stop_gradient(trunk(images, training=False))
        )
        self._traced_tail = Traced(
            lambda outputs, columns: head(tail(outputs, training=False))
        )

    @property
    def branch_at(self) -> str | float:
        """The cut layer's name; 0.0 or 1.0 before or after all layers."""
        if self._shares_nothing:
            return 0.0
        return 1.0 if self._shares_all else self.cut.name

    def outputs(self, inputs):
        """Returns the trunk's outputs of images, in inference mode.

        Outputs that were computed before, `{"trunk_outputs": outputs}`, are
        returned as they are.
        """
        if isinstance(inputs, dict):
            return inputs[TRUNK_OUTPUTS]
        if self._shares_nothing:
            return inputs
        return self._traced_trunk.call(inputs)

    def base_logits(self, outputs):
        """Returns the logits of the base, from the trunk's outputs."""
        # A head that has grown has other variables: traced anew.
        return self._traced_tail.call(outputs, self._head.allocated)

    def freeze(self) -> None:
        """Freezes backbone and head, until `thaw`."""
        if not self._flags:
            self._flags = [
                (layer, layer.trainable)
                for part in (self._backbone, self._head)
                for layer in _with_sublayers(part)
            ]
        self._backbone.trainable = self._head.trainable = False

    def thaw(self) -> None:
        """Gives each layer the `trainable` it had before `freeze`."""
        for layer, trainable in self._flags:
            layer.trainable = trainable
        self._flags = []


def _with_sublayers(layer: keras.layers.Layer):
    """Yields a layer and those in it, each after what holds it."""
    yield layer
    for part in getattr(layer, "layers", ()):
        yield from _with_sublayers(part)
