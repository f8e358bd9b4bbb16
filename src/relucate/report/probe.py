"""What a probe measured, as terminal text, as a notebook fragment and as a picture.

Takes the JSON-ready dict (schema relucate.probe/1). A model with many sites is shown by groups of
the same order and activation, unless `every` is set. Not here: what is measured (`moments`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..errors import unknown
from ..phrases import count, some
from . import panels
from .numbers import MISSING, plain
from .palette import arm_variable, look
from .panels import Ink
from .plots import in_style, new_figure, shown, svg_of
from .plots.style import WIDE, Pen, safe_name
from .rendering import render
from .terminal import displayable, rendered, simple_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 24  # sites: more are shown by groups
_NAMED = 12  # sites: more are numbered in the picture
_LEGEND = (
    "Medians over the channels. skew: |skewness| before and behind the activation. {reads} is from "
    "a normal distribution (Kolmogorov's distance, 0 to 1). zeros: share of exact zeros that the "
    "next layer reads. rank: effective rank of what it reads. dead: channels that have one value "
    "on all the data."
)
_READS = "norm reads, next reads: how far what the norm and the next layer read"
_NEXT_READS = "next reads: how far what the next layer reads"


def print_probe(probe: dict[str, Any], console: Console, *, every: bool = False) -> None:
    """Print a probe to `console`; `every` shows each site on its own."""
    console.print(ProbeView(probe, every))


@dataclass(frozen=True)
class ProbeView:
    """A probe that rich lays out for the console's width and encoding."""

    probe: dict[str, Any]
    every: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        probe = displayable(self.probe, options.encoding or "utf-8")
        yield from rendered(_parts(probe, self.every), console, options)


def _parts(probe: dict[str, Any], every: bool) -> Iterator[RenderableType]:
    yield Text(headline(probe), style="bold")
    yield Text("")
    header, rows = table(probe, every)
    sides = [(name, "left" if name in _LEFT else "right") for name in header]
    yield Padding(simple_table(sides, rows, gap=2), (0, 0, 0, 2))
    yield Text("\n" + _legend(probe), style="dim")
    yield Text("")
    if (back := gradient_table(probe, every)) is not None:
        sides = [(name, "left" if name in _LEFT else "right") for name in back[0]]
        yield Padding(simple_table(sides, back[1], gap=2), (0, 0, 0, 2))
        yield Text("\n" + about_gradients(probe), style="dim")
        yield Text("")
    said = Table.grid(padding=(0, 1))
    for claim in probe["claims"]:
        said.add_row("-", Text(claim["text"]))
    yield said
    yield from (Text(line, style="yellow") for line in notes(probe))


_GRADIENTS = (
    "Size (root mean square, median over the channels) of the gradients of each example's loss at "
    "the outputs of the linear layer{norm} and the activation, and at what {reader} next layer "
    "read{s}."
)


def about_gradients(probe: dict[str, Any]) -> str:
    """Return what the table of gradients shows."""
    if has_norms(probe):
        return _GRADIENTS.format(norm=", the norm", reader="the norm and the", s="")
    return _GRADIENTS.format(norm="", reader="the", s="s")


def has_norms(probe: dict[str, Any]) -> bool:
    """Return whether the sites are norms; otherwise they are activations."""
    return any(site["norm"] for site in probe["sites"])


def _legend(probe: dict[str, Any]) -> str:
    return _LEGEND.format(reads=_READS if has_norms(probe) else _NEXT_READS)


_LEFT = {"norm", "layer", "activation", "act", "order"}


def headline(probe: dict[str, Any]) -> str:
    """Return one sentence: the model, and how much was looked at."""
    sites, points = len(probe["sites"]), count(len(probe["points"]), "point")
    noun = "norm" if all(site["norm"] for site in probe["sites"]) else "activation"
    name = f"{probe['model']} ({probe['framework']})"
    return f"{name}: {count(sites, noun)}, {points}, {count(probe['examples'], 'example')}."


def table(probe: dict[str, Any], every: bool = False) -> _Cells:
    """Return the header and a row for each site, or for each group of them."""
    figures = ["skew\nbefore", "skew\nbehind", _NORM_READS, "next\nreads", "zeros"]
    figures += ["rank", "dead"]
    left_out = set() if has_norms(probe) else {_NORM_READS}
    return _without(_table(probe, every, figures), left_out)


