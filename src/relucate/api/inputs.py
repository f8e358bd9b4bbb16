"""A user's arrays as a model's inputs: one per input of its graph, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..arguments import on_host
from ..errors import InputError
from ..graph import Graph
from ..phrases import some


def arrays_for(graph: Graph, given: Any, what: str) -> list[np.ndarray]:
    """Return one array per input of the graph.

    Raises: InputError: another number of arrays, shapes that don't fit, values that aren't finite.
    """
    if isinstance(given, Mapping):
        given = [given[name] for name in graph.inputs if name in given]
    if not isinstance(given, (list, tuple)):
        given = [given]
    arrays = [np.asarray(on_host(x)) for x in given]
    shapes = [graph.nodes[name].shape for name in graph.inputs]
    fits = len(arrays) == len(shapes) and all(map(_fits, arrays, shapes))
    if not fits or len({len(x) for x in arrays}) != 1 or not len(arrays[0]):
        wanted = ", ".join(str(("n", *shape[1:])) for shape in shapes)
        came = some([str(x.shape) for x in arrays], 4)
        raise InputError(f"{what} don't fit the model: expected {wanted}, got {came}.")
    for x in arrays:
        if x.dtype.kind not in "fiub" or not np.all(np.isfinite(x)):
            raise InputError(f"{what} must be finite numbers.")
    return arrays


def _fits(array: np.ndarray, shape: tuple[int | None, ...]) -> bool:
    sizes = zip(array.shape[1:], shape[1:], strict=False)
    return array.ndim == len(shape) and all(want in (None, size) for size, want in sizes)
