"""Write an edited Graph back as a new Keras model.

Calls of layers that nobody edited are repeated: the layer is made anew from its config, called with
the same arguments. A layer whose bias, gamma or beta came or went gets that changed in its config.
A layer that was split (a norm now stands between a convolution and its fused activation) becomes
one layer per step, and what planners inserted becomes stock layers and raw operations: the model is
saved, loaded and run without relucate. Nothing is shared with the source; it isn't compiled.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from ..errors import Refused
from ..graph import Graph, Node
from .calls import depends_on_training
from .layers import steps
from .reader import functional
from .steps import Step
from .writing.cloning import clone, derived_seed
from .writing.making import apply_raw, make_layer
from .writing.source import Call, Source, Value, trace

_SPLIT = {"activation": "linear"}
_BIASED = frozenset({"conv", "depthwise_conv", "conv_transpose", "dense"})


def write(graph: Graph, source: keras.Model, *, fresh: int | None = None) -> keras.Model:
    """Return a new functional model that computes what `graph` says.

    Args:
        graph: what `read(source)` gave, edited by a planner.
        source: the model that was read; neither it nor its layers are changed or shared.
        fresh: a seed: weights are initialised anew by each layer's own initialisers, reproducibly
            (a layer starts alike in every model where its name and shapes are the same); None: they
            are those of the graph.
    Raises: Refused: a layer that can't be made from its config, or an edit that no Keras layer can
        express; with its name.

    Layer names stay; those of nested models become `outer_inner`, and the model is one flat
    functional model. Compile it anew.
    """
    return write_tapped(graph, source, (), fresh=fresh)[0]


def write_tapped(
    graph: Graph, source: keras.Model, taps: Sequence[str], *, fresh: int | None = None
) -> tuple[keras.Model, dict[str, Any]]:
    """Return the model, and the symbolic tensors that the nodes named in `taps` read first."""
    with _own_random(fresh):
        writer = _Writer(graph, trace(source), fresh)
        model = writer.write()
    return model, {name: writer.values[graph.nodes[name].inputs[0], 0] for name in taps}


@contextmanager
def _own_random(fresh: int | None) -> Iterator[None]:
    """Leave Python's random numbers, which Keras takes default seeds from, as they were."""
    state = random.getstate()
    random.seed(derived_seed(fresh or 0, "write"))
    try:
        yield
    finally:
        random.setstate(state)


