"""Networks from raw images to feature vectors.

They are apart from the classifier because a class-incremental model replaces
everything after the features at every task, and nothing before them. Each
function returns a Functional model with its preprocessing inside, so that a
served model takes raw images; `as_feature_extractor` does the same for any
network the user already has.

The weight decay of the papers is an L2 term in the gradient, on kernels alone:
`kernel_regularizer=keras.regularizers.L2(0.5e-4)` stands for 1e-4, for Keras'
`L2(l)` is `l * sum(w^2)`, of gradient `2 * l * w`. The `weight_decay` of Keras'
optimizers is another thing: outside of the momentum, so ten times weaker at a
momentum of 0.9, and on all variables.

The last layer of stage `k` is named `stage{k}`: a single tensor crosses there,
so the network can be cut at it.
"""

from keras_incremental.backbones.cifar_resnet import (
    resnet20,
    resnet32,
    resnet56,
)
from keras_incremental.backbones.efficientnet import efficientnet_lite0
from keras_incremental.backbones.feature_extractor import as_feature_extractor
from keras_incremental.backbones.imagenet_resnet import resnet18
from keras_incremental.backbones.pooled_layers import with_pooled_layers
from keras_incremental.backbones.small_convnet import small
from keras_incremental.backbones.synchronized import (
    with_synchronized_normalization,
)

__all__ = [
    "as_feature_extractor",
    "efficientnet_lite0",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet56",
    "small",
    "with_pooled_layers",
    "with_synchronized_normalization",
]
