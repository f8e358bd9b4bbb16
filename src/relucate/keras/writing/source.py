"""Which Keras call made which nodes of a Graph, and how the call was written.

`read` forgets the calls; `write` repeats them for what nobody edited. Here the same reading is done
once more, with the calls kept. Not here: what has changed (`units`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import keras

from ...errors import Refused
from ...graph import Graph
from ..reading.calls import insisted
from ..reading.reader import _Place, _Reader, functional, read_with_variables
from ..reading.steps import Branches, Step


@dataclass(frozen=True)
class Value:
    """One tensor of a Keras model: the node that it is read as, and which of the call's outputs.

    Only a call that isn't known has several outputs in one node.
    """

    node: str
    index: int = 0


@dataclass(frozen=True)
class Call:
    """One call of a layer or raw operation in the source."""

    operation: Any
    keras_node: Any  # its arguments
    names: tuple[str, ...]  # the nodes that it became, in order
    reads: tuple[tuple[int, ...], ...]  # for each: which of `tensors`; numbers < 0: of `names`
    heads: tuple[str, ...]  # for each output of the call: the node that stands for it
    tensors: tuple[Value, ...]  # every symbolic tensor among the arguments, in order
    training: bool | None  # what this call, or one around it, insists on
    timed: bool  # of a whole model, by a TimeDistributed: `names` are all of its nodes
    layer: str = ""  # its name, where the nodes have others

    @property
    def inner(self) -> tuple[str, ...]:
        """The nodes whose values nothing outside the call can read."""
        return tuple(name for name in self.names if name not in self.heads)


@dataclass(frozen=True)
class Source:
    """A model that was read, with its calls."""

    model: keras.Model | None
    graph: Graph
    calls: tuple[Call, ...]
    variables: Mapping[str, Any]  # key of a tensor -> variable; the other tensors are constants
    operations: Mapping[str, Any]  # name of a layer in the graph -> layer or operation
    inputs: Mapping[str, Any]  # node -> its InputLayer
    outputs: tuple[Value, ...]


class _Tracer(_Reader):
    """A reader that keeps what it saw of the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.traced: list[Call] = []
        self.layers_of_inputs: dict[str, Any] = {}
        self.indices: dict[int, int] = {}  # id(KerasTensor) -> which output, where not the first
        self._at: tuple[Any, _Place] = (None, _Place())

    def _read_node(self, node: Any, place: _Place, top: bool) -> None:
        self._at = (node, place)
        super()._read_node(node, place, top)
        if top and isinstance(node.operation, keras.layers.InputLayer):
            self.layers_of_inputs[next(reversed(self.nodes))] = node.operation

    def _read_nested(self, node: Any, model: Any, place: _Place) -> None:
        inside = _function(model)
        if inside is not None:
            self._same_index(inside.inputs, node.arguments.keras_tensors)
        before = len(self.traced)
        super()._read_nested(node, model, place)
        kept_whole = len(self.traced) > before and self.traced[-1].keras_node is node
        if inside is not None and not kept_whole:
            self._same_index(node.outputs, inside.outputs)
            if node.operation is not model:
                self.traced[before:] = [self._joined(node, place, self.traced[before:])]

    def _joined(self, node: Any, place: _Place, calls: list[Call]) -> Call:
        """Make one call of those within a model that a TimeDistributed applies."""
        names = tuple(name for call in calls for name in call.names)
        tensors = tuple(self.value(t) for t in node.arguments.keras_tensors)
        outside = [value.node for value in tensors]
        reads = [
            tuple(
                names.index(source) - at if source in names else outside.index(source)
                for source in self.nodes[name].inputs
            )
            for at, name in enumerate(names)
        ]
        own = insisted(node)
        return Call(
            operation=node.operation,
            keras_node=node,
            names=names,
            reads=tuple(reads),
            heads=tuple(self.names[id(output)] for output in node.outputs),
            tensors=tensors,
            training=own if place.training is None else place.training,
            timed=True,
            layer=place.prefix + node.operation.name,
        )

    def _same_index(self, tensors: list[Any], others: list[Any]) -> None:
        for tensor, other in zip(tensors, others, strict=False):
            self.indices[id(tensor)] = self.indices.get(id(other), 0)

    def value(self, tensor: Any) -> Value:
        return Value(self.names[id(tensor)], self.indices.get(id(tensor), 0))

    def _add_branches(
        self,
        operation: Any,
        place: _Place,
        branches: Branches,
        sources: list[str],
        outputs: list[Any],
    ) -> None:
        node, at = self._at
        tensors = tuple(self.value(t) for t in node.arguments.keras_tensors)
        positions = _positions(node, len(sources))
        count = len(self.nodes)
        super()._add_branches(operation, place, branches, sources, outputs)
        names = tuple(islice(reversed(self.nodes), len(self.nodes) - count))[::-1]
        if len(branches) == 1:
            for index, output in enumerate(outputs):
                self.indices[id(output)] = index
        own = insisted(node)
        self.traced.append(
            Call(
                operation=operation,
                keras_node=node,
                names=names,
                reads=tuple(_reads(branches, positions)),
                heads=tuple(self.names[id(output)] for output in outputs),
                tensors=tensors,
                training=own if at.training is None else at.training,
                timed=False,
            )
        )


def _function(model: Any) -> Any:
    try:
        return functional(model)
    except Refused:
        return None


def _positions(node: Any, sources: int) -> tuple[int, ...]:
    """Return which of a call's tensors its nodes read: all of them, or all but the mask."""
    tensors = node.arguments.keras_tensors
    if sources == len(tensors):
        return tuple(range(sources))
    masks = {id(leaf) for leaf in keras.tree.flatten(node.arguments.kwargs.get("mask"))}
    return tuple(i for i, tensor in enumerate(tensors) if id(tensor) not in masks)


def _reads(branches: Branches, positions: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return what each node of a call reads: positions, or -1, -2, ...: that many nodes before."""
    found: list[tuple[int, ...]] = []
    for branch in branches:
        for index, step in enumerate(branch):
            found.append(_step_reads(step, index, positions))
    return found


def _step_reads(step: Step, index: int, positions: tuple[int, ...]) -> tuple[int, ...]:
    if step.inputs is not None:
        return tuple(i if i < 0 else positions[i] for i in step.inputs)
    return (-1,) if index else positions


def trace(model: keras.Model) -> Source:
    """Read a model with its calls.

    Raises: Refused: as `read`.
    """
    graph, variables = read_with_variables(model)
    function, tracer = functional(model), _Tracer()
    tracer.walk(function, _Place(), given=None)
    return Source(
        model=model,
        graph=graph,
        calls=tuple(tracer.traced),
        variables=variables,
        operations={tracer.layer_names[key]: op for key, op in tracer.operations.items()},
        inputs=tracer.layers_of_inputs,
        outputs=tuple(tracer.value(tensor) for tensor in function.outputs),
    )
