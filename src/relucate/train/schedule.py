"""The learning rate of every step of a run, the same numbers for every engine."""

from __future__ import annotations

import numpy as np

from .recipe import Recipe

_WARM = 0.3  # share of the steps in which one-cycle rises
_START, _END = 1 / 25, 1e-4  # of the peak rate


def learning_rates(recipe: Recipe, steps_per_epoch: int) -> np.ndarray:
    """Return the learning rate of every step, shape (epochs · steps_per_epoch,), float64.

    onecycle: half a cosine up from peak/25 in the first 30 % of the steps, half a cosine down to
    peak/10⁴ in the rest (Smith and Topin, Super-Convergence, 2018, with cosine ramps); cosine: half
    a cosine from the peak to 0; step: a tenth of what it was after each of the milestones (half and
    three quarters of the steps); constant: the peak.

    >>> learning_rates(Recipe(epochs=4, schedule="step", lr=1.0), 1).round(6).tolist()
    [1.0, 1.0, 0.1, 0.01]
    """
    steps = recipe.epochs * steps_per_epoch
    position = np.arange(steps) / max(steps, 1)
    shapes = {
        "constant": np.ones_like,
        "cosine": lambda p: (1 + np.cos(np.pi * p)) / 2,
        "step": lambda p: 0.1 ** np.searchsorted(recipe.milestones, p, "right").astype(float),
        "onecycle": _one_cycle,
    }
    return recipe.rate * shapes[recipe.schedule](position)


def _one_cycle(position: np.ndarray) -> np.ndarray:
    up = _blend(_START, 1.0, position / _WARM)
    down = _blend(1.0, _END, (position - _WARM) / (1 - _WARM))
    return np.where(position < _WARM, up, down)


def _blend(start: float, end: float, share: np.ndarray) -> np.ndarray:
    return end + (start - end) * (1 + np.cos(np.pi * np.clip(share, 0, 1))) / 2
