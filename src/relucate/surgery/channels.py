"""A scale and a shift per channel on their way through a graph, and where they can be absorbed.

`behind` walks from a value up to the linear layers that made it, `ahead` from a value down to every
linear layer that takes it. Both only plan: they return Absorptions, or raise Blocked with the
reason. Exact: scale and shift commute with every operation that treats channels separately and
positions alike; a max pool lets only scales >= 0 through; padded zeros are not shifted, so the
layer behind them needs more than a bias (`border`). Not here: carrying a plan out (`fold`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..graph import Node
from ..graph.axes import permuted
from ..graph.padding import adds_zeros
from .draft import Draft


class Blocked(Exception):
    """Why a scale and shift can't be absorbed here: a reason for the report."""


@dataclass(frozen=True)
class Channels:
    """y = scale · x + shift along one axis of a value; both have that axis's size, float64."""

    scale: np.ndarray
    shift: np.ndarray
    axis: int

    def moved(self, axis: int) -> Channels:
        """Return the same along another axis."""
        return replace(self, axis=axis)

    def sliced(self, start: int, stop: int) -> Channels:
        """Return the part for some of the channels."""
        return Channels(self.scale[start:stop], self.shift[start:stop], self.axis)

    def unshifted(self) -> Channels:
        """Return the scale alone."""
        return replace(self, shift=np.zeros_like(self.shift))

    def equals(self, other: Channels) -> bool:
        """Return whether both do the same to every channel."""
        return (
            self.axis == other.axis
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.shift, other.shift)
        )

    @property
    def shifts(self) -> bool:
        """Whether any channel is shifted."""
        return bool(np.any(self.shift != 0))


@dataclass(frozen=True)
class Absorption:
    """A linear layer that is to take over a scale and shift of its outputs or of its inputs.

    Or an `affine` of a planner's, behind a linear layer: a scale and shift of its outputs.
    """

    node: str
    outputs: bool
    channels: Channels
    border: bool = False  # zeros were padded in between: the shift is no bias
    pad: str | None = None  # the zero_pad node in front of the layer, if it is one of its own


def check_shared(draft: Draft, plan: Sequence[Absorption]) -> None:
    """Check that all calls of a reused layer would absorb the same.

    Raises: Blocked: another call, or a tied weight, would change too.
    """
    asked = {absorption.node: absorption for absorption in plan}
    for absorption in plan:
        node = draft.nodes[absorption.node]
        for other in draft.sharing(node):
            if other not in asked:
                raise Blocked(f"'{node.layer_name}' is used elsewhere too")
            if not absorption.channels.equals(asked[other].channels):
                raise Blocked(f"the calls of '{node.layer_name}' would need other weights")


def behind(draft: Draft, name: str, channels: Channels) -> list[Absorption]:
    """Plan to scale and shift the value `name` by changing the linear layers that made it.

    An `affine` that an earlier fold left behind such a layer (its border) is changed with it.
    """
    node = draft.nodes[name]
    check_separable(node)
    if len(draft.readers(name)) != 1 or name in draft.outputs:
        raise Blocked(f"'{node.layer_name}' has other consumers")
    if node.operation.absorbs:
        check_linear(draft, node, channels)
        return [Absorption(name, True, channels)]
    if node.operation.kind == "merge" and node.operation.scale == "any":
        return _behind_merge(draft, node, channels)
    if node.op == "rescale":
        scale, offset = node.attrs["scale"], node.attrs["offset"]
        if not scale:
            raise Blocked(f"'{node.layer}' multiplies by zero")
        inner = (channels.scale * offset + channels.shift - offset) / scale
        return behind(draft, node.inputs[0], replace(channels, shift=inner))
    if node.op == "affine" and node.added_for:
        # A planner's own: s (a x + m) + t = a (s x) + (s m + t), for any shapes of a and m.
        inner = behind(draft, node.inputs[0], channels.unshifted())
        return [*inner, Absorption(name, True, channels)]
    if len(node.inputs) != 1:
        raise Blocked(_why(node))
    return behind(draft, node.inputs[0], _through(draft, node, channels, back=True))


