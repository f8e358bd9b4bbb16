"""Figures besides the verdict: new test examples, limits, gain of pairing, p values.

Rows of (name, text) for the page, and a line for the terminal. None of them decides the verdict.
Not here: the numbers (`stats.crossed`, `stats.classical`). Called by `view` and `terminal`.
"""

from __future__ import annotations

from typing import Any

from relucate.phrases import count
from relucate.report.facts import identical
from relucate.report.numbers import MISSING, Units, known, level_percent, plain

LIMITS = {
    "seed": "the number of pairs: more pairs narrow it, more test examples don't",
    "example": "the number of test examples: more examples narrow it, more pairs don't",
    "interaction": "pairs and test examples alike: more of either narrow it",
}
WHOLE = 1000  # steps: from here on without decimals
SHORT = {
    "seed": "more pairs would narrow it",
    "example": "more test examples would narrow it",
    "interaction": "more pairs or more test examples would narrow it",
}


def rows(comparison: dict[str, Any], units: Units) -> list[tuple[str, str]]:
    """Return the figures besides the verdict of a comparison as (name, text) rows."""
    return [
        *_examples(comparison, units),
        *_learning(comparison, units),
        *_pairing(comparison),
        *_classical(comparison, units),
    ]


def line(comparison: dict[str, Any], units: Units) -> str:
    """Return the interval that treats the test examples as a sample too, or "".

    >>> from relucate.train.metric import ACCURACY
    >>> line({"examples": None}, Units(ACCURACY))
    ''
    """
    found = comparison.get("examples")
    if not found:
        return ""
    span = units.interval(found["low"], found["high"])
    limit = SHORT.get(found["split"]["limit"])
    return f"for new test examples too: {span}" + (f" ({limit})" if limit else "")


def _examples(comparison: dict[str, Any], units: Units) -> list[tuple[str, str]]:
    pairs, found = comparison["pairs"], comparison.get("examples")
    if not found:
        return []
    level = level_percent(found["level"])
    parts = found["split"]["parts"]
    total = sum(parts.values())
    rows = [
        (
            f"{level} interval: new seeds, these test examples",
            _span(comparison["difference"], pairs, units),
        ),
        (f"{level} interval: new seeds, new test examples", _span(found, pairs, units)),
        (
            "crossed bootstrap over seeds and examples",
            units.interval(found["bootstrap_low"], found["bootstrap_high"]),
        ),
    ]
    if total > 0:
        shares = {name: f"{100 * part / total:.0f} %" for name, part in parts.items()}
        rows += [
            (
                "variance of the mean difference",
                f"seeds {shares['seed']}, test examples {shares['example']}, "
                f"both together {shares['interaction']}",
            ),
            ("what limits it", LIMITS[found["split"]["limit"]]),
        ]
    return rows


def _learning(comparison: dict[str, Any], units: Units) -> list[tuple[str, str]]:
    found = comparison.get("learning")
    if not found:
        return []
    steps, pairs = found["steps"], comparison["pairs"]
    unit = steps.get("unit", "steps")  # of the user's own training only epochs are known
    digits = 0 if max(map(abs, steps["means"])) >= WHOLE else 1
    missed = [
        f"{pairs - reached} of {pairs} runs of {arm} didn't reach it and count with all {unit}"
        for reached, arm in zip(
            found["reached"], (comparison["against"], comparison["arm"]), strict=True
        )
        if reached < pairs
    ]
    means = [round(mean, digits) for mean in steps["means"]]
    against, arm = (f"{mean:,.{digits}f}" for mean in means)
    ends = (_signed(steps[end], digits) for end in ("low", "high") if known(steps[end]))
    span = " to ".join(ends)
    span = span or _missing(steps, pairs)
    about = "; ".join([f"{arm} against {against}", *missed])
    return [
        (f"mean test {units.metric.name} over all epochs (area under the learning curve)",
         _span(found["area"], pairs, units)),
        (f"{unit} to {units.valued(found['target'])} test {units.metric.name}",
         f"{_signed(means[1] - means[0], digits)} ({span}): {about}"),
    ]  # fmt: skip


def _signed(steps: float, digits: int) -> str:
    """Return a number of steps or epochs, signed unless it rounds to zero."""
    rounded = round(steps, digits)
    return f"{rounded:+,.{digits}f}" if rounded else "0"


def _pairing(comparison: dict[str, Any]) -> list[tuple[str, str]]:
    gain = comparison.get("pairing_gain")
    if not known(gain):
        return []
    text = (
        f"unpaired, {gain:.1f} times as many runs would be as exact"
        if gain >= 1.05
        else "none: unpaired runs would be as exact"
    )
    correlation = plain(comparison["correlation"])
    correlation = "not defined" if correlation == MISSING else correlation
    return [("gain of pairing", f"{text} (correlation {correlation})")]


def _classical(comparison: dict[str, Any], units: Units) -> list[tuple[str, str]]:
    found = comparison.get("classical")
    if not found:
        return []
    level = level_percent(found["level"])
    span = units.interval(found["t_low"], found["t_high"])
    span = "no interval" if span == MISSING else f"{level} interval {span}"
    chance = " to ".join(f"{100 * found[f'superiority_{end}']:.0f}" for end in ("low", "high"))
    return [
        ("Student's t, as if the number of pairs had been fixed",
         f"{span}, p {p_value(found['t_p'])}"),
        ("Wilcoxon signed rank", f"p {p_value(found['wilcoxon_p'])}"),
        (f"chance that {comparison['arm']} is ahead in a pair",
         f"{100 * found['superiority']:.0f} % ({level} interval {chance} %)"),
        ("two one-sided tests (TOST) for the margin", f"p {p_value(found['tost_p'])}"),
    ]  # fmt: skip


def _span(found: dict[str, Any], pairs: int, units: Units) -> str:
    span = units.interval(found["low"], found["high"])
    span = _missing(found, pairs) if span == MISSING else span
    return f"{units.difference(found['estimate'])} ({span})"


def _missing(found: dict[str, Any], pairs: int) -> str:
    """Return why there is no interval."""
    return f"the same in all {count(pairs, 'pair')}" if identical(found, pairs) else "no interval"


def p_value(p: float | None) -> str:
    """Return a p value as text.

    >>> p_value(0.0123), p_value(0.00001), p_value(None)
    ('0.012', 'below 0.001', 'not defined for these differences')
    """
    if not known(p):
        return "not defined for these differences"
    return "below 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
