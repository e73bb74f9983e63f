r"""Measures a learning rate on the first task, without any test image.

    python examples/first_task.py --learning_rate=0.05 \
        --flagfile=examples/configs/eeil_digits.flags --output_dir=out

Trains the first task on nine tenths of its training images and writes the
accuracy on the tenth that is held out to first_task.json. All flags of train.py
apply; benchmark.py --learning_rates=... calls this.
"""

# ruff: noqa: I001  (train.py sets what TensorFlow reads when it is imported)
import json
import pathlib
import sys

import train

import numpy as np
import tensorflow as tf
from absl import app, flags

from keras_incremental.files import atomic_write
from keras_incremental.predictions import predict

RECORD = "first_task.json"
_HELD_OUT = 10


def hold_out(images: tf.data.Dataset) -> tuple[tf.data.Dataset, ...]:
    """Returns nine tenths of a dataset of known length, and the rest."""
    drawn = np.random.default_rng(0).permutation(len(images))
    is_out = np.zeros(len(images), bool)
    is_out[drawn[: max(len(images) // _HELD_OUT, 1)]] = True

    def part(mask):
        kept = images.enumerate().filter(lambda i, _: tf.constant(mask)[i])
        count = tf.data.experimental.assert_cardinality(int(mask.sum()))
        return kept.map(lambda _, example: example).apply(count)

    return part(~is_out), part(is_out)


def main(argv) -> None:
    """Trains and measures; absl calls it."""
    if len(argv) > 1:
        sys.exit(f"first_task.py: unknown arguments: {' '.join(argv[1:])}")
    values = flags.FLAGS
    train.set_up()
    try:
        experiment = train.make_experiment()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"first_task.py: {error}")
    kept, held_out = hold_out(experiment.scenario[0].train)
    experiment.model.fit(
        kept.batch(values.batch_size),
        batch_size=values.batch_size,
        epochs=values.epochs,
        callbacks=[experiment.incremental],
    )
    accuracy = predict(experiment.model, held_out).accuracy
    print(f"learning rate {values.learning_rate}: {accuracy:.4f}")
    record = {"flags": experiment.flags, "accuracy": accuracy}
    folder = pathlib.Path(values.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / RECORD, "w") as file:
        json.dump(record, file)


if __name__ == "__main__":
    app.run(main, flags_parser=train.parse_flags)
