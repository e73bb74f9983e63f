"""Networks from raw images to feature vectors.

They are apart from the classifier because a class-incremental model replaces
everything after the features at every task, and nothing before them. Each
function returns a Functional model with its preprocessing inside, so that a
served model takes raw images; `as_feature_extractor` does the same for any
network the user already has.

The last layer of stage `k` is named `stage{k}`: a single tensor crosses there,
so the network can be cut at it.
"""

from keras_incremental.backbones.cifar_resnet import (
    resnet20,
    resnet32,
    resnet56,
)
from keras_incremental.backbones.feature_extractor import as_feature_extractor
from keras_incremental.backbones.imagenet_resnet import resnet18
from keras_incremental.backbones.small_convnet import small
from keras_incremental.backbones.synchronized import (
    with_synchronized_normalization,
)

__all__ = [
    "as_feature_extractor",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet56",
    "small",
    "with_synchronized_normalization",
]
