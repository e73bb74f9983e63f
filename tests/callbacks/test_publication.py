"""`publish_to`: a version after every step, and what is refused before one."""

import keras
import pytest
import tensorflow as tf

import keras_incremental as ki


@pytest.fixture
def learn(lend_tiny, blobs):
    """Returns a function that learns classes, and the model that it teaches."""

    def learn_with(publish_to, model=None, **options):
        model = model or lend_tiny()
        callback = ki.IncrementalCallback(
            ki.ExemplarMemory(8),
            method=ki.EEIL(finetune_epochs=1),
            publish_to=publish_to,
            **options,
        )

        def learn(labels):
            model.fit(*blobs(labels), verbose=0, callbacks=[callback])

        return model, learn

    return learn_with


@pytest.mark.slow
def test_every_step_publishes_a_version_with_its_classes(learn, tmp_path):
    _, step = learn(tmp_path / "served")
    step([0, 1])
    step([2])
    names = [
        (tmp_path / "served" / version / "assets" / "class_names.txt")
        .read_text()
        .split()
        for version in ("1", "2")
    ]
    assert names == [["0", "1"], ["0", "1", "2"]]


def test_a_destination_that_cannot_be_is_refused_before_the_step(
    learn, make_tiny_classifier, tmp_path
):
    file = tmp_path / "file"
    file.touch()
    for destination, error in (
        (file, NotADirectoryError),
        ("gs://bucket/model", ValueError),
    ):
        model, step = learn(destination, make_tiny_classifier())
        with pytest.raises(error, match="base"):
            step([0, 1])
        assert model.num_classes == 0
        assert model.train_function_traces == 0


def test_names_and_sizes_that_cannot_be_published_are_refused_before_the_step(
    learn, tmp_path
):
    model, step = learn(tmp_path, class_names=["a", "b\nc"])
    with pytest.raises(ValueError, match="line break"):
        step([0, 1])
    assert model.num_classes == 0
    images = keras.Input((None, None, 1))
    features = keras.layers.GlobalAveragePooling2D()(images)
    of_any_size = ki.IncrementalClassifier(keras.Model(images, features))
    of_any_size.compile("sgd")
    model, step = learn(tmp_path, of_any_size)
    with pytest.raises(ValueError, match="call it after fit"):
        step([0, 1])
    assert model.num_classes == 0


@pytest.mark.slow
def test_a_step_stays_learned_if_its_publication_fails(
    learn, tmp_path, monkeypatch
):
    def fail(*arguments, **options):
        raise tf.errors.ResourceExhaustedError(None, None, "disk full")

    model, step = learn(tmp_path / "served")
    with monkeypatch.context() as patch:
        patch.setattr(tf.saved_model, "save", fail)
        with pytest.raises(OSError, match=r"Cannot publish.*disk full"):
            step([0, 1])
    assert model.labels == [0, 1]
    assert not [*(tmp_path / "served").glob("[0-9]*")]
    assert ki.export.publish(model, tmp_path / "served").name == "1"
