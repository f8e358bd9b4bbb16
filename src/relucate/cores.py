"""How many cores a process may use."""

from __future__ import annotations

import os


def cores() -> int:
    """Return the number of cores that this process may run on, at least 1."""
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return known or 1
