"""Pictures with a row per arm: the names of the rows, at the left or above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from relucate.report.facts import short_names
from relucate.report.plots.style import Pen, note, safe_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE_ABOVE = 18  # characters: longer names stand above their rows in wide pictures, too
ABOVE = 0.42  # of a row: where its name is, above its marks


def above(texts: list[str], pen: Pen) -> bool:
    """Return whether the rows' names stand above the rows instead of left of them."""
    longest = max(map(len, texts), default=0)
    return longest > (0 if pen.narrow else WIDE_ABOVE)


def arm_names(study: dict[str, Any]) -> list[str]:
    """Return the names of the arms' rows."""
    return [short_names(study)[arm["label"]] for arm in study["arms"]]


def name_rows(axes: Axes, texts: list[str], pen: Pen, values: Sequence[str] = ()) -> np.ndarray:
    """Name the rows from the top, and return their places.

    values: what each row says in numbers, at the right; then all names stand above the rows.
    """
    rows = np.arange(len(texts), 0, -1)
    room = 30 if pen.narrow else 44
    shown = [name and safe_name(name, f"row {k}", room) for k, name in enumerate(texts, start=1)]
    over = above(texts, pen) or len(values) > 0
    axes.set_yticks([] if over else rows, [] if over else shown)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(0.4, len(texts) + (0.8 if over else 0.6))
    for row, name in zip(rows, shown, strict=True) if over else ():
        place = {"transform": axes.get_yaxis_transform(), "va": "center"}
        note(axes, pen, 0.01, row + ABOVE, name, **place)
    cover = {"facecolor": pen.ink("paper"), "edgecolor": "none", "pad": 1.0}  # of lines behind
    for row, value in zip(rows, values, strict=False):
        place = {"transform": axes.get_yaxis_transform(), "va": "center", "ha": "right"}
        note(axes, pen, 0.99, row + ABOVE, value, bbox=cover, **place)
    return rows
