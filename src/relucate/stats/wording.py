"""A verdict as plain language: what was found, how sure it is, and what to do if it isn't.

The number never stands without its interval, the number of pairs and the margin. Differences are
told from the side of the arm that is ahead, so that no reader has to decode a sign.
Not here: deciding (`verdict`), tables and plots (`report`). Called by `study`, `report` and `cli`.
"""

from __future__ import annotations

from dataclasses import dataclass

from relucate.stats.scores import Metric, find_metric
from relucate.stats.verdict import MIN_PAIRS, MOST_PAIRS, Verdict


def sentence(verdict: Verdict, label_a: str, label_b: str, *, metric: str = "accuracy") -> str:
    """Return the verdict in one sentence, plus one for what it would take and one for divergence.

    Args:
        verdict: from `decide`.
        label_a, label_b: what to call the arms, such as 'linear-norm-act'.
        metric: name of the metric; differences are told in its unit (accuracy: points).

    Raises:
        InputError: the metric is unknown.

    >>> from relucate.stats import decide, paired_difference
    >>> d = paired_difference([0.90, 0.91, 0.89, 0.90], [0.93, 0.93, 0.92, 0.93])
    >>> text = sentence(decide(d, margin=0.005), "before", "after")
    >>> print(text.split(", and ")[0])
    after is better than before: +2.75 points of accuracy (95 % interval 1.95 to 3.55, 4 pairs)
    """
    told = _told(verdict, (label_a, label_b), find_metric(metric))
    forms = {"better": _better, "equivalent": _equivalent, "inconclusive": _inconclusive}
    return forms[verdict.verdict](told) + _divergence(told)


def dependence(
    verdict: Verdict,
    order: str,
    first: str,
    factor: str,
    values: tuple[str, str],
    diverged: tuple[int, int] = (0, 0),
) -> str:
    """Return in one sentence whether an order's effect depends on a factor.

    Args:
        verdict: on the effect (accuracy of `order` minus that of `first`) with the second value
            minus the effect with the first value.
        factor, values: what is varied, and the two values.
        diverged: how many runs with each value did.

    >>> from relucate.stats import decide, paired_difference
    >>> d = paired_difference([0.00, 0.01, 0.00, 0.01], [0.03, 0.03, 0.03, 0.04])
    >>> text = dependence(decide(d, margin=0.005), "after", "before", "act", ("relu", "tanh"))
    >>> text.partition(": ")[0]
    'The effect of after against before depends on act'
    """
    told = _told(verdict, values, find_metric("accuracy"))
    effect = f"effect of {order} against {first}"
    if verdict.reason == "all runs diverged":
        lost = " or ".join(values[k] for k in (0, 1) if diverged[k] == max(diverged))
        return (
            f"Whether the {effect} depends on {factor} can't be told: every run with {lost} "
            "diverged."
        )
    counts = [f"{_count(k, 'run')} with {v}" for k, v in zip(diverged, values, strict=True) if k]
    tail = f" {' and '.join(counts)} diverged and count with the worst score." if counts else ""
    above = (
        f"with {told.ahead} it is +{told.number(told.lead)} points above what it is with "
        f"{told.behind}"
    )
    if verdict.verdict == "better":
        return f"The {effect} depends on {factor}: {above} ({told.evidence}).{tail}"
    if verdict.verdict == "equivalent":
        return (
            f"The {effect} doesn't depend on {factor} by more than the margin of {told.margin}: "
            f"{above} ({told.evidence}).{tail}"
        )
    return (
        f"Whether the {effect} depends on {factor} stays open: {above} ({told.evidence}). "
        f"{_outlook(told)}{tail}"
    )


@dataclass(frozen=True)
class _Told:
    """A verdict seen from the side of the arm that is ahead, in the unit of sentences."""

    verdict: Verdict
    metric: Metric
    labels: tuple[str, str]
    ahead: str
    behind: str
    lead: float  # of `ahead`, at least 0
    low: float | None
    high: float | None
    decimals: int

    @property
    def gain(self) -> str:
        return f"{self.number(self.lead)} {self.metric.unit}s of {self.metric.name}"

    @property
    def is_tie(self) -> bool:
        return float(self.number(self.lead)) == 0

    @property
    def margin(self) -> str:
        text = f"{self.verdict.margin * self.metric.scale:g}"
        return f"{text} {self.metric.unit}{'' if text == '1' else 's'}"

    @property
    def pairs(self) -> str:
        return _count(self.verdict.difference.n, "pair")

    @property
    def interval(self) -> str:
        if self.low is None or self.high is None:
            return "no interval"
        level = f"{100 * self.verdict.difference.level:.4g} %"
        return f"{level} interval {self.number(self.low)} to {self.number(self.high)}"

    @property
    def evidence(self) -> str:
        if self.verdict.difference.degenerate:
            decided = "" if self.verdict.reason else ", by a sign test"
            return f"the same in all {self.pairs}{decided}"
        return f"{self.interval}, {self.pairs}"

    def number(self, value: float) -> str:
        text = f"{value:.{self.decimals}f}"
        return text.lstrip("-") if float(text) == 0 else text


