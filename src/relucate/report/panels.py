"""Small multiples of what layers see: one column a network, one row a layer, by depth.

A column is a network at one moment, in the form of `Column`, made from a probe's document or from a
step of a study's. Each picture is drawn onto one `ax`, which its panels fill. Called by `probe`,
`seen`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .palette import arm_variable, colours, look, placeholder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Ink = Callable[[str], str]
ROWS = 6  # layers in one picture
SIZE = 11.0  # of all text, in points
_EDGES = np.linspace(-3.5, 3.5, 15)  # of the histogram's bins, the open ends as wide as the others


@dataclass(frozen=True)
class Column:
    """A network at one moment: its name, its sites, and by node the figures of `Seen.brief`.

    number: of its colour, as of an arm.
    """

    name: str
    sites: Sequence[Mapping[str, Any]]
    points: Mapping[str, Mapping[str, Any]]
    number: int = 0


def theme(dark: bool) -> Ink:
    """Return the colours of the light or the dark theme by their CSS variables."""
    found = colours()
    return lambda variable: found[variable][dark]


def column_of(probe: Mapping[str, Any], name: str, number: int = 0) -> Column:
    """Return a probe's document as a column."""
    points = {p["node"]: _brief(p) for p in probe["points"]}
    return Column(name, probe["sites"], points, number)


def step_column(arm: Mapping[str, Any], step: Mapping[str, Any], name: str, number: int) -> Column:
    """Return a step of an arm of a study's section `probe` as a column with this name."""
    return Column(name, arm["sites"], {p["node"]: p for p in step["points"]}, number)


def _brief(point: Mapping[str, Any]) -> dict[str, Any]:
    statistics = point["statistics"]
    live = [k for k, dead in enumerate(statistics["constant"]) if not dead]
    counts = np.array([statistics["histogram"][k] for k in live]).sum(0) if live else np.zeros(14)
    middles = [[statistics[name][k] for k in live] for name in ("q15", "q50", "q85")]
    return {
        "summary": point["summary"],
        "channels": point["channels"],
        "histogram": (counts / max(counts.sum(), 1)).tolist(),
        "quantiles": [float(np.median(values)) if values else None for values in middles],
    }


def by_depth(sites: Sequence[Any], most: int = ROWS) -> list[int]:
    """Return the positions of at most so many sites, evenly spread, the first and last among them.

    >>> by_depth(range(4), 6), by_depth(range(94), 3)
    ([0, 1, 2, 3], [0, 46, 93])
    """
    spread = np.linspace(0, len(sites) - 1, min(most, len(sites)))
    return [int(place) for place in np.floor(spread + 1e-9)]


def distributions(ax: Axes, columns: Sequence[Column], ink: Ink) -> None:
    """Draw the standardised values of a typical channel by depth, the networks side by side.

    Filled: what the norm reads (without norms: before the activation). The line: what the next
    layer reads. Thin: the normal distribution.
    """
    first, second = roles(columns)
    rows = max(len(by_depth(column.sites)) for column in columns)
    cells = _grid(ax, rows, len(columns), ink)
    top = 0.0
    for place, column in enumerate(columns):
        for row, site in enumerate(by_depth(column.sites)):
            cell, points = cells[row][place], column.sites[site]["points"]
            top = max(top, _histograms(cell, column, points, (first, second), ink))
            _name(cell, column.sites[site]["name"], len(columns), ink)
        _title(cells[0][place], column.name, len(columns), ink)
    for row in cells:
        for cell in row:
            cell.set(xlim=(-3.5, 3.5), ylim=(0, 1.05 * (top or 1)), yticks=[])
            cell.spines["left"].set_visible(False)
    for cell in cells[-1]:
        cell.set_xlabel("sd from the mean", color=ink("ink"), fontsize=SIZE)


def roles(columns: Sequence[Column]) -> tuple[str, str]:
    """Return the two points that are drawn: around the norm, or without norms the activation."""
    norms = any(site["norm"] for column in columns for site in column.sites)
    return ("norm_in", "next") if norms else ("act_in", "act_out")


def _histograms(
    cell: Axes,
    column: Column,
    points: Mapping[str, str],
    wanted: tuple[str, str],
    ink: Ink,
) -> float:
    """Draw a site's two distributions; return the largest share of a bin."""
    x = np.linspace(-3.5, 3.5, 71)
    normal = 0.5 * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    cell.plot(x, normal, color=ink("muted"), linewidth=0.7, zorder=1)
    shares = [column.points.get(points.get(role, ""), {}).get("histogram") for role in wanted]
    own = ink(arm_variable(column.number))
    if shares[0]:
        cell.stairs(shares[0], _EDGES, fill=True, color=own, alpha=0.35, zorder=2)
    if shares[1]:
        cell.stairs(shares[1], _EDGES, color=ink("ink"), linewidth=1.1, zorder=3)
    return max((max(one) for one in shares if one), default=0.0)


