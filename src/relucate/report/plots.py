"""The report's figures as SVG text: paired differences, one arm against another, learning curves.

Each function takes parts of the study's dict and returns one `<svg>` element for an HTML page: no
file, no pyplot state, no user's text that could be markup or mathematics. Not here: captions,
legends, the page (`html`). Functions import matplotlib, because only a report needs it.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import escape

from relucate.report.numbers import Units, known
from relucate.report.palette import arm_variable, look, placeholder, themed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.9  # inches: a phone's width, so that a phone need not shrink the letters
LONGEST_NAME = 26
MOST_SEED_LABELS = 40
FEW_EPOCHS = 16  # up to here every epoch gets its marker
SMALLEST_REACH = 0.001  # of an axis of differences that are all zero
LOG_FROM = 30.0  # a loss that falls by this factor is drawn on a logarithmic axis
DECADES = 4  # a longer logarithmic axis labels powers of ten alone

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "relucate",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "axes.linewidth": 0.8,
    "axes.formatter.useoffset": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
}
_INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")


def differences_svg(
    comparison: dict[str, Any],
    *,
    arms: tuple[int, int],
    units: Units,
    margin: float | None,
    reach: float,
    name: str,
    alt: str,
) -> str:
    """Return a dot per seed, the mean with its interval, the zero line and the margin's band.

    Args:
        comparison: one of the study's comparisons.
        arms: positions of the arm and of the arm it is compared with. They give the colours: a dot
            looks like the arm that was ahead with that seed.
        units: of the metric.
        margin: half the width of the band of equivalence, in the metric's own unit.
        reach: how far the axis goes to either side, in the metric's own unit (`reach_of`).
        name: prefix of every id in the drawing. alt: what a screen reader says.
    """
    pairs = [pair for pair in comparison["differences"] if known(pair["value"])]
    scale, lower = units.metric.scale, units.metric.lower_is_better
    values = scale * np.array([pair["value"] for pair in pairs], dtype=float)
    with in_style():
        figure, axes = new_figure(1.35 + 0.19 * min(len(pairs), MOST_SEED_LABELS))
        _difference_axis(axes, units, margin, reach)
        rows = np.arange(len(values), 0, -1) + 0.5
        ahead = np.where((values >= 0) != lower, arms[0], arms[1])
        for arm in arms:
            chosen = (ahead == arm) & (values != 0)
            _dots(axes, values[chosen], rows[chosen], arm)
        axes.plot(values[values == 0], rows[values == 0], ".", color=placeholder("ink"))
        _mean_row(axes, comparison["difference"], scale)
        _seed_ticks(axes, rows, [pair["seed"] for pair in pairs])
        _who_is_ahead(axes, comparison, lower)
        return svg_of(figure, name, alt)


def reach_of(comparisons: Sequence[dict[str, Any]], margin: float | None = None) -> float:
    """Return the half-length of an axis that shows every difference, interval and margin.

    >>> difference = {"low": -0.01, "high": 0.02}
    >>> reach = reach_of([{"differences": [{"seed": 0, "value": -0.05}], "difference": difference}])
    >>> round(reach, 3)
    0.055
    """
    values = [pair["value"] for comparison in comparisons for pair in comparison["differences"]]
    values.append(margin)
    for comparison in comparisons:
        values += [comparison["difference"]["low"], comparison["difference"]["high"]]
    return 1.1 * max((abs(v) for v in values if known(v)), default=0.0) or SMALLEST_REACH


def scatter_svg(study: dict[str, Any], *, name: str, alt: str) -> str:
    """Return the other arms' metrics against the first arm's, a mark per seed, and the diagonal."""
    metrics, marked = _metrics_by_arm(study), marked_seeds(study)
    labels = [arm["label"] for arm in study["arms"]]
    units = Units.of_study(study)
    with in_style():
        figure, axes = new_figure(3.7)
        seen: list[float] = []
        for place, label in enumerate(labels[1:], start=1):
            x = [units.metric.scale * metrics[labels[0]][seed] for seed in marked[label]]
            y = [units.metric.scale * metrics[label][seed] for seed in marked[label]]
            _dots(axes, x, y, place)
            seen += x + y
        _square(axes, seen, 10.0 ** (1 - units.digits))
        unit = _bracketed(units.metric.value_unit)
        axes.set_xlabel(f"{safe_name(labels[0], 'first arm')}{unit}")
        other = safe_name(labels[1], "second arm") if len(labels) == 2 else "the other arms"
        axes.set_ylabel(f"{other}{unit}")
        return svg_of(figure, name, alt)


def marked_seeds(study: dict[str, Any]) -> dict[str, list[int]]:
    """Return the seeds with two results, for each arm that is compared with the first."""
    metrics = _metrics_by_arm(study)
    first, *others = [metrics.get(arm["label"], {}) for arm in study["arms"]]
    return {
        arm["label"]: sorted(first.keys() & other.keys())
        for arm, other in zip(study["arms"][1:], others, strict=True)
    }


def curves_svg(study: dict[str, Any], quantity: str, *, name: str, alt: str) -> str:
    """Return the learning curves of all arms: the mean over seeds, with a band of one sd.

    quantity: a key of the runs' curves: "train_loss" or the metric's name.
    If only some seeds reached an epoch, their mean is shown; a single seed has no band.
    """
    from matplotlib.ticker import MaxNLocator

    loss, metric = quantity == "train_loss", Units.of_study(study).metric
    with in_style():
        figure, axes = new_figure(3.0)
        means: list[float] = []
        for place, arm in enumerate(study["arms"]):
            runs = [run for run in study["runs"] if run["arm"] == arm["label"]]
            epochs, mean, sd = mean_curve(runs, quantity)
            scale = 1.0 if loss else metric.scale
            _curve(axes, epochs, scale * mean, scale * sd, place, loss)
            means += list(scale * mean)
        if loss and means and min(means) > 0 and max(means) > LOG_FROM * min(means):
            _logarithmic(axes, max(means) / min(means))
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        score = f"test {safe_name(metric.name, 'metric')}{_bracketed(metric.value_unit)}"
        axes.set_ylabel("training loss" if loss else score)
        axes.grid(axis="y", color=placeholder("rule"), linewidth=0.6)
        return svg_of(figure, name, alt)


def rates_svg(study: dict[str, Any], *, name: str, alt: str) -> str:
    """Return each arm's held-out score against the learning rate, on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    found, metric = study["tuning"], Units.of_study(study).metric
    with in_style():
        figure, axes = new_figure(3.0)
        for place, arm in enumerate(found["arms"]):
            tried = arm["curve"]
            style, colour = look(place), placeholder(arm_variable(place))
            x = [point["lr"] for point in tried]
            y = [metric.scale * point["score"] for point in tried]
            (line,) = axes.plot(x, y, color=colour, linewidth=1.4, zorder=3)
            if style.dashes:
                line.set_dashes(style.dashes)
            longest = max(point["epochs"] for point in tried)
            for rate, score, point in zip(x, y, tried, strict=True):
                size = 7 if point["epochs"] == longest else 4
                axes.plot(rate, score, marker=style.marker, markersize=size, color=colour, zorder=4)
        axes.axvline(found["same_rate"]["lr"], color=placeholder("muted"), linewidth=0.9, zorder=1)
        axes.set_xscale("log")
        rates = [point["lr"] for point in found["arms"][0]["curve"]]
        axes.set_xticks(rates)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
        axes.set_xlabel("learning rate")
        score = f"{safe_name(metric.name, 'metric')}{_bracketed(metric.value_unit)}"
        axes.set_ylabel(f"held-out {score}")
        axes.grid(axis="y", color=placeholder("rule"), linewidth=0.6)
        return svg_of(figure, name, alt)


