"""Where a study's runs run: a protocol, one file per executor, and their names."""

from __future__ import annotations

from collections.abc import Callable

from .local import LocalExecutor
from .protocol import Crowded, Died, Done, Epoch, Event, Executor, Failed, Setup, Silent, Task

# The name in a plan -> the class of the executor.
EXECUTORS: dict[str, Callable[[Setup], Executor]] = {"local": LocalExecutor}

__all__ = [
    "EXECUTORS",
    "Crowded",
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
