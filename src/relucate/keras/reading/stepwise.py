"""Take apart a model that a TimeDistributed applies: a TimeDistributed around each of its layers.

    stack_t(g(f(x_t)))  =  stack_t(g(stack_t(f(x_t))_t))

Each layer still sees one step after the other, in the same order, so the two also train alike:
batch norms take their statistics from one step at a time. The new calls are made on symbolic
tensors; the layers inside are the model's own, and aren't changed. Called by `reader`, which reads
the calls as if the model had made them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import layers as kl

from ...errors import briefly
from ...graph import OPERATIONS
from .calls import forced_training, has_mask, odd_arguments
from .operations import read_operation
from .steps import Unreadable
from .tracing import Inside, holds_layers, inside_of, is_cast, trace

_MERGES = (kl.Add, kl.Subtract, kl.Multiply, kl.Average, kl.Maximum, kl.Minimum, kl.Concatenate)


def _check_norms(inside: Inside) -> None:
    """Refuse a batch norm with several calls: layer by layer its statistics come in other order."""
    called: set[int] = set()
    for node in _all_nodes(inside):
        layer = node.operation
        if isinstance(layer, kl.BatchNormalization) and layer.trainable and id(layer) in called:
            raise Unreadable(f"'{layer.name}' is called several times at each step")
        called.add(id(layer))


def _all_nodes(inside: Inside) -> Iterator[Any]:
    for node in inside.nodes:
        deeper = _deeper(node)
        yield from [node] if deeper is None else _all_nodes(deeper)


def _deeper(node: Any) -> Inside | None:
    """Return what is inside a model or a layer that holds layers; None for any other call."""
    operation = node.operation
    if not isinstance(operation, kl.Layer):
        return None
    if holds_layers(operation):
        return trace(node)
    if not isinstance(operation, keras.Model):
        return None
    if reason := odd_arguments(node):
        raise Unreadable(f"'{operation.name}' is {reason}")
    return inside_of(getattr(operation, "_functional", None) or operation)


class Stepwise:
    """The models of one reading that are taken apart.

    A layer that is called several times has one TimeDistributed around it.

    Attributes: names: of operations in nested models, by id, with the names of those models.
    """

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self._around: dict[int, Any] = {}  # id of a layer -> the TimeDistributed around it
        self._nodes: list[Any] = []

    def taken_apart(self, model: Any, node: Any) -> Inside:
        """Return what one call of a TimeDistributed around a functional model does, by layers.

        Raises: Unreadable: a layer inside can't be applied step by step by itself, or would train
            otherwise then.
        """
        inside = inside_of(model)
        _check_norms(inside)
        self._nodes = []
        inputs = [keras.KerasTensor(t.shape, t.dtype) for t in node.arguments.keras_tensors]
        outputs = self._run(inside, inputs, "")
        if any(is_cast(node.operation, tensor) for tensor in inputs) or (
            [output.dtype for output in outputs] != [output.dtype for output in node.outputs]
        ):
            raise Unreadable("it casts to another type than its layers")
        return Inside(inputs, self._nodes, outputs)

    def _run(self, inside: Inside, tensors: Sequence[Any], prefix: str) -> list[Any]:
        values = {id(old): new for old, new in zip(inside.inputs, tensors, strict=True)}
        for node in inside.nodes:
            if isinstance(node.operation, kl.InputLayer):
                continue
            given = [values[id(tensor)] for tensor in node.arguments.keras_tensors]
            found = self._call(node, given, prefix)
            values |= {id(old): new for old, new in zip(node.outputs, found, strict=True)}
        return [values[id(tensor)] for tensor in inside.outputs]

    def _call(self, node: Any, given: Sequence[Any], prefix: str) -> list[Any]:
        operation = node.operation
        _check_masks(node)
        deeper = _deeper(node)
        if deeper is not None:
            if forced_training(node) is not None:
                raise Unreadable(f"'{operation.name}' is called with its own `training`")
            return self._run(deeper, given, f"{prefix}{operation.name}/")
        if isinstance(operation, _MERGES):
            output = _merged(node, given)
        elif isinstance(operation, kl.Layer):
            output = self._stepwise(node, given)
        else:
            output = _raw(node, given)
        if tuple(output.shape[2:]) != tuple(node.outputs[0].shape[1:]):
            raise Unreadable(f"'{operation.name}' gives another shape step by step")
        made = output._keras_history.operation
        self._nodes.append(made._inbound_nodes[-1])
        self.names.setdefault(id(made), prefix + operation.name)
        return [output]

    def _stepwise(self, node: Any, given: Sequence[Any]) -> Any:
        layer = node.operation
        if why := _why_whole(node, given):
            raise Unreadable(f"'{layer.name}' {why}")
        if id(layer) not in self._around:
            self._around[id(layer)] = stepwise(layer)
        forced = forced_training(node)
        more = {} if forced is None else {"training": forced}
        try:
            return self._around[id(layer)](given[0], **more)
        except Exception as error:  # of the user's layer
            raise Unreadable(
                f"'{layer.name}' can't be applied by itself ({briefly(error)})"
            ) from None


def _check_masks(node: Any) -> None:
    tensors = [*node.arguments.keras_tensors, *node.outputs]
    if has_mask(node) or any(getattr(t, "_keras_mask", None) is not None for t in tensors):
        raise Unreadable("a mask passes inside it")


def _why_whole(node: Any, given: Sequence[Any]) -> str:
    """Return why a layer can't be applied step by step by itself, or an empty string."""
    layer = node.operation
    if len(given) != 1 or len(node.outputs) != 1:
        return "has several inputs or outputs"
    if reason := odd_arguments(node):
        return f"is {reason}"
    if isinstance(layer, kl.TimeDistributed):
        return "is a TimeDistributed, too"
    if "call" in vars(layer):
        return "has another call than its class"
    if len(given[0].shape) < 3:
        return "takes one number per step"
    inner = layer._flatten_layers()
    # A TimeDistributed calls its layer in a way that leaves these out.
    if any(getattr(x, "activity_regularizer", None) is not None for x in inner):
        return "has an activity_regularizer"
    if any(getattr(x, "quantization_mode", None) for x in inner):
        return "is quantized"
    return ""


