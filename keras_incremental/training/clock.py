"""Where the seconds of a step go."""

import contextlib
import time


class Clock:
    """Splits the seconds of a step into training, validation and the rest."""

    def __init__(self):
        self._start = self._epoch = self._test = time.perf_counter()
        self._in_epochs = self._in_tests = 0.0
        self._earlier = (0.0, 0.0)

    def add_earlier(self, training: float, overhead: float) -> None:
        """Counts seconds that the step took in an earlier process."""
        self._earlier = (training, overhead)

    def begin_epoch(self) -> None:
        """An epoch begins."""
        self._epoch = time.perf_counter()

    def end_epoch(self) -> None:
        """An epoch ends, its validation included."""
        self._in_epochs += time.perf_counter() - self._epoch

    def begin_test(self) -> None:
        """Validation begins."""
        self._test = time.perf_counter()

    def end_test(self) -> None:
        """Validation ends."""
        self._in_tests += time.perf_counter() - self._test

    @contextlib.contextmanager
    def apart(self):
        """What is done while it is open counts as validation."""
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self._in_epochs += seconds
        self._in_tests += seconds

    def read(self) -> tuple[float, float]:
        """Returns the seconds of training, and of all but validation."""
        total = time.perf_counter() - self._start
        training, overhead = self._earlier
        training += self._in_epochs - self._in_tests
        return training, overhead + total - self._in_epochs
