"""What is said of long work, and when."""

import threading

import keras
import pytest

from keras_incremental import progress


@pytest.fixture
def timers(monkeypatch):
    """Timers that fire when the test says so."""
    started = []

    class Timer:
        def __init__(self, seconds, function, args):
            self.seconds, self.finished = seconds, threading.Event()
            self.fire = lambda: (function(*args), self.finished.set())
            self.start = lambda: started.append(self)
            self.cancel = self.finished.set

    monkeypatch.setattr(threading, "Timer", Timer)
    return started


def test_quick_work_says_nothing(timers, capsys):
    assert list(progress.with_progress("abc", 3, "spelling")) == [*"abc"]
    assert capsys.readouterr().out == ""
    assert timers[0].finished.is_set() and timers[0].seconds <= 3


def test_long_work_has_a_title_and_a_bar_that_ends(timers, capsys):
    for letter in progress.with_progress("abc", 3, "spelling"):
        if letter == "b":
            assert capsys.readouterr().out == ""
            timers[0].fire()
    text = capsys.readouterr().out
    assert text.startswith("spelling\n") and "3/3" in text


def test_the_bar_of_a_generator_ends_its_line(timers, capsys):
    for _ in progress.with_progress(iter("abc"), None, "spelling"):
        timers[0].fire()
    assert "3/" in (text := capsys.readouterr().out) and text[-1] == "\n"


def test_long_work_on_nothing_ends(timers):
    def nothing():
        timers[0].fire()
        yield from ()

    assert list(progress.with_progress(nothing(), None, "spelling")) == []


def test_nothing_is_said_if_that_was_asked_for(timers, capsys, monkeypatch):
    assert list(progress.with_progress("abc", 3, "x", verbose=0)) == [*"abc"]
    assert not timers
    monkeypatch.setattr(
        keras.config, "is_interactive_logging_enabled", lambda: False
    )
    with progress.told_if_long("tracing"):
        timers[0].fire()
    assert capsys.readouterr().out == ""


def test_a_real_timer_speaks_within_three_seconds(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_PATIENCE_SECONDS", 0.001)
    with progress.told_if_long("tracing") as is_long:
        assert is_long.wait(10)
    assert capsys.readouterr().out == "tracing\n"
