"""How often verdicts are wrong, and how many pairs they take: simulated studies.

    python benchmarks/verdicts.py [--studies 100000] [--only NAME] [--json FILE]
    python benchmarks/verdicts.py --bounds > src/relucate/stats/bounds.py

Every cell is `--studies` simulated studies that look after every pair from the third on. Effects
and margins are in units of the standard deviation of a paired difference. Numbers in brackets are
Monte Carlo standard errors, in the last digit. docs/statistics.md holds the tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from relucate.stats.sequential import sign_test_pairs
from relucate.stats.spending import FIRST, LAST, critical_value, critical_values

Array = np.ndarray
Draw = Callable[[np.random.Generator, tuple[int, int]], Array]

LEVEL, MOST, CHUNK = 0.95, 30, 20_000
NO_MARGIN = 1e-9  # nothing is ever equivalent


# The table of bounds -----------------------------------------------------------------------------

KNOTS = (
    *range(3, 41), 44, 48, 52, 57, 63, 70, 78, 87, 97, 108, 120, 135, 150, 170, 190, 215, 240, 270,
    300, 340, 380, 430, 480, 540, 600, 670, 750, 840, 920, 1000,
)  # fmt: skip


def print_bounds() -> None:
    """Print the module with the stored critical values, rounded up in the fourth decimal."""
    print(
        '"""Critical values c(n) of the plan of looks: made by `benchmarks/verdicts.py --bounds`.'
    )
    print()
    print("`spending.critical_values` computes them (grid of 4,000), rounded up in the fourth")
    print('decimal. A test compares the two.\n"""\n')
    print(f"KNOTS = (\n{_rows(str(n) for n in KNOTS)}\n)  # fmt: skip\n")
    print("VALUES = {")
    for level in (0.9, 0.95, 0.99):
        values = critical_values(level, LAST, 4000)[np.array(KNOTS) - FIRST]
        texts = (f"{math.ceil(value * 1e4) / 1e4:.4f}" for value in values)
        print(f"    {level}: (\n{_rows(texts, 8)}\n    ),")
    print("}  # fmt: skip")


def _rows(texts: Iterator[str], indent: int = 4) -> str:
    items = [f"{text}," for text in texts]
    return "\n".join(
        " " * indent + " ".join(items[at : at + 10]) for at in range(0, len(items), 10)
    )


# One study ---------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What became of the studies of one cell; all arrays have one entry per study."""

    better: Array
    equivalent: Array
    pairs: Array
    covered: Array
    estimate: Array

    @staticmethod
    def join(parts: list[Tally]) -> Tally:
        return Tally(
            *(np.concatenate([getattr(p, f) for p in parts]) for f in Tally.__annotations__)
        )


def bounds_of(most: int, level: float = LEVEL) -> Array:
    return np.array([critical_value(n, level) for n in range(FIRST, most + 1)])


def monitor(d: Array, bounds: Array, *, margin: float, mean: float, sign_pairs: float) -> Tally:
    """Look at d (studies, pairs) after every pair, stop where the answer stands."""
    n = np.arange(1, d.shape[1] + 1)
    estimate = np.cumsum(d, 1) / n
    squares = np.cumsum((d - d[:, :1]) ** 2, 1) - n * (estimate - d[:, :1]) ** 2
    sd = np.sqrt(np.maximum(squares[:, 2:], 0) / (n[2:] - 1))
    sd[sd < 1e-7] = 0.0
    estimate, n = estimate[:, 2:], n[2:]
    half = bounds * sd / np.sqrt(n)
    usable = (sd > 0) | (n >= sign_pairs)
    equivalent = usable & (np.abs(estimate) + half < margin)
    better = usable & (np.abs(estimate) > half) & ~equivalent
    done = better | equivalent
    at = np.where(done.any(1), done.argmax(1), len(n) - 1)
    row = np.arange(len(d))
    error = np.abs(estimate[row, at] - mean)
    return Tally(
        better[row, at], equivalent[row, at], n[at], error <= half[row, at], estimate[row, at]
    )


def simulate(
    draw: Draw, *, mean: float, studies: int, most: int = MOST, margin: float = NO_MARGIN,
    bounds: Array | None = None, sign_pairs: float | None = None, seed: int = 0,
) -> Tally:  # fmt: skip
    """Simulate a cell: differences draw(rng, shape) + mean, where draw has mean 0 and sd 1."""
    bounds = bounds_of(most) if bounds is None else bounds
    sign_pairs = sign_test_pairs(LEVEL) if sign_pairs is None else sign_pairs
    rng = np.random.default_rng([seed, studies])
    parts = []
    for start in range(0, studies, CHUNK):
        shape = (min(CHUNK, studies - start), most)
        d = draw(rng, shape) + mean
        parts.append(monitor(d, bounds, margin=margin, mean=mean, sign_pairs=sign_pairs))
    return Tally.join(parts)


# Distributions of paired differences, mean 0 and sd 1 --------------------------------------------


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    return rng.standard_normal(shape)


def student(df: float) -> Draw:
    return lambda rng, shape: rng.standard_t(df, shape) / math.sqrt(df / (df - 2))


def exponential(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    return rng.standard_exponential(shape) - 1


def exponential_arms(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Two equally skewed arms: their difference is symmetric."""
    return (rng.standard_exponential(shape) - rng.standard_exponential(shape)) / math.sqrt(2)


def counts(sd: float) -> Draw:
    """Whole test examples: a normal difference of this sd, rounded; ties are frequent."""
    return lambda rng, shape: np.rint(sd * rng.standard_normal(shape)) / sd


def rare(share: float, size: float) -> Draw:
    """Normal, but in a share of the pairs one arm (either) falls far behind."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        sign = rng.choice([-1.0, 1.0], shape) * (rng.random(shape) < share)
        return (rng.standard_normal(shape) + size * sign) / math.sqrt(1 + share * size**2)

    return draw


DISTRIBUTIONS: dict[str, Draw] = {
    "normal": normal,
    "Student t, 5 df": student(5),
    "Student t, 3 df": student(3),
    "difference of two exponentials": exponential_arms,
    "exponential (strongly skewed)": exponential,
    "2 % of runs 10 sd off": rare(0.02, 10),
    "whole counts, sd 5": counts(5),
    "whole counts, sd 2": counts(2),
    "whole counts, sd 1": counts(1),
    "whole counts, sd 0.5": counts(0.5),
}


# Tables ------------------------------------------------------------------------------------------
