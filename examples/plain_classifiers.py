"""Image classifiers as they are before this package comes in: Keras alone."""

import keras
import tensorflow as tf


def mobilenet_v2(image_shape, num_classes: int) -> keras.Model:
    """Returns a MobileNetV2 with its top, of random weights.

    Its first layer halves the image, so a small one is doubled before.
    """
    images = keras.Input(image_shape)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(images)
    x = keras.layers.UpSampling2D(2, interpolation="bilinear")(x)
    return keras.applications.MobileNetV2(
        input_tensor=x, alpha=0.35, weights=None, classes=num_classes
    )


def cnn(image_shape, num_classes: int) -> keras.Model:
    """Returns a small Sequential network with two dense layers at its end."""
    layers = [keras.Input(image_shape), keras.layers.Rescaling(1 / 255)]
    for filters in (32, 64, 128):
        layers += [
            keras.layers.Conv2D(filters, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(2),
        ]
    return keras.Sequential(
        [
            *layers,
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(num_classes, activation="softmax"),
        ]
    )


NETWORKS = {"mobilenet_v2": mobilenet_v2, "cnn": cnn}


def augmented(batches: tf.data.Dataset, seed: int) -> tf.data.Dataset:
    """Returns batches shifted by up to an eighth and mirrored at random."""
    augment = keras.Sequential(
        [
            keras.layers.RandomTranslation(
                0.125, 0.125, fill_mode="constant", seed=seed
            ),
            keras.layers.RandomFlip("horizontal", seed=seed),
        ]
    )
    return batches.map(
        lambda images, labels: (augment(images, training=True), labels)
    )


def fit(
    model: keras.Model,
    images: tf.data.Dataset,
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> None:
    """Trains a classifier with softmax outputs.

    Args:
        model: The classifier; it is compiled here.
        images: Pairs of image and integer label, not batched, of known number.
        epochs: How many.
        learning_rate: The first one; it falls to 0 as a cosine.
        batch_size: Images per batch.
        seed: Seed of shuffling and augmentation.
    """
    count = int(images.cardinality())
    schedule = keras.optimizers.schedules.CosineDecay(
        learning_rate, -(-count // batch_size) * epochs
    )
    model.compile(
        keras.optimizers.Adam(schedule),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    shuffled = images.cache().shuffle(count, seed=seed)
    model.fit(
        augmented(shuffled.batch(batch_size), seed).prefetch(2),
        epochs=epochs,
        shuffle=False,  # they are
    )
