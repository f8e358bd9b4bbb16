"""How often verdicts are wrong, and how many pairs they take: simulated studies.

    python benchmarks/verdicts.py [--studies 100000] [--only NAME] [--json FILE]
    python benchmarks/verdicts.py --bounds > src/relucate/stats/bounds.py

Every cell is `--studies` simulated studies that look after every pair from the third on. Effects
and margins are in units of the standard deviation of a paired difference. Numbers in brackets are
Monte Carlo standard errors, in the last digit. docs/statistics.md holds the tables.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from scipy.stats import binomtest, norm
from scipy.stats import t as student_t

from relucate.stats import spending
from relucate.stats.crossed import crossed
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


def collapse(share: float, size: float) -> Draw:
    """Normal, but in a share of the pairs the first arm, and only it, falls far behind."""
    scale = math.sqrt(1 + share * (1 - share) * size**2)

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        fallen = rng.random(shape) < share
        return (rng.standard_normal(shape) + size * (fallen - share)) / scale

    return draw


DISTRIBUTIONS: dict[str, Draw] = {
    "normal": normal,
    "Student t, 5 df": student(5),
    "Student t, 3 df": student(3),
    "difference of two exponentials": exponential_arms,
    "exponential (strongly skewed)": exponential,
    "in 2 % of pairs either arm 10 sd off": rare(0.02, 10),
    "in 2 % of pairs one arm 10 sd off": collapse(0.02, 10),
    "in 10 % of pairs one arm 10 sd off": collapse(0.1, 10),
    "in 30 % of pairs one arm 10 sd off": collapse(0.3, 10),
    "whole counts, sd 5": counts(5),
    "whole counts, sd 2": counts(2),
    "whole counts, sd 1": counts(1),
    "whole counts, sd 0.5": counts(0.5),
}


# What was not chosen -----------------------------------------------------------------------------


def naive(most: int) -> Array:
    """An ordinary 95 % t interval at every look: not valid."""
    return nominal(most, 1 - LEVEL)


def nominal(most: int, error: float) -> Array:
    """Student's t at the same nominal error at every look."""
    n = np.arange(FIRST, most + 1)
    return student_t.ppf(1 - error / 2, n - 1)


def pocock(most: int, studies: int) -> Array:
    """The same nominal error at every look, found by simulation: Pocock's, on the t scale."""
    low, high = 1e-4, 1 - LEVEL
    for _ in range(12):
        middle = math.sqrt(low * high)
        tally = simulate(normal, mean=0, studies=studies, bounds=nominal(most, middle), seed=99)
        low, high = (middle, high) if tally.better.mean() < 1 - LEVEL else (low, middle)
    return nominal(most, low)


def mixture(most: int, spread: float) -> Array:
    """The t sequence that is valid at any time, without an end, by Ville's inequality.

    Mixture of effects N(0, spread) in units of the sd; c(n)^2 / (n - 1) = (k - 1) / (1 - k / m),
    m = 1 + n spread^2, k = (sqrt(m) / error)^(2 / n). Infinite where k >= m.
    Sources: Lai, On confidence sequences, 1976; Wang and Ramdas, Anytime-valid t-tests, 2025.
    """
    n = np.arange(FIRST, most + 1)
    m = 1 + n * spread**2
    k = (np.sqrt(m) / (1 - LEVEL)) ** (2 / n)
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = np.where(k < m, (n - 1) * (k - 1) / (1 - k / m), np.inf)
    return np.minimum(np.sqrt(squares), 1e9)


def planned(spend: Callable[[int], float], most: int = MOST) -> Array:
    """Bounds that spend `spend(n)` of the error by look n, by the recursion of the package."""
    with mock.patch.object(spending, "spent", lambda n, level: spend(n) if n >= FIRST else 0.0):
        return np.array(critical_values.__wrapped__(LEVEL, most, 1000))


def paced(pace: float) -> Callable[[int], float]:
    """The spending of the package at another pace; it has 16."""
    return lambda n: (1 - LEVEL) * (1 - (pace / (n - 2 + pace)) ** 2)


