"""A network and a score rule: what a classifier computes."""

from typing import Any

import keras
import numpy as np

from keras_incremental.models.distributed_model import DistributedModel
from keras_incremental.models.functional import as_functional
from keras_incremental.models.inference import Inference, batches_of, in_batches
from keras_incremental.networks import Network
from keras_incremental.score_rules import ScoreRule


class NetworkModel(DistributedModel):
    """Computes scores by a network and a score rule, both replaceable.

    Args:
        network: from images to features and logits.
        score_rule: from these to the scores that decide.
        name: as in `keras.Model`.
    """

    def __init__(self, network: Network, score_rule: ScoreRule, name=None):
        super().__init__(name=name)
        # A list: Keras keeps track of an attribute even once it is replaced.
        self._parts = [network, score_rule]
        self._inference = Inference(self)
        self.built = True

    @property
    def network(self) -> Network:
        """What grows and is trained; a method may set another one."""
        return self._parts[0]

    @network.setter
    def network(self, network: Network) -> None:
        # Keras leaves out a setter where the attribute is this object already;
        # call `follow_network` after a network has changed by itself.
        with self.distribute_strategy.scope():
            self._parts.pop(0)
            self._parts.insert(0, network)
            network.activate()
            self.follow_network()

    @property
    def score_rule(self) -> ScoreRule:
        """How a class is decided; a method sets it in its `finish`."""
        return self._parts[1]

    @score_rule.setter
    def score_rule(self, rule: ScoreRule) -> None:
        if rule is not self.score_rule:
            self._parts.pop(1)
            self._parts.insert(1, rule)
            features = self._inference.features  # which need no rule
            self.reset_inference()
            self._inference.features = features

    @property
    def input_shape(self) -> tuple:
        """Shape of a batch of raw images, `(None, h, w, c)`."""
        return self.network.base().backbone.input_shape

    def call(self, inputs, training=None):
        logits, features = self.network(inputs, training=training)
        return self.score_rule(features, logits)

    def extract_features(
        self, images: Any, batch_size: int = 256
    ) -> np.ndarray:
        """Returns the network's features, in inference mode.

        Args:
            images: raw images `(samples, h, w, c)`, or a dataset of single raw
                images.
            batch_size: images per call of the network.

        Returns:
            `(samples, dim)` float32.
        """
        features = in_batches(
            self._inference.features, batches_of(images, batch_size)
        )
        if features is None:
            return np.zeros((0, self.network.feature_dim), np.float32)
        return features

    def logits_and_scores(self, images: Any, batch_size: int = 256) -> tuple:
        """Returns logits and scores of images, in inference mode.

        The logits are the network's, before the score rule.

        Args:
            images: as for `extract_features`; one image at least.
            batch_size: images per call of the network.

        Returns:
            two arrays `(samples, num_classes)` float32.
        """
        return in_batches(
            self._inference.outputs, batches_of(images, batch_size)
        )

    def as_functional(self) -> keras.Model:
        """Returns a Functional model of the same outputs, to look at.

        `keras.utils.plot_model(model.as_functional(), show_shapes=True)` draws
        it. It shares backbone and branches with this model; its heads are
        copies, with the classes of today.

        >>> import keras_incremental as ki
        >>> model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
        >>> model.add_classes(["cat", "dog"])
        >>> [layer.name for layer in model.as_functional().layers]
        ['images', 'small', 'head']
        """
        return as_functional(self.network, self.score_rule, self.name)

    def summary(self, *args, **kwargs):
        """As Keras' `summary`: of the classes in use, not of the room ahead."""
        self.as_functional().summary(*args, **kwargs)

    def follow_network(self) -> None:
        """Takes note that the network may have other variables than before."""
        self.reset_inference()

    def reset_inference(self) -> None:
        """Has the functions of `evaluate` and `predict` traced again."""
        self.test_function = None
        self.predict_function = None
        self._inference = Inference(self)
