"""A model whose student differs from its teacher."""

import keras
import numpy as np
import pytest

import keras_incremental as ki


@pytest.fixture(scope="module")
def module_model(make_tiny_backbone):
    model = ki.IncrementalClassifier(make_tiny_backbone(), capacity=8)
    for labels in ([0, 1], [2], [3, 4]):
        model.add_classes(labels)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    teacher = model.get_weights()
    random = np.random.default_rng(1)
    student = [
        value + random.normal(0, 0.3, value.shape).astype(value.dtype)
        if value.dtype == np.float32 and value.min() != value.max()
        else value
        for value in teacher
    ]
    return model, teacher, student


@pytest.fixture
def use(module_model):
    """Returns a function from an objective to the model that has it.

    The model has heads of 2, 1 and 2 classes and learns nothing, at a rate of
    0; its weights are not the teacher's.
    """
    model, teacher, student = module_model

    def set_up(objective):
        model.set_weights(teacher)
        model.use_objective(objective)
        model.set_weights(student)
        return model

    return set_up


@pytest.fixture(scope="module")
def data(blobs):
    """Images of an old and a new class, in one batch."""
    return blobs([0, 3], per_class=8)


@pytest.fixture
def outputs(module_model, data):
    """Logits of the student in training mode, and of the teacher."""
    model, teacher, student = module_model
    model.set_weights(teacher)
    teacher_logits = model(data[0], training=False).numpy()
    model.set_weights(student)
    logits = model(data[0], training=True).numpy()
    return logits, teacher_logits
