"""How much a memory may hold, and what of it is each class' share."""

from keras_incremental.exemplars.byte_size import parse_bytes
from keras_incremental.exemplars.ranking import Share


class Budget:
    """A bound on images in all, on images of each class, or on bytes in all.

    Args:
        capacity: images in all.
        per_class: images of each class.
        size: bytes in all as they are stored, an integer or a text.

    Raises:
        ValueError: unless exactly one is given, 1 or more.
        TypeError: if `size` is neither an integer nor a text.

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
            num_classes: that share the budget.
            image_bytes: what each image takes as it is stored; `None` if that
                differs or is not known.

        Raises:
            ValueError: if it is less than one image for each class, or a
                number of bytes is no number of images.
        """
        if self.per_class is not None:
            return [self.per_class] * num_classes
        capacity = self._images(image_bytes)
        if num_classes > capacity:
            raise ValueError(self._too_small(num_classes, image_bytes))
        share, left = divmod(capacity, max(num_classes, 1))
        return [share + (unit < left) for unit in range(num_classes)]

    def shares(
        self, labels: list, image_bytes: int | None, sizes_differ: bool
    ) -> dict[int | str, Share]:
        """Returns the share of each class, by label.

        Args:
            labels: of the classes.
            image_bytes: as of `quotas`.
            sizes_differ: whether they share bytes, and not a number of images.
        """
        if sizes_differ:
            return dict.fromkeys(
                labels, Share(size=self.size // max(len(labels), 1))
            )
        quotas = self.quotas(len(labels), image_bytes) if labels else []
        return {
            label: Share(images=quota)
            for label, quota in zip(labels, quotas, strict=True)
        }

    def _images(self, image_bytes) -> int:
        if self.capacity is not None:
            return self.capacity
        if image_bytes is None:
            raise ValueError(
                f"budget={self.size} bytes is no number of images: they differ "
                "in size as they are stored, or the memory is empty. Pass "
                "image_spec=, or give the memory a capacity."
            )
        return self.size // image_bytes

    def _too_small(self, num_classes, image_bytes) -> str:
        if self.capacity is not None:
            return (
                f"capacity={self.capacity} holds less than one exemplar for "
                f"each of {num_classes} classes. Use capacity >= {num_classes}."
            )
        return (
            f"budget={self.size} bytes holds {self._images(image_bytes)} "
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
