"""The house style of every picture: sizes, colours by name, axes, axis labels, small multiples.

A picture is drawn with a `Pen`, which gives the colour for a CSS variable's name: a fixed colour of
the light or dark theme, or a placeholder that becomes the variable itself on an HTML page. The
style is the same whatever the user's matplotlibrc says. Called by every picture and by
`report.probe`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relucate.report.palette import ArmLook, placeholder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, NARROW = 6.4, 4.1  # inches, at 72 units each: a narrow picture fills a phone unscaled
SIZE = 11.0  # of all text, in the same units
LONGEST_NAME = 28
MARK = 6.5

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "relucate",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": SIZE,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
}
_INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")


@dataclass(frozen=True)
class Pen:
    """What a picture is drawn with.

    ink: the colour for a CSS variable's name; narrow: whether the picture is for a phone's width.
    """

    ink: Callable[[str], str] = placeholder
    narrow: bool = False

    @property
    def width(self) -> float:
        """The picture's width in inches."""
        return NARROW if self.narrow else WIDE


@contextlib.contextmanager
def in_style() -> Iterator[None]:
    """Draw figures in our style only, without matplotlibrc, and restore all settings."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = matplotlib.rcParams  # its type lists every key; our keys are plain strings
        settings.update({**_STYLE, **dict.fromkeys(_INKED, placeholder("ink"))})
        yield


def new_figure(height: float, width: float = NARROW) -> tuple[Figure, Axes]:
    """Return an empty figure without background, and its axes; sizes in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.subplots()
    axes.patch.set_alpha(0.0)
    return figure, axes


def dress(axes: Axes, pen: Pen) -> None:
    """Give axes the house style, whatever the settings that they were made with."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=pen.ink("muted"), linewidth=0.8)
    ink = pen.ink("ink")
    axes.tick_params(length=3, color=pen.ink("muted"), labelcolor=ink, labelsize=SIZE)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=ink, fontsize=SIZE, parse_math=False)
    for tick in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        tick.set_parse_math(False)


def rules(axes: Axes, pen: Pen, axis: Any = "y") -> None:
    """Draw faint lines at the ticks of an axis."""
    axes.grid(axis=axis, color=pen.ink("rule"), linewidth=0.7)
    axes.set_axisbelow(True)


def note(axes: Axes, pen: Pen, x: float, y: float, text: str, **where: Any) -> None:
    """Write muted words; x and y are fractions of the axes unless `transform` says otherwise."""
    options = {"transform": axes.transAxes, "ha": "left", "va": "bottom", **where}
    axes.text(x, y, text, fontsize=SIZE, color=pen.ink("muted"), parse_math=False, **options)


def few_ticks(axis: Any, pen: Pen, wide: int = 6, narrow: int = 4, **options: Any) -> None:
    """Give an axis few ticks, so that their labels don't touch."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(narrow if pen.narrow else wide, **options))


def mark(look: ArmLook, pen: Pen) -> dict[str, Any]:
    """Return matplotlib's arguments for marks in an arm's look, without a line."""
    edge = {"markeredgecolor": pen.ink("card"), "markeredgewidth": 0.6}
    return {"linestyle": "none", "marker": look.marker, "color": pen.ink(look.variable), **edge}


def safe_name(text: str, otherwise: str, longest: int = LONGEST_NAME) -> str:
    """Return a user's name if a figure can show it, else `otherwise`.

    Figures take printable ASCII only: they are drawn with one font, which lacks most scripts.

    >>> safe_name("linear-act-norm", "second arm"), safe_name("\\u6fc0\\u6d3b", "second arm")
    ('linear-act-norm', 'second arm')
    """
    if not text.strip() or not (text.isascii() and text.isprintable()):
        return otherwise
    return text if len(text) <= longest else text[: longest - 3] + "..."


def bracketed(unit: str) -> str:
    """Return a unit for an axis, or "" if there is none that a figure can show."""
    shown = safe_name(unit, "")
    return f" ({shown})" if shown else ""


def rows_height(rows: int, each: float, rest: float, most: float = 14.0) -> float:
    """Return the height in inches of a picture with rows."""
    return min(most, rest + each * rows)


def panels(axes: Axes, titles: Sequence[str], pen: Pen) -> list[Axes]:
    """Return small axes inside `axes`, one per title, in rows; they share their range.

    The outer axes become invisible: a picture of many panels has one `ax`, like any other.
    """
    axes.set_axis_off()
    columns = panel_columns(len(titles), pen)
    rows = -(-len(titles) // columns)
    width, height = 1 / columns, 1 / rows
    found: list[Axes] = []
    for place, title in enumerate(titles):
        row, column = divmod(place, columns)
        box = (
            column * width + 0.02,
            1 - (row + 1) * height + 0.05 * height,
            width - 0.05,
            0.68 * height,
        )
        first: dict[str, Any] = {"sharex": found[0], "sharey": found[0]} if found else {}
        panel = axes.inset_axes(box, **first)
        panel.patch.set_alpha(0.0)
        panel.set_title(title, fontsize=SIZE, loc="left", color=pen.ink("ink"), parse_math=False)
        panel.tick_params(labelleft=column == 0, labelbottom=place + columns >= len(titles))
        found.append(panel)
    return found


def panel_columns(count: int, pen: Pen) -> int:
    """Return the number of panels side by side."""
    return min(count, 2 if pen.narrow else 3)


def panels_height(count: int, pen: Pen) -> float:
    """Return the height in inches of a picture with panels."""
    return 0.5 + 1.45 * -(-count // panel_columns(count, pen))
