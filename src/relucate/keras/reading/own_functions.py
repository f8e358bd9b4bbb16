"""Activation functions that a user writes: what they do to each element is seen by calling them.

A function, a Lambda or a layer without weights is called on a line of values, and on some of them
in tensors of several ranks and of its own input's shape. If each element's result depends on that
element alone, its values go into the Graph; `surgery.spelled` finds their name. Called by `layers`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from ...graph.functions import LINE
from .steps import Step

_SHAPES = ((2, 5), (2, 3, 5), (2, 3, 4, 5), (2, 2, 3, 4, 5))
_UNKNOWN = 6  # the size of an axis that is known only when the model is called
_MOST = 2**22  # elements


def with_values(
    step: Step, function: Callable[[Any], Any] | None, shape: tuple[int | None, ...] = ()
) -> Step:
    """Return an opaque step as a function of each element, if the function is one.

    shape: of what it is called on, with the batch; (): any.
    """
    values = _values(function, shape) if function is not None else None
    if values is None:
        return step
    return step.with_attrs(function="table", operands=(None, *map(float, values)))


def function_of(layer: Any) -> Callable[[Any], Any] | None:
    """Return what a layer of the user's own computes; None: it has weights, modes or masks."""
    if layer.dtype_policy.compute_dtype != "float32" or layer.variables:
        return None
    if type(layer) is keras.layers.Lambda:
        alone = not layer.arguments and _takes_one(layer.function)
        return layer.function if alone else None
    if any(True for _ in layer._flatten_layers(include_self=False)) or "call" in vars(layer):
        return None
    plain = _takes_one(layer.call) and not type(layer).__module__.startswith("keras.")
    return _unchanged(layer) if plain else None


def _unchanged(layer: Any) -> Callable[[Any], Any]:
    """Return a layer's call, after which its attributes are as before."""

    def call(x: Any) -> Any:
        before = dict(vars(layer))
        try:
            return layer.call(x)
        finally:
            vars(layer).clear()
            vars(layer).update(before)

    return call


def _takes_one(function: Callable[..., Any]) -> bool:
    """Return whether a function takes a tensor alone: no mode of training, no mask."""
    try:
        return len(inspect.signature(function).parameters) == 1
    except ValueError:  # a function in C doesn't say
        return False


def _values(function: Callable[[Any], Any], shape: tuple[int | None, ...]) -> np.ndarray | None:
    """Return a function's values on the line; None: it isn't one of each element alone."""
    own = [(2, *(_UNKNOWN if size is None else size for size in shape[1:]))] if shape else []
    try:
        with keras.device("cpu"), keras.StatelessScope():
            values = _called(function, LINE[:, None]).ravel()
            alone = all(_is_alone(function, values, each) for each in (*_SHAPES, *own))
    except Exception:  # it takes other shapes; whatever the user's code does
        return None
    return values if alone and values.dtype.kind == "f" and np.all(np.isfinite(values)) else None


def _is_alone(function: Callable[[Any], Any], values: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Return whether the function gives the same values on some of the line, most of them low.

    So it notices a mean or a maximum of the whole tensor, too.
    """
    if math.prod(shape) > _MOST:
        return False
    chosen = (np.random.default_rng(0).beta(2, 5, shape) * len(LINE)).astype(int)
    found = _called(function, LINE[chosen])
    return found.shape == shape and np.allclose(found, values[chosen], rtol=1e-5, atol=1e-6)


def _called(function: Callable[[Any], Any], x: np.ndarray) -> np.ndarray:
    given = keras.ops.convert_to_tensor(x.astype("float32"))
    return np.asarray(keras.ops.convert_to_numpy(function(given)))
