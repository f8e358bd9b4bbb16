"""Find each arm's best learning rate by successive halving.

The best rates may differ tenfold, so one rate for all may favour an arm. Scores come from a part
held out of the training data, with seeds that the comparison doesn't use: the test data and the
pairs don't influence the choice. Called by `running`. Not here: the comparison (`driver`).

Source: Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter
Optimization, 2016.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..phrases import count
from .arms import Arm, shown
from .display import Display, NoDisplay
from .driver import run_study
from .plan import StudyPlan
from .store import Store

SHARE = 0.2  # of the training data, held out
SEEDS = 1_000_000  # the first tuning seed, beyond the comparison's
LAST_SEEDS = 2  # seeds of the last round
GRID = 7  # rates, half a decade apart, around the recipe's


def default_rates(rate: float) -> list[float]:
    """Return the rates to try, half a decade apart, with the given one in the middle.

    >>> [round(rate, 4) for rate in default_rates(0.1)]
    [0.0032, 0.01, 0.0316, 0.1, 0.3162, 1.0, 3.1623]
    """
    return [rate * 10 ** ((place - GRID // 2) / 2) for place in range(GRID)]


def rounds(rates: int, epochs: int) -> list[tuple[int, int, int]]:
    """Return (number of rates, epochs, seeds) of each round.

    All rates for a quarter of the epochs, the better half for a half, the best quarter (at least
    two) for all epochs and with two seeds.

    >>> rounds(7, 10)
    [(7, 3, 1), (4, 5, 1), (2, 10, 2)]
    """
    last = (max(2, math.ceil(rates / 4)), epochs, LAST_SEEDS)
    if rates <= 2:
        return [(rates, epochs, LAST_SEEDS)]
    first = (rates, math.ceil(epochs / 4), 1)
    half = (math.ceil(rates / 2), math.ceil(epochs / 2), 1)
    return [first, last] if half[0] <= last[0] else [first, half, last]


def tune(
    plan: StudyPlan, store: Store, display: Display, rates: Sequence[float] | None = None
) -> dict[str, Any]:
    """Return each arm's best learning rate, and its score at every tried rate.

    A diverged run is never better than another. Of rates with equal scores, the one with fewer
    diverged runs is taken, then the one nearest to the recipe's.

    Raises: InputError: rates that aren't different numbers above 0, fewer than two of them, an arm
    that varies the rate itself; otherwise as `run_study`.
    """
    tried = _checked(default_rates(plan.recipe.rate) if rates is None else rates)
    if any("lr" in arm.recipe for arm in plan.arms):
        raise InputError("the learning rate can't be both tuned and varied: remove one of the two.")
    data = plan.data.validation(SHARE)
    apart: Any = {"looks": False, "factors": {}, "probe": False}
    held = replace(plan, data=data, first_seed=plan.first_seed + SEEDS, **apart)
    found: dict[str, dict[float, dict[str, Any]]] = {arm.label: {} for arm in plan.arms}
    with held.open_executor(display) as executor:
        for kept, epochs, seeds in rounds(len(tried), plan.recipe.epochs):
            alive = {arm.label: _best(found[arm.label], kept, plan) or tried for arm in plan.arms}
            runs = sum(map(len, alive.values())) * seeds
            number = f"{count(runs, 'run')} of {count(epochs, 'epoch')}"
            display.say(f"tuning the learning rate: {number}")
            trying = [_trying(arm, rate, epochs) for arm in plan.arms for rate in alive[arm.label]]
            round_plan = replace(held, arms=tuple(trying), pairs=seeds)
            outcome = run_study(round_plan, store, NoDisplay(), executor, need_all=True)
            for arm in plan.arms:
                for rate in alive[arm.label]:
                    scores = outcome.scores(_trying(arm, rate, epochs), round_plan.seeds)
                    entry = {"lr": rate, "score": float(np.mean(scores)), "epochs": epochs}
                    lost = outcome.diverged(_trying(arm, rate, epochs), round_plan.seeds)
                    found[arm.label][rate] = {**entry, "runs": seeds, "diverged": lost}
    arms = [_report(arm, found[arm.label], tried, plan) for arm in plan.arms]
    for report in arms:
        display.say(f"{report['label']}: learning rate {shown(report['lr'])}")
    return {"held_out": len(data.y_test), "first_seed": held.first_seed, "arms": arms}


def at_best(arms: Sequence[Arm], tuned: dict[str, Any]) -> tuple[Arm, ...]:
    """Return the arms, each with its best rate."""
    rates = {report["label"]: report["lr"] for report in tuned["arms"]}
    return tuple(replace(arm, recipe={**arm.recipe, "lr": rates[arm.label]}) for arm in arms)


def _trying(arm: Arm, rate: float, epochs: int) -> Arm:
    return replace(arm, recipe={**arm.recipe, "lr": rate, "epochs": epochs})


def _best(found: dict[float, dict[str, Any]], count: int, plan: StudyPlan) -> list[float]:
    """Return the best of the rates with the most epochs, in the order of the grid."""
    furthest = max((entry["epochs"] for entry in found.values()), default=0)
    rates = [rate for rate, entry in found.items() if entry["epochs"] == furthest]

    sign = 1 if plan.metric.lower_is_better else -1

    def rank(rate: float) -> tuple[float, int, float]:
        entry, distance = found[rate], abs(math.log(rate / plan.recipe.rate))
        return sign * entry["score"], entry["diverged"], distance

    return sorted(sorted(rates, key=rank)[:count])


def _report(
    arm: Arm, found: dict[float, dict[str, Any]], tried: list[float], plan: StudyPlan
) -> dict[str, Any]:
    (best,) = _best(found, 1, plan)
    return {
        "label": arm.label,
        "lr": best,
        "edge": best in (tried[0], tried[-1]),
        "curve": [found[rate] for rate in sorted(found)],
    }


def _checked(rates: Sequence[float]) -> list[float]:
    try:
        numbers = sorted(float(rate) for rate in rates)
    except (TypeError, ValueError):
        raise InputError(
            f"tuning needs several learning rates, numbers above 0, got {rates!r}."
        ) from None
    usable = all(0 < rate < math.inf for rate in numbers)
    if len({shown(rate) for rate in numbers}) < 2 or not usable:
        raise InputError(
            f"tuning needs at least two learning rates, numbers above 0, got {list(rates)}."
        )
    if len({shown(rate) for rate in numbers}) < len(numbers):
        raise InputError(f"tuning needs different learning rates, got {list(rates)}.")
    return numbers