def obrien_fleming(n: int) -> float:
    """O'Brien and Fleming's spending for 30 pairs, after Lan and DeMets, 1983."""
    return 2 * float(norm.sf(norm.isf((1 - LEVEL) / 2) / math.sqrt(n / MOST)))


# Seeds and test examples -------------------------------------------------------------------------

LIMITS = {  # what limits -> sd of what a seed, an example and a run on an example add in one arm
    "seeds": (0.4, 0.1, 0.7),
    "test examples": (0.03, 0.9, 0.5),
    "both together": (0.03, 0.1, 1.0),
}


def right(rng: np.random.Generator, pairs: int, examples: int, sds: tuple[float, ...]) -> list:
    """Return two arms' correctness (pairs, examples), and the difference of their true accuracies.

    A run is right where ease + difficulty of the example + luck of the seed + what the arm adds to
    both and to the run > 0, all normal: the accuracy of an arm is then Phi(ease / sd).
    """
    seed, example, run = sds
    shape, base, gap = (pairs, examples), 1.5 * math.sqrt(3), 0.15
    shared = rng.normal(size=(1, examples)) + seed * rng.normal(size=(pairs, 1))
    arms = [
        base + gap * arm + shared + seed * rng.normal(size=(pairs, 1))
        + example * rng.normal(size=(1, examples)) + run * rng.normal(size=shape) > 0
        for arm in (0, 1)
    ]  # fmt: skip
    sd = math.sqrt(1 + 2 * seed**2 + example**2 + run**2)
    return [*arms, norm.cdf((base + gap) / sd) - norm.cdf(base / sd)]


# Other metrics -----------------------------------------------------------------------------------

Arms = Callable[[np.random.Generator, tuple[int, int]], tuple[Array, Array]]


def mae(examples: int) -> Arms:
    """Mean absolute errors of two equal arms: errors of Student's t (5 df), scaled by the seed."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
        seed = 0.1 * rng.standard_normal(shape)
        a, b = (
            np.exp(seed + 0.05 * rng.standard_normal(shape))
            * np.abs(rng.standard_t(5, (*shape, examples))).mean(-1)
            for _ in "ab"
        )
        return a, b

    return draw


def auc(positives: int, negatives: int) -> Arms:
    """Areas under the ROC curve of two equal arms, about 0.86; the seed moves the positives."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
        seed = 1.5 + 0.2 * rng.standard_normal(shape)
        a, b = (_auc(rng, seed + 0.1 * rng.standard_normal(shape), positives, negatives)
                for _ in "ab")  # fmt: skip
        return a, b

    return draw


def _auc(rng: np.random.Generator, shift: Array, positives: int, negatives: int) -> Array:
    """Return the share of (positive, negative) where the positive has the higher output."""
    high = rng.standard_normal((*shift.shape, positives)) + shift[..., None]
    both = np.concatenate([high, rng.standard_normal((*shift.shape, negatives))], -1)
    ranks = both.argsort(-1).argsort(-1)[..., :positives].sum(-1)
    return (ranks - positives * (positives - 1) / 2) / (positives * negatives)


OTHERS: dict[str, Arms] = {
    "MAE, 50 test examples": mae(50),
    "MAE, 500 test examples": mae(500),
    "AUC, 5 of 100 positive": auc(5, 95),
    "AUC, 20 of 500 positive": auc(20, 480),
}


def unpaired_covers(a: Array, b: Array) -> Array:
    """Return for each study (rows of runs) whether Welch's interval has 0."""
    u, v = a.var(1, ddof=1) / a.shape[1], b.var(1, ddof=1) / b.shape[1]
    freedom = (u + v) ** 2 / (u**2 / (a.shape[1] - 1) + v**2 / (b.shape[1] - 1))
    half = student_t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(u + v)
    return np.abs(b.mean(1) - a.mean(1)) <= half


# Tables ------------------------------------------------------------------------------------------


PRINTED: dict[str, list[dict[str, str]]] = {}


