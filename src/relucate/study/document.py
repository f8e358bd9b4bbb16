"""From a study's results to the document that every report shows (schema relucate.compare/2).

Pure data in, JSON-ready data out. Not here: running (`driver`), deciding (`stats`), showing
(`report`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import product
from typing import Any

import numpy as np

from ..errors import InputError
from ..phrases import chosen, shown
from ..stats import PairedDifference, dependence, sentence
from ..stats.classical import classical
from ..stats.crossed import crossed
from ..stats.curves import area, common_target, epochs_to
from .compared import Compared
from .comparison import Comparison, Seed
from .contrasts import Contrast
from .interaction import Interaction, grid
from .next_steps import continuation, next_steps
from .notes import notes
from .probing import probed
from .results import StudyResults
from .words import arm_in_words, effect_in_words, in_words, same_values

SCHEMA = "relucate.compare/2"
IDENTICAL = "sign test, identical differences"


def document(outcome: StudyResults[Comparison], *, command: str) -> dict[str, Any]:
    """Return the study as JSON-ready data: verdict, arms, runs, and their settings."""
    plan = outcome.plan
    seeds = outcome.finished_pairs()
    if not seeds:
        raise InputError("no pair has finished yet, so there is nothing to report.")
    comparisons = [_comparison(outcome, contrast, seeds) for contrast in plan.contrasts]
    main = comparisons[0]
    return {
        "schema": SCHEMA,
        **{key: main[key] for key in ("verdict", "winner")},
        "sentence": _answer(comparisons),
        "metric": {**plan.metric.to_dict(), "worst": plan.metric.worst},
        "margin": plan.margin,
        "level": plan.level,
        **{key: main[key] for key in ("pairs", "correlation", "difference", "differences")},
        "comparisons": comparisons,
        **_varied(outcome, seeds),
        "arms": [_arm(outcome, index, seeds) for index in range(len(plan.arms))],
        "runs": _runs(outcome),
        **plan.settings(outcome.inspection),
        **probed(outcome, comparisons),
        "command": command,
        "continue": continuation(outcome, seeds, command),
        "seconds": outcome.seconds,
        "notes": notes(outcome) + next_steps(outcome, seeds, command),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _answer(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """Return every comparison's sentence, after the values of what is varied."""
    return " ".join(
        f"{values}: {found['sentence']}"
        if (values := chosen(found["values"]))
        else found["sentence"]
        for found in comparisons
    )


def _comparison(
    outcome: StudyResults[Comparison], contrast: Contrast, seeds: list[Seed]
) -> dict[str, Any]:
    arm, against = contrast
    verdict = outcome.verdict(contrast, seeds)
    found = verdict.difference
    return {
        "arm": arm.label,
        "against": against.label,
        "values": same_values(outcome.plan, contrast),
        "verdict": verdict.verdict,
        "winner": {"a": against.label, "b": arm.label}.get(verdict.winner or ""),
        "sentence": sentence(verdict, *in_words(outcome, contrast), outcome.plan.metric),
        "pairs": found.n,
        "pairs_needed": verdict.pairs_needed,
        "correlation": found.correlation,
        "pairing_gain": _gain(outcome, contrast, seeds),
        "difference": {
            "of": f"{arm.label} minus {against.label}",
            **ends(found),
            "sd": found.sd,
            "level": found.level,
            "method": IDENTICAL if found.degenerate else found.method,
            "degenerate": found.degenerate,
        },
        **(_by_pair if outcome.plan.paired else _unpaired)(outcome, contrast, seeds, found),
    }


def _both(
    outcome: StudyResults[Comparison], contrast: Contrast, seeds: list[Seed]
) -> tuple[Any, Any]:
    """Return the scores of the reference and of the arm, (seeds,) each."""
    return outcome.scores(contrast.against, seeds), outcome.scores(contrast.arm, seeds)


def _by_pair(
    outcome: StudyResults[Comparison],
    contrast: Contrast,
    seeds: list[Seed],
    found: PairedDifference,
) -> dict[str, Any]:
    a, b = _both(outcome, contrast, seeds)
    return {
        "differences": [
            {"seed": seed, "value": float(value)} for seed, value in zip(seeds, b - a, strict=True)
        ],
        "examples": _examples(outcome, contrast, seeds, found),
        "learning": _learning(outcome, contrast, seeds),
        "classical": _classical(outcome, contrast, seeds, found),
    }


def _unpaired(
    outcome: StudyResults[Comparison],
    contrast: Contrast,
    seeds: list[Seed],
    found: PairedDifference,
) -> dict[str, Any]:
    nothing = dict.fromkeys(("examples", "learning", "classical"))
    return {"differences": [], **nothing, "runs": list(found.counts)}


