"""The figures of a study's page: which there are, with heading, caption and description.

Not here: drawing (`plots`), the page (`html`). Called by `html`.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from markupsafe import Markup

from relucate.report import plots
from relucate.report.answer import slowest
from relucate.report.effects import effects
from relucate.report.facts import difference_text, identical, short_names, unpaired
from relucate.report.numbers import Units, known, level_percent
from relucate.stats.sequential import MONITORED

Study = dict[str, Any]

HERO = 8.6  # inches: the picture of the answer is as wide as the page
HOLLOW = " A hollow diamond is not an answer yet."


def hero(study: Study, prefix: str = "") -> dict[str, Any] | None:
    """Return the picture of the answer: every interval against zero and the margin."""
    if plots.missing(study, "forest"):
        return None
    return _figure(study, "forest", "", _forest_caption(study), prefix, width=HERO)


def figures(
    study: Study, prefix: str = "", only: Container[str] = tuple(plots.KINDS)
) -> list[dict[str, Any]]:
    """Return the page's other figures that have data: name, heading, caption, legend and SVGs.

    prefix: of the ids in the drawings, which must differ on one page; only: the kinds to show.
    """
    return [
        _figure(study, kind, plots.heading(study, kind), caption(study), prefix)
        for kind, caption in _CAPTIONS.items()
        if kind in only and _belongs(study, kind) and not plots.missing(study, kind)
    ]


def _belongs(study: Study, kind: str) -> bool:
    """Return whether a picture says what another one doesn't."""
    if kind == "time":  # at the same speed it is the picture by epoch
        return slowest(study) is not None
    return len(study["comparisons"]) == 1 or kind not in _SINGLE


def _figure(
    study: Study, kind: str, heading: str, caption: str, prefix: str, width: float | None = None
) -> dict[str, Any]:
    """Return a figure for the template; `plots` has escaped the user's texts in the SVG."""
    name, alt = f"{prefix}{kind}", _alt(study, kind, heading)
    drawn = plots.svgs(study, kind, name=name, alt=alt, width=width)
    return {
        "name": name,
        "heading": heading,
        "caption": caption,
        "legend": plots.KINDS[kind].legend,
        "svgs": [Markup(svg) for svg in drawn],
    }


def _alt(study: Study, kind: str, heading: str) -> str:
    """Return what a screen reader says of a picture."""
    units, short = Units.of_study(study), short_names(study)
    if kind in ("forest", "interval", "differences"):
        return f"{heading or 'Differences'}: {'; '.join(difference_lines(study))}."
    ends = ", ".join(f"{short[a['label']]} {units.valued(a['mean'])}" for a in study["arms"])
    return f"{heading}." + (f" Means: {ends}." if kind in ("scores", "curves") else "")


def difference_lines(study: Study) -> list[str]:
    """Return a line per comparison with its difference and interval."""
    units, rows = Units.of_study(study), effects(study)
    if len(rows) != len(study["comparisons"]):
        return [f"{row.name}: {units.differing(row.estimate)}" for row in rows]
    lines = []
    for row, found in zip(rows, study["comparisons"], strict=True):
        text = difference_text(found["difference"], study["level"], found["pairs"], units)
        values = "" if row.arm in row.name or not row.name else f"{row.name}: "
        lines.append(f"{values}{row.arm} minus {row.against}: {text}")
    return lines


def _margin(study: Study) -> str:
    units = Units.of_study(study)
    amount = units.metric.amount(units.margin(study["margin"]))
    return f"Shaded: the margin, ±{amount}." if known(study["margin"]) else ""


def _hollow(study: Study) -> str:
    return HOLLOW if any(row.word == "inconclusive" for row in effects(study)) else ""


def _forest_caption(study: Study) -> str:
    found, single = study["difference"], len(effects(study)) == 1
    level = level_percent(found.get("level") or study["level"])
    which = "The mean difference with its" if single else "Each row: a mean difference with its"
    strokes = " Small strokes: the pairs." if any(row.seeds for row in effects(study)) else ""
    return (
        f"{which} {level} interval ({found['method']}). {_margin(study)}{_hollow(study)}{strokes}"
    )


def _interval_caption(study: Study) -> str:
    found, pairs = study["difference"], study["pairs"]
    level = level_percent(found.get("level") or study["level"])
    if found["method"] != MONITORED:
        why = "The number of pairs was fixed beforehand: only the last interval is a result."
    elif study["verdict"] == "inconclusive":
        why = f"The study looks after every pair; after {pairs} there is no answer yet."
    else:
        how = "lay within the margin" if study["verdict"] == "equivalent" else "excluded zero"
        why = f"The study looks after every pair, and stopped at {pairs}, when the interval {how}."
    return f"The {level} interval after each pair. {why} {_margin(study)}{_hollow(study)}"


def _differences_caption(study: Study) -> str:
    found = study["difference"]
    if known(found["low"]):
        mean = "with its interval"
    elif identical(found, study["pairs"]):
        mean = "(no interval: the same in all pairs)"
    else:
        mean = "without an interval"
    return f"One mark a seed; the diamond is their mean {mean}. {_margin(study)}{_hollow(study)}"


def _scores_caption(study: Study) -> str:
    joined = len(study["arms"]) == 2 and not unpaired(study)
    lines = " Lines join the runs of a pair." if joined else ""
    return f"One mark a run; the upright line is the mean of an arm's marks.{lines}{_lost(study)}"


def _lost(study: Study) -> str:
    """Return how many runs have no mark, and how they count."""
    lost = sum(run["status"] != "done" for run in study["runs"])
    return (
        f" Without a mark: {lost} of {len(study['runs'])} runs, diverged or failed." if lost else ""
    )


def _curves_caption(study: Study) -> str:
    return "Mean over seeds, with a band of one standard deviation to either side."


def _time_caption(study: Study) -> str:
    return (
        "The same curves by time on this machine. An epoch's time is the median run's, divided by "
        "its epochs; runs side by side slow each other."
    )


def _rates_caption(study: Study) -> str:
    return (
        "On held-out training data. Filled marks were trained for all epochs, hollow ones for "
        "fewer; lines join equal numbers of epochs. Ringed: each arm's best rate. The upright line "
        "is the recipe's rate."
    )


def _cost_caption(study: Study) -> str:
    return "Median time of a run on this machine, and numbers of trainable parameters."


_SINGLE = ("interval", "differences")  # pictures of one comparison
_CAPTIONS: dict[str, Callable[[Study], str]] = {
    "interval": _interval_caption,
    "differences": _differences_caption,
    "scores": _scores_caption,
    "curves": _curves_caption,
    "time": _time_caption,
    "loss": _curves_caption,
    "rates": _rates_caption,
    "cost": _cost_caption,
}
