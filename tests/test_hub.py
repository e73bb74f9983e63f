"""Models with cards, in a folder and on the Hugging Face Hub."""

import inspect
import pathlib
import shutil
import sys
import types

import huggingface_hub
import keras
import numpy as np
import pytest

import keras_incremental as ki
from keras_incremental import hub
from keras_incremental.training import TaskReport

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), np.uint8)
NAMES = ["cat", 'the "dog": # 1', "Größe 🦊"]


@pytest.fixture
def model(lend_tiny):
    model = lend_tiny()
    model.add_classes([3, 1], NAMES[:2])
    model.add_classes([2], NAMES[2:])
    return model


@pytest.fixture
def incremental():
    """A callback that has taught one task."""
    incremental = ki.IncrementalCallback(method=ki.FineTune())
    incremental.reports.append(
        TaskReport(
            new_labels=[2],
            epochs=3,
            exemplars=0,
            train_seconds=1.0,
            overhead_seconds=0.5,
            details={},
            new_names=["fox"],
            images_by_class={"fox": 50},
            validation_images_by_class={"cat": 10, "fox": 10},
            accuracy_by_class_before={"cat": 0.9},
            accuracy_by_class={"cat": 0.7, "fox": 0.8},
            published="/home/me/serving/3",
        )
    )
    return incremental


def test_a_model_comes_back_from_its_folder(model, tmp_path):
    folder = hub.save_pretrained(model, tmp_path / "new" / "birds")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "model.keras",
    ]
    loaded = hub.load_pretrained(folder)
    assert (loaded.labels, loaded.class_names) == ([3, 1, 2], NAMES)
    np.testing.assert_allclose(
        loaded.predict(IMAGES, verbose=0),
        model.predict(IMAGES, verbose=0),
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_card_is_one_of_the_hub(model, incremental, tmp_path):
    metadata = {"license": "mit", "datasets": ["cifar10"]}
    hub.save_pretrained(model, tmp_path / "birds", incremental, metadata)
    card = huggingface_hub.ModelCard.load(tmp_path / "birds" / "README.md")
    data = card.data.to_dict()
    assert data["library_name"] == "keras"
    assert data["pipeline_tag"] == "image-classification"
    assert "class-incremental-learning" in data["tags"]
    assert data["classes"] == NAMES
    assert (data["license"], data["datasets"]) == ("mit", ["cifar10"])
    for text in (
        "# birds\n",
        "classifier of 3 classes, which has learned them in 2 tasks",
        "raw images of shape (4, 4, 1)",
        "ki.hub.load_pretrained('birds')",
        "Method: `FineTune(",
        f"```text\n{chr(10).join(NAMES)}\n```",
    ):
        assert text in card.text, text
    rows = [line.split() for line in card.text.splitlines()]
    assert ["cat", "0", "90.0%", "70.0%"] in rows
    assert ["fox", "50", "-", "80.0%"] in rows


def test_the_card_does_not_say_where_the_model_was_published(
    model, incremental, tmp_path
):
    hub.save_pretrained(model, tmp_path, incremental)
    assert "/home/me" not in (tmp_path / "README.md").read_text()


def test_a_model_comes_from_the_hub_s_cache(model, tmp_path, monkeypatch):
    """As it is without a network, of what was downloaded before."""
    commit = "0" * 40
    repo = tmp_path / "models--me--birds"
    hub.save_pretrained(model, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(
        huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path)
    )
    assert hub.load_pretrained("me/birds").class_names == NAMES


def test_what_is_uploaded_is_what_save_pretrained_writes(
    model, incremental, tmp_path, monkeypatch
):
    calls = []

    class Api:
        def __init__(self, **options):
            inspect.signature(huggingface_hub.HfApi).bind(**options)

        def create_repo(self, repo_id, **options):
            real = huggingface_hub.HfApi.create_repo
            inspect.signature(real).bind(self, repo_id, **options)
            calls.append((repo_id, options))

        def upload_folder(self, **options):
            real = huggingface_hub.HfApi.upload_folder
            inspect.signature(real).bind(self, **options)
            shutil.copytree(options["folder_path"], tmp_path / "uploaded")
            calls.append((options["repo_id"], options["commit_message"]))
            return types.SimpleNamespace(commit_url="https://hub/commit")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    address = hub.push(model, "me/birds", incremental, private=True)
    assert address == "https://hub/commit"
    assert calls == [
        ("me/birds", {"private": True, "exist_ok": True}),
        ("me/birds", "3 classes"),
    ]
    assert hub.load_pretrained(tmp_path / "uploaded").class_names == NAMES
    card = (tmp_path / "uploaded" / "README.md").read_text()
    assert "load_pretrained('me/birds')" in card


def test_a_damaged_model_is_refused(model, tmp_path):
    hub.save_pretrained(model, tmp_path)
    path = pathlib.Path(tmp_path / "model.keras")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.keras' is damaged"):
        hub.load_pretrained(tmp_path)


def test_what_cannot_be_saved_is_refused_before_anything_is(tmp_path, model):
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    with pytest.raises(TypeError, match=r"is a Sequential.*from_classifier"):
        hub.save_pretrained(other, tmp_path / "out")
    with pytest.raises(TypeError, match="not JSON serializable"):
        hub.save_pretrained(model, tmp_path / "out", metadata={"a": object()})
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_model_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model .*model\.keras"):
        hub.load_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no folder .*missing"):
        hub.load_pretrained(tmp_path / "missing")


def test_without_huggingface_hub_the_line_to_install_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"keras_incremental\[hub\]"):
        hub.load_pretrained("me/birds")