def _behind_merge(draft: Draft, node: Node, channels: Channels) -> list[Absorption]:
    shapes = {draft.nodes[source].shape for source in node.inputs}
    broadcasts = node.op != "concat" and len(shapes) > 1
    if broadcasts or len(set(node.inputs)) != len(node.inputs):
        raise Blocked(f"'{node.layer}' merges values of different shapes, or one value twice")
    found: list[Absorption] = []
    start = 0
    for number, source in enumerate(node.inputs):
        part = channels
        if node.op == "concat" and _is_along(node, channels.axis):
            size = draft.nodes[source].shape[channels.axis] or 0
            part = channels.sliced(start, start + size)
            start += size
        elif node.operation.shift != "commutes" and number:  # one term of a sum takes the shift
            part = channels.unshifted()
        found += behind(draft, source, part)
    return found


def ahead(draft: Draft, name: str, channels: Channels) -> list[Absorption]:
    """Plan to leave out a scale and shift of the value `name`: every reader absorbs it."""
    if name in draft.outputs:
        raise Blocked("it is the model's output")
    readers = {node.name: node for node in draft.readers(name)}
    if not readers:
        raise Blocked("nothing reads it")
    found: list[Absorption] = []
    for node in readers.values():
        found += _ahead_one(draft, node, name, channels)
    return found


def _ahead_one(draft: Draft, node: Node, name: str, channels: Channels) -> list[Absorption]:
    check_separable(node)
    if node.operation.absorbs:
        check_linear(draft, node, channels)
        return [Absorption(node.name, False, channels, border=_has_border(draft, node, channels))]
    if node.op == "zero_pad" and channels.shifts and _padding_apart(node, channels.axis):
        return _ahead_of_padding(draft, node, channels)
    if node.op == "concat":
        return ahead(draft, node.name, _widened(draft, node, name, channels))
    if node.op == "rescale":
        scale, offset = node.attrs["scale"], node.attrs["offset"]
        if not scale:
            return []  # its output does not depend on its input
        shift = scale * channels.shift + offset * (1 - channels.scale)
        return ahead(draft, node.name, replace(channels, shift=shift))
    return ahead(draft, node.name, _through(draft, node, channels, back=False))


def _ahead_of_padding(draft: Draft, pad: Node, channels: Channels) -> list[Absorption]:
    if pad.name in draft.outputs:
        raise Blocked("it is the model's output")
    if any(_padding_of(pad, channels.axis)):
        raise Blocked(f"'{pad.layer}' pads zeros to the channels and around them, too")
    found = []
    for node in {n.name: n for n in draft.readers(pad.name)}.values():
        if node.time_axes != pad.time_axes:
            raise Blocked(f"only one of '{pad.layer}' and '{node.layer}' is applied step by step")
        if not (node.kind == "linear" and node.operation.pads):
            raise Blocked(f"'{pad.layer}' pads zeros for '{node.layer}', which is no convolution")
        check_linear(draft, node, channels)
        found.append(Absorption(node.name, False, channels, border=True, pad=pad.name))
    return found


def _widened(draft: Draft, node: Node, name: str, channels: Channels) -> Channels:
    """Return the scale and shift of a concatenation of which only some parts have them."""
    if not _is_along(node, channels.axis):
        raise Blocked(f"'{node.layer}' concatenates along another axis")
    scales, shifts = [], []
    for source in node.inputs:
        size = draft.nodes[source].shape[channels.axis] or 0
        mine = source == name
        scales.append(channels.scale if mine else np.ones(size))
        shifts.append(channels.shift if mine else np.zeros(size))
    return Channels(np.concatenate(scales), np.concatenate(shifts), channels.axis)


def _through(draft: Draft, node: Node, channels: Channels, back: bool) -> Channels:
    """Return scale and shift on the other side of a node that commutes with them."""
    if node.op in ("reshape", "flatten"):
        return _reshaped(draft, node, channels, back)
    if node.op == "permute":
        order = permuted(node)
        return channels.moved(order[channels.axis] if back else order.index(channels.axis))
    if node.op == "zero_pad":
        return _padded(node, channels, back)
    if node.op == "slice" and _is_along(node, channels.axis):
        return _cut(draft, node, channels, back)
    _check_commutes(node, channels)
    return _pooled(draft, node, channels, back) if node.operation.kind == "pool" else channels


