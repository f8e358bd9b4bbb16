"""Facts of a study's dict, used by the terminal's and the page's views.

Not here: numbers as text (`numbers`), layout. Called by `terminal`, `view` and `html`.
"""

from __future__ import annotations

from typing import Any

from relucate.errors import InputError
from relucate.phrases import chosen, count
from relucate.report import shape
from relucate.report.numbers import MISSING, Units, known, level_percent
from relucate.train.metric import ACCURACY

FIRST_SCHEMA, SCHEMA = "relucate.compare/1", "relucate.compare/2"
SAME = "same in all pairs"  # instead of an interval
NO_RESULT = "no pair has a result in both arms"
LOOKED_AT = 3  # with this many pairs a difference has an interval unless it is always the same


def current(study: dict[str, Any]) -> dict[str, Any]:
    """Return a study in today's schema.

    Raises: InputError: the dict isn't a comparison study that this version reads, or a part of it
    is missing or wrong.
    """
    found = _upgraded(study)
    shape.check(found)
    return found


def _upgraded(study: dict[str, Any]) -> dict[str, Any]:
    """Return a study in today's schema; the first schema named its metric in a word.

    >>> _upgraded({"schema": "relucate.compare/1", "metric": "accuracy"})["metric"]["scale"]
    100.0
    """
    schema = study.get("schema")
    if schema == SCHEMA:
        return study
    if schema != FIRST_SCHEMA:
        raise InputError(
            f"expected a study with schema '{SCHEMA}' or '{FIRST_SCHEMA}', got {schema!r:.60}: "
            "a report is made from what `relucate compare --format json` prints."
        )
    return {**study, "schema": SCHEMA, "metric": {**ACCURACY.to_dict(), "worst": ACCURACY.worst}}


