"""Batch statistics over all devices that share a batch."""

import keras


def with_synchronized_normalization(network: keras.Model) -> keras.Model:
    """Returns a copy whose batch normalisation sees the whole batch.

    Where several replicas share a batch, `keras.layers.BatchNormalization`
    normalises by the statistics of each replica's part alone, which is other
    arithmetic than on one device. In the copy its layers, those of nested
    models too, have `synchronized=True`: mean and variance are those of the
    whole batch, at the price of a sum over the replicas in each of them, and of
    the fused operation.

    Args:
        network: Functional or Sequential model with weights, a backbone for
            example; it is not changed. Call it in the strategy's scope.

    Returns:
        A model of the same names and weights.

    >>> from keras_incremental.backbones import small
    >>> network = with_synchronized_normalization(small((8, 8, 1)))
    >>> network.get_layer("stage1_block1_bn1").synchronized
    True
    """

    def synchronized(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            config["synchronized"] = True
        return type(layer).from_config(config)

    copy = keras.models.clone_model(
        network, clone_function=synchronized, recursive=True
    )
    copy.set_weights(network.get_weights())
    return copy
