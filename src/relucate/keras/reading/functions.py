"""What each activation function means: `keras.activations`, and `keras.ops` used as one.

Functions are recognised by identity, never by name (a user's `relu` may be another function).
Called by `layers` for `activation=` arguments and Activation layers.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import keras

from ...graph import select
from .steps import Step


def _options(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())[1:]


def _known(space: Any, names: Mapping[str, str]) -> dict[Any, tuple[str, Mapping[str, Any]]]:
    """Return the activations of a module: function -> op and the attributes that its defaults set.

    Attributes have the names of the functions' own options. `names`: op -> name, where they differ.
    """
    found = {}
    for op in sorted(select(kind="act")):
        function = getattr(space, names.get(op, op), None)
        options = [] if function is None else _options(function)
        if function is None or any(option.default is option.empty for option in options):
            continue
        attrs = {o.name: o.default for o in options if o.default is not None and o.default != 0}
        # Keras's threshold uses the sum of all partial sums; the published one uses the last.
        found[function] = op, {**attrs, **({"form": "keras"} if op == "sparsemax" else {})}
    return found


FUNCTIONS = _known(keras.activations, {})
_OPERATIONS = _known(keras.ops, {"exponential": "exp"})
_KNOWN = tuple({**_OPERATIONS, **FUNCTIONS}.items())


def function_step(function: Any, suffix: str = "") -> Step | None:
    """Return the step of an activation function, or None if it isn't known.

    A `functools.partial` of a known function is known if it sets only that function's options.
    """
    more: dict[str, Any] = {}
    if isinstance(function, functools.partial) and not function.args:
        function, more = function.func, dict(function.keywords)
    for known, (op, attrs) in _KNOWN:  # by identity: a callable need not have a hash
        if function is known:
            if not set(more) <= {option.name for option in _options(known)}:
                return None
            return Step(op, {**attrs, **more}, suffix=suffix and op)
    return None
