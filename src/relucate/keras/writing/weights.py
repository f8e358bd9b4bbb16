"""The weights of new layers: from the Graph, or from the source where the Graph has none.

Here each new layer is also compared with its nodes: what it can't compute is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from ...errors import Refused
from ...graph import Graph, Node
from ..reading.layers import steps
from ..reading.record import Reading
from ..reading.steps import Step

# Attributes of a node's call or place, not of what the layer computes.
_APART = frozenset({"forced", "time_distributed", "frozen", "written", "target", "momentum"})


@dataclass(frozen=True)
class Built:
    """A layer of the new model, the old layer that it replaces, and the nodes of one call."""

    layer: Any
    old: Any
    nodes: Sequence[Node]

    trainable: bool = True  # of a layer that replaces none

    def restore_trainable(self, model: keras.Model) -> None:
        """Give the layer, the layers in it and their variables their `trainable`.

        The model's setter sets all of them, even those that LoRA or the user froze one by one.
        """
        if self.old is None:
            self.layer.trainable = self.trainable and model.trainable
            return
        pairs = zip(self.old._flatten_layers(), self.layer._flatten_layers(), strict=False)
        for old, new in pairs:
            new.trainable = old.trainable
            _restore_variables(old, new)


def _restore_variables(old: Any, new: Any) -> None:
    flags = {v.name: v.trainable for v in old._trainable_variables}
    same = len(old._trainable_variables) == len(new._trainable_variables)
    for place, variable in enumerate(new._trainable_variables):
        if same:  # names need not be unique
            variable.trainable = old._trainable_variables[place].trainable
        elif variable.name in flags:
            variable.trainable = flags[variable.name]


def tied(reading: Reading) -> str:
    """Return which layers share a weight, in words; "" if none do.

    The calls of one layer share it again in a new model; two layers each get their own.
    """
    owners: dict[int, Any] = {}
    for operation in {id(call.operation): call.operation for call in reading.calls}.values():
        for variable in getattr(operation, "weights", ()):
            owner = owners.setdefault(id(variable), operation)
            if owner is not operation:
                return f"'{owner.name}' and '{operation.name}' share '{variable.path}'"
    return ""


def assign(built: Built, graph: Graph, reading: Reading, fresh: int | None) -> None:
    """Set a layer's weights; with `fresh` only adapted statistics: the others are new already."""
    if fresh is not None and not hasattr(built.layer, "adapt"):
        return
    _build_activation(built)
    if built.old is not None:
        _copy(built, graph, reading)
    _assign_nodes(built, graph)
    if hasattr(built.layer, "finalize_state"):
        built.layer.finalize_state()  # it computes with values derived from its weights


def _build_activation(built: Built) -> None:
    """Build a layer that is another layer's activation; Keras does it at a call on data."""
    node = built.nodes[0]
    pair = [getattr(x, "layer", x) if node.time_axes else x for x in (built.layer, built.old)]
    inner, old = (getattr(x, "activation", None) for x in pair)
    if isinstance(inner, keras.layers.Layer) and not inner.built and getattr(old, "built", False):
        inner.build(node.shape[node.time_axes :])


def _copy(built: Built, graph: Graph, reading: Reading) -> None:
    """Copy the weights that the graph doesn't have, and those of opaque layers."""
    layer, old = built.layer, built.old
    if len(layer.weights) != len(old.weights):
        return  # a bias, gamma or beta was added or removed: the graph knows such layers
    known = {id(variable): key for key, variable in reading.variables.items()}
    for new, variable in zip(layer.weights, old.weights, strict=True):
        tensor = graph.tensors.get(known.get(id(variable), ""))
        value = variable if tensor is None else tensor
        if tuple(new.shape) == tuple(value.shape):
            new.assign(value)


def _assign_nodes(built: Built, graph: Graph) -> None:
    first = built.nodes[0]
    if isinstance(getattr(built.layer, "layer", None), keras.Model):
        return  # a whole model within a TimeDistributed was copied
    shape = graph.nodes[first.inputs[0]].shape if first.inputs else ()
    found = steps(built.layer, tuple(shape))
    if first.op == "opaque":
        return
    for node in (node for node in built.nodes if node.op != "opaque"):
        step = next((step for step in found if step.op == node.op), None)
        if step is None and (built.old is None or node.arrays):
            raise Refused(f"'{node.name}' ({node.op}) can't be written as a Keras layer.")
        if step is None:
            continue
        found.remove(step)
        _check(node, step)
        for role, variable in step.variables.items():
            if role not in node.arrays:
                raise Refused(
                    f"'{node.name}' ({node.op}) has no {role}, but its Keras layer "
                    f"({type(built.layer).__name__}) always has one."
                )
            _set(variable, graph.tensors[node.arrays[role]], node)


def _check(node: Node, step: Step) -> None:
    wanted: Mapping[str, Any] = {k: v for k, v in node.attrs.items() if k not in _APART}
    for key, value in wanted.items():
        if key in step.attrs and _plain(step.attrs[key]) != _plain(value):
            raise Refused(
                f"'{node.name}' ({node.op}) has {key} = {value}, but its Keras layer would have "
                f"{step.attrs[key]}."
            )
    missing = set(node.arrays) - set(step.variables) - set(step.constants)
    if missing:
        raise Refused(f"'{node.name}' ({node.op}): its Keras layer has no {sorted(missing)[0]}.")


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value


def _set(variable: Any, array: np.ndarray, node: Node) -> None:
    if tuple(variable.shape) != tuple(array.shape):
        raise Refused(
            f"'{node.name}' ({node.op}) has a weight of shape {tuple(array.shape)}, but its Keras "
            f"layer has {tuple(variable.shape)}."
        )
    variable.assign(keras.ops.convert_to_tensor(array, variable.dtype))