def drift(
    ax: Axes, arms: Sequence[tuple[str, Sequence[tuple[int, Column]]]], role: str, ink: Ink
) -> None:
    """Draw the quantiles 15, 50 and 85 % of a typical channel over the epochs, by depth.

    Args: arms: each with its name and its columns by epoch; role: the point, such as "next".
    """
    rows = max(len(by_depth(steps[0][1].sites, 3)) for _, steps in arms)
    cells = _grid(ax, rows, len(arms), ink)
    limits = [[np.inf, -np.inf] for _ in range(rows)]
    for place, (name, steps) in enumerate(arms):
        sites = steps[0][1].sites
        for row, site in enumerate(by_depth(sites, 3)):
            node = sites[site]["points"].get(role, "")
            _quantiles(cells[row][place], steps, node, limits[row], ink)
            _name(cells[row][place], sites[site]["name"], len(arms), ink)
        _title(cells[0][place], name, len(arms), ink)
        cells[-1][place].set_xlabel("epoch", color=ink("ink"), fontsize=SIZE)
    for row, (low, high) in zip(cells, limits, strict=True):
        room = 0.12 * (high - low) if high > low else 1.0
        for cell in row if high >= low else ():
            cell.set_ylim(low - room, high + room)
        for cell in row[1:]:
            cell.tick_params(labelleft=False)


def _quantiles(
    cell: Axes,
    steps: Sequence[tuple[int, Column]],
    node: str,
    limits: list[float],
    ink: Ink,
) -> None:
    from matplotlib.ticker import MaxNLocator

    found = [(epoch, column.points.get(node, {}).get("quantiles")) for epoch, column in steps]
    known = [(epoch, q) for epoch, q in found if q and None not in q]
    if not known:
        return
    epochs, (low, middle, high) = [e for e, _ in known], np.array([q for _, q in known]).T
    number = steps[0][1].number
    own, style = ink(arm_variable(number)), look(number)
    cell.fill_between(epochs, low, high, color=own, alpha=0.22, linewidth=0, zorder=2)
    (line,) = cell.plot(epochs, middle, color=own, marker=style.marker, markersize=4, zorder=3)
    if style.dashes:
        line.set_dashes(style.dashes)
    cell.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    cell.yaxis.set_major_locator(MaxNLocator(3))
    cell.axhline(0, color=ink("rule"), linewidth=0.7, zorder=1)
    limits[0], limits[1] = min(limits[0], low.min()), max(limits[1], high.max())


# ---- panels


def _grid(ax: Axes, rows: int, columns: int, ink: Ink) -> list[list[Axes]]:
    """Return small axes that fill `ax`, which becomes invisible, in rows from the top."""
    ax.set_axis_off()
    wide, tall = 1 / columns, 1 / rows
    return [
        [
            _dressed(
                ax.inset_axes((c * wide, 1 - (r + 1) * tall, 0.93 * wide, 0.74 * tall)),
                ink,
                last=r == rows - 1,
            )
            for c in range(columns)
        ]
        for r in range(rows)
    ]


def _dressed(cell: Axes, ink: Ink, *, last: bool) -> Axes:
    cell.patch.set_alpha(0.0)
    for side, spine in cell.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=ink("muted"), linewidth=0.8)
    cell.tick_params(
        length=3, color=ink("muted"), labelcolor=ink("ink"), labelsize=SIZE, labelbottom=last
    )
    return cell


def _title(cell: Axes, name: str, columns: int, ink: Ink) -> None:
    shown = _safe(name, _room(columns))
    cell.set_title(shown, color=ink("ink"), fontsize=SIZE, loc="left", pad=15, parse_math=False)


def _name(cell: Axes, name: str, columns: int, ink: Ink) -> None:
    given: dict[str, Any] = {"transform": cell.transAxes, "parse_math": False, "fontsize": SIZE}
    cell.text(
        0.01, 1.0, _safe(name, _room(columns)), ha="left", va="bottom", color=ink("muted"), **given
    )


def _room(columns: int) -> int:
    """Return how many characters fit above one of so many panels side by side."""
    return max(8, 44 // columns)


def _safe(text: str, most: int = 26) -> str:
    """Return a name that a figure can show: printable ASCII, its end if it is long."""
    shown = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    return shown if len(shown) <= most else "..." + shown[-(most - 3) :]


PAGE: Ink = placeholder
