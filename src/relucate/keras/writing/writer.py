"""Write an edited Graph back as a new Keras model.

Calls of unedited layers are repeated: a copy of the layer is made from its config and called with
the same arguments. If a layer's bias, gamma or beta was added or removed, its config is changed. A
layer that was split (a norm is now between a convolution and its fused activation) becomes one
layer per step. Inserted nodes become Keras's own layers and raw operations, so the model can be
saved, loaded and run without relucate. Nothing is shared with the source; the model isn't compiled.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import keras
import numpy as np

from ...errors import Refused
from ...graph import Graph, Node
from ...graph.nodes import is_floating
from ..reading.calls import depends_on_training
from ..reading.record import Call, Reading, Value
from ..reading.steps import Step
from ..reading.stepwise import stepwise
from .cloning import clone, derived_seed
from .making import Made, make_layer
from .raw import apply_raw, is_raw
from .weights import Built, assign, tied
from .whole import ROLES, changed_constants, whole_operations

_KEPT = ("_initializer", "_regularizer", "_constraint")
_EMPTY = Graph("", {}, (), (), {})


def write(graph: Graph, reading: Reading | None = None, *, fresh: int | None = None) -> Any:
    """Return a new functional `keras.Model` that computes what `graph` says.

    Args:
        graph: the Graph of `reading`, edited by a planner.
        reading: the result of `read_with_calls`; neither its model nor the model's layers are
            changed or shared. None: there is no model, and every node of the graph becomes one of
            Keras's own layers or operations.
        fresh: a seed: each layer's own initialisers make new weights, reproducibly (a layer starts
            with the same values in every model where its name and shapes are the same). None: the
            weights are those of the graph.
    Raises: Refused: a layer can't be made from its config, or no Keras layer can express an edit;
        the message names the layer.

    Layer names stay the same; those in nested models, and in layers that hold layers, become
    `outer_inner`, and the new model is one flat functional model. It isn't compiled.
    """
    return write_tapped(graph, reading, (), fresh=fresh)[0]


def write_tapped(
    graph: Graph, reading: Reading | None, taps: Sequence[str], *, fresh: int | None = None
) -> tuple[Any, dict[str, Any]]:
    """Return the model, and the symbolic tensor of the first input of each node in `taps`."""
    with _own_random(fresh):
        reading = reading or Reading(None, None, _EMPTY, (), {}, {}, {}, ())
        if fresh is not None:
            _check_initialisable(reading)
            if shared := tied(reading):
                raise Refused(
                    f"{shared}: in a rebuilt model each would have its own. Call one layer for "
                    "both."
                )
        writer = _Writer(graph, reading, fresh)
        model = writer.write()
    return model, {name: writer.values[graph.nodes[name].inputs[0], 0] for name in taps}


def _check_initialisable(reading: Reading) -> None:
    """Refuse layers whose kernels no initialiser makes, also those within other layers."""
    layers = (x for x in reading.operations.values() if isinstance(x, keras.layers.Layer))
    for layer in (inner for outer in layers for inner in outer._flatten_layers()):
        lora = getattr(layer, "lora_enabled", False)
        if lora or getattr(layer, "quantization_mode", None):
            what = "has LoRA's weights" if lora else f"is quantized to {layer.quantization_mode}"
            raise Refused(f"'{layer.name}' {what}: it can't be initialised again.")


@contextmanager
def _own_random(fresh: int | None) -> Iterator[None]:
    """Restore Python's random state afterwards: Keras draws default seeds from it."""
    state = random.getstate()
    random.seed(derived_seed(fresh or 0, "write"))
    try:
        yield
    finally:
        random.setstate(state)


