"""What a study found, one effect a row: the rows of its forest plot and of its tables.

A study of orders has one effect per comparison; a study that varies options has one per choice of
values and order. Not here: computing intervals, drawing. Called by `view` and the pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relucate.phrases import chosen
from relucate.report.facts import arm_verdict, short_names
from relucate.report.numbers import known


@dataclass(frozen=True)
class Effect:
    """A difference of two arms with its interval, in the metric's own unit.

    name: what its row says; arm, against: the arms' names in pictures; word: the verdict on `arm`;
    seeds: the difference in each pair.
    """

    name: str
    arm: str
    against: str
    word: str
    estimate: float | None
    low: float | None
    high: float | None
    seeds: tuple[float, ...] = ()


def effects(study: dict[str, Any]) -> list[Effect]:
    """Return the effects of a study, in the order of its comparisons or of its table."""
    comparisons = study["comparisons"]
    if study.get("factors") and not any(found.get("values") for found in comparisons):
        return _of_table(study)  # a document of an earlier version
    return [effect_of(found, study) for found in comparisons]


def effect_of(comparison: dict[str, Any], study: dict[str, Any]) -> Effect:
    """Return a comparison as an effect."""
    short = short_names(study)
    arm, against = short[comparison["arm"]], short[comparison["against"]]
    values = comparison.get("values") or {}
    if values:  # the same in both arms
        orders = {found["label"]: found["order"] for found in study["arms"]}
        arm, against = (
            short.get(orders[comparison[side]] or "", short[comparison[side]])
            for side in ("arm", "against")
        )
    seeds = tuple(pair["value"] for pair in comparison["differences"] if known(pair["value"]))
    found, name = ends(comparison["difference"]), _name(arm, against, values, study)
    return Effect(name, arm, against, arm_verdict(comparison), *found, seeds)


def _name(arm: str, against: str, values: Mapping[str, Any], study: dict[str, Any]) -> str:
    """Return what sets a comparison's row apart from the others."""
    found = study["comparisons"]
    if values and len({_without_values(one, study) for one in found}) == 1:
        return chosen(values)
    several = len({one["against"] for one in found if (one.get("values") or {}) == values}) > 1
    name = f"{arm} minus {against}" if several else arm
    return f"{chosen(values)}: {name}" if values else name


def _without_values(comparison: dict[str, Any], study: dict[str, Any]) -> tuple[Any, Any]:
    orders = {found["label"]: found["order"] for found in study["arms"]}
    return orders[comparison["arm"]], orders[comparison["against"]]


def _of_table(study: dict[str, Any]) -> list[Effect]:
    several, short = len(study["table"][0]["effects"]) > 1, short_names(study)
    return [
        Effect(
            chosen(row["values"]) + (f": {found['order']}" if several else ""),
            str(short.get(found["order"], found["order"])),
            str(short.get(row["cells"][0]["order"], row["cells"][0]["order"])),
            word_of(found, study),
            *ends(found),
        )
        for row in study["table"]
        for found in row["effects"]
    ]


def ends(found: Mapping[str, Any]) -> tuple[float | None, float | None, float | None]:
    """Return an estimate and its interval's low and high end, None where it isn't known.

    >>> ends({"estimate": 0.01, "low": float("nan"), "high": None, "level": 0.95})
    (0.01, None, None)
    """
    estimate, low, high = (
        value if known(value := found[name]) else None for name in ("estimate", "low", "high")
    )
    return estimate, low, high


def word_of(found: Mapping[str, Any], study: Mapping[str, Any]) -> str:
    """Return the verdict that an interval gives, by the rule of `stats.verdict.decide`.

    >>> study = {"margin": 0.005, "metric": {"direction": "higher"}}
    >>> [word_of({"low": low, "high": high}, study)
    ...  for low, high in ((0.01, 0.03), (-0.004, 0.001), (-0.01, 0.001), (None, None))]
    ['better', 'equivalent', 'inconclusive', 'inconclusive']
    """
    low, high, margin = found["low"], found["high"], study["margin"]
    if not (known(low) and known(high)):
        return "inconclusive"
    if known(margin) and -margin < low and high < margin:
        return "equivalent"
    if low <= 0 <= high:
        return "inconclusive"
    return "better" if (low > 0) != (study["metric"].get("direction") == "lower") else "worse"
