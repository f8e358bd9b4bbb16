"""The driver: arms × seeds -> run specs -> executor -> store -> outcome.

It alone writes the store; every finished run is committed at once, and runs that the store already
holds are taken from there. Not here: training (`work`), the verdict's statistics (`stats`), words
and pictures (`report`).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..backend import choose_backend
from ..data.dataset import Dataset
from ..errors import InputError, unknown
from ..stats import PairedDifference, Verdict, decide, paired_difference, score_runs
from ..stats.crossed import unpack
from ..stats.paired import check_level
from ..stats.sequential import Monitor
from ..stats.spending import FIRST, LEVELS
from ..stats.verdict import check_margin
from ..train.recipe import Recipe
from ..train.run import RunResult, RunSpec
from .arms import Arm
from .executor import Event, LocalExecutor, import_path, raise_remote
from .source import ModelSource
from .store import Store
from .tasks import ENGINES, Inspection
from .vary import Interaction, interactions_of


class Display(Protocol):
    """Who is told what happens while a study runs (the live progress display, for one)."""

    def say(self, text: str) -> None: ...
    def run_started(self, arm: str, seed: int, pair_index: int) -> None: ...
    def run_progress(self, arm: str, seed: int, epoch: float, epochs: int) -> None: ...
    def run_finished(
        self,
        arm: str,
        seed: int,
        metric: float | None,
        status: str,
        seconds: float | None,
        resumed: bool = False,
    ) -> None: ...
    def difference(
        self, estimate: float | None, low: float | None, high: float | None, pairs: int
    ) -> None: ...


class Silent:
    """A display that shows nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def silent() -> Any:
    """Return a display that shows nothing."""
    return Silent()


