"""Two sources of noise: seeds and test examples. Does a difference hold beyond this test set?

A verdict's interval is about new seeds on the same test examples. From the score of every run on
every example (right or wrong, or a number) this module computes an interval for new seeds and new
examples, the crossed bootstrap, and which of the two sources limits the claim. Called by `study`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .paired import check_level, t_half_width

Source = Literal["seed", "example", "interaction"]
Matrix = NDArray[np.float64]
Scored = NDArray[np.bool_ | np.floating]

CHUNK = 2_000_000  # examples drawn at a time, to limit the memory


@dataclass(frozen=True)
class Split:
    """Variance components of the per-cell difference d[i, j] of seed i on example j.

    d[i, j] = mean + seed[i] + example[j] + interaction[i, j], all independent, mean 0.

    seed, example, interaction: their estimated variances, at least 0, in squared units of the
        score. With one run per seed and arm, `interaction` holds all other noise too.
    pairs, examples: n and m.
    """

    seed: float
    example: float
    interaction: float
    pairs: int
    examples: int

    @property
    def parts(self) -> dict[Source, float]:
        """The variance that each source adds to the mean: seed/n, example/m, interaction/(n m)."""
        n, m = self.pairs, self.examples
        return {
            "seed": self.seed / n,
            "example": self.example / m,
            "interaction": self.interaction / (n * m),
        }

    @property
    def limit(self) -> Source | None:
        """The source that adds most variance, or None if there is no variance at all.

        seed: more pairs help. example: more test examples help. interaction: either helps.
        """
        parts = self.parts
        most: Source = max(parts, key=lambda source: parts[source])
        return most if parts[most] > 0 else None


@dataclass(frozen=True)
class Crossed:
    """The difference b - a with intervals that count seeds and test examples.

    estimate: mean of b - a over all pairs and examples.
    low, high: interval for new seeds and new examples; report this one.
    bootstrap_low, bootstrap_high: percentiles of the crossed bootstrap.
    level: coverage. split: variance components. resamples: of the bootstrap.
    """

    estimate: float
    low: float
    high: float
    bootstrap_low: float
    bootstrap_high: float
    level: float
    split: Split
    resamples: int

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain data, without NaN, with `parts` and `limit` of the split."""
        data = asdict(self)
        data["split"].update(parts=self.split.parts, limit=self.split.limit)
        return data


