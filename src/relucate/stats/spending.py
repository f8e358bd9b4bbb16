"""Critical values for looking after every pair: how the error budget is spent.

The budget 1 - level is spent over the looks n = 3, 4, 5, ... by a fixed plan that never uses it up.
So the bound at n does not depend on when the study is going to stop: it may stop at any look and
may continue at any time. The values are exact for normal differences, by recursion over looks.
Not here: intervals (`sequential`). `bounds.py` holds the values for the usual levels.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .bounds import KNOTS, VALUES
from .paired import check_level

Array = NDArray[np.float64]

FIRST = 3  # the first look; with two pairs the sd has one degree of freedom
LAST = 1000  # the plan has no end, its stored and computed values end here
LEVELS = (0.5, 0.9999)  # the recursion's grid is fine enough between these
PACE = 16.0  # larger: the budget lasts longer and early verdicts are rarer

GRID = 500  # points over |r|; the stored values were made with 4,000
REACH = 10.0  # a larger |r| has a probability below 1e-20
NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)


def spent(n: int, level: float) -> float:
    """Return the share of studies without a difference that may cross the bound by look n.

    A(n) = (1 - level) * (1 - (16 / (n + 14))^2) for n >= 3, and 0 before.

    At level 0.95: 0.57 % at n = 3, 2.8 % at 10, 4.3 % at 30, 4.9 % at 120, never 5 %. The number 16
    was chosen by simulation (docs/statistics.md).

    Raises:
        InputError: a level outside (0, 1).

    Reference: K. K. G. Lan, D. L. DeMets, Discrete sequential boundaries for clinical trials, 1983.

    >>> round(spent(30, 0.95), 4)
    0.0434
    """
    check_level(level)
    return 0.0 if n < FIRST else (1 - level) * (1 - (PACE / (n - 2 + PACE)) ** 2)


def critical_value(n: int, level: float) -> float:
    """Return the c(n) that |t| must exceed at look n, t = mean(d) / (sd(d) / sqrt(n)).

    P(|t| > c at some look from 3 to n) = spent(n, level) for normal d with mean 0. The intervals
    mean(d) ± c(n) * sd(d) / sqrt(n) therefore cover the mean at all looks together with probability
    `level` or more: they are repeated confidence intervals, valid at any stopping time.

    Stored for the levels 0.9, 0.95 and 0.99 (beyond n = 40 at knots, between them linear in log n:
    off by less than 0.1 %), computed for others (tenths of a second up to 120 looks, a few seconds
    up to 1,000; from n = 80 on they come out up to 0.5 % too wide).

    Args:
        n: number of pairs, 3 to 1,000.
        level: simultaneous coverage, 0.5 to 0.9999.

    Raises:
        InputError: n or level out of range.

    Reference: C. Jennison, B. W. Turnbull, Interim analyses: the repeated confidence interval
    approach, 1989.

    >>> round(critical_value(3, 0.95), 2), round(critical_value(30, 0.95), 2)
    (13.18, 3.22)
    """
    _check(n, level)
    stored = VALUES.get(round(float(level), 12))
    if stored is not None:
        return float(np.interp(math.log(n), np.log(KNOTS), stored))
    horizon = next(end for end in (30, 120, 300, LAST) if n <= end)
    return float(critical_values(level, horizon)[n - FIRST])


@lru_cache(maxsize=64)
def critical_values(level: float, last: int, grid: int = GRID) -> Array:
    """Return c(3), ..., c(last) by numerical recursion; shape (last - 2,), read only.

    With d normal and mean 0, r(n) = sum(d) / sqrt(sum(d^2)) is a Markov chain and independent of
    sum(d^2); t is a growing function of r. Let g(r) be the probability of no crossing before look
    n given r(n) = r. Then g of the next look is an integral of this one over the values of r(n)
    between the bounds, weighted by their density given r(n + 1); and c(n) is the bound
    beyond which the integral of g times the density of r(n) equals what look n may spend.

    Raises:
        InputError: `last` or `level` out of range.

    Reference for exact recursions on the t scale: C. Jennison, B. W. Turnbull, Exact calculations
    for sequential t, chi-squared and F tests, 1991. The recursion in r is our own.
    """
    _check(last, level)
    bounds = []
    angles = silent = np.zeros(0)
    for n in range(FIRST, last + 1):
        before = angles, silent
        angles = np.linspace(0, math.asin(min(1.0, REACH / math.sqrt(n))), grid)
        silent = np.ones(grid) if n == FIRST else _carry(n, np.sin(angles), before, bounds[-1])
        increment = spent(n, level) - spent(n - 1, level)
        bounds.append(_bound(n, angles, silent, increment))
    n = np.arange(FIRST, last + 1)
    squares = np.square(bounds)  # of r / sqrt(n)
    values = np.sqrt(squares * (n - 1) / (1 - squares))
    values.flags.writeable = False
    return values


def _carry(n: int, s: Array, before: tuple[Array, Array], bound: float) -> Array:
    """Return g at look n for r = s sqrt(n), from g at look m = n - 1 and the bound there.

    u, the newest difference over sqrt(sum of squares), is given r
        u = r / n + h b,  h = sqrt((1 - s^2) m / n),
    where b is a coordinate of a point on the unit sphere in n - 1 dimensions: with b = sin(phi)
    the density of phi is proportional to cos(phi)^(n - 3). The earlier r is
    (r - u) / sqrt(1 - u^2), which is within its bound for u between the roots of a quadratic.
    """
    m = n - 1
    r = s * math.sqrt(n)
    centre, h = r / n, np.sqrt(np.maximum(1 - s * s, 1e-300) * m / n)
    limit = bound * bound * m  # of the earlier r, squared
    root = np.sqrt(np.maximum(r * r - (1 + limit) * (r * r - limit), 0))
    widest = min(math.pi / 2, 12 / math.sqrt(max(n - 3, 1)))  # beyond, the density is below 1e-30
    low, high = (
        np.clip(
            np.arcsin(np.clip(((r + sign * root) / (1 + limit) - centre) / h, -1, 1)),
            -widest,
            widest,
        )
        for sign in (-1, 1)
    )
    phi = ((low + high)[:, None] + (high - low)[:, None] * NODES) / 2
    density = np.cos(phi) ** (n - 3) / _circle(n - 3)
    u = centre[:, None] + h[:, None] * np.sin(phi)
    earlier = np.abs(r[:, None] - u) / np.sqrt(np.maximum(1 - u * u, 1e-300))
    angle = np.arcsin(np.minimum(earlier / math.sqrt(m), bound))
    return (high - low) / 2 * (_cubic(angle, *before) * density @ WEIGHTS)


def _bound(n: int, angles: Array, silent: Array, increment: float) -> float:
    """Return the s beyond which g times the density of |s| integrates to the increment."""
    density = 2 * np.cos(angles) ** (n - 2) / _circle(n - 2) * silent
    step = angles[1]
    cells = (density[1:] + density[:-1]) / 2 * step
    tail = np.append(np.cumsum(cells[::-1])[::-1], 0.0)  # beyond each angle
    at = int(np.searchsorted(-tail, -increment, side="right")) - 1  # tail[at] >= increment > next
    near, far = density[at], density[at + 1]
    missing = increment - tail[at + 1]
    # Within the cell the density is linear: solve far x + (near - far) x^2 / (2 step) = missing.
    x = 2 * missing / (far + math.sqrt(far * far + 2 * (near - far) * missing / step))
    return math.sin(angles[at + 1] - x)


def _circle(power: int) -> float:
    """Return the integral of cos^power over (-pi/2, pi/2)."""
    return math.sqrt(math.pi) * math.exp(math.lgamma((power + 1) / 2) - math.lgamma(power / 2 + 1))


def _cubic(x: Array, grid: Array, values: Array) -> Array:
    """Return values at x by cubic interpolation through the four points around; the grid is even.

    Linear interpolation is biased where g is convex, and the bias adds up over a thousand looks.
    """
    position = x / grid[1]
    at = np.clip(position.astype(int), 1, len(grid) - 3)
    f = position - at
    a, b, c, d = (values[at + shift] for shift in (-1, 0, 1, 2))
    return (
        -f * (f - 1) * (f - 2) / 6 * a
        + (f * f - 1) * (f - 2) / 2 * b
        - f * (f + 1) * (f - 2) / 2 * c
        + f * (f * f - 1) / 6 * d
    )


def _check(n: int, level: float) -> None:
    check_level(level)
    if not LEVELS[0] <= level <= LEVELS[1]:
        raise InputError(
            f"expected a level from {LEVELS[0]} to {LEVELS[1]} for looks after every pair, "
            f"got {level}: 0.95 asks for a 95 % interval."
        )
    if not FIRST <= n <= LAST:
        raise InputError(
            f"expected {FIRST} to {LAST:,} pairs for looks after every pair, got {n}: "
            f"the plan of looks starts at {FIRST} and its bounds end at {LAST:,}."
        )
