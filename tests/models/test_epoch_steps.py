"""An epoch divided into calls."""

import hypothesis
from hypothesis import strategies as st

from keras_incremental.models.epoch_steps import EpochSteps


@hypothesis.given(st.integers(1, 200), st.integers(1, 50), st.integers(1, 3))
def test_calls_are_full_but_for_the_last_of_an_epoch(steps, at_once, epochs):
    epoch = EpochSteps(steps, at_once)
    full, rest = divmod(steps, at_once)
    expected = [at_once] * full + [rest] * bool(rest)
    for _ in range(epochs):
        assert [epoch.next_count() for _ in expected] == expected
