"""Slices and crops: where the channels are, and what layout their gradient has."""

import numpy as np
import pytest
import torch

from relucate.graph import Graph, Node, evaluate
from relucate.torch import lower
from relucate.torch.modules import cut

SHAPE = (None, 6, 5, 4)
ENDS = [(1, 3, None), (None, -1, None), (None, None, -1), (-1, None, -2), (4, 0, -3), (2, 2, None)]


def lowered(axis, ends, moved):
    """A slice behind a pool that changes nothing but where the channels are."""
    nodes = {"x": Node("x", "input", (), SHAPE)}
    if moved:
        pool = {"window": (1, 1), "strides": (1, 1), "padding": "valid"}
        nodes["p"] = Node("p", "max_pool", ("x",), SHAPE, attrs=pool)
    attrs = dict(zip(("start", "stop", "step"), ends, strict=True)) | {"axis": axis}
    nodes["y"] = Node("y", "slice", ([*nodes][-1],), SHAPE, attrs=attrs)
    graph = Graph("g", nodes, ("x",), ("y",), {})
    return graph, lower(graph)


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("ends", ENDS, ids=str)
@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_a_slice_and_its_gradient(axis, ends, moved):
    graph, module = lowered(axis, ends, moved)
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 4)).astype("float32")
    leaf = torch.from_numpy(x).requires_grad_()
    y = module(leaf)
    (expected,) = evaluate(graph, x)
    assert y.shape == expected.shape
    np.testing.assert_array_equal(y.detach().numpy(), expected)
    weights = torch.arange(1.0, y.numel() + 1).reshape(y.shape)
    (y * weights).sum().backward()
    marks = np.zeros(x.shape)
    where = [slice(None)] * 4
    where[axis] = slice(*ends)
    marks[tuple(where)] = weights.numpy()
    np.testing.assert_array_equal(leaf.grad.numpy(), marks)


@pytest.mark.parametrize("shape", [(2, 6, 4, 5), (2, 6, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("last", [True, False], ids=["channels last", "channels first"])
def test_the_gradient_has_the_layout_of_the_values(shape, last):
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}[len(shape)]
    values = torch.randn(shape)
    values = values.to(memory_format=layout) if last else values
    seen = []
    leaf = values.requires_grad_()
    x = leaf.clone()
    x.register_hook(seen.append)
    cut(x, 1, 0, 3, None).square().sum().backward()
    assert seen[0].stride() == x.stride()


def test_maxout_trains_as_torch_itself_has_it():
    x = torch.randn(3, 6, 4, 4, requires_grad=True)
    weights = torch.randn(3, 3, 4, 4)
    (torch.maximum(cut(x, 1, None, 3, None), cut(x, 1, 3, None, None)) * weights).sum().backward()
    ours, x.grad = x.grad, None
    (torch.maximum(*x.chunk(2, 1)) * weights).sum().backward()
    assert torch.equal(ours, x.grad)
