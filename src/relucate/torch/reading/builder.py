"""The growing Graph: nodes, their names and shapes, the weights under their keys.

The tables of functions and modules add to it through `emit`; `translator` says where in the model
they are (the scope). Not here: what a call means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import Refused
from ...graph import OPERATIONS, Node
from ...graph.inference import output_shape
from ...graph.layouts import to_graph
from .detached import View
from .nested import as_parts, map_nested
from .program import Call, Data, Parts, Unknown
from .targets import canonical, describe


@dataclass(frozen=True)
class Weight:
    """A tensor of the model and how its axes are turned for the Graph (`layouts`)."""

    tensor: Tensor
    layout: str = "same"
    channels: int = 1


@dataclass
class Scope:
    """Where the nodes that are emitted now belong."""

    layer: str  # the module's path, or that of the module in whose forward a function is called
    call: int
    module: bool
    part: str = ""


class Builder:
    """Nodes and tensors so far, and where in the model the next ones belong."""

    def __init__(self, view: View, batch: int, kept: Collection[str] = ()) -> None:
        self.view, self.batch = view, batch
        self._kept = kept  # calls that merge axes and become nodes
        self.needed: set[str] = set()  # more of them: this reading has to be done again
        self.nodes: dict[str, Node] = {}
        self.tensors: dict[str, np.ndarray] = {}
        self.bindings: dict[str, tuple[str | None, str]] = {}  # key -> name in state dict, layout
        self.derived_from: dict[str, frozenset[str]] = {}
        self.origins: dict[str, str] = {}  # node -> name in the traced program
        self.types: dict[str, torch.dtype] = {}  # node -> the type of its value
        self._calls: dict[str, int] = {}
        self._labels: dict[tuple[str, int, str], int] = {}
        self._scope = Scope("", 0, False)
        self._storages = 0
        self._current: Call | None = None
        self._sources: dict[int, tuple[Tensor, frozenset[str]]] = {}

    def emit(
        self,
        op: str,
        inputs: Sequence[Data],
        attrs: Mapping[str, Any] | None = None,
        weights: Mapping[str, Weight | None] | None = None,
        *,
        part: str = "",
        label: str = "",
        shape: tuple[int, ...] | None = None,
        dtype: torch.dtype | None = None,
        alias: bool = False,
    ) -> Data:
        """Add a node and return what it gives.

        Args:
            weights: role -> tensor; None where the layer has none.
            part: tells this node of a module apart from the module's main one.
            label: for a function, its name in the layer's name, where that isn't the operation's.
            shape: of the output, where it doesn't follow from the attributes.
            alias: the output may share the input's memory.

        Raises: Mismatch: the shapes don't fit.
        """
        layer, name = self._name(label or op, part)
        attrs = dict(attrs or {})
        merged = next((x for x in inputs if x.lead), None)
        if merged and _takes_apart(op, attrs, inputs):
            attrs |= _axes_apart(attrs, len(merged.lead) - 1)
            inputs = [x.apart for x in inputs]
        else:
            inputs, merged = [self.merged_by_a_node(x) for x in inputs], None
        arrays = {
            role: self._key(layer, role, weight)
            for role, weight in (weights or {}).items()
            if weight is not None
        }
        if shape is None:
            sizes = {role: self.tensors[key].shape for role, key in arrays.items()}
            shape = output_shape(op, attrs, sizes, [d.shape for d in inputs])
        if OPERATIONS[op].kind == "linear" and self.bindings[arrays["kernel"]][0] is None:
            attrs["reparametrized"] = self.view.reparametrized.get(self.path, "computed")
        names = tuple(d.name for d in inputs)
        public, call = self._public(shape), self._scope.call
        self.nodes[name] = Node(name, op, names, public, layer, call, attrs, arrays)
        if self._current is not None:
            self.origins[name] = self._current.results[0].name
        storage = inputs[0].storage if alias else self._storage()
        kind = self.types[name] = dtype or (inputs[0].dtype if inputs else torch.float32)
        made = Data(name, tuple(shape), kind, storage)
        return _merged(made, merged.lead, merged.merge) if merged else made

    def merged(self, x: Data, shape: tuple[int, ...]) -> Data | None:
        """Return `x` with its leading axes merged, without a node, if `shape` says so.

        Linear layers, norms over the last axis and activations compute the same on either.
        """
        count = len(x.shape) - len(shape) + 1
        lead = x.shape[:count]
        call = self._current.results[0].name if self._current else ""
        if count < 2 or len(shape) < 2 or lead.count(self.batch) != 1 or call in self._kept:
            return None
        found = _merged(x, lead, call)
        return found if x.shape[0] == self.batch and found.shape == shape else None

    def merged_by_a_node(self, x: Data) -> Data:
        """Return a tensor of merged axes as a node's output, for what needs them merged."""
        if not x.lead:
            return x
        self.needed.add(x.merge)
        return self.unknown("flatten", "it merges axes", [x.apart], x.shape, x.dtype)

    def _name(self, label: str, part: str) -> tuple[str, str]:
        scope = self._scope
        again = f"@{scope.call}" if scope.call else ""
        if scope.module:
            part = part or scope.part
            base = f"{scope.layer}/{part}" if part else scope.layer
            name, count = base + again, 1
            while name in self.nodes:
                base = f"{scope.layer}/{part or label}" + (f"_{count - 1}" if count > 1 else "")
                name, count = base + again, count + 1
            return scope.layer, name
        key = (scope.layer, scope.call, label)
        count = self._labels.get(key, 0)
        base = f"{scope.layer}/{label}"
        layer = f"{base}_{count}" if count else base
        while layer in self.view.modules or layer + again in self.nodes:  # a module is called so
            count += 1
            layer = f"{base}_{count}"
        self._labels[key] = count + 1
        return layer, layer + again

    def _key(self, layer: str, role: str, weight: Weight) -> str:
        tensor, layout = weight.tensor, weight.layout
        if tensor.device.type == "meta":
            raise Refused(f"the weights of '{layer}' are on the meta device: they have no values.")
        name = self.view.names.get(id(tensor))
        base = f"{layer}/{role}" if name is None else name
        key, count = base, 1
        while key in self.tensors and not self._same(key, name, weight):
            key, count = f"{base}:{layout}" if count == 1 else f"{base}:{count}", count + 1
        if key not in self.tensors:
            self.tensors[key] = to_graph(_numpy(tensor), layout, weight.channels)
            self.bindings[key] = (name, layout)
            self.derived_from[key] = frozenset() if name else self._made_of(tensor)
        return key

    def _made_of(self, tensor: Tensor) -> frozenset[str]:
        if id(tensor) in self._sources:
            return self._sources[id(tensor)][1]
        if id(tensor) in self.view.names:
            return frozenset({self.view.names[id(tensor)]})
        module = self.view.modules[self.path] if self._scope.module else None
        own = module.parameters() if module is not None else ()
        return frozenset(self.view.names[id(p)] for p in own if id(p) in self.view.names)

    def _same(self, key: str, name: str | None, weight: Weight) -> bool:
        if self.bindings[key] != (name, weight.layout):
            return False
        if name is not None:
            return True
        found = to_graph(_numpy(weight.tensor), weight.layout, weight.channels)
        return np.array_equal(self.tensors[key], found)

    def _several(
        self,
        outputs: Any,
        op: str,
        inputs: list[Data],
        attrs: Mapping[str, Any],
        weights: Mapping[str, Weight],
        label: str,
    ) -> Any:
        numbers = count()

        def one(output: Any) -> Any:
            if not isinstance(output, Tensor):
                return output
            number = next(numbers)

            def make() -> Data:
                options = {"label": label, "shape": tuple(output.shape), "dtype": output.dtype}
                part = str(number) if number else ""
                return self.emit(op, inputs, attrs, weights, part=part, **options)

            return self.later(make)

        return as_parts(map_nested(one, outputs))

    def unknown(
        self, kind: str, why: str, inputs: list[Data], shape: tuple[int, ...], dtype: torch.dtype
    ) -> Data:
        """Add an opaque node whose shape is known."""
        attrs = {"type": kind, "why": why}
        return self.emit("opaque", inputs, attrs, label=kind, shape=shape, dtype=dtype)

    def later(self, make: Callable[[], Any]) -> Callable[[], Any]:
        """Return `make`, to be called when its part is read, as if it were called now."""
        scope, current = self._scope, self._current

        def run() -> Any:
            outer = self._scope, self._current
            self._scope, self._current = scope, current
            try:
                return make()
            finally:
                self._scope, self._current = outer

        return run

    def items(self, values: Any) -> list[Any]:
        """Return a list of tensors that a function joins."""
        if isinstance(values, Parts):
            return [values.get(index) for index in range(len(values))]
        if not isinstance(values, (list, tuple)):
            raise Unknown("it joins something that isn't a list")
        return list(values)

    def constant(self, value: Any, like: Data, rank: int) -> Data:
        """Add a node that gives the same tensor for every example of `like`."""
        if not isinstance(value, Tensor) or value.ndim != rank:
            raise Unknown("with a constant of another rank")
        value = self.without_batch(value, rank)
        if value.shape[0] != 1:
            raise Unknown("with a constant that has a batch axis of its own")
        shape = (like.shape[0], *value.shape[1:])
        weights = {"value": Weight(value)}
        return self.emit("constant", [like], {}, weights, shape=shape, dtype=value.dtype)

    def without_batch(self, value: Tensor, rank: int) -> Tensor:
        """Return a constant that was expanded along the batch axis as it was before.

        Raises: Unknown: it has other values for each example.
        """
        if self.batch == 1 or value.ndim != rank or value.shape[0] != self.batch:
            return value
        if not torch.equal(value, value[:1].expand_as(value)):
            raise Unknown("a constant with other values for each example")
        first, names = value[:1], self._made_of(value)
        for name in names if len(names) == 1 else ():
            source = self.view.tensor(name)
            if source.shape == first.shape and torch.equal(source, first):
                return source
        self._sources[id(first)] = (first, names)
        return first

    def derived(self, value: Tensor, source: Tensor) -> Tensor:
        """Note what a computed tensor was computed from."""
        self._sources[id(value)] = (value, self._made_of(source))
        return value

    @property
    def called(self) -> Collection[str]:
        """The paths of the modules that were called as a whole."""
        return self._calls.keys()

    @property
    def path(self) -> str:
        """The path of the module whose call is being translated."""
        layer = self._scope.layer
        return layer if layer in self.view.modules else ""

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Name the nodes of a module that aren't its main one."""
        outer, self._scope = self._scope, replace(self._scope, part=name)
        try:
            yield
        finally:
            self._scope = outer

    @contextmanager
    def inside(self, path: str) -> Iterator[None]:
        """Emit functions that are in the forward of the module at `path`."""
        outer, self._scope = self._scope, Scope(path, self._calls[path] - 1, False)
        try:
            yield
        finally:
            self._scope = outer

    @property
    def device(self) -> torch.device:
        """The device of the model's first parameter."""
        first = next(iter(self.view.root.parameters()), None)
        return torch.device("cpu") if first is None else first.device

    def _public(self, shape: tuple[int, ...]) -> tuple[int | None, ...]:
        return (None, *shape[1:]) if shape and shape[0] == self.batch else tuple(shape)

    def _storage(self) -> int:
        self._storages += 1
        return self._storages

    def owner_of(self, statistic: Any) -> nn.Module | None:
        """Return the module that holds a buffer, such as a moving mean."""
        name = self.view.names.get(id(statistic)) if isinstance(statistic, Tensor) else None
        return None if name is None else self.view.module_of(name.rpartition(".")[0])

    def is_frozen(self, module: nn.Module) -> bool:
        """Say whether a module stays in eval mode although the model is in training mode."""
        return self.view.paths[id(module)] in self.view.frozen

    def is_fixed(self, statistic: Tensor) -> bool:
        """Say whether a moving mean is used as it is, and not moved, in training too."""
        return self.view.names.get(id(statistic)) in (self.view.fixed_means or ())

    def is_learned(self, value: Tensor) -> bool:
        """Say whether a tensor is a parameter of the model, or computed from some."""
        made_of = [self.view.tensor(name) for name in self._made_of(value)]
        return any(isinstance(source, torch.nn.Parameter) for source in made_of)

    def is_stored(self, value: Tensor) -> bool:
        """Say whether a tensor is in the model's state, or computed from what is."""
        return bool(self._made_of(value))

    @property
    def called_as(self) -> str:
        """The name of the function that is being translated; "" for a module."""
        call = self._current
        if call is None or call.module:
            return ""
        return canonical(call.target, {})[0] or describe(call.target)

    def refuse_batch(self, *numbers: float) -> None:
        """Refuse numbers that depend on the batch's size: a prime number that models don't use.

        Raises: Unknown.
        """
        sizes = {float(self.batch), 1.0 / self.batch} if self.batch > 1 else set()
        if sizes & {abs(number) for number in numbers}:
            raise Unknown("with a number that depends on the size of the batch")

    def fresh(self, data: Data) -> Data:
        """Return the same values in memory of their own (clone)."""
        return replace(data, storage=self._storage())


