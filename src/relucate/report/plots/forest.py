"""The forest plot: one row an effect, its interval against zero and the margin.

With one comparison it is the picture of the answer. Rows of comparisons also show each pair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from relucate.report.effects import Effect, effects
from relucate.report.facts import NO_RESULT
from relucate.report.numbers import MISSING, Units, known
from relucate.report.plots.axis import difference_axis, interval_mark, reach_of, who_is_ahead
from relucate.report.plots.rows import above, name_rows
from relucate.report.plots.style import Pen, dress, rows_height

if TYPE_CHECKING:
    from matplotlib.axes import Axes


ROOM, WIDE_ROOM = 40, 64  # characters of a row's name and values


def height(study: dict[str, Any], pen: Pen) -> float:
    """Return the picture's height in inches."""
    names = _names(effects(study))
    return rows_height(len(names), 0.5 if len(names) > 1 or above(names, pen) else 0.36, 1.1)


def missing(study: dict[str, Any]) -> str:
    """Return why there is no such picture, or ""."""
    found = any(known(effect.estimate) for effect in effects(study))
    return "" if found else NO_RESULT


def draw(axes: Axes, study: dict[str, Any], pen: Pen) -> None:
    """Draw a row per effect, from top to bottom."""
    found, units = effects(study), Units.of_study(study)
    difference_axis(axes, units, study["margin"], reach_of(found, study["margin"]), pen)
    scale = units.metric.scale
    rows = name_rows(axes, _names(found), pen, _values(found, units, pen))
    for row, effect in zip(rows, found, strict=True):
        _pairs(axes, effect, row, scale, pen)
        interval_mark(axes, effect, row, scale, pen)
    _sides(axes, found, units, pen)
    dress(axes, pen)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _names(found: list[Effect]) -> list[str]:
    """Return the rows' names; one row alone needs none."""
    return [effect.name for effect in found] if len(found) > 1 else [""]


def _values(found: list[Effect], units: Units, pen: Pen) -> list[str]:
    """Return each row's difference and interval, if they fit next to the names.

    One row alone is told in the sentence above it.
    """
    texts = [
        f"{units.difference(effect.estimate)} ({_interval(effect, units)})" for effect in found
    ]
    longest = max(len(f"{effect.name}{text}") for effect, text in zip(found, texts, strict=True))
    fit = len(found) > 1 and longest <= (ROOM if pen.narrow else WIDE_ROOM)
    return [text.replace("-", "−") for text in texts] if fit else []


def _interval(effect: Effect, units: Units) -> str:
    ends = units.interval(effect.low, effect.high)
    return "no interval" if ends == MISSING else ends


def _pairs(axes: Axes, effect: Effect, row: float, scale: float, pen: Pen) -> None:
    """Draw each pair's difference as a small mark below the interval."""
    places = np.full(len(effect.seeds), row - 0.22)
    axes.plot(
        scale * np.array(effect.seeds),
        places,
        "|",
        color=pen.ink("muted"),
        markersize=6,
        markeredgewidth=1.0,
        zorder=2,
    )


def _sides(axes: Axes, found: list[Effect], units: Units, pen: Pen) -> None:
    """Write who is ahead on which side, if it is the same in every row."""
    if len({effect.against for effect in found}) > 1:
        return
    arms = {effect.arm for effect in found}
    arm = "" if len(arms) == 1 else "the row's arm"
    who_is_ahead(axes, found[0], units, pen, arm=arm)
