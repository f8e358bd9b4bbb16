"""A norm's neighbours by data flow: up and down a Graph, past the nodes that don't matter.

A walk passes transparent nodes: dropout, pooling, padding, cropping, reshaping, resizing, a fixed
scale, identity. It stops at a linear layer, an activation, a norm, a merge, an input, an output and
an unknown node. An activation spelled out (`spelled`) is one activation, no merge and not unknown.
`Paths(graph, guess)` walks as if the unknown nodes were of one kind. Not here: what the neighbours
mean (`sites`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from ..graph import Graph, Node
from .spelled import Spelled, spelled_out

# The first, the middle and the last of several unknown nodes in a row, in the guesses that let as
# many norms as possible read with the layer behind them. A single unknown node is a norm there, but
# for the norm in front of it an activation, or behind an activation a linear layer.
_FORWARD = {
    "forward": ("norm", "transparent", "act"),
    "norm first": ("norm", "transparent", "transparent"),
    "norm last": ("act", "transparent", "norm"),
}
GUESSES = ("linear", "act", "norm", "transparent", "wall", *_FORWARD)  # what unknown nodes can be


@dataclass(frozen=True)
class End:
    """Where a walk stopped: linear, act, norm, merge, input, output or other, and at which node."""

    kind: str
    node: Node


def is_unknown(node: Node) -> bool:
    """Return whether a node may be a norm's linear layer, its activation, or another norm."""
    return node.operation.unknown and not node.attrs.get("rearranges")


def is_transparent(node: Node) -> bool:
    """Return whether a walk passes this node (a mean over positions is a pool)."""
    return node.operation.transparent


def halves(one: Node, two: Node) -> bool:
    """Return whether two linear nodes are parts of one call of one layer (a separable one)."""
    kinds = one.kind == two.kind == "linear"
    return kinds and bool(one.layer) and (one.layer, one.call) == (two.layer, two.call)


