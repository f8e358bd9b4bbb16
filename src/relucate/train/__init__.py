"""One run as plain data, and what engines share: task, loop, schedules, streams, pairing."""

from .metric import ACCURACY, Metric
from .pairing import Paired, pair_initial
from .recipe import Recipe
from .run import EpochReport, OnEpoch, RunResult, RunSpec
from .schedule import learning_rates
from .task import CLASSIFICATION, Task

__all__ = [
    "ACCURACY",
    "CLASSIFICATION",
    "EpochReport",
    "Metric",
    "OnEpoch",
    "Paired",
    "Recipe",
    "RunResult",
    "RunSpec",
    "Task",
    "learning_rates",
    "pair_initial",
]
