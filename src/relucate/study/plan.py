"""The plan of a study that trains networks: all of the user's choices, checked first."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from math import inf
from typing import Any

from ..data.dataset import Dataset
from ..errors import InputError, unknown
from ..frameworks import HOST
from ..stats.paired import is_number
from ..train.metric import Metric
from ..train.recipe import Recipe
from ..train.task import Task
from ..train.tasks import task_for
from .arms import Arm
from .comparison import Comparison, Schedule, check_whole
from .display import Display
from .executors import EXECUTORS, Executor, Setup
from .source import ModelSource
from .tasks import ENGINES, Inspection

NORMS_HINT = " (--norm-eps, --norm-momentum make them equal)"


@dataclass(frozen=True)
class StudyPlan(Comparison):
    """The plan of a study that trains networks: all of the user's choices.

    task: what the networks are trained for, by default what the labels are for; metric: by default
        the task's.
    """

    arms: tuple[Arm, ...]
    source: ModelSource
    data: Dataset
    recipe: Recipe
    _: KW_ONLY
    engine: str = "auto"
    device: str = "auto"
    threads: int = 1
    jobs: int = 0  # 0: one per core
    task: Task = None  # type: ignore[assignment]  # the labels', from __post_init__ on
    metric: Metric = None  # type: ignore[assignment]  # the task's, from __post_init__ on
    run_timeout: float | None = None  # seconds after which a run is given up
    executor: str = "local"  # a name in `executors.EXECUTORS`

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", task_for(self.task, self.data.labels))
        if self.metric is None:
            object.__setattr__(self, "metric", self._metric())
        super().__post_init__()
        check_whole("threads", self.threads, 1)
        check_whole("jobs", self.jobs, 0)
        limit = self.run_timeout
        if limit is not None and not (is_number(limit) and 0 < limit < inf):
            raise InputError(f"run_timeout must be a number of seconds above 0, got {limit!r}.")
        if self.executor not in EXECUTORS:
            raise unknown("executor", self.executor, EXECUTORS)
        if self.engine not in ENGINES:
            raise unknown("engine", self.engine, ENGINES)
        for recipe in map(self.recipe_of, self.arms):
            self.task.check_recipe(recipe)
            recipe.check_fits(len(self.data.y_train), self.data.input_shape)
            self.data.check_held_out(recipe.validation)
            if self.target is not None and not recipe.curve:
                raise InputError(
                    "target= needs a learning curve, and curve=0 turns it off: remove one of the "
                    "two."
                )

    def _metric(self) -> Metric:
        """Return the task's metric; the data give it the worst score that it doesn't have."""
        return self.task.metric_on(self.data.y_train, self.data.y_test, self.data.classes)

    @property
    def networks(self) -> list[Arm]:
        """The networks to build: the arms without their recipes, each once."""
        found: list[Arm] = []
        for arm in self.arms:
            if arm.network not in found:
                found.append(arm.network)
        return found

    def recipe_of(self, arm: Arm) -> Recipe:
        """Return how an arm trains."""
        return self.recipe.changed(**arm.recipe)

    @property
    def workers(self) -> int:
        """The number of parallel worker processes."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        wanted = self.jobs or max(1, (cores or 1) // self.threads)
        return min(wanted, self.pairs * len(self.arms))

    def open_executor(self, display: Display) -> Executor:
        """Return the executor of this plan, not entered yet."""
        display.say(f"starting {self.workers} worker process{'' if self.workers == 1 else 'es'}")
        return EXECUTORS[self.executor](
            Setup(self.source, self.data, self.workers, self.threads, self.task)
        )

    @property
    def examples(self) -> int:
        """The number of test examples."""
        return len(self.data.y_test)

    def schedule(self, arm: Arm) -> Schedule:
        """Return how long an arm trains."""
        recipe = self.recipe_of(arm)
        return Schedule(recipe.epochs, recipe.trained(len(self.data.y_train)) // recipe.batch_size)

    def report(self, inspection: Inspection, arm: Arm) -> dict[str, Any]:
        """Return the inspection's report on an arm's network."""
        return inspection.arms[self.networks.index(arm.network)]

    def settings(self, inspection: Inspection) -> dict[str, Any]:
        """Return the document's sections on how the networks were trained."""
        return {
            "model": {
                "name": self.source.text,
                "options": dict(self.source.options),
                "source": self.source.description,
                "norms": dict(self.source.norms),
            },
            "data": {
                "name": self.data.name,
                "input_shape": list(self.data.input_shape),
                "classes": self.data.classes,
                "train": len(self.data.y_train),
                "test": len(self.data.y_test),
                "fingerprint": self.data.fingerprint,
                **({} if self.data.labels == "classes" else {"labels": self.data.labels}),
            },
            "task": {
                "name": self.task.name,
                "loss": self.recipe.loss or self.task.training_loss,
            },
            "recipe": self.recipe.to_dict(),
            "engine": {
                **inspection.engine,
                "threads": self.threads,
                "jobs": self.workers,
                "precision": self.recipe.precision,
            },
            "pairing": _pairing(inspection.arms),
            "versions": inspection.versions,
        }

    def remarks(self, inspection: Inspection) -> tuple[list[str], list[str]]:
        """Return the notes on the data and the arms, then those on how the arms differ."""
        engine, closing = inspection.engine, []
        if engine["name"] != HOST:
            closing.append(f"trained by the {engine['name']} engine: {engine['reason']}")
        closing += _differing(inspection, hint="" if self.source.norms else NORMS_HINT)
        if self.recipe.decay_all and self.recipe.weight_decay:
            closing.append(
                "weight decay acts on gamma, beta and biases too, which isn't the same thing in "
                "every order; without --decay-all they are exempt"
            )
        return [*self._task_notes(), *self.data.notes, *inspection.notes], closing

    def _task_notes(self) -> list[str]:
        """Return a note on the task, unless older studies had it, too."""
        if self.task.is_usual and self.recipe.loss is None:
            return []
        loss = self.recipe.loss or self.task.training_loss
        units = " of standardised targets" if self.task.labels == "targets" else ""
        return [f"task: {self.task.name}, scored by {self.metric.name}, trained with {loss}{units}"]


def _pairing(arms: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the arms of a pair share, and the tensors that only one of them has."""
    last = arms[-1] if len(arms) == 1 else arms[1]
    only = {arm["label"]: arm["only"] for arm in arms if arm["only"]}
    return {"shared": last["shared"], "tensors": last["tensors"], "only": only}


def _differing(inspection: Inspection, hint: str) -> list[str]:
    """Return a note for everything but the order in which the arms' networks differ."""
    reports, notes = inspection.arms, []

    def each(key: str) -> list[Any]:
        return [report.get(key) for report in reports]

    labels = [report["label"] for report in reports]
    counts, biases, settings = each("parameters"), each("biases"), each("settings")
    if len(set(counts)) > 1:
        shares = ", ".join(f"{a} {n:,}" for a, n in zip(labels, counts, strict=True))
        differ = None not in biases and len(set(biases)) > 1
        option = inspection.equal_biases
        equal = f"; --bias {option} makes them equal" if option else ""
        why = f" (biases: {', '.join(f'{n:,}' for n in biases)}{equal})" if differ else ""
        notes.append(f"the arms differ in trainable parameters: {shares}{why}")
    with_norms = [(a, found) for a, found in zip(labels, settings, strict=True) if found]
    if any(found != with_norms[0][1] for _, found in with_norms):
        each_arm = "; ".join(f"{a} {', '.join(found)}" for a, found in with_norms)
        notes.append(f"the arms differ in their norms' settings: {each_arm}{hint}")
    return notes
