"""What is said of work that turns out to be long, where Keras' bars are."""

import contextlib
import operator
import sys
import threading

import keras

_PATIENCE_SECONDS = 2.0


def say(text: str) -> None:
    """Writes a line, unless Keras' interactive logging is off."""
    if keras.config.is_interactive_logging_enabled():
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


@contextlib.contextmanager
def told_if_long(text: str, verbose: int = 1):
    """Writes a line once the block has taken two seconds.

    Args:
        text: the line.
        verbose: 0 writes nothing.

    Yields:
        an event, set once the line has been written.
    """
    timer = threading.Timer(_PATIENCE_SECONDS, say, [text])
    timer.daemon = True
    if verbose:
        timer.start()
    try:
        yield timer.finished
    finally:
        timer.cancel()


def with_progress(items, total, title, unit_name="batch", verbose=1):
    """Yields `items`; shows a title and a bar once that has taken two seconds.

    Args:
        items: iterable.
        total: number of items, or `None` for that of `items`, if known.
        title: what is being done, for the line above the bar.
        unit_name: what an item is, for the bar.
        verbose: 0 shows nothing.

    >>> list(with_progress("abc", 3, "spelling"))
    ['a', 'b', 'c']
    """
    total = total or operator.length_hint(items) or None  # 0: not known
    bar = keras.utils.Progbar(total, interval=0.5, unit_name=unit_name)
    with told_if_long(title, verbose) as is_long:
        done = 0
        for done, item in enumerate(items, start=1):
            yield item
            if is_long.is_set():
                bar.update(done)
        if is_long.is_set() and total is None:
            bar.update(done, finalize=True)  # ends its line
