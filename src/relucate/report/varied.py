"""The table of a study that varies more than the order, in the shape of caffenet-benchmark's.

A row per choice of values; a column per order with its score, then the effect of each further
order with its interval. Called by `terminal` and `view`. Not here: computing numbers.
"""

from __future__ import annotations

from typing import Any

from relucate.report.facts import span
from relucate.report.numbers import Units

Heading = tuple[str, Any]  # text, and left or right


def table(study: dict[str, Any]) -> tuple[list[Heading], list[list[str]]]:
    """Return headings and rows of text; both are empty if only the order varies."""
    if not study.get("factors"):
        return [], []
    units = Units.of_study(study)
    names = [factor["name"] for factor in study["factors"]]
    first = study["table"][0]
    several = len(first["effects"]) > 1
    headings: list[Heading] = [(name, "left") for name in names]
    unit = units.metric.value_unit
    headings += [(f"{cell['order']} {unit}".rstrip(), "right") for cell in first["cells"]]
    for effect in first["effects"]:
        name = f"{effect['order']} effect" if several else "effect"
        headings += [(name, "right"), ("interval", "right")]
    rows = []
    for row in study["table"]:
        texts = [_text(row["values"][name]) for name in names]
        texts += [units.value(cell["mean"]) for cell in row["cells"]]
        for effect in row["effects"]:
            interval = span(effect, study["pairs"], units)
            texts += [units.difference(effect["estimate"]), interval]
        rows.append(texts)
    return headings, rows


def sentences(study: dict[str, Any]) -> list[str]:
    """Return the sentences on how the order's effect depends on the varied options."""
    return [found["sentence"] for found in study.get("interactions") or []]


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
