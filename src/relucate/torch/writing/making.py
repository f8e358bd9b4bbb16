"""Modules of PyTorch's own for the nodes of an edited Graph that were no modules so far.

A function call whose parameters changed, what a border strategy added, a norm that was put
elsewhere. Called by `writer`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from ...errors import Refused
from ...graph import Graph, Node
from ..modules import TokenBatchNorm
from .tensors import NAMES, layout_of, refit


def make_module(node: Node, graph: Graph, like: Tensor | None) -> nn.Module:
    """Return a module of PyTorch's own for a node: a batch norm, a linear layer, a PReLU.

    Raises: Refused: there is none for it, or its kernel is computed from other weights.
    """
    maker = _MAKERS.get(node.op)
    if maker is None or (node.op == "batch_norm" and not _is_plain_norm(node)):
        raise Refused(f"'{node.name}' ({node.op}) can't be written as a module of its own.")
    if kind := node.attrs.get("reparametrized"):
        raise Refused(
            f"the kernel of '{node.name}' is computed by the model ({kind}): the call can't be "
            "written as a module of its own."
        )
    made = maker(node, graph, {"bias": "bias" in node.arrays})
    if like is not None:
        made = made.to(like.device, like.dtype)
    refit(made, node, graph)
    return made


def _is_plain_norm(node: Node) -> bool:
    plain = "moving_mean" in node.arrays and not node.attrs.get("forced")
    return plain and (node.attrs["axis"] == 1 or is_over_tokens(node))


def is_over_tokens(node: Node) -> bool:
    """Return whether a batch norm is over the last axis of several in front of it."""
    last = len(node.shape) - 1
    return node.op == "batch_norm" and node.attrs["axis"] == last > 1


def _batch_norm(node: Node, graph: Graph, options: Mapping[str, Any]) -> nn.Module:
    kinds: Any = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
    kept = node.attrs.get("momentum")
    momentum = None if kept is None else 1 - kept
    size = len(graph.tensors[node.arrays["moving_mean"]])
    if is_over_tokens(node):
        return TokenBatchNorm(size, node.attrs["epsilon"], momentum)
    return kinds[len(node.shape) - 2](size, node.attrs["epsilon"], momentum)


def _dense(node: Node, graph: Graph, options: Mapping[str, Any]) -> nn.Module:
    return nn.Linear(*graph.tensors[node.arrays["kernel"]].shape, **options)


def _conv(node: Node, graph: Graph, options: Mapping[str, Any]) -> nn.Module:
    kinds: Any = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    *window, inputs, outputs = graph.tensors[node.arrays["kernel"]].shape
    groups = node.attrs.get("groups", 1)
    if node.op == "depthwise_conv":
        inputs, outputs, groups = 1, inputs * outputs, inputs
    return kinds[len(window)](
        inputs * groups,
        outputs,
        tuple(window),
        stride=tuple(node.attrs["strides"]),
        padding=_padding(node),
        dilation=tuple(node.attrs["dilation"]),
        groups=groups,
        **options,
    )


def _conv_transpose(node: Node, graph: Graph, options: Mapping[str, Any]) -> nn.Module:
    kinds: Any = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
    *window, outputs, inputs = graph.tensors[node.arrays["kernel"]].shape
    groups = node.attrs.get("groups", 1)
    return kinds[len(window)](
        inputs,
        outputs * groups,
        tuple(window),
        stride=tuple(node.attrs["strides"]),
        padding=_padding(node),
        output_padding=node.attrs.get("output_padding") or 0,
        groups=groups,
        dilation=tuple(node.attrs["dilation"]),
        **options,
    )


def _prelu(node: Node, graph: Graph, options: Mapping[str, Any]) -> nn.Module:
    return nn.PReLU(graph.tensors[node.arrays["alpha"]].size)


def _padding(node: Node) -> Any:
    padding = node.attrs["padding"]
    if isinstance(padding, str):
        if node.op == "conv_transpose" and padding != "valid":
            raise Refused(f"'{node.name}': PyTorch has no '{padding}' padding of transposed convs.")
        if padding == "same" and math.prod(node.attrs["strides"]) != 1:
            raise Refused(f"'{node.name}': PyTorch has no 'same' padding with strides.")
        return 0 if padding == "valid" else padding
    if any(before != after for before, after in padding):
        raise Refused(f"'{node.name}' pads unevenly, which no module of PyTorch's does.")
    return tuple(before for before, _ in padding)


def random_module(node: Node) -> nn.Module | None:
    """Return a module for a function that draws random numbers in training, None for others."""
    if node.op == "rrelu":
        return nn.RReLU(node.attrs["lower"], node.attrs["upper"])
    if node.op not in RANDOM:
        return None
    channels = node.attrs.get("spatial") is not None
    if node.op == "alpha_dropout":
        return (nn.FeatureAlphaDropout if channels else nn.AlphaDropout)(node.attrs["rate"])
    kinds: Any = {3: nn.Dropout1d, 4: nn.Dropout2d, 5: nn.Dropout3d} if channels else {}
    return kinds.get(len(node.shape), nn.Dropout)(node.attrs["rate"])


RANDOM = frozenset({"dropout", "alpha_dropout", "rrelu"})
_MAKERS: dict[str, Callable[[Node, Graph, Mapping[str, Any]], nn.Module]] = {
    "batch_norm": _batch_norm,
    "dense": _dense,
    "conv": _conv,
    "depthwise_conv": _conv,
    "conv_transpose": _conv_transpose,
    "prelu": _prelu,
}


def tie(module: nn.Module, node: Node, known: Mapping[tuple[str, str], Tensor]) -> None:
    """Let a new module hold the very tensors that the model has, so that they stay shared.

    Args: known: (key of the graph, layout) -> tensor.
    """
    for role, key in node.arrays.items():
        tensor, name = known.get((key, layout_of(node, role))), NAMES[role]
        own = getattr(module, name)
        if tensor is None or tensor.shape != own.shape:
            continue
        if isinstance(tensor, nn.Parameter) == isinstance(own, nn.Parameter):
            setattr(module, name, tensor)
