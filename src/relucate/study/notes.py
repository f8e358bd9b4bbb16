"""The notes of a study's document: what a reader has to know besides the numbers.

Not here: what to do next (`next_steps`), the notes of the plan (`Comparison.remarks`). Called by
`document`.
"""

from __future__ import annotations

from collections import Counter

from ..phrases import count, some
from ..train.metric import ACCURACY
from .comparison import Comparison, Seed
from .results import StudyResults


def notes(outcome: StudyResults[Comparison]) -> list[str]:
    """Return what a reader has to know besides the numbers, a sentence each."""
    found, closing = outcome.plan.remarks(outcome.inspection)
    if outcome.plan.intervals > 1:
        what = "intervals" if outcome.plan.factors else "comparisons"
        found.append(
            f"{outcome.plan.intervals} {what} share the error: each interval is at "
            f"{100 * outcome.plan.share:.4g} %, so that all of them hold together at "
            f"{100 * outcome.plan.level:.4g} %"
        )
    done = len(outcome.finished_pairs())
    if outcome.plan.looks and outcome.plan.given_seeds and done < outcome.plan.pairs:
        found.append(
            f"the first {done} of {outcome.plan.pairs} pairs decide, in the order of their "
            "seeds; later ones don't count"
        )
    found += _coarse(outcome)
    found += _constant_predictors(outcome)
    if len(outcome.plan.arms) > 2:  # with two, the verdict's sentence reports it
        found += _lost(outcome)
    found += [*_constant(outcome), *_unequal_losses(outcome), *closing]
    found += _of_runs(outcome)
    found += [result["note"] for result in outcome.failed.values()]
    return found


def _of_runs(outcome: StudyResults[Comparison]) -> list[str]:
    """Return the notes of runs, each once, with the arms whose runs they are of."""
    said: dict[str, Counter[str]] = {}
    for (label, _), result in outcome.results.items():
        if result["note"]:
            said.setdefault(result["note"], Counter())[label] += 1
    runs = Counter(label for label, _ in outcome.results)
    return [f"{note} ({_which(said[note], runs)})" for note in sorted(said)]


def _which(found: Counter[str], runs: Counter[str]) -> str:
    if found == runs:
        return "every run"
    return ", ".join(f"{n} of {count(runs[label], 'run')} of {label}" for label, n in found.items())


def _constant(outcome: StudyResults[Comparison]) -> list[str]:
    """Return a note if the seed, the arm, or both change no score."""
    seeds, units = outcome.finished_pairs(), outcome.plan.metric
    every = [set(outcome.scores(arm, seeds)) for arm in outcome.plan.arms]
    lost = all(outcome.diverged(arm, seeds) == len(seeds) for arm in outcome.plan.arms)
    if len(seeds) < 2 or lost:
        return []
    if any(len(scores) > 1 for scores in every):
        return _twins(outcome, seeds)
    if len(set.union(*every)) == 1:
        score = f"{units.scale * every[0].pop():.6g} {units.value_unit}".rstrip()
        return [
            f"all runs have the same score, {score}: check that the training uses the order and "
            "the seed, and that the score depends on what was trained"
        ]
    return [
        "every seed has the same score within each arm: check that the training uses the seed; "
        "otherwise more runs add nothing"
    ]


def _twins(outcome: StudyResults[Comparison], seeds: list[Seed]) -> list[str]:
    """Return a note on arms with the first one's scores, if a function of the user's gave them."""
    if outcome.inspection.arms or not outcome.inspection.code:  # networks were compared before
        return []
    first, *others = outcome.plan.arms
    wanted = outcome.scores(first, seeds).tolist()
    same = [arm.label for arm in others if outcome.scores(arm, seeds).tolist() == wanted]
    if not same:
        return []
    return [
        f"{some(same)} and {first.label} have the same score in every pair: check that the "
        "training uses the order, as it is given (before, not linear-norm-act)"
    ]


def _unequal_losses(outcome: StudyResults[Comparison]) -> list[str]:
    """Return a note if some arms lost more runs than others: their pairs don't count."""
    lost = {arm.label: 0 for arm in outcome.plan.arms}
    for label, _ in outcome.failed:
        lost[label] += 1
    if len(set(lost.values())) == 1:
        return []
    counts = ", ".join(f"{label} {runs}" for label, runs in lost.items())
    return [
        f"lost runs: {counts}. Their pairs don't count, which favours an arm whose lost runs would "
        "have been its worst"
    ]


def _coarse(outcome: StudyResults[Comparison]) -> list[str]:
    """Return a note if a share of right answers moves in steps larger than the margin."""
    metric, margin = outcome.plan.metric, outcome.plan.margin
    number = outcome.plan.examples
    if metric != ACCURACY or number is None or 1 / number <= margin:
        return []
    step = metric.amount(f"{metric.scale / number:.3g}")
    return [
        f"with {count(number, 'test example')}, one more right answer is {step}, more than the "
        f"margin of {metric.scale * margin:g}: take more test examples or a larger margin"
    ]


def _constant_predictors(outcome: StudyResults[Comparison]) -> list[str]:
    """Return a note on networks that predict the same for every test example, if there are any."""
    seeds = outcome.finished_pairs()
    found = []
    for arm in outcome.plan.arms:
        runs = outcome.runs(arm, seeds)
        if constant := sum(bool(run.get("constant")) for run in runs):
            found.append(f"{constant} of {len(runs)} of {arm.label}")
    if not found:
        return []
    return [
        f"constant predictors: {', '.join(found)} predict the same for every test example, so "
        "their score says nothing about the order: train longer, with another rate or with class "
        "weights"
    ]


def _lost(outcome: StudyResults[Comparison]) -> list[str]:
    """Return a note on diverged runs, if there are any."""
    seeds = outcome.finished_pairs()
    arms = outcome.plan.arms
    lost = [(outcome.diverged(a, seeds), len(outcome.runs(a, seeds)), a.label) for a in arms]
    counts = ", ".join(f"{lost} of {runs} of {label}" for lost, runs, label in lost if lost)
    counted = outcome.plan.metric.diverged
    return [f"diverged runs: {counts}; each counts with {counted}"] if counts else []
