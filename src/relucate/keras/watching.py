"""The values at chosen nodes of a Keras model while it runs, on any backend.

A layer with a fused activation (`Conv2D(8, 3, activation="relu")`) is called without it, by a
shallow copy that shares its variables, and then the activation: so the value between the two is
seen. On the first batch that is compared with the layer's own output.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

import keras
import numpy as np

from .reading.record import Call, Reading, Value
from .running import array_of, called, place_of, run_calls

Each = Callable[[str, np.ndarray], None]


def watch(
    reading: Reading,
    names: Sequence[str],
    batches: Iterable[Sequence[np.ndarray]],
    each: Each,
) -> None:
    """Give `each` the outputs of the nodes `names`, batch by batch, as they are computed."""
    watcher = _Watcher(reading, frozenset(names), each)
    for batch in batches:
        watcher.run(batch)


class _Watcher:
    def __init__(self, reading: Reading, wanted: frozenset[str], each: Each) -> None:
        self.reading, self.wanted, self.each = reading, wanted, each
        self.device = place_of(reading.model, None)
        self.bare: dict[int, Any] = {}  # id of a call -> its layer without activation, or None
        graph = reading.graph
        self.last = max(
            (i for i, call in enumerate(reading.calls) if wanted & {*call.names, *call.heads}),
            default=-1,
        )
        self.inputs = [name for name in graph.inputs if name in wanted]

    def run(self, batch: Sequence[np.ndarray]) -> None:
        places = self.reading.graph.inputs
        for name in self.inputs:
            self.each(name, batch[places.index(name)])
        if self.last < 0:
            return
        with closing(run_calls(self.reading, batch, self._make, self.device)) as calls:
            for number, (call, found) in enumerate(calls):
                for head, tensor in zip(call.heads, found, strict=True):
                    if head in self.wanted and call.heads.count(head) == 1:
                        self.each(head, _shared(tensor))
                if number == self.last:
                    break

    def _make(self, call: Call, values: Mapping[Value, Any]) -> list[Any]:
        inner = self._before_activation(call)
        if inner is None:
            return called(call, values, False, device=self.device)
        if id(call) not in self.bare:
            self.bare[id(call)] = _bare(call, values, self.device)
        layer = self.bare[id(call)]
        if layer is None:
            return called(call, values, False, device=self.device)
        (between,) = called(call, values, False, device=self.device, operation=layer)
        self.each(inner, _shared(between))
        return [call.operation.activation(between)]

    def _before_activation(self, call: Call) -> str | None:
        """Return the wanted node inside a call that its activation reads, if there is one."""
        if len(call.heads) != 1 or call.timed or len(call.names) < 2:
            return None
        *_, before, last = call.names
        kinds = [self.reading.graph.nodes[name].kind for name in (before, last)]
        split = kinds == ["linear", "act"] and last == call.heads[0]
        return before if split and before in self.wanted else None


def _bare(call: Call, values: Mapping[Value, Any], device: str | None) -> Any:
    """Return a call's layer without its activation; None if the two don't give the layer's own."""
    layer = call.operation
    if not isinstance(layer, keras.layers.Layer) or getattr(layer, "activation", None) is None:
        return None
    bare = copy.copy(layer)
    bare.activation = keras.activations.linear
    (own,) = called(call, values, False, device=device)
    (between,) = called(call, values, False, device=device, operation=bare)
    found = array_of(layer.activation(between))
    same = np.allclose(array_of(own), found, rtol=1e-4, atol=1e-5, equal_nan=True)
    return bare if same else None


def _shared(tensor: Any) -> np.ndarray:
    """Return a tensor as an array, in the tensor's own memory if NumPy can read that."""
    plain: Any = keras.ops.stop_gradient(tensor)
    try:
        return np.from_dlpack(plain)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError):
        return array_of(tensor)