def each_metric(study: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the documents of a study's metrics, one unless several share its error."""
    first = {key: value for key, value in study.items() if key != "further"}
    return [measured(one) for one in (first, *(study.get("further") or []))]


def all_lost(arm: dict[str, Any]) -> bool:
    """Return whether every run of an arm diverged, so that nothing was measured."""
    return arm["n"] > 0 and arm["diverged"] >= arm["n"]


def measured(study: dict[str, Any]) -> dict[str, Any]:
    """Return a study without the numbers that only stand for diverged runs.

    A diverged run counts with the worst score. An arm of which every run diverged has no mean, and
    two such arms have no difference.
    """
    lost = {arm["label"] for arm in study["arms"] if all_lost(arm)}
    if not lost:
        return study
    found = [_without_difference(one, lost) for one in study["comparisons"]]
    top = {key: found[0][key] for key in ("difference", "differences") if key in found[0]}
    arms = [
        arm | ({"mean": None, "sd": None} if arm["label"] in lost else {}) for arm in study["arms"]
    ]
    table = [_row_without(row, lost) for row in study.get("table") or []]
    return {**study, **top, "comparisons": found, "arms": arms, "table": table}


_NO_ENDS = {"estimate": None, "low": None, "high": None}


def _without_difference(comparison: dict[str, Any], lost: set[str]) -> dict[str, Any]:
    if not {comparison["arm"], comparison["against"]} <= lost:
        return comparison
    nothing = {**comparison["difference"], **_NO_ENDS}
    return {**comparison, "difference": nothing, "differences": [], "correlation": None}


def _row_without(row: dict[str, Any], lost: set[str]) -> dict[str, Any]:
    """Return a row of the table of values without what its diverged arms stand for."""
    orders = {cell["order"] for cell in row["cells"] if cell["arm"] in lost}
    cells = [cell | ({"mean": None} if cell["arm"] in lost else {}) for cell in row["cells"]]
    effects = [
        found | (_NO_ENDS if {found["order"], found.get("against")} <= orders else {})
        for found in row["effects"]
    ]
    return {**row, "cells": cells, "effects": effects}


def source(study: dict[str, Any]) -> str:
    """Return what the study is about: model and data, or where its scores come from.

    >>> source({"model": {"name": "cnn"}, "data": {"name": "digits"}})
    'cnn on digits'
    """
    names = [section["name"] for key in ("model", "data") if (section := study.get(key))]
    return " on ".join(names) or (study.get("scores") or {}).get("source") or "scores"


def unpaired(study: dict[str, Any]) -> bool:
    """Return whether all runs of each arm were compared, not seed by seed."""
    return "runs" in study["comparisons"][0]


def runs_text(comparison: dict[str, Any]) -> str:
    """Return on how many pairs, or runs of either arm, a comparison rests.

    >>> runs_text({"pairs": 3}), runs_text({"pairs": 3, "runs": [3, 4]})
    ('3 pairs', '3 and 4 runs')
    """
    if runs := comparison.get("runs"):
        return f"{runs[0]:,} and {runs[1]:,} runs"
    return count(comparison["pairs"], "pair")


def bare_sentence(verdict: str, sentence: str) -> str:
    """Return the verdict's sentence without the verdict's word at its start.

    >>> bare_sentence("inconclusive", "Inconclusive: after is ahead.")
    'after is ahead.'
    >>> bare_sentence("better", "after is better than before.")
    'after is better than before.'
    """
    opening = f"{verdict}: "
    if not verdict or not sentence.lower().startswith(opening):
        return sentence
    return sentence[len(opening) :]


def headline(study: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return what was found as (values, verdict, sentence), a line for each comparison.

    If something varies, a line for each comparison at the same values, which stand before it as
    text; comparisons across values are in tables only.
    """
    found = study["comparisons"]
    if len(found) == 1:
        return [("", str(study["verdict"]), str(study["sentence"]))]
    found = [c for c in found if c.get("values")] or found
    return [(chosen(c.get("values") or {}), str(c["verdict"]), str(c["sentence"])) for c in found]


def short_names(study: dict[str, Any]) -> dict[str, str]:
    """Return what to call orders and arms where there is little room: by the order's alias.

    >>> arm = {"label": "linear-act (act=tanh)", "order": "linear-act", "alias": "none"}
    >>> short_names({"arms": [{**arm, "options": {"act": "tanh"}}]})
    {'linear-act': 'none', 'linear-act (act=tanh)': 'none (tanh)'}
    """
    short: dict[str, str] = {}
    for arm in study["arms"]:
        label, order, values = arm["label"], arm.get("order") or "", arm.get("options") or {}
        name = arm.get("alias") or order
        short |= {order: name} if order else {}
        known = bool(name) and label.startswith(order)
        short[label] = (f"{name} ({chosen(values)})" if values else name) if known else label
    return short


def sole_winner(study: dict[str, Any]) -> str | None:
    """Return the winning arm of a study of two arms; with more arms there is no single winner."""
    return study["winner"] if len(study["comparisons"]) == 1 else None


def arm_verdict(comparison: dict[str, Any]) -> str:
    """Return a comparison's verdict on its arm: "worse" if the other arm is better.

    >>> arm_verdict({"verdict": "better", "winner": "none", "arm": "after", "against": "none"})
    'worse'
    """
    lost = comparison["winner"] == comparison["against"]
    return "worse" if comparison["verdict"] == "better" and lost else str(comparison["verdict"])


def identical(found: dict[str, Any], pairs: int) -> bool:
    """Return whether a difference has no interval because it is the same in all pairs."""
    if not known(found["estimate"]) or known(found["low"]):
        return False
    return bool(found.get("degenerate", pairs >= LOOKED_AT))


def span(found: dict[str, Any], pairs: int, units: Units) -> str:
    """Return a difference's interval, or a few words on why there is none.

    >>> span({"estimate": 0.01, "low": None, "high": None}, 9, Units(ACCURACY))
    'same in all pairs'
    """
    return SAME if identical(found, pairs) else units.interval(found["low"], found["high"])


def failed_runs(study: dict[str, Any]) -> dict[str, int]:
    """Return the number of failed (not diverged) runs by arm; arms without any are left out."""
    failed: dict[str, int] = {}
    for run in study["runs"]:
        if run["status"] == "failed":
            failed[run["arm"]] = failed.get(run["arm"], 0) + 1
    return failed


def difference_text(difference: dict[str, Any], level: float, pairs: int, units: Units) -> str:
    """Return a difference with its interval, level and method, or why there is none.

    >>> found = {"estimate": 0.004, "low": None, "high": None, "method": "paired t"}
    >>> difference_text(found, 0.95, 1, Units(ACCURACY))
    '+0.40 points, no interval (paired t)'
    >>> same = {**found, "degenerate": True, "method": "sign test"}
    >>> difference_text(same, 0.95, 9, Units(ACCURACY))
    '+0.40 points, the same in all 9 pairs (sign test)'
    """
    if not known(difference["estimate"]):
        return f"no difference: {NO_RESULT}"
    ends = units.interval(difference["low"], difference["high"])
    at = level_percent(difference.get("level") or level)
    words = "no interval" if ends == MISSING else f"{at} interval {ends}"
    if identical(difference, pairs):
        words = f"the same in all {count(pairs, 'pair')}"
    return f"{units.differing(difference['estimate'])}, {words} ({difference['method']})"
