"""Mean and variance per channel, merged batch by batch in float64.

Source: Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample
Variances, 1979.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..graph import Graph


@dataclass(frozen=True)
class Moments:
    """Mean and variance (over everything but the channels), shape (channels,), float64.

    examples: how many examples they were taken over.
    """

    mean: np.ndarray
    variance: np.ndarray
    examples: int


@dataclass
class Running:
    """Moments of a stream of batches."""

    count: int = 0  # values per channel
    examples: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(()))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(()))

    def add(self, batch: np.ndarray, axis: int) -> None:
        """Take in a batch with the channels along `axis`, the examples along axis 0."""
        values = np.moveaxis(np.asarray(batch, np.float64), axis, -1)
        values = values.reshape(-1, values.shape[-1])
        mean = values.mean(axis=0)
        squares = np.square(values - mean).sum(axis=0)
        total = self.count + len(values)
        gap = mean - self.mean
        self.squares = self.squares + squares + np.square(gap) * (self.count * len(values) / total)
        self.mean = self.mean + gap * (len(values) / total)
        self.count, self.examples = total, self.examples + len(batch)

    def moments(self) -> Moments:
        """Return what has been seen so far."""
        return Moments(self.mean, self.squares / max(self.count, 1), self.examples)


def measure(
    graph: Graph, names: Iterable[str], batches: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, Moments]:
    """Return the moments of what each norm reads; all calls of a norm count together.

    Args: names: the nodes of the norms; batches: what they read, batch of examples by batch.
    """
    running: dict[str, Running] = {}
    owner = {name: graph.nodes[name].arrays.get("moving_mean", name) for name in names}
    for values in batches:
        for name, value in values.items():
            axis = graph.nodes[name].attrs["axis"] % value.ndim
            running.setdefault(owner[name], Running()).add(value, axis)
    return {name: running[key].moments() for name, key in owner.items()}
