"""Facts about a graph's framework that the graph doesn't show, as data: a row per framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .nodes import Graph


@dataclass(frozen=True)
class Conventions:
    """How a framework does things that the Graph leaves open.

    momentum_of_new: its users' momentum is the share of the new value, not of the old average.
    constant_biases: the biases of its linear layers start with one value each.
    sized_by_example: the sizes in a graph are the example's, and the model may take others.
    """

    momentum_of_new: bool
    constant_biases: bool
    sized_by_example: bool


CONVENTIONS: Mapping[str, Conventions] = {
    "keras": Conventions(False, True, False),
    "torch": Conventions(True, False, True),
}


def conventions(graph: Graph) -> Conventions:
    """Return the conventions of the framework that a graph was read from."""
    return CONVENTIONS[graph.framework]
