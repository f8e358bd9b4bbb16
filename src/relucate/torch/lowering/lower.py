"""Lower a Graph to a channels-last PyTorch module with the same arithmetic, training included.

The module takes and gives tensors in the graph's own layout (channels last for most Keras models);
inside, images are (batch, channels, *spatial) in channels-last memory, so that the move is free.
What can't be lowered faithfully is refused by name. Not here: reading a model, training.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from ...errors import InputError, Refused, unknown
from ...graph import Graph, Node
from ...graph.layouts import to_graph, to_torch
from ..modules import channels_last_weights
from .emit import EMITTERS
from .emitter import Emitter, Value
from .stepwise import emit_stepwise


@dataclass(frozen=True)
class Binding:
    """Where one tensor of the graph lives in the module, and how its axes are turned."""

    parameter: str  # dotted name in the module
    layout: str  # one of `graph.layouts`


class Lowered(fx.GraphModule):
    """A lowered network: call it like the Keras model it came from (same layout of tensors).

    `dropped` is the final softmax or sigmoid that was left out, because the loss adds it. `places`
    says which value of the code is which node's, and whether its last axis was moved to axis 1.
    """

    bindings: dict[str, Binding]
    shapes: dict[str, tuple[int, ...]]
    source: Graph
    dropped: str
    places: dict[str, tuple[str, bool]]

    @property
    def returns_logits(self) -> bool:
        """Whether the operation that made probabilities was left out."""
        return bool(self.dropped)

    def set_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Load weights given in the graph's layout.

        Raises: InputError: a name that the graph doesn't have, or another shape than it has there.
        """
        state = dict(self.named_parameters()) | dict(self.named_buffers())
        with torch.no_grad():
            for key, array in tensors.items():
                if key not in self.bindings:
                    raise unknown("tensor", key, self.bindings)
                if np.shape(array) != self.shapes[key]:
                    raise InputError(
                        f"tensor '{key}' has shape {self.shapes[key]}, got {np.shape(array)}."
                    )
                binding = self.bindings[key]
                turned = np.array(to_torch(np.asarray(array), binding.layout), order="C")
                state[binding.parameter].copy_(torch.from_numpy(turned))

    def get_tensors(self) -> dict[str, np.ndarray]:
        """Return copies of all weights and statistics in the graph's layout."""
        state = dict(self.named_parameters()) | dict(self.named_buffers())
        result = {}
        for key, binding in self.bindings.items():
            array = state[binding.parameter].detach().cpu().numpy()
            channels = self.shapes[key][-2] if binding.layout == "depthwise" else 1
            result[key] = np.array(to_graph(array, binding.layout, channels))
        return result

    def penalty(self) -> Tensor | None:
        """Return Σ l1 · Σ|w| + l2 · Σw² over the regularized tensors, or None if there are none."""
        total = None
        for item in self.source.penalties:
            weight = self.get_parameter(self.bindings[item.tensor].parameter)
            for factor, value in ((item.l1, weight.abs()), (item.l2, weight.square())):
                if factor:
                    term = factor * value.sum()
                    total = term if total is None else total + term
        return total

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = super().__deepcopy__(memo)  # fx copies what it knows of
        for name in _OWN:
            setattr(copied, name, copy.copy(getattr(self, name)))
        return copied


_OWN = ("bindings", "shapes", "source", "dropped", "places")
_SOFTMAX = frozenset({"softmax", "log_softmax"})


