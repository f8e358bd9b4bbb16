"""Paired differences between two arms: estimate, t interval, correlation, gain of pairing.

Runs with the same seed form a pair; the difference is b minus a, in the metric's own unit.
Not here: what a difference means (`verdict`), the score of a diverged run (`scores`), and stopping
early (this interval is valid for a number of pairs fixed beforehand). Called by `study`.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from relucate.errors import InputError

Scores = Sequence[float] | np.ndarray

FIXED_N = "paired t, fixed number of pairs"

# Scores are ratios of counts, often computed in float32. Differences that are equal as counts can
# differ in their last bits. A spread of that size is rounding, not precision.
ROUNDING = 4 * float(np.finfo(np.float32).eps)

LARGEST = 1e150  # squares of scores beyond this overflow


@dataclass(frozen=True)
class PairedDifference:
    """Mean of the paired differences b - a with its interval.

    estimate, low, high, sd: in the metric's own unit. low, high and sd are None where no interval
    is defined (a single pair).
    level: coverage of the interval, in (0, 1).
    method: how the interval was computed, in words.
    n: number of pairs.
    correlation: Pearson's, between the arms' scores; None where undefined.
    """

    estimate: float
    low: float | None
    high: float | None
    level: float
    method: str
    n: int
    sd: float | None
    correlation: float | None

    @property
    def degenerate(self) -> bool:
        """Whether all differences are identical, so that the interval is a single point."""
        return self.sd == 0.0

    @property
    def counts(self) -> tuple[int, int]:
        """The number of runs of a and of b."""
        return self.n, self.n

    def to_dict(self) -> dict[str, float | int | str | bool | None]:
        """Return the fields and `degenerate` as plain data, without NaN.

        >>> paired_difference([0.5], [0.75]).to_dict()["low"] is None
        True
        """
        return {**asdict(self), "degenerate": self.degenerate}


def paired_difference(a: Scores, b: Scores, *, level: float = 0.95) -> PairedDifference:
    """Estimate the mean of b - a over pairs, with Student's t interval.

    mean(d) ± t(n - 1, (1 + level) / 2) * sd(d) / sqrt(n), where d = b - a and sd divides by n - 1.

    Exact for independent, normally distributed differences and an n fixed beforehand. One pair has
    no interval (low, high and sd are None). If all differences are identical up to the rounding of
    float32 scores, sd is 0 and the interval is the point [estimate, estimate]: see `degenerate`.

    Args:
        a: (n,) scores of the first arm, finite, in the metric's own unit.
        b: (n,) scores of the second arm; b[i] ran with the same seed as a[i].
        level: coverage of the interval, in (0, 1).

    Raises:
        InputError: no pairs, different lengths, a score that is not a finite number, or a level
            outside (0, 1).

    Reference: Student (W. S. Gosset), The probable error of a mean, 1908.

    >>> d = paired_difference([0.90, 0.91, 0.89], [0.92, 0.92, 0.92])
    >>> print(f"{d.estimate:.3f} ({d.low:.3f} to {d.high:.3f})")
    0.020 (-0.005 to 0.045)
    """
    check_level(level)
    a, b = checked_pairs(a, b)
    estimate, sd = mean_and_sd(b - a, resolution_of(a, b))
    half = None if sd is None else t_half_width(sd, len(a), level)
    return PairedDifference(
        estimate=estimate,
        low=None if half is None else estimate - half,
        high=None if half is None else estimate + half,
        level=float(level),
        method=FIXED_N,
        n=len(a),
        sd=sd,
        correlation=correlation(a, b),
    )


def t_half_width(sd: float, n: int, level: float) -> float:
    """Return half the width of the t interval of a mean: t(n - 1, (1 + level) / 2) * sd / sqrt(n).

    >>> round(t_half_width(1.0, 10, 0.95), 4)
    0.7154
    """
    from scipy.special import stdtrit  # the same quantile as scipy.stats.t.ppf, at half the import

    return float(stdtrit(n - 1, (1 + level) / 2) * sd / np.sqrt(n))


def correlation(a: Scores, b: Scores) -> float | None:
    """Return Pearson's correlation of the arms' scores, or None where it is undefined.

    Undefined for fewer than three pairs and where an arm's scores are all the same (up to the
    rounding of float32 scores).

    Args:
        a, b: (n,) scores, finite; same seed, same index.

    Raises:
        InputError: as in `paired_difference`.

    >>> round(correlation([1.0, 2.0, 3.0], [1.0, 3.0, 2.0]), 12)
    0.5
    """
    a, b = checked_pairs(a, b)
    if len(a) < 3 or _is_constant(a) or _is_constant(b):
        return None
    return float(np.clip(np.dot(_unit(a), _unit(b)), -1.0, 1.0))


def saved_by_pairing(a: Scores, b: Scores) -> float | None:
    """Return the factor by which an unpaired comparison needs more runs for the same interval.

    (var(a) + var(b)) / var(b - a): the variance that the difference of independent runs would have,
    divided by the actual variance. Above 1, pairing saved runs; below 1, it cost some. With equal
    variances and correlation r it is 1 / (1 - r).

    Args:
        a, b: (n,) scores, finite; same seed, same index.

    Returns:
        The ratio, or None for fewer than three pairs or where all differences are identical.

    Raises:
        InputError: as in `paired_difference`.

    >>> saved_by_pairing([1.0, 2.0, 3.0], [1.0, 3.0, 2.0])
    2.0
    """
    a, b = checked_pairs(a, b)
    _, sd = mean_and_sd(b - a, resolution_of(a, b))
    if len(a) < 3 or not sd:
        return None
    return float((a.var(ddof=1) + b.var(ddof=1)) / sd**2)


def check_level(level: float) -> None:
    """Raise InputError unless `level` is a number in (0, 1)."""
    if not (is_number(level) and 0 < level < 1):
        raise InputError(
            f"expected a level between 0 and 1 (exclusive), got {level!r}: "
            "0.95 asks for a 95 % interval."
        )


def is_number(value: object) -> bool:
    """Return whether a value is a real number; True and False don't count.

    >>> is_number(0.5), is_number("0.5"), is_number(True)
    (True, False, False)
    """
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def checked_pairs(a: Scores, b: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Return both arms as (n,) float64, n >= 1, checked."""
    a, b = checked_scores("a", a), checked_scores("b", b)
    if len(a) != len(b):
        raise InputError(
            f"expected pairs, got {len(a)} scores of arm a and {len(b)} of arm b: "
            "pass one score per seed and arm, in the same order of seeds."
        )
    if len(a) == 0:
        raise InputError("expected at least one pair of scores, got none: run a pair first.")
    return a, b


