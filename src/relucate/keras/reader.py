"""Read a Keras functional or sequential model into a Graph.

Data flow decides: the model's own nodes are walked, nested models are inlined, a shared layer
gives one node per call. What `layers` doesn't know becomes an opaque node. Not here: lowering,
surgery, building.
"""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np

from ..errors import Refused
from ..graph import Graph, Node, Penalty
from .layers import Step, opaque, steps

_TENSOR_INPUTS_ONLY = {"training", "mask"}


def read(model: keras.Model) -> Graph:
    """Return the Graph of a built functional or sequential model.

    Weights are copied as NumPy arrays in Keras's layouts, under `<layer>/<name>`.
    Raises: Refused: a subclassed model, or a sequential one that isn't built (no graph to read).

    >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="relu")])
    >>> [node.op for node in read(net)]
    ['input', 'dense', 'relu']
    """
    return read_with_variables(model)[0]


def read_with_variables(model: keras.Model) -> tuple[Graph, dict[str, Any]]:
    """Return the Graph and, for each key of its tensors, the Keras variable that holds it."""
    reader = _Reader()
    function = functional(model)
    reader.walk(function, prefix="", given=None)
    graph = Graph(
        name=model.name,
        nodes=reader.nodes,
        inputs=tuple(reader.inputs),
        outputs=tuple(reader.names[id(t)] for t in function.outputs),
        tensors={key: _numpy(v) for key, v in reader.variables.items()},
        trainable=frozenset(key for key, v in reader.variables.items() if v.trainable),
        penalties=tuple(reader.penalties()),
        hazards=(*_own_training(model), *reader.hazards()),
    )
    return graph, reader.variables


def _numpy(variable: Any) -> np.ndarray:
    # A copy: on some backends the array would share the variable's memory and change with it.
    return np.array(keras.ops.convert_to_numpy(variable.value))


def functional(model: Any) -> Any:
    """Return the functional model that holds the graph of `model`.

    Raises: Refused: there is none, or a method of the user's own decides what is computed.
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
    """Return the first of these methods that isn't Keras's own, or an empty string."""
    for name in names:
        owner = next((c for c in type(model).__mro__ if name in vars(c)), None)
        if owner is not None and not owner.__module__.startswith("keras.src."):
            return name
    return ""


def _own_training(model: Any) -> list[str]:
    own = _overridden(model, ("train_step", "compute_loss"))
    return [f"model '{model.name}' has its own {own}"] if own else []


class _Reader:
    """State of one reading: nodes so far, and which node made which symbolic tensor."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.inputs: list[str] = []
        self.names: dict[int, str] = {}  # id(KerasTensor) -> node name
        self.variables: dict[str, Any] = {}  # key -> keras.Variable
        self.keys: dict[int, str] = {}  # id(keras.Variable) -> key
        self.calls: dict[int, int] = {}  # id(layer) -> calls seen
        self.layer_names: dict[int, str] = {}
        self.operations: list[Any] = []

    def walk(self, function: Any, prefix: str, given: list[str] | None) -> None:
        """Read every node of `function`; `given` names what its inputs are (nested models)."""
        if given is not None:
            for tensor, name in zip(function.inputs, given, strict=True):
                self.names[id(tensor)] = name
        for depth in sorted(function._nodes_by_depth, reverse=True):
            for node in function._nodes_by_depth[depth]:
                self._read_node(node, prefix, top=given is None)
        if given is None:  # in the order of the model's signature
            self.inputs = [self.names[id(tensor)] for tensor in function.inputs]

    def _read_node(self, node: Any, prefix: str, top: bool) -> None:
        operation = node.operation
        if isinstance(operation, keras.layers.InputLayer):
            if top:
                self._add(operation, prefix, Step("input"), (), node.outputs[0])
            return
        sources = [self.names[id(t)] for t in node.arguments.keras_tensors]
        if isinstance(operation, keras.Model):
            self._read_nested(operation, prefix, node, sources)
            return
        found = steps(operation)
        if reason := _unreadable(node, found):
            found = [opaque(operation, reason)]
        self._add_steps(operation, prefix, found, sources, node.outputs)

    def _read_nested(self, model: Any, prefix: str, node: Any, sources: list[str]) -> None:
        try:
            function = functional(model)
        except Refused as refusal:
            self._add_steps(model, prefix, [opaque(model, str(refusal))], sources, node.outputs)
            return
        if reason := _nested_reason(node, function):
            self._add_steps(model, prefix, [opaque(model, reason)], sources, node.outputs)
            return
        call = self._next_call(model)
        inner = f"{prefix}{model.name}/" if call == 0 else f"{prefix}{model.name}@{call}/"
        self.walk(function, inner, sources)
        for outer, tensor in zip(node.outputs, function.outputs, strict=True):
            self.names[id(outer)] = self.names[id(tensor)]

    def _next_call(self, operation: Any) -> int:
        call = self.calls.get(id(operation), 0)
        self.calls[id(operation)] = call + 1
        return call

    def _add_steps(
        self, operation: Any, prefix: str, found: list[Step], sources: list[str], outputs: list[Any]
    ) -> None:
        if found[0].op == "opaque" and len(outputs) > 1:
            found = [opaque(operation, "several outputs")]
        call = self._next_call(operation)
        current = tuple(sources)
        for step in found:
            current = (self._add(operation, prefix, step, current, outputs[0], call),)
        for output in outputs:
            self.names[id(output)] = current[0]

    def _add(
        self,
        operation: Any,
        prefix: str,
        step: Step,
        sources: tuple[str, ...],
        output: Any,
        call: int = 0,
    ) -> str:
        layer = self.layer_names.setdefault(id(operation), prefix + operation.name)
        if operation not in self.operations:
            self.operations.append(operation)
        name = self._free_name(layer + (f"/{step.suffix}" if step.suffix else ""), call)
        shape = self._shape(step, sources, output)
        attrs = dict(step.attrs)
        if step.op == "reshape":
            attrs["target"] = tuple(-1 if d is None else d for d in shape[1:])
        arrays = {role: self._key(layer, v) for role, v in self._roles(operation, step).items()}
        self.nodes[name] = Node(name, step.op, sources, shape, layer, call, attrs, arrays)
        self.names[id(output)] = name
        return name

    def _shape(self, step: Step, sources: tuple[str, ...], output: Any) -> tuple[int | None, ...]:
        if step.op == "depthwise_conv" and step.suffix:
            # The depthwise half of a separable layer: the layer's own extent, its own channels.
            shape, kernel = list(output.shape), step.variables["kernel"].shape
            axis = 1 if step.attrs["data_format"] == "channels_first" else -1
            shape[axis] = kernel[-2] * kernel[-1]
            return tuple(shape)
        return tuple(output.shape)

    def _roles(self, operation: Any, step: Step) -> dict[str, Any]:
        if step.op != "opaque":
            return dict(step.variables)
        return {v.path: v for v in getattr(operation, "weights", [])}

    def _key(self, layer: str, variable: Any) -> str:
        if id(variable) not in self.keys:
            base = key = f"{layer}/{variable.name}"
            count = 1
            while key in self.variables:
                key = f"{base}_{count}"
                count += 1
            self.keys[id(variable)] = key
            self.variables[key] = variable
        return self.keys[id(variable)]

    def _free_name(self, base: str, call: int) -> str:
        name = base if call == 0 else f"{base}@{call}"
        while name in self.nodes:
            call += 1
            name = f"{base}@{call}"
        return name

    def penalties(self) -> list[Penalty]:
        """Return the L1/L2 regularizers of trainable weights."""
        found = []
        for key, variable in self.variables.items():
            regularizer = getattr(variable, "regularizer", None)
            if regularizer is not None and _is_l1_l2(regularizer) and variable.trainable:
                l1 = float(getattr(regularizer, "l1", 0.0))
                l2 = float(getattr(regularizer, "l2", 0.0))
                found.append(Penalty(key, l1, l2))
        return found

    def hazards(self) -> list[str]:
        """Return why training the graph elsewhere would not be the same training."""
        found = []
        for key, variable in self.variables.items():
            if getattr(variable, "constraint", None) is not None:
                found.append(f"'{key}' has a constraint ({type(variable.constraint).__name__})")
            regularizer = getattr(variable, "regularizer", None)
            if regularizer is not None and not _is_l1_l2(regularizer):
                found.append(f"'{key}' has the regularizer {type(regularizer).__name__}")
        for operation in self._layers():
            if getattr(operation, "activity_regularizer", None) is not None:
                found.append(f"'{operation.name}' has an activity_regularizer")
        return found + self._other_dtypes()

    def _layers(self) -> list[Any]:
        """Return all layers and operations that were read, layers used as activation included."""
        inside = [getattr(operation, "activation", None) for operation in self.operations]
        return self.operations + [a for a in inside if isinstance(a, keras.layers.Layer)]

    def _other_dtypes(self) -> list[str]:
        names: dict[str, list[str]] = {}
        for operation in self._layers():
            dtype = getattr(operation, "compute_dtype", "float32")
            if dtype != "float32":
                names.setdefault(dtype, []).append(f"'{operation.name}'")
        return [f"{_some(group)} compute in {dtype}" for dtype, group in names.items()]


