"""Plausible studies in the schema relucate.compare/2, random but seeded, for the report's tests.

The numbers are drawn, not trained: a pair shares a seed effect, so that the arms correlate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from markupsafe import escape
from scipy import stats

from relucate.train.metric import ACCURACY

ORDERS = ("linear-norm-act", "linear-act-norm", "norm-linear-act", "linear-act")
ALIASES = {"linear-norm-act": "before", "linear-act-norm": "after", "linear-act": "none"}
MARGIN = 0.005
LEVEL = 0.95


def make_study(
    pairs: int = 10,
    *,
    orders: Sequence[str] = ORDERS[:2],
    effect: float = 0.006,
    spread: float = 0.004,
    epochs: int = 12,
    seed: int = 1,
    lost: dict[tuple[str, int], str] | None = None,
) -> dict[str, Any]:
    """Return a study; `lost` names runs by (order, seed) that ended "diverged" or "failed"."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(0.958, spread, pairs)
    runs = [
        _run(rng, order, pair, shared[pair] + k * effect, epochs, (lost or {}).get((order, pair)))
        for pair in range(pairs)
        for k, order in enumerate(orders)
    ]
    comparisons = [_comparison(runs, order, orders[0]) for order in orders[1:]]
    first = comparisons[0]
    return {
        "schema": "relucate.compare/2",
        **{k: first[k] for k in ("verdict", "winner", "sentence", "correlation", "difference")},
        "metric": {**ACCURACY.to_dict(), "worst": ACCURACY.worst},
        "margin": MARGIN,
        "level": LEVEL,
        "pairs": first["pairs"],
        "differences": first["differences"],
        "comparisons": comparisons,
        "arms": [_arm(runs, order) for order in orders],
        "runs": runs,
        "model": {
            "name": "cnn",
            "options": {"act": "relu", "norm": "batch"},
            "source": "built-in net",
        },
        "data": {
            "name": "digits",
            "input_shape": [8, 8, 1],
            "classes": 10,
            "train": 1437,
            "test": 360,
            "fingerprint": "9f2c41d07ab3",
        },
        "recipe": {
            "epochs": epochs,
            "batch_size": 64,
            "optimizer": "sgd",
            "lr": 0.1,
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 0.0005,
            "schedule": "one-cycle",
            "label_smoothing": 0.0,
        },
        "engine": {
            "name": "torch",
            "reason": "the model lowers faithfully (forward, loss and ten steps agree)",
            "backend": "torch",
            "threads": 1,
            "jobs": 2,
            "precision": "fp32",
        },
        "pairing": {
            "shared": 18,
            "tensors": 20,
            "only": {orders[1]: ["conv1_conv/bias", "conv2_conv/bias"]},
        },
        "versions": {
            "relucate": "0.1.0",
            "python": "3.11.7",
            "torch": "2.13.0",
            "keras": "3.15.0",
            "numpy": "2.3.1",
        },
        "command": f"relucate compare cnn --orders {','.join(orders)} --pairs {pairs}",
        "seconds": 61.2,
        "notes": ["Batch-norm statistics were re-estimated on the training data before each test."],
        "created": "2026-03-02T10:00:00+00:00",
    }


