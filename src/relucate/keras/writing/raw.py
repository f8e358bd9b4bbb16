"""Raw Keras operations for nodes without trainable weights: slices, constants, activations.

A saved model holds them as `keras.ops` calls in its configuration, exactly: arrays as numbers, and
no custom layers. Not here: layers (`making`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from ...errors import Refused
from ...graph import Graph, Node

ops = keras.ops


def is_raw(node: Node) -> bool:
    """Return whether a node is written as raw operations."""
    return node.op in _RAW or (node.kind == "act" and node.op not in {"prelu", "rrelu", "softmax"})


def apply_raw(node: Node, graph: Graph, inputs: Sequence[Any], free: Callable[[str], str]) -> Any:
    """Apply a node that is written as raw operations.

    `free` returns a name that no other layer or operation of the model has.
    Raises: Refused: an option that Keras's operation doesn't have.
    """
    apply = _RAW.get(node.op, _activation)
    alone = node.kind == "act" and not node.operation.mixes
    if node.time_axes and not (alone or apply is _global):
        raise Refused(f"'{node.name}' ({node.op}) can't be written: time_distributed.")
    value = last = apply(node, graph, inputs)
    while all(last is not x for x in inputs):  # Keras's own names could be those of a layer
        operation = last._keras_history.operation
        operation.name = free(node.name)
        last = operation._inbound_nodes[-1].input_tensors[0]
    return value


def _affine(node: Node, graph: Graph, inputs: Sequence[Any]) -> Any:
    """Return x · scale + offset; half precision is computed in float32 and cast back."""
    value, dtype = inputs[0], keras.backend.standardize_dtype(inputs[0].dtype)
    half = dtype in {"float16", "bfloat16"}
    for role, function in (("scale", ops.multiply), ("offset", ops.add)):
        if role in node.arrays:
            array = graph.tensors[node.arrays[role]]
            value = function(value, np.asarray(array, "float32" if half else dtype))
    return ops.cast(value, dtype) if half and value is not inputs[0] else value


def _slice(node: Node, graph: Graph, inputs: Sequence[Any]) -> Any:
    cut = slice(node.attrs.get("start"), node.attrs.get("stop"), node.attrs.get("step"))
    axis = node.attrs["axis"] % len(node.shape)
    return inputs[0][(*[slice(None)] * axis, cut)]


def _reduce(node: Node, graph: Graph, inputs: Sequence[Any]) -> Any:
    function = getattr(ops, node.attrs["function"])
    keepdims = bool(node.attrs.get("keepdims"))
    return function(inputs[0], axis=tuple(node.attrs["axes"]), keepdims=keepdims)


def _global(node: Node, graph: Graph, inputs: Sequence[Any]) -> Any:
    function = ops.max if node.op == "global_max_pool" else ops.mean
    keepdims, axes = bool(node.attrs.get("keepdims")), node.attrs["axes"]
    return function(inputs[0], axis=node.counted(axes, len(inputs[0].shape)), keepdims=keepdims)


def _unit_norm(node: Node, graph: Graph, inputs: Sequence[Any]) -> Any:
    axes: Any = list(node.attrs["axes"])
    return ops.normalize(inputs[0], axis=axes, order=2, epsilon=node.attrs["epsilon"])


def _activation(node: Node, graph: Graph, inputs: Sequence[Any]) -> Any:
    attrs = {key: value for key, value in node.attrs.items() if key not in _IGNORED}
    (x,) = inputs
    if node.op == "hard_tanh" and attrs:
        low, high = attrs.pop("min_value", -1.0), attrs.pop("max_value", 1.0)
        return ops.clip(x, low, high)
    if node.op == "threshold":
        return ops.threshold(x, attrs["threshold"], attrs["value"])
    if node.op == "softplus" and attrs.get("beta", 1.0) == 1.0:
        attrs = {}
    function = getattr(keras.activations, node.op, None)
    options = [] if function is None else list(inspect.signature(function).parameters)[1:]
    if function is None or not set(attrs) <= set(options):
        raise Refused(f"'{node.name}' ({node.op}) has options that Keras doesn't have: {attrs}.")
    return function(x, **attrs)


# Attributes that don't change values, or say only how the source spelled the activation.
_IGNORED = frozenset({"written", "data_format", "form", "forced", "time_distributed"})
_RAW: Mapping[str, Callable[[Node, Graph, Sequence[Any]], Any]] = {
    "affine": _affine,
    "slice": _slice,
    "reduce": _reduce,
    **dict.fromkeys(["global_avg_pool", "global_max_pool"], _global),
    "unit_norm": _unit_norm,
    "divide": lambda node, graph, inputs: ops.divide(*inputs),
}
