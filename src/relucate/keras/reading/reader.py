"""Read a Keras functional or sequential model into a Graph.

Only data flow counts: the model's own nodes are read in order, nested models are inlined, as are
layers that hold layers (`tracing`), and a shared layer gives one node per call. Calls that `layers`
and `operations` don't know become opaque nodes. Not here: lowering, surgery, building.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from ...errors import Refused
from ...graph import Graph, Node
from .calls import depends_on_training, forced_training, has_mask, inputs_of, odd_arguments
from .layers import steps
from .norm_layers import norms_inside
from .obstacles import obstacles, penalties
from .operations import read_operation
from .record import Call, Reading, Value, positions_read, reads_of, reads_within
from .steps import Branches, Step, Unreadable, opaque
from .stepwise import Stepwise
from .subclassed import check_shape, function_of, owned
from .tracing import Inside, holds_layers, inside_of, trace


def read(model: keras.Model) -> Graph:
    """Return the Graph of a built model.

    Weights are copied as NumPy arrays in Keras's layouts, under `<layer>/<name>`.
    Raises: Refused: a model whose own `call` can't be followed, or one that isn't built.

    >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="relu")])
    >>> [node.op for node in read(net)]
    ['input', 'dense', 'relu']
    """
    return read_with_calls(model).graph


def read_with_calls(model: keras.Model, example: Any = None) -> Reading:
    """Return the Graph, the variables that hold its tensors, and the calls that it came from.

    Args: example: for a model with its own `call`: arrays or shapes, as `function_of` takes them.
    Raises: Refused: as `read`.
    """
    if not has_own_call(model):
        function = functional(model)
        check_shape(function, example)
        return _read(model, function)
    try:
        return _read(model, function_of(model, example))
    except Refused:
        layers = model._flatten_layers(include_self=False)
        if not any(isinstance(layer, kl.Embedding) for layer in layers):
            raise
    return _read(model, function_of(model, example, "int32"))  # tokens


def has_own_call(model: Any) -> bool:
    """Return whether a model is read by following its own `call`."""
    return (
        isinstance(model, keras.Model)
        and holds_layers(model)
        and not _overridden(model, ("__call__",))
    )


def _read(model: keras.Model, function: Any) -> Reading:
    reader = _Reader(model)
    reader.walk(inside_of(function), _Place(), given=None)
    graph = Graph(
        name=model.name,
        nodes=reader.nodes,
        inputs=tuple(reader.inputs),
        outputs=tuple(reader.names[id(t)] for t in function.outputs),
        tensors={key: _numpy(v) for key, v in reader.variables.items()} | reader.constants,
        trainable=frozenset(key for key, v in reader.variables.items() if v.trainable),
        penalties=tuple(penalties(reader.variables)),
        obstacles=(*_own_training(model), *reader.obstacles()),
        masked=frozenset(reader.masked),
    )
    return Reading(
        model=model,
        function=function,
        graph=graph,
        calls=tuple(reader.recorded),
        variables=reader.variables,
        operations={reader.layer_names[key]: op for key, op in reader.operations.items()},
        inputs=reader.layers_of_inputs,
        outputs=tuple(reader.value(tensor) for tensor in function.outputs),
    )


def _numpy(variable: Any) -> np.ndarray:
    """Return a copy: an array that shares the variable's memory would change with it."""
    array = np.asarray(keras.ops.convert_to_numpy(variable.value))
    own = array.base is None and array.flags.owndata and array.flags.writeable
    return array if own else array.copy()


