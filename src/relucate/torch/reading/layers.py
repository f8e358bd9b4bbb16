"""Convs, dense layers and pools as nodes of a Graph, from PyTorch's arguments.

Used by the tables of functions and of modules alike, so that both make the same nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...graph.inference import Mismatch
from .builder import Weight
from .program import Data, Unknown
from .translator import Translator


def numbers(value: Any, rank: int) -> tuple[int, ...]:
    """Return one number per spatial axis, as PyTorch spreads a single one."""
    found = (value,) if isinstance(value, int) else tuple(value)
    return found * rank if len(found) == 1 else found


def spatial_padding(padding: Any, rank: int) -> Any:
    """Return PyTorch's padding in the Graph's words: "valid", "same" or pairs."""
    if isinstance(padding, str):
        return padding
    pads = numbers(padding, rank)
    return tuple((p, p) for p in pads) if any(pads) else "valid"


def _check_rank(x: Data, rank: int) -> None:
    if len(x.shape) == rank + 1:
        raise Unknown("an input without a batch axis")
    if len(x.shape) != rank + 2:
        raise Mismatch(f"expected {rank + 2} axes (batch, channels, {rank} spatial)")


def _bias(bias: Any) -> Weight | None:
    if bias is not None and not isinstance(bias, Tensor):
        raise Unknown("its bias depends on the input")
    return None if bias is None else Weight(bias)


def conv(
    t: Translator,
    x: Data,
    weight: Tensor,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    rank: int,
) -> Data:
    """Emit a conv, or a depthwise conv where every channel has its own group."""
    _check_rank(x, rank)
    attrs: dict[str, Any] = {
        "strides": numbers(stride, rank),
        "dilation": numbers(dilation, rank),
        "data_format": "channels_first",
        "padding": spatial_padding(padding, rank),
    }
    if groups > 1 and weight.shape[1] == 1:
        weights = {"kernel": Weight(weight, "depthwise", groups), "bias": _bias(bias)}
        return t.emit("depthwise_conv", [x], attrs, weights)
    weights = {"kernel": Weight(weight, "conv"), "bias": _bias(bias)}
    return t.emit("conv", [x], attrs | {"groups": groups}, weights)


def conv_transpose(
    t: Translator,
    x: Data,
    weight: Tensor,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
    rank: int,
) -> Data:
    """Emit a transposed conv: of its full output, `padding` is cut off on both sides."""
    _check_rank(x, rank)
    extra = numbers(output_padding, rank)
    attrs = {
        "strides": numbers(stride, rank),
        "dilation": numbers(dilation, rank),
        "groups": groups,
        "data_format": "channels_first",
        "padding": tuple((p, p) for p in numbers(padding, rank)),
        "output_padding": extra if any(extra) else None,
    }
    weights = {"kernel": Weight(weight, "conv"), "bias": _bias(bias)}
    return t.emit("conv_transpose", [x], attrs, weights)


def dense(t: Translator, x: Data, weight: Tensor, bias: Any) -> Data:
    """Emit a dense layer over the last axis."""
    if len(x.shape) < 2:
        raise Unknown("an input without a batch axis")
    weights = {"kernel": Weight(weight, "dense"), "bias": _bias(bias)}
    return t.emit("dense", [x], {}, weights)


def pool(
    t: Translator, op: str, x: Data, window: Any, stride: Any, padding: Any, rank: int, **more: Any
) -> Data:
    """Emit a max or average pool."""
    _check_rank(x, rank)
    window = numbers(window, rank)
    empty = stride is None or (isinstance(stride, Sequence) and not stride)
    attrs = {
        "window": window,
        "strides": window if empty else numbers(stride, rank),
        "padding": spatial_padding(padding, rank),
        "data_format": "channels_first",
    }
    if "dilation" in more:
        more["dilation"] = numbers(more["dilation"], rank)
    return t.emit(op, [x], attrs | more)
