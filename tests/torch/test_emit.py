"""What each operation becomes is compared with Keras in tests/keras; here what it can't show."""

import numpy as np
import pytest
import torch

from relucate.graph import Graph, Node, evaluate, select
from relucate.graph.evaluate import EVALUATED
from relucate.torch import lower
from relucate.torch.lowering.emit import EMITTERS

ACTIVATIONS = select(kind="act", lowers=True)
RANDOM = np.random.default_rng(0)


def one(op, shape=(None, 5, 4), **attrs):
    nodes = {"x": Node("x", "input", (), shape), "y": Node("y", op, ("x",), shape, attrs=attrs)}
    return Graph("g", nodes, ("x",), ("y",), {})


def test_what_can_be_lowered_can_be_evaluated():
    assert set(EMITTERS) < set(EVALUATED)


ATTRS = {
    "leaky_relu": {"negative_slope": 0.3},
    "elu": {"alpha": 0.7},
    "celu": {"alpha": 0.7},
    "squareplus": {"b": 2.0},
    "hard_shrink": {"threshold": 0.3},
    "soft_shrink": {"threshold": 0.3},
    "gelu": {"approximate": True},
    "relu": {"negative_slope": 0.3, "threshold": 0.2, "max_value": 1.1},
    "hard_tanh": {"min_value": -0.7, "max_value": 1.3},
    "rrelu": {"lower": 0.1, "upper": 0.4},
    "threshold": {"threshold": 0.3, "value": -0.6},
}


@pytest.mark.parametrize("op", sorted(ACTIVATIONS - {"prelu", "glu"}))
def test_activation_with_its_attributes(op):
    graph = one(op, **ATTRS.get(op, {}))
    x = RANDOM.normal(size=(6, 5, 4)).astype("float32") * 2
    got = lower(graph).eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, evaluate(graph, x)[0], rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("op", sorted(ACTIVATIONS - {"prelu", "glu"}))
def test_activation_gradient(op):
    """Against central differences of the evaluator, away from kinks."""
    graph = one(op, shape=(None, 40), **ATTRS.get(op, {}))
    x = np.linspace(-2.9, 2.85, 40).reshape(1, 40) + 0.0123
    direction = np.cos(np.arange(40.0))
    leaf = torch.from_numpy(x).requires_grad_()
    (lower(graph).eval()(leaf) * torch.from_numpy(direction)).sum().backward()
    expected = np.zeros(40)
    for i in range(40):
        step = np.zeros((1, 40))
        step[0, i] = 1e-6
        up, down = (evaluate(graph, x + s * step)[0] for s in (1, -1))
        expected[i] = ((up - down) @ direction).item() / 2e-6
    np.testing.assert_allclose(leaf.grad.numpy().ravel(), expected, atol=1e-6)


SHAPE = (None, 6, 5, 4)


def image(after_pool):
    """An input, with a pool that changes nothing but its layout; the name of the last node."""
    nodes = {"x": Node("x", "input", (), SHAPE)}
    if after_pool:
        pool = {"window": (1, 1), "strides": (1, 1), "padding": "valid"}
        nodes["p"] = Node("p", "max_pool", ("x",), SHAPE, attrs=pool)
    return nodes, [*nodes][-1]


@pytest.mark.parametrize("spatial", [1, -1])
@pytest.mark.parametrize("after_pool", [False, True])
def test_spatial_dropout_drops_the_channels_of_the_graph(spatial, after_pool):
    """Also where an operation before it moved another axis to the front."""
    nodes, source = image(after_pool)
    nodes["y"] = Node("y", "dropout", (source,), SHAPE, attrs={"rate": 0.5, "spatial": spatial})
    torch.manual_seed(0)
    y = lower(Graph("g", nodes, ("x",), ("y",), {})).train()(torch.ones(8, 6, 5, 4))
    by_channel = y.movedim(spatial, 1).flatten(2)
    assert bool((by_channel == by_channel[:, :, :1]).all())
    assert len(by_channel[:, :, 0].unique()) == 2


