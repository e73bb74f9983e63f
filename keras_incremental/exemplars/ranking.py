"""Gathering the images of a ranking, no more of them than fit a share."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from keras_incremental.samples import Samples


class Share(NamedTuple):
    """A class' share of a memory.

    Attributes:
        images: how many at most.
        size: how many bytes at most, as they are stored.

    >>> Share(images=9, size=10).fitting([4, 4, 4, 1])
    2
    """

    images: int = sys.maxsize
    size: int = sys.maxsize

    def fitting(self, sizes: Sequence[int]) -> int:
        """Returns how many of the first images, of these bytes, fit."""
        fitting = np.searchsorted(np.cumsum(sizes), self.size, side="right")
        return min(self.images, int(fitting))


class Ranking:
    """The rows of one class' ranking, while they are gathered in any order.

    A row is kept only while it may yet be among those that fit: the rows that
    are known before it take part of the share already.

    Args:
        picks: best first: 0 and up for new images, below 0 for old ones,
            counted from their end.
        new: `(count,)` indices of the new images in their samples.
        old: rows of the images stored before.
        fitting: how many of the first rows of an array of rows fit.
    """

    def __init__(
        self,
        picks: np.ndarray,
        new: np.ndarray,
        old: Sequence,
        fitting: Callable[[Sequence], int],
    ):
        is_new = picks >= 0
        self.ranks = np.flatnonzero(is_new)
        self.indices = new[picks[is_new]]
        self._end, self._fitting = len(picks), fitting
        self._rows = {
            int(rank): old[picks[rank]] for rank in np.flatnonzero(~is_new)
        }

    def may_hold(self, rank: int) -> bool:
        """Whether the row of this rank may yet be among those that fit."""
        return rank < self._end

    def add(self, rows: dict[int, object]) -> None:
        """Takes in rows by rank, and drops what does not fit any more."""
        self._rows.update(rows)
        ranks = sorted(self._rows)
        count = self._fitting([self._rows[rank] for rank in ranks])
        for rank in ranks[count:]:
            del self._rows[rank]
        if count < len(ranks):
            self._end = min(self._end, ranks[count])

    def rows(self) -> list:
        """Returns the rows that fit, best first."""
        return [self._rows[rank] for rank in sorted(self._rows)]


def gather(
    rankings: Iterable[Ranking], samples: Samples, encode: Callable
) -> None:
    """Encodes new images for rankings, in one pass over the samples.

    Args:
        rankings: to add rows to.
        samples: the new images.
        encode: images `(count, h, w, c)` -> list of rows.
    """
    wanted = [
        (ranking, int(rank)) for ranking in rankings for rank in ranking.ranks
    ]
    indices = [ranking.indices for ranking in rankings]
    for positions, images in samples.parts(np.concatenate(indices)):
        kept = [
            (place, *wanted[position])
            for place, position in enumerate(positions)
            if wanted[position][0].may_hold(wanted[position][1])
        ]
        if not kept:
            continue
        rows = encode(images[[place for place, _, _ in kept]])
        arrived: dict[Ranking, dict] = {}
        for row, (_, ranking, rank) in zip(rows, kept, strict=True):
            arrived.setdefault(ranking, {})[rank] = row
        for ranking, part in arrived.items():
            ranking.add(part)
