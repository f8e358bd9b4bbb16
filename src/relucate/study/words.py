"""A study's arms in words: "norm after the ReLU" instead of linear-act-norm.

What an order is called is in `phrases`; here is which arms a sentence is about. Called by
`document`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from .. import phrases
from ..errors import InputError
from ..phrases import Named, Words, chosen, names_activation
from .arms import parsed
from .compared import Compared
from .comparison import Comparison
from .contrasts import Contrast
from .interaction import Interaction
from .results import StudyResults

_ACTIVATION = "act"  # the option of a builder that names the activation


def in_words(outcome: StudyResults[Comparison], contrast: Contrast) -> tuple[Words, Words]:
    """Return what to call a comparison's arm and its reference."""
    plan, values = outcome.plan, same_values(outcome.plan, contrast)
    arm, against = (_named(outcome, which, without=bool(values)) for which in contrast)
    beside = [other for other in plan.contrasts if same_values(plan, other) == values]
    return phrases.in_words(arm, against, alone=len(beside) == 1)


def effect_in_words(outcome: StudyResults[Comparison], asked: Interaction) -> tuple[Words, Words]:
    """Return what to call the order whose effect is the question, and the reference.

    The effect is the mean over the other factors, so the activation is named if it is always the
    same one.
    """
    arms = [arm for rows in (asked.low, asked.high) for row in rows for arm in row]
    names = {outcome.plan.activation(outcome.inspection, arm) for arm in arms}
    against, arm = (_named(outcome, which, without=True) for which in asked.low[0])
    if len(names) > 1:
        arm, against = Named(arm.order), Named(against.order)
    return phrases.in_words(arm, against)


def arm_in_words(outcome: StudyResults[Comparison], arm: Compared) -> str:
    """Return what to call an arm in a list."""
    return _named(outcome, arm).words.other


def same_values(plan: Comparison, contrast: Contrast) -> dict[str, Any]:
    """Return the varied values that both arms have, empty if one differs."""
    arm, against = ({name: a.varied[name] for name in plan.factors} for a in contrast)
    return arm if arm == against else {}


def _named(outcome: StudyResults[Comparison], arm: Compared, *, without: bool = False) -> Named:
    """Return an arm to put into words; without: what is varied is said elsewhere."""
    order, activation = _order(arm), outcome.plan.activation(outcome.inspection, arm)
    said = {_ACTIVATION} if names_activation(order) else set()
    rest = {} if without else {n: arm.varied[n] for n in outcome.plan.factors if n not in said}
    return Named(order, activation, chosen(rest))


def _order(arm: Compared) -> str:
    """Return the canonical order; a label in the notation, which can mean nothing else, is one."""
    if arm.order is None and "-" in arm.name:
        with suppress(InputError):
            return str(parsed(arm.name))
    return arm.name
