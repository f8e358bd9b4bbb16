"""Many runs, one verdict: arms × seeds, worker processes, a store of finished runs."""

from .arms import Arm
from .driver import Outcome, Plan, arms_from, run_study
from .outcome import document
from .source import ModelSource, resolve
from .store import Store

__all__ = [
    "Arm",
    "ModelSource",
    "Outcome",
    "Plan",
    "Store",
    "arms_from",
    "document",
    "resolve",
    "run_study",
]
