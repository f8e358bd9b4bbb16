"""Look inside a layer that holds other layers: run its own `call` on symbolic tensors.

What it calls is recorded as if the model had called it itself, which a Graph can hold. So that the
record is what the layer does, both are run on random values, at inference and in training mode,
with other weights than the layer has, and must give the same outputs, updates and losses. A layer
that fails is left unread, with the reason. The layer isn't changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from ...errors import briefly
from ...surgery.verify import SIZES
from ..fixed_output import fixed
from ..running import fixed_draws, no_gradients
from .calls import forced_training, has_mask
from .steps import Unreadable

_TOLERANCE = 1e-5  # of an output's scale: the same operations, so hardly any rounding


@dataclass(frozen=True)
class Inside:
    """A part of a model: symbolic inputs, the Keras nodes in topological order, the outputs."""

    inputs: Sequence[Any]
    nodes: Sequence[Any]
    outputs: Sequence[Any]


def inside_of(function: Any) -> Inside:
    """Return what is inside a functional model."""
    levels = function._nodes_by_depth
    nodes = [node for depth in sorted(levels, reverse=True) for node in levels[depth]]
    return Inside(function.inputs, nodes, function.outputs)


def holds_layers(layer: Any) -> bool:
    """Return whether a layer has layers inside and a `call` that isn't one of Keras's own."""
    owner = next(kind for kind in type(layer).__mro__ if "call" in vars(kind))
    own = not owner.__module__.startswith("keras.src.") and "call" not in vars(layer)
    return own and any(True for _ in layer._flatten_layers(include_self=False))


def trace(node: Any) -> Inside:
    """Return what one call of a layer consists of; its inputs take the place of the call's tensors.

    Raises: Unreadable: the call depends on values, uses weights or random numbers of its own, sets
        `training` for its layers, casts, takes a mask, or does anything else that the record lacks.
    """
    layer = node.operation
    olds = node.arguments.keras_tensors
    if has_mask(node) or any(getattr(t, "_keras_mask", None) is not None for t in olds):
        raise Unreadable("called with a mask")
    if any(is_cast(layer, tensor) for tensor in olds):
        raise Unreadable("casts its inputs")
    inputs = [keras.KerasTensor(t.shape, t.dtype) for t in olds]
    with restored(layer), keras.StatelessScope():
        try:
            args, kwargs = _arguments(node, inputs)
            mode = {"training": None} if layer._call_has_training_arg else {}
            found = keras.tree.flatten(layer.call(*args, **kwargs, **mode))
            outputs = [fixed(value, inputs[0]) for value in found]
        except Exception as error:  # of the user's code
            raise Unreadable(f"its call can't be followed ({briefly(error)})") from None
        _check_outputs(outputs, node.outputs)
        inside = Inside(inputs, list(_in_order(outputs, inputs)), outputs)
    known = {id(x) for x in layer._flatten_layers(include_self=False)}
    for made in inside.nodes:
        _check_call(made, known)
    _name_operations([made for made in inside.nodes if id(made.operation) not in known])
    _compare(node, inside)
    return inside


def is_cast(layer: Any, tensor: Any) -> bool:
    """Return whether a layer casts one of its inputs to another type."""
    return layer.autocast and "float" in tensor.dtype and tensor.dtype != layer.input_dtype


def _arguments(node: Any, tensors: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    """Return a call's arguments with these tensors, without `training` and masks."""
    olds = node.arguments.keras_tensors
    given = {id(old): new for old, new in zip(olds, tensors, strict=True)}
    args, kwargs = node.arguments.fill_in(given)
    apart = {"training", "mask"}
    return args, {name: value for name, value in kwargs.items() if name not in apart}


@contextmanager
def restored(layer: Any) -> Iterator[None]:
    """Take back what symbolic calls add to a layer and those inside: their nodes."""
    lists = [
        nodes for x in layer._flatten_layers() for nodes in (x._inbound_nodes, x._outbound_nodes)
    ]
    sizes = [len(nodes) for nodes in lists]
    try:
        yield
    finally:
        for nodes, size in zip(lists, sizes, strict=True):
            del nodes[size:]


def _check_outputs(outputs: Sequence[Any], olds: Sequence[Any]) -> None:
    shaped = [(tuple(t.shape), t.dtype) if _is_symbolic(t) else None for t in outputs]
    if shaped != [(tuple(t.shape), t.dtype) for t in olds]:
        raise Unreadable("its outputs aren't those of its call on symbolic tensors")
    masks = [[getattr(t, "_keras_mask", None) is None for t in ts] for ts in (outputs, olds)]
    if masks[0] != masks[1]:
        raise Unreadable("makes a mask")


def _is_symbolic(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)


def _in_order(outputs: Sequence[Any], inputs: Sequence[Any]) -> Iterator[Any]:
    """Yield the nodes that the outputs depend on, each after those that it reads."""
    known, seen = {id(tensor) for tensor in inputs}, set()
    stack: list[Any] = list(reversed(outputs))
    while stack:
        entry = stack.pop()
        if not _is_symbolic(entry):  # a node whose sources have been yielded
            yield entry
        elif id(entry) not in known:
            node = _node_of(entry)
            if id(node) not in seen:
                seen.add(id(node))
                stack += [node, *reversed(node.arguments.keras_tensors)]


