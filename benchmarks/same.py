"""Studies of an order against itself: how often does a verdict find what isn't there?

    python benchmarks/same.py [--studies 100] [--store FILE] [--jobs 2]

Real training runs of a small net on digits, in both orders, every run with a seed of its own. Each
study takes 30 + 30 runs of one order as its two arms, so that the arms are the same and the pairs
aren't pairs, and looks after every pair as `relucate compare` does. Finished runs are kept in the
store; the command continues.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import argparse
import time
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

import relucate
from relucate.stats import Verdict
from relucate.stats.sequential import Monitor

MOST, MARGIN = 30, 0.005
NET = {"width": 32}
RECIPE = {"epochs": 2, "curve": 0}


def main() -> None:
    """Train what the store lacks, form the studies, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--store", type=Path, default=Path("same.sqlite"))
    parser.add_argument("--jobs", type=int, default=0)
    given = parser.parse_args()
    each = -(-given.studies // 2)
    start = time.perf_counter()
    found = relucate.compare(
        "mlp",
        "digits",
        options=NET,
        recipe=RECIPE,
        pairs=2 * MOST * each,
        store=given.store,
        jobs=given.jobs,
        progress=False,
    ).to_dict()
    seconds = time.perf_counter() - start
    print(f"{len(found['runs']):,} runs, {seconds:.0f} s in this call\n")
    answers: Counter[str] = Counter()
    pairs, correlations = [], []
    for arm in found["arms"]:
        runs = sorted((r["seed"], r["metric"]) for r in found["runs"] if r["arm"] == arm["label"])
        scores = np.array([metric for _, metric in runs]).reshape(each, 2, MOST)
        for a, b in scores:
            verdict = study(a, b)
            answers[verdict.verdict] += 1
            pairs.append(verdict.difference.n)
            correlations.append(np.corrcoef(a, b)[0, 1])
        print(f"{arm['label']}: accuracy {scores.mean():.2%}, sd {scores.std():.2%}")
    show(answers, pairs, correlations)


def study(a: np.ndarray, b: np.ndarray) -> Verdict:
    """Return the verdict at the look that decides."""
    rule = Monitor(most=MOST)
    for n in range(3, MOST + 1):
        verdict = rule.decide(a[:n], b[:n], margin=MARGIN)
        if not rule.goes_on(verdict):
            break
    return verdict


def show(answers: Counter[str], pairs: list[int], correlations: list[float]) -> None:
    """Print a row per answer with its share and an exact binomial interval."""
    total = answers.total()
    print("\n| answer | studies | share | 95 % interval |\n|---|---|---|---|")
    for answer in ("better", "equivalent", "inconclusive"):
        test = binomtest(answers[answer], total).proportion_ci(0.95)
        print(
            f"| {answer} | {answers[answer]} of {total} | {answers[answer] / total:.1%} | "
            f"{test.low:.1%} to {test.high:.1%} |"
        )
    print(f"\nMean pairs {np.mean(pairs):.1f}; mean correlation {np.mean(correlations):+.3f}.")


if __name__ == "__main__":
    main()
