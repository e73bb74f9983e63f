"""Random changes of a batch of images, drawn inside `tf.data`.

They are apart from the data because what is stored is always the original
image: an exemplar is augmented anew wherever it is used, and never saved so.

An augmentation is any object with

- `copies`: int, the number of images made out of one;
- `stored`: bool, True if the images are made once per training stage and kept,
  False if they are drawn anew in each epoch;
- `__call__(images, seed)`: `(batch, h, w, c)` images of any number type and an
  integer seed of shape `(2,)` to `(batch * copies, h, w, c)` images of the same
  type. The copies of one image are adjacent; the same seed gives the same
  images.

`CropFlip`, `EEILAugmentation`, `StoredEEILAugmentation` and
`ImageNetEEILAugmentation` are four of them.
"""

from keras_incremental.augmentation.crop_flip import CropFlip
from keras_incremental.augmentation.eeil import (
    EEILAugmentation,
    StoredEEILAugmentation,
)
from keras_incremental.augmentation.eeil_imagenet import (
    ImageNetEEILAugmentation,
)

__all__ = [
    "CropFlip",
    "EEILAugmentation",
    "ImageNetEEILAugmentation",
    "StoredEEILAugmentation",
]