class _Writer:
    """State of one writing: which Keras tensor is which node's value, which layers are made."""

    def __init__(self, graph: Graph, source: Source, fresh: int | None) -> None:
        self.graph, self.source, self.fresh = graph, source, fresh
        self.values: dict[tuple[str, int], Any] = {}
        self.made: dict[Any, Any] = {}  # id of the source's operation, or node name -> new
        self.names: set[str] = set()
        self.names_of: dict[str, str] = {}
        self.calls = {name: call for call in source.calls for name in call.names}
        self.whole = self._whole_layers()
        self.built: list[tuple[Any, Any, list[str]]] = []  # layer, source's, its nodes
        self.done: set[int] = set()

    def write(self) -> keras.Model:
        function = functional(self.source.model)
        inputs = {}
        for name, tensor in zip(self.graph.inputs, function.inputs, strict=True):
            old = self.source.inputs[name]
            layer = keras.layers.InputLayer.from_config(old.get_config())
            self.names.add(layer.name)
            inputs[id(tensor)] = self.values[name, 0] = layer.output
        for node in self.graph:
            if node.op != "input" and (node.name, 0) not in self.values:
                self._write_node(node)
        outputs = {}
        for tensor, old, new in zip(
            function.outputs, self.source.outputs, self.graph.outputs, strict=True
        ):
            outputs[id(tensor)] = self._value(Value(new, old.index if old.node == new else 0))
        model = keras.Model(
            keras.tree.map_structure(lambda t: inputs[id(t)], function._inputs_struct),
            keras.tree.map_structure(lambda t: outputs[id(t)], function._outputs_struct),
            name=self.source.model.name,
        )
        model.trainable = self.source.model.trainable
        for new, old, names in self.built:
            if old is not None and hasattr(old, "_flatten_layers"):
                for a, b in zip(old._flatten_layers(), new._flatten_layers(), strict=False):
                    b.trainable = a.trainable
            self._assign(new, old, names)
        return model

    def _value(self, value: Value) -> Any:
        try:
            return self.values[value.node, value.index]
        except KeyError:
            raise Refused(f"an output of '{value.node}' is gone, but still needed.") from None

    # Which calls are as they were.

    def _whole_layers(self) -> set[int]:
        """Return the ids of the operations all of whose calls can be repeated as they are."""
        broken = {id(call.operation) for call in self.source.calls if not self._is_whole(call)}
        return {id(call.operation) for call in self.source.calls} - broken

    def _is_whole(self, call: Call) -> bool:
        old, new = self.source.graph.nodes, self.graph.nodes
        for place, name in enumerate(call.names):
            if name not in new or new[name].op != old[name].op:
                return False
            if dict(new[name].attrs) != dict(old[name].attrs):
                return False
            if not self._roles_fit(call, old[name], new[name]):
                return False
            reads = call.reads[place]
            if len(new[name].inputs) != len(reads):
                return False
            for source, position in zip(new[name].inputs, reads, strict=True):
                if position < 0 and source != call.names[place + position]:
                    return False
        inner = set(call.inner)
        readers = {r for name in inner for r in self.graph.consumers[name]}
        if not readers <= set(call.names) or inner & set(self.graph.outputs):
            return False
        return self._one_source_per_position(call)

    def _one_source_per_position(self, call: Call) -> bool:
        sources: dict[int, set[str]] = {}
        for name, reads in zip(call.names, call.reads, strict=True):
            for source, position in zip(self.graph.nodes[name].inputs, reads, strict=True):
                if position >= 0:
                    sources.setdefault(position, set()).add(source)
        return all(len(names) == 1 for names in sources.values())

    def _roles_fit(self, call: Call, old: Node, new: Node) -> bool:
        changed = set(old.arrays) ^ set(new.arrays)
        if not changed:
            return True
        if len(call.names) > 2 or not hasattr(call.operation, "get_config"):
            return False
        known = call.operation.get_config()
        fields = {"bias": "use_bias", "gamma": "scale", "beta": "center"}
        return all(role in fields and fields[role] in known for role in changed)

    # Writing nodes.

    def _write_node(self, node: Node) -> None:
        call = self.calls.get(node.name)
        if call is not None and id(call.operation) in self.whole:
            self._repeat(call)
            return
        inputs = [self.values[name, 0] for name in node.inputs]
        raw = apply_raw(node, self.graph, inputs) if call is None else None
        if raw is not None:
            self.values[node.name, 0] = raw
            return
        layer = self._layer_of(node, call)
        given = inputs if len(inputs) > 1 or node.op in {"concat", "add"} else inputs[0]
        more = {}
        if call is not None and call.training is not None and node.kind in {"norm", "drop"}:
            more["training"] = call.training
        self.values[node.name, 0] = layer(given, **more)

    def _repeat(self, call: Call) -> None:
        """Make a call of the source again."""
        if call.timed:
            raise Refused(
                f"'{call.operation.name}' stands in a model that a TimeDistributed applies: it "
                "can't be written back."
            )
        key = id(call.operation)
        if key not in self.made:
            self.made[key] = self._clone(call)
        operation = self.made[key]
        tensors = self._arguments(call)
        args, kwargs = call.keras_node.arguments.fill_in(tensors)
        layer = isinstance(call.operation, keras.layers.Layer)
        if layer and call.training is not None and self._depends(call):
            kwargs["training"] = call.training
        flat = keras.tree.flatten(operation(*args, **kwargs))
        for place, head in enumerate(call.heads):
            same = [h for h in call.heads[:place] if h == head]
            self.values[head, len(same)] = flat[place]

    def _depends(self, call: Call) -> bool:
        nodes = (self.source.graph.nodes[name] for name in call.names)
        return any(depends_on_training(Step(node.op, node.attrs)) for node in nodes)

    def _arguments(self, call: Call) -> dict[int, Any]:
        found: dict[int, Any] = {}
        for name, reads in zip(call.names, call.reads, strict=True):
            for source, position in zip(self.graph.nodes[name].inputs, reads, strict=True):
                if position >= 0:
                    old = call.tensors[position]
                    index = old.index if old.node == source else 0
                    found[position] = self._value(Value(source, index))
        tensors = call.keras_node.arguments.keras_tensors
        for position, old in enumerate(call.tensors):
            if position not in found:
                found[position] = self._value(old)
        return {id(tensor): found[i] for i, tensor in enumerate(tensors)}

    def _clone(self, call: Call) -> Any:
        operation = call.operation
        changes: dict[str, Any] = {}
        fields = {"bias": "use_bias", "gamma": "scale", "beta": "center"}
        for name in call.names:
            old, new = self.source.graph.nodes[name], self.graph.nodes[name]
            for role in set(old.arrays) ^ set(new.arrays):
                changes[fields[role]] = role in new.arrays
        layer = self.source.graph.nodes[call.names[0]].layer
        made = clone(operation, self._name(layer), changes, self.fresh)
        if isinstance(operation, keras.layers.Layer):
            self.built.append((made, operation, list(call.names)))
        return made

    def _name(self, wanted: str) -> str:
        base = name = wanted.replace("/", "_").replace("@", "_")
        number = 1
        while name in self.names:
            name, number = f"{base}_{number}", number + 1
        self.names.add(name)
        return name

    # Layers that were split, and new ones.

    def _layer_of(self, node: Node, call: Call | None) -> Any:
        """Return the layer of one node; calls of a reused layer share it."""
        key: Any = node.name
        if call is not None:
            key = (id(call.operation), call.names.index(node.name))
        if key not in self.made:
            self.made[key] = self._split(node, call)
        return self.made[key]

    def _split(self, node: Node, call: Call | None) -> Any:
        operation = None if call is None else call.operation
        if call is not None and len(call.heads) > 1:
            raise Refused(f"'{node.layer}' has several outputs: it can't be taken apart.")
        if call is not None and node.kind == "act" and len(call.names) > 1:
            return self._fused_activation(node, operation)
        name = self._name(node.layer if node.kind in {"linear", "norm"} else node.name)
        if call is not None and self._is_main(node, call):
            return self._main(node, operation, name)
        common = {"name": name, "dtype": self._policy(operation)}
        if operation is not None:
            common["trainable"] = operation.trainable
        layer = make_layer(node, self.graph, common)
        self.built.append((layer, None, [node.name]))
        return layer

    def _fused_activation(self, node: Node, operation: Any) -> Any:
        function = getattr(operation, "activation", None)
        if function is None:
            raise Refused(f"'{node.name}' ({node.op}) can't be taken out of its layer.")
        name, policy = self._name(node.name), self._policy(operation)
        return keras.layers.Activation(function, name=name, dtype=policy)

    def _is_main(self, node: Node, call: Call) -> bool:
        """Return whether a node is the one step of its layer besides a fused activation."""
        nodes = self.source.graph.nodes
        return [name for name in call.names if nodes[name].kind != "act"] == [node.name]

    def _main(self, node: Node, operation: Any, name: str) -> Any:
        config = operation.get_config()
        changes: dict[str, Any] = {}
        if "activation" in config:
            changes["activation"] = "linear"
        for role, field in (("bias", "use_bias"), ("gamma", "scale"), ("beta", "center")):
            if field in config and (role == "bias") == (node.op in _BIASED):
                changes[field] = role in node.arrays
        layer = clone(operation, name, changes, self.fresh)
        self.built.append((layer, operation, [node.name]))
        return layer

    def _policy(self, operation: Any) -> Any:
        """Return the dtype policy for a new layer: that of its own, or of the first linear one."""
        layers = [operation, *self.source.operations.values()]
        for layer in layers:
            if isinstance(layer, keras.layers.Layer) and not isinstance(
                layer, (keras.layers.InputLayer, keras.layers.Rescaling)
            ):
                return layer.dtype_policy
        return None

    # Weights.

    def _assign(self, layer: Any, old: Any, names: Sequence[str]) -> None:
        if self.fresh is not None:
            return
        if old is not None:
            self._copy(layer, old)
        shape = tuple(self._shape_read(names[0]))
        found = steps(layer, shape)
        if found[0].op == "opaque":
            return
        nodes = [self.graph.nodes[name] for name in names]
        for node in nodes:
            step = next((s for s in found if s.op == node.op), None)
            if step is None:
                continue
            found.remove(step)
            for role, variable in step.variables.items():
                _set(variable, self.graph.tensors[node.arrays[role]], node)

    def _shape_read(self, name: str) -> tuple[int | None, ...]:
        node = self.graph.nodes[name]
        return self.graph.nodes[node.inputs[0]].shape if node.inputs else ()

    def _copy(self, layer: Any, old: Any) -> None:
        """Copy what the graph doesn't have, and what opaque layers hold."""
        known = {id(variable): key for key, variable in self.source.variables.items()}
        by_name = len(layer.weights) != len(old.weights)
        if by_name:
            return  # a bias, gamma or beta came or went: such layers are known to the graph
        for new, variable in zip(layer.weights, old.weights, strict=True):
            if tuple(new.shape) == tuple(variable.shape):
                key = known.get(id(variable))
                tensor = self.graph.tensors.get(key) if key else None
                new.assign(variable if tensor is None else tensor)


def _set(variable: Any, array: np.ndarray, node: Node) -> None:
    if tuple(variable.shape) != tuple(array.shape):
        raise Refused(
            f"'{node.name}' ({node.op}) has a weight of shape {tuple(array.shape)} where its Keras "
            f"layer has {tuple(variable.shape)}."
        )
    variable.assign(array)
