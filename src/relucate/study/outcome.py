"""From a study's outcome to the one document that all else shows (schema relucate.compare/1).

Pure data in, JSON-ready data out. Not here: running (`driver`), deciding (`stats`), showing
(`report`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from ..errors import InputError
from ..stats import PairedDifference, Verdict, sentence
from ..stats.classical import classical
from ..stats.crossed import crossed
from .arms import Arm
from .driver import Outcome

SCHEMA = "relucate.compare/1"


def document(outcome: Outcome, *, command: str) -> dict[str, Any]:
    """Return the study as JSON-ready data: verdict, arms, runs, and how they came about."""
    plan = outcome.plan
    seeds = outcome.finished_pairs()
    if not seeds:
        raise InputError("no pair has finished yet, so there is nothing to report.")
    comparisons = [_comparison(outcome, arm, seeds) for arm in plan.arms[1:]]
    main = comparisons[0]
    return {
        "schema": SCHEMA,
        **{key: main[key] for key in ("verdict", "winner", "sentence")},
        "metric": "accuracy",
        "margin": plan.margin,
        "level": plan.level,
        **{key: main[key] for key in ("pairs", "correlation", "difference", "differences")},
        "comparisons": comparisons,
        "arms": [_arm(outcome, index, seeds) for index in range(len(plan.arms))],
        "runs": _runs(outcome),
        "model": {
            "name": plan.source.text,
            "options": dict(plan.source.options),
            "source": plan.source.description,
        },
        "data": {
            "name": plan.data.name,
            "input_shape": list(plan.data.input_shape),
            "classes": plan.data.classes,
            "train": len(plan.data.y_train),
            "test": len(plan.data.y_test),
            "fingerprint": plan.data.fingerprint,
        },
        "recipe": plan.recipe.to_dict(),
        "engine": {
            **outcome.inspection.engine,
            "threads": plan.threads,
            "jobs": plan.workers,
            "precision": plan.recipe.precision,
        },
        "pairing": _pairing(outcome),
        "versions": outcome.inspection.versions,
        "command": command,
        "seconds": outcome.seconds,
        "notes": _notes(outcome) + _going_on(outcome, comparisons),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _comparison(outcome: Outcome, arm: Arm, seeds: list[int]) -> dict[str, Any]:
    first = outcome.plan.arms[0]
    verdict = outcome.verdict(arm, seeds)
    found = verdict.difference
    values = outcome.scores(arm, seeds) - outcome.scores(first, seeds)
    return {
        "arm": arm.label,
        "against": first.label,
        "verdict": verdict.verdict,
        "winner": _winner(verdict, first, arm),
        "sentence": sentence(verdict, first.label, arm.label),
        "pairs": found.n,
        "pairs_needed": verdict.pairs_needed,
        "correlation": found.correlation,
        "pairing_gain": _gain(outcome, arm, seeds),
        "difference": {
            "of": f"{arm.label} minus {first.label}",
            "estimate": found.estimate,
            "low": found.low,
            "high": found.high,
            "sd": found.sd,
            "level": found.level,
            "method": found.method,
        },
        "differences": [
            {"seed": seed, "value": float(value)} for seed, value in zip(seeds, values, strict=True)
        ],
        "examples": _examples(outcome, arm, seeds, found),
        "classical": classical(
            outcome.scores(first, seeds),
            outcome.scores(arm, seeds),
            margin=outcome.plan.margin,
            level=outcome.plan.share,
        ).to_dict(),
    }


def _gain(outcome: Outcome, arm: Arm, seeds: list[int]) -> float | None:
    """Return how many times as many unpaired runs would give the same standard error.

    (var(a) + var(b)) / var(b - a); below 1 where the arms are correlated negatively.
    """
    if len(seeds) < 3:
        return None
    a, b = outcome.scores(outcome.plan.arms[0], seeds), outcome.scores(arm, seeds)
    paired = float(np.var(b - a, ddof=1))
    return float(np.var(a, ddof=1) + np.var(b, ddof=1)) / paired if paired > 1e-14 else None


def _examples(
    outcome: Outcome, arm: Arm, seeds: list[int], found: PairedDifference
) -> dict[str, Any] | None:
    """Return how far the difference reaches beyond these test examples, where that is known."""
    first, examples = outcome.plan.arms[0], len(outcome.plan.data.y_test)
    if len(seeds) < 3 or examples < 2 or found.low is None or found.high is None:
        return None
    a, b = outcome.right(first, seeds), outcome.right(arm, seeds)
    if a is None or b is None:
        return None
    half = (found.high - found.low) / 2
    return crossed(a, b, level=found.level, half_width=half).to_dict()


def _winner(verdict: Verdict, a: Arm, b: Arm) -> str | None:
    return {"a": a.label, "b": b.label}.get(verdict.winner or "")


def _arm(outcome: Outcome, index: int, seeds: list[int]) -> dict[str, Any]:
    arm, report = outcome.plan.arms[index], outcome.inspection.arms[index]
    scores = outcome.scores(arm, seeds)
    results = [outcome.results[arm.label, seed] for seed in seeds]
    seconds = [r["seconds"]["total"] for r in results if r["seconds"].get("total") is not None]
    return {
        "label": arm.label,
        "alias": arm.order.alias,
        "order": str(arm.order),
        "options": dict(arm.options),
        "mean": float(scores.mean()),
        "sd": float(scores.std(ddof=1)) if len(scores) > 1 else None,
        "n": len(scores),
        "parameters": report["parameters"],
        "norm_parameters": report["norm_parameters"],
        "seconds": float(np.mean(seconds)) if seconds else None,
        "diverged": outcome.diverged(arm, seeds),
    }


def _runs(outcome: Outcome) -> list[dict[str, Any]]:
    arms = {arm.label: arm for arm in outcome.plan.arms}
    places = {label: place for place, label in enumerate(arms)}
    rows = []
    found = outcome.results.items()
    if outcome.plan.looks:  # those of pairs beyond the look that decided don't count
        last = outcome.finished_pairs()[-1]
        found = [item for item in found if item[0][1] <= last]
    results = sorted(found, key=lambda item: (item[0][1], places[item[0][0]]))
    for (label, seed), result in results:
        rows.append(
            {
                "arm": label,
                "order": str(arms[label].order),
                "seed": seed,
                "metric": result["metric"],
                "loss": result["loss"],
                "status": result["status"],
                "seconds": result["seconds"].get("total"),
                "epochs": len(result["curve"].get("epoch", [])),
                "curve": result["curve"],
                "hash": outcome.hashes[label, seed],
                "note": result["note"],
            }
        )
    return rows


def _pairing(outcome: Outcome) -> dict[str, Any]:
    arms = outcome.inspection.arms
    return {
        "shared": arms[1]["shared"],
        "tensors": arms[1]["tensors"],
        "only": {arm["label"]: arm["only"] for arm in arms if arm["only"]},
    }


def _going_on(outcome: Outcome, comparisons: list[dict[str, Any]]) -> list[str]:
    """Return how to go on where the pairs weren't enough."""
    needed = [c["pairs_needed"] for c in comparisons if c["verdict"] == "inconclusive"]
    if not outcome.plan.looks or not needed:
        return []
    known = [number for number in needed if number and number > outcome.plan.pairs]
    number = max(known, default=2 * outcome.plan.pairs)
    return [
        f"undecided after {outcome.plan.pairs} pairs: the same command with --max-pairs {number} "
        "goes on from here (max_pairs in Python), with no loss of error control"
    ]


def _notes(outcome: Outcome) -> list[str]:
    notes = [*outcome.plan.data.notes, *outcome.inspection.notes]
    others = len(outcome.plan.arms) - 1
    if others > 1:
        notes.append(
            f"{others} comparisons share the error: each interval is at {outcome.plan.share:.2%}, "
            f"so that all of them hold together at {outcome.plan.level:.0%}"
        )
    if outcome.inspection.engine["name"] == "keras":
        notes.append(f"trained by the keras engine: {outcome.inspection.engine['reason']}")
    counts = {arm["parameters"] for arm in outcome.inspection.arms}
    if len(counts) > 1:
        each = ", ".join(f"{a['label']} {a['parameters']:,}" for a in outcome.inspection.arms)
        notes.append(f"the arms differ in trainable parameters: {each}")
    notes += sorted({r["note"] for r in outcome.results.values() if r["note"]})
    return notes
