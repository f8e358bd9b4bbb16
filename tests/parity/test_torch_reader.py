"""The Graph that the PyTorch reader gives computes what the module does, all three ways in."""

import numpy as np
import pytest
import torch
from tests.torch.zoo import EXPORT_ONLY, MODELS, ORDERED, ORDERS, randomize

from relucate.graph import evaluate
from relucate.graph.evaluate import EVALUATED
from relucate.torch.reading.program import Stopped
from relucate.torch.reading.reader import read_with_modules


def check(model, shape, expected_way=None, **options):
    reading = read_with_modules(model, shape, **options)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    model.eval()
    with torch.no_grad():
        expected = model(x.clone()).double().numpy()
    (found,) = evaluate(reading.graph, x.numpy())
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    if expected_way:
        assert reading.way == expected_way
    return reading


@pytest.fixture(autouse=True)
def products(monkeypatch):
    """The evaluator leaves products of two inputs out; here they are needed for attention."""
    monkeypatch.setitem(EVALUATED, "matmul", lambda node, xs, arrays: xs[0] @ xs[1])


@pytest.fixture
def exported(monkeypatch):
    """Make torch.fx stop at once."""

    def stop(*args):
        raise Stopped("by the test")

    monkeypatch.setattr("relucate.torch.reading.reader.trace", stop)


@pytest.fixture
def called(monkeypatch, exported):
    """Make torch.fx and torch.export stop at once."""

    def stop(*args):
        raise Stopped("by the test")

    monkeypatch.setattr("relucate.torch.reading.reader.export", stop)


@pytest.mark.parametrize("name", MODELS)
def test_families(name):
    factory, shape = MODELS[name]
    model = randomize(factory(), 0).train()
    check(model, shape, "export" if name in EXPORT_ONLY else "fx")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ORDERED)
def test_every_order(name, order):
    check(randomize(ORDERED[name](order), 0), MODELS[name][1])


@pytest.mark.parametrize(("fixture", "way"), [("exported", "export"), ("called", "call")])
@pytest.mark.parametrize("name", [name for name in MODELS if name not in EXPORT_ONLY])
def test_all_ways_give_the_same_graph(name, fixture, way, request):
    factory, shape = MODELS[name]
    model = randomize(factory(), 0)
    traced = read_with_modules(model, shape)
    request.getfixturevalue(fixture)
    other = check(model, shape, way)
    assert traced.way == "fx"
    assert list(traced.graph.nodes) == list(other.graph.nodes)
    for a, b in zip(traced.graph, other.graph, strict=True):
        assert a == b
    assert traced.graph.outputs == other.graph.outputs
    assert traced.graph.trainable == other.graph.trainable
    assert traced.graph.tensors.keys() == other.graph.tensors.keys()
    for key, array in traced.graph.tensors.items():
        np.testing.assert_array_equal(array, other.graph.tensors[key])
    assert traced.modules == other.modules
    assert traced.bindings == other.bindings


@pytest.mark.parametrize("name", sorted(EXPORT_ONLY))
def test_what_fx_cannot_trace_is_read_from_a_call(name, called):
    factory, shape = MODELS[name]
    check(randomize(factory(), 0), shape, "call")
