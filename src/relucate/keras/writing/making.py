"""A Keras layer or raw operation for one node of a Graph, from its op and attributes.

For nodes that no layer of the source stands for any more: what a planner inserted, and the parts of
a layer that was split. Everything here is stock Keras, so that the written model is saved and
loaded without relucate. Not here: layers that stay as they were (`cloning`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from ...errors import Refused
from ...graph import Graph, Node

kl = keras.layers


def channels(node: Node) -> int:
    """Return the number of a linear node's output channels."""
    axis = 1 if node.attrs.get("data_format") == "channels_first" and node.op != "dense" else -1
    return int(node.shape[axis] or 0)


def _window(node: Node, graph: Graph) -> tuple[int, ...]:
    return tuple(graph.tensors[node.arrays["kernel"]].shape[:-2])


def _conv_arguments(node: Node, graph: Graph) -> dict[str, Any]:
    padding = node.attrs["padding"]
    if not isinstance(padding, str):
        raise Refused(f"'{node.name}' ({node.op}) has padding that no Keras layer has: {padding}.")
    return {
        "kernel_size": _window(node, graph),
        "strides": tuple(node.attrs["strides"]),
        "padding": padding,
        "data_format": node.attrs["data_format"],
        "dilation_rate": tuple(node.attrs["dilation"]),
        "use_bias": "bias" in node.arrays,
    }


def _pick(node: Node, graph: Graph, *classes: Any) -> Any:
    rank = len(_window(node, graph))
    if rank > len(classes):
        raise Refused(f"'{node.name}' ({node.op}) has {rank} spatial axes: Keras has no layer.")
    return classes[rank - 1]


def _conv(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    kind = _pick(node, graph, kl.Conv1D, kl.Conv2D, kl.Conv3D)
    groups = node.attrs.get("groups", 1)
    more = _conv_arguments(node, graph)
    return kind(filters=channels(node), groups=groups, **more, **common)


def _depthwise(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    kind = _pick(node, graph, kl.DepthwiseConv1D, kl.DepthwiseConv2D)
    more = _conv_arguments(node, graph)
    multiplier = graph.tensors[node.arrays["kernel"]].shape[-1]
    return kind(depth_multiplier=multiplier, **more, **common)


def _transpose(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    kind = _pick(node, graph, kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose)
    more = _conv_arguments(node, graph)
    output_padding = node.attrs.get("output_padding")
    return kind(filters=channels(node), output_padding=output_padding, **more, **common)


def _dense(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    return kl.Dense(channels(node), use_bias="bias" in node.arrays, **common)


def _zero_pad(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    padding = node.attrs["padding"]
    classes = (kl.ZeroPadding1D, kl.ZeroPadding2D, kl.ZeroPadding3D)
    given = padding[0] if len(padding) == 1 else padding
    return classes[len(padding) - 1](given, data_format=node.attrs["data_format"], **common)


def _batch_norm(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    return kl.BatchNormalization(
        axis=node.attrs["axis"],
        epsilon=node.attrs["epsilon"],
        momentum=node.attrs.get("momentum", 0.99),
        center="beta" in node.arrays,
        scale="gamma" in node.arrays,
        **common,
    )


def _rescale(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    return kl.Rescaling(node.attrs["scale"], offset=node.attrs["offset"], **common)


def _concat(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    return kl.Concatenate(axis=node.attrs["axis"], **common)


def _add(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    return kl.Add(**common)


_LAYERS: Mapping[str, Callable[..., Any]] = {
    "conv": _conv,
    "depthwise_conv": _depthwise,
    "conv_transpose": _transpose,
    "dense": _dense,
    "zero_pad": _zero_pad,
    "batch_norm": _batch_norm,
    "rescale": _rescale,
    "concat": _concat,
    "add": _add,
}


def make_layer(node: Node, graph: Graph, common: Mapping[str, Any]) -> Any:
    """Return the stock layer of a node, unbuilt; `common`: its name, dtype, trainable.

    Raises: Refused: no layer does that.
    """
    if node.op not in _LAYERS:
        raise Refused(f"'{node.name}' ({node.op}) can't be written as a Keras layer of its own.")
    return _LAYERS[node.op](node, graph, dict(common))


def apply_raw(node: Node, graph: Graph, inputs: Sequence[Any]) -> Any:
    """Apply a node that is a raw operation (`slice`, `affine`); None if it isn't one."""
    if node.op == "affine":
        value, dtype = inputs[0], inputs[0].dtype
        for role, function in (("scale", keras.ops.multiply), ("offset", keras.ops.add)):
            if role in node.arrays:
                array = graph.tensors[node.arrays[role]]
                value = function(value, np.asarray(array, _numpy(dtype)))
        return value
    if node.op == "slice":
        cut = slice(node.attrs["start"], node.attrs["stop"], node.attrs["step"])
        axis = node.attrs["axis"] % len(node.shape)
        return inputs[0][(*[slice(None)] * axis, cut)]
    return None


def _numpy(dtype: str) -> str:
    return "float32" if dtype in {"float16", "bfloat16"} else dtype
