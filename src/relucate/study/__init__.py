"""Many runs, one verdict: arms × seeds, worker processes, a store of finished runs."""

from .arms import Arm
from .norm_settings import check_norm_settings
from .plan import StudyPlan
from .results import StudyResults
from .running import run
from .source import ModelSource, resolve
from .store import Store
from .vary import arms_from, check_dropout, check_factors

__all__ = [
    "Arm",
    "ModelSource",
    "Store",
    "StudyPlan",
    "StudyResults",
    "arms_from",
    "check_dropout",
    "check_factors",
    "check_norm_settings",
    "resolve",
    "run",
]
