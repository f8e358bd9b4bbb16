"""Which axes a layer's parameters run along, and where a pattern is behind a node.

A bias or a gamma is a pattern along one axis: its value depends on the index there alone. Reshaping
moves it, flattening merges it into a longer axis; when it would depend on two axes it is lost.
Called by the rules; axes count the batch axis, and the time axis of a time-distributed layer too.
"""

from __future__ import annotations

from math import prod

import numpy as np

from ...graph import Graph, Node
from ...graph.axes import permuted

_Shape = tuple[int | None, ...]


def bias_axis(graph: Graph, node: Node) -> int | None:
    """Return the one axis of a linear layer's output that its bias runs along, None if several."""
    if node.op != "einsum":
        return node.channel_axis
    shape = np.shape(graph.tensors[node.arrays["bias"]])
    wide = [axis for axis, size in enumerate(shape) if size != 1]
    return len(node.shape) - len(shape) + wide[0] if len(wide) == 1 else None


def input_axis(graph: Graph, node: Node) -> int | None:
    """Return the axis of a linear layer's input that its kernel indexes, None if unknown."""
    rank = len(graph.nodes[node.inputs[0]].shape)
    if node.op == "dense":
        return rank - 1
    axis = node.channel_axis
    return axis if axis is None or axis == 1 + node.time_axes else rank - 1


def carried(graph: Graph, node: Node, axis: int) -> int | None:
    """Return the axis of `node`'s output that a pattern along `axis` of its first input runs along.

    None where it would run along several, or is gone. Whether the values of the pattern stay the
    same is the caller's question.
    """
    before = graph.nodes[node.inputs[0]].shape
    if not node.operation.moves_axes:
        return axis if len(before) == len(node.shape) else None
    if node.op == "permute":
        return permuted(node).index(axis)
    if "axes" in node.attrs:  # a global pool, a reduction
        gone = node.counted(node.attrs["axes"], len(before))
        if axis in gone:
            return None
        return axis if node.attrs.get("keepdims") else axis - sum(a < axis for a in gone)
    if node.attrs.get("data_format") == "channels_first":  # moves the channels last first
        return 1 if len(node.shape) == 2 else None
    return _reshaped(before, node.shape, axis)


def _reshaped(before: _Shape, after: _Shape, axis: int) -> int | None:
    """Return which axis determines the index along `axis` after a reshape in C order."""
    if None not in before[1 : axis + 1] and before[1 : axis + 1] == after[1 : axis + 1]:
        return axis
    inner = _product(before[axis + 1 :])
    outer = _product(before[axis:])
    for place in range(len(after)):
        low, high = _product(after[place + 1 :]), _product(after[place:])
        if inner and outer and low and high and inner % low == 0 and high % outer == 0:
            return place
    return 1 if len(after) == 2 and before[0] == after[0] else None


def _product(sizes: _Shape) -> int:
    return 0 if None in sizes else prod(size or 0 for size in sizes)
