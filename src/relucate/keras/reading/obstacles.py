"""Why training a model's graph elsewhere would not be the same: what a Graph can't hold.

Called by `read`, which puts the results into `Graph.penalties` and `Graph.obstacles`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from ...graph import Penalty
from ...phrases import some


def penalties(variables: Mapping[str, Any]) -> list[Penalty]:
    """Return the L1/L2 regularizers of trainable weights."""
    found = []
    for key, variable in variables.items():
        regularizer = getattr(variable, "regularizer", None)
        if regularizer is not None and _is_l1_l2(regularizer) and variable.trainable:
            l1 = float(getattr(regularizer, "l1", 0.0))
            l2 = float(getattr(regularizer, "l2", 0.0))
            found.append(Penalty(key, l1, l2))
    return found


def obstacles(variables: Mapping[str, Any], operations: Iterable[Any]) -> list[str]:
    """Return constraints, other regularizers and other dtypes, as texts that name the layer."""
    found = []
    for key, variable in variables.items():
        if getattr(variable, "constraint", None) is not None:
            found.append(f"'{key}' has a constraint ({type(variable.constraint).__name__})")
        regularizer = getattr(variable, "regularizer", None)
        if regularizer is not None and not _is_l1_l2(regularizer):
            found.append(f"'{key}' has the regularizer {type(regularizer).__name__}")
    layers = [layer for operation in operations for layer in _with_inner(operation)]
    for layer in layers:
        if getattr(layer, "activity_regularizer", None) is not None:
            found.append(f"'{layer.name}' has an activity_regularizer")
    return found + _other_dtypes(layers)


def _with_inner(operation: Any) -> list[Any]:
    """Return an operation with the layer that it wraps and those that it uses as activation."""
    found, inner = [operation], [getattr(operation, name, None) for name in ("layer", "activation")]
    for layer in inner:
        if isinstance(layer, keras.layers.Layer):
            found += _with_inner(layer)
    return found


def _other_dtypes(layers: list[Any]) -> list[str]:
    names: dict[str, list[str]] = {}
    for layer in layers:
        dtype = getattr(layer, "compute_dtype", "float32")
        if dtype != "float32":
            names.setdefault(dtype, []).append(f"'{layer.name}'")
    return [f"{some(group, 3)} compute in {dtype}" for dtype, group in names.items()]


def _is_l1_l2(regularizer: Any) -> bool:
    known = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)
    return type(regularizer) in known
