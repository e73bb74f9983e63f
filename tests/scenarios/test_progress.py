"""The progress bar of long scans."""

import keras
import pytest

from keras_incremental.scenarios import progress


@pytest.fixture
def updates(monkeypatch):
    """Records what the bar is told instead of drawing it."""
    recorded = []

    class Bar:
        def __init__(self, target, **_):
            self.target = target

        def update(self, current):
            recorded.append((current, self.target))

    monkeypatch.setattr(keras.utils, "Progbar", Bar)
    return recorded


def test_quick_scan_shows_no_bar(updates):
    assert list(progress.with_progress("abc", 3, "letter")) == ["a", "b", "c"]
    assert updates == []


def test_long_scan_shows_how_far_it_is(updates, monkeypatch):
    clock = iter([0.0, 1.0, 6.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(progress.with_progress("abc", 3, "letter")) == ["a", "b", "c"]
    assert updates == [(2, 3), (3, 3)]
