"""Learning curves: the mean over seeds of each arm, with a band of one standard deviation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
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


def height(study: dict[str, Any], pen: Pen) -> float:
    """Return the picture's height in inches."""
    shown = len(groups(study))
    return 3.0 if shown == 1 else panels_height(shown, pen)


def missing(study: dict[str, Any], loss: bool) -> str:
    """Return why there is no such picture, or ""."""
    curves = (_curve_of(run, _quantity(study, loss)) for run in study["runs"])
    longest = max((len(points) for points in curves), default=0)
    if longest == 0:
        return "no run has a learning curve"
    return "" if longest > 1 else "a curve needs two epochs or more"


def draw(axes: Axes, study: dict[str, Any], pen: Pen, loss: bool) -> None:
    """Draw every arm's curve, in panels if the arms don't fit into one."""
    shown = groups(study)
    if len(shown) == 1:
        means = _panel(axes, study, shown[0][1], pen, loss)
        _labels(axes, study, pen, loss)
        _scale(axes, means, loss)
        dress(axes, pen)
        return
    titles = [safe_name(title, f"arm {k}", 24) for k, (title, _) in enumerate(shown, start=2)]
    small = panels(axes, titles, pen)
    found = [
        _panel(panel, study, arms, pen, loss) for panel, (_, arms) in zip(small, shown, strict=True)
    ]
    _scale(small[0], [value for means in found for value in means], loss)
    for panel in small:
        few_ticks(panel.xaxis, pen, 4, 4, integer=True)
        dress(panel, pen)
    note(axes, pen, 0, 1.0, f"{_score(study, loss)}, by epoch", va="bottom")


def _quantity(study: dict[str, Any], loss: bool) -> str:
    return LOSS if loss else study["metric"]["name"]


def _score(study: dict[str, Any], loss: bool) -> str:
    metric = Units.of_study(study).metric
    score = f"test {safe_name(metric.name, 'metric')}{bracketed(metric.value_unit)}"
    return "training loss" if loss else score


def _labels(axes: Axes, study: dict[str, Any], pen: Pen, loss: bool) -> None:
    axes.set_xlabel("epoch")
    few_ticks(axes.xaxis, pen, 10, 6, integer=True)
    axes.set_ylabel(_score(study, loss))


def _panel(
    axes: Axes, study: dict[str, Any], arms: Sequence[dict[str, Any]], pen: Pen, loss: bool
) -> list[float]:
    """Draw the curves of some arms and return their mean values."""
    quantity, styles, values = _quantity(study, loss), looks(study), []
    scale = 1.0 if loss else Units.of_study(study).metric.scale
    for arm in arms:
        runs = [run for run in study["runs"] if run["arm"] == arm["label"]]
        epochs, mean, sd = mean_curve(runs, quantity)
        _curve(axes, (epochs, scale * mean, scale * sd), styles[arm["label"]], pen, loss)
        values += list(scale * mean)
    rules(axes, pen)
    return values


def _curve(
    axes: Axes, points: tuple[np.ndarray, np.ndarray, np.ndarray], style: ArmLook, pen: Pen,
    positive: bool,
) -> None:  # fmt: skip
    """Draw one arm's mean with its band; a `positive` quantity's band stays above zero."""
    epochs, mean, sd = points
    colour = pen.ink(style.variable)
    (line,) = axes.plot(
        epochs,
        mean,
        color=colour,
        linewidth=1.6,
        marker=style.marker,
        markersize=4.5,
        markeredgecolor=pen.ink("card"),
        markeredgewidth=0.5,
        markevery=max(1, -(-len(epochs) // FEW_EPOCHS)),
        zorder=3,
    )
    if style.dashes:
        line.set_dashes(style.dashes)
    low = np.maximum(mean - sd, 0.1 * mean) if positive else mean - sd
    axes.fill_between(epochs, low, mean + sd, color=colour, alpha=0.18, linewidth=0, zorder=2)


def _scale(axes: Axes, means: Sequence[float], loss: bool) -> None:
    """Make the axis of a loss that falls far logarithmic."""
    if loss and len(means) and min(means) > 0 and max(means) > LOG_FROM * min(means):
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


score_missing, score_draw = partial(missing, loss=False), partial(draw, loss=False)
loss_missing, loss_draw = partial(missing, loss=True), partial(draw, loss=True)
