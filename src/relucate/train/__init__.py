"""One training run as plain data, and what the engines share: schedules, streams, pairing."""

from ..lazy import imported_on_use

_HOMES = {
    "EpochReport": "run",
    "OnEpoch": "run",
    "Paired": "pairing",
    "Recipe": "recipe",
    "RunResult": "run",
    "RunSpec": "run",
    "Trainer": "run",
    "learning_rates": "schedule",
    "pair_initial": "pairing",
}
# The command line reads the recipe's options for --help, and NumPy isn't needed for that.
__getattr__ = imported_on_use(__name__, _HOMES)
