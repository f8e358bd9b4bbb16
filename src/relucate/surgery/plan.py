"""What a planner decided: the new graph, and what became of every norm, with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..graph import Graph


@dataclass(frozen=True)
class Outcome:
    """What happens to one norm layer: done or skipped, and why.

    strategy: how zero padding behind the norm is treated, where it matters (`fold`).
    old, new: the order of its block so far, and then.
    """

    name: str
    status: str
    reason: str
    strategy: str | None = None
    old: str = ""
    new: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the row of the report."""
        names = ("name", "status", "reason", "strategy", "old", "new")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Plan:
    """The graph that a verb would give back, and how it came to be.

    placed: of `convert`, the nodes of the norms that were put elsewhere as the identity.
    warnings: what to know about the new graph, in whole sentences.
    """

    graph: Graph
    outcomes: tuple[Outcome, ...]
    placed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def done(self) -> tuple[Outcome, ...]:
        """The norms that something was done to."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "done")
