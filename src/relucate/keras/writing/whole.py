"""Which calls of the source are unchanged in an edited Graph, so that they can be repeated.

A call is whole if all of its nodes are still there, with the same ops, attributes and connections,
and nothing outside reads its inner nodes. A bias, gamma or beta may have been added or removed, if
the layer has an option for it. Not here: repeating the calls (`writer`).
"""

from __future__ import annotations

import keras
import numpy as np

from ...graph import Graph, Node
from ..reading.record import Call, Reading

ROLES = {"bias": "use_bias", "gamma": "scale", "beta": "center"}  # role -> option in the config


def whole_operations(reading: Reading, graph: Graph) -> set[int]:
    """Return the ids of the operations whose calls can all be repeated as they are."""
    broken = {id(call.operation) for call in reading.calls if not _is_whole(reading, graph, call)}
    return {id(call.operation) for call in reading.calls} - broken


def changed_constants(reading: Reading, graph: Graph, node: Node) -> bool:
    """Return whether a node's constant (a tensor that no variable holds) has changed."""
    before = reading.graph.tensors
    keys = {key for key in node.arrays.values() if key not in reading.variables and key in before}
    return not all(_same(before[key], graph.tensors[key]) for key in keys)


def _same(one: np.ndarray, two: np.ndarray) -> bool:
    return one is two or np.array_equal(one, two, equal_nan=one.dtype.kind == "f")


def _is_whole(reading: Reading, graph: Graph, call: Call) -> bool:
    old, new = reading.graph.nodes, graph.nodes
    for place, name in enumerate(call.names):
        if name not in new or new[name].op != old[name].op:
            return False
        if dict(new[name].attrs) != dict(old[name].attrs):
            return False
        if not _tensors_fit(reading, graph, call, name):
            return False
        if not _wired_as_before(call, place, new[name].inputs):
            return False
    inner = set(call.inner)
    readers = {reader for name in inner for reader in graph.consumers[name]}
    if not readers <= set(call.names) or inner & set(graph.outputs):
        return False
    return _one_source_per_position(graph, call)


def _wired_as_before(call: Call, place: int, inputs: tuple[str, ...]) -> bool:
    reads = call.reads[place]
    if len(inputs) != len(reads):
        return False
    own = zip(inputs, reads, strict=True)
    return all(at >= 0 or source == call.names[place + at] for source, at in own)


def _one_source_per_position(graph: Graph, call: Call) -> bool:
    sources: dict[int, set[str]] = {}
    for name, reads in zip(call.names, call.reads, strict=True):
        for source, position in zip(graph.nodes[name].inputs, reads, strict=True):
            if position >= 0:
                sources.setdefault(position, set()).add(source)
    return all(len(names) == 1 for names in sources.values())


def _tensors_fit(reading: Reading, graph: Graph, call: Call, name: str) -> bool:
    old, new = reading.graph.nodes[name], graph.nodes[name]
    if not isinstance(call.operation, keras.layers.Layer):
        # Its tensors are arguments of the call: repeating the call repeats them.
        same = dict(old.arrays) == dict(new.arrays)
        return same and all(
            _same(reading.graph.tensors[key], graph.tensors[key]) for key in new.arrays.values()
        )
    changed = set(old.arrays) ^ set(new.arrays)
    if changed_constants(reading, graph, new):
        return False
    if not changed:
        return True
    known = call.operation.get_config()
    # The options of a separable layer are about its second half.
    *_, main = (n for n in call.names if reading.graph.nodes[n].kind != "act")
    return name == main and all(role in ROLES and ROLES[role] in known for role in changed)
