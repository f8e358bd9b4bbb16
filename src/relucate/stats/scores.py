"""What a score is: which metrics a verdict can be about, their unit in sentences, and divergence.

The rule for diverged runs: a run whose loss turned NaN or infinite gets the metric's worst score
and counts. It is never dropped, because an arm that diverges more often would look better for it.
Not here: differences between arms (`paired`) and sentences (`wording`). Called by `study`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from relucate.errors import InputError, unknown


@dataclass(frozen=True)
class Metric:
    """A score of one run, higher is better, and how people read it.

    name: as in options and JSON.
    worst: the lowest possible score, in the metric's own unit.
    scale: multiply by this to get the unit of sentences (100: a fraction read in points).
    unit: singular name of that unit.
    worst_text: the worst score in words.
    """

    name: str
    worst: float
    scale: float
    unit: str
    worst_text: str


METRICS = {
    "accuracy": Metric(
        name="accuracy", worst=0.0, scale=100.0, unit="point", worst_text="an accuracy of 0 %"
    ),
}


def find_metric(name: str) -> Metric:
    """Return the metric called `name`.

    Raises:
        InputError: no metric has that name (the message gives the nearest one).

    >>> find_metric("accuracy").unit
    'point'
    """
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    return METRICS[name]


def worst_score(metric: str = "accuracy") -> float:
    """Return the score that a diverged run counts with: the lowest possible value of `metric`.

    >>> worst_score("accuracy")
    0.0
    """
    return find_metric(metric).worst


def score_runs(
    scores: Sequence[float | None], diverged: Sequence[bool], *, metric: str = "accuracy"
) -> np.ndarray:
    """Return the scores of one arm with the worst score in place of every diverged run's.

    Args:
        scores: one per run, in the metric's own unit (accuracy: a fraction in [0, 1]). What stands
            at a diverged run is ignored and may be None or NaN.
        diverged: one flag per run.
        metric: name of the metric.

    Returns:
        (n,) float64. A missing score of a run that did not diverge stays NaN, so that
        `paired_difference` refuses it by its index.

    Raises:
        InputError: the lengths differ, or the metric is unknown.

    >>> score_runs([0.9, None, 0.8], [False, True, False]).tolist()
    [0.9, 0.0, 0.8]
    """
    worst = worst_score(metric)
    if len(scores) != len(diverged):
        raise InputError(
            f"expected one divergence flag per score, got {len(scores)} scores and "
            f"{len(diverged)} flags: pass both for the same runs."
        )
    values = [np.nan if score is None else score for score in scores]
    return np.where(np.asarray(diverged, bool), worst, np.asarray(values, np.float64))
