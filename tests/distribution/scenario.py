"""Runs small scenarios on one device, on two, or as one of several workers.

    python tests/distribution/scenario.py --out=FOLDER --strategy=two_devices

Several strategies of one process, with commas between, have a folder each.
Workers find each other by `TF_CONFIG`. Each writes what it ends up with:
weights and exemplars of each run as `RUN.npz`, figures as `figures.json`.
"""

import argparse
import dataclasses
import gc
import json
import pathlib

import keras
import numpy as np
import tensorflow as tf

import keras_incremental as ki


def without_batch_norm():
    return backbone_with(None)


def with_batch_norm():
    return backbone_with(keras.layers.BatchNormalization(momentum=0.8))


def small_and_synchronized():
    return ki.backbones.with_synchronized_normalization(
        ki.backbones.small((8, 8, 1))
    )


def backbone_with(normalization):
    image = keras.Input((8, 8, 1))
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(8, 3, activation="relu", name="first")(x)
    if normalization is not None:
        x = normalization(x)
    x = keras.layers.Conv2D(
        8, 3, activation="relu", name="last", kernel_regularizer="l2"
    )(x)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


@dataclasses.dataclass
class Run:
    """One scenario: what is built, and by which method it learns."""

    method: ki.methods.Method
    backbone: object = without_batch_norm
    branch_at: str | None = None
    loss: object = None
    augment: object = None
    capacity: int = 128
    tasks: int = 2
    is_published: bool = False
    policy: str = "float32"


RUNS = {
    "eeil": Run(
        ki.EEIL(
            finetune_epochs=2,
            gradient_noise=ki.methods.GradientNoise(eta=1e-2),
        ),
        augment=ki.augmentation.CropFlip(padding=1),
        capacity=4,  # used up by the third task
        tasks=3,
        is_published=True,
    ),
    "resumed": Run(
        ki.EEIL(
            finetune_epochs=2,
            gradient_noise=ki.methods.GradientNoise(eta=1e-2),
        ),
        augment=ki.augmentation.CropFlip(padding=1),
    ),
    "synchronized": Run(
        ki.EEIL(finetune_epochs=1),
        small_and_synchronized,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ),
    "batch_norm": Run(ki.Joint(), with_batch_norm),
    "joint": Run(ki.Joint()),
    "partial_sharing": Run(ki.PartialSharing(), branch_at="first", tasks=3),
    "mixed_float16": Run(ki.EEIL(finetune_epochs=1), policy="mixed_float16"),
}


def strategy_of(name):
    if name == "two_devices":
        devices = tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([d.name for d in devices])
    if name == "workers":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def tasks(number):
    """Tasks of two digits each, few images of each digit."""
    x_train, y_train, x_test, y_test = ki.scenarios.load_digits()
    scenario = ki.ClassIncrementalScenario.from_arrays(
        x_train[:250], y_train[:250], x_test[:100], y_test[:100],
        classes_per_task=2, seed=1,
    )  # fmt: skip
    return list(scenario)[:number]


def train(name, run, strategy, folder, options):
    """Returns model, memory and figures after the first three tasks."""
    keras.utils.set_random_seed(options.seed)
    keras.config.set_dtype_policy(run.policy)
    with strategy.scope():
        model = ki.IncrementalClassifier(
            run.backbone(), capacity=run.capacity, branch_at=run.branch_at
        )
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9),
            loss=run.loss,
            metrics=["sparse_categorical_accuracy"] if run.loss else None,
        )
    backup, serving = None, None
    if run.is_published:
        backup, serving = folder / "backup", folder / "serving"
    memory = ki.ExemplarMemory(capacity=41)
    incremental = ki.IncrementalCallback(
        memory,
        method=run.method,
        augment=run.augment,
        seed=3,
        backup_dir=options.backup or backup,
        publish_to=serving,
    )
    figures = {"history": [], "evaluated": []}
    for task in tasks(run.tasks):
        history = model.fit(
            task.train.batch(16),
            epochs=options.epochs,
            callbacks=[incremental],
            validation_data=task.test.batch(6),
            verbose=options.verbose,
        )
        figures["history"].append(history.history)
        seen = task.seen_test.batch(15)
        figures["evaluated"].append(
            model.evaluate(seen, return_dict=True, verbose=0)
        )
    figures["predicted"] = model.predict(
        np.zeros((5, 8, 8, 1)), batch_size=3, verbose=0
    ).tolist()
    figures["traces"] = model.train_function_traces
    figures["test_traces"] = model.test_function_traces
    figures["is_chief"] = ki.distribution.is_chief(strategy)
    return model, memory, figures


def write(name, folder, model, memory, figures):
    arrays = [keras.ops.convert_to_numpy(v) for v in model.state_variables()]
    images = [memory.images(label) for label in memory.labels]
    np.savez(
        folder / f"{name}.npz",
        *arrays,
        exemplars=np.concatenate(images),
    )
    (folder / f"{name}.json").write_text(json.dumps(figures))
    if figures["is_chief"]:
        model.save(folder / f"{name}.keras")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--strategy", default="one_device")
    parser.add_argument("--runs", default=",".join(RUNS))
    parser.add_argument("--backup", default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--verbose", type=int, default=0)
    parser.add_argument("--grappler", action="store_true")
    parser.add_argument("--differing", default="")
    options = parser.parse_args()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    if not options.grappler:  # it takes longer than such runs do
        tf.config.optimizer.set_experimental_options(
            {"disable_meta_optimizer": True}
        )
    strategies = options.strategy.split(",")
    if "two_devices" in strategies:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * 2,
        )
    for strategy in strategies:
        folder = options.out
        if len(strategies) > 1:
            folder = folder / strategy
        folder.mkdir(parents=True, exist_ok=True)
        run_all(strategy_of(strategy), folder, options)


def run_all(strategy, folder, options):
    for option in filter(None, options.differing.split(",")):
        print_refusal(option, strategy, folder, options)
    for name in filter(None, options.runs.split(",")):
        print(name, flush=True)
        parts = train(name, RUNS[name], strategy, folder, options)
        write(name, folder, *parts)


def print_refusal(option, strategy, folder, options):
    """Prints the error of a run with another value in each worker."""
    own = vars(options).copy()
    own[option] += strategy.cluster_resolver.task_id
    try:
        train("eeil", RUNS["eeil"], strategy, folder, argparse.Namespace(**own))
    except ValueError as error:
        print(f"{option}: {error}", flush=True)


if __name__ == "__main__":
    main()
