"""One node on given arrays."""

import numpy as np
import pytest

from relucate.graph import Graph, Node, evaluate


def apply_node(op, *xs, arrays=None, **attrs):
    """Evaluate one node on the given arrays."""
    arrays = {role: np.asarray(a) for role, a in (arrays or {}).items()}
    names = [f"x{i}" for i in range(len(xs))]
    nodes = {n: Node(n, "input", (), np.shape(x)) for n, x in zip(names, xs, strict=True)}
    nodes["y"] = Node("y", op, tuple(names), (), "y", 0, attrs, {r: r for r in arrays})
    return evaluate(Graph("g", nodes, tuple(names), ("y",), arrays), *xs)[0]


@pytest.fixture(scope="session", name="apply")
def _apply():
    return apply_node
