"""The output shape of each known operation, from its attributes and its input shapes.

Plain arithmetic, so that reading a large model computes no values; shapes that don't fit together
raise a `Mismatch` that says what was expected. Called by the PyTorch reader.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .ops import OPERATIONS
from .padding import explicit_padding, overhang, transpose_crops

Shape = tuple[int, ...]
Attrs = Mapping[str, Any]
Arrays = Mapping[str, Shape]  # role -> shape in the graph's layout
Rule = Callable[[Attrs, Arrays, Sequence[Shape]], Shape]


class Mismatch(ValueError):
    """The shapes of a call don't fit together; the message says what was expected."""


def output_shape(op: str, attrs: Attrs, arrays: Arrays, inputs: Sequence[Shape]) -> Shape:
    """Return the shape of a node's output, batch axis included.

    Raises:
        Mismatch: the inputs' shapes don't fit the operation.
        KeyError: it doesn't follow from the attributes (`Operation.shape` is "given").

    >>> output_shape("dense", {}, {"kernel": (3, 5)}, [(2, 3)])
    (2, 5)
    """
    what = OPERATIONS[op]
    if what.kind == "norm":
        _check_norm(attrs, arrays, inputs[0])
    if what.shape == "same":
        return inputs[0]
    if what.shape == "broadcast":
        return _broadcast(inputs, attrs.get("fill_axis"))
    return RULES[op](what.complete(attrs), arrays, inputs)


def _check_norm(attrs: Attrs, arrays: Arrays, shape: Shape) -> None:
    if "axis" not in attrs and "axes" not in attrs:
        return
    axes = attrs.get("axes", (attrs.get("axis"),))
    if not all(-len(shape) <= axis < len(shape) for axis in axes):
        raise Mismatch(f"expected an input with axes {axes}")
    expected = tuple(shape[axis] for axis in axes)
    for role, found in arrays.items():
        if found != expected:
            raise Mismatch(f"expected {_some(found)} along axes {axes} (its {role} has shape)")
    groups = attrs.get("groups")
    if groups and expected[0] % groups:
        raise Mismatch(f"expected a multiple of {groups} channels")


def _some(shape: Shape) -> str:
    return str(shape[0]) if len(shape) == 1 else str(shape)


def _broadcast(inputs: Sequence[Shape], fill_axis: int | None = None) -> Shape:
    rank, axis = max(map(len, inputs)), fill_axis or 0
    filled = [(*s[:axis], *(1,) * (rank - len(s)), *s[axis:]) for s in inputs]
    try:
        return np.broadcast_shapes(*filled)
    except ValueError:
        shapes = " and ".join(map(str, inputs))
        raise Mismatch(f"expected shapes that broadcast, got {shapes}") from None


def _spatial(attrs: Attrs, shape: Shape, window: int) -> Shape:
    if len(shape) != window + 2:
        raise Mismatch(f"expected {window + 2} axes (batch, channels, {window} spatial)")
    return shape[2:] if attrs["data_format"] == "channels_first" else shape[1:-1]


def _with_channels(attrs: Attrs, batch: int, sizes: Sequence[int], channels: int) -> Shape:
    if attrs["data_format"] == "channels_first":
        return (batch, channels, *sizes)
    return (batch, *sizes, channels)


def _channels(attrs: Attrs, shape: Shape) -> int:
    return shape[1] if attrs["data_format"] == "channels_first" else shape[-1]