def share(hits: Array) -> str:
    """Return a share in percent with its standard error in the last digit."""
    p, n = float(np.mean(hits)), len(hits)
    return f"{100 * p:.2f} % ({round(1e4 * math.sqrt(p * (1 - p) / n))})"


def print_rows(title: str, head: list[str], rows: list[list[str]]) -> None:
    """Print a table as Markdown and keep it for --json."""
    PRINTED[title] = [dict(zip(head, row, strict=True)) for row in rows]
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def targets(studies: int) -> None:
    """No effect, and effects of one to three sd: normal differences, no margin."""
    rows = []
    for mean, wanted in ((0, ""), (0.5, ""), (1, "12"), (2, "6.5"), (3, "5.2")):
        tally = simulate(normal, mean=mean, studies=studies, seed=1)
        row = [str(mean), share(tally.better), f"{tally.pairs.mean():.2f}", wanted]
        rows.append([*row, share(tally.covered), f"{tally.estimate.mean():+.3f}"])
    head = ["effect (sd)", "better", "mean pairs", "at most", "coverage", "mean estimate"]
    print_rows("Targets: better at no effect 2 to 5 %, coverage at least 94 %", head, rows)


def margins(studies: int) -> None:
    """The true difference is the margin itself: `equivalent` is then wrong."""
    rows = []
    for margin in (0.5, 1, 2, 4):
        for mean in (0, margin):
            tally = simulate(normal, mean=mean, studies=studies, margin=margin, seed=2)
            row = [f"{margin:g}", f"{mean:g}", share(tally.equivalent), share(tally.better)]
            rows.append([*row, f"{tally.pairs.mean():.2f}", share(tally.covered)])
    head = ["margin (sd)", "effect (sd)", "equivalent", "better", "mean pairs", "coverage"]
    print_rows("With a margin", head, rows)


def distributions(studies: int) -> None:
    """Differences that aren't normal, no effect."""
    rows = []
    for name, draw in DISTRIBUTIONS.items():
        tally = simulate(draw, mean=0, studies=studies, seed=3)
        rows.append([name, share(tally.better), share(tally.covered), f"{tally.pairs.mean():.1f}"])
    print_rows(
        "No effect, other distributions", ["differences", "better", "coverage", "pairs"], rows
    )


