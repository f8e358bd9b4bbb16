"""Which pairs of a study count so far, without looking at every run again after each one.

Called by `results`. Not here: scores and verdicts.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import islice

from .comparison import Seed


class FinishedPairs:
    """The seeds with results of enough arms, in the order of the plan, while runs are added.

    Each run is looked at once, so that the cost of a pair doesn't grow with their number.

    >>> pairs = FinishedPairs(["a", "b"], [0, 1, 2], enough=2)
    >>> pairs.among({("a", 1): 0, ("b", 1): 0, ("a", 0): 0}), pairs.first()
    ([1], [])
    """

    def __init__(self, labels: Collection[str], seeds: Sequence[Seed], *, enough: int) -> None:
        self._labels, self._seeds, self._enough = frozenset(labels), list(seeds), enough
        self._places = {seed: place for place, seed in enumerate(self._seeds)}
        self._start()

    def _start(self) -> None:
        self._seen, self._counts = 0, Counter[Seed]()
        self._done: list[int] = []  # places
        self._first: list[Seed] = []
        self._failed: frozenset[Seed] = frozenset()

    def among(self, runs: Collection[tuple[str, Seed]]) -> list[Seed]:
        """Return the finished seeds among all runs so far, which are kept in their order."""
        if len(runs) < self._seen:  # some were taken away
            self._start()
        for label, seed in islice(runs, self._seen, None):
            if label in self._labels and seed in self._places:
                self._counts[seed] += 1
                if self._counts[seed] == self._enough:
                    insort(self._done, self._places[seed])
        self._seen = len(runs)
        return [self._seeds[place] for place in self._done]

    def first(self, failed: Collection[Seed] = ()) -> list[Seed]:
        """Return the finished seeds before the first that isn't, without those that failed."""
        if len(failed) != len(self._failed):
            self._first, self._failed = [], frozenset(failed)
        at = self._places[self._first[-1]] + 1 if self._first else 0
        for seed in islice(self._seeds, at, None):
            if seed in self._failed:
                continue
            if self._counts[seed] < self._enough:
                break
            self._first.append(seed)
        return list(self._first)
