"""How many runs a GPU takes best at the same time: a few steps of 1, 2, 4, ... runs in turn.

Not here: what is made of it (`study.devices`), the runs' turns (`turns`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from ..data.dataset import Dataset
from ..train.recipe import Recipe
from ..train.task import Task
from ..train.waiting import WORTH
from .capture import Step
from .trainer import Engine
from .turns import Turn

_FIRST = 4  # steps until a step is captured, and once more
_SPAN = 0.1  # seconds that one measurement takes about
_LEAST, _MOST = 4, 64  # steps of one measurement


def side_by_side(
    models: Iterator[nn.Module],
    data: Dataset,
    recipe: Recipe,
    counts: Sequence[int],
    *,
    device: str,
    channels_first: bool,
    task: Task,
) -> dict[int, float]:
    """Return the seconds of a run's training step by the number of runs that take turns.

    It ends with the first number that isn't worth it, or for which the GPU has no memory. Empty:
    the step isn't captured, so that runs in one process would wait for each other.

    Args: models: one for each run; they are trained a little. counts: ascending.
    """
    where = torch.device(device)
    if where.type != "cuda":
        return {}
    runs: list[_Running] = []
    found: dict[int, float] = {}
    try:
        for count in counts:
            while len(runs) < count:
                runs.append(_Running(next(models), data, recipe, where, channels_first, task))
            if not all(run.captured for run in runs):
                return {}
            before = min(found.values(), default=float("inf"))
            found[count] = _seconds(runs, found.get(1))
            if found[count] * WORTH > before:
                break
    except torch.OutOfMemoryError:
        if not found:
            raise
    finally:
        for run in runs:
            run.engine.close()
        torch.cuda.empty_cache()
    return found


class _Running:
    """A run whose step was captured, if it can be."""

    def __init__(self, model: nn.Module, data: Dataset, recipe: Recipe, *place: Any) -> None:
        device, channels_first, task = place
        self._turn = Turn(device, tf32=recipe.precision == "tf32")
        with self._turn:
            self.engine = Engine(
                model, data, recipe, 0, device, channels_first, task, turn=self._turn
            )
            self.engine.begin(0)
            self._left = self.engine.feed.steps
            for _ in range(_FIRST):
                self._train()
        self.captured = isinstance(self.engine.train_step, Step) and not self.engine.step_note

    def step(self) -> None:
        """Give the GPU one more step."""
        with torch.cuda.stream(self._turn.stream):
            self._train()

    def _train(self) -> None:
        if not self._left:
            self.engine.feed.rewind()
            self._left = self.engine.feed.steps
        self._left -= 1
        self.engine.train_step()


def _seconds(runs: list[_Running], alone: float | None) -> float:
    alone = alone or _timed(runs, _LEAST)
    steps = int(_SPAN / alone / len(runs))
    return _timed(runs, min(max(steps, _LEAST), _MOST))


def _timed(runs: list[_Running], steps: int) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        for run in runs:
            run.step()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / steps / len(runs)
