"""From a paired difference to one of three answers: better, equivalent or inconclusive.

The margin, chosen beforehand, is the smallest difference that matters. This module accepts any
interval; the method of the interval says whether stopping early is allowed.
Not here: the interval (`paired`), the sentence for people (`wording`). Called by `study`.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from typing import Literal

from relucate.errors import InputError
from relucate.stats.paired import PairedDifference, check_level, is_number, t_half_width

Answer = Literal["better", "equivalent", "inconclusive"]
Reason = Literal[
    "too few pairs",
    "all runs diverged",
    "one arm diverged",
    "identical differences",
    "interval too wide",
]
NOTHING_MEASURED = ("all runs diverged", "one arm diverged")  # more pairs don't help

MIN_PAIRS = 3  # with two, the sd has one degree of freedom and the interval is 13 times as wide
MOST_PAIRS = 10_000  # a larger "about how many pairs" is of no use


@dataclass(frozen=True)
class Verdict:
    """The answer of a comparison, with everything that it is based on.

    verdict: 'better', 'equivalent' or 'inconclusive'.
    winner: 'a' or 'b' if the verdict is 'better', else None.
    clears_margin: whether the whole interval lies beyond the margin (only with 'better').
    excludes_zero: whether there is an answer and the interval excludes zero. With 'equivalent' it
        means a difference that is real but smaller than the margin.
    reason: why the verdict is 'inconclusive', else None.
    pairs_needed: about how many pairs in total an inconclusive verdict needs for an answer; None if
        it has one, needs over 10,000, or if more pairs don't help (all runs diverged).
    difference: estimate and interval of b - a, in the metric's own unit.
    margin: smallest difference that matters, same unit.
    diverged: how many runs of a and of b diverged (they count with the worst score).
    """

    verdict: Answer
    winner: Literal["a", "b"] | None
    clears_margin: bool
    excludes_zero: bool
    reason: Reason | None
    pairs_needed: int | None
    difference: PairedDifference
    margin: float
    diverged: tuple[int, int]

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain data, without NaN; `difference` is a dict of its own."""
        diverged = dict(zip("ab", self.diverged, strict=True))
        return {**vars(self), "difference": self.difference.to_dict(), "diverged": diverged}


def decide(
    difference: PairedDifference,
    *,
    margin: float,
    diverged: tuple[int, int] = (0, 0),
    lower_is_better: bool = False,
) -> Verdict:
    """Return the verdict on b - a.

    - *equivalent*: the interval lies inside (-margin, margin). It takes precedence over *better*
      if the interval excludes zero too: such a difference is real, but the margin says that it
      does not matter, so naming a winner would mislead. `excludes_zero` records the fact.
    - *better*: the interval excludes zero; `clears_margin` says whether all of it is beyond.
    - *inconclusive*: anything else, fewer than 3 pairs, or every run of both arms diverged.

    Identical differences (sd 0) have no usable t interval: scores are counts on a test set, so a
    few pairs can agree by chance. The sign test replaces it: an answer needs n pairs with
    2 * (1/2)^n <= 1 - level (6 at 95 %); with fewer the verdict is inconclusive.

    The interval is the two-sided one at its level also for *equivalent*, which is stricter than
    two one-sided tests at the same error (those use the 1 - 2 alpha interval).

    Args:
        difference: b - a with its interval.
        margin: smallest difference that matters, above 0, in the metric's own unit.
        diverged: number of diverged runs of a and of b.
        lower_is_better: whether the arm with the lower scores wins; nothing else depends on it.

    Raises:
        InputError: the margin is not above 0, or a number of diverged runs not in 0..n.

    Reference: D. J. Schuirmann, A comparison of the two one-sided tests procedure and the power
    approach for assessing the equivalence of average bioavailability, 1987.

    >>> from relucate.stats.paired import paired_difference
    >>> d = paired_difference([0.90, 0.91, 0.89, 0.90], [0.93, 0.93, 0.92, 0.93])
    >>> decide(d, margin=0.005).verdict, decide(d, margin=0.005).winner
    ('better', 'b')
    """
    check_margin(margin)
    _check_diverged(diverged, difference)
    answer, reason = _answer(difference, margin, diverged)
    better = answer == "better"
    return Verdict(
        verdict=answer,
        winner=("b" if (difference.estimate > 0) != lower_is_better else "a") if better else None,
        clears_margin=better and _is_beyond(difference, margin),
        excludes_zero=reason is None and _is_beyond(difference, 0.0),
        reason=reason,
        pairs_needed=_needed(difference, margin, reason),
        difference=difference,
        margin=float(margin),
        diverged=diverged,
    )


