"""A verdict as plain language: what was found, how sure it is, and what to do if it isn't.

Every number comes with its interval, the number of pairs and the margin, in the metric's unit. A
difference and its interval are always those of the arm minus its reference, as in every table.
Not here: deciding (`verdict`), tables and plots (`report`), what an arm is called (`phrases`).
Called by `study`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from relucate.phrases import Words, count
from relucate.stats.scores import Metric
from relucate.stats.verdict import MIN_PAIRS, MOST_PAIRS, Verdict
from relucate.stats.welch import UnpairedDifference


def sentence(verdict: Verdict, arm: str | Words, against: str | Words, metric: Metric) -> str:
    """Return the verdict in words: the answer, the margin, the pairs needed, the diverged runs.

    Args:
        verdict: from `decide`, on the score of `arm` minus that of `against`.
        arm, against: what to call them; texts are names that a user gave.
        metric: what was scored; it gives the unit of differences and decides which arm is ahead.

    >>> from relucate.phrases import Named, in_words
    >>> from relucate.stats import decide, paired_difference
    >>> from relucate.train.metric import Metric
    >>> error = Metric("MAE", lower_is_better=True, unit="mm")
    >>> d = paired_difference([9.0, 9.1, 8.9, 9.0], [9.3, 9.3, 9.2, 9.3])
    >>> found = decide(d, margin=0.1, lower_is_better=True)
    >>> both = in_words(Named("linear-act-norm", "relu"), Named("linear-norm-act", "relu"))
    >>> print(sentence(found, *both, error).split(" (")[0])
    Norm before the ReLU is better: norm after it is behind with MAE higher by 0.28 mm
    """
    view = _view(verdict, _as_words(arm), _as_words(against), metric)
    forms = {"better": _better, "equivalent": _equivalent, "inconclusive": _inconclusive}
    return forms[verdict.verdict](view) + _divergence(view)


def dependence(
    verdict: Verdict,
    arm: str | Words,
    against: str | Words,
    factor: str,
    values: tuple[str, str],
    metric: Metric,
    diverged: tuple[int, int] = (0, 0),
    over: Sequence[str] = (),
) -> str:
    """Return a sentence on whether an order's effect depends on a factor.

    Args:
        verdict: on the effect (score of `arm` minus that of `against`) with the second value minus
            the effect with the first value.
        factor, values: the varied option, and its two values.
        metric: what was scored.
        diverged: number of diverged runs with each value.
        over: the other factors, which the effect is the mean over.

    >>> from relucate.stats import decide, paired_difference
    >>> d = paired_difference([0.00, 0.01, 0.00, 0.01], [0.03, 0.03, 0.03, 0.04])
    >>> from relucate.train.metric import Metric
    >>> asked = "after", "before", "act", ("relu", "tanh")
    >>> dependence(decide(d, margin=0.005), *asked, Metric("AUC")).split(" (")[0].split(": ")[1]
    'it is 0.0275 higher with tanh than with relu'
    """
    view = _view(verdict, _as_words(arm), _as_words(against), metric)
    effect = f"effect of {view.arm.subject} against {view.against.other}"
    effect += f", averaged over {' and '.join(over)}," if over else ""
    if verdict.reason == "all runs diverged":
        lost = " or ".join(values[k] for k in (0, 1) if diverged[k] == max(diverged))
        why = f"every run with {lost} diverged"
        return f"It is unknown whether the {effect} depends on {factor}: {why}."
    counts = [f"{count(k, 'run')} with {v}" for k, v in zip(diverged, values, strict=True) if k]
    tail = f" {' and '.join(counts)} diverged and count with the worst score." if counts else ""
    change = f"it is {_higher(view)} with {values[1]} than with {values[0]} ({view.evidence})"
    if verdict.verdict == "better":
        return f"The {effect} depends on {factor}: {change}.{tail}"
    if verdict.verdict == "equivalent":
        return (
            f"The {effect} doesn't depend on {factor} by more than the margin of {view.margin}: "
            f"{change}.{tail}"
        )
    return f"Whether the {effect} depends on {factor} stays open: {change}. {_outlook(view)}{tail}"


def _higher(view: _View) -> str:
    """Return how a signed number compares: 0.5 mm higher, or lower."""
    word = "higher" if view.estimate >= 0 else "lower"
    return f"{view.metric.amount(view.number(abs(view.estimate)))} {word}"


def _as_words(name: str | Words) -> Words:
    return name if isinstance(name, Words) else Words(name)


@dataclass(frozen=True)
class _View:
    """A verdict in the unit of sentences: all numbers are of the arm minus its reference."""

    verdict: Verdict
    metric: Metric
    arm: Words
    against: Words
    estimate: float
    low: float | None
    high: float | None
    decimals: int

    @property
    def gap(self) -> str:
        """The difference in words: +0.005 AUC; MAE lower by 0.2 mm."""
        name, size = self.metric.name, self.metric.amount(self.number(abs(self.estimate)))
        if self.is_tie:
            return f"the same {name} on average"
        if self.metric.lower_is_better:
            return f"{name} {'lower' if self.estimate < 0 else 'higher'} by {size}"
        of = " of" if self.metric.unit else ""
        return f"{'-' if self.estimate < 0 else '+'}{size}{of} {name}"

    @property
    def leads(self) -> bool:
        """Whether the arm is ahead of its reference."""
        return (self.estimate < 0) == self.metric.lower_is_better and self.estimate != 0

    @property
    def how_far(self) -> str:
        """By how much the arm is ahead or behind."""
        return f"with {self.gap}" if self.metric.lower_is_better else f"by {self.gap[1:]}"

    @property
    def who_leads(self) -> str:
        """The arm with its place relative to the reference."""
        if self.is_tie:
            return f"{self.arm.subject} and {self.against.other} have {self.gap}"
        other = "" if self.against.clear else f" {self.against.other}"
        place = f"ahead{other and ' of'}{other}" if self.leads else f"behind{other}"
        return f"{self.arm.subject} is {place} {self.how_far}"

    @property
    def is_tie(self) -> bool:
        return float(self.number(self.estimate)) == 0

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
        """The number of runs of the reference and of the arm."""
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


def _view(verdict: Verdict, arm: Words, against: Words, metric: Metric) -> _View:
    d, scale = verdict.difference, metric.scale
    low, high = (None if end is None else end * scale for end in (d.low, d.high))
    digits = decimals_of(decimals(verdict.margin * scale), low, high)
    return _View(verdict, metric, arm, against, d.estimate * scale, low, high, digits)


def decimals(margin: float | None) -> int:
    """Return the decimals for differences of the size of a margin: 2, or 3 to 6 if it is small.

    >>> decimals(5.0), decimals(0.5), decimals(0.002), decimals(None)
    (2, 2, 4, 2)
    """
    return 2 if not margin else min(6, max(2, 1 - math.floor(math.log10(margin))))


def decimals_of(least: int, *ends: float | None) -> int:
    """Return `least`, or up to two more if an end of the interval would round to 0.

    >>> decimals_of(2, -1.18, -0.0038), decimals_of(2, -1.18, 0.0)
    (3, 2)
    """
    smallest = min((abs(end) for end in ends if end), default=1.0)
    more = (digits for digits in (least, least + 1) if round(smallest, digits) > 0)
    return next(more, least + 2)


def _better(view: _View) -> str:
    whole = "It" if view.verdict.difference.degenerate else "The whole interval"
    tail = (
        f"{whole} lies beyond the margin of {view.margin}."
        if view.verdict.clears_margin
        else f"The difference may be smaller than the margin of {view.margin}."
    )
    if view.leads:
        return f"{_is_better(view.arm, view.against)}: {view.gap} ({view.evidence}). {tail}"
    who = f": {view.arm.other}" if view.arm.clear else ", which"
    behind = f"{who} is behind {view.how_far} ({view.evidence})"
    return f"{_is_better(view.against, view.arm)}{behind}. {tail}"


def _is_better(winner: Words, other: Words) -> str:
    than = "" if other.clear else f" than {other.other}"
    return f"{winner.opening} is better{than}"


def _equivalent(view: _View) -> str:
    real = " The difference is real, but smaller than the margin."
    return (
        f"{view.arm.opening} is equivalent to {view.against.other}, within the margin of "
        f"{view.margin}: {view.gap} ({view.evidence})."
        f"{real if view.verdict.excludes_zero else ''}"
    )


def _inconclusive(view: _View) -> str:
    forms = {
        "all runs diverged": _all_diverged,
        "one arm diverged": _one_diverged,
        "too few pairs": _too_few,
        "identical differences": _identical,
    }
    return "Inconclusive: " + forms.get(view.verdict.reason or "", _too_wide)(view)


def _all_diverged(view: _View) -> str:
    return (
        f"every run of both arms diverged ({view.pairs}), so there is nothing to compare: "
        "try a lower learning rate."
    )


def _one_diverged(view: _View) -> str:
    lost = view.verdict.diverged[1] == view.verdict.difference.counts[1]
    gone, other = (view.arm, view.against) if lost else (view.against, view.arm)
    return (
        f"every run of {gone.subject} diverged ({view.pairs}), and {other.subject} is ahead of "
        f"what they count with by less than the margin of {view.margin}: try a lower learning rate."
    )


def _too_few(view: _View) -> str:
    n = view.verdict.difference.n
    there = f"are {view.runs}" if view.unpaired else f"{'is' if n == 1 else 'are'} {n}"
    return (
        f"a verdict needs at least {MIN_PAIRS} {view.units}, and there {there}; "
        f"so far {view.who_leads} ({_so_far(view)}, margin {view.margin})."
    )


def _so_far(view: _View) -> str:
    n = view.verdict.difference.n
    return f"the same in {n} pairs" if view.verdict.difference.degenerate else view.interval


def _identical(view: _View) -> str:
    return (
        f"{view.who_leads}, the same in all {view.pairs}, so the spread can't be estimated "
        f"(margin {view.margin}). With {view.verdict.pairs_needed} such pairs a sign test decides."
    )


def _too_wide(view: _View) -> str:
    return (
        f"{view.who_leads} ({view.evidence}). The interval includes zero and goes beyond the "
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


def _divergence(view: _View) -> str:
    metric, runs = view.metric, view.verdict.difference.counts
    if view.verdict.reason == "all runs diverged" or not any(view.verdict.diverged):
        return ""
    arms = zip(view.verdict.diverged, runs, (view.against, view.arm), strict=True)
    counts = [f"{lost} of {count(n, 'run')} of {arm.subject}" for lost, n, arm in arms if lost]
    return f" {' and '.join(counts)} diverged; a diverged run counts with {metric.diverged}."
