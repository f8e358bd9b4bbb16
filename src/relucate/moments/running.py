"""Moments per channel up to the fourth, merged block by block in float64.

With d = x - shift (the first block's centre), each block has its count n, the mean of d, and
M_k = Σ (d - mean)^k. Two blocks a and b with g = mean_b - mean_a and n = n_a + n_b merge as

    M2 = M2a + M2b + g² n_a n_b / n
    M3 = M3a + M3b + g³ n_a n_b (n_a - n_b) / n² + 3 g (n_a M2b - n_b M2a) / n
    M4 = M4a + M4b + g⁴ n_a n_b (n_a² - n_a n_b + n_b²) / n³
         + 6 g² (n_a² M2b + n_b² M2a) / n² + 4 g (n_a M3b - n_b M3a) / n

A block's sums of powers are taken around a centre: the mean of every 16th of its rows. It has the
values' offset, and is at most 4 standard deviations from the block's mean, because the squares of
1/16 of the rows can't sum to more than those of all. So the step from there to M_k,

    M2 = S2 - n m²,   M3 = S3 - 3 m S2 + 2 n m³,   M4 = S4 - 4 m S3 + 6 m² S2 - 3 n m⁴

with S_k = Σ (x - centre)^k and m = S1 / n, costs at most three of float64's sixteen digits.

Sources: Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample
Variances, 1979; Pébay, Formulas for Robust, One-Pass Parallel Computation of Covariances and
Arbitrary-Order Statistical Moments, 2008.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

_BLOCK = 1 << 20  # values that are merged at once
_PART = 1 << 17  # values: a part and its powers stay in the cache
_WIDE = 768  # columns: sums over narrow rows are slow
_MOST = 255  # rows of a part
_EACH = 16  # rows: one of them counts for the centre


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
                self.merge(_of_block(rows))

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
    """Yield the values in blocks of rows (positions, channels), contiguous."""
    moved = np.moveaxis(values, axis, -1)
    channels = moved.shape[-1]
    if moved.flags.c_contiguous:  # else the copy below is made example by example
        moved = moved.reshape(-1, channels)
    step = max(1, _BLOCK // max(1, moved[:1].size))
    small = values.dtype in (np.float16, np.float32)
    for start in range(0, len(moved), step):
        rows = np.ascontiguousarray(
            moved[start : start + step], np.float32 if small else np.float64
        ).reshape(-1, channels)
        if len(rows):
            yield rows


def _of_block(rows: np.ndarray) -> Running:
    some = rows[::_EACH].astype(np.float64)
    centre = some[0] + (some - some[0]).mean(0)
    centres = np.tile(centre, _side_by_side(rows.shape[1]))
    found = [_sums(part, centres[: part.shape[1]]) for part in _parts(rows)]
    low, high, sums = (
        np.concatenate([one.reshape(*one.shape[:-1], -1, rows.shape[1]) for one in column], -2)
        for column in zip(*found, strict=True)
    )
    zeros, magnitude, s1, s2, s3, s4 = sums.sum(-2)
    n = len(rows)
    m = s1 / n
    m2 = np.maximum(s2 - m * s1, 0.0)
    m3 = s3 - 3 * m * s2 + 2 * m**2 * s1
    m4 = s4 - 4 * m * s3 + 6 * m**2 * s2 - 3 * m**3 * s1
    return Running(n, centre, m, m2, m3, m4, low.min(0), high.max(0), zeros, magnitude)


def _parts(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield rows in parts that fit into the cache; several narrow rows are made one wide row."""
    n, channels = rows.shape
    fold = _side_by_side(channels)
    whole = n - n % fold
    wide = rows[:whole].reshape(-1, fold * channels)
    step = min(_MOST, max(1, _PART // (fold * channels)))
    for start in range(0, len(wide), step):
        yield wide[start : start + step]
    if whole < n:
        yield rows[whole:]


def _side_by_side(channels: int) -> int:
    return min(_MOST, max(1, _WIDE // channels))


class _Scratch(threading.local):
    """Arrays that a thread uses again: the pages of new ones cost more than sums in them."""

    def __init__(self) -> None:
        self._numbers, self._flags = np.empty((2, 0)), np.empty(0, bool)

    def like(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return two arrays of float64 and one of bool, of the same shape."""
        shape, size = rows.shape, rows.size
        if size > _PART:  # one very wide row
            return np.empty(shape), np.empty(shape), np.empty(shape, bool)
        if not len(self._flags):
            self._numbers, self._flags = np.empty((2, _PART)), np.empty(_PART, bool)
        one, other = (numbers[:size].reshape(shape) for numbers in self._numbers)
        return one, other, self._flags[:size].reshape(shape)


_scratch = _Scratch()


def _sums(rows: np.ndarray, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the smallest, the largest, and (zeros, Σ |x|, Σ d, Σ d², Σ d³, Σ d⁴), by column.

    At most _MOST rows, so that a byte can count zeros.
    """
    low, high, found = rows.min(0), rows.max(0), np.zeros((6, rows.shape[1]))
    d, power, zero = _scratch.like(rows)
    if np.equal(rows, 0, out=zero).any():
        found[0] = zero.view(np.uint8).sum(0, dtype=np.uint8)
    ones = np.ones(len(rows))
    np.copyto(d, rows)
    found[1] = ones @ (d if low.min() >= 0 else np.abs(d, out=power))
    d -= centre
    np.multiply(d, d, out=power)
    found[2] = ones @ d
    found[3] = ones @ power
    found[4] = np.einsum("ij,ij->j", d, power)
    found[5] = np.einsum("ij,ij->j", power, power)
    return low, high, found
