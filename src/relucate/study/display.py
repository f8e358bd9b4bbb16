"""What a study reports while it runs: the live progress display listens to it, for one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol


class Display(Protocol):
    """Hears what happens while a study runs."""

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
    """Return a display as a context manager, which it need not be itself."""
    return display if hasattr(type(display), "__enter__") else nullcontext(display)