class _Writer:
    """State of one writing: the Keras tensor of each node's value, and the layers made so far."""

    def __init__(self, graph: Graph, reading: Reading, fresh: int | None) -> None:
        self.graph, self.reading, self.fresh = graph, reading, fresh
        self.values: dict[tuple[str, int], Any] = {}
        self.made: dict[Any, Any] = {}  # id of the source's operation, or node name -> new
        self.names: set[str] = set()
        self.calls = {name: call for call in reading.calls for name in call.names}
        self.whole = whole_operations(reading, graph)
        self.built: list[Built] = []
        self.repeated: set[int] = set()  # ids of calls
        self.parts: dict[int, bool] = {}  # id of an operation -> whether one layer can be its steps

    def write(self) -> keras.Model:
        inputs = self._inputs()
        for node in self.graph:
            if (node.name, 0) not in self.values:
                self._write_node(node)
        model = self._model(inputs)
        for built in self.built:
            assign(built, self.graph, self.reading, self.fresh)
        return model

    def _inputs(self) -> list[Any]:
        found = []
        for name in self.graph.inputs:
            old = self.reading.inputs.get(name)
            if old is None:
                shape, dtype = self.graph.nodes[name].shape, self._main_dtype()
                layer = keras.layers.InputLayer(shape[1:], dtype=dtype, name=self._free(name))
            else:
                layer = keras.layers.InputLayer.from_config(old.get_config())
                self.names.add(layer.name)
            self.values[name, 0] = layer.output
            found.append(layer.output)
        return found

    def _model(self, inputs: list[Any]) -> keras.Model:
        if self.reading.model is None:
            outputs = [self.values[name, 0] for name in self.graph.outputs]
            return keras.Model(
                inputs if len(inputs) > 1 else inputs[0],
                outputs if len(outputs) > 1 else outputs[0],
                name=self.graph.name,
            )
        function = self.reading.function
        given = {id(t): new for t, new in zip(function.inputs, inputs, strict=True)}
        outputs = {}
        for tensor, old, new in zip(
            function.outputs, self.reading.outputs, self.graph.outputs, strict=True
        ):
            outputs[id(tensor)] = self._value(Value(new, old.index if old.node == new else 0))
        model = keras.Model(
            keras.tree.map_structure(lambda t: given[id(t)], function._inputs_struct),
            keras.tree.map_structure(lambda t: outputs[id(t)], function._outputs_struct),
            name=self.reading.model.name,
        )
        model.trainable = self.reading.model.trainable
        for built in self.built:  # the line above changed all of them
            built.restore_trainable(model)
        return model

    def _value(self, value: Value) -> Any:
        """Return the new tensor of a value, written now if its turn comes later.

        The graph has no edge to a mask, so an edit may put its node after the call that uses it.
        """
        key = value.node, value.index
        if key not in self.values and value.node in self.graph.nodes:
            self._write_node(self.graph.nodes[value.node])
        if key not in self.values:
            raise Refused(f"an output of '{value.node}' is gone, but still needed.")
        return self.values[key]

    def _free(self, wanted: str) -> str:
        """Return a name that Keras allows and that no other layer has.

        On the torch backend no layer with weights may have a dot in its name, but a model around
        layers may.
        """
        outer, _, inner = wanted.rpartition("/")
        base = (outer.replace(".", "_") + "_" if outer else "") + inner
        base = name = base.replace("/", "_").replace("@", "_")
        number = 1
        while name in self.names:
            name, number = f"{base}_{number}", number + 1
        self.names.add(name)
        return name

    # Unchanged calls.

    def _write_node(self, node: Node) -> None:
        call = self.calls.get(node.name)
        if call is not None and id(call.operation) in self.whole:
            if id(call) not in self.repeated:
                self.repeated.add(id(call))
                self._repeat(call)
            return
        inputs = [self._value(Value(name, 0)) for name in node.inputs]
        if call is not None and node.name in self._parts(call)[:-1]:
            value = inputs[0]  # the last part's layer computes this one, too
        elif self._is_raw(node, call):
            value = apply_raw(node, self.graph, inputs, self._free)
        else:
            layer = self._layer_of(node, call)
            many = len(inputs) > 1 or node.op == "concat"
            forced = None if call is None else call.training
            more = {"training": forced} if forced is not None and _has_mode(node) else {}
            value = layer(inputs if many else inputs[0], **more)
        if call is None and _masked(inputs) and not _masked([value]):
            raise Refused(
                f"'{node.name}' ({node.op}) can't be inserted: a mask (of Masking or Embedding) "
                "passes through this place and would be lost."
            )
        self.values[node.name, 0] = value

    def _is_raw(self, node: Node, call: Call | None) -> bool:
        if not is_raw(node):
            return False
        if call is None or not isinstance(call.operation, keras.layers.Layer):
            return True
        fused = node.kind == "act" and len(call.names) > 1
        old = self.reading.graph.nodes[node.name]
        same = dict(node.attrs) == dict(old.attrs) and node.op == old.op
        return not (fused or same) or changed_constants(self.reading, self.graph, node)

    def _repeat(self, call: Call) -> None:
        """Repeat a call of the source."""
        key = id(call.operation)
        if key not in self.made:
            self.made[key] = self._clone(call)
        operation = self.made[key]
        filled = call.keras_node.arguments.fill_in(self._arguments(call))
        args: Any = keras.tree.map_structure(_own_constant, filled[0])
        kwargs: Any = keras.tree.map_structure(_own_constant, filled[1])
        layer = isinstance(call.operation, keras.layers.Layer)
        modes = any(_has_mode(self.reading.graph.nodes[name]) for name in call.names)
        if layer and call.training is not None and modes:
            kwargs["training"] = call.training
        flat = keras.tree.flatten(operation(*args, **kwargs))
        for place, head in enumerate(call.heads):
            same = [h for h in call.heads[:place] if h == head]
            self.values[head, len(same)] = flat[place]

    def _arguments(self, call: Call) -> dict[int, Any]:
        """Return the new tensor for each symbolic tensor among a call's arguments, by its id."""
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
        for name in call.names:
            old, new = self.reading.graph.nodes[name], self.graph.nodes[name]
            for role in set(old.arrays) ^ set(new.arrays):
                changes[ROLES[role]] = role in new.arrays
        layer = call.layer or self.reading.graph.nodes[call.names[0]].layer
        made = clone(operation, self._free(layer), changes, self.fresh)
        if isinstance(operation, keras.layers.Layer):
            nodes = [self.graph.nodes[name] for name in call.names]
            self.built.append(Built(made, operation, nodes))
        return made

    # Layers that were split, and new ones.

    def _layer_of(self, node: Node, call: Call | None) -> Any:
        """Return the layer of one node; calls of a reused layer share it."""
        key: Any = node.name
        if call is not None:
            key = (id(call.operation), call.names.index(node.name))
        elif node.layer and node.arrays:  # without a source: the calls of one layer
            key = (node.layer, node.op, tuple(sorted(node.arrays.items())))
        if key not in self.made:
            self.made[key] = self._new(node, None) if call is None else self._split(node, call)
        return self.made[key]

    def _split(self, node: Node, call: Call) -> Any:
        operation, old = call.operation, self.reading.graph.nodes[node.name]
        if len(call.heads) > 1:
            raise Refused(f"'{node.layer}' has several outputs: it can't be split.")
        if call.timed:
            raise Refused(
                f"'{node.layer}' is in a model that a TimeDistributed applies: that "
                "model can't be split."
            )
        if node.kind == "act" and len(call.names) > 1:
            return self._fused_activation(node, operation)
        same = node.op == old.op and dict(node.attrs) == dict(old.attrs)
        parts = self._parts(call)
        if same and parts[-1:] == [node.name] and isinstance(operation, keras.layers.Layer):
            return self._main(node, operation, [self.graph.nodes[name] for name in parts])
        return self._new(node, operation)

    def _parts(self, call: Call) -> list[str]:
        """Return the steps of a layer besides a fused activation, if one layer can be all of them.

        Of a separable layer these are both halves, unless something is between them.
        """
        key = id(call.operation)
        if key not in self.parts:
            calls = [other for other in self.reading.calls if other.operation is call.operation]
            self.parts[key] = all(self._is_chain(_linear_parts(self.reading, c)) for c in calls)
        return _linear_parts(self.reading, call) if self.parts[key] else []

    def _is_chain(self, names: Sequence[str]) -> bool:
        nodes, consumers, olds = self.graph.nodes, self.graph.consumers, self.reading.graph.nodes
        if len(names) > 2 or not all(name in nodes for name in names):
            return False
        if any(dict(nodes[name].attrs) != dict(olds[name].attrs) for name in names[:-1]):
            return False
        alone = all(consumers[one] == (two,) for one, two in pairwise(names))
        return alone and not any(
            "bias" in nodes[name].arrays or name in self.graph.outputs for name in names[:-1]
        )

    def _main(self, node: Node, operation: Any, parts: Sequence[Node]) -> Any:
        changes = _bare(operation.get_config(), node)
        layer = clone(operation, self._free(node.layer), changes, self.fresh)
        self.built.append(Built(layer, operation, parts))
        return layer

    def _fused_activation(self, node: Node, operation: Any) -> Any:
        inside = getattr(operation, "layer", None)  # of a wrapper
        function = getattr(operation, "activation", getattr(inside, "activation", None))
        if function is None:
            raise Refused(f"'{node.name}' ({node.op}) can't be separated from its layer.")
        name = self._free(node.name)
        if isinstance(function, keras.layers.Layer):
            layer = clone(function, name, {}, self.fresh)
            self.built.append(Built(layer, function, [node]))
        else:
            layer = keras.layers.Activation(function, name=name, dtype=self._policy(operation))
        return stepwise(layer) if node.time_axes else layer

    def _new(self, node: Node, operation: Any) -> Made:
        """Return a layer made from a node's attributes; the rest is as in its old layer."""
        linear = node.kind in {"linear", "norm"}
        name = self._free(node.layer if linear and node.layer else node.name)
        common: dict[str, Any] = {"name": name, "dtype": self._policy(operation)}
        if isinstance(operation, keras.layers.Layer):
            common["trainable"] = operation.trainable
        made = make_layer(node, self.graph, common)
        changes = _inherited(made.layer, operation)
        if changes or self.fresh is not None:
            made = Made(
                clone(made.layer, name, changes, self.fresh), made.node, made.before, made.after
            )
        made = made.around()
        self.built.append(Built(made.layer, None, [made.node], made.layer.trainable))
        return made

    def _policy(self, operation: Any) -> Any:
        """Return the dtype policy for a new layer: its old layer's, or the first computing layer's.

        Layers at the input often compute in full precision where the others don't.
        """
        fixed = (keras.layers.InputLayer, keras.layers.Rescaling, keras.layers.Normalization)
        for layer in (operation, *self.reading.operations.values()):
            if isinstance(layer, keras.layers.Layer) and not isinstance(layer, fixed):
                return layer.dtype_policy
        return self._main_dtype()

    def _main_dtype(self) -> str:
        floats = (a.dtype.name for a in self.graph.tensors.values() if is_floating(a))
        return next(floats, keras.config.floatx())


