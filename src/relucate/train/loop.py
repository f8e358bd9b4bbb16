"""The training loop of every engine: epochs, learning curve, best epoch, score, divergence.

An engine trains an epoch, re-estimates statistics and returns outputs; everything else is decided
here. Not here: tensors, optimizers, models. Called by `keras/trainer.py` and `torch/trainer.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from .looking import Look
from .recipe import Recipe
from .run import EpochReport, OnEpoch, RunResult
from .streams import curve_sample, curve_statistics, statistics_sample
from .task import CLASSIFICATION, Task
from .waiting import Ready


class Engine(Protocol):
    """What the loop needs from the engine that trains one model."""

    def epoch(self, number: int) -> Generator[Ready, None, float]:
        """Train epoch `number`, counted from 0; return its mean training loss.

        Where its device works alone, it yields, so that others can compute meanwhile.
        """
        ...

    def reestimate(self, sample: np.ndarray) -> None:
        """Average the norms' statistics over the training examples at `sample`, (count,) int64.

        Nothing else may change, and the same sample must give the same statistics.
        """
        ...

    def outputs(self, part: str, index: np.ndarray | None) -> np.ndarray:
        """Return the model's outputs at inference, (n, ..., classes) floats, on the host.

        Binary ones are logits.
        Args: part: "test", or "held" for the held-out part; index: which examples, None: all.
        """
        ...

    def counts(self) -> dict[str, int]:
        """Return the numbers of trainable scalars: `parameters`, `norm_parameters` of them."""
        ...

    # Only for a run that is looked at (`looking`).

    def inputs(self, index: np.ndarray) -> np.ndarray:
        """Return the test examples at `index` as the model takes them."""
        ...

    def paused(self) -> AbstractContextManager[None]:
        """Return a context in which nothing that happens changes the training."""
        ...


def run(
    engine: Engine,
    recipe: Recipe,
    labels: Mapping[str, np.ndarray],
    *,
    trained: int,
    seed: int,
    on_epoch: OnEpoch = lambda report: None,
    task: Task = CLASSIFICATION,
    look: Look | None = None,
) -> Generator[Ready, None, RunResult]:
    """Train with `engine` for all epochs and score on the test part.

    Args:
        labels: of the "test" part, and of the "held" part if something was held out.
        task: prepared for this run (`Task.prepared`).
        trained: number of training examples.
        seed: decides on which of them statistics are re-estimated.
        look: looks at the model between epochs; what it saw is the result's `probe`.

    Returns: the score after the last epoch, or that of the best epoch on the held-out part. A loss
        that isn't finite ends the run as `diverged`.
    """
    result = yield from _Run(engine, recipe, labels, trained, seed, on_epoch, task, look).result()
    if look is not None:
        result.probe = look.found
    return result


class _Run:
    """One training: its curve, clocks and best epoch."""

    def __init__(
        self,
        engine: Engine,
        recipe: Recipe,
        labels: Mapping[str, np.ndarray],
        trained: int,
        seed: int,
        on_epoch: OnEpoch,
        task: Task,
        look: Look | None,
    ) -> None:
        self.look = look
        self.engine, self.recipe, self.on_epoch, self.task = engine, recipe, on_epoch, task
        self.labels, self.held = labels, "held" in labels
        self.sample = statistics_sample(seed, trained, recipe.reestimate)
        self.curve_set = curve_sample(len(labels["test"]), recipe.curve)
        self.estimated = 0  # examples of the sample in the statistics, this epoch
        self.final: np.ndarray | None = None  # outputs on the test part after the last epoch
        self.best: tuple[float, dict[str, Any]] | None = None  # held-out score, result
        self.curve: dict[str, list[Any]] = {"epoch": [], "train_loss": [], task.metric.name: []}
        self.seconds = {"train": 0.0, "evaluate": 0.0}

    def result(self) -> Generator[Ready, None, RunResult]:
        """Run all epochs, then score."""
        self._look(0)
        for epoch in range(self.recipe.epochs):
            loss = yield from self._train(epoch)
            finite = math.isfinite(loss)
            score = self._timed("evaluate", self._curve_point, epoch) if finite else None
            self._record(epoch, loss, score)
            if not finite:
                note = f"the training loss was {loss} in epoch {epoch + 1}"
                return self._ended("diverged", note=note)
            if self.held:
                self._timed("evaluate", self._keep_best, epoch)
            self._look(epoch + 1)
        if self.held:
            return self._best()
        values = self._timed("evaluate", self._score)
        if not math.isfinite(values["loss"]):
            note = f"the test loss was {values['loss']} after the last epoch"
            return self._ended("diverged", note=note)
        return self._ended("done", **values)

    def _timed(self, clock: str, function: Callable[..., Any], *args: Any) -> Any:
        start = time.perf_counter()
        value = function(*args)
        self.seconds[clock] += time.perf_counter() - start
        return value

    def _train(self, epoch: int) -> Generator[Ready, None, float]:
        self.estimated = 0
        start = time.perf_counter()
        loss = yield from self.engine.epoch(epoch)
        self.seconds["train"] += time.perf_counter() - start
        return loss

    def _curve_point(self, epoch: int) -> float | None:
        if not self.recipe.curve:
            return None
        last = epoch == self.recipe.epochs - 1
        if last and not self.held:  # the score needs the same outputs
            self.final = self._outputs("test")
            outputs = self.final[self.curve_set]
        else:
            sample = curve_statistics(self.sample, last=self.held)
            outputs = self._outputs("test", self.curve_set, sample)
        score = self.task.score(outputs, self.labels["test"][self.curve_set])
        return score if math.isfinite(score) else None

    def _keep_best(self, epoch: int) -> None:
        """Score the test part if this epoch is the best so far on the held-out part."""
        outputs = self._outputs("held")
        score = self.task.score(outputs, self.labels["held"])
        better = self.best is None or self.task.better(score, self.best[0])
        if better and np.isfinite(outputs).all():
            values = self._score()
            if math.isfinite(values["loss"]):
                self.best = score, {**values, "epoch": epoch + 1}

    def _score(self) -> dict[str, Any]:
        outputs = self._outputs("test") if self.final is None else self.final
        labels = self.labels["test"]
        return {
            "metric": self.task.score(outputs, labels),
            "loss": self.task.loss(outputs, labels),
            "per_example": self.task.per_example(outputs, labels),
            "constant": self.task.is_constant(outputs),
        }

    def _outputs(
        self, part: str, index: np.ndarray | None = None, sample: np.ndarray | None = None
    ) -> np.ndarray:
        """Return outputs with statistics of `sample`, by default all of `self.sample`."""
        sample = self.sample if sample is None else sample
        if len(sample) not in (0, self.estimated):
            self.engine.reestimate(sample)
            self.estimated = len(sample)
        return self.task.decoded(self.engine.outputs(part, index))

    def _look(self, epoch: int) -> None:
        """Look at the model after so many epochs, with statistics of `self.sample`."""
        if self.look is None or epoch not in self.look.epochs:
            return
        with self.engine.paused():
            if len(self.sample):
                self.engine.reestimate(self.sample)
            chosen = curve_sample(len(self.labels["test"]), self.look.examples)
            self.look(epoch, self.engine.inputs(chosen))

    def _record(self, epoch: int, loss: float, score: float | None) -> None:
        self.curve["epoch"].append(epoch + 1)
        self.curve["train_loss"].append(loss if math.isfinite(loss) else None)
        self.curve[self.task.metric.name].append(score)
        self.on_epoch(EpochReport(epoch + 1, self.recipe.epochs, loss, score))

    def _best(self) -> RunResult:
        if self.best is None:
            note = "no epoch gave finite outputs on what was held out"
            return self._ended("diverged", note=note)
        return self._ended("done", **self.best[1])

    def _ended(self, status: str, **values: Any) -> RunResult:
        counts = self.engine.counts()
        return RunResult(status, curve=self.curve, seconds=dict(self.seconds), **counts, **values)
