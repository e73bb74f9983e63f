"""A progress bar for scans that turn out to be long."""

import time

import keras

_PATIENCE_SECONDS = 5.0


def with_progress(items, total, unit_name):
    """Yields `items`; shows a bar once that has taken five seconds.

    Args:
        items: iterable.
        total: number of items, or `None` if unknown.
        unit_name: what an item is, for the bar.
    """
    start, bar = time.monotonic(), None
    for done, item in enumerate(items, start=1):
        yield item
        if bar is None and time.monotonic() - start > _PATIENCE_SECONDS:
            bar = keras.utils.Progbar(total, interval=0.5, unit_name=unit_name)
        if bar is not None:
            bar.update(done)