def _cut(draft: Draft, node: Node, channels: Channels, back: bool) -> Channels:
    """Return scale and shift on the other side of a slice along the channels.

    One that keeps them all leaves them as they are or turns them round, as its inverse does.
    """
    kept = slice(node.attrs.get("start"), node.attrs.get("stop"), node.attrs.get("step"))
    if back and draft.nodes[node.inputs[0]].shape[channels.axis] != node.shape[channels.axis]:
        raise Blocked(f"'{node.layer}' takes some of the channels")
    return replace(channels, scale=channels.scale[kept], shift=channels.shift[kept])


def _check_commutes(node: Node, channels: Channels) -> None:
    what = node.operation
    scale, shift = what.scale_of(node.attrs), what.shift_of(node.attrs)
    never = what.kind == "merge" or (what.moves_axes and what.kind != "pool")
    if never or scale == "none" or shift in ("none", "constant"):
        raise Blocked(_why(node))
    if what.spatial and channels.axis in _image_axes(node):
        raise Blocked(f"'{node.layer}' ({node.op}) works along the norm's axis {channels.axis}")
    if node.attrs.get("forced") and (channels.shifts or what.training != "multiplies"):
        raise Blocked(f"'{node.layer}' ({node.op}) is called in training mode")
    if scale == "positive" and np.any(channels.scale < 0):
        raise Blocked(f"max pool '{node.layer}' lets no negative scale through")
    if shift == "borders" and channels.shifts:
        raise Blocked(f"'{node.layer}' ({node.op}) counts padded zeros, which aren't shifted")


def _image_axes(node: Node) -> tuple[int, ...]:
    """Return the axes that a spatial operation works along."""
    axes = range(1 + node.time_axes, len(node.shape))
    return tuple(axis for axis in axes if axis != node.channel_axis)


def _padding_of(node: Node, axis: int) -> tuple[int, int]:
    """Return how many zeros a zero_pad puts before and after one axis, which may be any."""
    axes = _image_axes(node)
    before, after = node.attrs["padding"][axes.index(axis)] if axis in axes else (0, 0)
    return before, after


def _padding_apart(node: Node, axis: int) -> bool:
    """Return whether a zero_pad pads any other axis than this one."""
    return any(any(_padding_of(node, other)) for other in _image_axes(node) if other != axis)


def _padded(node: Node, channels: Channels, back: bool) -> Channels:
    """Return scale and shift on the other side of padded zeros; channels may be among them."""
    if channels.shifts and _padding_apart(node, channels.axis):
        raise Blocked(f"'{node.layer}' pads zeros, which aren't shifted")
    before, after = _padding_of(node, channels.axis)
    if not back:  # channels of zeros stay zeros: scale 1, shift 0
        scale = np.pad(channels.scale, (before, after), constant_values=1.0)
        return Channels(scale, np.pad(channels.shift, (before, after)), channels.axis)
    inner = channels.sliced(before, len(channels.scale) - after)
    if np.count_nonzero(inner.shift) < np.count_nonzero(channels.shift):
        raise Blocked(f"'{node.layer}' pads channels of zeros, which would be shifted")
    return inner


def _pooled(draft: Draft, node: Node, channels: Channels, back: bool) -> Channels:
    before = draft.nodes[node.inputs[0]].shape
    axes = node.counted(node.attrs.get("axes", ()), len(before))
    if not back and channels.axis in axes:
        raise Blocked(f"'{node.layer}' pools over the channels")
    if node.attrs.get("keepdims"):
        return channels
    if not back:
        return channels.moved(channels.axis - sum(axis < channels.axis for axis in axes))
    kept = [a for a in range(len(before)) if a not in axes]
    return channels.moved(kept[channels.axis])


