"""What the layers of a network see while it trains: the same figures at chosen epochs.

The training loop calls a `Look` between two epochs, in a pause in which nothing that happens
changes the training. A look that fails says why, and the training goes on. Not here: when a study
looks (`study.plan`), what one sees (`moments`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..errors import RelucateError, briefly
from ..surgery.points import places, points_of
from .watching import Watchable

SITES = 24  # of a network with more, as many are looked at, evenly spread
EXAMPLES = 256
_BATCH = 64


class Look:
    """Looks at a model at chosen epochs (0: before training) and keeps what it saw."""

    def __init__(self, get: Callable[[], Watchable], epochs: Sequence[int], examples: int) -> None:
        self.epochs, self.examples = frozenset(epochs), examples
        self.found: dict[str, Any] = {"examples": examples, "sites": [], "left": 0, "steps": []}
        self._model: Watchable | None = None
        try:
            model = get()
            sites, _ = places(model.graph)
        except Exception as error:  # a model that can't be read, or whatever its own code raises
            self.found["refused"] = _reason(error)
            return
        chosen = np.unique(np.linspace(0, len(sites) - 1, min(SITES, len(sites))).round())
        kept = [sites[int(place)] for place in chosen]
        self._model, self._points = model, points_of(model.graph, kept)
        self.found |= {"sites": [asdict(site) for site in kept], "left": len(sites) - len(kept)}

    def __call__(self, epoch: int, inputs: np.ndarray) -> None:
        """Look at the model with these inputs, in its own layout, after this many epochs."""
        if self._model is None:
            return
        try:
            step: dict[str, Any] = {"points": self._seen(self._model, inputs)}
        except Exception as error:  # values that aren't finite, or whatever the model raises
            step = {"points": [], "error": _reason(error)}
        self.found["steps"].append({"epoch": epoch, **step})

    def _seen(self, model: Watchable, inputs: np.ndarray) -> list[Mapping[str, Any]]:
        # Most trainings aren't looked at, and moments import SciPy.
        from ..moments.channels import Channels
        from ..moments.seen import measure, seen

        streams = {point.node: Channels(point.axis) for point in self._points}
        batches = [[inputs[at : at + _BATCH]] for at in range(0, len(inputs), _BATCH)]
        found = measure(model.watch, model.graph, streams, batches)
        points = (point for point in self._points if point.node in found)
        return [seen(p.node, p.layer, (), streams[p.node]).brief() for p in points]


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, RelucateError) else briefly(error)