def mean_curve(
    runs: Sequence[dict[str, Any]], quantity: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return epochs, mean and standard deviation over runs, each of shape (epochs,).

    The deviation is NaN for fewer than two runs with a finite value; epochs without any are left
    out.

    >>> runs = [{"curve": {"epoch": [1, 2], "accuracy": [0.5, 0.7]}},
    ...         {"curve": {"epoch": [1], "accuracy": [0.7]}}]
    >>> epochs, mean, sd = mean_curve(runs, "accuracy")
    >>> epochs.tolist(), mean.round(2).tolist()
    ([1, 2], [0.6, 0.7])
    """
    values: dict[int, list[float]] = {}
    for run in runs:
        curve = run.get("curve") or {}
        for epoch, value in zip(curve.get("epoch", []), curve.get(quantity, []), strict=False):
            if known(value):
                values.setdefault(epoch, []).append(value)
    epochs = sorted(values)
    at = [values[epoch] for epoch in epochs]
    sd = [np.std(seeds, ddof=1) if len(seeds) > 1 else np.nan for seeds in at]
    return np.array(epochs), np.array([np.mean(seeds) for seeds in at]), np.array(sd)


def safe_name(text: str, otherwise: str) -> str:
    """Return a user's name if a figure can show it, else `otherwise`.

    Figures take printable ASCII only: they are drawn with one font, which lacks most scripts.

    >>> safe_name("linear-act-norm", "second arm"), safe_name("\\u6fc0\\u6d3b", "second arm")
    ('linear-act-norm', 'second arm')
    """
    if not text.strip() or not (text.isascii() and text.isprintable()):
        return otherwise
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 3] + "..."


def _bracketed(unit: str) -> str:
    """Return a unit for an axis, or "" if there is none that a figure can show."""
    shown = safe_name(unit, "")
    return f" ({shown})" if shown else ""


# ---- parts of figures


@contextlib.contextmanager
def in_style() -> Iterator[None]:
    """Draw figures in our style only, without matplotlibrc, and restore all settings."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = matplotlib.rcParams  # its type lists every key; our keys are plain strings
        settings.update({**_STYLE, **dict.fromkeys(_INKED, placeholder("ink"))})
        yield


def new_figure(height: float) -> tuple[Figure, Axes]:
    """Return an empty figure without background, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.subplots()
    axes.patch.set_alpha(0.0)
    return figure, axes


def _dots(axes: Axes, x: Any, y: Any, arm: int) -> None:
    """Draw one mark per seed in an arm's look."""
    axes.plot(
        x,
        y,
        linestyle="none",
        marker=look(arm).marker,
        markersize=5.5,
        color=placeholder(arm_variable(arm)),
        markeredgecolor=placeholder("card"),
        markeredgewidth=0.6,
        zorder=4,
    )


def _difference_axis(axes: Axes, units: Units, margin: float | None, reach: float) -> None:
    """Draw the zero line and the margin's band on an axis with zero in its middle."""
    scale = units.metric.scale
    axes.set_xlim(-scale * reach, scale * reach)
    if margin is not None and known(margin):
        axes.axvspan(
            -scale * margin, scale * margin, color=placeholder("band"), linewidth=0, zorder=0
        )
    axes.axvline(0, color=placeholder("ink"), linewidth=0.9, zorder=1)
    axes.set_xlabel(f"difference{_bracketed(units.metric.words[1])}")
    axes.spines["left"].set_visible(False)


def _mean_row(axes: Axes, difference: dict[str, Any], scale: float) -> None:
    """Draw the mean with its interval in the row below the seeds."""
    if not known(difference["estimate"]):
        return
    ink = placeholder("ink")
    low, high = difference["low"], difference["high"]
    if known(low) and known(high):
        axes.plot([scale * low, scale * high], [0.3, 0.3], color=ink, linewidth=2.2, zorder=3)
        for end in (low, high):
            axes.plot([scale * end] * 2, [0.05, 0.55], color=ink, linewidth=1.4, zorder=3)
    axes.plot(scale * difference["estimate"], 0.3, marker="D", markersize=7, color=ink, zorder=5)


def _seed_ticks(axes: Axes, rows: np.ndarray, seeds: Sequence[int]) -> None:
    """Label the rows with their seeds (not all, if there are many) and the mean's row."""
    step = 1 + len(seeds) // MOST_SEED_LABELS
    ticks = [0.3, *rows[::step]]
    axes.set_yticks(ticks, ["mean", *(f"seed {seed}" for seed in seeds[::step])])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.4, len(seeds) + 1.1)


