"""The values at chosen nodes of a PyTorch module while it runs in eval mode.

What torch.fx traced is run again node by node, so that functions are seen as well as modules. A
forward that only torch.export can read is run as it is, with hooks: there the inputs and outputs of
modules are seen. A lowered model is run node by node, by the names of its source. Gradients are
taken where the values are. Called by `framework`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ..errors import Refused
from ..train.watching import Target
from .losses import Losses
from .lowering.lower import Lowered
from .reading.detached import View, materialized, unwrap
from .reading.reader import Reading, example_of
from .running import as_array, evaluating, given_as_example
from .state import untouched

Each = Callable[[str, np.ndarray], None]
Turn = Callable[[Tensor], Tensor]  # to the layout of the graph
Note = Callable[..., None]  # of a node's name, its value, and how that is turned


def watch(
    model: nn.Module,
    reading: Reading,
    names: Sequence[str],
    batches: Iterable[Sequence[np.ndarray]],
    each: Each,
) -> None:
    """Give `each` the outputs of the nodes `names`, batch by batch, as they are computed."""
    model, wanted = unwrap(model), frozenset(names)
    with untouched(model), torch.no_grad():
        if reading.way != "fx":
            _hooked(model, reading, wanted, batches, each)
            return
        runner = _runner(model, reading, wanted, _given(each))
        for batch in batches:
            runner.run(*_tensors(model, reading, batch))


def _given(each: Each) -> Note:
    return lambda name, value, turned=_as_it_is: each(name, as_array(turned(value)))


def _as_it_is(value: Tensor) -> Tensor:
    return value


def _channels_last(value: Tensor) -> Tensor:
    return value.movedim(1, -1)


def gradients(
    model: nn.Module,
    reading: Reading,
    names: Sequence[str],
    batches: Iterable[Sequence[np.ndarray]],
    target: Target,
    each: Each,
) -> None:
    """Give `each` the gradients of the examples' losses at the outputs of nodes, batch by batch.

    Raises: Refused: a forward that torch.fx can't trace, outputs that don't fit the task.
    """
    model = unwrap(model)
    if reading.way != "fx":
        raise Refused("gradients need a forward that torch.fx can trace, and this one can't be.")
    with untouched(model), torch.enable_grad():
        runner = _runner(model, reading, frozenset(names), _back(each))
        losses = Losses(target, channels_first=True)
        for batch in batches:
            given = [_differentiable(x) for x in _tensors(model, reading, batch)]
            losses.back(model, runner.run(*given))


class WatchedLowered:
    """A lowered model, whose nodes have the names and the layout of its source's graph."""

    def __init__(self, model: Lowered) -> None:
        self.model, self.graph = model, model.source

    def watch(
        self, names: Sequence[str], batches: Iterable[Sequence[np.ndarray]], each: Each
    ) -> None:
        """Give `each` the outputs of nodes, batch by batch, at inference."""
        with evaluating(self.model):
            runner = _LoweredWatcher(self.model, frozenset(names), _given(each))
            for batch in batches:
                runner.run(self._tensor(batch))

    def gradients(
        self,
        names: Sequence[str],
        batches: Iterable[Sequence[np.ndarray]],
        target: Target,
        each: Each,
    ) -> None:
        """Give `each` the gradients of the examples' losses at the outputs of nodes."""
        with evaluating(self.model), torch.enable_grad():
            runner = _LoweredWatcher(self.model, frozenset(names), _back(each))
            losses = Losses(target, channels_first=False)
            for batch in batches:
                losses.back(self.model, runner.run(_differentiable(self._tensor(batch))))

    def _tensor(self, batch: Sequence[np.ndarray]) -> Tensor:
        (x,) = batch
        place = next(self.model.parameters(), torch.empty(0)).device
        made = torch.from_numpy(np.ascontiguousarray(x)).to(place)
        return made.float() if made.is_floating_point() else made


