"""`examples/add_classes.py` as a user runs it, day after day."""

import json

import keras
import numpy as np
import pytest
from absl import flags

import keras_incremental as ki
from keras_incremental.training import TaskReport

COLOURS = {
    "red": (200, 40, 40),
    "green": (40, 200, 40),
    "blue": (40, 40, 200),
    "yellow": (200, 200, 40),
    "cyan": (40, 200, 200),
    "white": (220, 220, 220),
}
OLD = ["red", "green", "blue"]
QUICK = ["--epochs=6", "--finetune_epochs=2", "--batch_size=16"]


def draw(name, count, seed):
    """Noisy 8x8 images of a colour."""
    noise = np.random.default_rng(seed).normal(0, 20, (count, 8, 8, 3))
    return (COLOURS[name] + noise).clip(0, 255).astype("uint8")


def write_folder(path, names, count=15, seed=1):
    """Writes class folders of PNG images."""
    for name in names:
        folder = path / name
        folder.mkdir(parents=True)
        for index, image in enumerate(draw(name, count, seed)):
            keras.utils.save_img(folder / f"{index}.png", image, scale=False)
    return path


def trained(seed=0):
    """A CNN of the three old colours, its last layer solved for them."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Rescaling(1 / 127.5, offset=-1),
            layers.Conv2D(8, 3, activation="tanh"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(16, activation="tanh"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    features = np.concatenate([draw(name, 40, 0) for name in OLD])
    for layer in model.layers[:-1]:
        features = layer(features)
    x = np.c_[features, np.ones(len(features))]
    targets = 4 * np.repeat(np.eye(3), 40, axis=0)
    solution = np.linalg.solve(x.T @ x + 0.1 * np.eye(17), x.T @ targets)
    model.layers[-1].set_weights([solution[:-1], solution[-1]])
    return model


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A trained CNN of three colours, and folders of images."""
    home = tmp_path_factory.mktemp("add_classes")
    trained().save(home / "trained.keras")
    write_folder(home / "old", OLD)
    write_folder(home / "new", ["yellow", "cyan"])
    write_folder(home / "more", ["white"])
    return home


@pytest.fixture(scope="module")
def script(load):
    """The module `examples/add_classes.py`."""
    with load("add_classes") as module:
        yield module


@pytest.fixture(scope="module")
def monday(home, script, run_main, published):
    """What the first day's run printed."""
    del published
    return run_main(
        script,
        f"--model={home / 'trained.keras'}",
        f"--class_names={','.join(OLD)}",
        f"--images={home / 'new'}",
        f"--old_images={home / 'old'}",
        "--memory_size=30",
        f"--output_dir={home / 'monday'}",
        f"--export_dir={home / 'serving'}",
        *QUICK,
    )


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def a_report(accuracy=0.7):
    """The report of a task that added one class."""
    return TaskReport(
        new_labels=[3],
        epochs=1,
        exemplars=30,
        train_seconds=1.0,
        overhead_seconds=1.0,
        details={},
        new_names=["yellow"],
        validation_images_by_class={"yellow": 10},
        accuracy_by_class={"yellow": accuracy},
    )


@pytest.mark.slow
def test_new_classes_are_learned_and_old_ones_measured(home, monday):
    report = report_of(home / "monday")
    assert sorted(report["accuracy_by_class_before"]) == sorted(OLD)
    assert sorted(report["new_names"]) == ["cyan", "yellow"]
    assert report["old_accuracy_before"] > 0.9
    assert report["old_accuracy"] > 0.6
    assert report["new_accuracy"] > 0.6
    assert report["images_by_class"] == {"cyan": 12, "yellow": 12}
    assert sum(report["validation_images_by_class"].values()) == 5 * 3
    assert report["exemplars"] == 30
    assert report["epochs"] == 6 + 2
    assert report["train_seconds"] > 0


@pytest.mark.slow
def test_the_grown_model_is_published(home, monday, published):
    (model,) = published
    assert sorted(model.class_names) == sorted([*OLD, "cyan", "yellow"])
    version = home / "serving" / "1"
    assert report_of(home / "monday")["published"] == str(version)
    assert f"Published as {version}" in monday


@pytest.mark.slow
def test_the_last_lines_are_the_report(home, monday):
    report = report_of(home / "monday")
    lines = monday.strip().splitlines()
    (new,) = [line for line in lines if line.startswith("new ")]
    assert new.split() == ["new", "24", f"{report['new_accuracy']:.1%}"]
    assert lines[-1] == f"Wrote {home / 'monday' / 'model.keras'}"