def crossed(
    a: Scored,
    b: Scored,
    *,
    level: float = 0.95,
    half_width: float | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Crossed:
    """Estimate b - a with intervals for new seeds and new test examples.

    estimate ± sqrt(half_width^2 + z^2 example / m): the verdict's own half-width, which holds for
    new seeds on the same examples, plus the variance that the examples add (`split`). z is the
    normal quantile. The interval is therefore never narrower than the verdict's.

    The bootstrap resamples seeds and examples at once, each with replacement, and takes
    percentiles. It counts the interaction three times and the seeds (n - 1) / n times, without
    Student's correction. It is too narrow with few pairs if seeds limit the claim, and too wide if
    the interaction does. docs/statistics.md has the coverage of both intervals.

    Args:
        a, b: (n, m) score of run i of the arm on test example j, n and m at least 2: booleans
            (right or wrong) or floating-point numbers. Same row, same seed; same column, same
            example. A diverged run is a row of worst scores.
        level: coverage, in (0, 1).
        half_width: of the verdict's interval; None takes Student's for a fixed number of pairs.
        resamples: of the bootstrap, at least 100.
        seed: of the bootstrap's generator; the same seed gives the same interval.

    Raises:
        InputError: shapes, types or numbers out of range.

    References: A. B. Owen, The pigeonhole bootstrap, 2007; S. R. Searle, G. Casella, C. E.
    McCulloch, Variance components, 1992.

    >>> right = np.array([[1, 0, 1, 1], [1, 1, 0, 1], [1, 0, 1, 1]], bool)
    >>> wrong = np.zeros((3, 4), bool)
    >>> result = crossed(wrong, right)
    >>> result.estimate, result.split.limit
    (0.75, 'interaction')
    """
    from scipy.special import ndtri

    check_level(level)
    d = _differences(a, b)
    if resamples < 100:
        raise InputError(f"expected at least 100 resamples, got {resamples}: the default is 2,000.")
    split = variance_split(d)
    if half_width is None:
        half_width = t_half_width(float(d.mean(1).std(ddof=1)), len(d), level)
    if not (half_width >= 0 and math.isfinite(half_width)):
        raise InputError(f"expected a half-width of 0 or more, got {half_width}.")
    z = float(ndtri((1 + level) / 2))
    both = math.hypot(half_width, z * math.sqrt(split.parts["example"]))
    estimate = float(d.mean())
    means = resampled_means(d, resamples, seed)
    ends = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Crossed(
        estimate=estimate,
        low=estimate - both,
        high=estimate + both,
        bootstrap_low=float(ends[0]),
        bootstrap_high=float(ends[1]),
        level=float(level),
        split=split,
        resamples=resamples,
    )


def variance_split(d: Matrix) -> Split:
    """Estimate the variance components of d by the two-way random-effects ANOVA.

    With the mean squares of rows MS_r, columns MS_c and residuals MS_e:
    interaction = MS_e, seed = (MS_r - MS_e) / m, example = (MS_c - MS_e) / n, each at least 0.
    Unbiased before the truncation.

    Args:
        d: (n, m) difference of seed i on example j, finite, n and m at least 2.

    Raises:
        InputError: another shape, or a value that is not finite.

    Reference: S. R. Searle, G. Casella, C. E. McCulloch, Variance components, 1992.

    >>> split = variance_split(np.array([[0.0, 1.0], [2.0, 3.0]]))
    >>> split.seed, split.example, split.interaction
    (2.0, 0.5, 0.0)
    """
    d = np.asarray(d, np.float64)
    if d.ndim != 2 or min(d.shape) < 2 or not np.isfinite(d).all():
        raise InputError(
            f"expected finite differences of at least 2 pairs on at least 2 examples, "
            f"got shape {d.shape}."
        )
    n, m = d.shape
    rows, columns, mean = d.mean(1), d.mean(0), d.mean()
    left = d - rows[:, None] - columns + mean
    ms_rows = m * float(np.square(rows - mean).sum()) / (n - 1)
    ms_columns = n * float(np.square(columns - mean).sum()) / (m - 1)
    ms_left = float(np.square(left).sum()) / ((n - 1) * (m - 1))
    return Split(
        seed=max(0.0, (ms_rows - ms_left) / m),
        example=max(0.0, (ms_columns - ms_left) / n),
        interaction=ms_left,
        pairs=n,
        examples=m,
    )


def resampled_means(d: Matrix, resamples: int, seed: int) -> Matrix:
    """Return the mean of d under the crossed bootstrap; shape (resamples,).

    sum over i, j of w[i] v[j] d[i, j] / (n m), where w and v count how often each seed and each
    example was drawn. A resample costs one row of a matrix product, and nothing is copied.

    >>> d = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> float(resampled_means(d, 1000, seed=1).mean().round(1))
    0.5
    """
    n, m = d.shape
    random = np.random.default_rng(seed)
    kept = d[:, np.abs(d).max(0) > 0]  # examples on which no pair differs add nothing
    means = []
    for start in range(0, resamples, step := max(1, CHUNK // m)):
        count = min(step, resamples - start)
        drawn = random.binomial(m, kept.shape[1] / m, count)  # how many of them are drawn
        examples = _multiplicities(random, drawn, kept.shape[1])
        seeds = _multiplicities(random, np.full(count, n), n)
        means.append(np.einsum("ri,ri->r", seeds, examples @ kept.T))
    return np.concatenate(means) / (n * m)


def pack(correct: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return correctness (..., m) as bits, (..., ceil(m / 8)) bytes, first example first.

    >>> pack(np.array([True, False, True])).tolist()
    [160]
    """
    return np.packbits(np.asarray(correct, bool), axis=-1)


def unpack(bits: NDArray[np.uint8], examples: int) -> NDArray[np.bool_]:
    """Return the correctness (..., m) that `pack` made bits of.

    Raises:
        InputError: the number of bytes doesn't fit the number of examples.

    >>> unpack(np.array([160], np.uint8), 3).tolist()
    [True, False, True]
    """
    bits = np.asarray(bits, np.uint8)
    if bits.ndim < 1 or bits.shape[-1] != -(-examples // 8):
        raise InputError(
            f"expected {-(-examples // 8)} bytes for {examples} examples, got shape {bits.shape}."
        )
    return np.unpackbits(bits, axis=-1, count=examples).astype(bool)


def _differences(a: Scored, b: Scored) -> Matrix:
    """Return b - a per seed and example as (n, m) float64, checked."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.kind not in "bf" or b.dtype.kind not in "bf":
        raise InputError(
            "expected correctness as booleans, or a score per example as floating-point numbers, "
            f"got {a.dtype} and {b.dtype}: compare predictions with labels, or unpack the stored "
            "bits."
        )
    if a.shape != b.shape or a.ndim != 2 or min(a.shape) < 2:
        raise InputError(
            "expected a score per example of both arms as (pairs, examples), at least 2 by 2, "
            f"got shapes {a.shape} and {b.shape}."
        )
    return b.astype(np.float64) - a.astype(np.float64)


def _multiplicities(random: np.random.Generator, drawn: NDArray[np.int64], size: int) -> Matrix:
    """Return how often each item comes up in drawn[r] draws; shape (len(drawn), size)."""
    count = len(drawn)
    rows = np.repeat(np.arange(count) * size, drawn)
    picks = random.integers(0, max(size, 1), len(rows)) if size else np.zeros(0, np.int64)
    return np.bincount(rows + picks, minlength=count * size).reshape(count, size).astype(float)
