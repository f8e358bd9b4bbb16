"""What each norm and each affine map computes at inference, in NumPy. Called by `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..affine import batch_norm_affine
from .nodes import Node

Arrays = dict[str, np.ndarray]


def _over(x: np.ndarray, axes: tuple[int, ...], values: np.ndarray) -> np.ndarray:
    """Return `values`, whose axes are `axes` of x in ascending order, ready to broadcast."""
    return values.reshape([x.shape[a] if a in axes else 1 for a in range(x.ndim)])


def _batch_norm(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x, axis = xs[0], node.attrs["axis"] % xs[0].ndim
    mean, variance = arrays.get("moving_mean"), arrays.get("moving_variance")
    if mean is None or variance is None:
        others = tuple(a for a in range(x.ndim) if a != axis)
        mean, variance = x.mean(axis=others), x.var(axis=others)
    affine = batch_norm_affine(
        mean, variance, node.attrs["epsilon"], arrays.get("gamma"), arrays.get("beta")
    )
    return x * _over(x, (axis,), affine.scale) + _over(x, (axis,), affine.shift)


def _instance_norm(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    if "moving_mean" in arrays:  # kept statistics: then it is a batch norm
        return _batch_norm(node, xs, arrays)
    x, axis = xs[0], node.attrs["axis"] % xs[0].ndim
    y = _standardized(x, tuple(a for a in range(1, x.ndim) if a != axis), node)
    return _scaled((axis,), y, arrays)


def _standardized(x: np.ndarray, axes: tuple[int, ...], node: Node) -> np.ndarray:
    mean = x.mean(axis=axes, keepdims=True)
    variance = x.var(axis=axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + node.attrs["epsilon"])


def _scaled(axes: tuple[int, ...], y: np.ndarray, arrays: Arrays) -> np.ndarray:
    if "gamma" in arrays:
        y = y * _over(y, axes, arrays["gamma"])
    return y + _over(y, axes, arrays["beta"]) if "beta" in arrays else y


def _axes(node: Node, x: np.ndarray) -> tuple[int, ...]:
    return tuple(sorted(axis % x.ndim for axis in node.attrs["axes"]))


def _layer_norm(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    axes = _axes(node, xs[0])
    return _scaled(axes, _standardized(xs[0], axes, node), arrays)


def _rms_norm(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x, axes = xs[0], _axes(node, xs[0])
    if node.attrs["rms_scaling"]:  # Keras's: the variance, though no mean is subtracted
        power = x.var(axis=axes, keepdims=True)
    else:
        power = np.square(x).mean(axis=axes, keepdims=True)
    return _scaled(axes, x / np.sqrt(power + node.attrs["epsilon"]), arrays)


def _group_norm(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x = np.moveaxis(xs[0], node.attrs["axis"], 1)
    grouped = x.reshape(x.shape[0], node.attrs["groups"], -1)
    y = _standardized(grouped, (-1,), node).reshape(x.shape)
    return np.moveaxis(_scaled((1,), y, arrays), 1, node.attrs["axis"])


def _unit_norm(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    x = xs[0]
    length = np.sqrt(np.square(x).sum(axis=_axes(node, x), keepdims=True))
    return x / np.maximum(length, node.attrs["epsilon"])


def _rescale(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    return xs[0] * node.attrs["scale"] + node.attrs["offset"]


def _affine(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    return xs[0] * arrays.get("scale", 1.0) + arrays.get("offset", 0.0)


NORM_OPS: Mapping[str, Callable[[Node, list[np.ndarray], Arrays], np.ndarray]] = {
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "unit_norm": _unit_norm,
    "rescale": _rescale,
    "affine": _affine,
}
