"""Where a study's runs run: a protocol, one file per executor, and their names."""

from __future__ import annotations

from collections.abc import Callable

from .local import LocalExecutor
from .protocol import (
    Crowded,
    Died,
    Done,
    Epoch,
    Event,
    Executor,
    Failed,
    Notice,
    Setup,
    Silent,
    Task,
)
from .ray import RayExecutor

# The name in a plan -> the class of the executor.
EXECUTORS: dict[str, Callable[[Setup], Executor]] = {"local": LocalExecutor, "ray": RayExecutor}
ELSEWHERE = {"ray"}  # these don't count this machine's cores

__all__ = [
    "ELSEWHERE",
    "EXECUTORS",
    "Crowded",
    "Died",
    "Done",
    "Epoch",
    "Event",
    "Executor",
    "Failed",
    "Notice",
    "Setup",
    "Silent",
    "Task",
]
