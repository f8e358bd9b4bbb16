"""Learning curves: the mean over seeds of each arm, with a band of one standard deviation.

A curve is of the test score or the training loss, by epoch; of the score by time too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from relucate.report.arms import groups, looks
from relucate.report.numbers import Units, known
from relucate.report.palette import ArmLook
from relucate.report.plots.style import (
    Pen,
    bracketed,
    dress,
    few_ticks,
    note,
    panels,
    panels_height,
    rules,
    safe_name,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW_EPOCHS = 16  # up to here every epoch gets its marker
LOG_FROM = 30.0  # a loss that falls by this factor is drawn on a logarithmic axis
DECADES = 4  # a longer logarithmic axis labels powers of ten alone
LOSS = "train_loss"


@dataclass(frozen=True)
class What:
    """What a curve shows: the training loss or the test score, by time or by epoch."""

    loss: bool = False
    timed: bool = False

    @property
    def across(self) -> str:
        """The name of the horizontal axis."""
        return "seconds" if self.timed else "epoch"


def height(study: dict[str, Any], pen: Pen) -> float:
    """Return the picture's height in inches."""
    shown = len(groups(study))
    return 3.0 if shown == 1 else panels_height(shown, pen)


def missing(study: dict[str, Any], what: What) -> str:
    """Return why there is no such picture, or ""."""
    curves = (_curve_of(run, _quantity(study, what)) for run in study["runs"])
    longest = max((len(points) for points in curves), default=0)
    if longest == 0:
        return "no run has a learning curve"
    if longest == 1:
        return "a curve needs two epochs or more"
    if what.timed and not all(epoch_seconds(study).values()):
        return "no run of an arm has a time"
    return ""


def epoch_seconds(study: dict[str, Any]) -> dict[str, float]:
    """Return an epoch's seconds by arm: the median over runs of time / epochs; 0: not known.

    A run's time is spread evenly over its epochs, with what it takes to set up and to score.

    >>> runs = [{"arm": "after", "status": "done", "seconds": s, "epochs": 5} for s in (20, 2, 3)]
    >>> epoch_seconds({"arms": [{"label": "after"}], "runs": runs})
    {'after': 0.6}
    """
    each: dict[str, list[float]] = {arm["label"]: [] for arm in study["arms"]}
    for run in study["runs"]:
        if run["status"] == "done" and known(run["seconds"]) and run["epochs"]:
            each[run["arm"]].append(run["seconds"] / run["epochs"])
    return {label: median(found) if found else 0.0 for label, found in each.items()}


def draw(axes: Axes, study: dict[str, Any], pen: Pen, what: What) -> None:
    """Draw every arm's curve, in panels if the arms don't fit into one."""
    shown = groups(study)
    if len(shown) == 1:
        means = _panel(axes, study, shown[0][1], pen, what)
        _labels(axes, study, pen, what)
        _scale(axes, means, what)
        dress(axes, pen)
        return
    titles = [safe_name(title, f"arm {k}", 24) for k, (title, _) in enumerate(shown, start=2)]
    small = panels(axes, titles, pen)
    found = [
        _panel(panel, study, arms, pen, what) for panel, (_, arms) in zip(small, shown, strict=True)
    ]
    _scale(small[0], [value for means in found for value in means], what)
    for panel in small:
        few_ticks(panel.xaxis, pen, 4, 4, integer=not what.timed)
        dress(panel, pen)
    note(axes, pen, 0, 1.0, f"{_score(study, what)}, by {what.across}", va="bottom")


def _quantity(study: dict[str, Any], what: What) -> str:
    return LOSS if what.loss else study["metric"]["name"]


def _score(study: dict[str, Any], what: What) -> str:
    metric = Units.of_study(study).metric
    score = f"test {safe_name(metric.name, 'metric')}{bracketed(metric.value_unit)}"
    return "training loss" if what.loss else score


def _labels(axes: Axes, study: dict[str, Any], pen: Pen, what: What) -> None:
    axes.set_xlabel(what.across)
    few_ticks(axes.xaxis, pen, 10, 6, integer=not what.timed)
    axes.set_ylabel(_score(study, what))