def _who_is_ahead(axes: Axes, comparison: dict[str, Any], lower_is_better: bool) -> None:
    """Write above the plot which arm is ahead on which side."""
    left = safe_name(comparison["against"], "against")
    right = safe_name(comparison["arm"], "arm")
    if lower_is_better:
        left, right = right, left
    colour = placeholder("muted")
    for x, side, text in ((0, "left", f"← {left} ahead"), (1, "right", f"{right} ahead →")):
        axes.text(
            x, 1.0, text, transform=axes.transAxes, ha=side, va="bottom", fontsize=8, color=colour
        )


def _square(axes: Axes, values: Sequence[float], least: float) -> None:
    """Give both axes the same range (with `least` room) and ticks, and draw the diagonal."""
    from matplotlib.ticker import MaxNLocator

    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    room = max(0.08 * (high - low), least) if high > low else 5 * least
    ends = (low - room, high + room)
    axes.plot(ends, ends, color=placeholder("muted"), linewidth=0.9, dashes=(4, 3), zorder=1)
    axes.set_xlim(ends)
    axes.set_ylim(ends)
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))


def _curve(
    axes: Axes, epochs: np.ndarray, mean: np.ndarray, sd: np.ndarray, arm: int, positive: bool
) -> None:
    """Draw one arm's mean with its band; a `positive` quantity's band stays above zero."""
    style = look(arm)
    (line,) = axes.plot(
        epochs,
        mean,
        color=placeholder(arm_variable(arm)),
        linewidth=1.6,
        marker=style.marker,
        markersize=4,
        markeredgecolor=placeholder("card"),
        markeredgewidth=0.5,
        markevery=max(1, -(-len(epochs) // FEW_EPOCHS)),
        zorder=3,
    )
    if style.dashes:
        line.set_dashes(style.dashes)
    low = np.maximum(mean - sd, 0.1 * mean) if positive else mean - sd
    axes.fill_between(
        epochs,
        low,
        mean + sd,
        color=placeholder(arm_variable(arm)),
        alpha=0.18,
        linewidth=0,
        zorder=2,
    )


def _logarithmic(axes: Axes, ratio: float) -> None:
    """Make the vertical axis logarithmic, with plain numbers (the default labels are formulas).

    ratio: of the largest to the smallest value.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    subs = (1.0, 2.0, 5.0) if ratio < 10**DECADES else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _metrics_by_arm(study: dict[str, Any]) -> dict[str, dict[int, float]]:
    """Return arm -> seed -> metric, for the runs that have one."""
    metrics: dict[str, dict[int, float]] = {}
    for run in study["runs"]:
        if run["status"] == "done" and known(run["metric"]):
            metrics.setdefault(run["arm"], {})[run["seed"]] = run["metric"]
    return metrics


# ---- from figure to text


def svg_of(figure: Figure, name: str, alt: str) -> str:
    """Return a figure as one `<svg>` element that takes the page's colours and width."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    return themed(_inline(buffer.getvalue(), name, alt))


def _inline(svg: str, name: str, alt: str) -> str:
    """Return a stand-alone SVG file's text as an element: no prologue, own ids, no fixed size.

    matplotlib restarts its ids in every figure and writes a global style; two figures on one page
    would share both.
    """
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style\b.*?</style>", "", svg, flags=re.DOTALL)
    svg = prefixed(svg, f"{name}-")
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    kept = box.group(0) if box else ""
    opening = f'<svg class="plot" role="img" aria-label="{escape(alt)}" {kept}'
    return f'{opening} xmlns:xlink="http://www.w3.org/1999/xlink">{body}'


def prefixed(svg: str, prefix: str) -> str:
    """Return a drawing whose ids, and the references to them, start with a prefix."""
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}', svg)
    return re.sub(r"url\(#", f"url(#{prefix}", svg)
