"""Progress of a study and its remaining time, estimated from the epochs trained so far.

Running runs count with their partial epochs. Runs taken from the store don't count as work, and a
run that diverged has no epochs left. Not here: the display. Called by `live`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass
class _Flight:
    """A run in progress: its start, its last report, and its epochs at that time."""

    epochs: int
    started: float
    reported: float
    epoch: float = 0.0


class Pace:
    """The epochs of `runs` runs of `epochs` epochs each, as they are trained.

    >>> now = [0.0]
    >>> pace = Pace(runs=2, epochs=10, clock=lambda: now[0])
    >>> pace.begin("first")
    >>> now[0] = 5.0
    >>> pace.progress("first", 5)
    >>> pace.share, pace.left()
    (0.25, 15.0)
    """

    def __init__(self, runs: int, epochs: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.runs = runs
        self.epochs = epochs
        self.finished = 0
        self._clock = clock
        self._flights: dict[Hashable, _Flight] = {}
        self._busiest = 0  # runs side by side, at most
        self._seconds = 0.0  # of finished runs, trained here
        self._trained = 0.0  # epochs of those runs

    def begin(self, key: Hashable) -> None:
        """Note that the run `key` starts now."""
        now = self._clock()
        self._flights[key] = _Flight(self.epochs, now, now)
        self._busiest = max(self._busiest, len(self._flights))

    def progress(self, key: Hashable, epoch: float, epochs: int | None = None) -> None:
        """Note that the run `key` has done `epoch` of its epochs."""
        if key not in self._flights:
            self.begin(key)
        flight = self._flights[key]
        flight.epoch, flight.reported = epoch, self._clock()
        flight.epochs = epochs or flight.epochs

    def finish(self, key: Hashable) -> None:
        """Note that the run `key` is over; a run that never began was already in the store."""
        self.finished += 1
        flight = self._flights.pop(key, None)
        if flight is not None and flight.epoch > 0:
            self._seconds += self._clock() - flight.started
            self._trained += flight.epoch

    def epoch_seconds(self) -> float | None:
        """Return the mean seconds per epoch so far, or None before the first epoch has ended."""
        flights = [flight for flight in self._flights.values() if flight.epoch > 0]
        trained = self._trained + sum(flight.epoch for flight in flights)
        seconds = self._seconds + sum(flight.reported - flight.started for flight in flights)
        return seconds / trained if trained else None

    def left(self) -> float | None:
        """Return the remaining seconds, or None before the first epoch has ended."""
        seconds = self.epoch_seconds()
        if seconds is None:
            return None
        side_by_side = max(1, min(self._busiest, self.runs - self.finished))
        return max(0.0, seconds * (self._open() - self._underway(seconds)) / side_by_side)

    @property
    def share(self) -> float:
        """The finished part of the study, 0..1, including partial runs."""
        return 1 - self._open() / max(1, self.runs * self.epochs)

    def _open(self) -> float:
        """Return the remaining epochs, as reported."""
        waiting = max(0, self.runs - self.finished - len(self._flights))
        flights = sum(flight.epochs - flight.epoch for flight in self._flights.values())
        return waiting * self.epochs + max(0.0, flights)

    def _underway(self, epoch_seconds: float) -> float:
        """Return the estimated epochs since the last reports, at most one per run."""
        now = self._clock()
        if epoch_seconds <= 0:
            return 0.0
        return sum(
            min(1.0, (now - flight.reported) / epoch_seconds, flight.epochs - flight.epoch)
            for flight in self._flights.values()
        )
