"""An interval drawn in one line of text: zero, the margin, the estimate and its interval.

The axis is symmetric, so that zero is in the middle. Not here: the numbers in words, colours.
Called by `terminal` and `live`.
"""

from __future__ import annotations

from dataclasses import dataclass

from relucate.report.numbers import Units, known


@dataclass(frozen=True)
class Marks:
    """The characters of a strip; `*_inside` replace marks that the interval covers."""

    axis: str
    interval: str
    margin: str
    margin_inside: str
    zero: str
    zero_inside: str
    estimate: str


LINES = Marks("─", "━", "┊", "╋", "│", "┿", "●")
ASCII = Marks("-", "=", ":", "+", "|", "#", "o")
NARROWEST = 27  # with two axis labels, about a dozen cells: fewer are of no use
NO_REACH = 0.001  # of an axis on which all values are zero


def interval_strip(
    estimate: float | None,
    low: float | None,
    high: float | None,
    *,
    units: Units,
    margin: float | None = None,
    width: int = 40,
    marks: Marks = LINES,
) -> str:
    """Return the interval as one line of `width` characters, or "" if there is nothing to draw.

    Args:
        estimate, low, high: a difference and its interval in the metric's own unit; None where
            undefined (without an interval the estimate is drawn alone).
        units: of the labels.
        margin: half the width of the band of equivalence, in the metric's own unit.
        width: characters, the two labels of the axis included.
        marks: the characters to draw with, `LINES` or `ASCII`.

    >>> from relucate.train.metric import ACCURACY
    >>> drawn = {"margin": 0.005, "width": 36, "marks": ASCII, "units": Units(ACCURACY)}
    >>> interval_strip(0.006, 0.0035, 0.0085, **drawn)
    '-1.0 ------:-----|---==+o===-- +1.0'
    """
    if estimate is None or not known(estimate) or width < NARROWEST:
        return ""
    ends = (low, high) if known(low) and known(high) else (estimate, estimate)
    shown = [abs(value) for value in (estimate, *ends, margin) if known(value)]
    reach = 1.15 * max(shown) or NO_REACH
    end = f"{units.metric.scale * reach:.{units.digits - 1}f}"
    left, right = f"-{end} ", f" +{end}"
    half = (width - len(left) - len(right) - 1) // 2
    return left + _axis(half, reach, estimate, ends, margin, marks) + right


def _axis(
    half: int,
    reach: float,
    estimate: float,
    ends: tuple[float | None, float | None],
    margin: float | None,
    marks: Marks,
) -> str:
    """Return the axis of 2 * half + 1 cells; later marks cover earlier ones."""

    def cell(value: float | None) -> int:
        return half + round(half * (value or 0.0) / reach)

    covered = range(cell(ends[0]), cell(ends[1]) + 1)
    cells = [marks.interval if i in covered else marks.axis for i in range(2 * half + 1)]
    if margin is not None and known(margin):
        for at in (cell(-margin), cell(margin)):
            cells[at] = marks.margin_inside if at in covered else marks.margin
    cells[half] = marks.zero_inside if half in covered else marks.zero
    cells[cell(estimate)] = marks.estimate
    return "".join(cells)
