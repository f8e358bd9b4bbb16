"""Two figures of a learning curve besides its end: area under it, and steps to a target score.

An order may win early and tie late. Each figure is one number per run, so arms are compared in
pairs as with any score. Called by `study`. Not here: the curve (the trainers), the interval
(`paired`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Curve = Sequence[float | None]


def area(scores: Curve) -> float | None:
    """Return the mean height of a curve, by the trapezoidal rule over its epochs.

    (s_1 / 2 + s_2 + ... + s_(E-1) + s_E / 2) / (E - 1), in the score's own unit; with one epoch,
    its score. None if a score is missing.

    >>> area([0.5, 0.7, 0.9])
    0.7
    """
    if not scores or any(score is None for score in scores):
        return None
    values = np.array(scores, dtype=float)
    if len(values) == 1:
        return float(values[0])
    return round(float((values[1:] + values[:-1]).mean() / 2), 12)


def common_target(ends: Sequence[float], *, lower_is_better: bool = False) -> float:
    """Return a score that all curves with these ends reach: 5 % short of the worst of them.

    >>> common_target([0.8, 0.6]), common_target([4.0, 2.0], lower_is_better=True)
    (0.57, 4.2)
    """
    worst = max(ends) if lower_is_better else min(ends)
    return worst * (0.95 if (worst > 0) != lower_is_better else 1.05)


def epochs_to(scores: Curve, target: float, *, lower_is_better: bool = False) -> float | None:
    """Return the number of epochs after which a curve first reaches `target`, None if never.

    scores[e - 1] is the score after epoch e. Between two epochs the curve is a straight line. If
    the first score already reaches the target, the result is 1: nothing is known before it.

    >>> epochs_to([0.5, 0.7, 0.9], 0.6), epochs_to([0.5, 0.7], 0.5), epochs_to([0.5], 0.6)
    (1.5, 1.0, None)
    """
    if lower_is_better:
        return epochs_to([None if score is None else -score for score in scores], -target)
    before: float | None = None
    for epoch, score in enumerate(scores, start=1):
        if score is not None and score >= target:
            if before is None or score == before:
                return float(epoch)
            return round(epoch - (score - target) / (score - before), 9)
        before = score
    return None
