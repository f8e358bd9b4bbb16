"""Which arms a study compares: each order with the reference, or every arm with every other.

A difference is always arm minus reference. Not here: whether effects depend on a factor
(`interaction`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, combinations
from typing import Any, NamedTuple

from .compared import Compared
from .interaction import grid


class Contrast(NamedTuple):
    """Two arms to compare: the difference is the score of `arm` minus that of `against`."""

    arm: Compared
    against: Compared


def contrasts_of(
    arms: Sequence[Compared],
    factors: Mapping[str, Sequence[Any]],
    place: int = 0,
    *,
    all_pairs: bool = False,
) -> tuple[Contrast, ...]:
    """Return the comparisons of a study.

    They are of each order with the reference at the same choice of values; of every two arms with
    `all_pairs`. With a single order its values are what is compared: each with the first.

    place: of the reference among the orders.

    >>> from relucate.study.arms import Arm
    >>> arms = [Arm(o, {"act": a}) for a in ("relu", "tanh") for o in ("before", "after")]
    >>> for arm, against in contrasts_of(arms, {"act": ["relu", "tanh"]}):
    ...     print(arm.label, "minus", against.label)
    linear-act-norm (act=relu) minus linear-norm-act (act=relu)
    linear-act-norm (act=tanh) minus linear-norm-act (act=tanh)
    """
    rows = [[row[place], *row[:place], *row[place + 1 :]] for row in grid(arms, factors)]
    if all_pairs:
        return tuple(Contrast(b, a) for a, b in combinations(chain(*rows), 2))
    if len(rows[0]) == 1:
        rows = [list(chain(*rows))]
    return tuple(Contrast(arm, row[0]) for row in rows for arm in row[1:])