_NORM_READS = "norm\nreads"
_Cells = tuple[list[str], list[list[str]]]  # a header and rows


def _without(given: _Cells, headings: set[str]) -> _Cells:
    """Return a header and rows without the columns of some headings."""
    header, rows = given
    kept = [k for k, name in enumerate(header) if name not in headings]
    return [header[k] for k in kept], [[row[k] for k in kept] for row in rows]


def _table(probe: dict[str, Any], every: bool, figures: list[str]) -> _Cells:
    rows = [(site, _row(probe, site)) for site in probe["sites"]]
    if len(rows) <= FEW or every:
        first = "norm" if probe["sites"][0]["norm"] else "layer"
        named = [[site["name"], site["act_op"] or MISSING, *_texts([row])] for site, row in rows]
        return [first, "activation", *figures], named
    found = [[str(len(group)), *key, *_texts(group)] for key, group in _grouped(rows)]
    return ["sites", "order", "act", *figures], found


Rows = list[tuple[dict[str, Any], dict[str, Any]]]  # of sites and their figures


def _grouped(rows: Rows) -> list[tuple[tuple[str, str], list[dict[str, Any]]]]:
    """Return the figures by order and activation, the commonest first."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for site, row in rows:
        groups.setdefault((site["order"], site["act_op"] or MISSING), []).append(row)
    return sorted(groups.items(), key=lambda item: -len(item[1]))


_SIZES = {
    "linear": "linear",
    "norm_in": "norm in",
    "norm_out": "norm out",
    "act_out": "act out",
    "next": "next",
}


def gradient_table(probe: dict[str, Any], every: bool = False) -> _Cells | None:
    """Return the sizes of the gradients by role, per site or group; None without gradients."""
    if not probe["gradients"]:
        return None
    left_out = set() if has_norms(probe) else {_SIZES["norm_in"], _SIZES["norm_out"]}
    return _without(_gradient_table(probe, every), left_out)


def _gradient_table(probe: dict[str, Any], every: bool) -> _Cells:
    sizes = {point["node"]: point["summary"]["rms"] for point in probe["gradients"]}
    rows: Rows = [
        (site, {role: sizes.get(site["points"].get(role)) for role in _SIZES})
        for site in probe["sites"]
    ]
    first = "norm" if probe["sites"][0]["norm"] else "layer"
    if len(rows) <= FEW or every:
        return [first, *_SIZES.values()], [[s["name"], *_size_texts([row])] for s, row in rows]
    found = [[str(len(group)), *key, *_size_texts(group)] for key, group in _grouped(rows)]
    return ["sites", "order", "act", *_SIZES.values()], found


def _size_texts(rows: list[dict[str, Any]]) -> list[str]:
    middles = [_middle([row[role] for row in rows]) for role in _SIZES]
    return [MISSING if size is None else f"{size:.1e}" for size in middles]


def _row(probe: dict[str, Any], site: dict[str, Any]) -> dict[str, Any]:
    seen = {point["node"]: point for point in probe["points"]}

    def at(role: str, figure: str) -> Any:
        point = seen.get(site["points"].get(role))
        return None if point is None else point["summary"][figure]

    behind = seen.get(site["points"].get("act_out", site["points"].get("norm_out")))
    reader = seen.get(site["points"].get("next"))
    return {
        "rank": reader and reader["rank"] and (reader["rank"], reader["channels"]),
        "before": at("act_in", "skewness"),
        "behind": at("act_out", "skewness"),
        "norm": at("norm_in", "normal_distance"),
        "next": at("next", "normal_distance"),
        "zeros": at("next", "zeros"),
        "dead": behind and (behind["node"], behind["summary"]["dead"], behind["channels"]),
    }


def _texts(rows: list[dict[str, Any]]) -> list[str]:
    names = ("before", "behind", "norm", "next")
    middles = [_middle([row[name] for row in rows]) for name in names]
    zeros = _middle([row["zeros"] for row in rows])
    dead = {row["dead"] for row in rows if row["dead"]}
    number, channels = (sum(one[i] for one in dead) for i in (1, 2))
    share = MISSING if zeros is None else f"{100 * zeros:.0f} %"
    deads = f"{number}/{channels}" if dead else MISSING
    return [*(plain(x) for x in middles), share, _rank(rows), deads]


def _rank(rows: list[dict[str, Any]]) -> str:
    """Return the effective rank of one site as it is, of several in percent of the channels."""
    found = [row["rank"] for row in rows if row["rank"]]
    if not found:
        return MISSING
    if len(rows) == 1:
        return f"{found[0][0]:.1f}"
    return f"{100 * float(np.median([rank / most for rank, most in found])):.0f} %"


def _middle(values: list[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return float(np.median(found)) if found else None


def notes(probe: dict[str, Any]) -> list[str]:
    """Return the sentences on what couldn't be looked at, and on what isn't reliable."""
    found = []
    if probe["unseen"]:
        found.append(
            f"Not seen, because the values exist only inside a layer's own call: "
            f"{some(probe['unseen'], 5)}."
        )
    return [*found, *(f"Note: {text}" for text in probe["warnings"])]


def probe_html(probe: dict[str, Any]) -> str:
    """Return a probe as an HTML fragment for notebooks; every text is escaped."""
    header, rows = table(probe)
    return render(
        "probe.html.j2",
        headline=headline(probe),
        header=header,
        rows=rows,
        legend=_legend(probe),
        gradients=gradient_table(probe),
        about_gradients=about_gradients(probe),
        claims=[claim["text"] for claim in probe["claims"]],
        notes=notes(probe),
        texts=_LEFT,
        figure=Markup(channels_svg(probe)),
    )


# The picture.


def channels_svg(probe: dict[str, Any], name: str = "channels") -> str:
    """Return the skewness by depth as one `<svg>` element; see `plot`."""
    with in_style():
        figure, axes = new_figure(3.0, WIDE)
        _channels(axes, probe, panels.PAGE)
        return svg_of(figure, name, "Skewness of the channels by depth. " + _alt(probe))


def plot(
    probe: dict[str, Any],
    kind: str,
    ax: Any = None,
    *,
    others: Sequence[dict[str, Any]] = (),
    dark: bool = False,
) -> Any:
    """Draw onto matplotlib axes, by default those of a new figure, and return them.

    Args: as for `ProbeReport.plot`; others: documents of other probes.
    Raises: InputError: another kind.
    """
    if kind not in KINDS:
        raise unknown("plot", kind, KINDS)
    draw, title, height = KINDS[kind]
    with in_style():
        if ax is None:
            name = safe_name(probe["model"], "the model")
            ax = shown(f"{title} · {name}", height, Pen(panels.theme(dark)))
        draw(ax, [probe, *others], panels.theme(dark))
    return ax


def _draw_channels(axes: Axes, probes: Sequence[dict[str, Any]], ink: Ink) -> None:
    """The |skewness| of the channels by depth: the median and the 15 to 85 % band.

    Of what the norm reads and of what the next layer reads. (A batch norm keeps each channel's
    |skewness|, so that its input and its output would be one line.) In a model without norms:
    before and behind the activation.
    """
    _channels(axes, probes[0], ink)


def _draw_dead(axes: Axes, probes: Sequence[dict[str, Any]], ink: Ink) -> None:
    """The share of dead channels behind each activation by depth, a line for each probe."""
    for number, probe in enumerate(probes):
        shares = [(k, share) for k, share in enumerate(_dead_shares(probe), 1) if share is not None]
        x, y = zip(*shares, strict=True) if shares else ((), ())
        _line(axes, x, [100 * share for share in y], number, _label(probe, number), ink)
    axes.set_ylim(-3, 103)
    axes.set_ylabel("dead channels (%)")
    _depth(axes, probes[0], ink)


def _dead_shares(probe: dict[str, Any]) -> list[float | None]:
    seen = {point["node"]: point for point in probe["points"]}
    nodes = [s["points"].get("act_out", s["points"].get("norm_out")) for s in probe["sites"]]
    found = [seen.get(node) for node in nodes]
    return [point and point["summary"]["dead"] / point["channels"] for point in found]


def _draw_distributions(axes: Axes, probes: Sequence[dict[str, Any]], ink: Ink) -> None:
    columns = [panels.column_of(p, _label(p, k), k) for k, p in enumerate(probes)]
    panels.distributions(axes, columns, ink)


def _draw_drift(axes: Axes, probes: Sequence[dict[str, Any]], ink: Ink) -> None:
    steps = [(k, panels.column_of(p, p["model"])) for k, p in enumerate(probes)]
    role = panels.roles([steps[0][1]])[1]
    panels.drift(axes, [(probes[0]["model"], steps)], role, ink)


def _label(probe: dict[str, Any], number: int) -> str:
    orders = {site["order"] for site in probe["sites"]}
    return orders.pop() if len(orders) == 1 else f"{probe['model']} {number + 1}"


Draw = Callable[["Axes", Sequence[dict[str, Any]], "Ink"], None]
KINDS: dict[str, tuple[Draw, str, float]] = {  # with the title and height (inches) of a new figure
    "channels": (_draw_channels, "Skewness of the channels by depth", 3.4),
    "dead": (_draw_dead, "Dead channels by depth", 3.0),
    "distributions": (_draw_distributions, "Distributions by depth", 6.6),
    "drift": (_draw_drift, "What the next layer reads", 4.6),
}


def _roles(probe: dict[str, Any]) -> list[tuple[str, str]]:
    if has_norms(probe):
        return [("norm_in", "norm reads"), ("next", "next layer reads")]
    return [("act_in", "before the activation"), ("act_out", "behind the activation")]


def _channels(axes: Axes, probe: dict[str, Any], ink: Ink) -> None:
    for arm, (role, label) in enumerate(_roles(probe)):
        places, bands = _bands(probe, role)
        if not len(places):
            continue
        low, middle, high = bands.T
        own = ink(arm_variable(arm))
        axes.fill_between(places, low, high, color=own, alpha=0.18, linewidth=0, zorder=2)
        _line(axes, places, middle, arm, label, ink)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("|skewness| (median, 15 to 85 %)")
    _depth(axes, probe, ink)


def _line(axes: Axes, x: Any, y: Any, arm: int, label: str, ink: Ink) -> None:
    style, own = look(arm), ink(arm_variable(arm))
    (line,) = axes.plot(x, y, color=own, marker=style.marker, markersize=4.5, label=label, zorder=3)
    if style.dashes:
        line.set_dashes(style.dashes)


def _depth(axes: Axes, probe: dict[str, Any], ink: Ink) -> None:
    """Give axes the sites as their x axis, the legend and the theme's colours."""
    sites = probe["sites"]
    axes.set_xlim(0.6, len(sites) + 0.4)
    norms = has_norms(probe)
    if len(sites) <= _NAMED:
        places = range(1, len(sites) + 1)
        names = [_short(site["name"], k) for k, site in zip(places, sites, strict=True)]
        axes.set_xticks(places, names, rotation=30, ha="right", parse_math=False)
    else:
        axes.set_xlabel(f"{'norm' if norms else 'activation'}, in the order of data flow")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(ink("ink"))
    axes.tick_params(color=ink("ink"), labelcolor=ink("ink"))
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(ink("ink"))
    if axes.get_legend_handles_labels()[0]:
        place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2}
        axes.legend(frameon=False, labelcolor=ink("ink"), ncols=3, **place)


def _bands(probe: dict[str, Any], role: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the places, 1 the first, and the 15, 50 and 85 % of |skewness|, shape (places, 3)."""
    seen = {point["node"]: point for point in probe["points"]}
    places, bands = [], []
    for place, site in enumerate(probe["sites"], start=1):
        point = seen.get(site["points"].get(role))
        values = point["statistics"]["skewness"] if point else []
        known = np.abs([value for value in values if value is not None])
        if len(known):
            places.append(place)
            bands.append(np.quantile(known, (0.15, 0.5, 0.85)))
    return np.array(places), np.array(bands).reshape(-1, 3)


def _short(name: str, place: int) -> str:
    shown = safe_name(name, f"{place}", len(name))
    return shown if len(shown) <= 16 else f"…{shown[-15:]}"


def _alt(probe: dict[str, Any]) -> str:
    texts = []
    for role, label in _roles(probe):
        _, bands = _bands(probe, role)
        if len(bands):
            texts.append(f"{label}: {np.median(bands[:, 1]):.2f} (median)")
    return "; ".join(texts) + "."
