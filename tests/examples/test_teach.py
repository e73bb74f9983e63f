"""`examples/teach.py` as somebody runs it, week after week."""

from unittest import mock

import keras
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

import keras_incremental as ki

COLOURS = {
    "red": (200, 40, 40),
    "green": (40, 200, 40),
    "blue": (40, 40, 200),
    "yellow": (200, 200, 40),
}


def write_folder(path, names, count=10, size=12):
    """Writes class folders of noisy photos, larger than the model takes."""
    random = np.random.default_rng(0)
    for name in names:
        (path / name).mkdir(parents=True)
        for index in range(count):
            noise = random.normal(0, 20, (size, size + 2, 3))
            image = (COLOURS[name] + noise).clip(0, 255)
            file = path / name / f"{index}.png"
            keras.utils.save_img(file, image, scale=False)
    return path


def pretrained():
    """Stands in for a network that has seen the world: a mean of colours."""
    return ki.IncrementalClassifier(
        keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                keras.layers.Rescaling(1 / 255),
                keras.layers.GlobalAveragePooling2D(),
            ]
        )
    )


def some_digits(load_digits=ki.scenarios.load_digits):
    """Every fifth image of each part."""
    return tuple(part[::5] for part in load_digits())


@pytest.fixture(name="script", scope="module")
def _script(load):
    with (
        load("teach") as module,
        mock.patch.object(ki.scenarios, "load_digits", some_digits),
    ):
        module.pretrained_model = module.new_model
        module.new_model = pretrained
        yield module


@pytest.fixture
def without_pictures(monkeypatch):
    """For tests that do not look at them: they take most of the time."""
    for name in ("plot_mistakes", "plot_before_after"):
        monkeypatch.setattr(ki.reports, name, lambda *_: None)


@pytest.fixture
def teach(script, capsys):
    """Returns a function that runs the script; returns what it printed."""

    def run(*args):
        with flagsaver.flagsaver():
            flags.FLAGS.unparse_flags()
            script.main(flags.FLAGS(["teach.py", *args]))
        return capsys.readouterr().out

    return run


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with photos of two classes, and of two more."""
    write_folder(tmp_path / "photos", ["red", "green"])
    write_folder(tmp_path / "more", ["blue", "green", "yellow"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "branch_at", "features"),
    [
        ("analytic", "stage5", 1280 + 112 + 4 * 192),  # last, stages 5 and 6
        ("replay", "stage6_block3_out", 1280),
    ],
)
def test_a_closed_form_has_features_of_inner_layers_as_well(
    script, monkeypatch, method, branch_at, features
):
    untrained = ki.backbones.efficientnet_lite0
    monkeypatch.setattr(
        ki.backbones,
        "efficientnet_lite0",
        lambda shape, weights: untrained(shape),
    )
    with flagsaver.flagsaver():
        flags.FLAGS(["teach.py", "--image_size=32", f"--method={method}"])
        model = script.pretrained_model()
    assert model.branch_at == branch_at
    image = np.zeros((1, 32, 32, 3), np.uint8)
    assert model.extract_features(image).shape == (1, features)


@pytest.mark.slow
def test_classes_are_added_week_after_week(teach, home):
    first = teach("--model=my.keras", "--images=photos")
    assert "green" in first and "red" in first
    first = keras.models.load_model("my.keras")
    assert sorted(first.labels) == ["green", "red"]
    second = teach("--model=my.keras", "--images=more")
    assert "old" in second and "new" in second
    model = keras.models.load_model("my.keras")
    assert sorted(model.labels) == ["blue", "green", "red", "yellow"]
    counts = dict(zip(model.labels, model.score_rule.sums.counts, strict=True))
    assert counts == {"green": 16, "red": 8, "blue": 8, "yellow": 8}
    assert len(list((home / "my_held_out").rglob("*.png"))) == 10
    for name in ("my_mistakes.png", "my_before_after.png"):
        assert (home / name).stat().st_size > 1000
    named = teach(
        "--model=my.keras", "--try=more/blue/0.png", "--try=photos/red/1.png"
    ).splitlines()
    assert named[0].startswith("more/blue/0.png: blue")
    assert named[1].startswith("photos/red/1.png: red")


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
def test_a_class_is_forgotten(teach, home):
    teach("--model=my.keras", "--images=more")
    assert (home / "my_held_out" / "blue").exists()
    teach("--model=my.keras", "--forget=blue")
    model = keras.models.load_model("my.keras")
    assert sorted(model.labels) == ["green", "yellow"]
    assert not (home / "my_held_out" / "blue").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
def test_a_bad_version_is_not_published(teach, home):
    teach("--model=my.keras", "--images=photos", "--publish_to=served")
    write_folder(home / "wrong", ["red", "green"])
    (home / "wrong" / "red").rename(home / "wrong" / "x")
    (home / "wrong" / "green").rename(home / "wrong" / "y")
    text = teach(
        "--model=my.keras",
        "--images=wrong",
        "--publish_to=served",
        "--max_old_accuracy_drop=0.0",
    )
    versions = [path.name for path in (home / "served").iterdir()]
    assert "Not published" in text
    assert versions == ["1"]


@pytest.mark.slow
def test_exemplars_are_kept_by_methods_that_need_them(teach, home):
    teach(
        "--model=my.keras", "--images=photos", "--method=replay", "--epochs=1"
    )
    teach("--model=my.keras", "--images=more", "--method=replay", "--epochs=1")
    assert len(ki.ExemplarMemory.load(home / "my_memory").labels) == 4


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--images=photos"], "--model=my.keras"),
        (["--model=my.keras", "--try=a.png"], "no model 'my.keras'"),
        (["--model=my.keras", "--images=nowhere"], "nowhere"),
        (["--model=my.keras", "--images=."], "image"),
        (["--model=my.keras", "photos"], "unknown arguments: photos"),
    ],
)
def test_mistakes_are_told(teach, home, args, message):
    with pytest.raises(SystemExit, match=message):
        teach(*args)
    assert not (home / "my.keras").exists()


@pytest.mark.usefixtures("without_pictures")
def test_photos_that_cannot_be_read_are_named(teach, home):
    teach("--model=my.keras", "--images=photos")
    (home / "text.jpg").write_text("no image")
    with pytest.raises(SystemExit, match=r"text\.jpg"):
        teach("--model=my.keras", "--try=text.jpg")


@pytest.mark.slow
def test_it_teaches_itself_digits(script, teach, home):
    text = teach()
    assert "Wrote digits.keras" in text
    model = keras.models.load_model("digits.keras")
    assert sorted(model.labels) == [str(digit) for digit in range(10)]
