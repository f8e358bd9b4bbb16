"""Further questions of a study: does the effect of an order depend on a varied factor?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .compared import Compared


@dataclass(frozen=True)
class Interaction:
    """A question: does the effect of an order depend on a factor?

    The arms differ in nothing else. `low` has the factor's first value, `high` another: rows of
    (the reference's arm, this order's arm), one per choice of all other factors.
    """

    factor: str
    values: tuple[Any, Any]
    low: tuple[tuple[Compared, Compared], ...]
    high: tuple[tuple[Compared, Compared], ...]

    @property
    def orders(self) -> tuple[str, str]:
        """The reference, and the order whose effect against it is the question."""
        first, arm = self.low[0]
        return first.name, arm.name


def interactions_of(
    arms: Sequence[Compared], factors: Mapping[str, Sequence[Any]], reference: int = 0
) -> tuple[Interaction, ...]:
    """Return the questions of a study: for each factor, its first value against each other value.

    reference: place of the reference among the orders.

    >>> from relucate.study.arms import Arm
    >>> arms = [Arm(o, {"act": a}) for a in ("relu", "tanh", "elu") for o in ("before", "after")]
    >>> [found.values for found in interactions_of(arms, {"act": ["relu", "tanh", "elu"]})]
    [('relu', 'tanh'), ('relu', 'elu')]
    """
    rows, found = grid(arms, factors), []
    for name, values in factors.items():
        for value in values[1:]:
            low, high = (
                [row for row in rows if row[0].varied[name] == v] for v in (values[0], value)
            )
            for place in range(len(rows[0])):
                if place == reference:
                    continue
                both = (tuple((row[reference], row[place]) for row in side) for side in (low, high))
                found.append(Interaction(name, (values[0], value), *both))
    return tuple(found)


def grid(arms: Sequence[Compared], factors: Mapping[str, Any]) -> list[list[Compared]]:
    """Return the arms in rows, one row per choice of the factors (a tuned rate isn't a factor)."""
    rows: dict[tuple[Any, ...], list[Compared]] = {}
    for arm in arms:
        rows.setdefault(tuple(repr(arm.varied[name]) for name in factors), []).append(arm)
    return list(rows.values())
