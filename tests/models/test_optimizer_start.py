"""What is set on an optimizer survives where it has to be made anew."""

import keras
import numpy as np
import pytest

import keras_incremental as ki

DECAY, RATE = 0.5, 0.25


def classifier(optimizer=None, branch_at=None):
    """A model whose head has room for two classes."""
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(3, bias_initializer="ones", name="first"),
            keras.layers.Dense(3, bias_initializer="ones", name="last"),
        ]
    )
    model = ki.IncrementalClassifier(backbone, capacity=2, branch_at=branch_at)
    model.add_classes([0, 1])
    if optimizer is not None:
        model.compile(optimizer, run_eagerly=True)  # quick to start
    return model


def decayed(model):
    """What one step without gradient changes: layer/variable."""
    variables = model.trainable_variables
    before = [variable.numpy() for variable in variables]
    for variable in variables:
        variable.assign(np.ones(variable.shape))
    model.optimizer.apply(
        [np.zeros(v.shape, "float32") for v in variables], variables
    )
    changed = {
        "/".join(variable.path.split("/")[-2:])
        for variable in variables
        if not np.all(variable.numpy() == 1)
    }
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    return changed


def add_branch(model, label):
    model.network = branched(model).with_branch()
    model.add_classes([label])


def branched(model):
    return ki.networks.BranchedNetwork.on(model.network)


def sgd(**options):
    return keras.optimizers.SGD(RATE, weight_decay=DECAY, **options)


def wrapped():
    return keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=4.0)


def inner_of(optimizer):
    return getattr(optimizer, "inner_optimizer", optimizer)


MAKERS = pytest.mark.parametrize("make", [sgd, wrapped])


@MAKERS
def test_exclusions_survive_a_doubled_head(make):
    model, optimizer = classifier(), make()
    hidden = model.backbone.get_layer("first")
    (kernel,) = [v for v in model.network.head.weights if v.name == "kernel"]
    inner_of(optimizer).exclude_from_weight_decay(
        var_list=[hidden.kernel, kernel], var_names=["bias"]
    )
    model.compile(optimizer)
    expected = {"last/kernel"}
    assert decayed(model) == expected
    model.add_classes([2])
    assert model.optimizer is not optimizer
    assert decayed(model) == expected  # head/kernel_1 is one with head/kernel


def test_exclusions_hold_for_clones_in_branches_and_when_these_are_undone():
    model, optimizer = classifier(branch_at="first"), sgd()
    first, last = model.backbone.layers[1:]
    optimizer.exclude_from_weight_decay(
        var_list=[first.bias, last.kernel], var_names=["head"]
    )
    model.compile(optimizer)
    expected = {"first/kernel", "last/bias"}
    assert decayed(model) == expected
    for label in (2, 3):
        add_branch(model, label)
        assert decayed(model) == {"last/bias"}
    model.remove_classes(1)
    assert decayed(model) == expected
    copy = model.with_branch_at(0.0)
    assert decayed(copy) == expected


def test_variables_of_like_names_are_told_apart():
    model, optimizer = classifier(), sgd()
    optimizer.exclude_from_weight_decay(
        var_list=[model.backbone.get_layer("first").kernel]
    )
    model.compile(optimizer)
    model.add_classes([2])
    assert {"last/kernel", "head/kernel", "head/kernel_1"} < decayed(model)


@MAKERS
def test_what_is_set_by_hand_survives(make, blobs):
    model = classifier(make(), branch_at="first")
    model.optimizer.learning_rate = 0.125
    inner_of(model.optimizer).weight_decay = 0.75
    model.add_classes([2])
    assert inner_of(model.optimizer).weight_decay == 0.75
    incremental = ki.IncrementalCallback(method=ki.FineTune())
    model.fit(*blobs([3, 4]), verbose=0, callbacks=[incremental])
    assert float(model.optimizer.learning_rate) == 0.125
    add_branch(model, 5)
    assert float(model.optimizer.learning_rate) == 0.125
    assert type(model.optimizer) is type(make())
    assert getattr(model.optimizer, "initial_scale", 4.0) == 4.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "rate",
    [keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5), lambda: 0.5],
    ids=["schedule", "function"],
)
def test_a_schedule_or_a_function_survives_also_set_by_hand(rate, blobs):
    model = classifier(sgd())
    incremental = ki.IncrementalCallback(method=ki.FineTune())
    for label in (2, 3, 4):
        model.fit(*blobs([label]), verbose=0, callbacks=[incremental])
        if label == 2:
            model.optimizer.learning_rate = rate
    model.add_classes([*range(5, 9)])
    assert float(model.optimizer.learning_rate) == 0.5


class Scaled(keras.optimizers.SGD):
    """A custom optimizer whose configuration lacks its own argument."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(self.factor * gradient, variable, learning_rate)


class WithoutArguments(keras.optimizers.SGD):
    def __init__(self):
        super().__init__(0.5)


class Whole(Scaled):
    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (Scaled(2.0), r"Scaled.get_config\(\) lacks \['factor'\].*self.factor"),
        (WithoutArguments(), "WithoutArguments.*Give the class a get_config"),
        (
            keras.optimizers.LossScaleOptimizer(Scaled(2.0)),
            "Scaled.get_config",
        ),
    ],
)
def test_an_optimizer_that_would_forget_is_refused_by_compile(
    optimizer, message
):
    with pytest.raises(TypeError, match=message):
        classifier(optimizer)


def test_a_custom_optimizer_with_its_configuration_goes_on():
    model = classifier(Whole(factor=2.0, learning_rate=0.5))
    model.add_classes([2])
    assert type(model.optimizer) is Whole
    assert model.optimizer.factor == 2.0
    assert model.with_branch_at("first").optimizer.factor == 2.0
