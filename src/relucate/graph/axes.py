"""Which axes of its input each axis of a node's output is made of, for operations that move axes.

A permutation takes each axis from another one; a reshape merges some and splits others; a reduction
leaves some out. Called by `surgery.blocks`, which follows a norm's axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from .nodes import Node

Shape = Sequence[int | None]


def axes_of_input(node: Node, shape: Shape) -> tuple[frozenset[int], ...]:
    """Return the axes of the first input, of shape `shape`, for each axis of the output.

    >>> split = Node("r", "reshape", ("x",), (None, 2, 3, 5), attrs={"target": (2, 3, 5)})
    >>> [sorted(axes) for axes in axes_of_input(split, (None, 6, 5))]
    [[0], [1], [1], [2]]
    """
    time = node.time_axes
    if node.op == "permute":
        order = (*range(1 + time), *(dim + time for dim in node.attrs["dims"]))
        return tuple(frozenset({axis}) for axis in order)
    if "axes" in node.attrs and node.operation.moves_axes:  # a global pool, a reduction
        inner = len(shape) - time
        gone = {axis % inner + (time if axis % inner else 0) for axis in node.attrs["axes"]}
        kept = [
            axis for axis in range(len(shape)) if axis not in gone or node.attrs.get("keepdims")
        ]
        return tuple(frozenset({axis}) for axis in kept)
    if not node.operation.moves_axes:
        return tuple(frozenset({axis}) for axis in range(len(node.shape)))
    return _reshaped(shape, node.shape)


def _reshaped(before: Shape, after: Shape) -> tuple[frozenset[int], ...]:
    """Pair runs of axes, as short as can be, that count the same values."""
    same = _same(before, after)
    found = [frozenset({axis}) for axis in range(same)]
    here, there = same, same
    while there < len(after):
        ends = _run(before, here, after, there)
        found += [frozenset(range(here, ends[0]))] * (ends[1] - there)
        here, there = ends
    return tuple(found)


def _same(before: Shape, after: Shape) -> int:
    """Return how many axes in front stay; one of unknown size only if the others prove it."""
    same = 1
    while same < min(len(before), len(after)) and before[same] == after[same]:
        same += 1
    if None in before[1:same] and not _count(before[same:]) == _count(after[same:]) != 0:
        return 1 + before[1:].index(None)
    return same


def _run(before: Shape, here: int, after: Shape, there: int) -> tuple[int, int]:
    """Return where the run ends that begins at these axes: at the end of both if none does."""
    for last in range(there + 1, len(after)):
        for end in range(here + 1, len(before)):
            if _count(before[here:end]) == _count(after[there:last]) != 0:
                return end, last
    return len(before), len(after)


def _count(sizes: Shape) -> int:
    return 0 if None in sizes else prod(size or 0 for size in sizes)
