"""A classification layer that takes new classes without new variables."""

import itertools
import numbers
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike


@keras.saving.register_keras_serializable(package="keras_incremental")
class ExpandableDense(keras.layers.Layer):
    """Dense heads, one for each step, concatenated: `logits = x W + b`.

    Columns are allocated ahead, as a vector reserves capacity: a call
    multiplies with all of them and returns those in use. `expand` therefore
    makes no variable, and a compiled function that calls the layer needs no
    new trace, until the capacity is used up. Then `reserve` adds a block of
    columns as large as all before it (the capacity doubles). Existing blocks
    are never touched, so old logits stay equal bit for bit.

    Source: EEIL (Castro et al., ECCV 2018), section 3.1: one classification
    layer per incremental step, logits concatenated.

    Args:
        heads: units of each head at the start, in order, e.g. `(50, 10)`.
        capacity: columns of the first block, at least 1.
        blocks: how many blocks to allocate at first; a saved layer comes back
            with those it had.
        kernel_initializer: draws a new head's kernel `(features, units)`.
        bias_initializer: draws a new head's bias `(units,)`.
        kernel_regularizer: regularizer of the kernel, of the columns in use
            alone, block by block; or `None`.
        **kwargs: those of `keras.layers.Layer` (`name`, `dtype`, ...).

    Input shape: `(batch, features)`. Output shape: `(batch, units)`, in the
    layer's compute dtype; inside a `tf.function` the second dimension is
    dynamic.

    Raises:
        ValueError: for a head or a capacity below 1.

    >>> head = ExpandableDense((3,))
    >>> x = np.ones((2, 4), "float32")
    >>> head(x).shape, head.expand(2), head(x).shape
    (TensorShape([2, 3]), slice(3, 5, None), TensorShape([2, 5]))
    """

    def __init__(
        self,
        heads: Iterable[int] = (),
        capacity: int = 128,
        blocks: int = 1,
        kernel_initializer: str
        | keras.initializers.Initializer = "glorot_uniform",
        bias_initializer: str | keras.initializers.Initializer = "zeros",
        kernel_regularizer: str | keras.regularizers.Regularizer | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        _check_positive("capacity", capacity)
        for units in heads:
            _check_positive("units of a head", units)
        self._head_sizes = tuple(int(units) for units in heads)
        self.capacity, self._first_blocks = int(capacity), int(blocks)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.input_spec = keras.layers.InputSpec(ndim=2)
        # The number of columns in use is only known when the graph runs.
        self.supports_jit = False
        self._kernels, self._biases, self._heads_of_units = [], [], []

    @property
    def heads(self) -> list[slice]:
        """The units of each head, in order of arrival."""
        stops = itertools.accumulate(self._head_sizes, initial=0)
        return [slice(*ends) for ends in itertools.pairwise(stops)]

    @property
    def units(self) -> int:
        """Units in use, all heads together."""
        return sum(self._head_sizes)

    @property
    def allocated(self) -> int:
        """Columns for which there are variables."""
        return self.capacity * 2 ** max(len(self._kernels) - 1, 0)

    def build(self, input_shape):
        self._dim = input_shape[-1]
        self._units_in_use = self.add_weight(
            name="units", shape=(), dtype="int32", initializer="zeros",
            trainable=False,
        )  # fmt: skip
        self._add_block(self.capacity)
        while (
            self.allocated < self.units
            or len(self._kernels) < self._first_blocks
        ):
            self._add_block(self.allocated)
        for index, head in enumerate(self.heads):
            self._initialize_head(index, head)

    def reserve(self, units: int) -> bool:
        """Makes room for `units` more columns; call it outside `fit`.

        Returns:
            Whether variables were added. If so, an optimizer built before is
            out of date and functions that call the layer must be made anew.
        """
        needed = self.units + units
        if needed <= self.allocated:
            return False
        # `Layer._tracker` is private, and there is no public way: Keras' own
        # `Dense.enable_lora` does the same.
        self._tracker.unlock()
        try:
            while self.allocated < needed:
                self._add_block(self.allocated)
        finally:
            self._tracker.lock()
        return True

    def expand(self, units: int, seed: int | None = None) -> slice:
        """Adds a head of `units` new columns, freshly initialised.

        Args:
            units: new columns.
            seed: for the kernel's initializer, in place of one that follows
                from its own and from the head's index.

        Returns:
            The slice of the new units.

        Raises:
            ValueError: if the layer is not built, or `units` is below 1.
        """
        _check_positive("units", units)
        if not self.built:
            raise ValueError(
                "ExpandableDense.expand needs a built layer. Call the layer "
                "on a batch first, or pass `heads=` to the constructor."
            )
        self.reserve(units)
        self._head_sizes += (int(units),)
        self._initialize_head(len(self._head_sizes) - 1, self.heads[-1], seed)
        return self.heads[-1]

    def truncate(self, num_heads: int) -> None:
        """Removes the heads after the first `num_heads`."""
        self._head_sizes = self._head_sizes[:num_heads]
        self._units_in_use.assign(self.units)

    def remove_units(self, units: Iterable[int]) -> None:
        """Removes columns, and heads that have none left; overwrites them.

        Args:
            units: of the columns; those behind them move up.
        """
        kept = [np.setdiff1d(np.r_[head], units) for head in self.heads]
        columns = np.concatenate([np.zeros(0, int), *kept])
        whole = slice(None)
        for blocks in (self._kernels, self._biases):
            values = self._read(blocks, whole)
            moved = np.zeros_like(values)
            moved[..., : len(columns)] = values[..., columns]
            self._write(blocks, whole, moved)
        self._head_sizes = tuple(len(head) for head in kept if len(head))
        numbers = np.arange(len(self._head_sizes), dtype="int32")
        heads = np.repeat(numbers, self._head_sizes)
        self._write(self._heads_of_units, slice(0, len(heads)), heads)
        self._units_in_use.assign(self.units)

    def head_weights(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the kernel `(features, units)` and bias `(units,)` of a head.

        Args:
            index: The head's, in order of arrival; -1 is the newest.
        """
        columns = self.heads[index]
        return self._read(self._kernels, columns), self._read(
            self._biases, columns
        )

    def set_head_weights(
        self, index: int, kernel: ArrayLike, bias: ArrayLike
    ) -> None:
        """Assigns what `head_weights` returns.

        Raises:
            ValueError: if a shape is not that of the head.
        """
        columns = self.heads[index]
        size = columns.stop - columns.start
        shapes = np.shape(kernel), np.shape(bias)
        if shapes != ((self._dim, size), (size,)):
            raise ValueError(
                f"set_head_weights got a kernel {shapes[0]} and a bias "
                f"{shapes[1]}; head {index} takes {(self._dim, size)} and "
                f"{(size,)}: features by classes, and classes."
            )
        self._write(self._kernels, columns, kernel)
        self._write(self._biases, columns, bias)

    def widened(self, features: int) -> "ExpandableDense":
        """Returns a layer with the same heads on more features.

        The kernel's new rows are 0: logits stay what they are.

        Args:
            features: How many; the first ones are those of this layer.
        """
        layer = ExpandableDense.from_config(self.get_config())
        layer.build((None, features))
        more = features - self._dim
        for index in range(len(self.heads)):
            kernel, bias = self.head_weights(index)
            kernel = np.pad(kernel, [(0, more), (0, 0)])
            layer.set_head_weights(index, kernel, bias)
        return layer

    def has_room_of(self, other: "ExpandableDense") -> bool:
        """Whether `copy_from(other)` needs at most columns to be added."""
        return (
            self.capacity == other.capacity
            and self.allocated <= other.allocated
        )

    def copy_from(self, other: "ExpandableDense") -> None:
        """Takes over the heads and values of `other`, of equal capacity."""
        self.reserve(other.allocated - self.units)
        self._head_sizes = other._head_sizes
        for mine, theirs in zip(self.weights, other.weights, strict=True):
            mine.assign(theirs)

    def head_of_unit(self) -> tf.Tensor:
        """Returns the index of each unit's head: `(units,)` int32, dynamic."""
        index = tf.concat(
            [tf.convert_to_tensor(block) for block in self._heads_of_units], 0
        )
        return index[: self._columns()]

    def call(self, inputs):
        blocks = [
            keras.ops.matmul(inputs, kernel) + bias
            for kernel, bias in zip(self._kernels, self._biases, strict=True)
        ]
        return tf.concat(blocks, axis=-1)[:, : self._columns()]

    def check_units(self) -> None:
        """Refuses loaded weights of another number of units.

        Raises:
            ValueError: if the weights say another number than the layer, which
                then says its own again.
        """
        found = int(keras.ops.convert_to_numpy(self._units_in_use))
        if found != self.units:
            self._units_in_use.assign(self.units)
            raise ValueError(
                f"The weights are of {found} units, and the layer "
                f"{self.name!r} has {self.units}. Weights alone do not hold "
                "the classes: load the whole model, saved by "
                'model.save("model.keras"), or make the same classes first.'
            )

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.units)

    def get_config(self):
        initializers, regularizers = keras.initializers, keras.regularizers
        return {
            **super().get_config(),
            "heads": list(self._head_sizes),
            "capacity": self.capacity,
            "blocks": max(len(self._kernels), self._first_blocks),
            "kernel_initializer": initializers.serialize(
                self.kernel_initializer
            ),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "kernel_regularizer": regularizers.serialize(
                self.kernel_regularizer
            ),
        }

    def _columns(self):
        if tf.executing_eagerly():
            return self.units
        return tf.convert_to_tensor(self._units_in_use)

    def _add_block(self, columns: int) -> None:
        suffix = f"_{len(self._kernels)}" if self._kernels else ""
        kernel = self.add_weight(
            name=f"kernel{suffix}", shape=(self._dim, columns),
            initializer="zeros", regularizer=self._penalty_of_block(),
        )  # fmt: skip
        bias = self.add_weight(
            name=f"bias{suffix}", shape=(columns,), initializer="zeros"
        )
        head_of_unit = self.add_weight(
            name=f"head_of_unit{suffix}", shape=(columns,), dtype="int32",
            initializer="zeros", trainable=False,
        )  # fmt: skip
        self._kernels.append(kernel)
        self._biases.append(bias)
        self._heads_of_units.append(head_of_unit)

    def _penalty_of_block(self):
        """Returns the regularizer of the next block, or `None`."""
        if self.kernel_regularizer is None:
            return None
        return _BlockPenalty(self, sum(k.shape[-1] for k in self._kernels))

    def _initialize_head(self, index: int, head: slice, seed=None) -> None:
        size = head.stop - head.start
        initializer = _for_head(self.kernel_initializer, index, seed)
        kernel = initializer((self._dim, size), "float32")
        initializer = _for_head(self.bias_initializer, index)
        bias = initializer((size,), "float32")
        self._write(self._kernels, head, kernel)
        self._write(self._biases, head, bias)
        self._write(self._heads_of_units, head, np.full(size, index, "int32"))
        self._units_in_use.assign(self.units)

    def _read(self, blocks, columns: slice) -> np.ndarray:
        """Returns the last axis' `columns` of the blocks laid end to end."""
        arrays = [keras.ops.convert_to_numpy(block) for block in blocks]
        return np.concatenate(arrays, axis=-1)[..., columns]

    def _write(self, blocks, columns: slice, values) -> None:
        """Writes the last axis' `columns` of the blocks laid end to end."""
        whole = self._read(blocks, slice(None))
        whole[..., columns] = keras.ops.convert_to_numpy(values)
        stops = np.cumsum([block.shape[-1] for block in blocks])
        parts = np.split(whole, stops[:-1], axis=-1)
        for block, part in zip(blocks, parts, strict=True):
            block.assign(part)


class _BlockPenalty(keras.regularizers.Regularizer):
    """Regularizes the columns of a block of kernels that are in use.

    A class, because older versions of Keras take no plain function.
    """

    def __init__(self, layer: ExpandableDense, first: int):
        self._layer, self._first = layer, first

    def __call__(self, kernel):
        used = keras.ops.maximum(self._layer._columns() - self._first, 0)
        return self._layer.kernel_regularizer(kernel[:, :used])


def _for_head(initializer, index: int, seed: int | None = None):
    """Returns the initializer for a head, with a seed of its own.

    An initializer of Keras gives the same values whenever it is called for the
    same shape: without this, the classes of all heads of one size would start
    as copies of one another. The first head's seed is the initializer's.

    Args:
        initializer: A Keras initializer, or any callable.
        index: the head's.
        seed: in place of that of initializer and head.
    """
    own = getattr(initializer, "seed", None)
    if not isinstance(own, numbers.Integral) or (seed is None and not index):
        return initializer
    if seed is None:
        sequence = np.random.SeedSequence([abs(int(own)), index])
        seed = int(sequence.generate_state(1)[0]) // 2  # of 31 bits
    config = {**initializer.get_config(), "seed": seed}
    return type(initializer).from_config(config)


def _check_positive(what: str, value) -> None:
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"{what}={value!r}; expected an integer of 1 or more.")
