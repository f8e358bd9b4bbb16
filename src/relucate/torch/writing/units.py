"""Submodules that the reader saw into, as one node each: such a module can change places whole.

A unit is a module whose nodes are all that its one call makes, with one input and one output: an
activation in several calls (x * sigmoid(1.702 x)), a convolution whose class computes its weight.
Pure: Graphs. Called by `writer`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...graph import Graph, Node
from .tensors import changed_shape

Units = Mapping[str, tuple[str, ...]]  # path of a module -> its nodes, in order
WEIGHTED = "weighted"  # the attribute of a unit's node that has the only one inside with weights


def units(graph: Graph) -> Units:
    """Return the units of a graph that was read."""
    found: dict[str, list[str]] = {}
    layers = {node.layer for node in graph}
    for node in graph:
        owner, inside, _ = node.layer.partition("/")
        if inside and owner:
            found.setdefault(owner, []).append(node.name)
    return {
        path: tuple(names)
        for path, names in found.items()
        if not any(layer == path or layer.startswith(f"{path}.") for layer in layers)
        and _is_one(graph, names)
    }


def intact(found: Units, old: Graph, new: Graph, holding: Collection[str] = ()) -> Units:
    """Return the units that an edit left as they are, up to their weights.

    Weights of other shapes, or more of them, go to a norm, or to one of the linear layers at the
    paths `holding`, if one node of it has weights.
    """
    return {
        path: names
        for path, names in found.items()
        if all(name in new.nodes for name in names)
        and _is_one(new, names)
        and _wires(old, names) == _wires(new, names)
        and (
            not any(changed_shape(old, new, name) for name in names)
            or (len(_weighted(new, names)) == 1 and path in holding)
            or (len(names) == 1 and new.nodes[names[0]].kind == "norm")
        )
    }


def condensed(graph: Graph, found: Units) -> Graph:
    """Return a graph with one node for each unit, named by its path."""
    labels = {name: path for path, names in found.items() for name in names}
    lasts = {names[-1]: path for path, names in found.items()}
    nodes: dict[str, Node] = {}
    for node in graph:
        if node.name in labels and node.name not in lasts:
            continue
        if node.name in lasts:
            path = lasts[node.name]
            node = _whole(graph, path, found[path])
        added = labels.get(node.added_for, node.added_for)
        inputs = tuple(labels.get(source, source) for source in node.inputs)
        nodes[node.name] = replace(node, inputs=inputs, added_for=added)
    outputs = tuple(labels.get(name, name) for name in graph.outputs)
    return replace(graph, nodes=nodes, outputs=outputs)


def _whole(graph: Graph, path: str, names: Sequence[str]) -> Node:
    last = graph.nodes[names[-1]]
    if len(names) == 1:
        return replace(last, name=path, layer=path)
    inputs = tuple(dict.fromkeys(_sources(graph, names)))
    arrays = {
        f"{number}.{role}": key
        for number, name in enumerate(names)
        for role, key in graph.nodes[name].arrays.items()
    }
    attrs = {"type": path, "why": "several calls", "inside": _wires(graph, names)}
    if len(weighted := _weighted(graph, names)) == 1:
        attrs[WEIGHTED] = weighted[0]
    return Node(path, "opaque", inputs, last.shape, path, attrs=attrs, arrays=arrays)


def _weighted(graph: Graph, names: Sequence[str]) -> list[Node]:
    return [graph.nodes[name] for name in names if graph.nodes[name].arrays]


def _sources(graph: Graph, names: Sequence[str]) -> list[str]:
    inside = set(names)
    return [s for name in names for s in graph.nodes[name].inputs if s not in inside]


def _is_one(graph: Graph, names: Sequence[str]) -> bool:
    """Return whether nodes are one call, read one value, and make one."""
    inside = set(names)
    read = [
        name
        for name in names
        if name in graph.outputs or any(reader not in inside for reader in graph.consumers[name])
    ]
    calls = {graph.nodes[name].call for name in names}
    return calls == {0} and len(set(_sources(graph, names))) == 1 and read == [names[-1]]


def _wires(graph: Graph, names: Sequence[str]) -> tuple[Any, ...]:
    """Return what the nodes compute of each other, without their names."""
    rank = {name: number for number, name in enumerate(names)}
    nodes = (graph.nodes[name] for name in names)
    return tuple(
        (n.op, n.shape, tuple(rank.get(source, -1) for source in n.inputs), repr(dict(n.attrs)))
        for n in nodes
    )
