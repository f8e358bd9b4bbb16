"""The table of a study that varies more than the order, in the shape of caffenet-benchmark's.

A row per choice of values; a column per order with its score, then the effect of each order but the
reference, with its interval and verdict. Called by `terminal` and `view`. Not here: computing
numbers.
"""

from __future__ import annotations

from typing import Any

from relucate.phrases import shown
from relucate.report.facts import arm_verdict, short_names, span
from relucate.report.numbers import MISSING, Units

Heading = tuple[str, Any]  # text, and left or right


def table(study: dict[str, Any]) -> tuple[list[Heading], list[list[str]]]:
    """Return headings and rows of text; both are empty if only the order varies."""
    if not study.get("factors"):
        return [], []
    units = Units.of_study(study)
    names = [factor["name"] for factor in study["factors"]]
    first = study["table"][0]
    several, short = len(first["effects"]) > 1, short_names(study)
    headings: list[Heading] = [(name, "left") for name in names]
    unit = units.metric.value_unit
    orders = [short.get(cell["order"], cell["order"]) for cell in first["cells"]]
    headings += [(f"{order} {unit}".rstrip(), "right") for order in orders]
    for effect in first["effects"]:
        order = short.get(effect["order"], effect["order"])
        name = f"{order} effect" if several else "effect"
        headings += [(name, "right"), ("interval", "right"), ("verdict", "left")]
    rows = []
    for row in study["table"]:
        texts = [shown(row["values"][name]) for name in names]
        texts += [units.value(cell["mean"]) for cell in row["cells"]]
        for effect in row["effects"]:
            texts += _effect(effect, study, units)
        rows.append(texts)
    return headings, rows


def long_table(study: dict[str, Any]) -> tuple[list[Heading], list[list[str]]]:
    """Return the same as a row per choice of values and order, which is narrower."""
    units, short = Units.of_study(study), short_names(study)
    names = [factor["name"] for factor in study["factors"]]
    headings: list[Heading] = [(name, "left") for name in (*names, "order")]
    headings += [(f"mean {units.metric.value_unit}".rstrip(), "right"), ("effect", "right")]
    headings += [("interval", "right"), ("verdict", "left")]
    rows = []
    for row in study["table"]:
        values = [shown(row["values"][name]) for name in names]
        found = {effect["order"]: _effect(effect, study, units) for effect in row["effects"]}
        for cell in row["cells"]:
            order = short.get(cell["order"], cell["order"])
            effect = found.get(cell["order"], [MISSING] * 3)
            rows.append([*values, order, units.value(cell["mean"]), *effect])
    return headings, rows


def _effect(effect: dict[str, Any], study: dict[str, Any], units: Units) -> list[str]:
    """Return an effect, its interval and its verdict."""
    interval = span(effect, study["pairs"], units)
    return [units.difference(effect["estimate"]), interval, _word(effect)]


def _word(effect: dict[str, Any]) -> str:
    """Return an effect's verdict on its order; documents of earlier versions have none."""
    known = "verdict" in effect
    return arm_verdict({**effect, "arm": effect["order"]}) if known else MISSING


def sentences(study: dict[str, Any]) -> list[str]:
    """Return the sentences on how the order's effect depends on the varied options."""
    return [found["sentence"] for found in study.get("interactions") or []]
