"""Tuning: each arm's held-out score against the learning rate.

Rates that were trained for fewer epochs have smaller, hollow marks, and a line joins only rates
that were trained for the same number of epochs.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from relucate.report.arms import looks
from relucate.report.numbers import Units
from relucate.report.palette import ArmLook
from relucate.report.plots.style import Pen, bracketed, dress, few_ticks, mark, rules, safe_name
from relucate.report.tuning import scored

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BESIDE = 1.06  # marks of two arms at one rate are this factor apart
MOST_RATES = {True: 4, False: 8}  # labels on the axis, narrow or wide


def height(study: dict[str, Any], pen: Pen) -> float:
    """Return the picture's height in inches."""
    return 3.0


def missing(study: dict[str, Any]) -> str:
    """Return why there is no such picture, or ""."""
    found = study.get("tuning")
    if not found:
        return "the learning rates weren't tuned (--tune lr)"
    return "" if any(scored(arm, study) for arm in found["arms"]) else "no tuning run has a score"


def draw(axes: Axes, study: dict[str, Any], pen: Pen) -> None:
    """Draw a mark per arm and rate; the chosen rates are ringed."""
    found, metric = study["tuning"], Units.of_study(study).metric
    styles = list(looks(study).values())
    for place, (arm, style) in enumerate(zip(found["arms"], styles, strict=True)):
        apart = BESIDE ** (place - (len(styles) - 1) / 2)
        _arm(axes, _moved(arm, apart), style, metric.scale, pen)
    axes.axvline(found["same_rate"]["lr"], color=pen.ink("muted"), linewidth=0.9, zorder=1)
    _rate_axis(axes, sorted(point["lr"] for point in found["arms"][0]["curve"]), pen)
    name = f"{safe_name(metric.name, 'metric')}{bracketed(metric.value_unit)}"
    axes.set_ylabel(f"held-out {name}")
    few_ticks(axes.yaxis, pen)
    rules(axes, pen)
    dress(axes, pen)


def _moved(arm: dict[str, Any], factor: float) -> dict[str, Any]:
    """Return an arm's results a little beside their rates, so that equal scores of arms show."""
    curve = [{**point, "lr": factor * point["lr"]} for point in arm["curve"]]
    return {**arm, "lr": factor * arm["lr"], "curve": curve}


def _rate_axis(axes: Axes, rates: list[float], pen: Pen) -> None:
    """Draw the axis of rates: logarithmic, labelled at rates that were tried."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    axes.set_xscale("log")
    step = -(-len(rates) // MOST_RATES[pen.narrow])
    axes.set_xticks(rates[::step])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    axes.set_xlabel("learning rate")


def _arm(axes: Axes, arm: dict[str, Any], style: ArmLook, scale: float, pen: Pen) -> None:
    """Draw one arm's marks, and lines between neighbours of the same number of epochs."""
    points = sorted(arm["curve"], key=lambda point: point["lr"])
    longest = max(point["epochs"] for point in points)
    colour = pen.ink(style.variable)
    for one, other in pairwise(points):
        if one["epochs"] == other["epochs"]:
            x, y = zip(*((p["lr"], scale * p["score"]) for p in (one, other)), strict=True)
            (line,) = axes.plot(x, y, color=colour, linewidth=1.4, zorder=3)
            line.set_dashes(style.dashes or (None, None))
    for point in points:
        place = point["lr"], scale * point["score"]
        marks = {**mark(style, pen), "markersize": 7}
        if point["epochs"] < longest:
            marks |= {"markersize": 5, "markerfacecolor": pen.ink("card")}
            marks |= {"markeredgecolor": colour, "markeredgewidth": 1.2}
        axes.plot(*place, **marks, zorder=4)
        if point["lr"] == arm["lr"]:
            _ring(axes, place, pen)


def _ring(axes: Axes, place: tuple[float, float], pen: Pen) -> None:
    """Draw a ring around a chosen rate."""
    ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgewidth": 1.3, "markersize": 13}
    axes.plot(*place, marker="o", color=pen.ink("ink"), **ring, zorder=5)
