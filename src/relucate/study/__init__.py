"""Many runs, one verdict: arms × seeds, worker processes, a store of finished runs."""

from .arms import Arm
from .driver import Outcome, Plan, run_study
from .norm_settings import check_norm_settings
from .outcome import document
from .source import ModelSource, resolve
from .store import Store
from .tuning import at_best, tune
from .vary import arms_from, check_dropout, check_factors

__all__ = [
    "Arm",
    "ModelSource",
    "Outcome",
    "Plan",
    "Store",
    "arms_from",
    "at_best",
    "check_dropout",
    "check_factors",
    "check_norm_settings",
    "document",
    "resolve",
    "run_study",
    "tune",
]
