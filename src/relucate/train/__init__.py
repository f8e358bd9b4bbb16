"""One run as plain data, and what engines share: task, loop, schedules, streams, pairing."""

from ..lazy import imported_on_use

_HOMES = {
    "ACCURACY": "metric",
    "CLASSIFICATION": "task",
    "EpochReport": "run",
    "Metric": "metric",
    "OnEpoch": "run",
    "Paired": "pairing",
    "Recipe": "recipe",
    "RunResult": "run",
    "RunSpec": "run",
    "Task": "task",
    "learning_rates": "schedule",
    "pair_initial": "pairing",
}
# The command line reads the recipe's options for --help, and NumPy isn't needed for that.
__getattr__ = imported_on_use(__name__, _HOMES)
