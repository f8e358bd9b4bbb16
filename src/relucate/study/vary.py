"""What is varied beside the order: arms from orders and factors, and how the order's effect depends
on each factor.

With factors such as act = relu, tanh every order is trained with every value. The table has a row
per choice of values, as caffenet-benchmark's tables have; an interaction asks whether the effect of
an order is the same with each value. Called by `api` (arms) and `outcome` (table, interactions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import product
from typing import Any

import numpy as np

from ..errors import InputError
from ..stats import dependence
from ..train.recipe import Recipe
from .arms import Arm, shown
from .driver import Outcome

_RECIPE = {field.name for field in fields(Recipe)}


def arms_from(
    orders: Sequence[str], factors: Mapping[str, Sequence[Any]] | None = None
) -> tuple[Arm, ...]:
    """Return an arm per choice of values and order; the orders of a choice stand together.

    A factor that is an option of the recipe (lr, weight_decay, ...) goes there, any other to the
    builder. Every order is parsed: a typo fails before anything runs.

    >>> [arm.label for arm in arms_from(["before", "none"], {"act": ["relu", "tanh"]})][2:]
    ['linear-norm-act (act=tanh)', 'linear-act (act=tanh)']
    """
    arms = []
    for values in product(*(factors or {}).values()):
        chosen = dict(zip(factors or {}, values, strict=True))
        options = {name: value for name, value in chosen.items() if name not in _RECIPE}
        recipe = {name: value for name, value in chosen.items() if name in _RECIPE}
        arms += [Arm(str(order), options, recipe) for order in orders]
    for arm in arms:
        _ = arm.order
    return tuple(arms)


def check_factors(factors: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Any, ...]]:
    """Return the factors as tuples of values.

    Raises: InputError: a factor with fewer than two values, or with one twice.
    """
    checked = {}
    for name, values in factors.items():
        if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
            raise InputError(f"vary takes several values for {name}, got {values!r}.")
        if len(values) < 2:
            raise InputError(
                f"vary takes at least two values for {name}, got {list(values)}: give a single one "
                "as an ordinary option."
            )
        if len({repr(value) for value in values}) < len(values):
            raise InputError(f"vary has a value of {name} twice: {list(values)}.")
        checked[name] = tuple(values)
    return checked


def table(outcome: Outcome, seeds: list[int]) -> list[dict[str, Any]]:
    """Return a row per choice of values: every order's mean, and the orders' effects there.

    An effect is the order's accuracy minus the first order's with the same values, with the study's
    interval.
    """
    rows = []
    for arms in _grid(outcome):
        first, scores = arms[0], [outcome.scores(arm, seeds) for arm in arms]
        rows.append(
            {
                "values": dict(first.varied),
                "cells": [
                    {"arm": arm.label, "order": str(arm.order), "mean": float(found.mean())}
                    for arm, found in zip(arms, scores, strict=True)
                ],
                "effects": [
                    {
                        "order": str(arm.order),
                        "against": str(first.order),
                        **_ends(outcome.interval(scores[0], found)),
                    }
                    for arm, found in zip(arms[1:], scores[1:], strict=True)
                ],
            }
        )
    return rows


def interactions(outcome: Outcome, seeds: list[int]) -> list[dict[str, Any]]:
    """Return how each order's effect changes from each factor's first value to another.

    For a factor with values v and w, averaged over the values of all other factors, per seed s:

        i_s = (order - first order | w)_s - (order - first order | v)_s

    with the study's interval and the three answers: better (it depends), equivalent (it doesn't,
    within the margin), inconclusive.
    """
    found = []
    for name, values in outcome.plan.factors.items():
        for value in values[1:]:
            low, high = _grid(outcome, name, values[0]), _grid(outcome, name, value)
            found += [
                _interaction(outcome, seeds, name, (values[0], value), low, high, place)
                for place in range(1, len(low[0]))
            ]
    return found


def _interaction(
    outcome: Outcome,
    seeds: list[int],
    name: str,
    values: tuple[Any, Any],
    low: list[list[Arm]],
    high: list[list[Arm]],
    place: int,
) -> dict[str, Any]:
    a, b = (_effect(outcome, seeds, rows, place) for rows in (low, high))
    verdict = outcome.decide(a, b)
    order, first = low[0][place].order, low[0][0].order
    said = dependence(verdict, str(order), str(first), name, (shown(values[0]), shown(values[1])))
    return {
        "factor": name,
        "value": values[1],
        "against": values[0],
        "order": str(order),
        "minus": str(first),
        "verdict": verdict.verdict,
        **_ends(verdict.difference),
        "level": verdict.difference.level,
        "pairs": verdict.difference.n,
        "sentence": said,
    }


def _grid(outcome: Outcome, name: str = "", value: Any = None) -> list[list[Arm]]:
    """Return the arms as rows of one choice each, only those with `value` if a name is given."""
    rows: list[list[Arm]] = []
    for arm in outcome.plan.arms:
        if rows and rows[-1][0].varied == arm.varied:
            rows[-1].append(arm)
        else:
            rows.append([arm])
    return [row for row in rows if not name or row[0].varied[name] == value]


def _effect(outcome: Outcome, seeds: list[int], rows: list[list[Arm]], place: int) -> Any:
    effects = [outcome.scores(row[place], seeds) - outcome.scores(row[0], seeds) for row in rows]
    return np.mean(effects, axis=0)


def _ends(found: Any) -> dict[str, Any]:
    return {"estimate": found.estimate, "low": found.low, "high": found.high}