def pairs_needed(sd: float, estimate: float, margin: float, level: float = 0.95) -> int | None:
    """Return about how many pairs in total give an answer, if estimate and sd stay the same.

    The smallest n >= 3 at which the t interval either excludes zero or fits into the margin:
    t(n - 1, (1 + level) / 2) * sd / sqrt(n) < max(|estimate|, margin - |estimate|).
    With sd = 0 it is the number of the sign test. A guess for planning, not a power analysis: the
    next pairs will move both estimate and sd.

    Args:
        sd: standard deviation of the paired differences.
        estimate: their mean, same unit.
        margin: smallest difference that matters, above 0, same unit.
        level: coverage of the interval, in (0, 1).

    Returns:
        The number of pairs, or None if it is over 10,000.

    Raises:
        InputError: the margin is not above 0, or the level outside (0, 1).

    >>> pairs_needed(sd=0.0061, estimate=0.0061, margin=0.005)
    7
    """
    check_margin(margin)
    check_level(level)
    if sd == 0:
        return _sign_test_pairs(level)
    reach = max(abs(estimate), margin - abs(estimate))
    counts = range(MIN_PAIRS, MOST_PAIRS + 1)  # the half-width shrinks with n, so bisection works
    at = bisect.bisect_left(counts, True, key=lambda n: t_half_width(sd, n, level) < reach)
    return counts[at] if at < len(counts) else None


def check_margin(margin: float) -> None:
    """Raise InputError unless `margin` is a finite number above 0."""
    if not (is_number(margin) and margin > 0 and math.isfinite(margin)):
        raise InputError(
            f"expected a margin above 0, got {margin!r}: "
            "it is the smallest difference that matters to you."
        )


def _check_diverged(diverged: tuple[int, int], difference: PairedDifference) -> None:
    for count, n in zip(diverged, difference.counts, strict=True):
        if not 0 <= count <= n:
            raise InputError(
                f"expected between 0 and {n} diverged runs per arm (one run per pair), got {count}."
            )


def _answer(
    difference: PairedDifference, margin: float, diverged: tuple[int, int]
) -> tuple[Answer, Reason | None]:
    if reason := _undecidable(difference, diverged):
        return "inconclusive", reason
    low, high = difference.low, difference.high
    if low is not None and high is not None and -margin < low and high < margin:
        lost = any(n and n == runs for n, runs in zip(diverged, difference.counts, strict=True))
        return ("inconclusive", "one arm diverged") if lost else ("equivalent", None)
    if _is_beyond(difference, 0.0):
        return "better", None
    return "inconclusive", "interval too wide"


def _undecidable(difference: PairedDifference, diverged: tuple[int, int]) -> Reason | None:
    """Return why no interval of these pairs could give an answer, or None if one could."""
    if diverged == difference.counts:
        return "all runs diverged"
    if difference.n < MIN_PAIRS:
        return "too few pairs"
    if difference.degenerate and difference.n < _sign_test_pairs(difference.level):
        return "identical differences"
    return None


def _sign_test_pairs(level: float) -> int:
    """Return the smallest n >= 3 with 2 * (1/2)^n <= 1 - level."""
    return max(MIN_PAIRS, math.ceil(1 - math.log2(1 - level)))


def _is_beyond(difference: PairedDifference, margin: float) -> bool:
    low, high = difference.low, difference.high
    return low is not None and high is not None and (low > margin or high < -margin)


def _needed(difference: PairedDifference, margin: float, reason: Reason | None) -> int | None:
    if reason is None or reason in NOTHING_MEASURED:
        return None
    if difference.sd is None:  # a single pair says nothing about the spread
        return MIN_PAIRS
    return pairs_needed(difference.sd, difference.estimate, margin, difference.level)
