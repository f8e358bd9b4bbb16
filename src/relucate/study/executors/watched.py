"""A worker's present task, and how long the worker has been silent: the same in every executor.

Not here: processes and connections (each executor's own).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from .protocol import Silent, Task

NOTHING = Task(None, {})


@dataclass(kw_only=True)
class Watched:
    """A worker that works on one task at a time.

    wanted: False once the `run` that gave the task has ended; heard: time of its last message;
    patience: seconds of silence until an event reports it.
    """

    task: Task = NOTHING
    busy: bool = False
    wanted: bool = True
    deadline: float = float("inf")
    heard: float = 0.0
    patience: float = 0.0

    def take(self, task: Task, patience: float, least: float = 0.0) -> None:
        """Note that it works on a task from now on; least: seconds that it may take in any case."""
        self.task, self.busy, self.wanted = task, True, True
        self.listen(patience)
        self.deadline = self.heard + max(task.limit or float("inf"), least)

    def listen(self, patience: float) -> None:
        """Note that it sent a message now."""
        self.heard, self.patience = time.monotonic(), patience

    @property
    def next_look(self) -> float:
        """The time of the next event without a message from it."""
        return min(self.deadline, self.heard + self.patience)

    @property
    def overdue(self) -> str:
        """Why its task must be ended now, a sentence; "" if it need not be."""
        if time.monotonic() < self.deadline:
            return ""
        limit = self.task.limit
        return f"it took longer than {limit:g} seconds (--run-timeout) and was ended"

    def silence(self) -> Silent | None:
        """Return an event if it has been silent too long; the next one takes twice as long."""
        now = time.monotonic()
        if now < self.heard + self.patience:
            return None
        self.patience *= 2
        return Silent(self.task.key, now - self.heard) if self.wanted else None
