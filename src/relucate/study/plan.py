"""The plan of a study: all of the user's choices, checked before anything starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

from ..arguments import one_of, positive, whole
from ..data.dataset import Dataset
from ..errors import InputError
from ..stats.paired import check_level
from ..stats.sequential import Monitor
from ..stats.spending import LAST, LEVELS
from ..stats.verdict import check_margin
from ..train.metric import Metric, margin_of
from ..train.recipe import Recipe
from ..train.task import CLASSIFICATION, Task
from .arms import Arm
from .display import Display
from .executors import EXECUTORS, Executor, Setup
from .interaction import Interaction, interactions_of
from .source import ModelSource
from .tasks import ENGINES

# Whole numbers with their least and largest values; JSON readers keep seeds up to 2^53.
_COUNTS = (
    ("pairs", 1, LAST),
    ("threads", 1, 2**16),
    ("jobs", 0, 2**16),
    ("first_seed", 0, 2**53 - LAST),
)


@dataclass(frozen=True)
class StudyPlan:
    """The plan of a study: all of the user's choices.

    looks: look after every pair, from the third on, and stop as soon as every answer is certain;
        `pairs` is then the maximum. Otherwise all pairs run before the verdict.
    task: what the networks are trained for; metric: its metric.
    margin: in the metric's own unit; None: the metric's default, if it has one.
    factors: what varies besides the order, as given to `vary.arms_from`.
    target: a score; the steps to it are reported.
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
    task: Task = CLASSIFICATION
    metric: Metric = None  # type: ignore[assignment]  # the task's, from __post_init__ on
    margin: float = None  # type: ignore[assignment]  # a number from __post_init__ on
    factors: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    target: float | None = None
    run_timeout: float | None = None  # seconds after which a run is given up
    executor: str = "local"  # a name in `executors.EXECUTORS`

    def __post_init__(self) -> None:
        labels = [arm.label for arm in self.arms]
        if len(self.arms) < 2:
            raise InputError(f"a comparison needs at least two arms, got {labels}.")
        for label in labels:
            given = [arm.given for arm in self.arms if arm.label == label]
            if len(given) > 1:
                raise InputError(
                    f"the arm '{label}' is given twice (as {' and '.join(map(repr, given))}): "
                    "the arms must differ."
                )
        for name, least, most in _COUNTS:
            object.__setattr__(self, name, whole(getattr(self, name), name, least, most))
        if self.run_timeout is not None:
            positive(self.run_timeout, "run_timeout", "a number of seconds")
        one_of(self.executor, "executor", EXECUTORS)
        if not isinstance(self.device, str):
            raise InputError(f"device must be a text such as 'cpu', got {self.device!r:.80}.")
        check_level(self.level)
        if self.metric is None:
            object.__setattr__(self, "metric", self.task.metric)
        if self.margin is None:
            object.__setattr__(self, "margin", margin_of(self.metric))
        check_margin(self.margin)
        if self.looks:
            self._check_looks()
        one_of(self.engine, "engine", ENGINES)
        for recipe in map(self.recipe_of, self.arms):
            recipe.check_fits(len(self.data.y_train), self.data.input_shape)
            self.data.check_held_out(recipe.validation)
            if self.target is not None and not recipe.curve:
                raise InputError(
                    "target= needs a learning curve, and curve=0 turns it off: remove one of the "
                    "two."
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
        """The number of intervals that a study shows.

        They are: each arm against the first; with factors also the effect of each order at each
        further choice of values, and the change of that effect with each further value.
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
        """The questions whether each order's effect depends on each factor."""
        return interactions_of(self.arms, self.factors)

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
    def seeds(self) -> list[int]:
        """The seeds, one per pair."""
        return list(range(self.first_seed, self.first_seed + self.pairs))