def _windowed(attrs: Attrs, sizes: Shape, window: Shape) -> list[int]:
    dilation = attrs["dilation"] or (1,) * len(window)
    pads = explicit_padding(attrs["padding"], sizes, window, attrs["strides"], dilation)
    found = []
    for n, k, s, d, pair in zip(sizes, window, attrs["strides"], dilation, pads, strict=True):
        more = overhang(n, k, s, d, pair) if attrs.get("ceil_mode") else 0
        room = n + sum(pair) + more - (k - 1) * d - 1
        if room < 0:
            raise Mismatch(f"its window of {(k - 1) * d + 1} is larger than its input of {n}")
        found.append(room // s + 1)
    return found


def _conv(attrs: Attrs, arrays: Arrays, inputs: Sequence[Shape]) -> Shape:
    kernel, shape = arrays["kernel"], inputs[0]
    sizes = _spatial(attrs, shape, len(kernel) - 2)
    _expect_channels(_channels(attrs, shape), kernel[-2] * attrs["groups"])
    found = _windowed(attrs, sizes, kernel[:-2])
    return _with_channels(attrs, shape[0], found, kernel[-1])


def _depthwise(attrs: Attrs, arrays: Arrays, inputs: Sequence[Shape]) -> Shape:
    kernel, shape = arrays["kernel"], inputs[0]
    sizes = _spatial(attrs, shape, len(kernel) - 2)
    _expect_channels(_channels(attrs, shape), kernel[-2])
    found = _windowed(attrs, sizes, kernel[:-2])
    return _with_channels(attrs, shape[0], found, kernel[-2] * kernel[-1])


def _expect_channels(got: int, expected: int) -> None:
    if got != expected:
        raise Mismatch(f"expected {expected} channels, got {got}")


def _transposed(attrs: Attrs, arrays: Arrays, inputs: Sequence[Shape]) -> Shape:
    kernel, shape = arrays["kernel"], inputs[0]
    window = kernel[:-2]
    sizes = _spatial(attrs, shape, len(window))
    _expect_channels(_channels(attrs, shape), kernel[-1])
    strides, dilation = attrs["strides"], attrs["dilation"] or (1,) * len(window)
    crops = transpose_crops(attrs["padding"], attrs["output_padding"], window, strides, dilation)
    axes = zip(sizes, window, strides, dilation, crops, strict=True)
    found = [(n - 1) * s + (k - 1) * d + 1 - sum(crop) for n, k, s, d, crop in axes]
    return _with_channels(attrs, shape[0], found, kernel[-2] * attrs["groups"])


def _dense(attrs: Attrs, arrays: Arrays, inputs: Sequence[Shape]) -> Shape:
    features, units = arrays["kernel"]
    if inputs[0][-1] != features:
        raise Mismatch(f"expected {features} features on the last axis, got {inputs[0][-1]}")
    return (*inputs[0][:-1], units)


def _pool(attrs: Attrs, arrays: Arrays, inputs: Sequence[Shape]) -> Shape:
    shape, window = inputs[0], attrs["window"]
    sizes = _spatial(attrs, shape, len(window))
    found = _windowed(attrs, sizes, window)
    return _with_channels(attrs, shape[0], found, _channels(attrs, shape))


def _reduced(attrs: Attrs, arrays: Arrays, inputs: Sequence[Shape]) -> Shape:
    axes = {axis % len(inputs[0]) for axis in attrs["axes"]}
    if attrs["keepdims"]:
        return tuple(1 if a in axes else n for a, n in enumerate(inputs[0]))
    return tuple(n for a, n in enumerate(inputs[0]) if a not in axes)


def _image(name: str, sized: Callable[[int, Any], int]) -> Rule:
    """Return a rule that changes the size of each spatial axis by its entry of an attribute."""

    def rule(attrs: Attrs, arrays: Arrays, inputs: Sequence[Shape]) -> Shape:
        sizes = _spatial(attrs, inputs[0], len(attrs[name]))
        found = [sized(size, by) for size, by in zip(sizes, attrs[name], strict=True)]
        return _with_channels(attrs, inputs[0][0], found, _channels(attrs, inputs[0]))

    return rule


def _sliced(attrs: Attrs, arrays: Arrays, inputs: Sequence[Shape]) -> Shape:
    axis = attrs["axis"]
    cut = slice(attrs["start"], attrs["stop"], attrs["step"])
    shape = list(inputs[0])
    shape[axis] = len(range(shape[axis])[cut])
    return tuple(shape)


def _reshaped(attrs: Attrs, arrays: Arrays, inputs: Sequence[Shape]) -> Shape:
    target = list(attrs["target"])
    if -1 in target:
        known = math.prod(size for size in target if size != -1)
        target[target.index(-1)] = math.prod(inputs[0][1:]) // known
    return (inputs[0][0], *target)


def _joined(attrs: Attrs, arrays: Arrays, inputs: Sequence[Shape]) -> Shape:
    axis = attrs["axis"] % len(inputs[0])
    rest = {shape[:axis] + shape[axis + 1 :] for shape in inputs}
    if len(rest) != 1:
        shapes = " and ".join(map(str, inputs))
        raise Mismatch(f"expected shapes that differ along axis {axis} only, got {shapes}")
    shape = list(inputs[0])
    shape[axis] = sum(other[axis] for other in inputs)
    return tuple(shape)


def _halved(attrs: Attrs, arrays: Arrays, inputs: Sequence[Shape]) -> Shape:
    shape = list(inputs[0])
    if shape[attrs["axis"]] % 2:
        raise Mismatch(f"expected an even size along axis {attrs['axis']}")
    shape[attrs["axis"]] //= 2
    return tuple(shape)


_PADDED = _image("padding", lambda size, pair: size + sum(pair))
RULES: dict[str, Rule] = {
    "conv": _conv,
    "depthwise_conv": _depthwise,
    "conv_transpose": _transposed,
    "dense": _dense,
    "max_pool": _pool,
    "avg_pool": _pool,
    "global_avg_pool": _reduced,
    "global_max_pool": _reduced,
    "reduce": _reduced,
    "zero_pad": _PADDED,
    "pad": _PADDED,
    "crop": _image("cropping", lambda size, pair: size - sum(pair)),
    "slice": _sliced,
    "upsample": _image("factors", operator.mul),
    "reshape": _reshaped,
    "flatten": lambda attrs, arrays, inputs: (inputs[0][0], math.prod(inputs[0][1:])),
    "permute": lambda attrs, arrays, inputs: tuple(inputs[0][a] for a in (0, *attrs["dims"])),
    "concat": _joined,
    "affine": lambda attrs, arrays, inputs: _broadcast([inputs[0], *arrays.values()]),
    "glu": _halved,
    "embedding": lambda attrs, arrays, inputs: (*inputs[0], arrays["table"][1]),
}
