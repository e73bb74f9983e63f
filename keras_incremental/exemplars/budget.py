"""How much a memory may hold, and what of it each class may keep."""

from collections.abc import Mapping, Sequence

import numpy as np

from keras_incremental.exemplars.byte_size import parse_bytes
from keras_incremental.exemplars.class_exemplars import ClassExemplars


class Budget:
    """A bound on images in all, on images of each class, or on bytes in all.

    Args:
        capacity: Images in all.
        per_class: Images of each class.
        size: Bytes in all as they are stored, an integer or a text.

    Raises:
        ValueError: Unless exactly one is given, 1 or more.
        TypeError: If `size` is neither an integer nor a text.

    >>> Budget(capacity=10).quotas(3)
    [4, 3, 3]
    >>> Budget(size="1kB").quotas(3, image_bytes=100)
    [4, 3, 3]
    """

    def __init__(
        self,
        capacity: int | None = None,
        per_class: int | None = None,
        size: int | str | None = None,
    ):
        if [capacity, per_class, size].count(None) != 2:
            raise ValueError(
                f"Got capacity={capacity}, per_class={per_class} and "
                f"budget={size!r}; expected exactly one of them, e.g. "
                "ExemplarMemory(capacity=2000)."
            )
        self.capacity = None if capacity is None else _checked_count(capacity)
        self.per_class = (
            None if per_class is None else _checked_count(per_class)
        )
        self.size = None if size is None else parse_bytes(size)

    def quotas(
        self, num_classes: int, image_bytes: int | None = None
    ) -> list[int]:
        """Returns how many images each of `num_classes` classes may keep.

        Args:
            num_classes: How many classes share the budget.
            image_bytes: Bytes that an image takes at least; used only for a
                budget in bytes.

        Raises:
            ValueError: If it is less than one image for each class, or
                `image_bytes` is needed and missing.
        """
        if self.per_class is not None:
            return [self.per_class] * num_classes
        capacity = self.capacity
        if capacity is None:
            if image_bytes is None:
                raise ValueError(
                    f"budget={self.size} bytes is not yet a number of images: "
                    "the memory is empty. Pass image_spec=."
                )
            capacity = self.size // image_bytes
        if num_classes > capacity:
            raise ValueError(self._too_small(num_classes, image_bytes))
        share, left = divmod(capacity, max(num_classes, 1))
        return [share + (index < left) for index in range(num_classes)]

    def cut(
        self,
        exemplars: Mapping[int | str, ClassExemplars],
        image_bytes: int | None,
    ) -> dict[int | str, ClassExemplars]:
        """Returns the best exemplars of each class, as many as it may keep.

        Args:
            exemplars: By label; a class without any has no share.
            image_bytes: As for `quotas`.

        Raises:
            ValueError: If less than one exemplar for each class fits.
        """
        present = [label for label, part in exemplars.items() if len(part)]
        quotas = self.quotas(len(present), image_bytes) if present else []
        heads = [
            exemplars[label].head(quota)
            for label, quota in zip(present, quotas, strict=True)
        ]
        counts = self.deal([head.sizes for head in heads])
        kept = [h.head(count) for h, count in zip(heads, counts, strict=True)]
        return {**exemplars, **dict(zip(present, kept, strict=True))}

    def deal(self, sizes: Sequence[np.ndarray]) -> list[int]:
        """Returns how many of its best images each class may keep, by bytes.

        Images are dealt in turns, the best of each class first, until the next
        one does not fit into a budget in bytes.

        Args:
            sizes: For each class, the bytes of its images, best first.

        Raises:
            ValueError: If the best image of some class does not fit.

        >>> Budget(size=10).deal([np.array([3, 1, 1]), np.array([2, 4, 2])])
        [2, 2]
        """
        counts = [len(part) for part in sizes]
        if self.size is None or not sizes:
            return counts
        owners = np.repeat(np.arange(len(sizes)), counts)
        turns = np.concatenate([np.arange(count) for count in counts])
        order = np.argsort(turns, kind="stable")
        totals = np.cumsum(np.concatenate(sizes)[order])
        kept = owners[order][totals <= self.size]
        dealt = np.bincount(kept, minlength=len(sizes)).tolist()
        if np.count_nonzero(dealt) < np.count_nonzero(counts):
            needed = int(sum(part[0] for part in sizes if len(part)))
            raise ValueError(
                f"budget={self.size} bytes is less than the best exemplar of "
                f"each of {len(sizes)} classes takes, {needed} bytes. Use a "
                "larger budget."
            )
        return dealt

    def _too_small(self, num_classes, image_bytes) -> str:
        if self.capacity is not None:
            return (
                f"capacity={self.capacity} holds less than one exemplar for "
                f"each of {num_classes} classes. Use capacity >= {num_classes}."
            )
        return (
            f"budget={self.size} bytes holds {self.size // image_bytes} "
            f"exemplars of {image_bytes} bytes: less than one for each of "
            f"{num_classes} classes. Use budget >= {num_classes * image_bytes}."
        )


def _checked_count(count) -> int:
    if isinstance(count, bool) or int(count) != count or count < 1:
        raise ValueError(
            f"The memory's budget is {count!r}; expected an integer of 1 or "
            "more images."
        )
    return int(count)