def _node_of(tensor: Any) -> Any:
    operation, at, _ = getattr(tensor, "_keras_history", (None, 0, 0))
    if operation is None or isinstance(operation, keras.layers.InputLayer):
        raise Unreadable("reads a tensor that isn't among its arguments")
    return operation._inbound_nodes[at]


def _check_call(node: Any, known: set[int]) -> None:
    """Refuse a call inside whose meaning isn't in its arguments and its layer alone."""
    operation = node.operation
    own = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
    if isinstance(operation, keras.layers.Layer):
        if id(operation) not in known and operation.variables:
            raise Unreadable("makes layers while it runs")
        if forced_training(node) is not None:
            raise Unreadable(f"sets `training` for '{operation.name}' itself")
    else:
        own += keras.tree.flatten(list(vars(operation).values()))
    if any(isinstance(x, keras.Variable) or keras.ops.is_tensor(x) for x in own):
        raise Unreadable("computes with weights or arrays of its own")


def _name_operations(nodes: Sequence[Any]) -> None:
    """Name what the call made by what it does: Keras's own names count all that were ever made."""
    counts: dict[str, int] = {}
    for node in nodes:
        base = type(node.operation).__name__.lower()
        count = counts[base] = counts.get(base, -1) + 1
        node.operation.name = f"{base}_{count}" if count else base


# Comparison of the layer with its record.


class _Run(keras.layers.Layer):
    """A layer that calls a function, so that all that it calls knows the mode of training."""

    def __init__(self, function: Callable[[Any, bool], Any]) -> None:
        super().__init__(autocast=False)
        self.function = function

    def call(self, tensors: Any, training: bool = False) -> Any:
        return self.function(tensors, training)


def _compare(node: Any, inside: Inside) -> None:
    layer = node.operation

    def whole(tensors: Any, training: bool) -> Any:
        args, kwargs = _arguments(node, tensors)
        return layer(*args, **kwargs, training=training)

    def steps(tensors: Any, training: bool) -> Any:
        return _run_steps(inside, tensors, training)

    def effects(training: bool, size: int) -> list[list[np.ndarray]]:
        with keras.device("cpu"), no_gradients():
            return [_effects(run, node, training, size) for run in (whole, steps)]

    open_sizes = any(None in tensor.shape[1:] for tensor in inside.inputs)
    why = ""
    for size in SIZES if open_sizes else SIZES[:1]:
        try:
            both = [effects(training, size) for training in (False, True)]
        except Exception as error:  # a backend raises whatever its kernels raise
            why = why or briefly(error)
            continue
        for mode, found in zip(("at inference", "in training mode"), both, strict=True):
            if not _are_same(*found):
                raise Unreadable(f"its call does something else {mode} than on symbolic tensors")
        return
    raise Unreadable(f"its call can't be checked ({why})")


def _run_steps(inside: Inside, tensors: Sequence[Any], training: bool) -> list[Any]:
    values = {id(old): new for old, new in zip(inside.inputs, tensors, strict=True)}
    for node in inside.nodes:
        args, kwargs = node.arguments.fill_in(values)
        if isinstance(node.operation, keras.layers.Layer):
            kwargs = {**kwargs, "training": training}  # as functional models do
        found = keras.tree.flatten(node.operation(*args, **kwargs))
        values |= {id(old): new for old, new in zip(node.outputs, found, strict=True)}
    return [values[id(tensor)] for tensor in inside.outputs]


def _effects(
    run: Callable[[Any, bool], Any], node: Any, training: bool, size: int
) -> list[np.ndarray]:
    """Return the outputs of a call, the values that its variables have after it, and its losses."""
    variables = node.operation.variables
    values = {id(v): _other(v) for v in variables if "float" in str(v.dtype)}
    mapping = [(v, values[id(v)]) for v in variables if id(v) in values]
    random = np.random.default_rng(0)
    tensors = [_random(tensor, random, size) for tensor in node.arguments.keras_tensors]
    with keras.StatelessScope(mapping, collect_losses=True) as scope, fixed_draws():
        outputs = keras.tree.flatten(_Run(run)(tensors, training=training))
    after = (scope.get_current_value(variable) for variable in variables)
    found = [*outputs, *(x for x in after if x is not None), *scope.losses]
    return [np.asarray(keras.ops.convert_to_numpy(x)) for x in found]


def _other(variable: Any) -> Any:
    """Return other values than a variable has: what a call has computed from it would differ."""
    value = keras.ops.convert_to_tensor(variable.value)
    return keras.ops.where(keras.ops.equal(value, 0), 0.1, keras.ops.multiply(value, 1.25))


def _random(tensor: Any, random: np.random.Generator, unknown: int) -> Any:
    batch, *rest = (size or (unknown if at else 2) for at, size in enumerate(tensor.shape))
    values = random.normal(size=(batch, *rest))
    whole = not ("float" in tensor.dtype or "complex" in tensor.dtype)
    return keras.ops.convert_to_tensor(values > 0 if whole else values, dtype=tensor.dtype)


def _are_same(expected: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> bool:
    if [(x.shape, x.dtype) for x in expected] != [(x.shape, x.dtype) for x in got]:
        return False
    return all(_is_close(one, other) for one, other in zip(expected, got, strict=True))


def _is_close(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype.kind not in "fc":
        return np.array_equal(one, other)
    finite = np.abs(one[np.isfinite(one)])
    bound = _TOLERANCE * float(finite.max(initial=0.0))
    return np.allclose(one, other, rtol=0.0, atol=bound, equal_nan=True)
