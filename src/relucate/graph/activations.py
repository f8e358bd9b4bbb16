"""What each activation computes, in NumPy; elementwise unless its attributes name an axis.

Called by `evaluate`, which fills in the attributes that are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .nodes import Node

Arrays = dict[str, np.ndarray]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -x))


def _erf(x: np.ndarray) -> np.ndarray:
    from scipy.special import erf

    return erf(x)


def _gelu(x: np.ndarray, attrs: Any) -> np.ndarray:
    if attrs["approximate"]:
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / np.sqrt(2)))


def _axes(attrs: Any) -> int | tuple[int, ...]:
    axis = attrs["axis"]
    return tuple(axis) if isinstance(axis, Sequence) else axis


def _softmax(x: np.ndarray, attrs: Any) -> np.ndarray:
    axis = _axes(attrs)
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _log_softmax(x: np.ndarray, attrs: Any) -> np.ndarray:
    axis = _axes(attrs)
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def _sparsemax(x: np.ndarray, attrs: Any) -> np.ndarray:
    """Project onto the simplex (Martins and Astudillo, From Softmax to Sparsemax, 2016)."""
    z = np.moveaxis(x, attrs["axis"], -1)
    ordered = -np.sort(-z, axis=-1)
    sums = ordered.cumsum(axis=-1) - 1.0
    counts = np.arange(1, z.shape[-1] + 1)
    support = (ordered * counts > sums).sum(axis=-1, keepdims=True)
    threshold = np.take_along_axis(sums, support - 1, axis=-1) / support
    return np.moveaxis(np.maximum(z - threshold, 0.0), -1, attrs["axis"])


def _relu(x: np.ndarray, attrs: Any) -> np.ndarray:
    slope, threshold, top = attrs["negative_slope"], attrs["threshold"], attrs["max_value"]
    y = np.where(x > threshold, x, slope * (x - threshold))
    return y if top is None else np.minimum(y, top)


def _softplus(x: np.ndarray, attrs: Any) -> np.ndarray:
    beta, threshold = attrs["beta"], attrs["threshold"]
    y = np.logaddexp(0.0, beta * x) / beta
    return y if threshold is None else np.where(beta * x > threshold, x, y)


def _glu(x: np.ndarray, attrs: Any) -> np.ndarray:
    value, gate = np.split(x, 2, axis=attrs["axis"])
    return value * _sigmoid(gate)


def _rrelu(x: np.ndarray, attrs: Any) -> np.ndarray:
    slope = (attrs["lower"] + attrs["upper"]) / 2  # the mean of what it draws in training
    return np.where(x >= 0, x, slope * x)


_SELU = (1.0507009873554805, 1.6732632423543772)
_FUNCTIONS: dict[str, Callable[[np.ndarray, Any], np.ndarray]] = {
    "relu": _relu,
    "relu6": lambda x, a: np.clip(x, 0, 6),
    "leaky_relu": lambda x, a: np.where(x >= 0, x, a["negative_slope"] * x),
    "rrelu": _rrelu,
    "elu": lambda x, a: np.where(x > 0, x, a["alpha"] * np.expm1(np.minimum(x, 0))),
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
    "hard_tanh": lambda x, a: np.clip(x, a["min_value"], a["max_value"]),
    "erf": lambda x, a: _erf(x),
    "tanh_shrink": lambda x, a: x - np.tanh(x),
    "hard_shrink": lambda x, a: np.where(np.abs(x) > a["threshold"], x, 0.0),
    "soft_shrink": lambda x, a: np.sign(x) * np.maximum(np.abs(x) - a["threshold"], 0.0),
    "threshold": lambda x, a: np.where(x > a["threshold"], x, a["value"]),
    "sparse_plus": lambda x, a: np.where(x < 1, (np.maximum(x, -1) + 1) ** 2 / 4, x),
    "sparse_sigmoid": lambda x, a: np.clip((x + 1) / 2, 0, 1),
    "softplus": _softplus,
    "softsign": lambda x, a: x / (1 + np.abs(x)),
    "squareplus": lambda x, a: (x + np.sqrt(x * x + a["b"])) / 2,
    "exponential": lambda x, a: np.exp(x),
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "sparsemax": _sparsemax,
    "glu": _glu,
}


def _activation(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    return _FUNCTIONS[node.op](xs[0], node.attrs)


def _prelu(node: Node, xs: list[np.ndarray], arrays: Arrays) -> np.ndarray:
    alpha, axis = arrays["alpha"], node.attrs["axis"]
    if axis is not None and alpha.size > 1:
        shape = [1] * xs[0].ndim
        shape[axis] = alpha.size
        alpha = alpha.reshape(shape)
    return np.maximum(xs[0], 0) + alpha * np.minimum(xs[0], 0)


ACTIVATION_OPS: Mapping[str, Callable[[Node, list[np.ndarray], Arrays], np.ndarray]] = {
    **dict.fromkeys(_FUNCTIONS, _activation),
    "prelu": _prelu,
}