def _reshaped(draft: Draft, node: Node, channels: Channels, back: bool) -> Channels:
    """Return scale and shift on the other side of a reshape, where they are along one axis too.

    They are laid out as the value is, value by value, and read again along each axis in turn.
    """
    outer = 1 + node.time_axes
    old, new = draft.nodes[node.inputs[0]].shape[outer:], node.shape[outer:]
    if channels.axis < outer:
        return channels  # each step has a scale and a shift of its own
    here, there = (new, old) if back else (old, new)
    if any(size is None for size in (*here, *there)):
        raise Blocked(f"'{node.layer}' reshapes a shape that isn't known")
    own = [-1 if axis == channels.axis else 1 for axis in range(outer, outer + len(here))]
    laid = [
        _laid_out(node, values.reshape(own), here, there, back)
        for values in (channels.scale, channels.shift)
    ]
    # One number for all would fit any axis: the one that is as long as the channels goes first.
    axes = sorted(range(len(there)), key=lambda axis: there[axis] != here[channels.axis - outer])
    for axis in axes:
        first = tuple(slice(None) if a == axis else slice(1) for a in range(len(there)))
        if all(np.array_equal(full, np.broadcast_to(full[first], full.shape)) for full in laid):
            scale, shift = (full[first].reshape(-1) for full in laid)
            return Channels(scale, shift, axis + outer)
    raise Blocked(f"'{node.layer}' spreads the channels over several axes")


def _laid_out(
    node: Node, values: np.ndarray, here: Sequence[Any], there: Sequence[Any], back: bool
) -> np.ndarray:
    """Return values that broadcast to the shape `here` as they are laid out in shape `there`."""
    full = np.broadcast_to(values, here)
    if node.op == "flatten" and node.attrs.get("data_format") == "channels_first":
        if back:
            return np.moveaxis(full.reshape([*there[1:], there[0]]), -1, 0)
        full = np.moveaxis(full, 0, -1)
    return full.reshape(there)


def check_separable(node: Node) -> None:
    """Raise Blocked if a layer is a part of something that can only be written whole."""
    if why := node.attrs.get("inseparable"):
        raise Blocked(f"'{node.layer_name}' is {why}")


def _is_along(node: Node, axis: int) -> bool:
    """Return whether a concatenation or a slice works along this axis."""
    return node.counted([node.attrs["axis"]]) == (axis,)


def check_linear(draft: Draft, node: Node, channels: Channels) -> None:
    """Raise Blocked if a layer's kernel is computed, or its channels aren't the norm's."""
    layer = node.layer_name
    if why := _computed(node.attrs):
        raise Blocked(f"the kernel of '{layer}' is no plain variable: {why}")
    if node.channel_axis != channels.axis:
        raise Blocked(f"the norm's axis {channels.axis} isn't the channel axis of '{layer}'")


def _computed(attrs: Mapping[str, Any]) -> str:
    """Return why a kernel is no plain variable, and what to do about it; "" if it is one."""
    if attrs.get("quantized"):
        return "it is quantized"
    if attrs.get("lora"):
        return "it has LoRA's weights; merge them first"
    kind = attrs.get("reparametrized", "")
    if kind == "computed":
        return "the model computes it"
    return kind and f"{kind} computes it; take that off first"


def _has_border(draft: Draft, node: Node, channels: Channels) -> bool:
    """Return whether the shift meets zeros that the layer pads in itself."""
    if not channels.shifts or node.op == "dense":
        return False
    window = draft.tensors[node.arrays["kernel"]].shape[:-2]
    if node.op == "conv_transpose":
        return any(size > 1 for size in window) or any(s > 1 for s in node.attrs["strides"])
    padding = node.attrs["padding"]
    return adds_zeros(padding) and (padding != "same" or any(size > 1 for size in window))


def _why(node: Node) -> str:
    layer = node.layer_name
    if node.kind == "act":
        return f"the activation '{layer}' ({node.op}) lies between"
    if node.kind == "norm":
        return f"the norm '{layer}' lies between"
    if node.op == "opaque":
        return f"'{layer}' ({node.attrs.get('type', 'unknown')}) isn't known"
    if node.op == "input":
        return "it is the model's input"
    return f"'{layer}' ({node.op}) lies between"
