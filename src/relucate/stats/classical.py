"""Figures that readers expect next to a verdict: t, Wilcoxon, probability that b wins, TOST.

All assume a number of pairs that was fixed beforehand. After early stopping they only describe the
data; the verdict's own interval stays valid. Not here: verdicts. Called by `study`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from .paired import (
    Scores,
    check_level,
    checked_pairs,
    mean_and_sd,
    paired_difference,
    resolution_of,
)
from .verdict import check_margin

WILCOXON_PAIRS = 6  # with five, the smallest two-sided p is 0.0625
WILCOXON_EXACT = 200  # exact distribution up to here, normal approximation beyond


@dataclass(frozen=True)
class Classical:
    """Classical figures of b - a over n pairs; undefined figures are None, never NaN.

    t_low, t_high, t_p: Student's interval and two-sided p value of no difference (n >= 2; the p
        value is None where all differences are identical).
    wilcoxon_p: two-sided p value of the signed-rank test (at least 6 nonzero differences).
    superiority, superiority_low, superiority_high: share of pairs in which b is ahead (ties count
        half), which estimates the probability that b beats a with the same seed.
    tost_p: p value of the two one-sided tests of a difference at or beyond the margin.
    margin, level, n: as asked.
    """

    n: int
    level: float
    margin: float
    t_low: float | None
    t_high: float | None
    t_p: float | None
    wilcoxon_p: float | None
    superiority: float
    superiority_low: float
    superiority_high: float
    tost_p: float | None

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the fields as plain data."""
        return asdict(self)


def classical(
    a: Scores, b: Scores, *, margin: float, level: float = 0.95, lower_is_better: bool = False
) -> Classical:
    """Return the classical figures of b - a.

    Args:
        a, b: (n,) scores, finite; same seed, same index.
        margin: smallest difference that matters, above 0, in the metric's own unit.
        level: coverage of the intervals, in (0, 1).
        lower_is_better: whether the arm with the lower score is ahead in a pair.

    Raises:
        InputError: as in `paired_difference`, or a margin that is not above 0.

    >>> figures = classical([0.90, 0.91, 0.89, 0.90], [0.93, 0.93, 0.92, 0.93], margin=0.005)
    >>> round(figures.t_p, 4), figures.wilcoxon_p, figures.superiority
    (0.0016, None, 1.0)
    """
    check_margin(margin)
    d = paired_difference(a, b, level=level)
    worse, better = (b, a) if lower_is_better else (a, b)
    low, high = superiority_interval(worse, better, level=level)
    return Classical(
        n=d.n,
        level=float(level),
        margin=float(margin),
        t_low=d.low,
        t_high=d.high,
        t_p=t_p(a, b),
        wilcoxon_p=wilcoxon_p(a, b),
        superiority=superiority(worse, better),
        superiority_low=low,
        superiority_high=high,
        tost_p=tost_p(a, b, margin=margin),
    )


def t_p(a: Scores, b: Scores) -> float | None:
    """Return the two-sided p value of the paired t test, P(|T| > |t|) with n - 1 df.

    t = mean(d) / (sd(d) / sqrt(n)). None for one pair and for identical differences.

    Raises:
        InputError: as in `paired_difference`.

    >>> round(t_p([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), 4)
    0.0742
    """
    a, b = checked_pairs(a, b)
    estimate, sd = mean_and_sd(b - a, resolution_of(a, b))
    return 2 * _upper_tail(abs(estimate), sd, len(a)) if sd else None


def tost_p(a: Scores, b: Scores, *, margin: float) -> float | None:
    """Return the p value of equivalence: the larger of two one-sided paired t tests.

    max(P(T > (margin + m) / se), P(T > (margin - m) / se)), m = mean(d), se = sd(d) / sqrt(n).
    Below 0.05 the 90 % t interval lies inside the margin. None for one pair and for identical
    differences.

    Raises:
        InputError: as in `paired_difference`, or a margin that is not above 0.

    Reference: D. J. Schuirmann, A comparison of the two one-sided tests procedure and the power
    approach for assessing the equivalence of average bioavailability, 1987.

    >>> round(tost_p([1.0, 2.0, 3.0], [1.1, 2.0, 2.9], margin=0.5), 4)
    0.0065
    """
    check_margin(margin)
    a, b = checked_pairs(a, b)
    estimate, sd = mean_and_sd(b - a, resolution_of(a, b))
    return _upper_tail(margin - abs(estimate), sd, len(a)) if sd else None