def _is_l1_l2(regularizer: Any) -> bool:
    known = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)
    return type(regularizer) in known


def _some(names: list[str], show: int = 3) -> str:
    rest = f" (and {len(names) - show} more)" if len(names) > show else ""
    return ", ".join(names[:show]) + rest


def _forced(node: Any) -> str:
    # Keras writes the default of `call` into every node (Dropout's is False), where it means no
    # more than None: the model's own `training` replaces it.
    training = node.arguments.kwargs.get("training")
    parameter = inspect.signature(type(node.operation).call).parameters.get("training")
    if training is None or (parameter is not None and training == parameter.default):
        return ""
    return f"called with training={training}"


def _nested_reason(node: Any, function: Any) -> str:
    """Return why a nested model's call isn't just its own nodes on the given tensors."""
    tensors = node.arguments.keras_tensors
    if reason := _forced(node) or _argument_reason(node):
        return reason
    if [len(t.shape) for t in tensors] != [len(t.shape) for t in function.inputs]:
        return "its inputs are reshaped at the call"
    return ""


def _unreadable(node: Any, found: list[Step]) -> str:
    """Return why this call isn't just layer(tensors): extra arguments change what is computed."""
    if _forced(node) and any(step.op in {"batch_norm", "dropout"} for step in found):
        return _forced(node)
    if found[0].op == "opaque":
        return found[0].attrs["why"]
    if isinstance(node.operation, keras.layers.Layer):
        return _argument_reason(node)
    if len(node.arguments.keras_tensors) != len(node.arguments.args):
        return "called with a constant operand"
    return ""


def _argument_reason(node: Any) -> str:
    arguments = node.arguments
    extra = {k for k, v in arguments.kwargs.items() if v is not None} - _TENSOR_INPUTS_ONLY
    if extra or len(arguments.args) != 1:
        return f"called with extra arguments {sorted(extra)}"
    if any(leaf is not None for leaf in keras.tree.flatten(arguments.kwargs.get("mask"))):
        return "called with a mask"
    if not all(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten(arguments.args)):
        return "called with a constant operand"
    return ""
