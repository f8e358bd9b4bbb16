"""What a study's dict says, ready to be worded: shared by the terminal's and the page's views.

Not here: numbers as text (`numbers`), layout. Called by `terminal`, `view` and `html`.
"""

from __future__ import annotations

from typing import Any

from relucate.errors import InputError
from relucate.report.numbers import MISSING, interval, known, level_percent, points

SCHEMA = "relucate.compare/1"


def check_schema(study: dict[str, Any]) -> None:
    """Raise InputError unless the dict calls itself a comparison study that this version reads.

    >>> check_schema({"schema": "relucate.compare/1"})
    """
    schema = study.get("schema")
    if schema != SCHEMA:
        raise InputError(
            f"expected a study with schema '{SCHEMA}', got {schema!r}: "
            "a report is made from what `relucate compare --format json` prints."
        )


def bare_sentence(verdict: str, sentence: str) -> str:
    """Return the verdict's sentence without the verdict's word, where it opens with it.

    >>> bare_sentence("inconclusive", "Inconclusive: after is ahead.")
    'after is ahead.'
    >>> bare_sentence("better", "after is better than before.")
    'after is better than before.'
    """
    opening = f"{verdict}: "
    if not verdict or not sentence.lower().startswith(opening):
        return sentence
    return sentence[len(opening) :]


def sole_winner(study: dict[str, Any]) -> str | None:
    """Return the winning arm of a study of two arms; among more, one pair's winner says little."""
    return study["winner"] if len(study["comparisons"]) == 1 else None


def failed_runs(study: dict[str, Any]) -> dict[str, int]:
    """Return how many runs failed (not: diverged), by arm; arms without any are left out."""
    failed: dict[str, int] = {}
    for run in study["runs"]:
        if run["status"] == "failed":
            failed[run["arm"]] = failed.get(run["arm"], 0) + 1
    return failed


def difference_text(difference: dict[str, Any], level: float) -> str:
    """Return a difference with its interval, level and method, or why there is none.

    >>> difference_text({"estimate": 0.004, "low": None, "high": None, "method": "paired t"}, 0.95)
    '+0.40 points, no interval (paired t)'
    """
    if not known(difference["estimate"]):
        return "no difference: no pair has a result in both arms"
    span = interval(difference["low"], difference["high"])
    at = level_percent(difference.get("level") or level)
    words = "no interval" if span == MISSING else f"{at} interval {span}"
    return f"{points(difference['estimate'])} points, {words} ({difference['method']})"