def wilcoxon_p(a: Scores, b: Scores) -> float | None:
    """Return the two-sided p value of Wilcoxon's signed-rank test.

    The sum of the ranks of |d| where d > 0, compared with all assignments of signs to the ranks.
    Zeros are left out; equal |d| (up to the rounding of float32 scores) share the mean of their
    ranks. Up to 200 differences all assignments are counted, so p is exact given the ties. Beyond,
    p comes from the normal distribution with the variance sum(rank^2) / 4. None with fewer than 6
    nonzero differences.

    Raises:
        InputError: as in `paired_difference`.

    Reference: F. Wilcoxon, Individual comparisons by ranking methods, 1945.

    >>> wilcoxon_p([0.0] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    0.03125
    """
    a, b = checked_pairs(a, b)
    d = _clear(a, b)
    d = d[d != 0]
    if len(d) < WILCOXON_PAIRS:
        return None
    doubled = _doubled_ranks(np.abs(d), resolution_of(a, b))
    positive, whole = int(doubled[d > 0].sum()), int(doubled.sum())
    smaller = min(positive, whole - positive)
    if len(d) > WILCOXON_EXACT:
        z = (smaller - whole / 2) / math.sqrt(float(np.square(doubled).sum()) / 4)
        return min(1.0, math.erfc(-z / math.sqrt(2)))
    return min(1.0, 2 * float(_sign_distribution(doubled)[: smaller + 1].sum()))


def superiority(a: Scores, b: Scores) -> float:
    """Return the share of pairs in which b scores higher than a; a tie counts half.

    Raises:
        InputError: as in `paired_difference`.

    >>> superiority([1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 4.0, 3.0])
    0.625
    """
    a, b = checked_pairs(a, b)
    return float(np.mean((np.sign(_clear(a, b)) + 1) / 2))


def superiority_interval(a: Scores, b: Scores, *, level: float = 0.95) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of the probability that b scores higher in a pair.

    Quantiles of beta distributions, with x = wins + ties / 2 successes out of n:
    low = B((1 - level) / 2; x, n - x + 1), high = B((1 + level) / 2; x + 1, n - x), 0 and 1 where
    undefined. Without ties its coverage is at least `level` for any n. With ties it is an
    extension to halves, and wider than needed: halves vary less than wins and losses.

    Raises:
        InputError: as in `paired_difference`.

    Reference: C. J. Clopper, E. S. Pearson, The use of confidence or fiducial limits illustrated in
    the case of the binomial, 1934.

    >>> low, high = superiority_interval([0.0] * 5, [1.0] * 5)
    >>> round(low, 4), high
    (0.4782, 1.0)
    """
    from scipy.special import betaincinv

    check_level(level)
    share, n = superiority(a, b), len(a)
    won = share * n
    low = betaincinv(won, n - won + 1, (1 - level) / 2) if won > 0 else 0.0
    high = betaincinv(won + 1, n - won, (1 + level) / 2) if won < n else 1.0
    return float(low), float(high)


def _upper_tail(distance: float, sd: float, n: int) -> float:
    """Return P(T > distance / (sd / sqrt(n))), T with n - 1 degrees of freedom."""
    from scipy.special import stdtr

    return float(stdtr(n - 1, -distance * math.sqrt(n) / sd))


def _clear(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return b - a with 0 where it is below the rounding of the scores."""
    d = b - a
    return np.where(np.abs(d) > resolution_of(a, b), d, 0.0)


def _doubled_ranks(sizes: NDArray[np.float64], resolution: float) -> NDArray[np.int64]:
    """Return twice the rank of each size, 2 for the smallest; equal sizes share the mean.

    Neighbours in order are equal if they differ by no more than the resolution.
    """
    order = np.argsort(sizes, kind="stable")
    starts = np.append(True, np.diff(sizes[order]) > resolution)
    group = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)
    last = np.append(first[1:], len(sizes)) - 1
    doubled = np.empty(len(sizes), np.int64)
    doubled[order] = (first + last + 2)[group]
    return doubled


def _sign_distribution(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return P(sum of the positive ranks = k), k = 0, 1, ..., if all signs are random."""
    chance = np.zeros(int(ranks.sum()) + 1)
    chance[0] = 1.0
    for rank in ranks:
        chance[rank:] = (chance[rank:] + chance[:-rank]) / 2
        chance[:rank] /= 2
    return chance
