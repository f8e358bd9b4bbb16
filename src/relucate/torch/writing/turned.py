"""Norms that work along another axis than in the model that was read.

A norm that goes to the other side of a permutation is the same module with another forward. Called
by `edits` and `framework`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from ...graph import Graph, Node
from ..modules import AxisLayerNorm, AxisRMSNorm, TokenBatchNorm, of_class
from .making import is_over_tokens

_OVER_AN_AXIS: Mapping[type, type[nn.Module]] = {
    nn.LayerNorm: AxisLayerNorm,
    nn.RMSNorm: AxisRMSNorm,
}
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def axes_of(node: Node) -> tuple[int, ...]:
    """Return the axes that a norm works along, counted from the front."""
    axes = node.attrs.get("axes", (node.attrs.get("axis"),))
    return tuple(axis % len(node.shape) for axis in axes if axis is not None)


def turned(module: nn.Module, node: Node) -> nn.Module | None:
    """Return a norm's module as one that works along the axis of `node`; None: it can't."""
    if type(module) in _OVER_AN_AXIS and len(axes_of(node)) == 1:
        made = of_class(_OVER_AN_AXIS[type(module)], module)
        (made.axis,) = axes_of(node)
        return made
    if type(module) in _BATCH_NORMS and is_over_tokens(node):
        return of_class(TokenBatchNorm, module)
    return None


def turning(old: Graph, new: Graph, modules: Mapping[str, Any]) -> Iterator[tuple[Node, Any]]:
    """Yield each norm that an edit gives another axis, and its module in its new form, or None."""
    for node in new:
        before = old.nodes.get(node.name)
        if before and node.kind == "norm" and axes_of(node) != axes_of(before):
            yield node, _in_all_calls(old, new, node, modules.get(node.layer))


def _in_all_calls(old: Graph, new: Graph, node: Node, module: nn.Module | None) -> Any:
    calls = [other.name for other in old if other.layer == node.layer]
    axes = {axes_of(new.nodes[name]) if name in new.nodes else None for name in calls}
    return turned(module, node) if module is not None and len(axes) == 1 else None


def stuck(old: Graph, new: Graph, modules: Mapping[str, Any]) -> dict[str, str]:
    """Return the norms that an edit gives an axis along which their modules can't work, and why."""
    return {
        node.name: f"'{node.layer_name}' can't go behind the permutation: its axis is fixed"
        for node, module in turning(old, new, modules)
        if module is None
    }
