"""A sample of a stream's positions, all channels of each, that is the same for any batching.

Position number i (example by example) has the hash h(i), a bijection of 64 bits; the positions with
the smallest hashes are kept. So each set of positions is as likely as any other, how the stream is
cut into batches changes nothing, and memory stays bounded. With m of the positions, each channel's
distribution function is right within

    sqrt(ln(2 / 0.05) / (2 m))

everywhere, with a probability of 95 %; it is exact if all positions are kept. Sources: Steele, Lea
and Flood, Fast Splittable Pseudorandom Number Generators, 2014 (the hash); Massart, The Tight
Constant in the Dvoretzky-Kiefer-Wolfowitz Inequality, 1990; Hoeffding, Probability Inequalities for
Sums of Bounded Random Variables, 1963 (samples without replacement are no worse).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr

MOST = 1024  # positions
_VALUES = 1 << 22  # in all channels of a sample
_LEAST = 64
_RUN = 8
EDGES = np.arange(-3.0, 3.5, 0.5)  # of the histogram, in sd from the mean; open on both sides


class Sample:
    """Positions of a stream. `values` has the shape (positions, channels)."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept = _NONE
        self._values: np.ndarray | None = None

    @property
    def seen(self) -> int:
        """How many positions the stream had."""
        return self._kept.seen

    def add(self, values: np.ndarray, axis: int = -1) -> None:
        """Take in values of any shape with the channels along `axis`, examples along axis 0."""
        moved = np.moveaxis(values, axis, -1)
        lead = moved.shape[:-1]
        step = _step(self._kept, math.prod(lead), self.size_for(moved.shape[-1]))
        self._kept = step.kept
        if not len(step.chosen):
            return
        if moved.flags.c_contiguous:
            rows = moved.reshape(-1, moved.shape[-1])[step.chosen]
        else:
            rows = moved[np.unravel_index(step.chosen, lead)]
        if self._values is not None:
            rows = np.concatenate([self._values, rows])
        self._values = rows[step.order]

    def size_for(self, channels: int) -> int:
        """Return how many positions are kept of so many channels.

        >>> Sample().size_for(64), Sample().size_for(50_000)
        (1024, 83)
        """
        return min(self._most, max(_LEAST, _VALUES // max(channels, 1)))

    @property
    def values(self) -> np.ndarray:
        """The sample, in no meaningful order."""
        return np.zeros((0, 0)) if self._values is None else self._values

    @property
    def precision(self) -> float:
        """How far a channel's distribution function may be off, with 95 % confidence; 0: exact."""
        kept = len(self._kept.hashes)
        return 0.0 if kept == self.seen else math.sqrt(math.log(2 / 0.05) / (2 * kept))

    @property
    def ascending(self) -> np.ndarray:
        """Each channel's values in ascending order, shape (channels, positions)."""
        values = self.values
        wide = np.float32 if values.dtype == np.float16 else values.dtype
        return np.sort(np.ascontiguousarray(values.T, wide), axis=1)


def quantiles(ascending: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
    """Return the quantiles per channel, shape (len(shares), channels), between values linearly.

    >>> quantiles(np.array([[0.0, 1.0, 4.0]]), (0.5, 0.75)).tolist()
    [[1.0], [2.5]]
    """
    last = ascending.shape[1] - 1
    places = np.array(shares)[:, None] * last
    below = np.floor(places).astype(int)[:, 0]
    low, high = ascending[:, below].T, ascending[:, np.minimum(below + 1, last)].T
    return low + (places - below[:, None]) * (high.astype(np.float64) - low)


def normal_distance(ascending: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Return the largest difference of each channel's distribution function from the normal's.

        max |F(x) - Φ((x - mean) / sd)|        (Kolmogorov's distance), 0 to 1

    Args: ascending: shape (channels, positions); mean and sd: (channels,).

    It is a distance, not a test: it doesn't grow with the number of values. Half of a normal
    distribution set to zero (a ReLU behind a norm) has 0.30 or more. NaN where sd is.

    F and Φ both ascend, so their values at both ends of a run of positions bound the difference in
    it. Φ is computed inside those runs only that may have a larger difference than all the ends.
    """
    count = ascending.shape[1]
    starts = np.arange(0, count, _RUN)
    ends = np.minimum(starts + _RUN, count)
    at = ascending[:, np.append(starts, count - 1)]
    phi = ndtr((at - mean[:, None]) / sd[:, None])
    first, following = phi[:, :-1], phi[:, 1:]
    found = _largest(first, starts, count)
    bound = np.maximum(ends / count - first, following - starts / count)
    channels, runs = np.nonzero(bound > found[:, None])
    places = np.minimum(starts[runs][:, None] + np.arange(_RUN), count - 1)
    some = channels[:, None]
    inside = _largest(ndtr((ascending[some, places] - mean[some]) / sd[some]), places, count)
    np.maximum.at(found, channels, inside)
    return found


def _largest(expected: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """Return the largest difference, in each row, of Φ at some places from F at its step there."""
    return np.maximum((places + 1) / count - expected, expected - places / count).max(axis=1)


def histogram(ascending: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Return how many values are between the EDGES, shape (channels, 14); the ends are open.

    Args: as for `normal_distance`. A channel whose sd is NaN has no counts, nor has a NaN.

    >>> histogram(np.array([[-9.0, 0.1, 0.2, 3.0]]), np.zeros(1), np.ones(1)).tolist()
    [[1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1]]
    """
    edges = np.full((len(sd), len(EDGES) + 1), np.inf, ascending.dtype)
    edges[:, :-1] = mean[:, None] + sd[:, None] * EDGES
    edges[np.isnan(sd)] = -np.inf
    below = [channel.searchsorted(each) for channel, each in zip(ascending, edges, strict=True)]
    return np.diff(np.array(below), prepend=0)


@dataclass(frozen=True, eq=False)
class _Kept:
    """The positions that a sample keeps: how many the stream had, and the smallest hashes."""

    seen: int
    hashes: np.ndarray  # ascending


@dataclass(frozen=True)
class _Step:
    """What a batch changes: which of its rows are taken, and the order of all that are kept."""

    kept: _Kept
    chosen: np.ndarray
    order: np.ndarray


_NONE = _Kept(0, np.zeros(0, np.uint64))


@lru_cache(maxsize=64)  # points of a network have as many positions as those next to them
def _step(kept: _Kept, count: int, size: int) -> _Step:
    """Return the step from what is kept by `count` more positions to at most `size`."""
    hashes = _hashed(kept.seen, count)
    full = len(kept.hashes) == size
    chosen = np.flatnonzero(hashes < kept.hashes[-1]) if full else np.arange(count)
    if len(chosen) > size:
        chosen = chosen[np.argpartition(hashes[chosen], size - 1)[:size]]
    every = np.concatenate([kept.hashes, hashes[chosen]])
    order = np.argsort(every)[:size]
    return _Step(_Kept(kept.seen + count, every[order]), chosen, order)


def _hashed(start: int, count: int) -> np.ndarray:
    """Return the hashes of the positions from `start` on (splitmix64)."""
    with np.errstate(over="ignore"):
        x = np.arange(start + 1, start + count + 1, dtype=np.uint64)
        x *= np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return x
