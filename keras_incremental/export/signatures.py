"""What a served model computes: functions of tensors, ready to be saved."""

import tensorflow as tf

from keras_incremental.scenarios.image_files import image_decoder

MOST_RANKED = 1000
ENCODED = "image/encoded"
_STRINGS = tf.TensorSpec((None,), tf.string)


def signatures(model, shape):
    """Returns the concrete functions of a model by their signature's name.

    The model is traced once; all signatures call that trace. The outputs are
    described at `keras_incremental.export.publish`.

    Args:
        model: an `IncrementalClassifier`.
        shape: Shape of one raw input, `(height, width, channels)`.

    >>> import keras_incremental as ki
    >>> model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
    >>> model.add_classes(["cat", "dog"])
    >>> list(signatures(model, (8, 8, 1)))
    ['serving_default', 'serving_bytes', 'classify', 'classification']
    """
    ranked = _ranking(model)

    @tf.function(input_signature=[_STRINGS], autograph=False)
    def serving_bytes(image_bytes):
        return ranked(_decoded(image_bytes, shape))

    @tf.function(input_signature=[_STRINGS], autograph=False)
    def classify(inputs):
        feature = {ENCODED: tf.io.FixedLenFeature((), tf.string)}
        return serving_bytes(tf.io.parse_example(inputs, feature)[ENCODED])

    @tf.function(input_signature=[_STRINGS], autograph=False)
    def classification(inputs):
        outputs = classify(inputs)
        scores = tf.gather(
            outputs["probabilities"], outputs["class_ids"], batch_dims=1
        )
        return {"classes": outputs["classes"], "scores": scores}

    functions = {"serving_default": ranked}
    if len(shape) == 3 and shape[-1] in (1, 3):  # grey or RGB pictures
        functions["serving_bytes"] = serving_bytes
        functions["classify"] = classify
        functions["classification"] = classification
    return {
        name: function.get_concrete_function()
        for name, function in functions.items()
    }


def _ranking(model):
    """Returns the function from raw images to probabilities and ranking."""
    names, best = model.class_names, min(model.num_classes, MOST_RANKED)
    raw = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)

    @tf.function(input_signature=[raw], autograph=False)
    def ranked(images):
        count = tf.shape(images)[0]
        logits = model(_one_or_more(images), training=False)[:count]
        logits = tf.cast(logits, tf.float32)
        # The head's number of columns is only known when the graph runs.
        logits.set_shape((None, len(names)))
        probabilities = tf.nn.softmax(logits)
        class_ids = tf.math.top_k(probabilities, best).indices
        return {
            "probabilities": probabilities,
            "classes": tf.gather(tf.constant(names), class_ids),
            "class_ids": class_ids,
        }

    return ranked


def _one_or_more(images):
    """Returns a batch as it is, or one black image in place of none.

    Not every layer computes on an empty batch on every device.
    """
    # A padding would leave a converter without the images' size.
    missing = tf.maximum(1 - tf.shape(images)[:1], 0)
    black = tf.zeros(tf.concat([missing, tf.shape(images)[1:]], 0))
    return tf.concat([images, black], 0)


def _decoded(image_bytes, shape):
    """Returns image files as raw images, `(batch, *shape)` float32."""
    images = tf.map_fn(
        image_decoder(tuple(shape[:2]), shape[-1]),
        image_bytes,
        fn_output_signature=tf.TensorSpec(shape, tf.uint8),
    )
    return tf.cast(images, tf.float32)
