"""What a study needs of an executor, and what an executor reports: tasks in, events out.

A new executor is one class with `run`, used as a context manager, and an entry in `EXECUTORS`.
Not here: what a task does (`perform`), what becomes of an event (`driver`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

from ...data.dataset import Dataset
from ...errors import RelucateError
from ...train.run import EpochReport
from ...train.task import CLASSIFICATION
from ...train.task import Task as TrainTask
from ..source import ModelSource


@dataclass(frozen=True)
class Setup:
    """What all tasks of a study have in common."""

    source: ModelSource
    data: Dataset
    jobs: int = 1  # tasks at the same time
    threads: int = 1  # of each
    task: TrainTask = CLASSIFICATION  # what the networks are trained for


@dataclass(frozen=True)
class Task:
    """Something to do: `work` is plain data for `perform`.

    key: names it in events (hashable, can be pickled); limit: seconds after which it is given up.
    """

    key: Any
    work: dict[str, Any]
    limit: float | None = None


@dataclass(frozen=True)
class Epoch:
    """A run has trained for one more epoch."""

    key: Any
    report: EpochReport


@dataclass(frozen=True)
class Done:
    """A task is finished. answer: what `perform` returned."""

    key: Any
    answer: Any


@dataclass(frozen=True)
class Failed:
    """A task raised an error: it would do so again."""

    key: Any
    error: RelucateError


@dataclass(frozen=True)
class Died:
    """The process of a task ended, or was ended at the task's limit; reason: a sentence."""

    key: Any
    reason: str


@dataclass(frozen=True)
class Silent:
    """A task goes on, but nothing was heard of it for so many seconds."""

    key: Any
    seconds: float


Event = Epoch | Done | Failed | Died | Silent


class Executor(Protocol):
    """Where tasks run. A context manager: leaving it ends every task and cleans up."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def run(self, tasks: Iterable[Task | None]) -> Iterator[Event]:
        """Run tasks, started in the order given, and yield what happens.

        Every task ends with one of `Done`, `Failed` and `Died`. The iterable is drawn from lazily,
        when a task can start, and after the events of earlier ones: a caller that has seen enough
        stops giving, or leaves. None: there is nothing to start before the next event. After an
        early end nothing of the old tasks shows up in the next `run`.

        Raises: InputError: no task can be run any more.
        """
        ...
