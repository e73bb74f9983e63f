"""Several Keras fits that callbacks and the progress bar see as one."""

import keras

_COMPARING_EPOCHS = (
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

    def end(self, logs=None) -> None:
        """Ends the run."""
        super().on_train_end(logs)

    def begin_phase(self) -> None:
        """Starts `EarlyStopping` and `ReduceLROnPlateau` anew.

        They compare epochs of one objective and one set of data; what they saw
        in the phase before, and the weights kept there, say nothing here.
        """
        for callback in self.callbacks:
            if isinstance(callback, _COMPARING_EPOCHS):
                callback.on_train_end()
                callback.on_train_begin()

    def expect_steps(self, steps: int) -> None:
        """Tells callbacks how many steps the next epochs have."""
        self.set_params({**self.params, "steps": steps})
