"""Standardise inputs with the training set's statistics: the same numbers for every engine."""

from __future__ import annotations

import numpy as np


def channel_moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and 1 / standard deviation for each last-axis channel, each (channels,), float32.

    Images (n, height, width, channels) get them per channel. Feature vectors (n, features) get one
    mean and one deviation over all features, so that a feature that never varies stays finite.

    >>> channel_moments(np.array([[1.0, 3.0]]))[0].tolist()
    [2.0, 2.0]
    """
    axes = tuple(range(x.ndim - 1)) if x.ndim > 2 else None
    mean = np.asarray(x.mean(axis=axes, dtype=np.float64))
    deviation = np.asarray(x.std(axis=axes, dtype=np.float64))
    scale = 1.0 / np.where(deviation > 0, deviation, 1.0)
    width = x.shape[-1]
    return (
        np.broadcast_to(mean, width).astype(np.float32),
        np.broadcast_to(scale, width).astype(np.float32),
    )
