"""What each activation function means: `keras.activations`, and `keras.ops` used as one.

Functions are recognised by identity, never by name (somebody else's `relu` may be another). Called
by `layers` for `activation=` arguments and Activation layers.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import keras

from .steps import Step

# op, and the attributes that the function's own defaults give.
_ATTRS: dict[str, Mapping[str, Any]] = {
    "relu": {},
    "relu6": {},
    "leaky_relu": {"negative_slope": 0.2},
    "elu": {"alpha": 1.0},
    "selu": {},
    "celu": {"alpha": 1.0},
    "gelu": {"approximate": False},
    "silu": {},
    "hard_silu": {},
    "mish": {},
    "sigmoid": {},
    "hard_sigmoid": {},
    "log_sigmoid": {},
    "tanh": {},
    "hard_tanh": {},
    "tanh_shrink": {},
    "hard_shrink": {"threshold": 0.5},
    "soft_shrink": {"threshold": 0.5},
    "sparse_plus": {},
    "sparse_sigmoid": {},
    "softplus": {},
    "softsign": {},
    "squareplus": {"b": 4.0},
    "exponential": {},
    "softmax": {"axis": -1},
    "log_softmax": {"axis": -1},
    # Its threshold takes the sum of all partial sums, the published one the last: not evaluated.
    "sparsemax": {"axis": -1, "form": "keras"},
    "glu": {"axis": -1},
}
# Where `keras.ops` has other names or other defaults than `keras.activations`.
_OPS_NAMES = {"exponential": "exp"}
_OPS_ATTRS: dict[str, Mapping[str, Any]] = {"gelu": {"approximate": True}}

FUNCTIONS: dict[Any, tuple[str, Mapping[str, Any]]] = {
    getattr(keras.activations, op): (op, attrs)
    for op, attrs in _ATTRS.items()
    if hasattr(keras.activations, op)
}
_OPERATIONS = {
    getattr(keras.ops, _OPS_NAMES.get(op, op)): (op, _OPS_ATTRS.get(op, attrs))
    for op, attrs in _ATTRS.items()
    if hasattr(keras.ops, _OPS_NAMES.get(op, op))
}
_KNOWN = tuple({**_OPERATIONS, **FUNCTIONS}.items())


def function_step(function: Any, suffix: str = "") -> Step | None:
    """Return the step of an activation function, or None if it isn't known.

    A `functools.partial` of a known function counts if all that it sets are its own options.
    """
    more: dict[str, Any] = {}
    if isinstance(function, functools.partial) and not function.args:
        function, more = function.func, dict(function.keywords)
    for known, (op, attrs) in _KNOWN:  # by identity: a callable need not have a hash
        if function is known:
            options = list(inspect.signature(known).parameters)[1:]
            if not set(more) <= set(options):
                return None
            return Step(op, {**attrs, **more}, suffix=suffix and op)
    return None
