"""What the inference and the training of a network take, from its layers.

The definitions are the package's own: the paper on partial network sharing
(Sarwar et al. 2019, arXiv:1712.02719) gives results in energy and memory
access, not the rules behind them in full. They are simple on purpose, and
count values, each of some bytes; a batch shares what is done once for it.

Inference, one image:

- every layer reads its inputs and writes its output once; activation functions
  inside a layer are free, and so is a layer that is a view (Identity, Flatten,
  Reshape, Dropout, ...);
- every weight in use is read once a batch.

Training, one image: inference, and for each layer on the way back

- gradient of the weights: as many multiply-accumulates as forward, if it has
  weights to train; written once a batch;
- gradient of the input: as many again, if there are trained weights before the
  layer, so not for the first one; written;
- the weights (once a batch), the saved inputs and the gradient of the output
  are read again;
- SGD with momentum, once a batch: gradient, momentum and weight are read,
  momentum and weight written.

A layer with no trained weights in it or before it has no way back. All layers
of the part that is trained count as trained, whether or not they are frozen at
the moment. A frozen part before it takes its inference, or nothing where its
outputs are kept.
"""

import dataclasses
import itertools
from collections.abc import Iterable

import keras

from keras_incremental.graphs.operations import NodeOperations, count_network

# Reads of gradient, momentum and weight; writes of momentum and weight.
_OPTIMIZER_ACCESSES = 5


@dataclasses.dataclass(frozen=True)
class Work:
    """Multiply-accumulates and values moved to and from memory, one image."""

    macs: float = 0
    values: float = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.macs + other.macs, self.values + other.values)


def count_part(
    network: keras.Model, head_units: int | None = None
) -> tuple[NodeOperations, ...]:
    """Counts the layers of a network, and of a head on its features.

    Args:
        network: As for `graphs.count_network`.
        head_units: units of the head in use, 1 or more, or None for no head.

    Returns:
        The operations of each node; each reads only nodes before it.

    Raises:
        ValueError: as `graphs.count_network`.

    >>> network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> [node.macs for node in count_part(network, head_units=10)]
    [0, 32, 40]
    """
    if head_units is not None:
        head = keras.layers.Dense(head_units, name="counted_head")
        network = keras.Model(network.inputs[0], head(network.outputs[0]))
    return count_network(network)


def parameters(part: Iterable[NodeOperations]) -> int:
    """Returns the weights in use of a part, each layer's once."""
    return sum(node.parameters for node in part if not node.is_repeat)


def inference(part: Iterable[NodeOperations], batch_size: int) -> Work:
    """Returns the work of one image's forward pass (see the module).

    Args:
        part: As for `count_part`.
        batch_size: images for which the weights are read once.

    >>> network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> inference(count_part(network), batch_size=2)  # 8 + 4 + (32 + 4) / 2
    Work(macs=32, values=30.0)
    """
    return sum((_forward(node, batch_size) for node in part), Work())


def training(part: Iterable[NodeOperations], batch_size: int) -> Work:
    """Returns the work of one image's training step (see the module).

    Args:
        part: As for `count_part`; all of it is trained.
        batch_size: images that share one update.

    >>> network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> training(count_part(network), batch_size=2)
    Work(macs=64, values=168.0)
    """
    work, has_trained = Work(), []
    for node in part:
        needs_gradient = [has_trained[index] for index in node.inputs]
        trained = node.trainable_parameters > 0
        has_trained.append(trained or any(needs_gradient))
        work += _forward(node, batch_size)
        if has_trained[-1]:
            work += _backward(node, needs_gradient, batch_size)
    return work


def _forward(node: NodeOperations, batch_size: int) -> Work:
    activations = sum(node.input_elements) + node.output_elements
    moved = 0 if node.is_view else activations
    read = 0 if node.is_repeat else node.parameters
    return Work(node.macs, moved + read / batch_size)


def _backward(
    node: NodeOperations, needs_gradient: list[bool], batch_size: int
) -> Work:
    """Both gradients and the update of a layer's weights."""
    trained = node.trainable_parameters
    gradients = (trained > 0) + any(needs_gradient)
    written = sum(itertools.compress(node.input_elements, needs_gradient))
    moved = sum(node.input_elements) + node.output_elements + written
    once = node.parameters + (1 + _OPTIMIZER_ACCESSES) * trained
    return Work(
        gradients * node.macs,
        (0 if node.is_view else moved)
        + (0 if node.is_repeat else once / batch_size),
    )
