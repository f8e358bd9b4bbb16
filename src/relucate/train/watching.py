"""A model whose inside can be looked at: the values at its nodes, and the gradients there.

Every read model is one (`framework.ReadModel`), and so is what a model is lowered to. Not here:
which nodes (`surgery.points`), what is measured (`moments`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..graph import Graph
from .task import Task


@dataclass(frozen=True)
class Target:
    """What a loss compares a model's outputs with: the labels of all examples, in their order.

    task: gives the loss; classes: number of classes or columns.
    """

    task: Task
    labels: np.ndarray
    classes: int


Each = Callable[[str, np.ndarray], None]


class Watchable(Protocol):
    """A model whose nodes' values, and the loss's gradients there, can be looked at."""

    graph: Graph

    def watch(
        self, names: Sequence[str], batches: Iterable[Sequence[np.ndarray]], each: Each
    ) -> None:
        """Run the model at inference and give `each` the outputs of the nodes `names`, by node.

        Each as soon as it is computed, in memory that the model may use again: copy what is kept.
        A node whose output only exists inside a layer's own call is left out.
        """
        ...

    def gradients(
        self,
        names: Sequence[str],
        batches: Iterable[Sequence[np.ndarray]],
        target: Target,
        each: Each,
    ) -> None:
        """Run the model at inference and back; `each` gets d loss / d output of the nodes, by node.

        The loss is each example's own, so that batches don't matter.
        Raises: Refused: the framework gives no gradients, outputs that don't fit the task.
        """
        ...
