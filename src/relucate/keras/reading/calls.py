"""What one call adds to its layer: a `training` of its own, masks, further arguments.

Called by `read` for each node of a Keras model. Arguments that aren't known make a call opaque.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import keras
from keras import layers as kl

from ...graph import OPERATIONS
from .steps import Step

_CONTROL = {"training", "mask"}
_ATTENTION = (kl.Attention, kl.AdditiveAttention, kl.MultiHeadAttention, kl.GroupQueryAttention)


@functools.cache
def _parameters(kind: Any) -> dict[str, Any]:
    """Return the parameters of a layer's `call` and their defaults, in order."""
    found = inspect.signature(kind.call).parameters
    return {name: found[name].default for name in list(found)[1:]}


def forced_training(node: Any) -> bool | None:
    """Return the `training` that a call sets itself, or None.

    Keras writes the default of `call` into every node (Dropout's is False). There it means the same
    as None: the model's own `training` replaces it.
    """
    training = node.arguments.kwargs.get("training")
    if training is None or training == _parameters(type(node.operation)).get("training"):
        return None
    return bool(training)


def depends_on_training(step: Step) -> bool:
    """Return whether a step computes something else in training mode than at inference."""
    if step.op == "attention":
        return bool(step.attrs.get("rate"))
    differs = OPERATIONS[step.op].training != "same"
    return differs or step.attrs.get("reparametrized") == "spectral_norm"


def inputs_of(node: Any) -> list[Any]:
    """Return the tensors that a layer computes its output from, without masks."""
    if isinstance(node.operation, _ATTENTION) or not isinstance(node.operation, kl.Layer):
        return node.arguments.keras_tensors
    kwargs = {k: v for k, v in node.arguments.kwargs.items() if k != "mask"}
    leaves = keras.tree.flatten((node.arguments.args, kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)]


def has_mask(node: Any) -> bool:
    """Return whether a mask is among a call's arguments."""
    return any(leaf is not None for leaf in keras.tree.flatten(node.arguments.kwargs.get("mask")))


def odd_arguments(node: Any) -> str:
    """Return why a call isn't just layer(tensors), or an empty string."""
    if isinstance(node.operation, _ATTENTION):
        return ""  # it is never evaluated, and its masks are tensors that it reads
    arguments, given = node.arguments, list(node.arguments.args)
    extra = {k: v for k, v in arguments.kwargs.items() if v is not None and k not in _CONTROL}
    first = next(iter(_parameters(type(node.operation))), "")
    if not given and first in extra:
        given = [extra.pop(first)]
    if extra or len(given) != 1:
        return f"called with extra arguments {sorted(extra)}"
    if has_mask(node) and _reads_mask(node.operation):
        return "called with a mask"
    if not all(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten(given)):
        return "called with a constant operand"
    return ""


def _reads_mask(layer: Any) -> bool:
    """Return whether a mask changes a layer's output at inference."""
    if type(layer) is kl.TimeDistributed:
        kind: Any = type(layer.layer)
        return kind is not kl.BatchNormalization and "mask" in _parameters(kind)
    # In a batch norm it changes the statistics in training only.
    return type(layer) is not kl.BatchNormalization
