"""What `audit` looks for: one function per rule, by family (the first digit of its code)."""

from . import affine, folding, placement, scope, settings, statistics
from .rule import RULES, SEVERITIES, Facts, Finding, Rule

__all__ = [
    "RULES",
    "SEVERITIES",
    "Facts",
    "Finding",
    "Rule",
    "affine",
    "folding",
    "placement",
    "scope",
    "settings",
    "statistics",
]