def _classical(
    outcome: StudyResults[Comparison],
    contrast: Contrast,
    seeds: list[Seed],
    found: PairedDifference,
) -> dict[str, Any]:
    a, b = _both(outcome, contrast, seeds)
    plan = outcome.plan
    lower = plan.metric.lower_is_better
    figures = classical(a, b, margin=plan.margin, level=plan.share, lower_is_better=lower).to_dict()
    return {**figures, **(dict.fromkeys(("t_low", "t_high")) if found.degenerate else {})}


def _gain(outcome: StudyResults[Comparison], contrast: Contrast, seeds: list[Seed]) -> float | None:
    """Return the factor of unpaired runs over paired ones for the same standard error.

    (var(a) + var(b)) / var(b - a); below 1 if the arms are correlated negatively.
    """
    if len(seeds) < 3 or not outcome.plan.paired:
        return None
    a, b = _both(outcome, contrast, seeds)
    paired = float(np.var(b - a, ddof=1))
    return float(np.var(a, ddof=1) + np.var(b, ddof=1)) / paired if paired > 1e-14 else None


def _examples(
    outcome: StudyResults[Comparison],
    contrast: Contrast,
    seeds: list[Seed],
    found: PairedDifference,
) -> dict[str, Any] | None:
    """Return how far the difference holds beyond these test examples, if that is known."""
    if len(seeds) < 3 or (outcome.examples or 0) < 2 or found.degenerate:
        return None
    if found.low is None or found.high is None:
        return None
    a, b = (outcome.example_scores(which, seeds) for which in (contrast.against, contrast.arm))
    if a is None or b is None:
        return None
    half = (found.high - found.low) / 2
    return crossed(a, b, level=found.level, half_width=half).to_dict()


def _varied(outcome: StudyResults[Comparison], seeds: list[Seed]) -> dict[str, Any]:
    """Return the table and the interactions of a study that varies more than the order."""
    factors = outcome.plan.factors
    if not factors:
        return {"factors": [], "table": [], "interactions": []}
    return {
        "factors": [{"name": name, "values": list(values)} for name, values in factors.items()],
        "table": table(outcome, seeds),
        "interactions": interactions(outcome, seeds),
    }


def table(outcome: StudyResults[Comparison], seeds: list[Seed]) -> list[dict[str, Any]]:
    """Return a row per choice of values: every order's mean, and the orders' effects there.

    An effect is the order's score minus the reference's with the same values, with the study's
    interval and verdict.
    """
    plan = outcome.plan
    return [
        {
            "values": {name: arms[0].varied[name] for name in plan.factors},
            "cells": [
                {
                    "arm": arm.label,
                    "order": arm.name,
                    "mean": float(outcome.scores(arm, seeds).mean()),
                }
                for arm in arms
            ],
            "effects": [
                _effect(outcome, Contrast(arm, arms[plan.reference]), seeds)
                for place, arm in enumerate(arms)
                if place != plan.reference
            ],
        }
        for arms in grid(plan.arms, plan.factors)
    ]


def _effect(
    outcome: StudyResults[Comparison], contrast: Contrast, seeds: list[Seed]
) -> dict[str, Any]:
    verdict = outcome.verdict(contrast, seeds)
    return {
        "order": contrast.arm.name,
        "against": contrast.against.name,
        "verdict": verdict.verdict,
        "winner": {"a": contrast.against.name, "b": contrast.arm.name}.get(verdict.winner or ""),
        **ends(verdict.difference),
    }


def interactions(outcome: StudyResults[Comparison], seeds: list[Seed]) -> list[dict[str, Any]]:
    """Return each question with its answer as JSON-ready data."""
    return [_answered(asked, outcome, seeds) for asked in outcome.plan.interactions]


def _answered(
    asked: Interaction, outcome: StudyResults[Comparison], seeds: list[Seed]
) -> dict[str, Any]:
    verdict = outcome.answer(asked, seeds)
    first, order = asked.orders
    values = (shown(asked.values[0]), shown(asked.values[1]))
    diverged = outcome.lost(asked, seeds)
    return {
        "factor": asked.factor,
        "value": asked.values[1],
        "against": asked.values[0],
        "order": order,
        "minus": first,
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        **ends(verdict.difference),
        "level": verdict.difference.level,
        "pairs": verdict.difference.n,
        "pairs_needed": verdict.pairs_needed,
        "sentence": dependence(
            verdict,
            *effect_in_words(outcome, asked),
            asked.factor,
            values,
            outcome.plan.metric,
            diverged,
            [name for name in outcome.plan.factors if name != asked.factor],
        ),
    }