class _LoweredWatcher(fx.Interpreter):
    def __init__(self, model: Lowered, wanted: frozenset[str], note: Note) -> None:
        super().__init__(model)
        self.extra_traceback = False
        self._note = note
        self._names: dict[str, list[tuple[str, bool]]] = {}
        for name, (place, moved) in model.places.items():
            if name in wanted:
                self._names.setdefault(place, []).append((name, moved))

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        for name, moved in self._names.get(n.name, ()):
            self._note(name, value, _channels_last if moved else _as_it_is)
        return value


def _back(each: Each) -> Note:
    """Return what asks a value for its gradient, which comes as the loss is taken back."""

    def note(name: str, value: Tensor, turned: Turn = _as_it_is) -> None:
        if value.requires_grad:
            value.register_hook(lambda gradient: each(name, as_array(turned(gradient))))

    return note


def _differentiable(x: Tensor) -> Tensor:
    """Return an input that gradients reach; a copy, because a layer may change it in place."""
    return x.clone().requires_grad_().clone() if x.is_floating_point() else x


def _tensors(model: nn.Module, reading: Reading, batch: Sequence[np.ndarray]) -> list[Tensor]:
    args, kwargs = given_as_example(model, batch, reading.example)
    leaves = pytree.tree_leaves((args, kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _runner(
    model: nn.Module, reading: Reading, wanted: frozenset[str], note: Note
) -> fx.Interpreter:
    whole = materialized(model, *example_of(model, reading.example))
    return _Watcher(View(whole).root, reading, wanted, note)


class _Watcher(fx.Interpreter):
    """Runs a traced forward with the modules of a view, in eval mode."""

    def __init__(
        self, root: nn.Module, reading: Reading, wanted: frozenset[str], note: Note
    ) -> None:
        super().__init__(root, graph=reading.traced)
        self.extra_traceback = False
        self._note = note
        self._constants = {  # made inside forward
            node.target: node.meta["constant"]
            for node in reading.traced.nodes
            if node.op == "get_attr" and "constant" in node.meta
        }
        self._names: dict[str, str] = {}
        for traced, name in reading.bound.items():
            if name in wanted and name not in self._names.values():
                self._names[traced] = name

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._names and isinstance(value, Tensor):
            self._note(self._names[n.name], value)
        return value

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target in self._constants:
            return self._constants[target]
        return super().get_attr(target, args, kwargs)


def _hooked(
    model: nn.Module,
    reading: Reading,
    wanted: frozenset[str],
    batches: Iterable[Sequence[np.ndarray]],
    each: Each,
) -> None:
    outputs, inputs = _at_modules(reading, wanted)
    calls: Counter[str] = Counter()

    def before(path: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            if (path, calls[path]) in inputs and args and isinstance(args[0], Tensor):
                each(inputs[path, calls[path]], as_array(args[0]))

        return hook

    def behind(path: str) -> Any:
        def hook(module: nn.Module, args: Any, found: Any) -> None:
            if (path, calls[path]) in outputs and isinstance(found, Tensor):
                each(outputs[path, calls[path]], as_array(found))
            calls[path] += 1

        return hook

    handles = []
    for path in {path for path, _ in (*outputs, *inputs)}:
        module = reading.modules[path]
        handles.append(module.register_forward_pre_hook(before(path)))
        handles.append(module.register_forward_hook(behind(path)))
    try:
        with evaluating(model):
            for batch in batches:
                calls.clear()
                args, kwargs = given_as_example(model, batch, reading.example)
                model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()


def _at_modules(
    reading: Reading, wanted: frozenset[str]
) -> tuple[dict[tuple[str, int], str], dict[tuple[str, int], str]]:
    """Return the wanted nodes that are a module's output or input: by its path and its call."""
    made, modules = frozenset(reading.bound.values()), reading.modules
    nodes = [node for node in reading.graph if node.layer in modules]
    outputs = {
        (node.layer, node.call): node.name
        for node in nodes
        if node.name in wanted and node.name in made
    }
    inputs: dict[tuple[str, int], str] = {}
    seen: set[tuple[str, int]] = set()
    for node in nodes:
        key, first = (node.layer, node.call), node.inputs[:1]
        free = set(first) & wanted - {*outputs.values(), *inputs.values()}
        if key not in seen and free:
            inputs[key] = first[0]
        seen.add(key)
    return outputs, inputs
