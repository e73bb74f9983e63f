"""What measured statistics of batch normalisation are worth.

    python benchmarks/batch_statistics.py

The handwritten digits as 4 + 3 + 3 classes, by EEIL and by partial sharing with
100 exemplars, with Keras' default momentum of 0.99 and with 0.9, statistics
left to the momentum or measured at the end of each phase. Prints the average
incremental accuracy, the final one, and the seconds that are no training, each
as a mean over seeds.
"""

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from absl import app, flags

import keras_incremental as ki
from keras_incremental.experiment import Experiment

_EPOCHS = flags.DEFINE_integer("epochs", 6, "Of each task.", lower_bound=1)
_FINETUNE_EPOCHS = flags.DEFINE_integer("finetune_epochs", 10, "Of EEIL.")
_SAMPLES_PER_CLASS = flags.DEFINE_integer(
    "samples_per_class", None, "Use so many training images."
)
_MOMENTA = flags.DEFINE_list("momenta", ["0.99", "0.9"], "Of the statistics.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each kind.", lower_bound=1)


def run(method: ki.Method, momentum: float, measured: bool, seed: int) -> dict:
    """Learns all digits; returns the results."""
    keras.utils.set_random_seed(seed)
    scenario = ki.ClassIncrementalScenario.from_arrays(
        *ki.scenarios.load_digits(),
        classes_per_task=[4, 3, 3],
        seed=seed,
        samples_per_class=_SAMPLES_PER_CLASS.value,
    )
    backbone = ki.backbones.small(scenario.image_shape)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum
    model = ki.IncrementalClassifier(backbone, branch_at="stage2")
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    incremental = ki.IncrementalCallback(
        ki.ExemplarMemory(100),
        method,
        seed=seed,
        measure_statistics=measured,
    )
    return Experiment(
        scenario,
        model,
        incremental,
        epochs=_EPOCHS.value,
        batch_size=32,
        verbose=0,
    )()


def row(method: ki.Method, momentum: float, measured: bool) -> list[float]:
    """Returns the means over seeds."""
    found = []
    for seed in range(_SEEDS.value):
        results = run(method, momentum, measured, seed)
        overhead = sum(task["overhead_seconds"] for task in results["tasks"])
        found.append(
            [
                results["average_incremental_accuracy"],
                results["final_accuracy"],
                overhead,
            ]
        )
    return np.mean(found, axis=0).tolist()


def main(argv) -> None:
    del argv
    print("method          momentum  measured  average  final  overhead")
    methods = {
        "EEIL": ki.EEIL(finetune_epochs=_FINETUNE_EPOCHS.value),
        "PartialSharing": ki.PartialSharing(),
    }
    for name, method in methods.items():
        for momentum in map(float, _MOMENTA.value):
            for measured in (False, True):
                average, final, overhead = row(method, momentum, measured)
                print(
                    f"{name:14}  {momentum:8}  {measured!s:8}  {average:7.3f}  "
                    f"{final:5.3f}  {overhead:6.1f} s",
                    flush=True,
                )


if __name__ == "__main__":
    app.run(main)
