"""Moments per channel up to the fourth, merged block by block in float64.

With d = x - shift, each block has its count n, the mean of d, and M_k = Σ (d - mean)^k. Two blocks
a and b with g = mean_b - mean_a and n = n_a + n_b merge as

    M2 = M2a + M2b + g² n_a n_b / n
    M3 = M3a + M3b + g³ n_a n_b (n_a - n_b) / n² + 3 g (n_a M2b - n_b M2a) / n
    M4 = M4a + M4b + g⁴ n_a n_b (n_a² - n_a n_b + n_b²) / n³
         + 6 g² (n_a² M2b + n_b² M2a) / n² + 4 g (n_a M3b - n_b M3a) / n

The shift is each channel's first value, so that a large offset costs no digits. Sources: Chan,
Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979;
Pébay, Formulas for Robust, One-Pass Parallel Computation of Covariances and Arbitrary-Order
Statistical Moments, 2008.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

_BLOCK = 1 << 17  # values: a block and its powers stay in the cache


def _none() -> np.ndarray:
    return np.zeros(())


@dataclass
class Running:
    """Moments of a stream of values; every array is per channel, shape (channels,), float64.

    count: values per channel; low, high: smallest and largest value; zeros: how many are exactly 0;
    magnitude: Σ |x|; resolution: of the values' type, the relative distance of two numbers.
    """

    count: int = 0
    shift: np.ndarray = field(default_factory=_none)
    offset: np.ndarray = field(default_factory=_none)  # mean - shift
    m2: np.ndarray = field(default_factory=_none)
    m3: np.ndarray = field(default_factory=_none)
    m4: np.ndarray = field(default_factory=_none)
    low: np.ndarray = field(default_factory=lambda: np.full((), np.inf))
    high: np.ndarray = field(default_factory=lambda: np.full((), -np.inf))
    zeros: np.ndarray = field(default_factory=_none)
    magnitude: np.ndarray = field(default_factory=_none)
    resolution: float = 0.0

    def add(self, values: np.ndarray, axis: int = -1) -> None:
        """Take in values of any shape with the channels along `axis`.

        Values that aren't finite make every figure of their channel NaN or infinite.
        """
        if values.dtype in (np.float16, np.float32):
            self.resolution = float(np.finfo(values.dtype).eps)
        with np.errstate(invalid="ignore", over="ignore"):  # who asks sees it in `low` and `high`
            for rows in _blocks(values, axis):
                shift = rows[0].copy() if self.count == 0 else self.shift
                self.merge(_of_block(rows, shift))

    def merge(self, other: Running) -> None:
        """Take in what another stream has seen."""
        if self.count == 0:
            vars(self).update(vars(other) | {"resolution": max(self.resolution, other.resolution)})
            return
        if other.count == 0:
            return
        a, b = float(self.count), float(other.count)
        n = a + b
        g = (other.shift - self.shift) + other.offset - self.offset
        self.m4 = (
            self.m4
            + other.m4
            + g**4 * (a * b * (a * a - a * b + b * b) / n**3)
            + 6 * g**2 * (a * a * other.m2 + b * b * self.m2) / n**2
            + 4 * g * (a * other.m3 - b * self.m3) / n
        )
        self.m3 = (
            self.m3
            + other.m3
            + g**3 * (a * b * (a - b) / n**2)
            + 3 * g * (a * other.m2 - b * self.m2) / n
        )
        self.m2 = self.m2 + other.m2 + g**2 * (a * b / n)
        self.offset = self.offset + g * (b / n)
        self.count += other.count
        self.resolution = max(self.resolution, other.resolution)
        self.low = np.minimum(self.low, other.low)
        self.high = np.maximum(self.high, other.high)
        self.zeros = self.zeros + other.zeros
        self.magnitude = self.magnitude + other.magnitude

    @property
    def mean(self) -> np.ndarray:
        """Σ x / n."""
        return self.shift + self.offset

    @property
    def variance(self) -> np.ndarray:
        """M2 / n, of the values themselves: not the estimate with n - 1."""
        return self.m2 / max(self.count, 1)

    @property
    def constant(self) -> np.ndarray:
        """Whether a channel never changes: it is dead, behind a norm that centres it too.

        An sd of at most the last digit of the mean is rounding, and counts as none.
        """
        least = self.resolution * np.abs(self.mean)
        return (self.low == self.high) | (np.sqrt(self.variance) <= least)

    @property
    def skewness(self) -> np.ndarray:
        """sqrt(n) M3 / M2^1.5: 0 for a symmetric distribution; NaN for a constant channel."""
        return self.m3 / max(self.count, 1) / self._scale() ** 3

    @property
    def kurtosis(self) -> np.ndarray:
        """n M4 / M2² - 3: 0 for the normal distribution; NaN for a constant channel."""
        return self.m4 / max(self.count, 1) / self._scale() ** 4 - 3

    def _scale(self) -> np.ndarray:
        return np.where(self.constant, np.nan, np.sqrt(self.variance))


def _blocks(values: np.ndarray, axis: int) -> Iterator[np.ndarray]:
    """Yield the values in blocks of rows (positions, channels), float64."""
    moved = np.moveaxis(values, axis, -1)
    channels = moved.shape[-1]
    if moved.flags.c_contiguous:  # else the copy below is made example by example
        moved = moved.reshape(-1, channels)
    each = max(1, moved[:1].size)
    step = max(1, _BLOCK // each)
    for start in range(0, len(moved), step):
        rows = moved[start : start + step].astype(np.float64, order="C").reshape(-1, channels)
        if len(rows):
            yield rows


def _of_block(rows: np.ndarray, shift: np.ndarray) -> Running:
    n, ones = len(rows), np.ones(len(rows))
    zeros = np.count_nonzero(rows == 0, axis=0).astype(np.float64)
    low, high, magnitude = rows.min(0), rows.max(0), ones @ np.abs(rows)
    d = rows - shift
    offset = ones @ d / n
    d -= offset
    power = d * d
    m2 = ones @ power
    d *= power
    m3 = ones @ d
    power *= power
    return Running(n, shift, offset, m2, m3, ones @ power, low, high, zeros, magnitude)