@dataclass(frozen=True)
class StudyPlan:
    """A study to be run: everything that the user chose.

    looks: decide after every pair, from the third on, and stop as soon as every answer stands;
        `pairs` is then the most. Otherwise all pairs run, and only then is it decided.
    factors: what is varied beside the order, as `vary.arms_from` had it.
    """

    source: ModelSource
    arms: tuple[Arm, ...]
    data: Dataset
    recipe: Recipe
    pairs: int = 12
    first_seed: int = 0
    level: float = 0.95
    engine: str = "auto"
    device: str = "auto"
    threads: int = 1
    jobs: int = 0  # 0: one per core
    looks: bool = False
    margin: float = 0.005
    factors: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    target: float | None = None  # accuracy whose steps are told

    def __post_init__(self) -> None:
        labels = [arm.label for arm in self.arms]
        if len(self.arms) < 2:
            raise InputError(f"a comparison takes at least two arms, got {labels}.")
        for label in labels:
            given = [arm.given for arm in self.arms if arm.label == label]
            if len(given) > 1:
                raise InputError(
                    f"the arm '{label}' is given twice (as {' and '.join(map(repr, given))}): "
                    "a comparison takes different ones."
                )
        for name, least in (("pairs", 1), ("threads", 1), ("jobs", 0), ("first_seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} is a whole number of at least {least}, got {value!r}.")
        check_level(self.level)
        check_margin(self.margin)
        if self.looks:
            self._check_looks()
        if self.engine not in ENGINES:
            raise unknown("engine", self.engine, ENGINES)
        for recipe in map(self.recipe_of, self.arms):
            recipe.check_fits(len(self.data.y_train), self.data.input_shape)
            self.data.check_held_out(recipe.validation)
            if self.target is not None and not recipe.curve:
                raise InputError(
                    "a target is read off the learning curve: leave curve=0 (--curve 0) out."
                )

    def _check_looks(self) -> None:
        """Refuse a level, each interval's share of it, or a number of pairs without bounds."""
        _ = Monitor(self.level, self.pairs)
        if self.share > LEVELS[1]:
            raise InputError(
                f"a level of {self.level:g} shared by {self.intervals} intervals makes "
                f"{self.share:.6g} for each; bounds go up to {LEVELS[1]:g}: take a lower level, or "
                "fix the number of pairs."
            )

    @property
    def networks(self) -> list[Arm]:
        """What is built: the arms without their recipes, each once."""
        found: list[Arm] = []
        for arm in self.arms:
            if arm.network not in found:
                found.append(arm.network)
        return found

    def recipe_of(self, arm: Arm) -> Recipe:
        """Return how an arm trains."""
        return self.recipe.changed(**arm.recipe)

    @property
    def rule(self) -> Monitor:
        """When to stop."""
        return Monitor(self.share, self.pairs)

    @property
    def share(self) -> float:
        """The level of one interval, so that all of them hold together at `level` (Bonferroni).

        With k intervals: 1 - (1 - level) / k.
        """
        return self.level if self.intervals == 1 else 1 - (1 - self.level) / self.intervals

    @property
    def intervals(self) -> int:
        """How many intervals a study shows.

        Each arm against the first; where something is varied also the effect of each order at each
        further choice of it, and how that effect changes with each further value.
        """
        against_first = len(self.arms) - 1
        if not self.factors:
            return against_first
        choices = prod(len(values) for values in self.factors.values())
        effects = len(self.arms) // choices - 1  # orders against the first order
        further = sum(len(values) - 1 for values in self.factors.values())
        return against_first + effects * (choices - 1 + further)

    @cached_property
    def interactions(self) -> tuple[Interaction, ...]:
        """Whether each order's effect depends on each factor: questions beside the arms' own."""
        return interactions_of(self.arms, self.factors)

    @property
    def workers(self) -> int:
        """How many worker processes run side by side."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        wanted = self.jobs or max(1, (cores or 1) // self.threads)
        return min(wanted, self.pairs * len(self.arms))

    @property
    def seeds(self) -> list[int]:
        """The seeds, one per pair."""
        return list(range(self.first_seed, self.first_seed + self.pairs))


@dataclass
class StudyResults:
    """What a study has so far: results by arm label and seed, and how they came about."""

    plan: StudyPlan
    inspection: Inspection
    results: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    correct: dict[tuple[str, int], bytes | None] = field(default_factory=dict)
    hashes: dict[tuple[str, int], str] = field(default_factory=dict)
    resumed: int = 0
    seconds: float = 0.0
    _open: int = FIRST  # no look before that of so many pairs decided

    def finished_pairs(self) -> list[int]:
        """Return the seeds that count: those for which every arm has a result.

        With looks only those in the order of the seeds, up to the look at which it was decided:
        which pairs count must not depend on which run was the quicker.
        """
        labels = [arm.label for arm in self.plan.arms]
        done = {s for s in self.plan.seeds if all((a, s) in self.results for a in labels)}
        if not self.plan.looks:
            return sorted(done)
        return self._until_decided(list(takewhile(done.__contains__, self.plan.seeds)))

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
        yield from (asked.verdict(self, seeds) for asked in self.plan.interactions)

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

    def difference(self, arm: Arm) -> PairedDifference | None:
        """Return the paired difference of `arm` minus the first arm, None before the first pair."""
        seeds = self.finished_pairs()
        if not seeds:
            return None
        return self.verdict(arm, seeds).difference


def run_study(
    plan: StudyPlan, store: Store, display: Display, executor: LocalExecutor | None = None
) -> StudyResults:
    """Run every pair that the store doesn't hold yet and return the outcome.

    executor: workers of a plan with the same source and data; None starts some for this study.
    Raises: InputError or Refused from a worker (the finished runs are kept in the store);
    KeyboardInterrupt likewise.
    """
    start = time.perf_counter()
    with workers(plan, display) if executor is None else nullcontext(executor) as running:
        display.say("building all arms")
        outcome = StudyResults(plan, _inspect(plan, running, display))
        _resume(outcome, store, display)
        _run_missing(outcome, store, running, display)
    outcome.seconds = time.perf_counter() - start
    return outcome


@contextmanager
def workers(plan: StudyPlan, display: Display) -> Iterator[LocalExecutor]:
    """Start the worker processes of a plan's source and data."""
    backend = {"KERAS_BACKEND": choose_backend()}  # this process's, also if it was set in code
    with tempfile.TemporaryDirectory(prefix="relucate-data-") as folder:
        plan.data.save(Path(folder) / "data")
        display.say(f"starting {plan.workers} worker processes")
        setup = _setup(plan, folder)
        with LocalExecutor(plan.workers, plan.threads, setup, backend) as executor:
            yield executor


def _setup(plan: StudyPlan, folder: str) -> dict[str, Any]:
    return {
        "source": plan.source,
        "data": str(Path(folder) / "data"),
        "threads": plan.threads,
        "path": import_path(),
    }


def _inspect(plan: StudyPlan, executor: LocalExecutor, display: Display) -> Inspection:
    task = {
        "task": "inspect",
        "arms": [arm.to_dict() for arm in plan.networks],
        "engine": plan.engine,
        "device": plan.device,
    }
    for event in executor.run([("inspect", task)]):
        if event.kind == "done":
            return event.data
        if event.kind == "silent":
            display.say(f"still building all arms with '{plan.source.text}' (Ctrl-C ends it)")
        _raise_for(event, "")
    raise InputError("the worker gave no answer about the arms.")


def _raise_for(event: Event, where: str) -> None:
    hint = " Finished runs are kept: the same command continues." if where else ""
    if event.kind == "error":
        name, message = event.data
        raise_remote((name, f"{where}{message}{hint}"))
    if event.kind == "died":
        raise InputError(f"{where}{event.data}{'' if event.data.endswith('.') else '.'}{hint}")


def make_spec(plan: StudyPlan, inspection: Inspection, index: int, seed: int) -> RunSpec:
    """Return the spec of arm `index` at `seed`: everything that decides the run's bits."""
    data = {
        "fingerprint": plan.data.fingerprint,
        "input_shape": list(plan.data.input_shape),
        "classes": plan.data.classes,
    }
    engine = {key: inspection.engine[key] for key in ("name", "backend", "device")}
    place = plan.networks.index(plan.arms[index].network)
    *before, arm = (
        {**network.to_dict(), "built": report["fingerprint"]}
        for network, report in zip(plan.networks[: place + 1], inspection.arms, strict=False)
    )
    return RunSpec(
        model={**plan.source.identity(), "code": inspection.code},
        arm=arm,
        before=tuple(before),
        seed=seed,
        data=data,
        recipe=plan.recipe_of(plan.arms[index]).to_dict(),
        engine={**engine, "threads": plan.threads},
        versions=inspection.versions,
    )


def _resume(outcome: StudyResults, store: Store, display: Display) -> None:
    plan = outcome.plan
    for pair, seed in enumerate(plan.seeds):
        for index, arm in enumerate(plan.arms):
            spec = make_spec(plan, outcome.inspection, index, seed)
            outcome.hashes[arm.label, seed] = spec.hash
            result = store.get(spec.hash)
            if result is not None:
                outcome.results[arm.label, seed] = result
                outcome.correct[arm.label, seed] = store.get_correct(spec.hash)
                outcome.resumed += 1
                display.run_started(arm.label, seed, pair)
                display.run_finished(
                    arm.label, seed, result["metric"], result["status"], None, resumed=True
                )
    _tell_difference(outcome, display)


def _run_missing(
    outcome: StudyResults, store: Store, executor: LocalExecutor, display: Display
) -> None:
    plan = outcome.plan
    specs: dict[tuple[str, int], RunSpec] = {}

    def tasks() -> Iterator[tuple[tuple[str, int], dict[str, Any]]]:
        for pair, seed in enumerate(plan.seeds):
            if outcome.decided:
                return
            for index, arm in enumerate(plan.arms):
                key = (arm.label, seed)
                if key not in outcome.results:
                    specs[key] = make_spec(plan, outcome.inspection, index, seed)
                    display.run_started(arm.label, seed, pair)
                    yield key, {"task": "run", "spec": specs[key].to_dict()}

    for event in executor.run(tasks()):
        if event.kind == "silent":  # an epoch may take long
            continue
        label, seed = event.key
        if event.kind == "epoch":
            display.run_progress(label, seed, event.data.epoch, event.data.epochs)
            continue
        _raise_for(event, f"run of '{label}' with seed {seed} failed: ")
        _keep(outcome, store, specs[event.key], event.key, event.data)
        result: RunResult = event.data
        display.run_finished(label, seed, result.metric, result.status, result.seconds.get("total"))
        _tell_difference(outcome, display)
        if outcome.decided:
            break  # runs that go on nevertheless are for pairs that nobody needs


def _keep(
    outcome: StudyResults, store: Store, spec: RunSpec, key: tuple[str, int], result: RunResult
) -> None:
    plain = result.to_dict()
    outcome.results[key] = plain
    outcome.correct[key] = result.packed
    store.put(spec.hash, spec.to_dict(), plain, result.packed)


def _tell_difference(outcome: StudyResults, display: Display) -> None:
    found = outcome.difference(outcome.plan.arms[1])
    if found is not None:
        display.difference(found.estimate, found.low, found.high, found.n)
