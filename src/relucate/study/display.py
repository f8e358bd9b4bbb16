"""Who is told what happens while a study runs: the live progress display, for one."""

from __future__ import annotations

from typing import Any, Protocol


class Display(Protocol):
    """Who is told what happens while a study runs (the live progress display, for one)."""

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


class Silent:
    """A display that shows nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def silent() -> Any:
    """Return a display that shows nothing."""
    return Silent()
