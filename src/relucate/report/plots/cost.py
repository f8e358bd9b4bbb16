"""What each arm costs: seconds a run, and trainable parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relucate.report.arms import looks
from relucate.report.numbers import duration, known, whole
from relucate.report.plots.rows import above, arm_names, name_rows
from relucate.report.plots.style import SIZE, Pen, dress, note, rows_height

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR = 0.42
HEADING = 0.3  # inches
LEAST = 0.05  # seconds: less is shown as 0.0 s
COSTS = (
    ("seconds", "time a run", duration),
    ("parameters", "trainable parameters", whole),
)


def height(study: dict[str, Any], pen: Pen) -> float:
    """Return the picture's height in inches."""
    names = arm_names(study)
    sides = len(costs(study)) if pen.narrow else 1
    return sides * rows_height(len(names), 0.55 if above(names, pen) else 0.36, 0.35)


def missing(study: dict[str, Any]) -> str:
    """Return why there is no such picture, or ""."""
    return "" if costs(study) else "neither times nor parameters are known"


def costs(study: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """Return the costs that are known of an arm: key, heading and how it is written."""
    return [
        cost
        for cost in COSTS
        if any(known(value := arm.get(cost[0])) and value >= LEAST for arm in study["arms"])
    ]


def draw(axes: Axes, study: dict[str, Any], pen: Pen) -> None:
    """Draw a bar per arm from zero, a panel per cost."""
    found, tall = costs(study), height(study, pen)
    axes.set_axis_off()
    for place, (key, heading, written) in enumerate(found):
        panel = axes.inset_axes(_box(place, len(found), tall, pen))
        panel.patch.set_alpha(0.0)
        panel.set_title(heading, fontsize=SIZE, loc="left", color=pen.ink("ink"))
        _bars(panel, study, key, written, pen, named=pen.narrow or place == 0)


def _box(place: int, count: int, tall: float, pen: Pen) -> tuple[float, float, float, float]:
    """Return where a panel is: below each other in a narrow picture, else side by side.

    tall: the picture's height in inches.
    """
    each = 1 / count
    if pen.narrow:
        return (0, 1 - (place + 1) * each, 1, each - HEADING / tall)
    return (place * each, 0, each - 0.04, 1 - HEADING / tall)


def _bars(
    panel: Axes, study: dict[str, Any], key: str, written: Any, pen: Pen, named: bool
) -> None:
    names, styles = arm_names(study), list(looks(study).values())
    rows = name_rows(panel, names, pen) - (0.08 if above(names, pen) else 0)
    values = [arm.get(key) if known(arm.get(key)) else 0 for arm in study["arms"]]
    colours = [pen.ink(style.variable) for style in styles]
    panel.barh(rows, values, height=BAR, color=colours, zorder=2)
    most = max(values) or 1
    panel.set_xlim(0, 1.35 * most)
    for row, value, arm in zip(rows, values, study["arms"], strict=True):
        text = written(arm.get(key)) if known(arm.get(key)) else "not known"
        place = {"transform": panel.transData, "va": "center"}
        note(panel, pen, value + 0.02 * most, row, text, **place)
    dress(panel, pen)
    panel.set_xticks([])
    panel.spines["bottom"].set_visible(False)
    panel.tick_params(axis="y", length=0)
    if not named:
        panel.set_yticklabels([])