def _linear_parts(reading: Reading, call: Call) -> list[str]:
    """Return the nodes of a call that aren't activations: linear ones, or only one."""
    found = [reading.graph.nodes[name] for name in call.names]
    found = [node for node in found if node.kind != "act"]
    plain = len(found) == 1 or all(node.kind == "linear" for node in found)
    return [node.name for node in found] if plain else []


def _bare(config: Mapping[str, Any], node: Node) -> dict[str, Any]:
    """Return the changes to a layer's config that leave one node alone, without an activation."""
    changes: dict[str, Any] = {"activation": "linear"} if "activation" in config else {}
    for role, field in ROLES.items():
        if field in config and (role == "bias") == (node.kind == "linear"):
            changes[field] = role in node.arrays
    if "bias_axes" in config and "bias" not in node.arrays:
        changes["bias_axes"] = None
    if isinstance(inner := config.get("layer"), Mapping):  # of a wrapper
        changes["layer"] = {**inner, "config": {**inner["config"], **_bare(inner["config"], node)}}
    return changes


def _inherited(layer: Any, operation: Any) -> dict[str, Any]:
    """Return the initialisers, regularizers and constraints of the old layer for the new one."""
    if not isinstance(operation, keras.layers.Layer):
        return {}
    if isinstance(operation, keras.layers.TimeDistributed):
        operation = operation.layer
    old, found = operation.get_config(), {}
    for key in layer.get_config():
        if key.endswith(_KEPT):
            other = key if key in old else key.replace("kernel_", "pointwise_")
            if other in old:
                found[key] = old[other]
    return found


def _has_mode(node: Node) -> bool:
    return depends_on_training(Step(node.op, node.attrs))


def _own_constant(value: Any) -> Any:
    """Return a copy of a variable among a call's arguments: nothing may be shared."""
    if isinstance(value, keras.Variable):
        return np.array(keras.ops.convert_to_numpy(value.value))
    return value


def _masked(values: Sequence[Any]) -> bool:
    return any(getattr(value, "_keras_mask", None) is not None for value in values)