def _told(verdict: Verdict, labels: tuple[str, str], metric: Metric) -> _Told:
    d, scale = verdict.difference, metric.scale
    low, high = (None if end is None else end * scale for end in (d.low, d.high))
    mirrored = d.estimate < 0
    if mirrored and low is not None and high is not None:
        low, high = -high, -low
    ahead, behind = labels if mirrored else labels[::-1]
    lead = abs(d.estimate) * scale
    return _Told(verdict, metric, labels, ahead, behind, lead, low, high, _decimals(low, high))


def _decimals(*ends: float | None) -> int:
    """Return 2, or up to 4 where an interval's end that isn't zero would be printed as zero."""
    smallest = min((abs(end) for end in ends if end), default=1.0)
    return next((digits for digits in (2, 3) if round(smallest, digits) > 0), 4)


def _better(told: _Told) -> str:
    whole = "it" if told.verdict.difference.degenerate else "the whole interval"
    tail = (
        f"and {whole} lies beyond the margin of {told.margin}"
        if told.verdict.clears_margin
        else f"but the gain may be smaller than the margin of {told.margin}"
    )
    return f"{told.ahead} is better than {told.behind}: +{told.gain} ({told.evidence}), {tail}."


def _equivalent(told: _Told) -> str:
    a, b = told.labels
    start = f"{a} and {b} are equivalent within the margin of {told.margin}: "
    if told.verdict.excludes_zero:
        return start + (
            f"{told.ahead} is ahead by {told.gain} ({told.evidence}), "
            "a real difference but smaller than the margin."
        )
    return f"{start}{_standing(told)} ({told.evidence})."


def _inconclusive(told: _Told) -> str:
    forms = {
        "all runs diverged": _all_diverged,
        "too few pairs": _too_few,
        "identical differences": _identical,
    }
    return "Inconclusive: " + forms.get(told.verdict.reason or "", _too_wide)(told)


def _all_diverged(told: _Told) -> str:
    return (
        f"every run of both arms diverged ({told.pairs}), so there is nothing to compare: "
        "try a lower learning rate."
    )


def _too_few(told: _Told) -> str:
    n = told.verdict.difference.n
    return (
        f"a verdict needs at least {MIN_PAIRS} pairs, and there {'is' if n == 1 else 'are'} {n}; "
        f"so far {_standing(told)} ({_so_far(told)}, margin {told.margin})."
    )


def _so_far(told: _Told) -> str:
    n = told.verdict.difference.n
    return f"the same in {n} pairs" if told.verdict.difference.degenerate else told.interval


def _identical(told: _Told) -> str:
    return (
        f"{_standing(told)}, the same in all {told.pairs}, so the spread can't be estimated "
        f"(margin {told.margin}). With {told.verdict.pairs_needed} such pairs a sign test decides."
    )


def _too_wide(told: _Told) -> str:
    return (
        f"{_standing(told)} ({told.evidence}), which neither excludes zero nor fits within the "
        f"margin of {told.margin}. {_outlook(told)}"
    )


def _outlook(told: _Told) -> str:
    needed = told.verdict.pairs_needed
    if needed is None:
        return f"It would take more than {MOST_PAIRS:,} pairs to settle it."
    return (
        f"About {needed:,} pairs in all would settle it, "
        "if the difference and its spread stay as they are."
    )


def _standing(told: _Told) -> str:
    if told.is_tie:
        return f"both have the same {told.metric.name} on average"
    return f"{told.ahead} is ahead by {told.gain}"


def _divergence(told: _Told) -> str:
    n = told.verdict.difference.n
    if told.verdict.reason == "all runs diverged" or not any(told.verdict.diverged):
        return ""
    arms = zip(told.verdict.diverged, told.labels, strict=True)
    counts = [f"{count} of {_count(n, 'run')} of {label}" for count, label in arms if count]
    return (
        f" {' and '.join(counts)} diverged; "
        f"a diverged run counts with the worst score, {told.metric.worst_text}."
    )


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
