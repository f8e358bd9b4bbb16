"""Paired differences: one mark a seed, their mean with its interval, zero and the margin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from relucate.report.effects import effect_of
from relucate.report.facts import NO_RESULT
from relucate.report.numbers import Units, known
from relucate.report.plots.axis import difference_axis, interval_mark, reach_of, who_is_ahead
from relucate.report.plots.style import MARK, Pen, dress, rows_height, safe_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_SEED_LABELS = 40
MEAN_ROW = 0.1


def height(study: dict[str, Any], pen: Pen) -> float:
    """Return the picture's height in inches."""
    return rows_height(min(len(_pairs(study)), MOST_SEED_LABELS), 0.2, 1.35)


def missing(study: dict[str, Any]) -> str:
    """Return why there is no such picture, or ""."""
    return "" if _pairs(study) else NO_RESULT


def draw(axes: Axes, study: dict[str, Any], pen: Pen) -> None:
    """Draw the differences from the first seed, at the top, to the last."""
    pairs, units = _pairs(study), Units.of_study(study)
    effect = effect_of(study["comparisons"][0], study)
    scale = units.metric.scale
    difference_axis(axes, units, study["margin"], reach_of([effect], study["margin"]), pen)
    rows = np.arange(len(pairs), 0, -1) + 0.5
    values = scale * np.array([pair["value"] for pair in pairs])
    axes.hlines(rows, 0, values, color=pen.ink("muted"), linewidth=1.0, zorder=2)
    axes.plot(values, rows, "o", color=pen.ink("ink"), markersize=MARK, zorder=3)
    interval_mark(axes, effect, MEAN_ROW, scale, pen)
    _seed_ticks(axes, rows, [pair["seed"] for pair in pairs])
    who_is_ahead(axes, effect, units, pen, room=17)
    dress(axes, pen)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _pairs(study: dict[str, Any]) -> list[dict[str, Any]]:
    return [pair for pair in study["comparisons"][0]["differences"] if known(pair["value"])]


def _seed_ticks(axes: Axes, rows: np.ndarray, seeds: list[Any]) -> None:
    """Label the rows with their seeds (not all, if there are many) and the mean's row."""
    step = 1 + len(seeds) // MOST_SEED_LABELS
    labels = [f"seed {safe_name(str(seed), '?', 12)}" for seed in seeds[::step]]
    axes.set_yticks([MEAN_ROW, *rows[::step]], ["mean", *labels])
    axes.set_ylim(-0.7, len(seeds) + 1.1)
