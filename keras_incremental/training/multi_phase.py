"""Several Keras fits that callbacks and the progress bar see as one."""

import keras

_COMPARING = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ReduceLROnPlateau,
)


class MultiPhaseCallbackList(keras.callbacks.CallbackList):
    """A callback list that begins and ends once for several fits."""

    def on_train_begin(self, logs=None):
        """Does nothing: a fit begins, but the run has begun already."""

    def on_train_end(self, logs=None):
        """Does nothing: a fit ends, but the run goes on."""

    def begin(self) -> None:
        """Begins the run."""
        super().on_train_begin()

    def end(self) -> None:
        """Ends the run, whose last phase has ended."""
        callbacks = self.callbacks
        self.callbacks = [
            item for item in callbacks if item not in self._comparing
        ]
        super().on_train_end()
        self.callbacks = callbacks

    def begin_phase(self) -> None:
        """Starts `EarlyStopping` and `ReduceLROnPlateau` anew.

        They compare epochs of one objective and one set of data; what they saw
        in the phase before, and the weights kept there, say nothing here.
        """
        for callback in self._comparing:
            callback.on_train_begin()

    def end_phase(self) -> None:
        """Ends these two: `EarlyStopping` may restore the best weights."""
        for callback in self._comparing:
            callback.on_train_end()

    @property
    def _comparing(self) -> list[keras.callbacks.Callback]:
        return [item for item in self.callbacks if isinstance(item, _COMPARING)]

    def expect_steps(self, steps: int) -> None:
        """Tells callbacks how many steps the next epochs have."""
        self.set_params({**self.params, "steps": steps})
