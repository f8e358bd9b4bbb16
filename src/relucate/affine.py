"""A norm at inference as scale and shift per channel.

    y = s · x + t,   s = gamma / sqrt(variance + epsilon),   t = beta - mean · s

Pure NumPy in float64: a caller that needs another dtype casts once, at the end.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Affine(NamedTuple):
    """y = scale · x + shift, both of shape (channels,), float64."""

    scale: np.ndarray
    shift: np.ndarray


def batch_norm_affine(
    mean: np.ndarray,
    variance: np.ndarray,
    epsilon: float,
    gamma: np.ndarray | None = None,
    beta: np.ndarray | None = None,
) -> Affine:
    """Return the scale and shift of a batch norm at inference.

    Args: mean, variance, gamma, beta: shape (channels,); gamma None means 1, beta None means 0.
    Exact up to float64 rounding. Source: Ioffe and Szegedy, Batch Normalization, 2015, Algorithm 2.

    >>> batch_norm_affine(np.array([1.0]), np.array([3.0]), 1.0, gamma=np.array([4.0]))
    Affine(scale=array([2.]), shift=array([-2.]))
    """
    mean64 = np.asarray(mean, np.float64)
    scale = 1.0 / np.sqrt(np.asarray(variance, np.float64) + epsilon)
    if gamma is not None:
        scale = scale * np.asarray(gamma, np.float64)
    shift = -mean64 * scale
    if beta is not None:
        shift = shift + np.asarray(beta, np.float64)
    return Affine(scale, shift)
