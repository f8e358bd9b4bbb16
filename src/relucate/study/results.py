"""What a study has so far: results by arm and seed, and the verdicts that they give.

Not here: running (`driver`), the document that others show (`document`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np

from ..stats import PairedDifference, Verdict, decide, paired_difference, score_runs
from ..stats.crossed import unpack
from ..stats.spending import FIRST
from .arms import Arm
from .interaction import Interaction
from .plan import StudyPlan
from .tasks import Inspection


@dataclass
class StudyResults:
    """What a study has so far: results by arm label and seed, and how they came about."""

    plan: StudyPlan
    inspection: Inspection
    results: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    correct: dict[tuple[str, int], bytes | None] = field(default_factory=dict)
    hashes: dict[tuple[str, int], str] = field(default_factory=dict)
    failed: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)  # no result at all
    resumed: int = 0
    seconds: float = 0.0
    _open: int = FIRST  # no look before that of so many pairs decided

    def finished_pairs(self) -> list[int]:
        """Return the seeds that count: those for which every arm has a result.

        With looks only those in the order of the seeds, up to the look at which it was decided:
        which pairs count must not depend on which run was the quicker. The pair of a failed run
        never counts.
        """
        labels = [arm.label for arm in self.plan.arms]
        done = {s for s in self.plan.seeds if all((a, s) in self.results for a in labels)}
        if not self.plan.looks:
            return sorted(done)
        failed = {seed for _, seed in self.failed}
        possible = [seed for seed in self.plan.seeds if seed not in failed]
        return self._until_decided(list(takewhile(done.__contains__, possible)))

    def _until_decided(self, seeds: list[int]) -> list[int]:
        while self._open < len(seeds):
            if self._answered(seeds[: self._open]):
                return seeds[: self._open]
            self._open += 1
        return seeds

    def _answered(self, seeds: list[int]) -> bool:
        """Return whether no question of the study needs another pair."""
        return not any(map(self.plan.rule.goes_on, self.verdicts(seeds)))

    def verdicts(self, seeds: list[int]) -> Iterator[Verdict]:
        """Yield the verdict on each arm against the first, then on each interaction."""
        yield from (self.verdict(arm, seeds) for arm in self.plan.arms[1:])
        yield from (self.answer(asked, seeds) for asked in self.plan.interactions)

    @property
    def decided(self) -> bool:
        """Whether no further pair is to run (with looks)."""
        if not self.plan.looks:
            return False
        seeds = self.finished_pairs()
        return len(seeds) >= FIRST and self._answered(seeds)

    def right(self, arm: Arm, seeds: list[int]) -> Any:
        """Return which test examples each run of an arm was right on, shape (seeds, examples).

        A diverged run has none right. None where a run didn't keep them, or kept others than those
        that its score counts.
        """
        examples = len(self.plan.data.y_test)
        rows = []
        for seed in seeds:
            packed, result = self.correct.get((arm.label, seed)), self.results[arm.label, seed]
            if result["status"] != "done":
                rows.append(np.zeros(examples, bool))
                continue
            if packed is None or len(packed) != -(-examples // 8):
                return None
            rows.append(unpack(np.frombuffer(packed, np.uint8), examples))
            if abs(rows[-1].mean() - result["metric"]) > 1e-6:
                return None
        return np.stack(rows) if rows else None

    def verdict(self, arm: Arm, seeds: list[int]) -> Verdict:
        """Return the verdict on `arm` against the first arm from these seeds."""
        first = self.plan.arms[0]
        diverged = (self.diverged(first, seeds), self.diverged(arm, seeds))
        return self.decide(self.scores(first, seeds), self.scores(arm, seeds), diverged)

    def decide(self, a: Any, b: Any, diverged: tuple[int, int] = (0, 0)) -> Verdict:
        """Return the verdict on b - a by the study's rule; a, b: (seeds,) accuracies."""
        margin = self.plan.margin
        if self.plan.looks:
            return self.plan.rule.decide(a, b, margin=margin, diverged=diverged)
        return decide(self.interval(a, b), margin=margin, diverged=diverged)

    def interval(self, a: Any, b: Any) -> PairedDifference:
        """Return the mean of b - a with the study's interval; a, b: (seeds,) finite numbers."""
        if self.plan.looks:
            return self.plan.rule.interval(a, b)
        return paired_difference(a, b, level=self.plan.share)

    def curve(self, arm: Arm, seed: int) -> list[float | None]:
        """Return a run's test accuracy after each epoch; 0 for those that a diverged run lacks."""
        result = self.results[arm.label, seed]
        scores = list(result["curve"].get("accuracy", []))
        if result["status"] == "diverged" and any(score is not None for score in scores):
            missing = self.plan.recipe_of(arm).epochs - len(scores)
            scores = [0.0 if score is None else score for score in scores] + [0.0] * missing
        return scores

    def report(self, arm: Arm) -> dict[str, Any]:
        """Return what the inspection found of an arm's network."""
        return self.inspection.arms[self.plan.networks.index(arm.network)]

    def diverged(self, arm: Arm, seeds: list[int]) -> int:
        """Return how many of an arm's runs diverged."""
        return sum(self.results[arm.label, seed]["status"] == "diverged" for seed in seeds)

    def scores(self, arm: Arm, seeds: list[int]) -> Any:
        """Return an arm's scores, shape (seeds,); a diverged run has the worst score."""
        results = [self.results[arm.label, seed] for seed in seeds]
        diverged = [result["status"] == "diverged" for result in results]
        return score_runs([result["metric"] for result in results], diverged)

    def effects(self, asked: Interaction, seeds: list[int]) -> tuple[Any, Any]:
        """Return an order's effect with either value, averaged over rows: (seeds,) twice."""
        first, second = (
            np.mean([self.scores(b, seeds) - self.scores(a, seeds) for a, b in rows], axis=0)
            for rows in (asked.low, asked.high)
        )
        return first, second

    def lost(self, asked: Interaction, seeds: list[int]) -> tuple[int, int]:
        """Return how many runs with either value diverged."""
        first, second = (
            sum(self.diverged(arm, seeds) for row in rows for arm in row)
            for rows in (asked.low, asked.high)
        )
        return first, second

    def answer(self, asked: Interaction, seeds: list[int]) -> Verdict:
        """Return the verdict: better (it depends), equivalent (not by more than the margin), open.

        Per seed s: (order - first order | w)_s - (order - first order | v)_s, with the study's
        interval. Where every run with a value diverged there is no effect to compare.
        """
        lost = len(seeds) * 2 * len(asked.low) in self.lost(asked, seeds)
        diverged = (len(seeds), len(seeds)) if lost else (0, 0)
        return self.decide(*self.effects(asked, seeds), diverged)

    def difference(self, arm: Arm) -> PairedDifference | None:
        """Return the paired difference of `arm` minus the first arm, None before the first pair."""
        seeds = self.finished_pairs()
        if not seeds:
            return None
        return self.verdict(arm, seeds).difference
