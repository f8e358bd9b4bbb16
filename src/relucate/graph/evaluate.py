"""The slow, obvious meaning of a Graph: each node in float64 NumPy, at inference.

It is the oracle that readers, lowering and surgery are tested against; nothing trains or serves
with it. Tensors keep the graph's own layout (channels last unless a node says otherwise). The
operations are in `activations`, `norms`, `spatial` and `shapes`; here they are put together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from ..errors import InputError, Refused
from .activations import ACTIVATION_OPS
from .nodes import Graph, Node
from .norms import NORM_OPS
from .shapes import SHAPE_OPS
from .spatial import SPATIAL_OPS

Arrays = dict[str, np.ndarray]


def evaluate(
    graph: Graph,
    *inputs: np.ndarray,
    each: Callable[[str, np.ndarray], np.ndarray] = lambda name, value: value,
    unread: Callable[[Node, list[np.ndarray]], np.ndarray] | None = None,
) -> list[np.ndarray]:
    """Return the graph's outputs at inference, in float64.

    Args:
        inputs: one array per graph input, batch axis first.
        each: gets each node's name and value, and returns what the nodes behind it read.
        unread: computes nodes that have no meaning here, from what they read.
    Raises:
        InputError: another number of arrays than the graph has inputs.
        Refused: the outputs depend on an opaque node, or on one that has no meaning at inference
            (the message names it).
    """
    if len(inputs) != len(graph.inputs):
        raise InputError(
            f"the graph '{graph.name}' has {len(graph.inputs)} inputs "
            f"({', '.join(graph.inputs)}), got {len(inputs)} arrays."
        )
    values: Arrays = {
        name: np.asarray(x, np.float64) for name, x in zip(graph.inputs, inputs, strict=True)
    }
    needed = _needed(graph)
    for node in graph:
        if node.op == "input" or node.name not in needed:
            continue
        if unread is not None and node.op not in EVALUATED:
            values[node.name] = each(node.name, unread(node, [values[n] for n in node.inputs]))
            continue
        arrays = {role: np.asarray(graph.tensors[key]) for role, key in node.arrays.items()}
        arrays = {role: value.astype(np.float64) for role, value in arrays.items()}
        value = _apply(node, [values[name] for name in node.inputs], arrays)
        values[node.name] = each(node.name, value)
    return [values[name] for name in graph.outputs]


def _needed(graph: Graph) -> set[str]:
    """Return the names of the nodes that the outputs depend on."""
    needed, open_names = set(graph.outputs), list(graph.outputs)
    while open_names:
        for source in graph.nodes[open_names.pop()].inputs:
            if source not in needed:
                needed.add(source)
                open_names.append(source)
    return needed


def _apply(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    _refuse(node)
    node = replace(node, attrs=node.operation.complete(node.attrs))
    if not node.attrs.get("time_distributed"):
        return EVALUATED[node.op](node, xs, arrays)
    merged = [x.reshape(-1, *x.shape[2:]) for x in xs]
    y = EVALUATED[node.op](node, merged, arrays)
    return y.reshape(*xs[0].shape[:2], *y.shape[1:])


def _refuse(node: Node) -> None:
    if node.op not in EVALUATED:
        why = node.attrs.get("why") or node.operation.unevaluated
        raise Refused(f"can't evaluate '{node.name}' ({node.attrs.get('type', node.op)}): {why}.")
    if node.attrs.get("form") == "keras":
        raise Refused(f"can't evaluate '{node.name}' ({node.op}): Keras's isn't the published one.")
    if node.attrs.get("quantized"):
        raise Refused(
            f"can't evaluate '{node.name}' ({node.op}): it is quantized to "
            f"{node.attrs['quantized']}, and rounds what it reads, too."
        )
    if node.attrs.get("forced") and not (node.op == "batch_norm" and node.attrs.get("frozen")):
        raise Refused(
            f"can't evaluate '{node.name}' ({node.op}): it is called with training=True, which "
            "makes it compute as in training even at inference."
        )


EVALUATED: Mapping[str, Callable[[Node, list[np.ndarray], Arrays], np.ndarray]] = {
    **SPATIAL_OPS,
    **NORM_OPS,
    **ACTIVATION_OPS,
    **SHAPE_OPS,
}
