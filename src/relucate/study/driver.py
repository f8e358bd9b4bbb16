"""The driver: arms × seeds -> run specs -> executor -> store -> results.

Only the driver writes the store. Every finished run is committed at once, unless its plan calls it
quick (`plan.Executed`), and runs that the store already has are taken from there. A run whose
process died is repeated once, more often if its machine was lost. The driver uses only the
executor's protocol and events. Not here: training (`tasks`), the verdict's statistics (`stats`),
words and pictures (`report`).
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import InputError
from ..phrases import count
from ..train.run import RunResult, RunSpec, check_result
from .devices import best_side
from .display import Display
from .executors.protocol import (
    Crowded,
    Died,
    Done,
    Epoch,
    Event,
    Executor,
    Failed,
    Notice,
    OnGpus,
    Silent,
    Task,
)
from .plan import Executed
from .results import StudyResults
from .store import Store
from .tasks import Inspection

PREPARING = 60.0  # least limit in seconds for building all arms, also if a run's limit is smaller
QUIET = 60.0  # seconds of a run's silence before it is reported: an epoch may take long
LOST = 2  # runs of one arm lost in a row, each twice: the next runs would be lost, too
MACHINES = 5  # machines that a run may lose before it counts as lost itself
NEVER = 3  # runs of one arm, all of them lost by the user's own training: so would be the next

_KEPT = "Finished runs are kept: the same command continues."

Key = tuple[str, int]  # arm, seed


def run_study(
    plan: Executed,
    store: Store,
    display: Display,
    executor: Executor,
    *,
    need_all: bool = False,
) -> StudyResults[Executed]:
    """Run every pair that the store doesn't have yet and return the outcome.

    A run that is lost twice (its process died, or took longer than `plan.run_timeout`) has failed,
    and its pair doesn't count; a run whose machine is lost may be repeated `MACHINES` times. The
    study ends if `LOST` runs of an arm in a row fail, or no pair is left.

    executor: entered, of a plan with the same source and data; need_all: the first failed run ends
    the study.
    Raises: InputError or Refused: an error in a run, or failed runs; KeyboardInterrupt. The store
    keeps the finished runs.
    """
    start = time.perf_counter()
    display.say(plan.preparing)
    inspection = _inspect(plan, executor, display)
    outcome = StudyResults(*plan.informed(inspection))
    _resume(outcome, store, display)
    _arrange(outcome, executor, display)
    _Missing(outcome, store, display, 1 if need_all else LOST).run(executor)
    if outcome.failed and not outcome.finished_pairs():
        raise InputError(f"no pair has finished: {next(iter(outcome.failed.values()))['note']}")
    outcome.seconds = time.perf_counter() - start
    return outcome


def _inspect(
    plan: Executed, executor: Executor, display: Display, again: int = MACHINES
) -> Inspection:
    """Return what the driver must know; again: how often it is repeated if its machine is lost."""
    limit = None if plan.run_timeout is None else max(plan.run_timeout, PREPARING)
    for event in executor.run([Task("inspect", plan.inspection(), limit)]):
        match event:
            case Notice():
                display.say(event.text)
            case Done():
                return event.answer
            case Epoch():
                display.say(f"built and checked {event.report.epoch} of {event.report.epochs}")
            case Silent():
                display.say(f"still {plan.preparing} after {event.seconds:.0f} s (Ctrl-C ends it)")
            case Failed():
                raise event.error
            case Died() if event.machine and again:
                display.say(f"{plan.preparing} again: {_sentence(event.reason)}")
                return _inspect(plan, executor, display, again - 1)
            case Died() | Crowded():
                raise InputError(_sentence(event.reason))
    raise InputError("the executor gave no answer about the arms.")


def _arrange(outcome: StudyResults[Executed], executor: Executor, display: Display) -> None:
    """Let the GPUs take as many runs at the same time as measure best."""
    plan = outcome.plan
    missing = len(plan.seeds) * len(plan.arms) - len(outcome.results)
    if not plan.gpus or missing < 2 or not isinstance(executor, OnGpus):
        return
    if outcome.inspection.engine["device"] != "cuda":  # PyTorch or the engine doesn't use them
        executor.arrange(1, plan.without_gpus.workers)
        return
    if executor.measured is None:
        executor.measured = _measured(outcome, executor, display, missing)
    seconds = executor.measured
    if not seconds:  # runs wait for Python, each in a process of its own
        executor.arrange(1, plan.workers)
        return
    gpus = len(plan.gpus)
    side = -(-plan.jobs // gpus) if plan.jobs else best_side(seconds)
    jobs = min(plan.jobs or side * gpus, missing)
    executor.arrange(side, jobs)
    outcome.plan = replace(plan, jobs=jobs)
    if len(seconds) > 1:
        times = ", ".join(f"{1000 * each:.2f} ms with {n}" for n, each in seconds.items())
        display.say(f"{count(jobs, 'run')} at a time: a step of each takes {times} on a GPU")


def _measured(
    outcome: StudyResults[Executed], executor: Executor, display: Display, missing: int
) -> Mapping[int, float]:
    plan = outcome.plan
    spec = plan.spec(outcome.inspection, 0, plan.seeds[0])
    seconds: Mapping[int, float] = {}
    for event in executor.run([Task("measure", plan.measurement(spec, missing))]):
        match event:
            case Done():
                seconds = event.answer
            case Failed():
                raise event.error
            case Died():
                display.say(f"how many runs a GPU takes isn't known: {_sentence(event.reason)}")
    return seconds


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _resume(outcome: StudyResults[Executed], store: Store, display: Display) -> None:
    plan = outcome.plan
    for pair, seed in enumerate(plan.seeds):
        for index, arm in enumerate(plan.arms):
            spec = plan.spec(outcome.inspection, index, seed)
            outcome.hashes[arm.label, seed] = spec.hash
            result = store.get(spec.hash)
            if result is not None:
                _check_kept(result, spec.hash, store)
                outcome.results[arm.label, seed] = result
                examples = plan.examples or result.get("examples", 0)
                outcome.per_example[arm.label, seed] = store.get_per_example(spec.hash, examples)
                outcome.resumed += 1
                display.run_started(arm.label, seed, pair)
                display.run_finished(
                    arm.label, seed, result["metric"], result["status"], None, resumed=True
                )
    _show_difference(outcome, display)


def _check_kept(result: Any, run_hash: str, store: Store) -> None:
    try:
        check_result(result)
    except InputError as error:
        raise InputError(
            f"{store.path}: run {run_hash}: {error} The file was changed: use another one."
        ) from error


@dataclass
class _Missing:
    """The runs that the store doesn't have, while they run."""

    outcome: StudyResults[Executed]
    store: Store
    display: Display
    most_lost: int  # runs of one arm lost in a row that end the study
    specs: dict[Key, RunSpec] = field(default_factory=dict)
    running: set[Key] = field(default_factory=set)  # started, and neither finished nor lost
    again: deque[Key] = field(default_factory=deque)  # to be repeated
    repeated: Counter[tuple[Key, bool]] = field(default_factory=Counter)  # by what was lost
    quiet: set[Key] = field(default_factory=set)  # whose silence was shown
    crowded: bool = False  # whether it was said that runs found no memory
    lost: Counter[str] = field(default_factory=Counter)  # by arm, since its last finished run

    def run(self, executor: Executor) -> None:
        """Run until all are finished, or every question is answered."""
        for event in executor.run(self._tasks()):
            self._hear(event)
            if isinstance(event, Done) and self.outcome.decided:
                break  # runs that are still going are for pairs that aren't needed

    def _tasks(self) -> Iterator[Task | None]:
        """Yield the runs in the order of their pairs, but a run to repeat before all others."""
        plan = self.outcome.plan
        for pair, seed in enumerate(plan.seeds):
            if self.outcome.decided:
                return
            for index, arm in enumerate(plan.arms):
                key = (arm.label, seed)
                if key in self.outcome.results:
                    continue
                while self.again:
                    yield self._task(self.again.popleft())
                self.specs[key] = plan.spec(self.outcome.inspection, index, seed)
                self.running.add(key)
                self.display.run_started(arm.label, seed, pair)
                yield self._task(key)
        while self.running and not self.outcome.decided:
            yield self._task(self.again.popleft()) if self.again else None

    def _task(self, key: Key) -> Task:
        plan = self.outcome.plan
        return Task(key, plan.work(self.specs[key]), plan.run_timeout)

    def _hear(self, event: Event) -> None:
        if isinstance(event, Notice):
            self.display.say(event.text)
            return
        key = label, seed = event.key
        name = f"run of '{label}' with seed {seed}"
        if isinstance(event, Silent):
            if event.seconds >= QUIET:
                self.quiet.add(key)
                self.display.say(f"{name}: no sign of life for {event.seconds:.0f} s")
            return
        if key in self.quiet:
            self.quiet.discard(key)
            self.display.say(f"{name}: heard of again")
        match event:
            case Epoch():
                self.display.run_progress(label, seed, event.report.epoch, event.report.epochs)
            case Done() if event.answer.status == "failed":
                self._lose_own(key, name, event.answer)
            case Done():
                self._keep(key, event.answer)
            case Failed():
                raise type(event.error)(f"{name} failed: {event.error} {_KEPT}")
            case Crowded():
                self._repeat_with_fewer(key, name, _sentence(event.reason))
            case Died():
                self._repeat_or_lose(key, name, _sentence(event.reason), event.machine)

    def _keep(self, key: Key, result: RunResult) -> None:
        label, seed = key
        plain = result.to_dict()
        self.outcome.results[key] = plain
        self.outcome.per_example[key] = result.per_example
        self.running.discard(key)
        self.lost[label] = 0
        spec = self.specs.pop(key)
        seconds = result.seconds.get("total")
        cheap = seconds is not None and seconds < self.outcome.plan.quick
        run_hash = self.outcome.hashes[key]
        self.store.put(run_hash, spec.to_dict(), plain, result.per_example, cheap=cheap)
        self.display.run_finished(label, seed, result.metric, result.status, seconds)
        _show_difference(self.outcome, self.display)

    def _repeat_with_fewer(self, key: Key, name: str, reason: str) -> None:
        """Repeat a run that found no memory, as often as fewer side by side are left to try."""
        self.again.append(key)
        if not self.crowded:
            self.display.say(f"{name} is repeated: {reason}")
        self.crowded = True

    def _repeat_or_lose(self, key: Key, name: str, reason: str, machine: bool) -> None:
        most = MACHINES if machine else 1
        if self.repeated[key, machine] < most:
            self.repeated[key, machine] += 1
            self.again.append(key)
            self.display.say(f"{name} is repeated: {reason}")
            return
        often = "twice" if most == 1 else f"{most + 1} times"
        note = f"{name} failed {often}, so that its pair doesn't count: {reason}"
        self._lose(key, RunResult("failed", note=note))
        if self.lost[key[0]] == self.most_lost:
            raise InputError(f"{name} failed: {reason} {_KEPT}")

    def _lose_own(self, key: Key, name: str, result: RunResult) -> None:
        """Note a run that the user's own training lost; end if the arm never had a result."""
        note = f"{name} is lost, so that its pair doesn't count: {_sentence(result.note)}"
        self.display.say(note)
        self._lose(key, replace(result, note=note))
        finished = any(label == key[0] for label, _ in self.outcome.results)
        if not finished and self.lost[key[0]] == NEVER:
            first = next(
                r["note"] for (label, _), r in self.outcome.failed.items() if label == key[0]
            )
            raise InputError(f"no run of '{key[0]}' has finished: {first} {_KEPT}")

    def _lose(self, key: Key, result: RunResult) -> None:
        self.running.discard(key)
        self.outcome.failed[key] = result.to_dict()
        self.display.run_finished(*key, None, "failed", result.seconds.get("total"))
        self.lost[key[0]] += 1


def _show_difference(outcome: StudyResults[Executed], display: Display) -> None:
    seeds = outcome.finished_pairs()
    if not seeds:
        return
    verdict = outcome.verdict(outcome.plan.contrasts[0], seeds)
    found = verdict.difference
    ends = (found.estimate, found.low, found.high)
    if verdict.reason == "all runs diverged":  # the scores are worst scores, not measurements
        ends = (None, None, None)
    display.difference(*ends, found.n)