def checked_scores(arm: str, values: Scores) -> np.ndarray:
    """Return one arm's scores as (n,) float64, all finite."""
    try:
        scores = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected numbers as scores of arm {arm}, got {values!r}.") from error
    if scores.ndim != 1:
        raise InputError(
            f"expected one score per run of arm {arm}, shape (n,), got shape {scores.shape}."
        )
    wrong = np.flatnonzero(~(np.abs(scores) < LARGEST))  # NaN compares false, so it is caught too
    if len(wrong):
        raise InputError(
            f"expected finite scores, got {scores[wrong[0]]} at index {wrong[0]} of arm {arm}: "
            "give a diverged run the metric's worst score (relucate.stats.score_runs)."
        )
    return scores


def resolution_of(a: np.ndarray, b: np.ndarray) -> float:
    """Return the spread that rounding alone can cause in the differences of these scores."""
    return ROUNDING * float(max(np.abs(a).max(), np.abs(b).max()))


def _is_constant(scores: np.ndarray) -> bool:
    return float(scores.std()) <= resolution_of(scores, scores)


def _unit(scores: np.ndarray) -> np.ndarray:
    """Return the centred scores, scaled to length one."""
    centred = scores - scores.mean()
    return centred / np.linalg.norm(centred)


def mean_and_sd(d: np.ndarray, resolution: float) -> tuple[float, float | None]:
    """Return mean and sd of the differences; values below the scores' resolution become 0."""
    estimate = float(d.mean())
    if len(d) == 1:
        return estimate, None
    sd = float(d.std(ddof=1))
    if sd > resolution:
        return estimate, sd
    return (estimate if abs(estimate) > resolution else 0.0), 0.0
