"""What tuning the learning rate found, in words and rows: called by `terminal`, `view` and `html`.

Not here: any number's computation, the figure (`plots`).
"""

from __future__ import annotations

from typing import Any

from relucate.report.numbers import count, percent


def lines(study: dict[str, Any]) -> list[str]:
    """Return the best rates and the comparison at one rate in sentences; none without tuning."""
    found = study.get("tuning")
    if not found:
        return []
    best = ", ".join(f"{arm['label']} {rate(arm['lr'])}" for arm in found["arms"])
    same = found["same_rate"]
    said = [
        f"each arm at its best learning rate: {best} (of {_tried(found)}; scored on "
        f"{found['held_out']:,} training examples held out, seeds {found['first_seed']:,} and on)"
    ]
    edges = [arm["label"] for arm in found["arms"] if arm["edge"]]
    if edges:
        said.append(
            f"the best rate of {' and of '.join(edges)} is at the end of those tried: a better one "
            "may lie beyond (--rates)"
        )
    said.append(f"all arms at the rate {rate(same['lr'])}: {same['sentence']}")
    return said


def table(study: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row per learning rate with every arm's score there, the best one marked."""
    found = study.get("tuning")
    if not found:
        return []
    curves = [{point["lr"]: point for point in arm["curve"]} for arm in found["arms"]]
    return [
        {
            "rate": rate(lr),
            "cells": [
                {
                    "text": f"{percent(curve[lr]['score'])}",
                    "about": f"{count(curve[lr]['epochs'], 'epoch')}, "
                    f"{count(curve[lr]['runs'], 'run')}",
                    "best": lr == arm["lr"],
                }
                for curve, arm in zip(curves, found["arms"], strict=True)
            ],
        }
        for lr in sorted(curves[0])
    ]


def rate(value: float) -> str:
    """Return a learning rate as text.

    >>> rate(0.1), rate(0.0316227766)
    ('0.1', '0.03162')
    """
    return f"{value:.4g}"


def _tried(found: dict[str, Any]) -> str:
    rates = [point["lr"] for point in found["arms"][0]["curve"]]
    return f"{len(rates)} from {rate(rates[0])} to {rate(rates[-1])}"
