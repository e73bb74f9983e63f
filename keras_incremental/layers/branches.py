"""Layers that grow by branches: clones of a network's later layers."""

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.layers.expandable_dense import ExpandableDense


class Traced:
    """A function traced once, behind a plain object.

    A model that calls one for each branch is traced anew when a branch is
    added, and finds the traces of all others ready. Keras and SavedModel do not
    look into plain objects, so they neither track nor save it.

    >>> double = Traced(lambda x: 2 * x)
    >>> int(double.call(tf.constant(3)))
    6
    """

    def __init__(self, function):
        self.call = tf.function(function, reduce_retracing=True)


@keras.saving.register_keras_serializable(package="keras_incremental")
class Branch(keras.layers.Layer):
    """The later layers of a network and a classifier of their own.

    Logits are `head(network(x))`. `calibrated` compares them with those of
    other branches: `scale * logits + bias`, one scale and one bias for the
    branch, 1 and 0 at first.

    Source: Sarwar, Ankit and Roy, IEEE Access 8, 2020 (arXiv:1712.02719).

    Args:
        network: a Functional model from the shared trunk's outputs to feature
            vectors.
        head: the classification layer; `None` for a new one without units.
        **kwargs: those of `keras.layers.Layer`.

    Input shape: that of `network`. Output shape: `(batch, units)`.

    >>> later = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> branch = Branch(later, ExpandableDense((2,)))
    >>> branch(np.ones((5, 4), "float32")).shape
    TensorShape([5, 2])
    """

    def __init__(self, network, head=None, **kwargs):
        super().__init__(**kwargs)
        self.network = network
        if head is None:
            head = ExpandableDense(capacity=16, dtype=self.dtype_policy)
        self.head = head
        if not self.head.built:
            self.head.build((None, network.output_shape[-1]))
        self.supports_jit = self.head.supports_jit
        self.scale = self.add_weight(
            name="scale", shape=(), initializer="ones", trainable=False
        )
        self.bias = self.add_weight(
            name="bias", shape=(), initializer="zeros", trainable=False
        )
        self._traced = Traced(
            lambda inputs, columns: self.head(
                self.network(inputs, training=False)
            )
        )
        self.built = True

    @property
    def units(self) -> int:
        """Classes of this branch."""
        return self.head.units

    def features(self, inputs):
        """Returns the features `(batch, dim)` in inference mode."""
        return self.network(inputs, training=False)

    def call(self, inputs, training=None):
        return self.head(self.network(inputs, training=training))

    def inference(self, inputs):
        """Returns the logits in inference mode, by a function traced once."""
        # A head that has grown has other variables: traced anew.
        return self._traced.call(inputs, self.head.allocated)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
            "head": keras.saving.serialize_keras_object(self.head),
        }

    @classmethod
    def from_config(cls, config):
        trainable = config["network"]["config"].get("trainable", True)
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("network", "head")
        }
        # Keras brings a Sequential model back without its own flag.
        parts["network"].trainable = trainable
        return cls(**{**config, **parts})

    def twin(self) -> "Branch":
        """Returns a branch of the same shapes with the present weights."""
        network = keras.models.clone_model(self.network)
        head = ExpandableDense.from_config(self.head.get_config())
        branch = Branch(network, head, dtype=self.dtype_policy)
        branch.copy_from(self)
        return branch

    def copy_from(self, other: "Branch") -> None:
        """Takes over the values and heads of a branch of equal capacity."""
        copy_weights(self.network, other.network)
        self.head.copy_from(other.head)
        self.scale.assign(other.scale)
        self.bias.assign(other.bias)


