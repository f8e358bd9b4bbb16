"""What reading a Keras model returns besides the Graph: which call became which nodes, and how.

The writer repeats the calls that were not edited. Not here: reading the model (`reader`), finding
what has changed (`writing.whole`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from ...graph import Graph, Node
from .steps import Branches, Step


@dataclass(frozen=True)
class Value:
    """One tensor of a Keras model: the node that it is read as, and its number among the outputs.

    Only a call that isn't known has several outputs in one node.
    """

    node: str
    index: int = 0


@dataclass(frozen=True)
class Call:
    """One call of a layer or raw operation in the model."""

    operation: Any
    keras_node: Any  # its arguments
    names: tuple[str, ...]  # the nodes that it became, in order
    reads: tuple[tuple[int, ...], ...]  # for each: which of `tensors`; numbers < 0: of `names`
    heads: tuple[str, ...]  # for each output of the call: the node that represents it
    tensors: tuple[Value, ...]  # every symbolic tensor among the arguments, in order
    training: bool | None  # that this call, or one around it, sets
    timed: bool = False  # of a whole model, by a TimeDistributed: `names` are all of its nodes
    layer: str = ""  # its name, where the nodes have others

    @property
    def inner(self) -> tuple[str, ...]:
        """The nodes whose values can't be read outside the call."""
        return tuple(name for name in self.names if name not in self.heads)


@dataclass(frozen=True)
class Reading:
    """A model that was read.

    Attributes:
        model: the model; None for a graph that has no model.
        function: the functional model that holds its graph; around it, if it has its own call.
        graph: its Graph.
        calls: every call in it, in the order of reading.
        variables: key of a tensor -> the Keras variable that holds it; others are constants.
        operations: name of a layer in the graph -> layer or operation.
        inputs: node -> its InputLayer.
        outputs: the model's outputs.
    """

    model: Any
    function: Any
    graph: Graph
    calls: tuple[Call, ...]
    variables: Mapping[str, Any]
    operations: Mapping[str, Any]
    inputs: Mapping[str, Any]
    outputs: tuple[Value, ...]


def positions_read(node: Any, sources: int) -> tuple[int, ...]:
    """Return which of a call's tensors its nodes read: all of them, or all except the mask."""
    tensors = node.arguments.keras_tensors
    if sources == len(tensors):
        return tuple(range(sources))
    masks = {id(leaf) for leaf in keras.tree.flatten(node.arguments.kwargs.get("mask"))}
    return tuple(i for i, tensor in enumerate(tensors) if id(tensor) not in masks)


def reads_of(branches: Branches, positions: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return what each node of a call reads: positions, or -1 for the previous node, and so on."""
    return tuple(
        _step_reads(step, index, positions)
        for branch in branches
        for index, step in enumerate(branch)
    )


def _step_reads(step: Step, index: int, positions: tuple[int, ...]) -> tuple[int, ...]:
    if step.inputs is not None:
        return tuple(i if i < 0 else positions[i] for i in step.inputs)
    return (-1,) if index else positions


def reads_within(
    nodes: Mapping[str, Node], names: Sequence[str], outside: Sequence[str]
) -> tuple[tuple[int, ...], ...]:
    """Return what each of the nodes `names` reads, in the form of `Call.reads`.

    Args: outside: the node of each of the call's tensors.
    """
    return tuple(
        tuple(
            names.index(source) - at if source in names else outside.index(source)
            for source in nodes[name].inputs
        )
        for at, name in enumerate(names)
    )
