"""Linear layers and pools in NumPy: every output position sees its window, tap by tap.

Spatial operations move everything to (batch, *spatial, channels) and back. Called by `evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from .nodes import Node
from .padding import explicit_padding, overhang, transpose_crops

Arrays = dict[str, np.ndarray]


def channels_last(x: np.ndarray, node: Node) -> np.ndarray:
    """Return x with its channels on the last axis."""
    return np.moveaxis(x, 1, -1) if node.attrs["data_format"] == "channels_first" else x


def restore(y: np.ndarray, node: Node) -> np.ndarray:
    """Undo `channels_last`."""
    return np.moveaxis(y, -1, 1) if node.attrs["data_format"] == "channels_first" else y


def _dilation(node: Node, rank: int) -> Sequence[int]:
    return node.attrs["dilation"] or (1,) * rank


def _pads(node: Node, sizes: Sequence[int], window: Sequence[int]) -> list[tuple[int, int]]:
    dilation = _dilation(node, len(window))
    return explicit_padding(node.attrs["padding"], sizes, window, node.attrs["strides"], dilation)


def _padded(x: np.ndarray, pads: Sequence[tuple[int, int]], fill: float = 0.0) -> np.ndarray:
    return np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=fill)


def _windows(x: np.ndarray, node: Node, window: Sequence[int]) -> np.ndarray:
    """Return (batch, *output, taps, channels) of an x that is already padded."""
    strides, dilation = node.attrs["strides"], _dilation(node, len(window))
    sizes = [
        (n - (k - 1) * d - 1) // s + 1
        for n, k, s, d in zip(x.shape[1:-1], window, strides, dilation, strict=True)
    ]
    return np.stack([x[cut] for _, cut in _taps(window, sizes, strides, dilation)], axis=-2)


def _taps(
    window: Sequence[int], sizes: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Yield each tap of a window, and where in (batch, *spatial) it is at `sizes` places."""
    for tap in product(*map(range, window)):
        axes = zip(tap, dilation, sizes, strides, strict=True)
        cut = (slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in axes)
        yield tap, (slice(None), *cut)


# Linear layers.


def _patches(x: np.ndarray, node: Node, window: Sequence[int]) -> np.ndarray:
    return _windows(_padded(x, _pads(node, x.shape[1:-1], window)), node, window)


def _conv(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x, kernel = channels_last(xs[0], node), arrays["kernel"]
    groups = node.attrs["groups"]
    patches = _patches(x, node, kernel.shape[:-2])
    parts = zip(np.split(patches, groups, axis=-1), np.split(kernel, groups, axis=-1), strict=True)
    y = [
        part.reshape(*part.shape[:-2], -1) @ weight.reshape(-1, weight.shape[-1])
        for part, weight in parts
    ]
    return restore(np.concatenate(y, axis=-1) + arrays.get("bias", 0.0), node)


def _depthwise_conv(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x, kernel = channels_last(xs[0], node), arrays["kernel"]
    patches = _patches(x, node, kernel.shape[:-2])
    weights = kernel.reshape(-1, *kernel.shape[-2:])
    y = np.einsum("...tc,tcm->...cm", patches, weights)
    return restore(y.reshape(*y.shape[:-2], -1) + arrays.get("bias", 0.0), node)


def _conv_transpose(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    """Let every input value add its kernel to the output, then cut the borders off."""
    x, kernel = channels_last(xs[0], node), arrays["kernel"]
    groups, window = node.attrs["groups"], kernel.shape[:-2]
    parts = zip(np.split(x, groups, axis=-1), np.split(kernel, groups, axis=-1), strict=True)
    full = np.concatenate([_spread(part, weight, node) for part, weight in parts], axis=-1)
    crops = transpose_crops(
        node.attrs["padding"],
        node.attrs["output_padding"],
        window,
        node.attrs["strides"],
        _dilation(node, len(window)),
    )
    y = _padded(full, [(max(-before, 0), max(-after, 0)) for before, after in crops])
    cut = [slice(max(b, 0), n - max(a, 0)) for n, (b, a) in zip(y.shape[1:-1], crops, strict=True)]
    return restore(y[(slice(None), *cut)] + arrays.get("bias", 0.0), node)


def _spread(x: np.ndarray, kernel: np.ndarray, node: Node) -> np.ndarray:
    window, strides = kernel.shape[:-2], node.attrs["strides"]
    dilation, sizes = _dilation(node, len(window)), x.shape[1:-1]
    extent = [
        (n - 1) * s + (k - 1) * d + 1
        for n, k, s, d in zip(sizes, window, strides, dilation, strict=True)
    ]
    y = np.zeros((x.shape[0], *extent, kernel.shape[-2]))
    for tap, cut in _taps(window, sizes, strides, dilation):
        y[cut] += x @ kernel[tap].T
    return y


def _dense(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    return xs[0] @ arrays["kernel"] + arrays.get("bias", 0.0)


def _einsum(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    y = np.einsum(node.attrs["equation"], xs[0], arrays["kernel"])
    return y + arrays.get("bias", 0.0)


def _embedding(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    return arrays["table"][xs[0].astype(np.int64)]


# Pools.


def _pool_pads(node: Node, x: np.ndarray) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the padding, and what windows reach beyond it with ceil_mode."""
    window, strides = node.attrs["window"], node.attrs["strides"]
    pads = _pads(node, x.shape[1:-1], window)
    if not node.attrs["ceil_mode"]:
        return pads, [(0, 0)] * len(pads)
    axes = zip(x.shape[1:-1], window, strides, _dilation(node, len(window)), pads, strict=True)
    return pads, [(0, overhang(*axis)) for axis in axes]


def _max_pool(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x = channels_last(xs[0], node)
    pads, more = _pool_pads(node, x)
    x = _padded(_padded(x, pads, -np.inf), more, -np.inf)
    return restore(_windows(x, node, node.attrs["window"]).max(axis=-2), node)


def _avg_pool(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    """Return sum / count; the padding counts only if asked, what ceil_mode adds never does."""
    x = channels_last(xs[0], node)
    pads, more = _pool_pads(node, x)
    counted = float(node.attrs["count_include_pad"])
    inside = _padded(_padded(np.ones_like(x[:1, ..., :1]), pads, counted), more)
    total, count = (
        _windows(part, node, node.attrs["window"]).sum(axis=-2)
        for part in (_padded(_padded(x, pads), more), inside)
    )
    return restore(total / count, node)


SPATIAL_OPS: Mapping[str, Callable[[Node, list[np.ndarray], Arrays], np.ndarray]] = {
    "conv": _conv,
    "depthwise_conv": _depthwise_conv,
    "conv_transpose": _conv_transpose,
    "dense": _dense,
    "einsum": _einsum,
    "embedding": _embedding,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
}