def _merged(x: Data, lead: tuple[int, ...], call: str) -> Data:
    return replace(x, shape=(math.prod(lead), *x.shape[len(lead) :]), lead=lead, merge=call)


def _takes_apart(op: str, attrs: Mapping[str, Any], inputs: Sequence[Data]) -> bool:
    """Return whether an operation computes the same where the merged leading axes are apart."""
    if len({(x.lead, x.shape) for x in inputs}) > 1:
        return False
    facts, rank = OPERATIONS[op], len(inputs[0].shape)
    if op == "batch_norm":
        return attrs["axis"] % rank == rank - 1
    by_value = facts.kind in ("act", "drop", "merge") and not (facts.mixes or facts.arrays)
    named = op in ("dense", "layer_norm", "rms_norm", "identity", "rescale")
    return named or (by_value and op != "concat" and attrs.get("spatial") is None)


def _axes_apart(attrs: Mapping[str, Any], more: int) -> dict[str, Any]:
    """Return the attributes that count axes, with so many more axes in front."""
    found: dict[str, Any] = {}
    if "axis" in attrs and attrs["axis"] >= 0:
        found["axis"] = attrs["axis"] + more
    if "axes" in attrs:
        found["axes"] = tuple(axis + more if axis >= 0 else axis for axis in attrs["axes"])
    return found


def _numpy(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    return np.array(tensor.cpu().numpy())
