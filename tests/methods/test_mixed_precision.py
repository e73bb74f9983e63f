"""Every method trains in mixed precision, and its loss is scaled right."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.models import in_float32
from keras_incremental.networks import BranchedNetwork

POLICIES = ["mixed_float16", "mixed_bfloat16"]
every_policy = pytest.mark.parametrize(
    "policy",
    [POLICIES[0], pytest.param(POLICIES[1], marks=pytest.mark.slow)],
)
METHODS = {
    "EEIL": ki.EEIL(
        finetune_epochs=1, gradient_noise=ki.methods.GradientNoise()
    ),
    "FineTune": ki.FineTune(),
    "Joint": ki.Joint(),
    "PartialSharing": ki.PartialSharing(),
    "ICaRL": ki.ICaRL(),
    "LwFMC": ki.LwFMC(),
    "WeightAligning": ki.WeightAligning(),
    "BiC": ki.BiC(),
    "SeparatedSoftmax": ki.SeparatedSoftmax(),
    "Replay": ki.Replay(),
    "BranchedRehearsal": ki.BranchedRehearsal(),
    "Analytic": ki.Analytic(),
}
# The others distil by softmax as EEIL does, by sigmoids as ICaRL does, or solve
# on float32 logits.
QUICK = {"EEIL", "FineTune", "Joint", "PartialSharing", "ICaRL"}


def make(policy, make_backbone, momentum=0.9, rate=0.05):
    """Returns a model whose layers, weights aside, follow a policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        backbone = make_backbone()
        model = ki.IncrementalClassifier(
            backbone, branch_at=backbone.layers[len(backbone.layers) // 3].name
        )
        optimizer = keras.optimizers.SGD(rate, momentum=momentum)
        model.compile(optimizer=optimizer)
    finally:
        keras.config.set_dtype_policy(before)
    return model


@pytest.fixture(name="models", scope="module")
def _models(make_tiny_backbone):
    return {policy: make(policy, make_tiny_backbone) for policy in POLICIES}


def test_every_method_is_in_this_file():
    ours = {
        name
        for name, item in vars(ki.methods).items()
        if isinstance(item, type)
        and issubclass(item, ki.methods.Method)
        and item is not ki.methods.Method
    }
    assert ours == set(METHODS)


@pytest.mark.parametrize(
    ("policy", "method"),
    [
        pytest.param(
            policy,
            method,
            marks=pytest.mark.slow,
        )
        for policy in POLICIES
        for method in METHODS
        if policy == POLICIES[0] or method in QUICK
    ],
)
def test_trains_and_keeps_float32_weights(
    policy, method, models, blobs, restored
):
    model = models[policy]
    incremental = ki.IncrementalCallback(
        ki.ExemplarMemory(10), method=METHODS[method]
    )
    with restored(model):
        for labels in ([0, 1], [2, 3]):
            history = fit(model, incremental, blobs(labels), epochs=2)
            assert np.isfinite(history.history.get("loss", [])).all()
            logs = model.evaluate(*blobs(labels), verbose=0, return_dict=True)
            assert np.isfinite(logs["loss"])
        assert np.isfinite(flat(model.trainable_weights)).all()
        assert {w.dtype for w in model.trainable_weights} == {"float32"}
        state = {w.dtype for w in model.network.state_variables()}
        assert state == {"float32", "int32"}  # weights, and counts of classes
        images, _ = blobs([0])
        logits, features = model.network(images)
        compute = keras.DTypePolicy(policy).compute_dtype
        assert logits.dtype == compute
        assert model.predict(images, verbose=0).dtype == np.float32
        assert model.extract_features(images).dtype == np.float32
        assert features.shape[0] == len(images)


def fit(model, incremental, data, **options):
    return model.fit(
        *data, batch_size=8, verbose=0, callbacks=[incremental], **options
    )


@pytest.mark.parametrize(
    ("policy", "tolerance"),
    # Rounding to 11 and to 8 bits; both are far from a wrong loss scale.
    [
        ("mixed_float16", 0.05),
        pytest.param("mixed_bfloat16", 0.2, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "branched", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_a_step_is_that_of_float32(
    policy, tolerance, branched, blobs, make_tiny_backbone
):
    moves, losses, start = [], [], None
    data = blobs([2, 3] if branched else [0, 1])
    for one in ("float32", policy):
        model = make(one, make_tiny_backbone, momentum=0.0)
        if branched:
            model.add_classes([0, 1])
            model.network = BranchedNetwork.on(model.network).with_branch()
        model.add_classes([2, 3] if branched else [0, 1])
        start = start or model.get_weights()
        model.set_weights(start)
        before = flat(model.trainable_weights)
        batches = tf.data.Dataset.from_tensors(
            (
                {"images": data[0]},
                (model.classes.to_units(data[1]) - 2 * branched),
            )
        )
        losses += model.fit_units(batches, verbose=0).history["loss"]
        moves.append(flat(model.trainable_weights) - before)
    is_scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert is_scaled == (policy == "mixed_float16")
    assert losses[1] == pytest.approx(losses[0], rel=0.2 * tolerance)
    plain, rounded = moves
    off = np.linalg.norm(plain - rounded)
    assert off < tolerance * np.linalg.norm(plain) > 0


def flat(weights):
    return np.concatenate([weight.numpy().ravel() for weight in weights])


@every_policy
@pytest.mark.parametrize("branched", [False, True])
def test_the_float32_copy_computes_with_the_same_weights(
    policy, branched, models, blobs, restored
):
    model = models[policy]
    x = blobs([0, 1])[0].astype("float32")
    with restored(model):
        model.add_classes([0, 1])
        if branched:
            model.network = BranchedNetwork.on(model.network).with_branch()
            model.add_classes([2, 3])
        copy = in_float32(model)
        assert copy(x).dtype == "float32"
        assert model(x).dtype == keras.DTypePolicy(policy).compute_dtype
        np.testing.assert_allclose(
            copy.predict(x, verbose=0), model.predict(x, verbose=0), atol=0.05
        )
    assert "float16" not in str(copy.get_config())
    assert in_float32(copy) is copy