@keras.saving.register_keras_serializable(package="keras_incremental")
class Branches(keras.layers.Layer):
    """Branches on one shared trunk, one for each task after the first.

    The logits of the base (the network that was there first) come in with
    the trunk's outputs; the layer adds those of its branches behind them, each
    part times its scale plus its bias. A branch is frozen, in inference mode,
    but for the newest, which can be trained.

    The newest branch keeps its variables from task to task, so that a compiled
    train function stays valid: `add` moves the weights it has learned to a
    frozen twin and gives it those of its successor.

    Source: Sarwar, Ankit and Roy, IEEE Access 8, 2020 (arXiv:1712.02719),
    "clone and branch".

    Args:
        branches: those to start with.
        **kwargs: those of `keras.layers.Layer`.

    Inputs: the trunk's outputs, or a list of them and of the base's logits
    `(batch, units)`. Output shape: `(batch, units of all)`.

    >>> later = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> branches = Branches([Branch(later, ExpandableDense((2,)))])
    >>> branches(np.ones((5, 4), "float32")).shape
    TensorShape([5, 2])
    """

    def __init__(self, branches=(), **kwargs):
        super().__init__(**kwargs)
        self.scale = self.add_weight(
            name="base_scale", shape=(), initializer="ones", trainable=False
        )
        self.bias = self.add_weight(
            name="base_bias", shape=(), initializer="zeros", trainable=False
        )
        self.branches = list(branches)
        for branch in self.branches[:-1]:
            branch.trainable = False
        self.supports_jit = False
        self.built = True

    def __len__(self):
        return len(self.branches)

    def __bool__(self):
        return True

    @property
    def newest(self) -> Branch:
        """The branch that was added last.

        Raises:
            IndexError: while there is none.
        """
        return self.branches[-1]

    def reserve(self, units: int) -> bool:
        """Makes room for a next branch of so many classes.

        Returns:
            Whether variables were added to the newest branch.
        """
        if not self.branches:
            return False
        head = self.newest.head
        return head.reserve(max(0, units - head.units))

    def append(self, branch: Branch) -> None:
        """Adds a branch as it is; it becomes the newest."""
        for before in self.branches:
            before.trainable = False
        self.branches.append(branch)

    def add(
        self, network: keras.Model, units: int, seed: int | None = None
    ) -> bool:
        """Adds a branch: a network as it is, and a new head.

        Args:
            network: from the trunk's outputs to feature vectors; it may
                become part of the branch.
            units: new classes.
            seed: as of `ExpandableDense.expand`.

        Returns:
            Whether the newest branch has new variables: there was none before
            it, its network is made otherwise than its predecessor, or its head
            had no room for so many classes.
        """
        kept = bool(self.branches) and _differ_in_weights_alone(
            self.newest.network, network
        )
        grown = kept and self.reserve(units)
        if kept:
            newest, twin = self.newest, self.newest.twin()
            twin.trainable = False
            # Keras lists the weights of branches in the order of arrival.
            self.branches.pop()
            self.branches.extend([twin, newest])
            copy_weights(newest.network, network)
            newest.head.truncate(0)
            newest.scale.assign(1.0)
            newest.bias.assign(0.0)
        else:
            self.append(Branch(network, dtype=self.dtype_policy))
        self.newest.head.expand(units, seed)
        return grown or not kept

    def remove_newest(self) -> None:
        """Takes back the last `add`."""
        newest, *before = reversed(self.branches)
        if before and _differ_in_weights_alone(
            before[0].network, newest.network
        ):
            twin = self.branches.pop(len(self) - 2)
            twin.head.reserve(newest.head.allocated - twin.head.units)
            newest.copy_from(twin)
            return
        self.branches.pop()
        if before:
            before[0].trainable = True

    @property
    def scales(self) -> list:
        """The scale of each part, the base's first."""
        return [self.scale, *(branch.scale for branch in self.branches)]

    @property
    def biases(self) -> list:
        """The bias of each part, the base's first."""
        return [self.bias, *(branch.bias for branch in self.branches)]

    def calibrate(self, scales, biases) -> None:
        """Sets scales and biases, the base's first: `(branches + 1,)`.

        Raises:
            ValueError: for a scale that is not above 0: it would turn the
                order of a branch's classes round; for another number of
                scales or biases.
        """
        parts = len(self) + 1
        if len(scales) != parts or len(biases) != parts:
            raise ValueError(
                f"calibrate got {len(scales)} scales and {len(biases)} biases; "
                f"expected {parts} of each, the base's first."
            )
        if not all(scale > 0 for scale in scales):
            raise ValueError(f"scales={list(scales)}; expected all above 0.")
        variables = [*self.scales, *self.biases]
        for variable, value in zip(variables, [*scales, *biases], strict=True):
            variable.assign(value)

    def call(self, inputs):
        inputs, *base = keras.tree.flatten(inputs)
        parts = [*base, *(b.inference(inputs) for b in self.branches)]
        first = 0 if base else 1
        scales, biases = self.scales[first:], self.biases[first:]
        return tf.concat(
            [
                logits * keras.ops.cast(scale, logits.dtype)
                + keras.ops.cast(bias, logits.dtype)
                for logits, scale, bias in zip(
                    parts, scales, biases, strict=True
                )
            ],
            axis=-1,
        )

    def compute_output_shape(self, input_shape):
        units = sum(branch.units for branch in self.branches)
        shapes = [shape for shape in input_shape if isinstance(shape, tuple)]
        if not shapes:
            return (input_shape[0], units)
        return (shapes[0][0], shapes[1][-1] + units)

    def get_config(self):
        return {
            **super().get_config(),
            "branches": [
                keras.saving.serialize_keras_object(branch)
                for branch in self.branches
            ],
        }

    @classmethod
    def from_config(cls, config):
        branches = [
            keras.saving.deserialize_keras_object(item)
            for item in config["branches"]
        ]
        return cls(**{**config, "branches": branches})


