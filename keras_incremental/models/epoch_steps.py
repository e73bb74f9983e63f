"""How an epoch is divided into calls of the train function."""

import numbers


class EpochSteps:
    """Counts the steps of an epoch that are left.

    Args:
        number: steps of each epoch; `None` where its data end with it.
        at_once: the most steps of one call.

    Raises:
        ValueError: unless `at_once` is an integer, 1 or more.

    >>> epoch = EpochSteps(5, at_once=3)
    >>> [epoch.next_count() for _ in range(4)]
    [3, 2, 3, 2]
    """

    def __init__(self, number: int | None = None, at_once: int = 1):
        if not isinstance(at_once, numbers.Integral) or at_once < 1:
            raise ValueError(
                f"compile got steps_per_execution={at_once!r}; expected an "
                "integer, 1 or more."
            )
        self.number, self._at_once = number, at_once
        self._done = 0

    def next_count(self) -> int:
        """Returns the steps of the next call: none goes beyond an epoch."""
        count = min(self._at_once, self.number - self._done)
        self._done = (self._done + count) % self.number
        return count
