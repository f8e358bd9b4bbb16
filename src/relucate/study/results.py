"""The results of a study so far, by arm and seed, and the verdicts that they give.

Not here: running (`driver`), the document for reports (`document`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic

import numpy as np

from ..errors import InputError
from ..stats import PairedDifference, Verdict, decide, paired_difference, score_runs
from ..stats.spending import FIRST
from ..stats.welch import welch_difference
from ..train.metric import ACCURACY, NOT_SCORES
from .compared import Compared
from .comparison import AnyComparison, Schedule, Seed
from .contrasts import Contrast
from .finished import FinishedPairs
from .interaction import Interaction
from .tasks import NOTHING, Inspection


@dataclass(frozen=True)
class _Column:
    """An arm's scores, and whether its runs diverged, (seeds,) each."""

    seeds: list[Seed]
    scores: np.ndarray
    diverged: np.ndarray

    def upto(self, count: int) -> _Column:
        return _Column(self.seeds[:count], self.scores[:count], self.diverged[:count])


_EMPTY = _Column([], np.zeros(0), np.zeros(0, bool))


@dataclass
class StudyResults(Generic[AnyComparison]):
    """The results of a study so far, by arm label and seed."""

    plan: AnyComparison
    inspection: Inspection = NOTHING
    results: dict[tuple[str, Seed], dict[str, Any]] = field(default_factory=dict)
    per_example: dict[tuple[str, Seed], np.ndarray | None] = field(default_factory=dict)
    hashes: dict[tuple[str, Seed], str] = field(default_factory=dict)
    failed: dict[tuple[str, Seed], dict[str, Any]] = field(
        default_factory=dict
    )  # runs without a result
    resumed: int = 0
    seconds: float | None = 0.0
    _open: int = FIRST  # no look with fewer pairs decided the study
    # What was found last, and from how many runs, or from which seeds: runs are only added.
    _finished: tuple[tuple[int, int], list[Seed]] | None = None
    _answer: tuple[int, bool] = (0, False)
    _verdicts: dict[tuple[str, str], tuple[list[Seed], Verdict]] = field(default_factory=dict)
    _columns: dict[str, _Column] = field(default_factory=dict)
    _pairs: FinishedPairs | None = None

    def finished_pairs(self) -> list[Seed]:
        """Return the seeds that count: those for which every arm (unpaired: any) has a result.

        With looks only the first ones in the order of the seeds, up to the look that decided: which
        pairs count must not depend on which run was faster. A failed run's pair never counts.
        """
        counts = (len(self.results), len(self.failed))
        if self._finished is None or self._finished[0] != counts:
            self._finished = (counts, self._finished_pairs())
        return list(self._finished[1])

    def _finished_pairs(self) -> list[Seed]:
        if self._pairs is None:
            labels = [arm.label for arm in self.plan.arms]
            enough = len(labels) if self.plan.paired else 1
            self._pairs = FinishedPairs(labels, self.plan.seeds, enough=enough)
        done = self._pairs.among(self.results)
        if not self.plan.looks:
            return done
        return self._until_decided(self._pairs.first({seed for _, seed in self.failed}))

    def _until_decided(self, seeds: list[Seed]) -> list[Seed]:
        while self._open < len(seeds):
            if self._answered(seeds[: self._open]):
                return seeds[: self._open]
            self._open += 1
        return seeds

    def _answered(self, seeds: list[Seed]) -> bool:
        """Return whether no question needs another pair after the first ones, `seeds`."""
        if self._answer[0] != len(seeds):
            open_ones = any(map(self.plan.rule.goes_on, self.verdicts(seeds)))
            self._answer = (len(seeds), not open_ones)
        return self._answer[1]

    def verdicts(self, seeds: list[Seed]) -> Iterator[Verdict]:
        """Yield the verdict on each comparison, then on each interaction."""
        yield from (self.verdict(contrast, seeds) for contrast in self.plan.contrasts)
        yield from (self.answer(asked, seeds) for asked in self.plan.interactions)

    @property
    def decided(self) -> bool:
        """Whether no further pair needs to run (with looks)."""
        if not self.plan.looks:
            return False
        seeds = self.finished_pairs()
        return len(seeds) >= FIRST and self._answered(seeds)

    @property
    def examples(self) -> int | None:
        """The number of test examples behind each score, None if it isn't known or differs."""
        if self.plan.examples is not None:
            return self.plan.examples
        done = (r for r in self.results.values() if r["status"] != "diverged")
        counts = {result.get("examples") for result in done}
        return (counts.pop() or None) if len(counts) == 1 else None

    def schedule(self, arm: Compared) -> Schedule | None:
        """Return how long an arm trains; by its curves, if they are equally long, in epochs."""
        planned = self.plan.schedule(arm)
        lengths = {len(r["curve"].get("epoch", ())) for r in self.results.values()}
        if planned is not None or len(lengths) != 1 or lengths == {0}:
            return planned
        return Schedule(lengths.pop(), 1)

    def example_scores(self, arm: Compared, seeds: list[Seed]) -> np.ndarray | None:
        """Return the score of each run of an arm on each test example, shape (seeds, examples).

        A diverged run has the worst score on all. None if a run didn't keep them, or its score
        isn't their mean.
        """
        examples, rows = self.examples, []
        if examples is None:
            return None
        for seed, score in zip(seeds, self.scores(arm, seeds), strict=True):
            values = self.per_example.get((arm.label, seed))
            if self.results[arm.label, seed]["status"] == "diverged":
                values = np.full(examples, score)
            if values is None or values.shape != (examples,):
                return None
            rows.append(values.astype(float))
            if not abs(rows[-1].mean() - score) <= 1e-6 * max(1.0, abs(score)):  # or it is NaN
                return None
        return np.stack(rows) if rows else None

    def verdict(self, contrast: Contrast, seeds: list[Seed]) -> Verdict:
        """Return the verdict on an arm against its reference from these seeds."""
        arm, against = contrast
        known = self._verdicts.get((arm.label, against.label))
        if known is None or known[0] != seeds:
            diverged = (self.diverged(against, seeds), self.diverged(arm, seeds))
            found = self.decide(self.scores(against, seeds), self.scores(arm, seeds), diverged)
            known = self._verdicts[arm.label, against.label] = (list(seeds), found)
        return known[1]

    def decide(self, a: Any, b: Any, diverged: tuple[int, int] = (0, 0)) -> Verdict:
        """Return the verdict on b - a by the study's rule; a, b: (seeds,) scores."""
        margin, lower = self.plan.margin, self.plan.metric.lower_is_better
        given: Any = {"margin": margin, "diverged": diverged, "lower_is_better": lower}
        if self.plan.looks:
            return self.plan.rule.decide(a, b, **given)
        return decide(self.interval(a, b), **given)

    def interval(self, a: Any, b: Any) -> PairedDifference:
        """Return the mean of b - a with the study's interval; a, b: (runs,) finite numbers."""
        if self.plan.looks:
            return self.plan.rule.interval(a, b)
        interval = paired_difference if self.plan.paired else welch_difference
        return interval(a, b, level=self.plan.share)

    def curve(self, arm: Compared, seed: Seed) -> list[float | None]:
        """Return a run's test score after each epoch; the worst if a diverged run has none."""
        result, worst = self.results[arm.label, seed], self.plan.metric.worst
        scores = list(result["curve"].get(self.plan.metric.name, []))
        if result["status"] == "diverged" and any(score is not None for score in scores):
            schedule = self.schedule(arm)
            missing = schedule.epochs - len(scores) if schedule else 0
            scores = [worst if score is None else score for score in scores] + [worst] * missing
        return scores

    def runs(self, arm: Compared, seeds: list[Seed]) -> list[dict[str, Any]]:
        """Return an arm's results with these seeds; unpaired, it need not have all of them."""
        keys = [(arm.label, seed) for seed in seeds]
        return [self.results[key] for key in keys if self.plan.paired or key in self.results]

    def diverged(self, arm: Compared, seeds: list[Seed]) -> int:
        """Return the number of an arm's diverged runs."""
        return int(self._column(arm, seeds).diverged.sum())

    def scores(self, arm: Compared, seeds: list[Seed]) -> Any:
        """Return an arm's scores, shape (runs,); a diverged run has the worst score."""
        return self._column(arm, seeds).scores

    def _column(self, arm: Compared, seeds: list[Seed]) -> _Column:
        """Return an arm's runs with these seeds; those that are known already are only added to."""
        known = self._columns.get(arm.label, _EMPTY) if self.plan.paired else _EMPTY
        shared = min(len(known.seeds), len(seeds))
        if known.seeds[:shared] != seeds[:shared]:
            known, shared = _EMPTY, 0
        if shared == len(seeds) and self.plan.paired:
            return known.upto(shared)
        results = self.runs(arm, seeds[shared:])
        for result in results:
            self._check_metric(result)
        diverged = [result["status"] == "diverged" for result in results]
        scores = score_runs([result["metric"] for result in results], diverged, self.plan.metric)
        for place in np.flatnonzero(diverged) if self.plan.paired else ():
            scores[place] = self._not_better(float(scores[place]), seeds[shared + int(place)])
        found = _Column(
            list(seeds),
            np.concatenate([known.scores, scores]),
            np.concatenate([known.diverged, np.asarray(diverged, bool)]),
        )
        self._columns[arm.label] = found
        return found

    def _not_better(self, worst: float, seed: Seed) -> float:
        """Return what a diverged run counts: `worst`, or a worse score of this seed's other runs.

        It depends on this seed alone, so that pairs stay independent and none changes later.
        """
        others = (self.results.get((arm.label, seed)) for arm in self.plan.arms)
        scores = [run["metric"] for run in others if run and run["status"] == "done"]
        return (max if self.plan.metric.lower_is_better else min)([worst, *scores])

    def _check_metric(self, result: dict[str, Any]) -> None:
        """Refuse a run whose metric isn't the study's."""
        names = [name for name in result["curve"] if name not in NOT_SCORES]
        if names and self.plan.metric.name not in names:
            raise InputError(
                f"the study is about '{self.plan.metric.name}', but a run was scored by "
                f"'{names[0]}': the task that it was trained for has another metric."
            )
        score = result["metric"]
        if self.plan.metric == ACCURACY and score is not None and not 0 <= score <= 1:
            raise InputError(
                f"a run has {self.plan.metric.named} of {score:g}, which isn't between 0 and 1."
            )

    def effects(self, asked: Interaction, seeds: list[Seed]) -> tuple[Any, Any]:
        """Return an order's effect with each value, averaged over rows: (seeds,) twice."""
        first, second = (
            np.mean([self.scores(b, seeds) - self.scores(a, seeds) for a, b in rows], axis=0)
            for rows in (asked.low, asked.high)
        )
        return first, second

    def lost(self, asked: Interaction, seeds: list[Seed]) -> tuple[int, int]:
        """Return the number of diverged runs with each of the two values."""
        first, second = (
            sum(self.diverged(arm, seeds) for row in rows for arm in row)
            for rows in (asked.low, asked.high)
        )
        return first, second

    def answer(self, asked: Interaction, seeds: list[Seed]) -> Verdict:
        """Return the verdict: better (it depends), equivalent (not by more than the margin), open.

        Per seed s: (order - reference | w)_s - (order - reference | v)_s, with the study's
        interval. If every run with a value diverged, there is no effect to compare.
        """
        lost = len(seeds) * 2 * len(asked.low) in self.lost(asked, seeds)
        diverged = (len(seeds), len(seeds)) if lost else (0, 0)
        return self.decide(*self.effects(asked, seeds), diverged)
