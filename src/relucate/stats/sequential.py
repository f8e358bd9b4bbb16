"""Looking after every pair and stopping as soon as the answer is certain, at a controlled error.

`Monitor` replaces `paired_difference` and `decide` in a study that may stop early: the same
answers, wider intervals. Not here: the critical values (`spending`), running pairs (`study`).
Called by `study` after every pair.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, replace

from ..errors import InputError
from .paired import PairedDifference, Scores, paired_difference
from .spending import FIRST, LAST, critical_value
from .verdict import MOST_PAIRS, NOTHING_MEASURED, Verdict, check_margin, decide

MONITORED = "paired t, looks after every pair"
HORIZONS = (30, 120, 300, LAST)  # a level's critical values are computed up to one of these


@dataclass(frozen=True)
class Monitor:
    """The rule of a study that looks after every pair from the third on.

    level: probability that the intervals of all looks together cover the true difference, 0.5 to
        0.9999.
    most: stop here even without an answer, 3 to 1,000. The bounds don't depend on it: a study may
        stop earlier, and one that is inconclusive at `most` may continue with a larger value,
        without any correction. The plan keeps 13 % of the error budget for pairs after the 30th.

    Exact for independent normal differences. The order of the pairs must not depend on their
    scores: with runs side by side, take finished pairs in the order of their seeds. The estimate
    at an early stop is too large on average, because large estimates stop early; the interval still
    holds.

    Raises:
        InputError: level or most out of range.

    References: C. Jennison, B. W. Turnbull, Interim analyses: the repeated confidence interval
    approach, 1989; K. K. G. Lan, D. L. DeMets, Discrete sequential boundaries for clinical trials,
    1983.

    >>> rule = Monitor(most=10)
    >>> verdict = rule.decide([0.90, 0.91, 0.89, 0.90], [0.93, 0.93, 0.92, 0.93], margin=0.005)
    >>> verdict.verdict, verdict.winner, rule.goes_on(verdict)
    ('better', 'b', False)
    """

    level: float = 0.95
    most: int = 30

    def __post_init__(self) -> None:
        critical_value(FIRST, self.level)  # refuses a level out of range
        if not FIRST <= self.most <= LAST:
            raise InputError(
                f"expected {FIRST} to {LAST:,} pairs at most, got {self.most}: "
                "30 is enough for differences of about one standard deviation."
            )

    def half_width_factor(self, n: int) -> float:
        """Return the interval's half-width at look n, in units of the sd: c(n) / sqrt(n).

        Raises:
            InputError: n not in 3 to 1,000.

        >>> round(Monitor().half_width_factor(10), 3)
        1.123
        """
        return critical_value(n, self.level) / math.sqrt(n)

    def interval(self, a: Scores, b: Scores) -> PairedDifference:
        """Estimate the mean of b - a with an interval that holds at any stopping time.

        mean(d) ± c(n) * sd(d) / sqrt(n), d = b - a; c from `spending.critical_value`.

        Args:
            a, b: (n,) scores, finite, n at most 1,000; b[i] ran with the same seed as a[i].

        Returns:
            As `paired_difference`, with other ends and another `method`. Before the first look, at
            three pairs, low and high are None.

        Raises:
            InputError: as in `paired_difference`, or more than 1,000 pairs.

        >>> d = Monitor().interval([0.90, 0.91, 0.89], [0.92, 0.92, 0.92])
        >>> print(f"{d.estimate:.3f} ({d.low:.3f} to {d.high:.3f})")
        0.020 (-0.056 to 0.096)
        """
        d = paired_difference(a, b, level=self.level)
        if d.sd is None or d.n < FIRST:
            return replace(d, low=None, high=None, method=MONITORED)
        half = self.half_width_factor(d.n) * d.sd
        return replace(d, low=d.estimate - half, high=d.estimate + half, method=MONITORED)

    def decide(
        self,
        a: Scores,
        b: Scores,
        *,
        margin: float,
        diverged: tuple[int, int] = (0, 0),
        lower_is_better: bool = False,
    ) -> Verdict:
        """Return the verdict on b - a at this look; the answers mean the same as in `decide`.

        Two things differ. `pairs_needed` counts with the wider bounds. Identical differences need
        the pairs of a sign test at this look's own share of the error (9 at level 0.95).

        Args:
            a, b: (n,) scores, finite; same seed, same index.
            margin: smallest difference that matters, above 0, in the metric's own unit.
            diverged: number of diverged runs of a and of b.
            lower_is_better: whether the arm with the lower scores wins.

        Raises:
            InputError: as in `interval` and `decide`.
        """
        verdict = decide(
            self.interval(a, b), margin=margin, diverged=diverged, lower_is_better=lower_is_better
        )
        d = verdict.difference
        if verdict.reason in (*NOTHING_MEASURED, "too few pairs"):
            needed = FIRST if verdict.reason == "too few pairs" else None
            return replace(verdict, pairs_needed=needed)
        if d.degenerate and d.n < sign_test_pairs(self.level):
            return _identical(verdict, sign_test_pairs(self.level))
        if verdict.reason is None or d.sd is None:
            return verdict
        return replace(verdict, pairs_needed=self.pairs_needed(d.sd, d.estimate, margin))

    def goes_on(self, verdict: Verdict) -> bool:
        """Return whether another pair should run: no answer yet, and fewer than `most` pairs.

        A study ends too if all runs of its first three pairs diverged, or all of an arm that isn't
        behind: more pairs don't help.
        """
        n = verdict.difference.n
        hopeless = verdict.reason in NOTHING_MEASURED and n >= FIRST
        return verdict.reason is not None and n < self.most and not hopeless

    def pairs_needed(self, sd: float, estimate: float, margin: float) -> int | None:
        """Return about how many pairs in total give an answer, if estimate and sd stay the same.

        The smallest n >= 3 with c(n) sd / sqrt(n) < max(|estimate|, margin - |estimate|), with
        c(1000) for c(n) beyond 1,000. A guess for planning: the next pairs will move both. With
        sd = 0 it is the number of the sign test.

        Returns:
            The number of pairs, which may exceed `most`, or None if it is over 10,000.

        Raises:
            InputError: the margin is not above 0.

        >>> Monitor().pairs_needed(sd=0.0061, estimate=0.0061, margin=0.005)
        12
        """
        check_margin(margin)
        if sd == 0:
            return sign_test_pairs(self.level)
        reach = max(abs(estimate), margin - abs(estimate))
        start = FIRST
        for end in HORIZONS:
            counts = range(start, end + 1)  # the half-width shrinks with n, so bisection works
            settles = bisect.bisect_left(
                counts, True, key=lambda n: self.half_width_factor(n) * sd < reach
            )
            if settles < len(counts):
                return counts[settles]
            start = end + 1
        beyond = math.ceil((critical_value(LAST, self.level) * sd / reach) ** 2)
        return beyond if beyond <= MOST_PAIRS else None


def sign_test_pairs(level: float) -> int:
    """Return how many identical differences make an answer if one looks after every pair.

    The smallest n with 2 * (1/2)^n <= 2 P(T > c(n)), T with n - 1 degrees of freedom: the chance of
    n equal signs is at most the error of a t test at this look alone.

    >>> sign_test_pairs(0.95)
    9
    """
    from scipy.special import stdtr

    n = FIRST
    while 0.5**n > stdtr(n - 1, -critical_value(n, level)):
        n += 1
    return n


def _identical(verdict: Verdict, needed: int) -> Verdict:
    return replace(
        verdict,
        verdict="inconclusive",
        winner=None,
        clears_margin=False,
        excludes_zero=False,
        reason="identical differences",
        pairs_needed=needed,
    )
