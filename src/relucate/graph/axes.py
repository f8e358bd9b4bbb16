"""Which axes a norm treats apart, and which axes of its input each axis of an output is made of.

A permutation takes each axis from another one; a reshape merges some and splits others; a reduction
leaves some out. Called by the planners and the rules, which follow a norm's axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from .nodes import Node

Shape = Sequence[int | None]


def norm_axes(node: Node) -> tuple[int, ...]:
    """Return the axes that a norm treats separately (its channels), in its input's own numbering.

    For layer and RMS norm: the axes that it normalizes over.
    """
    axes = node.attrs["axes"] if "axes" in node.attrs else [node.attrs.get("axis", -1)]
    return node.counted(axes)


def permuted(node: Node) -> tuple[int, ...]:
    """Return which axis of its input each axis of a permutation's output is."""
    time = node.time_axes
    return (*range(1 + time), *(dim + time for dim in node.attrs["dims"]))


def axes_of_input(node: Node, shape: Shape) -> tuple[frozenset[int], ...]:
    """Return the axes of the first input, of shape `shape`, for each axis of the output.

    >>> split = Node("r", "reshape", ("x",), (None, 2, 3, 5), attrs={"target": (2, 3, 5)})
    >>> [sorted(axes) for axes in axes_of_input(split, (None, 6, 5))]
    [[0], [1], [1], [2]]
    """
    if node.op == "permute":
        return tuple(frozenset({axis}) for axis in permuted(node))
    if "axes" in node.attrs and node.operation.moves_axes:  # a global pool, a reduction
        gone = node.counted(node.attrs["axes"], len(shape))
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
