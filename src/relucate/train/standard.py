"""Standardise inputs with the training set's statistics, in the same way for every use of the data.

Called by both engines, and to measure statistics on a data set (`convert --data`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_PART = 2**16  # rows that are counted at once


@dataclass(frozen=True)
class Standard:
    """y = (x - mean) * scale, with one mean and scale per channel, each (channels,) float32.

    >>> x = np.array([[1.0, 3.0]])
    >>> Standard.of(x)(x).tolist()
    [[-1.0, 1.0]]
    """

    mean: np.ndarray
    scale: np.ndarray  # 1 / standard deviation

    @classmethod
    def of(cls, x_train: np.ndarray, standardize: bool = True) -> Standard:
        """Return a training set's standard; without `standardize`, values stay unchanged.

        Tokens (int64) always do: they are names, not amounts.
        """
        if standardize and x_train.dtype != np.int64:
            return cls(*channel_moments(x_train))
        width = x_train.shape[-1]
        return cls(np.zeros(width, np.float32), np.ones(width, np.float32))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return examples (n, ..., channels) as float32, standardised; tokens stay int64."""
        if np.asarray(x).dtype == np.int64:
            return x
        return (np.asarray(x, np.float32) - self.mean) * self.scale


def channel_moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and 1 / standard deviation for each last-axis channel, each (channels,), float32.

    Images (n, height, width, channels), volumes and sequences have them per channel. Feature
    vectors (n, features) have one mean and one deviation over all features, so that a constant
    feature stays finite.

    >>> channel_moments(np.array([[1.0, 3.0]]))[0].tolist()
    [2.0, 2.0]
    """
    images = x.ndim > 2
    if x.dtype == np.uint8:
        mean, deviation = _of_bytes(x.reshape(-1, x.shape[-1] if images else 1))
    else:
        axes = tuple(range(x.ndim - 1)) if images else None
        mean = np.asarray(x.mean(axis=axes, dtype=np.float64))
        deviation = np.asarray(x.std(axis=axes, dtype=np.float64))
    scale = 1.0 / np.where(deviation > 0, deviation, 1.0)
    width = x.shape[-1]
    return (
        np.broadcast_to(mean, width).astype(np.float32),
        np.broadcast_to(scale, width).astype(np.float32),
    )


def _of_bytes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation for each column by counting values: no copy of x as floats.

    NumPy counts a copy in int64: of a part at a time, which stays in the processor's cache.
    """
    values = np.arange(256.0)
    counts = np.zeros((x.shape[1], 256), np.int64)
    for start in range(0, len(x), _PART):
        for count, column in zip(counts, x[start : start + _PART].T, strict=True):
            count += np.bincount(column, minlength=256)
    mean = counts @ values / len(x)
    squares = np.square(values - mean[:, None])
    return mean, np.sqrt((counts * squares).sum(1) / len(x))