def lower(graph: Graph, *, logits: bool = False, final: frozenset[str] = _SOFTMAX) -> Lowered:
    """Return a PyTorch module that computes what `graph` computes, with its weights loaded.

    Args:
        graph: what a reader made.
        logits: leave out one of the operations `final` at the output, for a loss that takes logits.

    Exact up to the rounding of float32 sums: forward, gradient, moving statistics, regularizers.
    Raises: Refused, naming the node: an opaque node, a constraint, a dtype other than float32, a
    norm with renorm or synchronized statistics, "same" padding of an axis of unknown size.

    >>> nodes = {"x": Node("x", "input", (), (None, 2)), "y": Node("y", "relu", ("x",), (None, 2))}
    >>> lower(Graph("g", nodes, ("x",), ("y",), {}))(torch.tensor([[-1.0, 2.0]]))
    tensor([[0., 2.]])
    """
    _refuse_obstacles(graph)
    outputs, dropped = _without(graph, final) if logits else (graph.outputs, "")
    emitter = Emitter(graph, frozenset(dir(Lowered)) | frozenset(_OWN))
    values: dict[str, Value] = {name: emitter.input(name) for name in graph.inputs}
    for node in graph:
        # What no output reads is run all the same, as Keras does: its norms count batches, and its
        # regularizers are in the loss.
        if node.op != "input" and not (dropped and node.name in graph.outputs):
            values[node.name] = _emit(emitter, node, [values[name] for name in node.inputs])
    results = [emitter.native(values[name]) for name in outputs]
    emitter.graph.output(results[0] if len(results) == 1 else tuple(results))
    module = _finish(emitter, graph, dropped)
    module.places = {name: (value.fx.name, value.moved) for name, value in values.items()}
    return module


def _finish(emitter: Emitter, graph: Graph, dropped: str) -> Lowered:
    module = Lowered(emitter.root, emitter.graph, "Lowered")
    module.bindings = {key: Binding(*where) for key, where in emitter.bindings.items()}
    module.shapes = {key: graph.tensors[key].shape for key in module.bindings}
    module.source, module.dropped = graph, dropped
    module.set_tensors({key: graph.tensors[key] for key in module.bindings})
    for key, binding in module.bindings.items():
        if key not in graph.trainable:
            _freeze(module, binding.parameter)
    channels_last_weights(module)
    return module


def _freeze(module: nn.Module, name: str) -> None:
    for parameter_name, parameter in module.named_parameters():
        if parameter_name == name:
            parameter.requires_grad_(False)


def _emit(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    if node.op not in EMITTERS:
        kind = node.attrs.get("type", node.op)
        why = f": {node.attrs['why']}" if node.attrs.get("why") else ""
        raise Refused(f"can't lower layer '{node.layer}' ({kind}){why}.")
    if why := node.attrs.get("inseparable"):
        raise Refused(f"can't lower layer '{node.layer}' ({node.op}): it is {why}.")
    if asked := _unsupported(node):
        raise Refused(f"can't lower layer '{node.layer}' ({node.op}) with {asked}.")
    node = replace(node, attrs=node.operation.complete(node.attrs))
    emit = emit_stepwise if node.time_axes else EMITTERS[node.op]
    return emit(emitter, node, values)


def _unsupported(node: Node) -> str:
    """Return what a node asks for that its emitter would ignore, or an empty string.

    None, False and an attribute's default ask for nothing.
    """
    what, attrs = node.operation, node.attrs
    for name, value in attrs.items():
        honoured = name == "time_distributed" or (
            name in what.attrs and name not in what.not_lowered
        )
        asks = value is not None and value is not False and value != what.attrs.get(name)
        if asks and not honoured:
            return f"{name}={value!r}"
    if node.op in {"softmax", "log_softmax"} and not isinstance(attrs.get("axis", -1), int):
        return f"over several axes {attrs['axis']}"
    if what.kind == "pool" and attrs.get("padding", "valid") not in ("valid", "same"):
        return f"padding={attrs['padding']!r}"
    return ""


def _refuse_obstacles(graph: Graph) -> None:
    if graph.obstacles:
        raise Refused("can't lower the model faithfully: " + "; ".join(graph.obstacles) + ".")
    for node in graph:
        if node.attrs.get("renorm") or node.attrs.get("synchronized"):
            word = "renorm" if node.attrs.get("renorm") else "synchronized"
            raise Refused(f"can't lower layer '{node.layer}': batch norm with {word}=True.")


def _without(graph: Graph, final: frozenset[str]) -> tuple[tuple[str, ...], str]:
    """Return the outputs without a last operation that is in `final`, and its name."""
    name = graph.outputs[0]
    last = graph.nodes[name]
    axis = last.attrs.get("axis", -1)
    lone = len(graph.outputs) == 1 and not graph.consumers[name]
    if lone and last.op in final and axis in (-1, len(last.shape) - 1):
        return last.inputs, last.op
    return graph.outputs, ""
