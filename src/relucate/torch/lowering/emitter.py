"""The growing torch.fx graph of a lowered network: its modules, names and where each tensor went.

A `Value` remembers whether its channel axis was moved to axis 1. Spatial operations on
channels-last graphs want it moved, operations that see axes by number want it back. Not here: what
each operation becomes (`emit`).
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from ...errors import Refused
from ...graph import Graph, Node

_BARE_MODULE = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph())))  # names that are taken


@dataclass(frozen=True)
class Value:
    """An fx node, and whether axis -1 of the graph's tensor is axis 1 here."""

    fx: fx.Node
    moved: bool

    def place(self, axis: int, rank: int) -> int:
        """Return which axis is here what axis `axis` of `rank` is in the graph's tensor."""
        axis %= rank
        if not self.moved or axis == 0:
            return axis
        return 1 if axis == rank - 1 else axis + 1


class Emitter:
    """The growing fx graph, its modules, and where each tensor of the source went."""

    def __init__(self, source: Graph, reserved: frozenset[str] = frozenset()) -> None:
        self.source = source
        self._reserved = _BARE_MODULE | reserved | frozenset(keyword.kwlist)
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.bindings: dict[str, tuple[str, str]] = {}
        self._modules: dict[tuple[str, str], str] = {}  # (layer, op) -> module name
        self._used: set[str] = set()

    def input_shape(self, node: Node, place: int = 0) -> tuple[int | None, ...]:
        """Return the shape of an input as the node sees it, without the axis of steps."""
        return node.of_one_step(self.source.nodes[node.inputs[place]].shape)

    def identifier(self, name: str) -> str:
        """Return a fresh Python identifier like `name` that no module attribute has."""
        base = re.sub(r"[^0-9A-Za-z_]", "_", name)
        base = base if base and not base[0].isdigit() else f"_{base}"
        found, count = base, 1
        while found in self._used or found in self._reserved:
            found, count = f"{base}_{count}", count + 1
        self._used.add(found)
        return found

    def input(self, name: str) -> Value:
        """Emit an argument of the module. The prefix keeps it off the names that the code uses."""
        return Value(self.graph.placeholder(self.identifier(f"input_{name}")), moved=False)

    def function(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """Emit a function call."""
        return self.graph.call_function(target, args, kwargs)

    def module(self, node: Node, make: Callable[[], nn.Module], x: fx.Node) -> fx.Node:
        """Emit a call of the node's module; a shared layer's calls share one module."""
        role = next(iter(node.arrays.values()), node.name)
        key = (node.layer, role)
        if key not in self._modules:
            self._modules[key] = self.identifier(node.name.split("@")[0])
            self.root.add_module(self._modules[key], make())
        return self.graph.call_module(self._modules[key], (x,))

    def bind(self, node: Node, roles: dict[str, tuple[str, str]]) -> None:
        """Record role -> (parameter, layout) for the module that `module` just emitted.

        Raises: Refused: another layer's module holds the tensor: the copies would drift apart.
        """
        role = next(iter(node.arrays.values()), node.name)
        owner = self._modules[(node.layer, role)]
        for name in roles.keys() & node.arrays.keys():
            parameter, layout = roles[name]
            where = (f"{owner}.{parameter}", layout)
            if self.bindings.setdefault(node.arrays[name], where) != where:
                raise Refused(
                    f"can't lower layer '{node.layer}': it shares the tensor "
                    f"'{node.arrays[name]}' with another layer."
                )

    def extra(self, node: Node, suffix: str, made: nn.Module, x: fx.Node) -> fx.Node:
        """Emit a helper module (padding) that has no weights of its own."""
        name = self.identifier(f"{node.name}_{suffix}")
        self.root.add_module(name, made)
        return self.graph.call_module(name, (x,))

    def native(self, value: Value) -> fx.Node:
        """Return the value with its axes in the graph's own order."""
        return self.function(torch.movedim, value.fx, 1, -1) if value.moved else value.fx

    def spatial(self, value: Value, node: Node) -> Value:
        """Return the value with channels on axis 1, as `node`'s data format asks."""
        if node.attrs.get("data_format") == "channels_first":
            return Value(self.native(value), moved=False)
        if value.moved:
            return value
        return Value(self.function(torch.movedim, value.fx, -1, 1), moved=True)
