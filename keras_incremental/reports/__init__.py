"""What a run leaves behind for people: results on disk, tables, pictures.

A run writes `results.json` and its pictures into one output folder, each of
them as a whole or not at all, and never over another run's. The pictures use
matplotlib's object interface: they need no display and leave the caller's
backend and open figures alone.
"""

from keras_incremental.reports.accuracy_bytes import (
    bytes_figure,
    plot_bytes,
)
from keras_incremental.reports.accuracy_curve import (
    accuracy_figure,
    plot_accuracy,
)
from keras_incremental.reports.before_after import (
    before_after_figure,
    plot_before_after,
)
from keras_incremental.reports.confusion import (
    confusion_figure,
    plot_confusion,
)
from keras_incremental.reports.mistakes import mistakes_figure, plot_mistakes
from keras_incremental.reports.output_dir import claim_output_dir
from keras_incremental.reports.results import (
    FILE_NAME,
    read_results,
    with_checksum,
    write_results,
)
from keras_incremental.reports.summary import (
    describe,
    markdown,
    spread,
    summarize,
)

__all__ = [
    "FILE_NAME",
    "accuracy_figure",
    "before_after_figure",
    "bytes_figure",
    "claim_output_dir",
    "confusion_figure",
    "describe",
    "markdown",
    "mistakes_figure",
    "plot_accuracy",
    "plot_before_after",
    "plot_bytes",
    "plot_confusion",
    "plot_mistakes",
    "read_results",
    "spread",
    "summarize",
    "with_checksum",
    "write_results",
]
