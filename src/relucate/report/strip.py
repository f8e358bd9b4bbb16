"""An interval drawn in one line of text: zero, the margin, the estimate and its interval.

The axis is symmetric around zero, so that the eye finds zero in the middle. Not here: the numbers
in words, colours. Called by `terminal` and `live`.
"""

from __future__ import annotations

from dataclasses import dataclass

from relucate.report.numbers import Units, known


@dataclass(frozen=True)
class Marks:
    """The characters of a strip; `*_inside` are drawn where the interval covers the mark."""

    axis: str
    interval: str
    margin: str
    margin_inside: str
    zero: str
    zero_inside: str
    estimate: str


LINES = Marks("─", "━", "┊", "╋", "│", "┿", "●")
ASCII = Marks("-", "=", ":", "+", "|", "#", "o")
NARROWEST = 27  # with two axis labels, about a dozen cells: fewer say nothing
NO_REACH = 0.001  # of an axis on which all is zero


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
    """Return the interval as one line of `width` characters, or "" where there is nothing to draw.

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
    reach = _reach([estimate, *ends, margin])
    end = f"{units.metric.scale * reach:.{units.digits - 1}f}"
    left, right = f"-{end} ", f" +{end}"
    half = (width - len(left) - len(right) - 1) // 2
    return left + _axis(half, reach, estimate, ends, margin, marks) + right


def _reach(values: list[float | None]) -> float:
    """Return how far the axis goes to either side: past the largest value by a seventh."""
    largest = max(abs(value) for value in values if value is not None and known(value))
    return 1.15 * largest or NO_REACH


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
