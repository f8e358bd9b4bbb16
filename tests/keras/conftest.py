"""Shared by the tests of Keras -> Graph -> PyTorch: random weights, three-way comparison."""

import keras
import numpy as np
import pytest
import torch

from relucate.graph import evaluate
from relucate.graph.ops import COMMON, OPERATIONS
from relucate.keras.reading.reader import read
from relucate.torch import lower


def set_random_weights(model, seed=0):
    """Random weights and statistics: a fresh norm is the identity and hides mistakes."""
    random = np.random.default_rng(seed)
    for variable in model.weights:
        if "float" not in str(variable.dtype):
            continue
        low, high = (0.5, 2.0) if "variance" in variable.name else (-1.0, 1.0)
        if variable.name.startswith("gamma"):
            low, high = 0.5, 1.5
        variable.assign(random.uniform(low, high, variable.shape).astype("float32"))
    return model


def inputs_of(model, batch=3, seed=1, unknown=7):
    random = np.random.default_rng(seed)
    shapes = [[unknown if n is None else n for n in t.shape[1:]] for t in model.inputs]
    return [random.normal(size=(batch, *shape)).astype("float32") for shape in shapes]


def as_arrays(outputs):
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(outputs)]


def assert_close(got, expected, tolerance=2e-5):
    expected = np.asarray(expected, np.float64)
    scale = max(np.abs(expected).max(initial=0.0), 1e-3)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale)


def three_ways(model, *, training=False, oracle=True, unknown=7):
    """Keras, NumPy and PyTorch agree on the outputs (and in training mode on the statistics)."""
    set_random_weights(model)
    xs = inputs_of(model, unknown=unknown)
    graph = read(model)
    module = lower(graph).train(training)
    expected = as_arrays(model(xs if len(xs) > 1 else xs[0], training=training))
    with torch.no_grad():
        got = module(*map(torch.from_numpy, xs))
    got = got if isinstance(got, tuple) else (got,)
    for ours, theirs in zip(got, expected, strict=True):
        assert_close(ours.numpy(), theirs)
    if oracle and not training:
        for slow, theirs in zip(evaluate(graph, *xs), expected, strict=True):
            assert_close(slow, theirs)
    after = read(model).tensors
    for key, array in module.get_tensors().items():
        assert_close(array, after[key])
    return graph, module


def evaluated(model, *xs, unknown=7, tolerance=2e-5):
    """Keras and NumPy agree at inference on random weights; return the graph."""
    set_random_weights(model)
    xs = xs or inputs_of(model, unknown=unknown)
    graph = read(model)
    expected = as_arrays(model(list(xs) if len(xs) > 1 else xs[0], training=False))
    for slow, theirs in zip(evaluate(graph, *xs), expected, strict=True):
        assert_close(slow, theirs, tolerance)
    for node in graph:
        known = OPERATIONS[node.op]
        assert node.attrs.keys() <= known.attrs.keys() | COMMON
        more = node.op in {"attention", "opaque"} or node.attrs.keys() & {"reparametrized", "lora"}
        assert more or set(node.arrays) <= set(known.arrays)
    return graph


@pytest.fixture(scope="session", name="evaluated")
def _evaluated():
    return evaluated


@pytest.fixture(scope="session")
def randomize():
    return set_random_weights


@pytest.fixture(scope="session")
def agree():
    return three_ways
