r"""Finds how many of the first layers new tasks can share.

    python examples/sharing_search.py \
        --flagfile=examples/configs/sharing_digits.flags --output_dir=out

Trains the first task as the base, then the other tasks at several branch
points, each from the same base. With --demo_classes=N only the first task is
used: N of its classes are held out as the new task, so that the choice can be
made before any new class arrives. All flags of train.py apply; --branch_at is
where train.py would cut, and is tried as well.

The output folder gets search.json, search.png, search.txt, base.keras, and
cost.txt and cost.json of the chosen point.
"""

# ruff: noqa: I001  (train.py sets what TensorFlow reads when it is imported)
import os
import pathlib
import sys

import quick_help  # noqa: F401 (before TensorFlow is imported)
import train

from absl import app, flags

import keras_incremental as ki

_POINTS = flags.DEFINE_list(
    "points",
    [str(point) for point in ki.sharing.DEFAULT_POINTS],
    "Branch points: fractions of the layers, or layer names.",
)
_TOLERANCE = flags.DEFINE_float(
    "tolerance", 0.01, "Accuracy that sharing may lose.", lower_bound=0
)
flags.register_validator(
    "tolerance", lambda value: value < 1, message="Expected a number below 1."
)
_DEMO_CLASSES = flags.DEFINE_integer(
    "demo_classes",
    0,
    "Hold out so many classes of the first task as the new task.",
    lower_bound=0,
)
_BRANCH_EPOCHS = flags.DEFINE_integer(
    "branch_epochs", None, "Of a new task; as --epochs.", lower_bound=1
)


def make_method() -> ki.PartialSharing:
    """Returns the method that the flags ask for."""
    method = train.make_method()
    if not isinstance(method, ki.PartialSharing):
        raise ValueError(
            f"--method={flags.FLAGS.method} is no partial sharing; expected "
            "--method=partial_sharing and --branch_at."
        )
    return method


def check_points(points, model, method, memory) -> None:
    """Refuses a wrong branch point before any training."""
    for point in points:
        candidate = model.with_branch_at(point)
        if candidate.network.tail.weights:  # else the width does not matter
            method.check(candidate, memory)


def base_and_tasks(scenario):
    """Returns the task of the base, and the new tasks."""
    if _DEMO_CLASSES.value:
        base, demo = ki.sharing.hold_out(
            scenario[0], _DEMO_CLASSES.value, flags.FLAGS.seed
        )
        return base, [demo]
    first, *tasks = scenario
    if not tasks:
        raise ValueError(
            "--classes_per_task leaves no new task. Give several sizes, as in "
            "--classes_per_task=4,3,3, or hold classes out: --demo_classes=2."
        )
    return first, tasks


def train_base(model, base, incremental) -> None:
    """Trains the base on its task, as train.py would."""
    model.fit(
        base.train.batch(flags.FLAGS.batch_size),
        batch_size=flags.FLAGS.batch_size,
        epochs=flags.FLAGS.epochs,
        callbacks=[incremental],
    )


def write(curve, model, output_dir: pathlib.Path) -> None:
    """Writes table, figures and pictures."""
    curve.save(output_dir / "search.json")
    curve.plot(output_dir / "search.png")
    (output_dir / "search.txt").write_text(f"{curve}\n", encoding="utf-8")
    model.save(output_dir / "base.keras")
    try:
        cost = curve.chosen.cost
    except ValueError:
        return  # the table says which point came nearest
    cost.save(output_dir / "cost.json")
    (output_dir / "cost.txt").write_text(f"{cost}\n", encoding="utf-8")


def main(argv) -> None:
    """Runs the search; absl calls it."""
    if len(argv) > 1:
        sys.exit(f"sharing_search.py: unknown arguments: {argv[1:]}")
    train.set_up()
    try:
        output_dir = ki.reports.claim_output_dir(flags.FLAGS.output_dir)
        method = make_method()
        memory = train.make_memory(method)
        scenario = train.make_scenario()
        model = train.make_model(scenario)
        base, tasks = base_and_tasks(scenario)
        if memory is not None:
            memory.check_images(scenario.image_spec)
            labels = [k for task in (base, *tasks) for k in task.labels]
            memory.check_room(labels)
        points = [train.branch_point(text) for text in _POINTS.value]
        points.append(model.branch_at)
        check_points([0.0, *points], model, method, memory)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"sharing_search.py: {error}")
    train_base(model, base, train.make_callback(scenario, memory, method))
    curve = ki.sharing.search(
        model,
        tasks,
        points,
        _TOLERANCE.value,
        epochs=_BRANCH_EPOCHS.value or flags.FLAGS.epochs,
        batch_size=flags.FLAGS.batch_size,
        method=method,
        memory=memory,
        augment=train.AUGMENTATIONS[flags.FLAGS.augment](),
        seed=flags.FLAGS.seed,
    )
    write(curve, model, output_dir)
    print(curve)
    print(f"Picture: {os.path.join(output_dir, 'search.png')}")


if __name__ == "__main__":
    app.run(main, flags_parser=train.parse_flags)