@pytest.mark.parametrize("accuracy", [0.5, 0.7])
def test_a_gate_decides_on_the_publication(
    main, script, tmp_path, monkeypatch, published, accuracy
):
    report = a_report(accuracy)
    monkeypatch.setattr(script, "add_classes", lambda *args: report)
    before = len(published)
    main(export_dir=tmp_path / "serving", min_new_accuracy=0.6)
    written = report_of(tmp_path / "out")
    assert len(published) - before == (accuracy > 0.6)
    assert (written["published"] is None) == (accuracy < 0.6)
    assert (written["not_published"] is None) == (accuracy > 0.6)


@pytest.mark.slow
def test_the_files_hold_the_grown_model_and_its_memory(home, monday):
    model = keras.models.load_model(home / "monday" / "model.keras")
    assert model.class_names[:3] == OLD
    assert dict(zip(model.labels, model.class_names, strict=True)) == {
        0: "red",
        1: "green",
        2: "blue",
        3: "cyan",
        4: "yellow",
    }
    memory = ki.ExemplarMemory.load(home / "monday" / "memory")
    assert sorted(memory.labels) == [0, 1, 2, 3, 4]
    assert {len(memory.images(k)) for k in memory.labels} == {6}
    fresh = np.concatenate([draw(n, 4, 9) for n in model.class_names])
    hits = model.classify(fresh) == np.repeat(model.class_names, 4)
    assert hits.mean() > 0.6
    for name in ("confusion.png", "before_after.png"):
        assert (home / "monday" / name).stat().st_size > 1000


@pytest.mark.slow
def test_the_next_day_goes_on_from_model_and_memory(
    home, monday, main, monkeypatch
):
    """Up to the training, which is as on the first day."""
    del monday

    class TrainingError(Exception):
        pass

    def fit(model, images, *, validation_data, epochs, callbacks):
        (step,) = callbacks
        assert model.class_names[:3] == OLD
        assert sorted(model.class_names[3:]) == ["cyan", "yellow"]
        assert (len(step.memory), len(step.memory.labels)) == (30, 5)
        assert step.method == ki.EEIL(finetune_epochs=4)
        assert epochs == 2
        held_out = np.concatenate([labels for _, labels in validation_data])
        assert set(held_out.tolist()) == {5}
        labels = np.concatenate([labels for _, labels in images])
        assert set(labels.tolist()) == {5}
        raise TrainingError

    monkeypatch.setattr(ki.IncrementalClassifier, "fit", fit)
    with pytest.raises(TrainingError):
        main(
            model=home / "monday" / "model.keras",
            class_names=None,
            memory=home / "monday" / "memory",
            images=home / "more",
            epochs=2,
            finetune_epochs=4,
        )


