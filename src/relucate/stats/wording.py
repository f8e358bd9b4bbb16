"""A verdict as plain language: what was found, how sure it is, and what to do if it isn't.

Every number comes with its interval, the number of pairs and the margin, in the metric's unit.
Differences are stated from the side of the arm that is ahead, so readers need not decode a sign.
Not here: deciding (`verdict`), tables and plots (`report`). Called by `study`, `report` and `cli`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from relucate.phrases import count
from relucate.stats.scores import Metric
from relucate.stats.verdict import MIN_PAIRS, MOST_PAIRS, Verdict
from relucate.stats.welch import UnpairedDifference


def sentence(verdict: Verdict, label_a: str, label_b: str, metric: Metric) -> str:
    """Return the verdict in a sentence, with one on the pairs needed and one on diverged runs.

    Args:
        verdict: from `decide`.
        label_a, label_b: what to call the arms, such as 'linear-norm-act'.
        metric: what was scored; it gives the unit of differences and decides which arm is ahead.

    >>> from relucate.stats import decide, paired_difference
    >>> from relucate.train.metric import Metric
    >>> error = Metric("MAE", lower_is_better=True, unit="mm")
    >>> d = paired_difference([9.0, 9.1, 8.9, 9.0], [9.3, 9.3, 9.2, 9.3])
    >>> text = sentence(decide(d, margin=0.1, lower_is_better=True), "before", "after", error)
    >>> print(text.split(", and ")[0])
    before is better than after: MAE lower by 0.28 mm (95 % interval 0.20 to 0.35, 4 pairs)
    """
    view = _view(verdict, (label_a, label_b), metric, metric.lower_is_better)
    forms = {"better": _better, "equivalent": _equivalent, "inconclusive": _inconclusive}
    return forms[verdict.verdict](view) + _divergence(view)


def dependence(
    verdict: Verdict,
    order: str,
    first: str,
    factor: str,
    values: tuple[str, str],
    metric: Metric,
    diverged: tuple[int, int] = (0, 0),
) -> str:
    """Return a sentence on whether an order's effect depends on a factor.

    Args:
        verdict: on the effect (score of `order` minus that of `first`) with the second value
            minus the effect with the first value.
        factor, values: the varied option, and its two values.
        metric: what was scored.
        diverged: number of diverged runs with each value.

    >>> from relucate.stats import decide, paired_difference
    >>> d = paired_difference([0.00, 0.01, 0.00, 0.01], [0.03, 0.03, 0.03, 0.04])
    >>> from relucate.train.metric import Metric
    >>> asked = "after", "before", "act", ("relu", "tanh")
    >>> text = dependence(decide(d, margin=0.005), *asked, Metric("AUC"))
    >>> text.partition(": ")[0]
    'The effect of after against before depends on act'
    """
    view = _view(verdict, values, metric, lower_is_better=False)  # the larger effect leads
    effect = f"effect of {order} against {first}"
    if verdict.reason == "all runs diverged":
        lost = " or ".join(values[k] for k in (0, 1) if diverged[k] == max(diverged))
        why = f"every run with {lost} diverged"
        return f"It is unknown whether the {effect} depends on {factor}: {why}."
    counts = [f"{count(k, 'run')} with {v}" for k, v in zip(diverged, values, strict=True) if k]
    tail = f" {' and '.join(counts)} diverged and count with the worst score." if counts else ""
    above = (
        f"with {view.ahead} it is {metric.amount('+' + view.number(view.lead))} above what it is "
        f"with {view.behind}"
    )
    if verdict.verdict == "better":
        return f"The {effect} depends on {factor}: {above} ({view.evidence}).{tail}"
    if verdict.verdict == "equivalent":
        return (
            f"The {effect} doesn't depend on {factor} by more than the margin of {view.margin}: "
            f"{above} ({view.evidence}).{tail}"
        )
    return (
        f"Whether the {effect} depends on {factor} stays open: {above} ({view.evidence}). "
        f"{_outlook(view)}{tail}"
    )


@dataclass(frozen=True)
class _View:
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
        """The lead with its unit and the name of the metric, if higher is better."""
        of = " of" if self.metric.unit else ""
        return f"{self.metric.amount(self.number(self.lead))}{of} {self.metric.name}"

    @property
    def lower(self) -> str:
        """The lead of a metric where lower is better."""
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
    def unpaired(self) -> bool:
        return isinstance(self.verdict.difference, UnpairedDifference)

    @property
    def pairs(self) -> str:
        if self.unpaired:
            return f"{self.runs} runs"
        return count(self.verdict.difference.n, "pair")

    @property
    def runs(self) -> str:
        """The number of runs of each arm."""
        first, second = self.verdict.difference.counts
        return f"{first:,} and {second:,}"

    @property
    def units(self) -> str:
        """What more of would help."""
        return "runs of each arm" if self.unpaired else "pairs"

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


def _view(
    verdict: Verdict, labels: tuple[str, str], metric: Metric, lower_is_better: bool
) -> _View:
    d, scale = verdict.difference, metric.scale
    low, high = (None if end is None else end * scale for end in (d.low, d.high))
    first_leads = d.estimate > 0 if lower_is_better else d.estimate < 0
    if d.estimate < 0 and low is not None and high is not None:
        low, high = -high, -low
    ahead, behind = labels if first_leads else labels[::-1]
    lead = abs(d.estimate) * scale
    digits = _decimals(decimals(verdict.margin * scale), low, high)
    return _View(verdict, metric, labels, ahead, behind, lead, low, high, digits)


def decimals(margin: float | None) -> int:
    """Return the decimals for differences of the size of a margin: 2, or 3 to 6 if it is small.

    >>> decimals(5.0), decimals(0.5), decimals(0.002), decimals(None)
    (2, 2, 4, 2)
    """
    return 2 if not margin else min(6, max(2, 1 - math.floor(math.log10(margin))))


def _decimals(least: int, *ends: float | None) -> int:
    """Return `least`, or up to two more if an end of the interval would round to 0."""
    smallest = min((abs(end) for end in ends if end), default=1.0)
    more = (digits for digits in (least, least + 1) if round(smallest, digits) > 0)
    return next(more, least + 2)


def _better(view: _View) -> str:
    whole = "it" if view.verdict.difference.degenerate else "the whole interval"
    tail = (
        f"and {whole} lies beyond the margin of {view.margin}"
        if view.verdict.clears_margin
        else f"but the gain may be smaller than the margin of {view.margin}"
    )
    gain = view.lower if view.metric.lower_is_better else f"+{view.amount}"
    return f"{view.ahead} is better than {view.behind}: {gain} ({view.evidence}), {tail}."


def _equivalent(view: _View) -> str:
    a, b = view.labels
    start = f"{a} and {b} are equivalent within the margin of {view.margin}: "
    if view.verdict.excludes_zero:
        return start + (
            f"{view.is_ahead} ({view.evidence}), a real difference but smaller than the margin."
        )
    return f"{start}{_who_leads(view)} ({view.evidence})."


def _inconclusive(view: _View) -> str:
    forms = {
        "all runs diverged": _all_diverged,
        "too few pairs": _too_few,
        "identical differences": _identical,
    }
    return "Inconclusive: " + forms.get(view.verdict.reason or "", _too_wide)(view)


def _all_diverged(view: _View) -> str:
    return (
        f"every run of both arms diverged ({view.pairs}), so there is nothing to compare: "
        "try a lower learning rate."
    )


def _too_few(view: _View) -> str:
    n = view.verdict.difference.n
    there = f"are {view.runs}" if view.unpaired else f"{'is' if n == 1 else 'are'} {n}"
    return (
        f"a verdict needs at least {MIN_PAIRS} {view.units}, and there {there}; "
        f"so far {_who_leads(view)} ({_so_far(view)}, margin {view.margin})."
    )


def _so_far(view: _View) -> str:
    n = view.verdict.difference.n
    return f"the same in {n} pairs" if view.verdict.difference.degenerate else view.interval


def _identical(view: _View) -> str:
    return (
        f"{_who_leads(view)}, the same in all {view.pairs}, so the spread can't be estimated "
        f"(margin {view.margin}). With {view.verdict.pairs_needed} such pairs a sign test decides."
    )


def _too_wide(view: _View) -> str:
    return (
        f"{_who_leads(view)} ({view.evidence}), which neither excludes zero nor fits within the "
        f"margin of {view.margin}. {_outlook(view)}"
    )


def _outlook(view: _View) -> str:
    needed = view.verdict.pairs_needed
    if needed is None:
        return f"It would take more than {MOST_PAIRS:,} {view.units} to settle it."
    return (
        f"About {needed:,} {view.units} in all would settle it, "
        "if the difference and its spread stay as they are."
    )


def _who_leads(view: _View) -> str:
    if view.is_tie:
        return f"both have the same {view.metric.name} on average"
    return view.is_ahead


def _divergence(view: _View) -> str:
    metric, runs = view.metric, view.verdict.difference.counts
    if view.verdict.reason == "all runs diverged" or not any(view.verdict.diverged):
        return ""
    arms = zip(view.verdict.diverged, runs, view.labels, strict=True)
    counts = [f"{lost} of {count(n, 'run')} of {label}" for lost, n, label in arms if lost]
    worst = f"{metric.scale * (metric.worst or 0.0):g} {metric.value_unit}".rstrip()
    return (
        f" {' and '.join(counts)} diverged; "
        f"a diverged run counts with the worst score, {metric.named} of {worst}."
    )