def stepwise(layer: Any) -> Any:
    """Return a TimeDistributed of the same name and type around a layer."""
    return kl.TimeDistributed(layer, name=layer.name, dtype=layer.dtype_policy)


def _merged(node: Any, given: Sequence[Any]) -> Any:
    """Call a merging layer on all steps at once; its operands have the same number of axes."""
    layer = node.operation
    if len({len(tensor.shape) for tensor in node.arguments.keras_tensors}) > 1:
        raise Unreadable(f"'{layer.name}' merges values of several ranks")
    made = _copied(layer)
    if isinstance(layer, kl.Concatenate) and layer.axis > 0:
        made.axis = layer.axis + 1
    return made(list(given))


def _raw(node: Any, given: Sequence[Any]) -> Any:
    """Call an operation that works on each element alone on all steps at once."""
    (steps, *others), tensors = read_operation(node), node.arguments.keras_tensors
    alone = not others and all(_is_elementwise(step.op) for step in steps)
    arrays = any(step.variables or step.constants for step in steps)
    if not alone or arrays or len({len(tensor.shape) for tensor in tensors}) > 1:
        raise Unreadable(f"'{node.operation.name}' isn't computed for each element alone")
    args, kwargs = node.arguments.fill_in(
        {id(old): new for old, new in zip(tensors, given, strict=True)}
    )
    return _copied(node.operation)(*args, **kwargs)


def _is_elementwise(op: str) -> bool:
    what = OPERATIONS[op]
    act = what.kind == "act" and not what.mixes
    return act or op in ("rescale", "identity") or (what.kind == "merge" and op != "concat")


def _copied(operation: Any) -> Any:
    """Return a copy without calls of an operation that has no weights."""
    made = object.__new__(type(operation))
    vars(made).update(vars(operation))
    made._inbound_nodes, made._outbound_nodes = [], []
    return made
