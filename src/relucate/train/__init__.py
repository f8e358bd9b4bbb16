"""One training run as plain data, and what the engines share: schedules, streams, pairing."""

from .pairing import Paired, pair_initial
from .recipe import Recipe
from .run import EpochReport, OnEpoch, RunResult, RunSpec, Trainer
from .schedule import learning_rates

__all__ = [
    "EpochReport",
    "OnEpoch",
    "Paired",
    "Recipe",
    "RunResult",
    "RunSpec",
    "Trainer",
    "learning_rates",
    "pair_initial",
]
