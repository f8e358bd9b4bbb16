"""Unpaired difference between two arms whose runs share no seeds: Welch's interval.

Not here: pairs (`paired`), which are narrower where the arms correlate. Called by `study`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import InputError
from .paired import (
    PairedDifference,
    Scores,
    check_level,
    checked_scores,
    mean_and_sd,
    resolution_of,
)

WELCH = "Welch's t, unpaired"


@dataclass(frozen=True)
class UnpairedDifference(PairedDifference):
    """Difference of the means of two arms, b - a, with Welch's interval.

    n: the smaller number of runs; runs: those of a and of b.
    sd: of the difference between one run of each arm, sqrt(var(a) + var(b)).
    correlation: None.
    """

    runs: tuple[int, int]

    @property
    def counts(self) -> tuple[int, int]:
        """The number of runs of a and of b."""
        return self.runs


def welch_difference(a: Scores, b: Scores, *, level: float = 0.95) -> UnpairedDifference:
    """Estimate mean(b) - mean(a) from independent runs, with Welch's interval.

    With u = var(a) / n_a, v = var(b) / n_b (variances divide by n - 1):
    mean(b) - mean(a) ± t(ν, (1 + level) / 2) sqrt(u + v),
    ν = (u + v)² / (u² / (n_a - 1) + v² / (n_b - 1)).

    The variances may differ. Approximate: ν is Welch's and Satterthwaite's, for independent,
    normally distributed scores. A single run of an arm has no interval.

    Args:
        a: (n_a,) scores of the first arm, finite, in the metric's own unit.
        b: (n_b,) scores of the second arm.
        level: coverage of the interval, in (0, 1).

    Raises:
        InputError: no scores, a score that isn't a finite number, a level outside (0, 1), or no
            spread within either arm.

    Reference: B. L. Welch, The generalization of "Student's" problem when several different
    population variances are involved, 1947.

    >>> d = welch_difference([0.90, 0.91, 0.89], [0.92, 0.93, 0.94, 0.93])
    >>> print(f"{d.estimate:.3f} ({d.low:.3f} to {d.high:.3f}), runs {d.runs}")
    0.030 (0.010 to 0.050), runs (3, 4)
    """
    check_level(level)
    a, b = checked_scores("a", a), checked_scores("b", b)
    if not (len(a) and len(b)):
        raise InputError(f"expected runs of both arms, got {len(a)} and {len(b)}.")
    resolution = resolution_of(a, b)
    (mean_a, sd_a), (mean_b, sd_b) = mean_and_sd(a, resolution), mean_and_sd(b, resolution)
    if sd_a == sd_b == 0:
        raise InputError(
            "all runs of an arm have the same score, in both arms, so that unpaired runs have no "
            "interval: compare them in pairs."
        )
    half = sd = None
    if sd_a is not None and sd_b is not None:
        half, sd = welch_half_width(sd_a, sd_b, len(a), len(b), level), math.hypot(sd_a, sd_b)
    estimate = mean_b - mean_a
    return UnpairedDifference(
        estimate=estimate,
        low=None if half is None else estimate - half,
        high=None if half is None else estimate + half,
        level=float(level),
        method=WELCH,
        n=min(len(a), len(b)),
        sd=sd,
        correlation=None,
        runs=(len(a), len(b)),
    )


def welch_half_width(sd_a: float, sd_b: float, n_a: int, n_b: int, level: float) -> float:
    """Return half the width of Welch's interval for sds over n runs each, not both 0."""
    from scipy.special import stdtrit

    # Divided by the larger, so that no square underflows.
    largest = max(sd_a, sd_b)
    u, v = (sd_a / largest) ** 2 / n_a, (sd_b / largest) ** 2 / n_b
    freedom = (u + v) ** 2 / (u**2 / (n_a - 1) + v**2 / (n_b - 1))
    return float(stdtrit(freedom, (1 + level) / 2) * largest * math.sqrt(u + v))