def beyond(studies: int) -> None:
    """Studies that go on after the 30th pair, no effect; the plan never spends 5 %."""
    rows = []
    for most in (30, 60, 120, 300):
        tally = simulate(normal, mean=0, studies=studies // 4, most=most, seed=8)
        rows.append([str(most), share(tally.better), f"{100 * spending.spent(most, LEVEL):.2f} %"])
    print_rows("No effect, up to more pairs", ["most pairs", "better", "planned"], rows)


def reach(studies: int) -> None:
    """The interval for new seeds and new test examples, and the crossed bootstrap."""
    rows = []
    for limit, sds in LIMITS.items():
        for pairs, examples in ((5, 360), (5, 2000), (30, 360), (30, 2000)):
            rng, count = np.random.default_rng([9, pairs]), max(1, studies // 125)
            ours, theirs = np.zeros((2, count), bool)
            for at in range(count):
                a, b, truth = right(rng, pairs, examples, sds)
                found = crossed(a, b, resamples=400, seed=at)
                ours[at] = found.low <= truth <= found.high
                theirs[at] = found.bootstrap_low <= truth <= found.bootstrap_high
            rows.append([limit, str(pairs), f"{examples:,}", share(ours), share(theirs)])
    head = ["what limits", "pairs", "test examples", "interval", "crossed bootstrap"]
    print_rows("Coverage for new seeds and new test examples, a fixed number of pairs", head, rows)


def rivals(studies: int) -> None:
    """Other bounds on the same studies."""
    compare_plans("What was not chosen", studies, {
        "this plan": bounds_of(MOST),
        "ordinary t at every look": naive(MOST),
        "Pocock's on the t scale, 30 pairs": pocock(MOST, studies),
        "O'Brien and Fleming's spending, 30 pairs": planned(obrien_fleming),
        "anytime-valid t, spread 1": mixture(MOST, 1),
        "anytime-valid t, spread 3": mixture(MOST, 3),
    })  # fmt: skip


def paces(studies: int) -> None:
    """The same plan, quicker and slower."""
    plans = {f"{pace}": planned(paced(pace)) for pace in (4, 8, 12, 16, 24, 32)}
    compare_plans("Other paces of the plan", studies, plans)


def compare_plans(title: str, studies: int, plans: dict[str, Array]) -> None:
    """Print how often plans are wrong, and how many pairs they take, on the same studies."""
    rows = []
    for name, bounds in plans.items():
        false = simulate(normal, mean=0, studies=studies, bounds=bounds, seed=4)
        row = [name, share(false.better)]
        for mean in (1, 2, 3):
            tally = simulate(normal, mean=mean, studies=studies, bounds=bounds, seed=5)
            row.append(f"{tally.pairs.mean():.2f}")
        rows.append([*row, share(simulate(
            normal, mean=0.7, studies=studies, bounds=bounds, seed=6).better)])  # fmt: skip
    head = ["bounds", "better at 0", "pairs at 1", "at 2", "at 3", "better at 0.7"]
    print_rows(title, head, rows)


def same(studies: int) -> None:
    """Two arms of the same distribution, unpaired, with a margin of half an sd of an arm."""
    del studies

    def difference(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        return rng.standard_normal(shape) - rng.standard_normal(shape)

    tally = simulate(difference, mean=0, studies=10_000, margin=0.5, seed=7)
    rows = []
    for name, hits in (("better", tally.better), ("equivalent", tally.equivalent)):
        ends = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95)
        rows.append([name, f"{hits.sum():,} of {len(hits):,}", f"{hits.mean():.2%}",
                     f"{ends.low:.2%} to {ends.high:.2%}"])  # fmt: skip
    print_rows("10,000 studies of an arm against itself", ["answer", "studies", "share",
               "95 % interval"], rows)  # fmt: skip


def metrics(studies: int) -> None:
    """MAE and AUC of equal arms: looks, ten pairs fixed beforehand, ten runs of each unpaired."""
    rows, bounds, few = [], bounds_of(MOST), 10
    for name, draw in OTHERS.items():
        rng, tallies, fixed, welch = np.random.default_rng(10), [], [], []
        for _ in range(max(1, studies // 10 // 500)):
            a, b = draw(rng, (500, MOST))
            tallies.append(monitor(b - a, bounds, margin=NO_MARGIN, mean=0,
                                   sign_pairs=sign_test_pairs(LEVEL)))  # fmt: skip
            d = (b - a)[:, :few]
            half = student_t.ppf((1 + LEVEL) / 2, few - 1) * d.std(1, ddof=1) / math.sqrt(few)
            fixed.append(np.abs(d.mean(1)) > half)
            welch.append(~unpaired_covers(a[:, :few], draw(rng, (500, few))[1]))
        found = [Tally.join(tallies).better, np.concatenate(fixed), np.concatenate(welch)]
        rows.append([name, *map(share, found)])
    head = ["scores", "better, with looks", "better, 10 pairs", "better, 10 + 10 unpaired"]
    print_rows("No effect, other metrics", head, rows)


TABLES = {
    "targets": targets, "margins": margins, "distributions": distributions, "rivals": rivals,
    "paces": paces, "beyond": beyond, "reach": reach, "same": same, "metrics": metrics,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=100_000)
    parser.add_argument("--only", choices=TABLES)
    parser.add_argument("--bounds", action="store_true")
    parser.add_argument("--json", type=Path, help="write the tables here too")
    given = parser.parse_args()
    if given.bounds:
        print_bounds()
        return
    for name, table in TABLES.items():
        if given.only in (None, name):
            table(given.studies)
    if given.json:
        given.json.write_text(json.dumps({"studies": given.studies, "tables": PRINTED}, indent=1))


if __name__ == "__main__":
    main()
