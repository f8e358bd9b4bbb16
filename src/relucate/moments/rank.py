"""The effective rank of a stream of vectors, from their covariance.

With d = x - shift, where shift is the first vector, the sums n, Σ d and Σ d dᵀ give the covariance

    C = Σ d dᵀ / n - (Σ d / n) (Σ d / n)ᵀ

and with its eigenvalues p_k = λ_k / Σ λ the effective rank is exp(-Σ p_k ln p_k): 1 if all vectors
are on one line, the number of channels if they spread alike in all directions. Source: Roy and
Vetterli, The Effective Rank: A Measure of Effective Dimensionality, 2007.
"""

from __future__ import annotations

import numpy as np

MOST = 512  # channels: the covariance of more takes too much memory and time
_BLOCK = 1 << 18  # values


class Covariance:
    """Sums of a stream of vectors; `axis` is that of their components."""

    def __init__(self, axis: int = -1) -> None:
        self.axis, self.count = axis, 0
        self._shift = self._sum = self._products = np.zeros(())

    def add(self, values: np.ndarray) -> None:
        """Take in values of any shape, vectors along the axis."""
        rows = np.moveaxis(values, self.axis, -1)
        rows = rows.reshape(-1, rows.shape[-1])
        if not len(rows):
            return
        if not self.count:
            self._shift = rows[0].astype(np.float64)
            self._sum = np.zeros(rows.shape[1])
            self._products = np.zeros((rows.shape[1], rows.shape[1]))
        step = max(1, _BLOCK // rows.shape[1])
        for start in range(0, len(rows), step):
            d = rows[start : start + step].astype(np.float64)
            d -= self._shift
            self._sum += d.sum(0)
            self._products += d.T @ d
        self.count += len(rows)

    @property
    def matrix(self) -> np.ndarray:
        """The covariance, of the vectors themselves (divided by n)."""
        mean = self._sum / self.count
        return self._products / self.count - np.outer(mean, mean)

    @property
    def effective_rank(self) -> float | None:
        """The effective rank; None if nothing varies."""
        return effective_rank(np.linalg.eigvalsh(self.matrix)) if self.count else None


def effective_rank(eigenvalues: np.ndarray) -> float | None:
    """Return exp(-Σ p ln p) of normalised eigenvalues; None if they are all zero.

    >>> effective_rank(np.array([1.0, 1.0, 0.0])), effective_rank(np.zeros(2))
    (2.0, None)
    """
    positive = eigenvalues[eigenvalues > 1e-12 * max(eigenvalues.max(), 0.0)]
    if not len(positive):
        return None
    p = positive / positive.sum()
    return float(np.round(np.exp(-(p * np.log(p)).sum()), 12))