def copy_weights(network: keras.Model, other: keras.Model) -> None:
    """Assigns the weights of a network of the same making."""
    network.set_weights(other.get_weights())
    finalize_normalizations(network)


def finalize_normalizations(network: keras.Model) -> None:
    """Has `Normalization` layers see that their weights were assigned.

    They compute with constants that they make of their weights.
    """
    for layer in _normalizations(network):
        layer.finalize_state()


def _differ_in_weights_alone(network: keras.Model, other: keras.Model) -> bool:
    """Whether a network, given the weights of the other, computes the same.

    A traced function holds the statistics of `Normalization` as constants, so
    they have to be equal from the start.
    """
    return (
        _shapes(network) == _shapes(other)
        and _plan(network) == _plan(other)
        and all(
            np.array_equal(mine, theirs)
            for mine, theirs in zip(
                _statistics(network), _statistics(other), strict=True
            )
        )
    )


def _shapes(network: keras.Model) -> list[tuple]:
    return [tuple(weight.shape) for weight in network.weights]


def _statistics(network: keras.Model) -> list[np.ndarray]:
    return [
        weight
        for layer in _normalizations(network)
        for weight in layer.get_weights()
    ]


def _plan(network: keras.Model) -> dict:
    """Returns the config of a network, its layers numbered and not named."""
    numbers: dict[str, int] = {}

    def numbered(item, key=None):
        if key == "dtype":  # A policy has a name as well, which matters.
            return item
        if isinstance(item, dict):
            return {
                key: numbered(value, key)
                for key, value in item.items()
                if key not in _NOT_OF_THE_PLAN
            }
        if isinstance(item, list | tuple):
            return [numbered(value, key) for value in item]
        if key in _HOLD_NAMES and isinstance(item, str):
            return numbers.setdefault(item, len(numbers))
        return item

    return numbered(keras.saving.serialize_keras_object(network))


def _normalizations(network: keras.Model):
    """Yields the layers of that kind, those of nested models included."""
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization):
            yield layer
        elif isinstance(layer, keras.Model):
            yield from _normalizations(layer)


_NOT_OF_THE_PLAN = ("build_config", "compile_config", "trainable")
_HOLD_NAMES = ("name", "keras_history", "input_layers", "output_layers")
