"""What a study needs from an executor, and what an executor reports: tasks in, events out.

A new executor is one class with `run`, used as a context manager, and an entry in `EXECUTORS`.
Not here: what a task does (`perform`), what an event leads to (`driver`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

from ...data.dataset import Dataset
from ...errors import RelucateError
from ...train.run import EpochReport
from ...train.task import CLASSIFICATION
from ...train.task import Task as TrainTask
from ..source import ModelSource


@dataclass(frozen=True)
class Setup:
    """The settings that all tasks of a study share.

    source: of the networks, or the user's own training, which has no data of ours.
    """

    source: ModelSource
    data: Dataset | None
    jobs: int = 1  # tasks at the same time
    threads: int = 1  # of each
    task: TrainTask = CLASSIFICATION  # what the networks are trained for
    address: str | None = None  # of a cluster, for an executor that needs one
    gpus_per_run: float | None = None  # of each task, there; None: one, if it has any
    gpus: tuple[str, ...] = ()  # that runs take in turn, as CUDA_VISIBLE_DEVICES names them


@dataclass(frozen=True)
class Task:
    """One task: `work` is plain data for `perform`.

    key: identifies it in events (hashable, can be pickled); limit: seconds after which it is ended.
    """

    key: Any
    work: dict[str, Any]
    limit: float | None = None


@dataclass(frozen=True)
class Epoch:
    """A run has finished an epoch, or an inspection an arm."""

    key: Any
    report: EpochReport


@dataclass(frozen=True)
class Done:
    """A task is finished. answer: what `perform` returned."""

    key: Any
    answer: Any


@dataclass(frozen=True)
class Failed:
    """A task raised an error; repeating it would raise the error again."""

    key: Any
    error: RelucateError


@dataclass(frozen=True)
class Died:
    """The process of a task ended, or was ended at the task's limit; reason: a sentence.

    machine: its whole machine was lost, which the task didn't cause.
    """

    key: Any
    reason: str
    machine: bool = False


@dataclass(frozen=True)
class Crowded:
    """A task found too little memory beside others, and can be repeated: fewer run there now.

    reason: a sentence.
    """

    key: Any
    reason: str


@dataclass(frozen=True)
class Silent:
    """A task is running, but has sent no message for so many seconds."""

    key: Any
    seconds: float


@dataclass(frozen=True)
class Notice:
    """Something about the executor that the user should know; text: a sentence without the dot."""

    text: str


Event = Epoch | Done | Failed | Died | Crowded | Silent | Notice


class Executor(Protocol):
    """Where tasks run. A context manager: leaving it ends every task and cleans up."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def run(self, tasks: Iterable[Task | None]) -> Iterator[Event]:
        """Run tasks, started in the order given, and yield what happens.

        Every task ends with one of `Done`, `Failed`, `Died` and `Crowded`. A task is taken from the
        iterable only when it can start, after the events of earlier tasks, so a caller may stop
        yielding tasks, or leave, at any time. None: there is nothing to start before the next
        event. After an early end the next `run` reports nothing about old tasks.

        Raises: InputError: no task can be run any more.
        """
        ...


@runtime_checkable
class OnGpus(Executor, Protocol):
    """An executor on whose GPUs several tasks take turns, as many as measure best.

    measured: seconds of a training step by the number of runs that take turns; None: not yet.
    """

    measured: Mapping[int, float] | None

    def arrange(self, side: int, jobs: int) -> None:
        """Run `jobs` tasks at a time on this machine's GPUs, `side` in turn in each worker."""
        ...
