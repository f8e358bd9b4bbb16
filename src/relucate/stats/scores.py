"""What the statistics know about a score: its direction, unit and scale, and divergence.

The rule for diverged runs: a run whose loss turned NaN or infinite gets the metric's worst score
and counts. It is never dropped: otherwise an arm that diverges more often would look better.
Not here: which metrics there are (`train.metric`), differences between arms (`paired`) and
sentences (`wording`). Called by `study`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from relucate.errors import InputError


class Metric(Protocol):
    """The part of a metric that the statistics need; `train.metric.Metric` has it."""

    @property
    def name(self) -> str: ...
    @property
    def lower_is_better(self) -> bool: ...
    @property
    def unit(self) -> str: ...
    @property
    def scale(self) -> float: ...
    @property
    def worst(self) -> float | None: ...
    @property
    def value_unit(self) -> str: ...
    @property
    def named(self) -> str: ...
    @property
    def diverged(self) -> str: ...
    def amount(self, number: str) -> str: ...


def score_runs(
    scores: Sequence[float | None], diverged: Sequence[bool], metric: Metric
) -> np.ndarray:
    """Return the scores of one arm with the worst score in place of every diverged run's.

    Args:
        scores: one per run, in the metric's own unit. The score of a diverged run is ignored and
            may be None or NaN.
        diverged: one flag per run.
        metric: its worst score is used.

    Returns:
        (n,) float64. A missing score of a run that did not diverge stays NaN, so that
        `paired_difference` refuses it by its index.

    Raises:
        InputError: the lengths differ, or a run diverged and the metric has no worst value.

    >>> from relucate.train.metric import ACCURACY
    >>> score_runs([0.9, None, 0.8], [False, True, False], ACCURACY).tolist()
    [0.9, 0.0, 0.8]
    """
    if len(scores) != len(diverged):
        raise InputError(
            f"expected one divergence flag per score, got {len(scores)} scores and "
            f"{len(diverged)} flags: pass both for the same runs."
        )
    if any(diverged) and metric.worst is None:
        raise InputError(
            f"a run diverged, and '{metric.name}' has no worst value for it to count with: give "
            f"the metric one (worst=), or train so that no run diverges."
        )
    worst = np.nan if metric.worst is None else metric.worst
    values = [np.nan if score is None else score for score in scores]
    return np.where(np.asarray(diverged, bool), worst, np.asarray(values, np.float64))
