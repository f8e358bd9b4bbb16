"""The driver: arms × seeds -> run specs -> executor -> store -> results.

It alone writes the store; every finished run is committed at once, and runs that the store already
holds are taken from there. Not here: training (`tasks`), the verdict's statistics (`stats`), words
and pictures (`report`).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ..backend import choose_backend
from ..errors import InputError
from ..train.run import RunResult, RunSpec
from .display import Display
from .executor import Event, LocalExecutor, import_path, raise_remote
from .plan import StudyPlan
from .results import StudyResults
from .store import Store
from .tasks import Inspection


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
                examples = len(plan.data.y_test)
                outcome.per_example[arm.label, seed] = store.get_per_example(spec.hash, examples)
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
    outcome.per_example[key] = result.per_example
    store.put(spec.hash, spec.to_dict(), plain, result.per_example)


def _tell_difference(outcome: StudyResults, display: Display) -> None:
    found = outcome.difference(outcome.plan.arms[1])
    if found is not None:
        display.difference(found.estimate, found.low, found.high, found.n)