def _run(
    rng: np.random.Generator, order: str, seed: int, level: float, epochs: int, lost: str | None
) -> dict[str, Any]:
    """Return one run that learns towards `level`; a lost one stops half-way without a metric."""
    reached = epochs if lost is None else max(1, epochs // 2)
    time = np.arange(1, reached + 1)
    final = level + rng.normal(0, 0.003)
    speed = 0.9 if order == "linear-act-norm" else 0.7
    accuracy = np.round(
        360 * np.clip(final - 0.7 * np.exp(-speed * time) + rng.normal(0, 0.008, reached), 0, 1)
    )
    loss = 0.05 + 2.2 * np.exp(-0.5 * speed * time) * rng.lognormal(0, 0.08, reached)
    accuracy[-1] = round(360 * final)
    done = lost is None
    return {
        "arm": order,
        "order": order,
        "seed": seed,
        "metric": float(accuracy[-1] / 360) if done else None,
        "loss": float(loss[-1]) if done else None,
        "status": lost or "done",
        "seconds": float(rng.normal(2.2, 0.1)),
        "epochs": int(reached),
        "curve": {
            "epoch": time.tolist(),
            "train_loss": [*loss.tolist()[: reached - (not done)], *([] if done else [None])],
            "accuracy": (accuracy / 360).tolist(),
        },
        "hash": f"{rng.integers(2**60):015x}",
        "note": "" if done else "loss is NaN in epoch 6",
    }


def _arm(runs: list[dict[str, Any]], order: str) -> dict[str, Any]:
    """Return the summary of one arm's runs."""
    mine = [run for run in runs if run["arm"] == order]
    metrics = [run["metric"] for run in mine if run["metric"] is not None]
    return {
        "label": order,
        "alias": ALIASES.get(order),
        "order": order,
        "mean": float(np.mean(metrics)) if metrics else None,
        "sd": float(np.std(metrics, ddof=1)) if len(metrics) > 1 else None,
        "n": len(metrics),
        "parameters": 23_946,
        "norm_parameters": 0 if order == "linear-act" else 448,
        "seconds": float(np.mean([run["seconds"] for run in mine])),
        "diverged": sum(run["status"] == "diverged" for run in mine),
        "options": {},
    }


def _comparison(runs: list[dict[str, Any]], arm: str, against: str) -> dict[str, Any]:
    """Return the paired comparison of two arms with a t interval."""
    metrics = {(run["arm"], run["seed"]): run["metric"] for run in runs}
    seeds = sorted({run["seed"] for run in runs})
    both = [(metrics[arm, s], metrics[against, s]) for s in seeds]
    values = [None if a is None or b is None else a - b for a, b in both]
    kept = np.array([(a, b) for a, b in both if a is not None and b is not None]).reshape(-1, 2)
    difference = _difference(kept[:, 0] - kept[:, 1], arm, against)
    answer = _answer(difference["low"], difference["high"])
    winner = None
    if answer == "better":
        winner = arm if difference["estimate"] > 0 else against
    return {
        "arm": arm,
        "against": against,
        "verdict": answer,
        "winner": winner,
        "difference": difference,
        "differences": [{"seed": s, "value": v} for s, v in zip(seeds, values, strict=True)],
        "correlation": float(np.corrcoef(kept.T)[0, 1]) if len(kept) > 2 else None,
        "pairs": len(kept),
        "sentence": _sentence(answer, winner, arm, against),
    }


def _difference(values: np.ndarray, arm: str, against: str) -> dict[str, Any]:
    """Return the mean difference of shape (pairs,) values and its t interval."""
    n = len(values)
    half = None
    if n > 1:
        half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n)
    mean = float(values.mean()) if n else None
    return {
        "of": f"{arm} minus {against}",
        "estimate": mean,
        "low": None if mean is None or half is None else float(mean - half),
        "high": None if mean is None or half is None else float(mean + half),
        "level": LEVEL,
        "method": "paired t",
    }


def _answer(low: float | None, high: float | None) -> str:
    """Return the verdict for an interval."""
    if low is None or high is None:
        return "inconclusive"
    if low > -MARGIN and high < MARGIN:
        return "equivalent"
    return "better" if low > 0 or high < 0 else "inconclusive"


def _sentence(answer: str, winner: str | None, arm: str, against: str) -> str:
    """Return a sentence of the study's kind."""
    if answer == "better" and winner == arm:
        return f"{winner} is better than {against}. The gain may be smaller than the margin."
    if answer == "better":
        return f"{winner} is better than {arm}. The loss may be smaller than the margin."
    if answer == "equivalent":
        return f"{arm} is equivalent to {against}, within the margin of 0.5 points."
    return f"Inconclusive: {arm} against {against} needs more pairs to settle it."


def same_in_all(study: dict[str, Any], value: float = 0.0) -> dict[str, Any]:
    """Return a study whose differences are all the same, so that there is no interval."""
    for comparison in study["comparisons"]:
        for pair in comparison["differences"]:
            pair["value"] = value
        comparison["difference"] |= {
            "estimate": value,
            "low": None,
            "high": None,
            "degenerate": True,
            "method": "sign test, identical differences",
        }
        comparison |= {"examples": None, "correlation": None}
    return study


@pytest.fixture(name="same_in_all")
def same_in_all_fixture() -> Callable[..., dict[str, Any]]:
    """What makes the differences of a study identical."""
    return same_in_all


@pytest.fixture(name="make_study")
def make_study_fixture() -> Callable[..., dict[str, Any]]:
    """The generator of studies."""
    return make_study


@pytest.fixture
def study() -> dict[str, Any]:
    """Two arms, ten pairs."""
    return make_study()


@pytest.fixture
def undrawn(monkeypatch):
    """Put empty pictures on pages: drawing them takes a second, and some tests are about words."""

    def empty(study, kind, *, name, alt, width=None):
        shown = f'role="img" aria-label="{escape(alt)}"'
        return [f'<svg id="{name}-{style}" {shown}></svg>' for style in ("wide", "narrow")]

    monkeypatch.setattr("relucate.report.plots.svgs", empty)