def ends(found: PairedDifference) -> dict[str, float | None]:
    """Return an estimate with its interval; identical differences have none."""
    low, high = (None, None) if found.degenerate else (found.low, found.high)
    return {"estimate": found.estimate, "low": low, "high": high}


def _learning(
    outcome: StudyResults[Comparison], contrast: Contrast, seeds: list[Seed]
) -> dict[str, Any] | None:
    """Return the differences in area under the learning curve and in steps to a target score.

    A diverged run has the worst score in every epoch that it lacks. It takes all steps, and so does
    a run that doesn't reach the target. The default target is 5 % short of the worse arm's mean
    last score on the curve, without arms of which every run diverged.
    """
    (arm, first), metric = contrast, outcome.plan.metric
    if outcome.schedule(first) is None:
        return None
    lower = metric.lower_is_better
    curves = [[outcome.curve(which, seed) for seed in seeds] for which in (first, arm)]
    nothing = {None, metric.worst}
    if len(seeds) < 2 or any(nothing.issuperset(curve) for rows in curves for curve in rows):
        return None
    areas = [[area(curve) for curve in rows] for rows in curves]
    if any(value is None for rows in areas for value in rows):  # a run without all its scores
        return None
    target = outcome.plan.target
    if target is None:
        last = [float(np.mean([curve[-1] or 0.0 for curve in rows])) for rows in curves]
        kept = [score for score in last if score != metric.worst]
        if not kept:
            return None
        target = common_target(kept, lower_is_better=lower)
    steps, reached = [], []
    for which, rows in zip((first, arm), curves, strict=True):
        epochs, each = outcome.schedule(which) or (0, 0)
        found = [epochs_to(curve, target, lower_is_better=lower) for curve in rows]
        reached.append(sum(epoch is not None for epoch in found))
        steps.append(np.array([each * (epochs if e is None else e) for e in found]))
    return {
        "area": ends(outcome.interval(*areas)),
        "target": float(target),
        "steps": {
            **ends(outcome.interval(*steps)),
            "means": [float(s.mean()) for s in steps],
            **({} if outcome.plan.schedule(first) else {"unit": "epochs"}),
        },
        "reached": reached,
    }


def _arm(outcome: StudyResults[Comparison], index: int, seeds: list[Seed]) -> dict[str, Any]:
    arm = outcome.plan.arms[index]
    report = outcome.plan.report(outcome.inspection, arm)
    scores = outcome.scores(arm, seeds)
    results = outcome.runs(arm, seeds)
    times = [r["seconds"]["total"] for r in results if r["seconds"].get("total") is not None]
    losses = [r["loss"] for r in results if r["loss"] is not None]
    return {
        "label": arm.label,
        "words": arm_in_words(outcome, arm),
        "alias": arm.order and arm.order.alias,
        "order": _order(arm),
        "options": arm.varied,
        "mean": float(scores.mean()),
        "sd": float(scores.std(ddof=1)) if len(scores) > 1 else None,
        "n": len(scores),
        "loss": float(np.mean(losses)) if losses else None,
        "parameters": report.get("parameters"),
        "norm_parameters": report.get("norm_parameters"),
        "seconds": float(np.median(times)) if times else None,  # a process's first run is slow
        "diverged": outcome.diverged(arm, seeds),
    }


def _order(arm: Compared) -> str | None:
    return None if arm.order is None else str(arm.order)


def _runs(outcome: StudyResults[Comparison]) -> list[dict[str, Any]]:
    arms = {arm.label: arm for arm in outcome.plan.arms}
    seeds, rows = outcome.plan.seeds, []
    if outcome.plan.looks:  # pairs after the deciding look don't count
        seeds = seeds[: seeds.index(outcome.finished_pairs()[-1]) + 1]
    found = {**outcome.results, **outcome.failed}
    for seed, label in product(seeds, arms):
        if (result := found.get((label, seed))) is None:
            continue
        trained = outcome.plan.schedule(arms[label]) is not None
        epochs = len(result["curve"].get("epoch", [])) or (0 if trained else None)
        rows.append(
            {
                "arm": label,
                "order": _order(arms[label]),
                "seed": seed,
                "metric": result["metric"],
                "loss": result["loss"],
                "status": result["status"],
                "seconds": result["seconds"].get("total"),
                "epochs": epochs,
                "curve": result["curve"],
                "hash": outcome.hashes.get((label, seed)),
                "note": result["note"],
                **({"scores": result["scores"]} if result.get("scores") else {}),
            }
        )
    return rows
