"""The values at chosen nodes of a PyTorch module while it runs in eval mode.

What torch.fx traced is run again node by node, so that functions are seen as well as modules. A
forward that only torch.export can read is run as it is, with hooks: there the inputs and outputs of
modules are seen. Called by `framework`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from .reading.detached import View, materialized, unwrap
from .reading.reader import Reading, example_of
from .running import as_array, evaluating, given_as_example
from .state import unchanged

Each = Callable[[str, np.ndarray], None]


def watch(
    model: nn.Module,
    reading: Reading,
    names: Sequence[str],
    batches: Iterable[Sequence[np.ndarray]],
    each: Each,
) -> None:
    """Give `each` the outputs of the nodes `names`, batch by batch, as they are computed."""
    model, wanted = unwrap(model), frozenset(names)
    run = _traced if reading.way == "fx" else _hooked
    with unchanged(model), torch.no_grad():
        run(model, reading, wanted, batches, each)


def _traced(
    model: nn.Module,
    reading: Reading,
    wanted: frozenset[str],
    batches: Iterable[Sequence[np.ndarray]],
    each: Each,
) -> None:
    whole = materialized(model, *example_of(model, reading.example))
    run = _Watcher(View(whole).root, reading, wanted, each)
    for batch in batches:
        args, kwargs = given_as_example(model, batch, reading.example)
        leaves = pytree.tree_leaves((args, kwargs))
        run.run(*(leaf for leaf in leaves if isinstance(leaf, Tensor)))


class _Watcher(fx.Interpreter):
    """Runs a traced forward with the modules of a view, in eval mode."""

    def __init__(
        self, root: nn.Module, reading: Reading, wanted: frozenset[str], each: Each
    ) -> None:
        super().__init__(root, graph=reading.traced)
        self.extra_traceback = False
        self._each = each
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
            self._each(self._names[n.name], as_array(value))
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
