"""Models whose costs the tests report."""

import keras
import pytest
from keras import layers

import keras_incremental as ki


@pytest.fixture
def make_model(add_branch):
    """Returns a function that makes a model of two convolutions.

    `first`: 4x4x1 to 4x4x2, 288 MACs, 18 weights. `cut`: the identity.
    `second`: to 2x2x3, 216 MACs, 54 weights. Then `maps`, 12 values, pooled
    to 3 features.
    """

    def make(branch_at="cut", base_classes=4, later=()):
        keras.utils.set_random_seed(0)
        image = keras.Input((4, 4, 1), name="image")
        x = layers.Conv2D(2, 3, padding="same", use_bias=False, name="first")(
            image
        )
        x = layers.Identity(name="cut")(x)
        x = layers.Conv2D(3, 3, use_bias=False, name="second")(x)
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        model = ki.IncrementalClassifier(
            keras.Model(image, x), branch_at=branch_at
        )
        if base_classes:
            model.add_classes(range(base_classes))
        for classes in later:
            first = model.num_classes
            add_branch(model, range(first, first + classes))
        return model

    return make
