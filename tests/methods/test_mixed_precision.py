"""Every method trains in mixed precision, and its loss is scaled right."""

import keras
import numpy as np
import pytest

import keras_incremental as ki
from keras_incremental.export.precision import in_float32

POLICIES = ["mixed_float16", "mixed_bfloat16"]
METHODS = {
    "EEIL": lambda: ki.EEIL(
        finetune_epochs=2, gradient_noise=ki.methods.GradientNoise()
    ),
    "FineTune": ki.FineTune,
    "Joint": ki.Joint,
    "PartialSharing": ki.PartialSharing,
}


@pytest.fixture(autouse=True)
def _policy():
    yield
    keras.config.set_dtype_policy("float32")


def make(policy, momentum=0.9, rate=0.05):
    """Returns a model whose layers, weights aside, follow a policy."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    model = ki.IncrementalClassifier(
        ki.backbones.small((4, 4, 1)), branch_at="stage2"
    )
    optimizer = keras.optimizers.SGD(rate, momentum=momentum)
    model.compile(optimizer=optimizer)
    return model


def test_every_method_is_in_this_file():
    ours = {
        name
        for name, item in vars(ki.methods).items()
        if isinstance(item, type)
        and issubclass(item, ki.methods.Method)
        and item is not ki.methods.Method
    }
    assert ours == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("policy", POLICIES)
def test_trains_and_keeps_float32_weights(policy, method, blobs):
    model = make(policy)
    incremental = ki.IncrementalCallback(
        ki.ExemplarMemory(10), method=METHODS[method]()
    )
    tasks = ([0, 1], [2, 3], [4, 5])
    for labels in tasks:
        history = model.fit(
            *blobs(labels),
            epochs=8,
            batch_size=8,
            verbose=0,
            callbacks=[incremental],
        )
        assert np.isfinite(history.history["loss"]).all()
        logs = model.evaluate(*blobs(labels), verbose=0, return_dict=True)
        assert logs["accuracy"] > 0.7
    assert {w.dtype for w in model.trainable_weights} == {"float32"}
    logits = model.predict(blobs([0])[0], verbose=0)
    assert logits.shape[1] == 6 and logits.dtype == "float32"


def test_float16_scales_the_loss_and_the_step_is_that_of_float32(blobs):
    x, y = blobs([0, 1])
    moves, losses, start = [], [], None
    for policy in ("float32", "mixed_float16"):
        model = make(policy, momentum=0.0)
        model.add_classes([0, 1])
        start = start or model.get_weights()
        model.set_weights(start)
        before = flat(model.trainable_weights)
        losses += model.fit(x, y, batch_size=24, verbose=0).history["loss"]
        moves.append(flat(model.trainable_weights) - before)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    plain, scaled = moves
    assert np.linalg.norm(plain - scaled) < 0.05 * np.linalg.norm(plain) > 0


def flat(weights):
    return np.concatenate([weight.numpy().ravel() for weight in weights])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("branched", [False, True])
def test_the_float32_copy_computes_with_the_same_weights(
    policy, branched, blobs
):
    model = make(policy)
    model.add_classes([0, 1])
    if branched:
        model.add_branch([2, 3])
    copy = in_float32(model)
    x = blobs([0, 1])[0].astype("float32")
    assert copy(x).dtype == "float32"
    assert model(x).dtype == keras.DTypePolicy(policy).compute_dtype
    np.testing.assert_allclose(
        copy.predict(x, verbose=0), model.predict(x, verbose=0), atol=0.05
    )
    assert "float16" not in str(copy.get_config())
    assert in_float32(copy) is copy