class Paths:
    """The walks over one graph; results are cached.

    guess: what unknown nodes are taken for, one of GUESSES; without a guess they are a wall, where
    a walk stops. Products of two values, and nodes with several inputs, are a
    linear layer or a wall.
    """

    def __init__(
        self, graph: Graph, guess: str = "wall", gates: Mapping[str, Spelled] | None = None
    ) -> None:
        self.graph = graph
        self.guess = guess
        # The activations that are spelled out, by the node that makes their value.
        self._gates = spelled_out(graph) if gates is None else gates
        self._ahead: dict[str, tuple[End, ...]] = {}

    @cached_property
    def _gating(self) -> frozenset[str]:
        """The nodes inside such activations; a walk sees only the last one."""
        return frozenset(name for gate in self._gates.values() for name in gate.inside)

    def kind(self, node: Node) -> str:
        """Return the kind that a walk takes this node for."""
        if node.op == "attention":
            return "linear"  # it begins and ends with projections
        if node.name in self._gates:
            return "act"
        if self._guessed(node):
            return self._roles.get(node.name, "norm") if self.guess in _FORWARD else self.guess
        if node.operation.kind == "merge":
            return "merge"
        return "input" if node.op == "input" else node.kind

    def is_unknown(self, node: Node) -> bool:
        """Return whether a node may be anything; it isn't as a part of an activation."""
        return is_unknown(node) and node.name not in self._gates and node.name not in self._gating

    def _guessed(self, node: Node) -> bool:
        """Return whether an unknown node is taken for something else than a wall."""
        if self.guess == "wall" or not self.is_unknown(node):
            return False
        if self.guess == "linear":
            return bool(node.inputs)
        return node.op == "opaque" and len(node.inputs) == 1

    @cached_property
    def _roles(self) -> dict[str, str]:
        """The kind of each of several unknown nodes in a row, in a guess of _FORWARD."""
        found: dict[str, str] = {}
        first, middle, last = _FORWARD.get(self.guess, ("", "", ""))
        for node in self.graph if self.guess in _FORWARD else ():
            if self.is_unknown(node) and len(node.inputs) == 1:
                above = self.graph.nodes[node.inputs[0]]
                while (is_transparent(above) or above.attrs.get("rearranges")) and above.inputs:
                    above = self.graph.nodes[above.inputs[0]]
                if self.is_unknown(above) and len(above.inputs) == 1:
                    begins = above.name not in found
                    found |= {above.name: first if begins else middle, node.name: last}
        return found

    def is_transparent(self, node: Node) -> bool:
        """Return whether a walk passes this node, with the guess about unknown ones."""
        if node.name in self._gates:
            return False
        if self._guessed(node):
            return self.kind(node) == "transparent"
        return is_transparent(node) or bool(node.attrs.get("rearranges"))

    def whole(self, node: Node) -> Node:
        """Return the node that makes the value of a layer: of a separable one, its second half."""
        while True:
            readers = self.graph.consumers[node.name]
            after = self.graph.nodes[readers[0]] if len(readers) == 1 else node
            if after is node or not halves(node, after):
                return node
            node = after

    def front(self, node: Node) -> Node:
        """Return the node that takes the input of a layer: of a separable one, its first half."""
        while node.inputs and halves(self.graph.nodes[node.inputs[0]], node):
            node = self.graph.nodes[node.inputs[0]]
        return node

    def source(self, node: Node) -> str:
        """Return the name of the node that an activation or a norm is applied to."""
        return self._gates[node.name].source if node.name in self._gates else node.inputs[0]

    def act_op(self, node: Node) -> str:
        """Return the activation's name; of a product x · f(x) the name of that product."""
        return self._gates[node.name].op if node.name in self._gates else node.op

    def back(self, name: str) -> End:
        """Return the node that made the value of node `name`, past transparent nodes."""
        node = self.graph.nodes[name]
        while self.is_transparent(node) and node.inputs:
            node = self.graph.nodes[node.inputs[0]]
        return End(self.kind(node), node)

    def ahead(self, name: str) -> tuple[End, ...]:
        """Return all nodes that take the value of node `name`, in topological order.

        The model's output is an end too: of kind `output`, at the node that is put out.
        """
        if name not in self._ahead:
            self._ahead[name] = tuple(self._walk(name))
        return self._ahead[name]

    def _walk(self, start: str) -> Iterator[End]:
        waiting, seen = [start], {start}
        outputs = frozenset(self.graph.outputs)
        while waiting:
            name = waiting.pop()
            if name in outputs:
                yield End("output", self.graph.nodes[name])
            followers = []
            for reader in self.graph.consumers[name]:
                node = self.graph.nodes[reader]
                if reader in seen:
                    continue
                seen.add(reader)
                whole = not node.attrs.get("rearranges") or node.inputs[0] == name
                if (self.is_transparent(node) and whole) or reader in self._gating:
                    followers.append(reader)
                elif self.guess in _FORWARD and self._guessed(node):
                    yield End("linear" if self._has_acted(start) else "act", node)
                else:
                    yield End(self.kind(node), node)
            waiting += reversed(followers)

    def _has_acted(self, name: str) -> bool:
        """Return whether a node is an activation, or follows one."""
        node = self.graph.nodes[name]
        return self.kind(node) == "act" or self.back(node.inputs[0]).kind == "act"

    def guessing(self, guess: str) -> Paths:
        """Return the walks over the same graph with a guess of GUESSES."""
        return Paths(self.graph, guess, self._gates)

    def is_spelled(self, name: str) -> bool:
        """Return whether `name` is the value of an activation that is spelled out."""
        return name in self._gates

    def gate(self, name: str) -> tuple[str, ...]:
        """Return the nodes inside an activation that is spelled out; () if `name` is none."""
        return self._gates[name].inside if name in self._gates else ()

    def takers(self, name: str) -> tuple[str, ...]:
        """Return the readers of a value, once each; an activation spelled out is one reader."""
        found = []
        for reader in self.graph.consumers[name]:
            while reader in self._gating:
                (reader,) = self.graph.consumers[reader][:1]
            found.append(reader)
        return tuple(dict.fromkeys(found))

    def between(self, name: str, ancestor: str) -> list[Node]:
        """Return the transparent nodes from `ancestor` (excluded) to `name`, upwards."""
        found, node = [], self.graph.nodes[name]
        while node.name != ancestor and self.is_transparent(node):
            found.append(node)
            node = self.graph.nodes[node.inputs[0]]
        return found
