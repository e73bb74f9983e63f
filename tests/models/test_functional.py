"""The classifier as an ordinary Functional model."""

import keras
import numpy as np
import pytest

import keras_incremental as ki
from keras_incremental.networks import BranchedNetwork, OneHeadNetwork

X = np.random.default_rng(0).integers(0, 255, (5, 4, 4, 1), "uint8")


@pytest.fixture(params=[None, BranchedNetwork, OneHeadNetwork], ids=str)
def model(request, tiny_backbone, add_branch):
    """Five classes in two heads, with branches or without."""
    model = ki.IncrementalClassifier(tiny_backbone, branch_at=0.5)
    model.add_classes([40, 7, 9])
    if request.param is None:
        model.add_classes([1, 2])
    else:
        add_branch(model, [1, 2], kind=request.param)
    model.compile("sgd", run_eagerly=True)
    return model


def test_it_computes_what_the_classifier_does(model):
    plain = model.as_functional()
    plain.run_eagerly = True
    expected = model.predict(X, verbose=0)
    np.testing.assert_allclose(
        plain.predict(X, verbose=0), expected, rtol=1e-5, atol=1e-6
    )
    assert plain.output_shape == (None, 5)


def test_the_score_rule_is_part_of_it(tiny_backbone):
    model = ki.IncrementalClassifier(tiny_backbone)
    model.add_classes([40, 7])
    model.score_rule = ki.score_rules.NearestMean(np.eye(2, 16))
    expected = model(X, training=False)
    plain = model.as_functional()
    np.testing.assert_allclose(plain(X), expected, rtol=1e-5)


def test_summary_counts_the_classes_in_use(tiny_backbone):
    model, lines = ki.IncrementalClassifier(tiny_backbone, capacity=64), []
    model.add_classes([40, 7, 9])
    model.add_classes([1, 2])
    model.summary(print_fn=lines.append, line_length=100)
    dense, normalization, head = 16 * 16, 4 * 16, (16 + 1) * 5
    assert "(None, 5)" in lines[0]
    assert f"Total params: {dense + normalization + head} " in lines[0]
    assert f"Non-trainable params: {2 * 16} " in lines[0]


def test_summary_tells_frozen_branches_from_the_one_that_is_trained(model):
    lines, network = [], model.network
    model.summary(print_fn=lines.append, line_length=100)
    trained = [v for v in model.trainable_variables if "head" not in v.path]
    count = sum(np.prod(v.shape, dtype=int) for v in trained)
    units = network.trained_units
    count += (network.feature_dim + 1) * (units.stop - units.start)
    assert f" Trainable params: {count} " in lines[0]


def test_a_model_without_classes_has_a_summary(tiny_backbone):
    lines = []
    model = ki.IncrementalClassifier(tiny_backbone)
    model.summary(print_fn=lines.append)
    assert "(None, 16)" in lines[0] and "head" not in lines[0]


@pytest.mark.slow
def test_it_can_be_drawn(model, tmp_path):
    pytest.importorskip("pydot")
    if not _has_graphviz():
        pytest.skip("Graphviz is not installed.")
    path = tmp_path / "model.png"
    keras.utils.plot_model(
        model.as_functional(), path, show_shapes=True, splines="spline"
    )
    assert path.stat().st_size > 5000
    keras.utils.plot_model(model, path)


def _has_graphviz():
    import pydot

    try:
        return bool(pydot.Dot().create())
    except (OSError, AssertionError):
        return False
