"""One face for both frameworks: read, write, run. Chosen by what the model is.

Only a framework that the user has imported already is looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..errors import InputError
from ..graph import Graph
from ..surgery.moments import Moments, Running


class Adapter(Protocol):
    """A model of one framework, read."""

    graph: Graph
    dtypes: frozenset[str]  # that the model's weights have and its layers compute in
    limits: tuple[str, ...]  # why its outputs are less precise than that

    def write(self, graph: Graph, fresh: int | None = None) -> Any:
        """Return a new model that computes what `graph` says."""
        ...

    def outputs(self, model: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the outputs of a model of this framework at inference."""
        ...

    def other_sizes(self, inputs: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """Return inputs of other sizes that such a model may take, though its graph has one."""
        ...

    def reread(self, model: Any) -> Graph:
        """Return the Graph of a model that was written."""
        ...

    def notes(self, model: Any) -> tuple[str, ...]:
        """Return what else to know about a model that was written."""
        ...

    def taps(
        self, graph: Graph, names: Sequence[str], batches: Iterable[Sequence[np.ndarray]]
    ) -> Iterator[dict[str, np.ndarray]]:
        """Write `graph` and yield, batch by batch, what the nodes `names` read first."""
        ...


class _Keras:
    def __init__(self, model: Any) -> None:
        from ..keras import read
        from ..keras.running import precisions

        self._model, self._read = model, read
        self.graph = read(model)
        self.dtypes, self.limits = precisions(model)

    def write(self, graph: Graph, fresh: int | None = None) -> Any:
        from ..keras.writing.writer import write

        return write(graph, self._model, fresh=fresh)

    def outputs(self, model: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        from ..keras.running import outputs

        return outputs(model, inputs)

    def other_sizes(self, inputs: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        return []  # the graph says which sizes it takes

    def reread(self, model: Any) -> Graph:
        return self._read(model)

    def notes(self, model: Any) -> tuple[str, ...]:
        return ()

    def taps(
        self, graph: Graph, names: Sequence[str], batches: Iterable[Sequence[np.ndarray]]
    ) -> Iterator[dict[str, np.ndarray]]:
        from ..keras.running import tapped
        from ..keras.writing.writer import write_tapped

        model, tensors = write_tapped(graph, self._model, names)
        for batch in batches:
            yield tapped(model, tensors, batch)


class _Torch:
    def __init__(self, model: Any, example: Any, leaves: Sequence[str]) -> None:
        from ..torch import read_with_modules

        self._model, self._example, self._leaves = model, example, leaves
        self._reading = read_with_modules(model, example, leaves=leaves)
        self.graph = self._reading.graph
        self.dtypes = frozenset(str(p.dtype).removeprefix("torch.") for p in model.parameters())
        self.limits = ()

    def write(self, graph: Graph, fresh: int | None = None) -> Any:
        from ..torch.writing.writer import write

        return write(graph, self._model, self._reading, fresh=fresh)

    def outputs(self, model: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        from ..torch.running import outputs

        return outputs(model, inputs, self._example)

    def other_sizes(self, inputs: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        from ..torch.running import other_sizes

        return other_sizes(inputs)

    def reread(self, model: Any) -> Graph:
        from ..torch import read

        return read(model, self._example, leaves=self._leaves)

    def notes(self, model: Any) -> tuple[str, ...]:
        from ..torch.reading.reader import same_calls_in_training, unread
        from ..torch.writing.copying import backward_hooks

        found = []
        if type(model) is not type(self._model) and not same_calls_in_training(
            self._model, self._example, self._leaves
        ):
            found.append(
                "the forward does something else in training mode (behind self.training); the new "
                "module always does what eval mode does."
            )
        if paths := unread(self._reading, self._model):
            named = ", ".join(f"'{path}'" for path in paths)
            found.append(
                f"{named} isn't called for inputs like the example: torch.export follows one "
                "branch of each condition, and only that one is sure to compute the same."
            )
        if paths := backward_hooks(self._model):
            named = ", ".join(f"'{path}'" for path in paths)
            found.append(f"the new module has no backward hooks; the source has, at {named}.")
        return tuple(found)

    def taps(
        self, graph: Graph, names: Sequence[str], batches: Iterable[Sequence[np.ndarray]]
    ) -> Iterator[dict[str, np.ndarray]]:
        from ..torch.running import tapped
        from ..torch.writing.writer import write_tapped

        model, paths = write_tapped(graph, self._model, self._reading)
        wanted = {name: paths[name] for name in names if name in paths}
        for batch in batches:
            yield tapped(model, wanted, batch, self._example)


def adapt(model: Any, example: Any = None, leaves: Iterable[str] = ()) -> Adapter:
    """Return the adapter of a model.

    Raises: InputError: it is no model of a framework; Refused: it can't be read.
    """
    keras = sys.modules.get("keras")
    if keras is not None and isinstance(model, keras.layers.Layer):
        return _Keras(model)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        return _Torch(model, example, tuple(leaves))
    raise InputError(
        f"expected a Keras model or a torch.nn.Module, got {type(model).__name__}: {model!r:.80}. "
        "A file or a name is read on the command line."
    )


def measure(
    adapter: Adapter, graph: Graph, names: Sequence[str], batches: Iterable[Sequence[np.ndarray]]
) -> Mapping[str, Moments]:
    """Return the moments of what each norm reads; all calls of a norm count together."""
    running: dict[Any, Running] = {}
    owner = {name: graph.nodes[name].arrays.get("moving_mean", name) for name in names}
    for values in adapter.taps(graph, names, batches):
        for name, value in values.items():
            axis = graph.nodes[name].attrs["axis"] % value.ndim
            running.setdefault(owner[name], Running()).add(value, axis)
    return {name: running[owner[name]].moments() for name in names}
