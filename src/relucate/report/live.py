"""The display of a running study: the runs in progress, the time left, the difference so far.

A terminal gets a display that redraws in place; CI, a pipe or a file gets one plain line per
finished pair. Not here: the verdict at the end (`terminal`) and the estimate of the time left
(`pace`). Called by the study's driver, which passes a console that writes to stderr.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from relucate.phrases import count
from relucate.report.numbers import Units, known, level_percent
from relucate.report.numbers import clock as as_clock
from relucate.report.pace import Pace
from relucate.report.strip import ASCII, LINES, interval_strip
from relucate.report.terminal import displayable
from relucate.train.metric import ACCURACY, Metric

MOST_ROWS = 8  # runs shown at once; the rest are counted
STRIP_WIDTH = 60
COMFORTABLE = 66  # with this many columns a run's bar fits next to its name


@dataclass
class _Running:
    """A run in progress, as shown in its row."""

    arm: str
    pair: int
    epoch: float
    epochs: int


@dataclass(frozen=True)
class _Difference:
    """The paired difference so far, in the metric's own unit."""

    estimate: float | None
    low: float | None
    high: float | None
    pairs: int


class LiveStudy:
    """The progress of a study of `total_pairs` pairs (at most), one run per arm and pair.

    Methods may be called from any thread. Before `start` and after `stop` only plain lines appear.

    Args:
        console: where to write; a terminal gets the display, anything else plain lines.
        total_pairs: pairs planned.
        arms: the arms' labels; compared: the arm and the reference that differences are of, by
            default the second and the first; names: what labels are called here.
        epochs: epochs of a run.
        metric: what is scored.
        margin: of equivalence, in the metric's own unit, drawn in the strip unless None.
        level: of the interval, as a fraction.
        clock: returns seconds of a monotonic clock.

    >>> from rich.console import Console
    >>> import sys
    >>> console = Console(file=sys.stdout, force_terminal=False, width=100)
    >>> live = LiveStudy(console, 2, ["before", "after"], 12, clock=lambda: 0.0)
    >>> live.run_finished("before", 0, 0.95, "done", 2.0)
    >>> live.run_finished("after", 0, 0.96, "done", 2.0)
    pair 1 of 2 (seed 0): before 95.00 %, after 96.00 %, difference +1.00 points
    """

    def __init__(
        self,
        console: Console,
        total_pairs: int,
        arms: Sequence[str],
        epochs: int,
        *,
        compared: tuple[str, str] | None = None,
        names: Mapping[str, str] | None = None,
        metric: Metric = ACCURACY,
        margin: float | None = None,
        level: float = 0.95,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console
        self.total_pairs = total_pairs
        self.arms = list(arms)
        self.compared = compared or tuple(self.arms[1::-1])
        self.names = dict(names or {})
        self.epochs = epochs
        self.units = Units.of(metric, margin)
        self.margin = margin
        self.level = level
        self._clock = clock
        self._began = clock()
        self._pace = Pace(total_pairs * len(self.arms), epochs, clock)
        self._lock = threading.RLock()
        self._status = ""
        self._spinner = Spinner("line")
        self._running: dict[tuple[str, int], _Running] = {}
        self._results: dict[int, dict[str, tuple[float | None, str]]] = {}
        self._pairs_done = 0
        self._resumed = 0
        self._unusable = 0
        self._difference: _Difference | None = None
        self._live: Live | None = None

    # ---- begin and end

    def start(self) -> None:
        """Start the display and the clock of the elapsed time."""
        self._began = self._clock()
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._live = Live(
                console=self.console,
                get_renderable=self.render,
                refresh_per_second=5,
                transient=True,
            )
            self._live.start()

    def stop(self) -> None:
        """Remove the display and print one line on what was run."""
        with self._lock:  # the display's own thread draws under this lock
            live, self._live = self._live, None
        if live is not None:
            live.stop()
        if self._pace.finished:
            self._print(self._summary())

    def __enter__(self) -> LiveStudy:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # ---- what happened

    def say(self, text: str) -> None:
        """Show a status before the first run starts ("building both arms")."""
        with self._lock:
            self._status = text
            if self._live is None:
                self._print(text)

    def run_started(self, arm: str, seed: int, pair_index: int) -> None:
        """Show a run that starts now; pairs count from zero."""
        with self._lock:
            self._status = ""
            self._running[arm, seed] = _Running(arm, pair_index, 0, self.epochs)
            self._pace.begin((arm, seed))

    def run_progress(self, arm: str, seed: int, epoch: float, epochs: int) -> None:
        """Show that a run has done `epoch` of `epochs` epochs."""
        with self._lock:
            self._pace.progress((arm, seed), epoch, epochs)
            if (arm, seed) in self._running:
                running = self._running[arm, seed]
                running.epoch, running.epochs = epoch, epochs

    def run_finished(
        self,
        arm: str,
        seed: int,
        metric: float | None,
        status: str,
        seconds: float | None,
        resumed: bool = False,
    ) -> None:
        """Count a finished run; status: done, diverged or failed, metric: None without a result."""
        with self._lock:
            self._running.pop((arm, seed), None)
            self._pace.finish((arm, seed))
            self._resumed += resumed
            self._unusable += status != "done"
            pair = self._results.setdefault(seed, {})
            pair[arm] = (metric if status == "done" else None, status)
            if len(pair) == len(self.arms):
                self._pair_finished(seed, pair)

    def difference(
        self, estimate: float | None, low: float | None, high: float | None, pairs: int
    ) -> None:
        """Show the difference so far with its interval (None where undefined)."""
        with self._lock:
            before, self._difference = self._difference, _Difference(estimate, low, high, pairs)
            if self._live is None and pairs > 1 and before != self._difference:
                self._print(f"  so far: {self._difference_text()}")

    # ---- plain lines

    def _print(self, text: str) -> None:
        """Print one line without markup and wrapping, so that logs can be searched by line."""
        line = Text(displayable(text, self.console.encoding))
        self.console.print(line, soft_wrap=True)

    def _pair_finished(self, seed: int, pair: dict[str, tuple[float | None, str]]) -> None:
        """Count a finished pair; without a display, print its line."""
        self._pairs_done += 1
        if self._live is not None:
            return
        shown = ", ".join(
            f"{self._name(arm)} {self.units.valued(metric) if known(metric) else status}"
            for arm, (metric, status) in sorted(pair.items(), key=lambda item: self._rank(item[0]))
        )
        metrics = [m for arm in self.compared if arm in pair and known(m := pair[arm][0])]
        line = f"pair {self._pairs_done} of {self.total_pairs} (seed {seed}): {shown}"
        if len(self.arms) == len(metrics) == 2:
            line += f", difference {self.units.differing(metrics[0] - metrics[1])}"
        left = self._pace.left()
        self._print(line + (f", about {as_clock(left)} left" if left else ""))

    def _summary(self) -> str:
        """Return the final line: runs, and which of them weren't trained here or have no result."""
        parts = [count(self._pace.finished, "run")]
        parts += [f"{self._resumed} taken from the store"] if self._resumed else []
        parts += [f"{self._unusable} without a result"] if self._unusable else []
        return ", ".join(parts)

    # ---- the display

    def render(self) -> RenderableType:
        """Return the current display."""
        with self._lock:
            return Group(*self._lines())

    def _lines(self) -> Iterator[RenderableType]:
        """Yield the overall bar, the status, the rows of runs and the difference."""
        yield self._overall()
        if self._status:
            self._spinner.update(text=Text(self._say(self._status)))
            yield self._spinner
        if self._running:
            yield self._rows()
        if self._difference is not None:
            yield Text(self._say(self._difference_text()), no_wrap=True, overflow="ellipsis")
            yield from self._strip()

    def _say(self, text: str) -> str:
        """Return the text as this console can show it."""
        return displayable(text, self.console.encoding)

    def _overall(self) -> Table:
        """Return the bar over all runs with the time."""
        grid = _grid()
        grid.add_column(ratio=1)
        for _ in range(3):
            grid.add_column(no_wrap=True)
        grid.add_row(
            ProgressBar(total=1.0, completed=self._pace.share),
            f"{self._pace.finished}/{self._pace.runs} runs",
            f"{as_clock(self._clock() - self._began)} elapsed",
            f"{as_clock(self._pace.left())} left",
        )
        return grid

    def _rows(self) -> Table:
        """Return a row per run in progress: pair, arm, bar, epoch."""
        wide = self.console.width >= COMFORTABLE
        grid = _grid()
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis", max_width=self.console.width // 3)
        if wide:
            grid.add_column(ratio=1)
        grid.add_column(no_wrap=True, justify="right")
        runs = sorted(self._running.values(), key=lambda run: (run.pair, self._rank(run.arm)))
        shown = runs[: max(1, min(MOST_ROWS, self.console.height - 6))]
        for run in shown:
            bar = [ProgressBar(total=run.epochs, completed=run.epoch)] if wide else []
            grid.add_row(
                f"pair {run.pair + 1} of {self.total_pairs}",
                Text(self._say(self._name(run.arm))),
                *bar,
                f"epoch {int(run.epoch)}/{run.epochs}",
            )
        if len(runs) > len(shown):
            grid.add_row(f"and {len(runs) - len(shown)} more")
        return grid

    def _rank(self, arm: str) -> int:
        """Return an arm's position; an unknown arm comes last."""
        return self.arms.index(arm) if arm in self.arms else len(self.arms)

    def _difference_text(self) -> str:
        """Return the difference so far in words, with its interval once there is one."""
        so_far = self._difference
        if so_far is None or not known(so_far.estimate):
            return "no difference yet"
        text = f"{self.units.differing(so_far.estimate)} after {count(so_far.pairs, 'pair')}"
        if known(so_far.low) and known(so_far.high) and so_far.low != so_far.high:
            span = self.units.interval(so_far.low, so_far.high)
            text += f", {level_percent(self.level)} interval {span}"
        return f"{text} ({' minus '.join(map(self._name, self.compared))})"

    def _name(self, arm: str) -> str:
        """Return what to call an arm."""
        return self.names.get(arm, arm)

    def _strip(self) -> Iterator[Text]:
        """Yield the interval drawn in one line, where it fits."""
        so_far = self._difference
        options = self.console.options
        if so_far is None:
            return
        drawn = interval_strip(
            so_far.estimate,
            so_far.low,
            so_far.high,
            units=self.units,
            margin=self.margin,
            width=min(
                STRIP_WIDTH, self.console.width - 2
            ),  # room for the ^C that a terminal echoes
            marks=ASCII if options.ascii_only else LINES,
        )
        if drawn:
            yield Text(drawn, no_wrap=True)


def _grid() -> Table:
    """Return an empty grid over the whole width."""
    return Table.grid(expand=True, padding=(0, 2, 0, 0))
