"""How the operations that only move, cut or repeat values are lowered; a part of `emit`'s table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ...errors import Refused
from ...graph import Node
from ..modules import Pad, cut
from .emitter import Emitter, Value


def flat(pads: Sequence[tuple[int, int]]) -> list[int]:
    """PyTorch's F.pad wants the last axis first."""
    return [p for pair in reversed(pads) for p in pair]


def _flatten(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    x = emitter.native(values[0])
    if node.attrs["data_format"] == "channels_first":  # Keras flattens channels last
        x = emitter.function(torch.movedim, x, 1, -1)
    return Value(emitter.function(torch.flatten, x, 1), moved=False)


def _reshape(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    x = emitter.native(values[0])
    target = tuple(node.attrs["target"])
    if target.count(-1) > 1:
        raise Refused(f"can't lower layer '{node.layer}': reshape to an unknown shape {target}.")
    return Value(emitter.function(_to_shape, x, target), moved=False)


def _to_shape(x: torch.Tensor, target: tuple[int, ...]) -> torch.Tensor:
    return x.reshape(x.shape[0], *target)


def _permute(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    x = emitter.native(values[0])
    return Value(emitter.function(torch.permute, x, (0, *node.attrs["dims"])), moved=False)


def _zero_pad(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    value = emitter.spatial(values[0], node)
    pads = flat([tuple(pair) for pair in node.attrs["padding"]])
    return Value(emitter.extra(node, "pad", Pad(pads), value.fx), value.moved)


def _upsample(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    value = emitter.spatial(values[0], node)
    x = value.fx
    for axis, factor in enumerate(node.attrs["factors"], start=2):
        x = emitter.function(torch.repeat_interleave, x, factor, dim=axis)
    return Value(x, value.moved)


def _slice(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    place = values[0].place(node.attrs["axis"], len(node.shape))
    ends = (node.attrs["start"], node.attrs["stop"], node.attrs["step"])
    return Value(emitter.function(cut, values[0].fx, place, *ends), values[0].moved)


def _crop(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    value = emitter.spatial(values[0], node)
    x = value.fx
    for place, (before, after) in enumerate(node.attrs["cropping"], start=2):
        if before or after:
            x = emitter.function(cut, x, place, before, -after or None, None)
    return Value(x, value.moved)


RESHAPING: dict[str, Callable[[Emitter, Node, list[Value]], Value]] = {
    "flatten": _flatten,
    "reshape": _reshape,
    "permute": _permute,
    "zero_pad": _zero_pad,
    "crop": _crop,
    "slice": _slice,
    "upsample": _upsample,
}