def test_class_names_are_read_from_a_file_one_a_line(script, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("red\n green \nblue, dark\n\n", encoding="utf-8")
    assert script.read_names(str(names)) == ["red", "green", "blue, dark"]
    assert script.read_names("red, green") == ["red", "green"]


def test_a_folder_of_a_known_class_is_more_data_of_it(script, home, tmp_path):
    del home
    model = ki.IncrementalClassifier.from_classifier(trained(), OLD)
    write_folder(tmp_path / "images", ["red", "white"], count=5)
    task = script.read_folder(str(tmp_path / "images"), (8, 8, 3))
    label_of = script.labels_by_name(model, sorted(task.class_names))
    assert label_of == {"red": 0, "green": 1, "blue": 2, "white": 3}
    batches = script.labelled(task, label_of, "train")
    labels = np.concatenate([labels for _, labels in batches])
    assert sorted(labels.tolist()) == [0] * 4 + [3] * 4
    held_out = script.labelled(task, label_of, "test")
    labels = np.concatenate([labels for _, labels in held_out])
    assert sorted(labels.tolist()) == [0, 3]


# Mistakes, each of which is one line.


def arguments(home, tmp_path, **changes):
    """A command line for the trained model, with changes; `None` removes."""
    given = {
        "model": home / "trained.keras",
        "class_names": ",".join(OLD),
        "images": home / "new",
        "epochs": 1,
        "output_dir": tmp_path / "out",
        **changes,
    }
    return [f"--{k}={v}" for k, v in given.items() if v is not None]


@pytest.fixture
def main(script, home, tmp_path, run_main):
    """Returns a function that runs the script in this process."""

    def main(**changes):
        return run_main(script, *arguments(home, tmp_path, **changes))

    return main


@pytest.fixture
def refusal(main, tmp_path):
    """Returns a function that runs with a mistake and returns the message."""

    def refusal(**changes):
        with pytest.raises(SystemExit) as stop:
            main(**changes)
        assert not (tmp_path / "out" / "model.keras").exists()
        (line,) = str(stop.value.code).splitlines()
        assert line.startswith("add_classes.py: ")
        return line

    return refusal


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": "nowhere"}, "There is no folder 'nowhere'"),
        ({"model": "nowhere.keras"}, "There is no model 'nowhere.keras'"),
        ({"class_names": None}, "Pass the names of its classes"),
        ({"class_names": "red,green"}, "has 3 outputs"),
        ({"class_names": "red,green,red"}, "['red'] occur more often"),
        ({"class_names": "nowhere.txt"}, "no file of class names"),
        ({"image_size": 16}, "the model takes images of 8x8"),
        ({"memory": "nowhere"}, "does not exist"),
        ({"memory_size": 1}, "capacity=1 holds less than one exemplar"),
        ({"min_new_accuracy": 60}, "expected a number from 0 to 1"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(refusal, changes, message):
    assert message in refusal(**changes)


def test_wrong_files_are_told_in_one_line(refusal, home, tmp_path):
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"this is no model")
    assert "broken.keras" in refusal(model=broken)
    text = tmp_path / "text" / "class"
    text.mkdir(parents=True)
    (text / "a.png").write_text("this is no image")
    assert "are not JPEG, PNG" in refusal(images=tmp_path / "text")
    torn = tmp_path / "torn" / "class"
    torn.mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (torn / name).write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    assert "png" in refusal(images=tmp_path / "torn").lower()
    old = home / "new"
    assert "does not know: cyan, yellow" in refusal(old_images=old)


@pytest.mark.slow
def test_a_memory_of_another_model_and_needless_names_are_refused(
    refusal, home, monday
):
    del monday
    memory = home / "monday" / "memory"
    assert "that the model does not know" in refusal(memory=memory)
    grown = home / "monday" / "model.keras"
    assert "Leave it out" in refusal(model=grown)


def test_a_used_output_folder_is_refused(refusal, home, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "confusion.png").write_bytes(b"")
    assert "already holds confusion.png" in refusal()


@pytest.mark.parametrize("typo", ["--imagez=new", "--epochs=0", "--seed=-1"])
def test_a_wrong_flag_is_refused_before_anything_is_read(
    typo, script, home, tmp_path, run_main, monkeypatch
):
    monkeypatch.setattr(script, "main", pytest.fail)
    with pytest.raises(flags.Error):
        run_main(script, *arguments(home, tmp_path), typo)


def test_a_failed_publication_loses_nothing(
    main, script, tmp_path, monkeypatch
):
    report = a_report()
    monkeypatch.setattr(script, "add_classes", lambda *args: report)
    (tmp_path / "serving").write_text("a file is in the way")
    with pytest.raises(SystemExit) as stop:
        main(export_dir=tmp_path / "serving")
    assert "serving" in str(stop.value.code)
    assert report_of(tmp_path / "out") == report.to_json()


# In processes of its own.


@pytest.mark.slow
def test_two_days_in_processes_of_their_own(tmp_path, home, run_process):
    names = tmp_path / "names.txt"
    names.write_text("red\ngreen\nblue\n\n")
    write_folder(tmp_path / "images", ["red", "white"], count=5)
    first = run_process(
        "add_classes.py",
        f"--model={home / 'trained.keras'}",
        f"--class_names={names}",
        f"--images={tmp_path / 'images'}",
        "--epochs=1",
        f"--output_dir={tmp_path / 'first'}",
    )
    assert first.returncode == 0, first.stderr
    report = report_of(tmp_path / "first")
    assert report["new_names"] == ["white"]
    # The held-out image of the known class counts as old.
    assert report["old_accuracy_before"] in (0.0, 1.0)
    assert report["published"] is None
    assert report["validation_images_by_class"] == {"red": 1, "white": 1}
    memory = ki.ExemplarMemory.load(tmp_path / "first" / "memory")
    counts = {k: len(memory.images(k)) for k in memory.labels}
    assert counts == {0: 4, 1: 0, 2: 0, 3: 4}
    second = run_process(
        "add_classes.py",
        f"--model={tmp_path / 'first' / 'model.keras'}",
        f"--memory={tmp_path / 'first' / 'memory'}",
        f"--images={home / 'new'}",
        f"--old_images={home / 'old'}",
        f"--output_dir={tmp_path / 'second'}",
        f"--export_dir={tmp_path / 'serving'}",
        *QUICK,
    )
    assert second.returncode == 0, second.stderr
    report = report_of(tmp_path / "second")
    assert report["published"] == str(tmp_path / "serving" / "1")
    assert (tmp_path / "serving" / "1" / "saved_model.pb").is_file()
    model = keras.models.load_model(tmp_path / "second" / "model.keras")
    assert model.class_names[:4] == [*OLD, "white"]
    fresh = np.concatenate([draw(n, 4, 9) for n in model.class_names])
    hits = model.classify(fresh) == np.repeat(model.class_names, 4)
    assert hits.mean() > 0.6
