"""Which axes of its input an axis of the output is made of, against what NumPy computes."""

import numpy as np
import pytest

from relucate.graph import Graph, Node
from relucate.graph.axes import axes_of_input
from relucate.graph.evaluate import evaluate

CASES = [
    ("permute", {"dims": (3, 1, 2)}, (2, 4, 6, 3)),
    ("reshape", {"target": (2, 2, 6, 3)}, (2, 4, 6, 3)),
    ("reshape", {"target": (24, 3)}, (2, 4, 6, 3)),
    ("reshape", {"target": (4, 3, 6)}, (2, 4, 6, 3)),
    ("reshape", {"target": (2, 12, 3)}, (2, 4, 6, 3)),
    ("reshape", {"target": (4, 6, 3, 1)}, (2, 4, 6, 3)),
    ("flatten", {}, (2, 4, 6, 3)),
    ("flatten", {"data_format": "channels_first"}, (2, 4, 6, 3)),
    ("global_avg_pool", {"axes": (1, 2), "keepdims": False}, (2, 4, 6, 3)),
    ("global_avg_pool", {"axes": (2, 3), "keepdims": True}, (2, 4, 6, 3)),
    ("reduce", {"axes": (-1,), "keepdims": False, "function": "sum"}, (2, 4, 6, 3)),
    ("relu", {}, (2, 4, 6, 3)),
]

MIXED = [(4, 3, 6), (2, 12, 3)]  # two axes are read as two others


@pytest.mark.parametrize(("op", "attrs", "shape"), CASES)
def test_an_axis_is_made_of_those_whose_index_changes_along_it(op, attrs, shape):
    nodes = {"x": Node("x", "input", (), shape), "n": Node("n", op, ("x",), (), attrs=attrs)}
    graph = Graph("one", nodes, ("x",), ("n",), {})
    for axis in range(len(shape)):
        own = [-1 if a == axis else 1 for a in range(len(shape))]
        index = np.broadcast_to(np.arange(shape[axis], dtype=float).reshape(own), shape)
        (found,) = evaluate(graph, index)
        made = Node("n", op, ("x",), (None, *found.shape[1:]), attrs=attrs)
        axes = axes_of_input(made, (None, *shape[1:]))
        changes = {k for k in range(found.ndim) if np.ptp(found, axis=k).max() > 0}
        assert changes <= {k for k, several in enumerate(axes) if axis in several}
        if attrs.get("target") not in MIXED and not (attrs.get("keepdims") and axis > 1):
            assert changes == {k for k, several in enumerate(axes) if axis in several}


def test_an_unknown_size_pairs_what_is_in_front_of_it():
    node = Node("n", "reshape", ("x",), (None, 4, None), attrs={"target": (4, -1)})
    found = axes_of_input(node, (None, 4, None, 3))
    assert found == (frozenset({0}), frozenset({1}), frozenset({2, 3}))
    node = Node("n", "reshape", ("x",), (None, None, 2, 4), attrs={"target": (-1, 2, 4)})
    found = axes_of_input(node, (None, None, 8))
    assert [sorted(axes) for axes in found] == [[0], [1], [2], [2]]
