"""What a study reports while it runs, such as to the live progress display."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol


class Display(Protocol):
    """Gets the events of a running study."""

    def say(self, text: str) -> None: ...
    def run_started(self, arm: str, seed: int, pair_index: int) -> None: ...
    def run_progress(self, arm: str, seed: int, epoch: float, epochs: int) -> None: ...
    def run_finished(
        self,
        arm: str,
        seed: int,
        metric: float | None,
        status: str,
        seconds: float | None,
        resumed: bool = False,
    ) -> None: ...
    def difference(
        self, estimate: float | None, low: float | None, high: float | None, pairs: int
    ) -> None: ...


class NoDisplay:
    """A display that shows nothing."""

    def say(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    run_started = run_progress = run_finished = difference = say


def as_context(display: Any) -> AbstractContextManager[Display]:
    """Return a display as a context manager, even if it isn't one itself."""
    return display if hasattr(type(display), "__enter__") else nullcontext(display)
