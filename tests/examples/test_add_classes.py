"""`examples/add_classes.py` as a user runs it, day after day."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from unittest import mock

import keras
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

import keras_incremental as ki

ROOT = pathlib.Path(__file__).parents[2]
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


def run(*args):
    """Runs the script in a process of its own."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / "add_classes.py"), *args],
        env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=500,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A trained CNN of three colours, and folders of images."""
    home = tmp_path_factory.mktemp("add_classes")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy"
    )
    images = np.concatenate([draw(name, 40, 0) for name in OLD])
    model.fit(images, np.repeat([0, 1, 2], 40), epochs=12, verbose=0)
    model.save(home / "trained.keras")
    write_folder(home / "old", OLD)
    write_folder(home / "new", ["yellow", "cyan"])
    write_folder(home / "more", ["white"])
    return home


@pytest.fixture(scope="module")
def monday(home):
    process = run(
        f"--model={home / 'trained.keras'}",
        f"--class_names={','.join(OLD)}",
        f"--images={home / 'new'}",
        f"--old_images={home / 'old'}",
        "--memory_size=30",
        f"--output_dir={home / 'monday'}",
        *QUICK,
    )
    assert process.returncode == 0, process.stderr
    return process


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def test_new_classes_are_learned_and_old_ones_measured(home, monday):
    report = report_of(home / "monday")
    assert report["old_classes"] == OLD
    assert sorted(report["new_classes"]) == ["cyan", "yellow"]
    assert report["old_accuracy_before"] > 0.9
    assert report["old_accuracy_after"] > 0.6
    assert report["new_accuracy"] > 0.6
    assert report["images_held_out"] == 5 * 3
    assert report["exemplars"] == 30
    assert report["classes_without_exemplars"] == 0
    assert report["epochs"] == 6 + 2
    assert report["seconds"] > report["train_seconds"] > 0
    assert report["published"] is None


def test_the_summary_names_the_classes_and_figures(home, monday):
    report = report_of(home / "monday")
    *_, first, second, third = monday.stdout.strip().splitlines()
    assert first.startswith("3 classes known, 2 added: ")
    assert f"{100 * report['new_accuracy']:.1f}%" in second
    assert third.startswith("30 exemplars")


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
    assert (home / "monday" / "confusion.png").stat().st_size > 1000


def test_the_next_day_goes_on_from_model_and_memory(home, monday):
    process = run(
        f"--model={home / 'monday' / 'model.keras'}",
        f"--memory={home / 'monday' / 'memory'}",
        f"--images={home / 'more'}",
        f"--output_dir={home / 'tuesday'}",
        *QUICK,
    )
    assert process.returncode == 0, process.stderr
    report = report_of(home / "tuesday")
    assert report["new_classes"] == ["white"]
    assert len(report["old_classes"]) == 5
    assert report["old_accuracy_before"] is None
    assert "not measured before" in process.stdout
    assert report["exemplars"] == 30
    assert report["epochs"] == 6 + 2  # balanced: the memory has every class
    model = keras.models.load_model(home / "tuesday" / "model.keras")
    assert model.labels[-1] == 5
    names = [*OLD, "yellow", "cyan", "white"]
    fresh = np.concatenate([draw(name, 4, 9) for name in names])
    hits = model.classify(fresh) == np.repeat(names, 4)
    assert hits.mean() > 0.6


def test_class_names_from_a_file_and_more_data_of_a_known_class(home, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("red\ngreen\nblue\n\n")
    write_folder(tmp_path / "images", ["red", "white"], count=5)
    process = run(
        f"--model={home / 'trained.keras'}",
        f"--class_names={names}",
        f"--images={tmp_path / 'images'}",
        "--epochs=1",
        f"--output_dir={tmp_path / 'out'}",
    )
    assert process.returncode == 0, process.stderr
    report = report_of(tmp_path / "out")
    assert report["new_classes"] == ["white"]
    # The held-out image of the known class counts as old.
    assert report["old_accuracy_before"] in (0.0, 1.0)
    assert report["images_held_out"] == 2
    assert report["classes_without_exemplars"] == 2
    memory = ki.ExemplarMemory.load(tmp_path / "out" / "memory")
    counts = {k: len(memory.images(k)) for k in memory.labels}
    assert counts == {0: 4, 1: 0, 2: 0, 3: 4}


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


@pytest.fixture(scope="module")
def script():
    """The module `examples/add_classes.py`; its flags go with the tests."""
    path = ROOT / "examples" / "add_classes.py"
    spec = importlib.util.spec_from_file_location("add_classes_example", path)
    module = importlib.util.module_from_spec(spec)
    with (
        mock.patch.dict(os.environ),
        mock.patch.dict(sys.modules, {spec.name: module}),
    ):
        spec.loader.exec_module(module)
        yield module
    for flag in list(flags.FLAGS.flags_by_module_dict()[spec.name]):
        delattr(flags.FLAGS, flag.name)


@pytest.fixture
def main(script, home, tmp_path):
    """Returns a function that runs the script in this process."""

    def main(**changes):
        with flagsaver.flagsaver():
            flags.FLAGS.unparse_flags()
            flags.FLAGS(["add_classes", *arguments(home, tmp_path, **changes)])
            script.main(["add_classes"])

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


def test_a_mistake_ends_the_script_with_one_line(home, tmp_path):
    process = run(*arguments(home, tmp_path, images="nowhere"))
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    last = process.stderr.strip().splitlines()[-1]
    assert last.startswith("add_classes.py: There is no folder 'nowhere'")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "nowhere.keras"}, "There is no model 'nowhere.keras'"),
        ({"class_names": None}, "Pass the names of its classes"),
        ({"class_names": "red,green"}, "has 3 outputs"),
        ({"class_names": "red,green,red"}, "['red'] occur more often"),
        ({"class_names": "nowhere.txt"}, "no file of class names"),
        ({"image_size": 16}, "the model takes images of 8x8"),
        ({"memory": "nowhere"}, "does not exist"),
        ({"memory_size": 1}, "capacity=1 holds less than one exemplar"),
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


# Publishing.


def test_the_grown_model_is_published(main, tmp_path, capsys):
    main(export_dir=tmp_path / "serving")
    report = report_of(tmp_path / "out")
    version = pathlib.Path(report["published"])
    assert version == tmp_path / "serving" / "1"
    assert (version / "saved_model.pb").is_file()
    assert f"published {version}" in capsys.readouterr().out


def test_a_failed_publication_loses_nothing(main, tmp_path):
    (tmp_path / "serving").write_text("a file is in the way")
    with pytest.raises(SystemExit) as stop:
        main(export_dir=tmp_path / "serving")
    assert "serving" in str(stop.value.code)
    assert report_of(tmp_path / "out")["published"] is None
    assert (tmp_path / "out" / "model.keras").is_file()
