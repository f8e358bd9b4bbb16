"""Which layers of an edited Graph can't be given the tensors that it has for them.

A tensor that the model computes from others, a layer inside a module that is called as a whole, a
function whose kernel is computed. Called by `writer`, so that the norms around them stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import fx, nn
from torch.nn.utils import parametrize

from ...errors import Refused
from ...graph import Graph, Node
from ..reading.reader import Reading
from .copying import copied
from .making import make_module
from .tensors import LINEAR, changed_shape, refit
from .units import WEIGHTED

_PLAIN = (*LINEAR, nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)


def computed(graph: Graph, reading: Reading) -> dict[str, str]:
    """Return the nodes that would get another value for what the model computes, and why not."""
    found = {}
    for node in graph:
        for key in node.arrays.values():
            if key not in reading.bindings and _differs(reading.graph, graph, key):
                found[node.name] = f"'{key}' is computed by the model: it can't be set"
    return found


def unfit(graph: Graph, whole: nn.Module, reading: Reading) -> dict[str, str]:
    """Return the nodes of a retraced model whose layers can't get other tensors, and why."""
    traced = {node.name: node for node in reading.traced.nodes}
    old = reading.graph
    return {
        node.name: why
        for node in graph
        if node.name in old.nodes and changed_shape(old, graph, node.name)
        if (why := _why(node, graph, whole, reading, traced))
    }


def across_casts(graph: Graph, reading: Reading) -> dict[str, str]:
    """Return the nodes of a retraced model that would read values of another type, and why.

    A cast is no node: who reads another value than before reads it as it is.
    """
    found = {}
    for node in graph:
        old = reading.graph.nodes.get(node.name)
        if old is None or old.inputs == node.inputs:
            continue
        if cast := reading.casts.intersection(old.inputs + node.inputs):
            found[node.name] = f"the forward casts the values of '{min(cast)}' to another type"
    return found


def inside_calls(graph: Graph, reading: Reading) -> dict[str, str]:
    """Return the norms that are gone from calls of a retraced model which do more, and why not."""
    calls: dict[str, list[str]] = {}
    for name in reading.graph.nodes:
        calls.setdefault(reading.origins[name], []).append(name)
    found = {}
    for names in calls.values():
        gone = [name for name in names if name not in graph.nodes]
        if gone and len(gone) < len(names):
            why = "is a part of a call that can't be taken apart"
            norms = [name for name in gone if reading.graph.nodes[name].kind == "norm"]
            found |= {name: f"'{reading.graph.nodes[name].layer}' {why}" for name in norms}
    return found


def _why(
    node: Node, graph: Graph, whole: nn.Module, reading: Reading, traced: Mapping[str, fx.Node]
) -> str:
    call = traced[reading.origins[node.name]]
    try:
        if call.op != "call_module":
            make_module(node, graph, None)
        elif not _is_plain(module := whole.get_submodule(str(call.target))):
            refit(copied(module), node.attrs.get(WEIGHTED, node), graph)
    except Refused as refused:
        return str(refused).rstrip(".")
    return ""


def _differs(old: Graph, new: Graph, key: str) -> bool:
    one, other = old.tensors.get(key), new.tensors[key]
    return one is not None and one.shape == other.shape and not np.array_equal(one, other)


def _is_plain(module: Any) -> bool:
    hooked = module._forward_pre_hooks or parametrize.is_parametrized(module)
    return isinstance(module, _PLAIN) and not hooked
