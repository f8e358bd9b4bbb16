"""The axis of differences, the same in every picture: zero, the margin, who is ahead, intervals.

Everything on it is in ink: a colour would mean an arm. Called by `forest`, `differences` and
`narrowing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from relucate.report.effects import Effect
from relucate.report.numbers import Units, known
from relucate.report.plots.style import MARK, Pen, bracketed, few_ticks, note, safe_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMALLEST_REACH = 0.001  # of an axis of differences that are all zero
WIDE_ROOM = 44  # characters of both names in one line of a wide picture


def difference_axis(axes: Axes, units: Units, margin: float | None, reach: float, pen: Pen) -> None:
    """Draw zero and the margin's band on a horizontal axis with zero in its middle."""
    scale = units.metric.scale
    axes.set_xlim(-scale * reach, scale * reach)
    if known(margin):
        axes.axvspan(-scale * margin, scale * margin, color=pen.ink("band"), linewidth=0, zorder=0)
    axes.axvline(0, color=pen.ink("ink"), linewidth=1.0, zorder=1)
    axes.set_xlabel(f"difference{bracketed(units.metric.words[1])}")
    few_ticks(axes.xaxis, pen, 7, 5)


def reach_of(found: list[Effect], margin: float | None = None) -> float:
    """Return the half-length of an axis that shows every difference, interval and margin.

    >>> effect = Effect("", "after", "before", "better", 0.01, -0.01, 0.02, (-0.05,))
    >>> round(reach_of([effect]), 3)
    0.055
    """
    values = [margin]
    for effect in found:
        values += [effect.estimate, effect.low, effect.high, *effect.seeds]
    return 1.1 * max((abs(v) for v in values if known(v)), default=0.0) or SMALLEST_REACH


def who_is_ahead(
    axes: Axes, effect: Effect, units: Units, pen: Pen, *, arm: str = "", room: int = 26
) -> None:
    """Write above the plot which arm is ahead on which side, in two lines if the names are long.

    arm: its name, if it isn't the effect's; room: characters of both names that fit side by side
    into a narrow picture.
    """
    left, right = sides(arm or effect.arm, effect.against, units)
    stacked = len(left) + len(right) > (room if pen.narrow else WIDE_ROOM)
    note(axes, pen, 0, 1.0, f"← {left} ahead" + ("\n" if stacked else ""))
    note(axes, pen, 1, 1.0, f"{right} ahead →", ha="right")


def sides(arm: str, against: str, units: Units) -> tuple[str, str]:
    """Return which arm is ahead for differences below and above zero."""
    low, high = safe_name(against, "the other arm"), safe_name(arm, "this arm")
    return (high, low) if units.metric.lower_is_better else (low, high)


def interval_mark(axes: Axes, effect: Effect, row: float, scale: float, pen: Pen) -> None:
    """Draw an estimate with its interval in a row; hollow if it gives no answer."""
    if not known(effect.estimate):
        return
    ink = pen.ink("ink")
    if known(effect.low) and known(effect.high):
        ends = scale * np.array([effect.low, effect.high])
        axes.plot(ends, [row, row], color=ink, linewidth=2.2, solid_capstyle="butt", zorder=3)
        axes.plot(ends, [row, row], "|", color=ink, markersize=9, markeredgewidth=1.6, zorder=3)
    fill = pen.ink("card") if effect.word == "inconclusive" else ink
    axes.plot(
        scale * effect.estimate,
        row,
        marker="D",
        markersize=MARK + 1,
        color=ink,
        markerfacecolor=fill,
        markeredgewidth=1.5,
        zorder=5,
    )
