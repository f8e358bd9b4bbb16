"""Shapes, merges, reductions and what does nothing at inference, in NumPy. Called by `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, cast

import numpy as np

from .nodes import Node
from .ops import select
from .spatial import channels_last, restore

Arrays = dict[str, np.ndarray]
_GLOBAL = {"global_max_pool": "max", "global_avg_pool": "mean"}


def _reshape(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    return xs[0].reshape(xs[0].shape[0], *node.attrs["target"])


def _flatten(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x = xs[0]
    if node.attrs["data_format"] == "channels_first":  # Keras flattens channels last
        x = np.moveaxis(x, 1, -1)
    return x.reshape(x.shape[0], -1)


def _permute(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    return xs[0].transpose(0, *node.attrs["dims"])


def _zero_pad(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    pads = [tuple(pair) for pair in node.attrs["padding"]]
    return restore(np.pad(channels_last(xs[0], node), [(0, 0), *pads, (0, 0)]), node)


def _pad(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    pads = [(0, 0), *(tuple(pair) for pair in node.attrs["padding"]), (0, 0)]
    mode, pad = node.attrs["mode"], cast(Any, np.pad)
    fill = {"constant_values": node.attrs["value"] or 0.0} if mode == "constant" else {}
    return restore(pad(channels_last(xs[0], node), pads, mode, **fill), node)


def _crop(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x = channels_last(xs[0], node)
    sizes = zip(x.shape[1:-1], node.attrs["cropping"], strict=True)
    cut = [slice(before, size - after) for size, (before, after) in sizes]
    return restore(x[(slice(None), *cut)], node)


def _slice(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x, attrs = xs[0], node.attrs
    cut = [slice(None)] * x.ndim
    cut[attrs["axis"]] = slice(attrs["start"], attrs["stop"], attrs["step"])
    return x[tuple(cut)]


def _upsample(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x = channels_last(xs[0], node)
    for axis, factor in enumerate(node.attrs["factors"], start=1):
        x = np.repeat(x, factor, axis=axis)
    return restore(x, node)


def _reduce(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    """Compute a sum, mean, max, min, prod, var or std; global pools are two of them."""
    function = getattr(np, _GLOBAL.get(node.op) or node.attrs["function"])
    return function(xs[0], axis=tuple(node.attrs["axes"]), keepdims=node.attrs["keepdims"])


def _fold(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def merge(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
        return reduce(function, _of_one_rank(node, xs))

    return merge


def _of_one_rank(node: Node, xs: list[np.ndarray]) -> list[np.ndarray]:
    """Give lower ranks axes of size one at `fill_axis`; without it NumPy puts them in front."""
    axis = node.attrs["fill_axis"]
    if axis is None:
        return xs
    rank = max(x.ndim for x in xs)
    return [np.expand_dims(x, tuple(range(axis, axis + rank - x.ndim))) for x in xs]


def _average(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    return np.mean(np.broadcast_arrays(*_of_one_rank(node, xs)), axis=0)


def _concat(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    return np.concatenate(xs, axis=node.attrs["axis"])


def _same(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    return xs[0]


def _constant(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    value = arrays["value"]
    return np.broadcast_to(value, (len(xs[0]), *value.shape[1:]))


SHAPE_OPS: Mapping[str, Callable[[Node, list[np.ndarray], Arrays], np.ndarray]] = {
    "flatten": _flatten,
    "reshape": _reshape,
    "permute": _permute,
    "zero_pad": _zero_pad,
    "pad": _pad,
    "crop": _crop,
    "slice": _slice,
    "upsample": _upsample,
    "reduce": _reduce,
    **dict.fromkeys(_GLOBAL, _reduce),
    "identity": _same,
    "constant": _constant,
    "gaussian_noise": _same,
    **dict.fromkeys(select(kind="drop"), _same),
    "add": _fold(np.add),
    "subtract": _fold(np.subtract),
    "multiply": _fold(np.multiply),
    "divide": _fold(np.divide),
    "maximum": _fold(np.maximum),
    "minimum": _fold(np.minimum),
    "average": _average,
    "concat": _concat,
}
