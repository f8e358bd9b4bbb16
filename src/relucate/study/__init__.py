"""Many runs, one verdict: arms × seeds, worker processes, a store of finished runs."""

from .arms import Arm
from .document import document
from .driver import run_study
from .norm_settings import check_norm_settings
from .plan import StudyPlan
from .results import StudyResults
from .source import ModelSource, resolve
from .store import Store
from .tuning import at_best, tune
from .vary import arms_from, check_dropout, check_factors

__all__ = [
    "Arm",
    "ModelSource",
    "Store",
    "StudyPlan",
    "StudyResults",
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
