"""The teacher: a frozen twin of the network as it was at some moment."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from keras_incremental.networks import Network, traced, trained_outputs


class Teacher:
    """A copy of a network whose weights are assigned, never trained.

    Compiled functions that call it stay valid while `follow` moves it to
    another moment, as long as the network is made alike. It is a plain object,
    so that Keras neither trains it nor saves it with the model.

    Args:
        network: to copy.
    """

    def __init__(self, network: Network):
        self._twin = network.twin()
        self._traced_logits = traced(self.logits)

    def follow(self, network: Network) -> bool:
        """Takes over the present weights of a network.

        Returns:
            `False`, with nothing changed, if the network is made otherwise.
        """
        return self._twin.copy_from(network)

    def logits(self, columns: Mapping) -> tf.Tensor:
        """Returns `(batch, units)` logits in inference mode, no gradient.

        Args:
            columns: `{"images": images}`, or `{"frozen": outputs}` of the
                frozen part, which are the network's and the teacher's alike.
        """
        logits, _ = trained_outputs(self._twin, columns, training=False)
        return tf.stop_gradient(logits)

    def all_logits(self, columns: Mapping) -> np.ndarray:
        """Returns the logits of a batch, with room for all units.

        Args:
            columns: as for `logits`.

        Returns:
            `(samples, allocated)` float32; columns without a unit are 0.
        """
        logits = self._traced_logits(dict(columns)).numpy()
        without_unit = self._twin.trained_head.allocated - logits.shape[1]
        return np.pad(logits.astype(np.float32), [(0, 0), (0, without_unit)])
