"""The slow, obvious meaning of a Graph: each node in float64 NumPy, at inference.

It is the oracle that readers, lowering and surgery are tested against; nothing trains or serves
with it. Tensors keep the graph's own layout (channels last unless a node says otherwise).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product
from typing import Any

import numpy as np

from ..affine import batch_norm_affine
from ..errors import Refused
from .nodes import Graph, Node
from .padding import same_padding

Arrays = dict[str, np.ndarray]


def evaluate(graph: Graph, *inputs: np.ndarray) -> list[np.ndarray]:
    """Return the graph's outputs at inference, in float64.

    Args: inputs: one array per graph input, batch axis first.
    Raises: Refused: an opaque node stands on the way (its name is in the message).
    """
    values: Arrays = {
        name: np.asarray(x, np.float64) for name, x in zip(graph.inputs, inputs, strict=True)
    }
    for node in graph:
        if node.op == "input":
            continue
        if node.op not in _OPS:
            why = f": {node.attrs['why']}" if node.attrs.get("why") else ""
            raise Refused(f"can't evaluate '{node.name}' ({node.attrs.get('type', node.op)}){why}.")
        arrays = {role: np.asarray(graph.tensors[key]) for role, key in node.arrays.items()}
        arrays = {role: value.astype(np.float64) for role, value in arrays.items()}
        values[node.name] = _OPS[node.op](node, [values[name] for name in node.inputs], arrays)
    return [values[name] for name in graph.outputs]


# Spatial operations: everything is moved to (batch, *spatial, channels) and back.


def _channels_last(x: np.ndarray, node: Node) -> np.ndarray:
    return np.moveaxis(x, 1, -1) if node.attrs.get("data_format") == "channels_first" else x


def _restore(y: np.ndarray, node: Node) -> np.ndarray:
    return np.moveaxis(y, -1, 1) if node.attrs.get("data_format") == "channels_first" else y


def _pad_spatial(x: np.ndarray, node: Node, window: Sequence[int], fill: float) -> np.ndarray:
    if node.attrs["padding"] == "valid":
        return x
    dilation = node.attrs.get("dilation", (1,) * len(window))
    axes = zip(x.shape[1:-1], window, node.attrs["strides"], dilation, strict=True)
    pads = [same_padding(*axis) for axis in axes]
    return np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=fill)


def _windows(x: np.ndarray, node: Node, window: Sequence[int], fill: float = 0.0) -> np.ndarray:
    """Return (batch, *output, taps, channels): what each output position sees, tap by tap."""
    x = _pad_spatial(x, node, window, fill)
    strides = node.attrs["strides"]
    dilation = node.attrs.get("dilation", (1,) * len(window))
    sizes = [
        (n - (k - 1) * d - 1) // s + 1
        for n, k, s, d in zip(x.shape[1:-1], window, strides, dilation, strict=True)
    ]
    taps = []
    for tap in product(*map(range, window)):
        starts = [t * d for t, d in zip(tap, dilation, strict=True)]
        cut = [
            slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, sizes, strides, strict=True)
        ]
        taps.append(x[(slice(None), *cut)])
    return np.stack(taps, axis=-2)


def _conv(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x, kernel = _channels_last(xs[0], node), arrays["kernel"]
    window, groups = kernel.shape[:-2], node.attrs.get("groups", 1)
    patches = _windows(x, node, window)
    weights = kernel.reshape(-1, *kernel.shape[-2:])
    parts = [
        np.einsum("...tc,tcf->...f", part, weight)
        for part, weight in zip(
            np.split(patches, groups, axis=-1), np.split(weights, groups, axis=-1), strict=True
        )
    ]
    return _restore(np.concatenate(parts, axis=-1) + arrays.get("bias", 0.0), node)


def _depthwise_conv(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x, kernel = _channels_last(xs[0], node), arrays["kernel"]
    patches = _windows(x, node, kernel.shape[:-2])
    weights = kernel.reshape(-1, *kernel.shape[-2:])
    y = np.einsum("...tc,tcm->...cm", patches, weights)
    return _restore(y.reshape(*y.shape[:-2], -1) + arrays.get("bias", 0.0), node)


def _dense(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    return xs[0] @ arrays["kernel"] + arrays.get("bias", 0.0)


def _max_pool(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x = _channels_last(xs[0], node)
    return _restore(_windows(x, node, node.attrs["window"], -np.inf).max(axis=-2), node)


def _avg_pool(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x = _channels_last(xs[0], node)  # Keras doesn't count the padding
    return _restore(np.nanmean(_windows(x, node, node.attrs["window"], np.nan), axis=-2), node)


def _global_pool(reduce: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def pool(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
        axes = tuple(node.attrs["axes"])
        return reduce(xs[0], axis=axes, keepdims=node.attrs.get("keepdims", False))

    return pool


def _upsample(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x = _channels_last(xs[0], node)
    for axis, factor in enumerate(node.attrs["factors"], start=1):
        x = np.repeat(x, factor, axis=axis)
    return _restore(x, node)


# Norms.


def _along(axis: int, values: np.ndarray, rank: int) -> np.ndarray:
    shape = [1] * rank
    shape[axis] = values.size
    return values.reshape(shape)


def _batch_norm(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x, axis = xs[0], node.attrs["axis"]
    affine = batch_norm_affine(
        arrays["moving_mean"],
        arrays["moving_variance"],
        node.attrs["epsilon"],
        arrays.get("gamma"),
        arrays.get("beta"),
    )
    return x * _along(axis, affine.scale, x.ndim) + _along(axis, affine.shift, x.ndim)


def _layer_norm(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x = xs[0]
    axes = tuple(axis % x.ndim for axis in node.attrs["axes"])
    mean = x.mean(axis=axes, keepdims=True)
    variance = x.var(axis=axes, keepdims=True)
    y = (x - mean) / np.sqrt(variance + node.attrs["epsilon"])
    shape = [x.shape[a] if a in axes else 1 for a in range(x.ndim)]
    if "gamma" in arrays:
        y = y * arrays["gamma"].reshape(shape)
    return y + (arrays["beta"].reshape(shape) if "beta" in arrays else 0.0)


def _group_norm(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x = np.moveaxis(xs[0], node.attrs["axis"], 1)
    grouped = x.reshape(x.shape[0], node.attrs["groups"], -1)
    mean = grouped.mean(axis=-1, keepdims=True)
    variance = grouped.var(axis=-1, keepdims=True)
    y = ((grouped - mean) / np.sqrt(variance + node.attrs["epsilon"])).reshape(x.shape)
    if "gamma" in arrays:
        y = y * _along(1, arrays["gamma"], x.ndim)
    if "beta" in arrays:
        y = y + _along(1, arrays["beta"], x.ndim)
    return np.moveaxis(y, 1, node.attrs["axis"])


# Activations, elementwise unless said otherwise.


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -x))


def _erf(x: np.ndarray) -> np.ndarray:
    from scipy.special import erf

    return erf(x)


def _gelu(x: np.ndarray, attrs: Any) -> np.ndarray:
    if attrs.get("approximate", False):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / np.sqrt(2)))


def _softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _log_softmax(x: np.ndarray, axis: int) -> np.ndarray:
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def _relu(x: np.ndarray, attrs: Any) -> np.ndarray:
    slope, threshold = attrs.get("negative_slope", 0.0), attrs.get("threshold", 0.0)
    top = attrs.get("max_value")
    y = np.where(x > threshold, x, slope * (x - threshold))
    return y if top is None else np.minimum(y, top)


_SELU = (1.0507009873554805, 1.6732632423543772)
_ACTIVATIONS: dict[str, Callable[[np.ndarray, Any], np.ndarray]] = {
    "relu": _relu,
    "relu6": lambda x, a: np.clip(x, 0, 6),
    "leaky_relu": lambda x, a: np.where(x >= 0, x, a["negative_slope"] * x),
    "elu": lambda x, a: np.where(x > 0, x, a.get("alpha", 1.0) * np.expm1(np.minimum(x, 0))),
    "celu": lambda x, a: np.maximum(x, 0) + a["alpha"] * np.expm1(np.minimum(x, 0) / a["alpha"]),
    "selu": lambda x, a: _SELU[0] * np.where(x > 0, x, _SELU[1] * np.expm1(np.minimum(x, 0))),
    "gelu": _gelu,
    "silu": lambda x, a: x * _sigmoid(x),
    "hard_silu": lambda x, a: x * np.clip(x + 3, 0, 6) / 6,
    "mish": lambda x, a: x * np.tanh(np.logaddexp(0, x)),
    "sigmoid": lambda x, a: _sigmoid(x),
    "hard_sigmoid": lambda x, a: np.clip(x + 3, 0, 6) / 6,
    "log_sigmoid": lambda x, a: -np.logaddexp(0.0, -x),
    "tanh": lambda x, a: np.tanh(x),
    "hard_tanh": lambda x, a: np.clip(x, -1, 1),
    "tanh_shrink": lambda x, a: x - np.tanh(x),
    "hard_shrink": lambda x, a: np.where(np.abs(x) > a["threshold"], x, 0.0),
    "soft_shrink": lambda x, a: np.sign(x) * np.maximum(np.abs(x) - a["threshold"], 0.0),
    "sparse_plus": lambda x, a: np.where(x < 1, (np.maximum(x, -1) + 1) ** 2 / 4, x),
    "sparse_sigmoid": lambda x, a: np.clip((x + 1) / 2, 0, 1),
    "softplus": lambda x, a: np.logaddexp(0, x),
    "softsign": lambda x, a: x / (1 + np.abs(x)),
    "squareplus": lambda x, a: (x + np.sqrt(x * x + a.get("b", 4.0))) / 2,
    "exponential": lambda x, a: np.exp(x),
    "softmax": lambda x, a: _softmax(x, a.get("axis", -1)),
    "log_softmax": lambda x, a: _log_softmax(x, a.get("axis", -1)),
}


def _activation(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    return _ACTIVATIONS[node.op](xs[0], node.attrs)


def _prelu(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    return np.maximum(xs[0], 0) + arrays["alpha"] * np.minimum(xs[0], 0)


# Shapes and merges.


def _reshape(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    return xs[0].reshape(xs[0].shape[0], *node.attrs["target"])


def _flatten(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x = xs[0]
    if node.attrs.get("data_format") == "channels_first":  # Keras flattens channels last
        x = np.moveaxis(x, 1, -1)
    return x.reshape(x.shape[0], -1)


def _zero_pad(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    return _restore(
        np.pad(_channels_last(xs[0], node), [(0, 0), *node.attrs["padding"], (0, 0)]), node
    )


def _fold(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def merge(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
        return reduce(function, _of_one_rank(node, xs))

    return merge


def _of_one_rank(node: Node, xs: list[np.ndarray]) -> list[np.ndarray]:
    """Give lower ranks axes of size one at `fill_axis`; without it NumPy puts them in front."""
    axis = node.attrs.get("fill_axis")
    if axis is None:
        return xs
    rank = max(x.ndim for x in xs)
    return [np.expand_dims(x, tuple(range(axis, axis + rank - x.ndim))) for x in xs]


def _average(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    return np.mean(np.broadcast_arrays(*_of_one_rank(node, xs)), axis=0)


def _same(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    return xs[0]


_OPS: dict[str, Callable[[Node, list[np.ndarray], Arrays], np.ndarray]] = {
    "conv": _conv,
    "depthwise_conv": _depthwise_conv,
    "dense": _dense,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_max_pool": _global_pool(np.max),
    "global_avg_pool": _global_pool(np.mean),
    "upsample": _upsample,
    "flatten": _flatten,
    "reshape": _reshape,
    "permute": lambda node, xs, arrays: xs[0].transpose(0, *node.attrs["dims"]),
    "zero_pad": _zero_pad,
    "prelu": _prelu,
    "dropout": _same,
    "identity": _same,
    "rescale": lambda node, xs, arrays: xs[0] * node.attrs["scale"] + node.attrs["offset"],
    "add": _fold(np.add),
    "subtract": _fold(np.subtract),
    "multiply": _fold(np.multiply),
    "maximum": _fold(np.maximum),
    "minimum": _fold(np.minimum),
    "average": _average,
    "concat": lambda node, xs, arrays: np.concatenate(xs, axis=node.attrs["axis"]),
    **dict.fromkeys(_ACTIVATIONS, _activation),
}