def functional(model: Any) -> Any:
    """Return the functional model that holds the graph of `model`.

    Raises: Refused: there is none, or a method that isn't Keras's decides what is computed.
    """
    if not isinstance(model, keras.Model):
        raise Refused(f"expected a Keras model, got {type(model).__name__}: {model!r}.")
    if own := _overridden(model, ("call", "__call__")):
        raise Refused(
            f"model '{model.name}' ({type(model).__name__}) has its own {own}: "
            "what it computes can't be read. Build it with keras.Model(inputs, outputs) alone."
        )
    if isinstance(model, keras.Sequential):
        if getattr(model, "_functional", None) is None:
            raise Refused(
                f"model '{model.name}' is a Sequential without an input shape: "
                "start it with keras.Input(shape), or call it once on data."
            )
        return model._functional
    if not hasattr(model, "_nodes_by_depth"):
        raise Refused(
            f"model '{model.name}' has no layers: make it with keras.Model(inputs, outputs)."
        )
    return model


def _overridden(model: Any, names: tuple[str, ...]) -> str:
    """Return the name of the first method that isn't Keras's own, or an empty string."""
    for name in names:
        owner = next((c for c in type(model).__mro__ if name in vars(c)), None)
        if owner is not None and not owner.__module__.startswith("keras.src."):
            return name
    return ""


def _own_training(model: Any) -> list[str]:
    return [f"model '{model.name}' has its own {own}" for own in own_training(model)[:1]]


def own_training(model: Any) -> tuple[str, ...]:
    """Return the model's own methods that decide how it is trained."""
    names = ("train_step", "compute_loss", "fit")
    return tuple(name for name in names if _overridden(model, (name,)))


@dataclass(frozen=True)
class _Place:
    """Where in nested models a node is read, and what the calls around it set."""

    prefix: str = ""
    training: bool | None = None  # what a call around it sets
    time: tuple[int | None, ...] = ()  # the time axis of a TimeDistributed around
    inseparable: str = ""  # why what that applies can't be taken apart

    def inside(self, name: str, training: bool | None) -> _Place:
        """Return the place within a nested model; as in Keras, the outer call's `training` wins."""
        return replace(
            self,
            prefix=f"{self.prefix}{name}/",
            training=training if self.training is None else self.training,
        )

    def shape(self, shape: Any) -> tuple[int | None, ...]:
        """Return a shape with the time axis, which only the layers around it have."""
        return (*shape[:1], *self.time, *shape[1:])


