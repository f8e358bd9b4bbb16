"""Work that lets others compute while it waits for its device: a generator with a result.

It yields what says whether it can go on, and returns its result. Whoever runs several resumes those
that can (`study.executors.worker`); whoever runs one resumes it until it ends (`finished`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from typing import ParamSpec, TypeVar

Ready = Callable[[], bool]
WORTH = 1.05  # how many times as fast runs must be if more of them share a device

P = ParamSpec("P")
T = TypeVar("T")


def finish(work: Generator[Ready, None, T]) -> T:
    """Do all of it and return its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def finished(work: Callable[P, Generator[Ready, None, T]]) -> Callable[P, T]:
    """Return the function that does all of the work.

    >>> def three():
    ...     yield lambda: True
    ...     return 3
    >>> finished(three)()
    3
    """

    @functools.wraps(work)
    def whole(*args: P.args, **kwargs: P.kwargs) -> T:
        return finish(work(*args, **kwargs))

    return whole
