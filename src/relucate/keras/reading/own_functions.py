"""Activation functions that a user writes: what they do to each element is seen by calling them.

A function, a Lambda or a layer without weights is called on a line of values, and on the same
values in another order and shape. If each element's result depends on that element alone, its
values go into the Graph; `surgery.spelled` finds their name. Called by `layers`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from ...graph.functions import LINE
from .steps import Step


def with_values(step: Step, function: Callable[[Any], Any] | None) -> Step:
    """Return an opaque step as a function of each element, if the function is one."""
    values = _values(function) if function is not None else None
    if values is None:
        return step
    return step.with_attrs(function="table", operands=(None, *map(float, values)))


def function_of(layer: Any) -> Callable[[Any], Any] | None:
    """Return what a layer of the user's own computes; None: it has weights, modes or masks."""
    if layer.dtype_policy.compute_dtype != "float32" or layer.variables:
        return None
    if type(layer) is keras.layers.Lambda:
        return None if layer.arguments else layer.function
    if any(True for _ in layer._flatten_layers(include_self=False)) or "call" in vars(layer):
        return None
    parameters = inspect.signature(layer.call).parameters.values()
    plain = len(parameters) == 1 and not type(layer).__module__.startswith("keras.")
    return layer.call if plain else None


def _values(function: Callable[[Any], Any]) -> np.ndarray | None:
    order = np.random.default_rng(0).permutation(len(LINE))
    try:
        with keras.device("cpu"), keras.StatelessScope():
            values = _called(function, LINE)
            turned = _called(function, LINE[order].reshape(3, -1, 3))
    except Exception:  # it takes other shapes; whatever the user's code does
        return None
    fits = values.shape == LINE.shape and turned.size == values.size
    if not fits or values.dtype.kind != "f" or not np.all(np.isfinite(values)):
        return None
    return values if np.allclose(turned.ravel(), values[order], rtol=1e-5, atol=1e-6) else None


def _called(function: Callable[[Any], Any], x: np.ndarray) -> np.ndarray:
    given = keras.ops.convert_to_tensor(x.astype("float32"))
    return np.asarray(keras.ops.convert_to_numpy(function(given)))
