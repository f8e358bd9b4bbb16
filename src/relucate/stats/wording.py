"""A verdict as plain language: what was found, how sure it is, and what to do if it isn't.

Every number comes with its interval, the number of pairs and the margin, in the metric's unit.
Differences are told from the side of the arm that is ahead, so that no reader has to decode a sign.
Not here: deciding (`verdict`), tables and plots (`report`). Called by `study`, `report` and `cli`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from relucate.phrases import count
from relucate.stats.scores import Metric
from relucate.stats.verdict import MIN_PAIRS, MOST_PAIRS, Verdict


def sentence(verdict: Verdict, label_a: str, label_b: str, metric: Metric) -> str:
    """Return the verdict in one sentence, plus one for what it would take and one for divergence.

    Args:
        verdict: from `decide`.
        label_a, label_b: what to call the arms, such as 'linear-norm-act'.
        metric: what was scored; differences are told in its unit, and its direction says which arm
            is ahead.

    >>> from relucate.stats import decide, paired_difference
    >>> from relucate.train.metric import Metric
    >>> error = Metric("MAE", lower_is_better=True, unit="mm")
    >>> d = paired_difference([9.0, 9.1, 8.9, 9.0], [9.3, 9.3, 9.2, 9.3])
    >>> text = sentence(decide(d, margin=0.1, lower_is_better=True), "before", "after", error)
    >>> print(text.split(", and ")[0])
    before is better than after: MAE lower by 0.28 mm (95 % interval 0.20 to 0.35, 4 pairs)
    """
    told = _told(verdict, (label_a, label_b), metric, metric.lower_is_better)
    forms = {"better": _better, "equivalent": _equivalent, "inconclusive": _inconclusive}
    return forms[verdict.verdict](told) + _divergence(told)


def dependence(
    verdict: Verdict,
    order: str,
    first: str,
    factor: str,
    values: tuple[str, str],
    metric: Metric,
    diverged: tuple[int, int] = (0, 0),
) -> str:
    """Return in one sentence whether an order's effect depends on a factor.

    Args:
        verdict: on the effect (score of `order` minus that of `first`) with the second value
            minus the effect with the first value.
        factor, values: what is varied, and the two values.
        metric: what was scored.
        diverged: how many runs with each value did.

    >>> from relucate.stats import decide, paired_difference
    >>> d = paired_difference([0.00, 0.01, 0.00, 0.01], [0.03, 0.03, 0.03, 0.04])
    >>> from relucate.train.metric import Metric
    >>> asked = "after", "before", "act", ("relu", "tanh")
    >>> text = dependence(decide(d, margin=0.005), *asked, Metric("AUC"))
    >>> text.partition(": ")[0]
    'The effect of after against before depends on act'
    """
    told = _told(verdict, values, metric, lower_is_better=False)  # which effect is the larger
    effect = f"effect of {order} against {first}"
    if verdict.reason == "all runs diverged":
        lost = " or ".join(values[k] for k in (0, 1) if diverged[k] == max(diverged))
        return (
            f"Whether the {effect} depends on {factor} can't be told: every run with {lost} "
            "diverged."
        )
    counts = [f"{count(k, 'run')} with {v}" for k, v in zip(diverged, values, strict=True) if k]
    tail = f" {' and '.join(counts)} diverged and count with the worst score." if counts else ""
    above = (
        f"with {told.ahead} it is {metric.amount('+' + told.number(told.lead))} above what it is "
        f"with {told.behind}"
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
    def amount(self) -> str:
        """The lead with its unit and the metric's name, of a metric where higher is better."""
        of = " of" if self.metric.unit else ""
        return f"{self.metric.amount(self.number(self.lead))}{of} {self.metric.name}"

    @property
    def lower(self) -> str:
        """The lead in a metric where lower is better."""
        return f"{self.metric.name} lower by {self.metric.amount(self.number(self.lead))}"

    @property
    def is_ahead(self) -> str:
        """Which arm is ahead, and by how much."""
        how = f"with {self.lower}" if self.metric.lower_is_better else f"by {self.amount}"
        return f"{self.ahead} is ahead {how}"

    @property
    def is_tie(self) -> bool:
        return float(self.number(self.lead)) == 0

    @property
    def margin(self) -> str:
        return self.metric.amount(f"{self.verdict.margin * self.metric.scale:g}")

    @property
    def pairs(self) -> str:
        return count(self.verdict.difference.n, "pair")

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


def _told(
    verdict: Verdict, labels: tuple[str, str], metric: Metric, lower_is_better: bool
) -> _Told:
    d, scale = verdict.difference, metric.scale
    low, high = (None if end is None else end * scale for end in (d.low, d.high))
    first_leads = d.estimate > 0 if lower_is_better else d.estimate < 0
    if d.estimate < 0 and low is not None and high is not None:
        low, high = -high, -low
    ahead, behind = labels if first_leads else labels[::-1]
    lead = abs(d.estimate) * scale
    digits = _decimals(decimals(verdict.margin * scale), low, high)
    return _Told(verdict, metric, labels, ahead, behind, lead, low, high, digits)


def decimals(margin: float | None) -> int:
    """Return how many decimals show differences of the size of a margin: 2, or 3 to 6 for a small.

    >>> decimals(5.0), decimals(0.5), decimals(0.002), decimals(None)
    (2, 2, 4, 2)
    """
    return 2 if not margin else min(6, max(2, 1 - math.floor(math.log10(margin))))


def _decimals(least: int, *ends: float | None) -> int:
    """Return `least`, or up to two more where an interval's end above 0 would be printed as 0."""
    smallest = min((abs(end) for end in ends if end), default=1.0)
    more = (digits for digits in (least, least + 1) if round(smallest, digits) > 0)
    return next(more, least + 2)


def _better(told: _Told) -> str:
    whole = "it" if told.verdict.difference.degenerate else "the whole interval"
    tail = (
        f"and {whole} lies beyond the margin of {told.margin}"
        if told.verdict.clears_margin
        else f"but the gain may be smaller than the margin of {told.margin}"
    )
    gain = told.lower if told.metric.lower_is_better else f"+{told.amount}"
    return f"{told.ahead} is better than {told.behind}: {gain} ({told.evidence}), {tail}."


def _equivalent(told: _Told) -> str:
    a, b = told.labels
    start = f"{a} and {b} are equivalent within the margin of {told.margin}: "
    if told.verdict.excludes_zero:
        return start + (
            f"{told.is_ahead} ({told.evidence}), a real difference but smaller than the margin."
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
    return told.is_ahead


def _divergence(told: _Told) -> str:
    n, metric = told.verdict.difference.n, told.metric
    if told.verdict.reason == "all runs diverged" or not any(told.verdict.diverged):
        return ""
    arms = zip(told.verdict.diverged, told.labels, strict=True)
    counts = [f"{lost} of {count(n, 'run')} of {label}" for lost, label in arms if lost]
    worst = f"{metric.scale * (metric.worst or 0.0):g} {metric.value_unit}".rstrip()
    return (
        f" {' and '.join(counts)} diverged; "
        f"a diverged run counts with the worst score, {metric.named} of {worst}."
    )
