"""Mean and variance per channel of what each norm reads, for a norm that becomes the identity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..graph import Graph
from ..moments.running import Running


@dataclass(frozen=True)
class Moments:
    """Mean and variance (over everything but the channels), shape (channels,), float64.

    examples: how many examples they were taken over.
    """

    mean: np.ndarray
    variance: np.ndarray
    examples: int


def measure(
    graph: Graph, names: Iterable[str], batches: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, Moments]:
    """Return the moments of what each norm reads; all calls of a norm count together.

    Args: names: the nodes of the norms; batches: what they read, batch of examples by batch.
    """
    running: dict[str, Running] = {}
    examples: Counter[str] = Counter()
    owner = {name: graph.nodes[name].arrays.get("moving_mean", name) for name in names}
    for values in batches:
        for name, value in values.items():
            node = graph.nodes[name]
            (axis,) = node.counted([node.attrs["axis"]])
            running.setdefault(owner[name], Running()).add(value, axis)
            examples[owner[name]] += len(value)
    return {
        name: Moments(running[key].mean, running[key].variance, examples[key])
        for name, key in owner.items()
    }
