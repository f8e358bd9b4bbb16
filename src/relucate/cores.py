"""How many cores a process may use, and how many processes that is enough for."""

from __future__ import annotations

import os


def cores() -> int:
    """Return the number of cores that this process may run on, at least 1."""
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return known or 1


def processes(jobs: int | None, threads: int) -> int:
    """Return how many processes of so many threads run side by side; `jobs` decides if given."""
    return jobs or max(1, cores() // threads)