def _panel(
    axes: Axes, study: dict[str, Any], arms: Sequence[dict[str, Any]], pen: Pen, what: What
) -> list[float]:
    """Draw the curves of some arms and return their mean values."""
    quantity, styles, values = _quantity(study, what), looks(study), []
    scale = 1.0 if what.loss else Units.of_study(study).metric.scale
    seconds = epoch_seconds(study) if what.timed else {}
    for arm in arms:
        runs = [run for run in study["runs"] if run["arm"] == arm["label"]]
        epochs, mean, sd = mean_curve(runs, quantity)
        points = (seconds.get(arm["label"], 1) * epochs, scale * mean, scale * sd)
        _curve(axes, points, styles[arm["label"]], pen, what.loss)
        values += list(scale * mean)
    rules(axes, pen)
    return values


def _curve(
    axes: Axes, points: tuple[np.ndarray, np.ndarray, np.ndarray], style: ArmLook, pen: Pen,
    positive: bool,
) -> None:  # fmt: skip
    """Draw one arm's mean with its band; a `positive` quantity's band stays above zero."""
    across, mean, sd = points
    colour = pen.ink(style.variable)
    (line,) = axes.plot(
        across,
        mean,
        color=colour,
        linewidth=1.6,
        marker=style.marker,
        markersize=4.5,
        markeredgecolor=pen.ink("card"),
        markeredgewidth=0.5,
        markevery=max(1, -(-len(across) // FEW_EPOCHS)),
        zorder=3,
    )
    if style.dashes:
        line.set_dashes(style.dashes)
    low = np.maximum(mean - sd, 0.1 * mean) if positive else mean - sd
    axes.fill_between(across, low, mean + sd, color=colour, alpha=0.18, linewidth=0, zorder=2)


def _scale(axes: Axes, means: Sequence[float], what: What) -> None:
    """Make the axis of a loss that falls far logarithmic."""
    if what.loss and len(means) and min(means) > 0 and max(means) > LOG_FROM * min(means):
        _logarithmic(axes, max(means) / min(means))


def _logarithmic(axes: Axes, ratio: float) -> None:
    """Make the vertical axis logarithmic, with plain numbers (the default labels are formulas).

    ratio: of the largest to the smallest value.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    subs = (1.0, 3.0) if ratio < 10**DECADES else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def mean_curve(
    runs: Sequence[dict[str, Any]], quantity: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return epochs, mean and standard deviation over runs, each of shape (epochs,).

    The deviation is NaN for fewer than two runs with a finite value; epochs without any are left
    out.

    >>> runs = [{"curve": {"epoch": [1, 2], "accuracy": [0.5, 0.7]}},
    ...         {"curve": {"epoch": [1], "accuracy": [0.7]}}]
    >>> epochs, mean, sd = mean_curve(runs, "accuracy")
    >>> epochs.tolist(), mean.round(2).tolist()
    ([1, 2], [0.6, 0.7])
    """
    values: dict[int, list[float]] = {}
    for run in runs:
        for epoch, value in _curve_of(run, quantity):
            values.setdefault(epoch, []).append(value)
    epochs = sorted(values)
    at = [values[epoch] for epoch in epochs]
    sd = [np.std(seeds, ddof=1) if len(seeds) > 1 else np.nan for seeds in at]
    return np.array(epochs), np.array([np.mean(seeds) for seeds in at]), np.array(sd)


def _curve_of(run: dict[str, Any], quantity: str) -> list[tuple[int, float]]:
    """Return a run's known (epoch, value) points."""
    curve = run.get("curve") or {}
    points: Iterator[Any] = zip(curve.get("epoch") or [], curve.get(quantity) or [], strict=False)
    return [(int(epoch), value) for epoch, value in points if known(epoch) and known(value)]


def about(**what: bool) -> dict[str, Any]:
    """Return how one kind of curve is drawn, as arguments of a `Picture`."""
    chosen = What(**what)
    drawn, why = partial(draw, what=chosen), partial(missing, what=chosen)
    return {"draw": drawn, "height": height, "missing": why, "legend": True}
