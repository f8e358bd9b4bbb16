"""The interval pair by pair, against zero and the margin: why the study stopped when it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from relucate.errors import InputError
from relucate.report.effects import effect_of
from relucate.report.facts import unpaired
from relucate.report.numbers import Units, known
from relucate.report.plots.axis import sides
from relucate.report.plots.style import MARK, Pen, bracketed, dress, few_ticks, note
from relucate.stats.paired import paired_difference
from relucate.stats.sequential import MONITORED, Monitor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LOOKS = 120
MOST_BARS = 60  # looks; more are drawn as a band


@dataclass(frozen=True)
class Look:
    """The estimate and the interval after the first `pairs` pairs, in the metric's own unit."""

    pairs: int
    estimate: float
    low: float
    high: float


def looks(comparison: dict[str, Any]) -> list[Look]:
    """Return the interval after each pair, as the study computed it at that time.

    With a number of pairs fixed beforehand only the last one is a result. It is the stored one.
    """
    found, difference = [], comparison["difference"]
    values = [pair["value"] for pair in comparison["differences"] if known(pair["value"])]
    level = difference.get("level") or 0.95
    monitored = difference["method"] == MONITORED
    for pairs in _counts(len(values)):
        zero, given = np.zeros(pairs), values[:pairs]
        if monitored:
            d = Monitor(level=level, most=1000).interval(zero, given)
        else:
            d = paired_difference(zero, given, level=level)
        if d.low is not None and d.high is not None and not d.degenerate:
            found.append(Look(pairs, d.estimate, d.low, d.high))
    if found and known(difference["low"]):
        last = Look(len(values), difference["estimate"], difference["low"], difference["high"])
        found[-1] = last
    return found


def _counts(pairs: int) -> list[int]:
    """Return after how many pairs to look: each number from the third on, or evenly spread ones.

    >>> _counts(5), len(_counts(5000)) <= MOST_LOOKS
    ([3, 4, 5], True)
    """
    step = max(1, -(-(pairs - 2) // MOST_LOOKS))
    return list(range(pairs, 2, -step))[::-1]


def height(study: dict[str, Any], pen: Pen) -> float:
    """Return the picture's height in inches."""
    return 3.0


def missing(study: dict[str, Any]) -> str:
    """Return why there is no such picture, or ""."""
    if unpaired(study):
        return "the runs are unpaired"
    try:
        found = looks(study["comparisons"][0])
    except InputError as error:  # a document that no study wrote
        return f"the intervals can't be computed again ({error})"
    return "" if len(found) > 1 else "it needs four pairs or more with differences that vary"


def draw(axes: Axes, study: dict[str, Any], pen: Pen) -> None:
    """Draw an interval per look; the last one is the answer."""
    comparison, units = study["comparisons"][0], Units.of_study(study)
    effect, found, scale = effect_of(comparison, study), looks(comparison), units.metric.scale
    reach = scale * _reach(found, study["margin"])
    if known(study["margin"]):
        ends = scale * np.array([-study["margin"], study["margin"]])
        axes.axhspan(*ends, color=pen.ink("band"), linewidth=0, zorder=0)
    axes.axhline(0, color=pen.ink("ink"), linewidth=1.0, zorder=1)
    _intervals(axes, found, scale, pen)
    _clipped(axes, found, scale, reach, pen)
    _answer(axes, found[-1], effect.word, scale, pen)
    axes.set_ylim(-reach, reach)
    axes.set_xlim(found[0].pairs - 0.6, found[-1].pairs + 0.6)
    few_ticks(axes.xaxis, pen, 8, 6, integer=True)
    few_ticks(axes.yaxis, pen, 6, 5)
    axes.set_xlabel("pairs")
    axes.set_ylabel(f"difference{bracketed(units.metric.words[1])}")
    low, high = sides(effect.arm, effect.against, units)
    note(axes, pen, 1, 0.98, f"↑ {high} ahead", ha="right", va="top")
    note(axes, pen, 1, 0.02, f"↓ {low} ahead", ha="right")
    dress(axes, pen)


def _reach(found: list[Look], margin: float | None) -> float:
    """Return the axis' half-length: the first third of the looks may run out of the picture.

    There is room above and below the later ones for who is ahead.
    """
    later = found[len(found) // 3 :]
    ends = [abs(end) for look in later for end in (look.low, look.high)]
    return 1.28 * max([*ends, margin if known(margin) else 0.0])


def _intervals(axes: Axes, found: list[Look], scale: float, pen: Pen) -> None:
    """Draw the intervals of all looks, and the estimates as a line."""
    pairs = [look.pairs for look in found]
    low, high = (scale * np.array([getattr(k, end) for k in found]) for end in ("low", "high"))
    muted = pen.ink("muted")
    if len(found) > MOST_BARS:
        axes.fill_between(pairs, low, high, color=muted, alpha=0.25, linewidth=0, zorder=2)
    else:
        axes.vlines(pairs, low, high, color=muted, linewidth=1.4, zorder=2)
    estimates = [scale * look.estimate for look in found]
    axes.plot(pairs, estimates, color=muted, linewidth=1.0, marker=".", markersize=5, zorder=3)


def _clipped(axes: Axes, found: list[Look], scale: float, reach: float, pen: Pen) -> None:
    """Mark the ends of intervals that run out of the picture."""
    for marker, end, at in (("^", "high", 0.97 * reach), ("v", "low", -0.97 * reach)):
        out = [look.pairs for look in found if abs(scale * getattr(look, end)) > reach]
        axes.plot(out, [at] * len(out), marker, color=pen.ink("muted"), markersize=5, zorder=3)


def _answer(axes: Axes, last: Look, word: str, scale: float, pen: Pen) -> None:
    """Draw the last interval in the look of an answer."""
    ink = pen.ink("ink")
    ends = scale * np.array([last.low, last.high])
    axes.plot([last.pairs] * 2, ends, color=ink, linewidth=2.2, zorder=4)
    axes.plot([last.pairs] * 2, ends, "_", color=ink, markersize=9, markeredgewidth=1.6, zorder=4)
    fill = pen.ink("card") if word == "inconclusive" else ink
    style = {"markerfacecolor": fill, "markeredgewidth": 1.5, "markersize": MARK + 1}
    axes.plot(last.pairs, scale * last.estimate, marker="D", color=ink, zorder=5, **style)
