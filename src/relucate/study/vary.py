"""What is varied beside the order: arms from orders and factors, and how the order's effect depends
on each factor.

With factors such as act = relu, tanh every order is trained with every value. The table has a row
per choice of values, as caffenet-benchmark's tables have; an interaction asks whether the effect of
an order is the same with each value. Called by `api` (arms), `driver` (questions), `outcome`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import nets
from ..errors import InputError
from ..stats import PairedDifference, Verdict, dependence
from ..train.recipe import Recipe
from .arms import Arm, shown
from .source import ModelSource

if TYPE_CHECKING:
    from .driver import StudyResults

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
    if not isinstance(factors, Mapping):
        raise InputError(
            f"vary is a mapping of names to values, such as {{'act': ['relu', 'tanh']}}, got "
            f"{factors!r}."
        )
    if "order" in factors:
        raise InputError("orders are compared as such: name them with --orders, not with vary.")
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


def check_dropout(
    source: ModelSource, arms: Sequence[Arm], factors: Mapping[str, Sequence[Any]]
) -> None:
    """Check that a dropout rate acts: in a built-in net it is the rate of the order's drop token.

    Raises: InputError: no order has the token, or, where the rate is varied, one hasn't.
    """
    if source.kind != "net" or "dropout" not in nets.options(source.text):
        return
    without = [str(arm.order) for arm in arms if not arm.order.has_drop]
    given = source.options.get("dropout", 0)
    if not without or ("dropout" not in factors and (not given or len(without) < len(arms))):
        return
    what = f"{list(factors['dropout'])}" if "dropout" in factors else f"{given}"
    raise InputError(
        f"dropout is the rate of an order's drop token, so that {what} does nothing in "
        f"{without[0]}: name where it stands, such as {without[0]}-drop."
    )


def table(outcome: StudyResults, seeds: list[int]) -> list[dict[str, Any]]:
    """Return a row per choice of values: every order's mean, and the orders' effects there.

    An effect is the order's accuracy minus the first order's with the same values, with the study's
    interval.
    """
    rows = []
    factors = outcome.plan.factors
    for arms in _grid(outcome.plan.arms, factors):
        first, scores = arms[0], [outcome.scores(arm, seeds) for arm in arms]
        rows.append(
            {
                "values": {name: first.varied[name] for name in factors},
                "cells": [
                    {"arm": arm.label, "order": str(arm.order), "mean": float(found.mean())}
                    for arm, found in zip(arms, scores, strict=True)
                ],
                "effects": [
                    {
                        "order": str(arm.order),
                        "against": str(first.order),
                        **ends(outcome.interval(scores[0], found)),
                    }
                    for arm, found in zip(arms[1:], scores[1:], strict=True)
                ],
            }
        )
    return rows


@dataclass(frozen=True)
class Interaction:
    """A question: does the effect of an order depend on a factor?

    Arms that differ in nothing else, with the factor's first value (`low`) and another (`high`):
    rows of (the first order's arm, this order's arm), one per choice of all other factors.
    """

    factor: str
    values: tuple[Any, Any]
    low: tuple[tuple[Arm, Arm], ...]
    high: tuple[tuple[Arm, Arm], ...]

    @property
    def orders(self) -> tuple[str, str]:
        """The first order, and the one whose effect against it is asked for."""
        first, arm = self.low[0]
        return str(first.order), str(arm.order)

    def effects(self, outcome: StudyResults, seeds: list[int]) -> tuple[Any, Any]:
        """Return the order's effect with either value, averaged over rows: (seeds,) twice."""
        first, second = (
            np.mean([outcome.scores(b, seeds) - outcome.scores(a, seeds) for a, b in rows], axis=0)
            for rows in (self.low, self.high)
        )
        return first, second

    def diverged(self, outcome: StudyResults, seeds: list[int]) -> tuple[int, int]:
        """Return how many runs with either value diverged."""
        first, second = (
            sum(outcome.diverged(arm, seeds) for row in rows for arm in row)
            for rows in (self.low, self.high)
        )
        return first, second

    def verdict(self, outcome: StudyResults, seeds: list[int]) -> Verdict:
        """Return the answer: better (it depends), equivalent (not by more than the margin), open.

        Per seed s: (order - first order | w)_s - (order - first order | v)_s, with the study's
        interval. Where every run with a value diverged there is no effect to compare.
        """
        lost = len(seeds) * 2 * len(self.low) in self.diverged(outcome, seeds)
        diverged = (len(seeds), len(seeds)) if lost else (0, 0)
        return outcome.decide(*self.effects(outcome, seeds), diverged)


def interactions_of(
    arms: Sequence[Arm], factors: Mapping[str, Sequence[Any]]
) -> tuple[Interaction, ...]:
    """Return the questions of a study: for each factor its first value against each other one.

    >>> arms = arms_from(["before", "after"], {"act": ["relu", "tanh", "elu"]})
    >>> [found.values for found in interactions_of(arms, {"act": ["relu", "tanh", "elu"]})]
    [('relu', 'tanh'), ('relu', 'elu')]
    """
    rows, found = _grid(arms, factors), []
    for name, values in factors.items():
        for value in values[1:]:
            low, high = (
                [row for row in rows if row[0].varied[name] == v] for v in (values[0], value)
            )
            for place in range(1, len(rows[0])):
                both = (tuple((row[0], row[place]) for row in side) for side in (low, high))
                found.append(Interaction(name, (values[0], value), *both))
    return tuple(found)


def interactions(outcome: StudyResults, seeds: list[int]) -> list[dict[str, Any]]:
    """Return each question with its answer as JSON-ready data."""
    return [_answered(asked, outcome, seeds) for asked in outcome.plan.interactions]


def _answered(asked: Interaction, outcome: StudyResults, seeds: list[int]) -> dict[str, Any]:
    verdict = asked.verdict(outcome, seeds)
    first, order = asked.orders
    values = (shown(asked.values[0]), shown(asked.values[1]))
    diverged = asked.diverged(outcome, seeds)
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
        "sentence": dependence(verdict, order, first, asked.factor, values, diverged),
    }


def _grid(arms: Sequence[Arm], factors: Mapping[str, Any]) -> list[list[Arm]]:
    """Return the arms as rows of one choice of the factors each (a tuned rate is no factor)."""
    rows: dict[tuple[Any, ...], list[Arm]] = {}
    for arm in arms:
        rows.setdefault(tuple(repr(arm.varied[name]) for name in factors), []).append(arm)
    return list(rows.values())


def ends(found: PairedDifference) -> dict[str, float | None]:
    """Return an estimate with its interval; identical differences have none."""
    low, high = (None, None) if found.degenerate else (found.low, found.high)
    return {"estimate": found.estimate, "low": low, "high": high}