class _Reader:
    """State of one reading: nodes so far, and which node made which symbolic tensor."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.nodes: dict[str, Node] = {}
        self.inputs: list[str] = []
        self.names: dict[int, str] = {}  # id(KerasTensor) -> node name
        self.variables: dict[str, Any] = {}  # key -> keras.Variable
        self.constants: dict[str, np.ndarray] = {}  # key -> array
        self.keys: dict[Any, str] = {}  # id(keras.Variable), or the owner of a constant -> key
        self.calls: dict[int, int] = {}  # id(layer) -> calls seen
        self.layer_names: dict[int, str] = {}
        self.operations: dict[int, Any] = {}  # id(operation) -> operation, in the order of reading
        self.odd_calls: dict[str, None] = {}  # in words, in the order of reading
        self.masked: set[str] = set()
        self.recorded: list[Call] = []
        self.stepwise = Stepwise()
        self.layers_of_inputs: dict[str, Any] = {}  # node -> InputLayer
        self.indices: dict[
            int, int
        ] = {}  # id(KerasTensor) -> number of the output, if not the first

    def walk(self, inside: Inside, place: _Place, given: list[str] | None) -> None:
        """Read every node; `given`: the nodes of the inputs of a nested model or layer."""
        if given is not None:
            for tensor, name in zip(inside.inputs, given, strict=True):
                self.names[id(tensor)] = name
        for node in inside.nodes:
            self._read_node(node, place, top=given is None)
        if given is None:  # in the order of the model's signature
            self.inputs = [self.names[id(tensor)] for tensor in inside.inputs]

    def _read_node(self, node: Any, place: _Place, top: bool) -> None:
        operation = node.operation
        if isinstance(operation, keras.layers.InputLayer):
            if top:
                name = self._add(operation, place, Step("input"), (), node.outputs[0])
                self.layers_of_inputs[name] = operation
            return
        if isinstance(operation, keras.Model) or (
            isinstance(operation, kl.Layer) and holds_layers(operation)
        ):
            self._read_nested(node, operation, place)
        elif type(operation) is kl.TimeDistributed and isinstance(operation.layer, keras.Model):
            self._read_nested(node, operation.layer, place)
        else:
            self._read_call(node, place)

    def _read_call(self, node: Any, place: _Place) -> None:
        operation = node.operation
        sources = [self.names[id(t)] for t in inputs_of(node)]
        branches = _branches(node)
        if place.time and type(operation) is kl.TimeDistributed:
            branches = [[opaque(operation, "within another TimeDistributed")]]
        if branches[0][0].op == "opaque":
            sources = [self.names[id(t)] for t in node.arguments.keras_tensors]
        own, training = forced_training(node), _training(node, place)
        for branch in branches:
            for index, step in enumerate(branch):
                if depends_on_training(step) and training is not None:
                    branch[index] = step.with_attrs(forced=training)
                    if own is not None:
                        self._odd_call(operation, place, f"training={own}")
        if has_mask(node) and branches[0][0].op == "batch_norm":
            self._odd_call(operation, place, "a mask")
        self._add_branches(node, place, branches, sources)

    def _odd_call(self, operation: Any, place: _Place, what: str) -> None:
        self.odd_calls[f"'{place.prefix}{operation.name}' is called with {what}"] = None

    def _read_nested(self, node: Any, model: Any, place: _Place) -> None:
        operation = node.operation  # the model, or the TimeDistributed around it
        sources = [self.names[id(t)] for t in node.arguments.keras_tensors]
        try:
            nested = _nested(node, model, place)
        except Unreadable as reason:
            if model is self.model:
                raise Refused(
                    f"{owned(model)}, which can't be read: {reason}. "
                    "Build it with keras.Model(inputs, outputs)."
                ) from None
            self._add_branches(node, place, [[opaque(model, str(reason))]], sources)
            return
        whole, nested = _apart(node, model, nested, self.stepwise)
        own, call = forced_training(node), self._next_call(operation)
        if own is not None:
            self._odd_call(operation, place, f"training={own}")
        inside = place
        if model is not self.model:
            inside = place.inside(operation.name + (f"@{call}" if call else ""), own)
        if whole:
            time = (node.arguments.keras_tensors[0].shape[1],)
            inside = replace(inside, time=time, inseparable=whole)
        self._same_index(nested.inputs, node.arguments.keras_tensors)
        before = len(self.recorded)
        self.walk(nested, inside, sources)
        for outer, tensor in zip(node.outputs, nested.outputs, strict=True):
            self.names[id(outer)] = self.names[id(tensor)]
            self._note_mask(outer)
        self._same_index(node.outputs, nested.outputs)
        if whole:
            self.recorded[before:] = [self._joined(node, place, self.recorded[before:])]

    def _same_index(self, tensors: Sequence[Any], others: Sequence[Any]) -> None:
        for tensor, other in zip(tensors, others, strict=False):
            self.indices[id(tensor)] = self.indices.get(id(other), 0)

    def _joined(self, node: Any, place: _Place, calls: list[Call]) -> Call:
        """Return one call for all the calls within a model that a TimeDistributed applies."""
        names = tuple(name for call in calls for name in call.names)
        tensors = tuple(self.value(t) for t in node.arguments.keras_tensors)
        return Call(
            operation=node.operation,
            keras_node=node,
            names=names,
            reads=reads_within(self.nodes, names, [value.node for value in tensors]),
            heads=tuple(self.names[id(output)] for output in node.outputs),
            tensors=tensors,
            training=_training(node, place),
            timed=True,
            layer=place.prefix + node.operation.name,
        )

    def value(self, tensor: Any) -> Value:
        """Return the value that a symbolic tensor was read as."""
        return Value(self.names[id(tensor)], self.indices.get(id(tensor), 0))

    def _next_call(self, operation: Any) -> int:
        call = self.calls.get(id(operation), 0)
        self.calls[id(operation)] = call + 1
        return call

    def _add_branches(
        self, node: Any, place: _Place, branches: Branches, sources: list[str]
    ) -> None:
        """Add the nodes of one call and record it."""
        operation, outputs, names = node.operation, node.outputs, []
        tensors = tuple(self.value(t) for t in node.arguments.keras_tensors)
        call = self._next_call(operation)
        for number, (branch, output) in enumerate(zip(branches, outputs, strict=False)):
            made: list[str] = []
            for index, step in enumerate(branch):
                named = _named(step, number if len(branches) > 1 else None)
                read = _sources(step, made, sources)
                key = (id(operation), number, index)
                made.append(self._add(operation, place, named, read, output, call, key))
            self.names[id(output)] = made[-1]
            names += made
        for output in outputs[len(branches) :]:
            self.names[id(output)] = self.names[id(outputs[0])]
        if len(branches) == 1:
            self.indices.update((id(output), index) for index, output in enumerate(outputs))
        self.recorded.append(
            Call(
                operation=operation,
                keras_node=node,
                names=tuple(names),
                reads=reads_of(branches, positions_read(node, len(sources))),
                heads=tuple(self.names[id(output)] for output in outputs),
                tensors=tensors,
                training=_training(node, place),
            )
        )

    def _add(
        self,
        operation: Any,
        place: _Place,
        step: Step,
        sources: tuple[str, ...],
        output: Any,
        call: int = 0,
        owner: Any = None,
    ) -> str:
        own = self.stepwise.names.get(id(operation), str(operation.name))
        layer = self.layer_names.setdefault(id(operation), place.prefix + own)
        self.operations.setdefault(id(operation), operation)
        name = self._free_name(layer + (f"/{step.suffix}" if step.suffix else ""), call)
        shape = place.shape(_shape(operation, step, output))
        attrs = dict(step.attrs)
        if step.op == "opaque" and isinstance(operation, kl.Layer):
            attrs["norms"] = norms_inside(operation)
        if place.time:
            attrs |= {"time_distributed": True, "inseparable": place.inseparable}
        if step.op == "reshape" and "target" not in attrs:
            inner = shape[2:] if attrs.get("time_distributed") else shape[1:]
            attrs["target"] = tuple(-1 if d is None else d for d in inner)
        arrays = {role: self._key(layer, v) for role, v in _roles(operation, step).items()}
        for role, array in step.constants.items():
            arrays[role] = self._constant_key((*owner, role), f"{layer}/{role}", array)
        self.nodes[name] = Node(name, step.op, sources, shape, layer, call, attrs, arrays)
        self.names[id(output)] = name
        self._note_mask(output)
        return name

    def _note_mask(self, tensor: Any) -> None:
        if getattr(tensor, "_keras_mask", None) is not None:
            self.masked.add(self.names[id(tensor)])

    def _key(self, layer: str, variable: Any) -> str:
        if id(variable) not in self.keys:
            key = self.keys[id(variable)] = self._free_key(f"{layer}/{variable.name}")
            self.variables[key] = variable
        return self.keys[id(variable)]

    def _constant_key(self, owner: Any, base: str, array: np.ndarray) -> str:
        if owner not in self.keys:
            key = self.keys[owner] = self._free_key(base)
            self.constants[key] = array
        return self.keys[owner]

    def _free_key(self, base: str) -> str:
        key, count = base, 1
        while key in self.variables or key in self.constants:
            key, count = f"{base}_{count}", count + 1
        return key

    def _free_name(self, base: str, call: int) -> str:
        name = base if call == 0 else f"{base}@{call}"
        while name in self.nodes:
            call += 1
            name = f"{base}@{call}"
        return name

    def obstacles(self) -> list[str]:
        """Return why training the graph elsewhere would not be the same training."""
        return [*obstacles(self.variables, self.operations.values()), *self.odd_calls]


def _training(node: Any, place: _Place) -> bool | None:
    """Return the `training` that a call, or one around it, sets; the outer one wins."""
    return forced_training(node) if place.training is None else place.training


def _branches(node: Any) -> Branches:
    """Return the steps of a call of a layer or operation, for each of its outputs."""
    operation = node.operation
    if not isinstance(operation, kl.Layer):
        return read_operation(node)
    found = _layer_steps(node)
    if found[0].op == "attention" and len(node.outputs) > 1:
        scores = Step("opaque", {"type": type(operation).__name__, "why": "attention scores"})
        return [found, *([scores] for _ in node.outputs[1:])]
    if len(node.outputs) > 1:
        return [[opaque(operation, "several outputs")]]
    return [found]


def _layer_steps(node: Any) -> list[Step]:
    tensors = node.arguments.keras_tensors
    found = list(steps(node.operation, tuple(tensors[0].shape) if tensors else ()))
    if found[0].op != "opaque" and (reason := odd_arguments(node)):
        return [opaque(node.operation, reason)]
    return found


def _named(step: Step, branch: int | None) -> Step:
    if branch is None:
        return step
    return replace(step, suffix=f"{branch}/{step.suffix}" if step.suffix else str(branch))


def _sources(step: Step, made: list[str], sources: list[str]) -> tuple[str, ...]:
    if step.inputs is not None:
        return tuple(made[i] if i < 0 else sources[i] for i in step.inputs)
    return (made[-1],) if made else tuple(sources)


def _shape(operation: Any, step: Step, output: Any) -> tuple[int | None, ...]:
    if step.shape is not None:
        return step.shape
    shape = list(output.shape)
    if step.op == "depthwise_conv" and step.suffix == "depthwise":
        # The depthwise half of a separable layer: the layer's spatial sizes, but its own channels.
        kernel = step.variables["kernel"].shape
        axis = 1 if step.attrs["data_format"] == "channels_first" else -1
        shape[axis] = kernel[-2] * kernel[-1]
    if step.op == "glu" and isinstance(operation, kl.Layer):
        # Keras's shape ignores that a glu as a layer's activation halves the channels.
        axis = step.attrs["axis"]
        shape[axis] = shape[axis] and shape[axis] // 2
    return tuple(shape)


def _roles(operation: Any, step: Step) -> dict[str, Any]:
    if step.op != "opaque" or step.suffix:  # a layer's activation has only its own
        return dict(step.variables)
    return {v.path: v for v in getattr(operation, "weights", [])}


def _apart(node: Any, model: Any, nested: Inside, stepwise: Stepwise) -> tuple[str, Inside]:
    """Return a model that a TimeDistributed applies layer by layer, or why it is left whole."""
    if node.operation is model:
        return "", nested
    try:
        return "", stepwise.taken_apart(functional(model), node)
    except Unreadable as reason:
        return f"in a model that a TimeDistributed applies as a whole: {reason}", nested


def _nested(node: Any, model: Any, place: _Place) -> Inside:
    """Return what a call of a nested model, or of a layer that holds layers, consists of.

    Raises: Unreadable: the call isn't just its own nodes.
    """
    tensors, timed = node.arguments.keras_tensors, node.operation is not model
    if timed and place.time:
        raise Unreadable("within another TimeDistributed")
    if not timed and holds_layers(model):
        return trace(node)
    try:
        nested = inside_of(functional(model))
    except Refused as refusal:
        raise Unreadable(str(refusal)) from None
    if reason := odd_arguments(node):
        raise Unreadable(reason)
    if [len(t.shape) - timed for t in tensors] != [len(t.shape) for t in nested.inputs]:
        raise Unreadable("its inputs are reshaped at the call")
    return nested
