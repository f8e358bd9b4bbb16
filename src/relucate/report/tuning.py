"""The results of tuning the learning rate, in words and rows.

Called by `terminal`, `view` and `html`. Not here: computing numbers, the figure (`plots`).
"""

from __future__ import annotations

from typing import Any

from relucate.phrases import count
from relucate.report.numbers import Units


def lines(study: dict[str, Any]) -> list[str]:
    """Return sentences on the best rates and the comparisons at one rate, if rates were tuned."""
    found = study.get("tuning")
    return [*_chosen(found, study), *_same_rate(found["same_rate"])] if found else []


def scored(arm: dict[str, Any], study: dict[str, Any]) -> bool:
    """Return whether any of an arm's tuning runs did better than the metric's worst score.

    >>> scored({"curve": [{"score": 0.0}, {"score": 0.4}]}, {"metric": {"worst": 0.0}})
    True
    """
    worst = study["metric"].get("worst")
    return any(point["score"] != worst and not _diverged(point) for point in arm["curve"])


def _diverged(point: dict[str, Any]) -> bool:
    """Return whether every run with a rate diverged."""
    return 0 < point.get("runs", 0) == point.get("diverged", 0)


def _chosen(found: dict[str, Any], study: dict[str, Any]) -> list[str]:
    """Return which rate each arm got and why."""
    good = [arm for arm in found["arms"] if scored(arm, study)]
    about = (
        f"(of {_tried(found)}; scored on {found['held_out']:,} training examples held out, seeds "
        f"{found['first_seed']:,} and on)"
    )
    best = ", ".join(f"{arm['label']} {rate(arm['lr'])}" for arm in good)
    said = [f"each arm at its best learning rate: {best} {about}"] if good else []
    edges = [arm["label"] for arm in good if arm["edge"]]
    if edges:
        said.append(
            f"the best rate of {' and of '.join(edges)} is the smallest or largest tried: a better "
            "one may lie beyond it (--rates)"
        )
    worst = f"{study['metric']['scale'] * (study['metric'].get('worst') or 0.0):g}"
    return said + [_lost(arm, found, worst) for arm in found["arms"] if not scored(arm, study)]


def _lost(arm: dict[str, Any], found: dict[str, Any], worst: str) -> str:
    """Return the sentence on an arm without a best rate: why, and the rate it was trained with."""
    curve = arm["curve"]
    diverged = all(map(_diverged, curve))
    why = "every tuning run diverged" if diverged else f"every tuning run scored {worst}"
    return (
        f"no best learning rate for {arm['label']}: {why} (tried: {_tried(found)}); it trained "
        f"with {rate(arm['lr'])}, the nearest to the recipe's (other rates: --rates)"
    )


def _same_rate(same: dict[str, Any]) -> list[str]:
    """Return a sentence per comparison of the arms at the same rate."""
    opening = f"all arms at the rate {rate(same['lr'])}"
    if len(same["comparisons"]) == 1:
        return [f"{opening}: {same['sentence']}"]
    return [
        f"{opening}, {found['arm']} against {found['against']}: {found['sentence']}"
        for found in same["comparisons"]
    ]


def table(study: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row per learning rate with every arm's score, the best one marked."""
    found = study.get("tuning")
    if not found:
        return []
    units = Units.of_study(study)
    curves = [{point["lr"]: point for point in arm["curve"]} for arm in found["arms"]]
    return [
        {
            "rate": rate(lr),
            "cells": [
                {
                    "text": units.value(curve[lr]["score"]),
                    "about": _trained(curve[lr]),
                    "best": lr == arm["lr"] and scored(arm, study),
                }
                for curve, arm in zip(curves, found["arms"], strict=True)
            ],
        }
        for lr in sorted(curves[0])
    ]


def _trained(point: dict[str, Any]) -> str:
    """Return for how many epochs and in how many runs a rate was tried."""
    said = f"{count(point['epochs'], 'epoch')}, {count(point['runs'], 'run')}"
    return said + (f", {point['diverged']} diverged" if point.get("diverged") else "")


def rate(value: float) -> str:
    """Return a learning rate as text.

    >>> rate(0.1), rate(0.0316227766)
    ('0.1', '0.03162')
    """
    return f"{value:.4g}"


def _tried(found: dict[str, Any]) -> str:
    rates = [point["lr"] for point in found["arms"][0]["curve"]]
    return f"{len(rates)} from {rate(rates[0])} to {rate(rates[-1])}"
