"""Where a study's runs run: one protocol, one file for each executor, and their names."""

from __future__ import annotations

from collections.abc import Callable

from .local import LocalExecutor
from .protocol import Died, Done, Epoch, Event, Executor, Failed, Setup, Silent, Task

# The name that a plan gives -> what makes the executor.
EXECUTORS: dict[str, Callable[[Setup], Executor]] = {"local": LocalExecutor}

__all__ = [
    "EXECUTORS",
    "Died",
    "Done",
    "Epoch",
    "Event",
    "Executor",
    "Failed",
    "Setup",
    "Silent",
    "Task",
]