NOISE_SHAPES = {
    "whole examples": ("dropout", {"noise_shape": (None, 1, 1, 1)}, (1, 2, 3)),
    "stochastic depth": ("stochastic_depth", {}, (1, 2, 3)),
    "whole rows": ("dropout", {"noise_shape": (None, None, 1, 1)}, (2, 3)),
    "one draw for all examples": ("dropout", {"noise_shape": (1, None, 5, 4)}, (0,)),
    "the last axes only": ("dropout", {"noise_shape": (5, 1)}, (0, 1, 3)),
}


@pytest.mark.parametrize("after_pool", [False, True])
@pytest.mark.parametrize("case", NOISE_SHAPES)
def test_dropout_draws_once_for_what_its_noise_shape_says(case, after_pool):
    op, attrs, shared = NOISE_SHAPES[case]
    nodes, source = image(after_pool)
    nodes["y"] = Node("y", op, (source,), SHAPE, attrs={"rate": 0.5, **attrs})
    module = lower(Graph("g", nodes, ("x",), ("y",), {}))
    torch.manual_seed(0)
    y = module.train()(torch.ones(40, 6, 5, 4)).numpy()
    first = y[tuple(slice(0, 1) if axis in shared else slice(None) for axis in range(4))]
    np.testing.assert_array_equal(y, np.broadcast_to(first, y.shape))
    assert set(np.unique(first)) == {0.0, 2.0}
    for axis in set(range(4)) - set(shared):
        assert np.any(np.ptp(first, axis=axis))
    np.testing.assert_array_equal(module.eval()(torch.ones(2, 6, 5, 4)), np.ones((2, 6, 5, 4)))


@pytest.mark.parametrize("after_pool", [False, True])
@pytest.mark.parametrize(
    "shapes", [{"scale": (4,)}, {"offset": (5, 1)}, {"scale": (1, 6, 1, 4), "offset": ()}], ids=str
)
def test_affine_is_lowered_with_its_gradient(shapes, after_pool):
    nodes, source = image(after_pool)
    arrays = {role: f"a/{role}" for role in shapes}
    nodes["y"] = Node("y", "affine", (source,), SHAPE, "a", arrays=arrays)
    tensors = {f"a/{r}": RANDOM.normal(size=s).astype("float32") for r, s in shapes.items()}
    graph = Graph("g", nodes, ("x",), ("y",), tensors, trainable=frozenset({"a/scale"}))
    module = lower(graph)
    x = RANDOM.normal(size=(3, 6, 5, 4)).astype("float32")
    y = module(torch.from_numpy(x))
    np.testing.assert_allclose(y.detach(), evaluate(graph, x)[0], rtol=1e-6, atol=1e-6)
    learned = [p for p in module.parameters() if p.requires_grad]
    assert len(learned) == ("scale" in shapes)
    for parameter in learned:
        y.sum().backward()
        axes = tuple(range(4 - parameter.ndim))
        expected = x.sum(axis=axes)
        expected = (
            expected.sum(
                axis=tuple(i for i, n in enumerate(parameter.shape) if n == 1), keepdims=True
            )
            if parameter.ndim == 4
            else expected
        )
        np.testing.assert_allclose(parameter.grad, expected, rtol=1e-4, atol=1e-4)


def test_dropout_rate():
    torch.manual_seed(0)
    y = lower(one("dropout", rate=0.25)).train()(torch.ones(100, 5, 4))
    assert float((y == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(y.max()) == pytest.approx(1 / 0.75)


@pytest.mark.parametrize("shape", [(6, 4, 1), (7, 3, 1), (6, 3, 3)], ids=str)
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("op", ["conv", "depthwise_conv"])
def test_wide_strides_of_one_channel(op, padding, shape):
    """PyTorch 2.13 gets these wrong if nothing is done about the memory layout."""
    kernel = RANDOM.normal(size=(2, 3, shape[-1], 4)).astype("float32")
    attrs = {"strides": (1, 3), "padding": padding, "dilation": (1, 1)}
    nodes = {"x": Node("x", "input", (), (None, *shape))}
    nodes["y"] = Node("y", op, ("x",), (None, None, 1, 4), "y", 0, attrs, {"kernel": "k"})
    graph = Graph("g", nodes, ("x",), ("y",), {"k": kernel})
    x = RANDOM.normal(size=(16, *shape)).astype("float32")
    got = lower(graph)(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(got, evaluate(graph, x)[0], atol=1e-5)
