"""The distribution of the scores: one mark a run, each arm's mean, and which runs are a pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from relucate.report.arms import looks
from relucate.report.facts import unpaired
from relucate.report.numbers import Units, known
from relucate.report.plots.rows import ABOVE, above, arm_names, name_rows
from relucate.report.plots.style import (
    MARK,
    Pen,
    bracketed,
    dress,
    few_ticks,
    mark,
    note,
    rows_height,
    rules,
    safe_name,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPREAD = 0.13  # of a row: marks of runs lie within this of its middle


def height(study: dict[str, Any], pen: Pen) -> float:
    """Return the picture's height in inches."""
    names = arm_names(study)
    each = 0.85 if len(names) <= 3 else 0.55
    return rows_height(len(names), each if above(names, pen) else max(0.4, each - 0.1), 0.9)


def missing(study: dict[str, Any]) -> str:
    """Return why there is no such picture, or ""."""
    found = any(scores_of(study, arm["label"]) for arm in study["arms"])
    return "" if found else "no run has a score"


def scores_of(study: dict[str, Any], label: str) -> dict[Any, float]:
    """Return an arm's scores by seed, of the runs that have one."""
    return {
        run["seed"]: run["metric"]
        for run in study["runs"]
        if run["arm"] == label and run["status"] == "done" and known(run["metric"])
    }


def draw(axes: Axes, study: dict[str, Any], pen: Pen) -> None:
    """Draw a row per arm; with two arms, lines join the runs of a pair."""
    labels, metric = [arm["label"] for arm in study["arms"]], Units.of_study(study).metric
    rows = name_rows(axes, arm_names(study), pen)
    found = [scores_of(study, label) for label in labels]
    if len(labels) == 2 and not unpaired(study):
        _pairs(axes, found, rows, metric.scale, pen)
    for row, label, scores in zip(rows, labels, found, strict=True):
        style = {**mark(looks(study)[label], pen), "alpha": 0.85, "markersize": MARK}
        x = metric.scale * np.array(list(scores.values()))
        axes.plot(x, row + _spread(len(x)), **style, zorder=3)
        _mean(axes, x, row, pen)
        _lost(axes, study, label, row, pen)
    axes.set_xlabel(f"test {safe_name(metric.name, 'metric')}{bracketed(metric.value_unit)}")
    few_ticks(axes.xaxis, pen, 6, 4)
    rules(axes, pen, "x")
    dress(axes, pen)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _spread(count: int) -> np.ndarray:
    """Return offsets that part equal scores, shape (count,)."""
    return SPREAD * ((np.arange(count) % 5) - 2) / 2


def _pairs(axes: Axes, found: list[dict[Any, float]], rows: Any, scale: float, pen: Pen) -> None:
    """Join the runs with the same seed."""
    upper, lower = ({s: k for k, s in enumerate(scores)} for scores in found)
    parted = [_spread(len(scores)) for scores in found]
    for seed in upper.keys() & lower.keys():
        x = [scale * scores[seed] for scores in found]
        y = rows + np.array((parted[0][upper[seed]], parted[1][lower[seed]]))
        axes.plot(x, y, color=pen.ink("rule"), linewidth=1.0, zorder=1)


def _mean(axes: Axes, values: np.ndarray, row: float, pen: Pen) -> None:
    """Draw the mean as an upright line."""
    if len(values):
        ends = [row - 2 * SPREAD, row + 2 * SPREAD]
        axes.plot([values.mean()] * 2, ends, color=pen.ink("ink"), linewidth=2.2, zorder=5)


def _lost(axes: Axes, study: dict[str, Any], label: str, row: float, pen: Pen) -> None:
    """Write how many runs have no mark."""
    mine = [run["status"] for run in study["runs"] if run["arm"] == label]
    lost = [f"{mine.count(word)} {word}" for word in ("diverged", "failed") if word in mine]
    place = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
    if lost:
        note(axes, pen, 1, row + ABOVE, ", ".join(lost), **place)
