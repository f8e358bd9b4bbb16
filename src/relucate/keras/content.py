"""What a Keras object consists of, for the identity of code that uses it: the same in each process.

Its configuration and weights, not its trackers, random default seeds or automatic names. Called by
`framework`.
"""

from __future__ import annotations

import dis
import functools
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import FunctionType
from typing import Any

import keras
import numpy as np

# Others, such as losses, show all in their attributes.
_KINDS = (
    keras.layers.Layer,
    keras.optimizers.Optimizer,
    keras.metrics.Metric,
    keras.initializers.Initializer,
)


def content(thing: Any) -> Any:
    """Return what a Keras object consists of, None for anything else."""
    if not isinstance(thing, _KINDS):
        return None
    config, compiled = _config(thing, "get_config"), None
    if config is None:  # a custom object without one
        config = {key: str(getattr(thing, key, "")) for key in ("trainable", "dtype")}
    if isinstance(thing, keras.Model) and getattr(thing, "compiled", False):
        compiled = _config(thing, "get_compile_config"), getattr(thing, "loss", None)
    weights = thing.weights if isinstance(thing, keras.layers.Layer) else ()
    arrays = [np.asarray(keras.ops.convert_to_numpy(weight.value)) for weight in weights]
    return _renumbered(config, type(thing).__name__), compiled, _own(thing), arrays


def _config(thing: Any, method: str) -> Any:
    with suppress(Exception):  # the user's code
        return getattr(thing, method)()
    return None


def _own(thing: Any) -> dict[str, Any]:
    """Return the attributes that no code of Keras sets: those of the user's class."""
    if type(thing).__module__.partition(".")[0] in _PACKAGES:
        return {}
    inner = _inner(type(thing)) | _TRAINING
    return {name: vars(thing)[name] for name in sorted(vars(thing)) if name not in inner}


@functools.cache
def _inner(kind: type) -> frozenset[str]:
    bases = [base for base in kind.__mro__ if base.__module__.partition(".")[0] in _PACKAGES]
    functions = [value for base in bases for value in vars(base).values()]
    codes = [each.__code__ for each in functions if isinstance(each, FunctionType)]
    steps = (step for code in codes for step in dis.get_instructions(code))
    stored = {step.argval for step in steps if step.opname == "STORE_ATTR"}
    return frozenset(stored | vars(keras.layers.Layer(name="any")).keys())


_PACKAGES = {"keras", "torch", "tensorflow", "jax"}
_TRAINING = {"optimizer", "stop_training", "stop_evaluating", "stop_predicting"}  # of a model
_BUILT = {"build_input_shape", "build_config"}  # appear with the first call; weights show them


def _renumbered(config: Any, kind: str) -> Any:
    """Return a configuration whose automatic names (dense_3) are numbered from its beginning.

    Keras counts them per process. Different names stay different.
    """
    names: dict[str, str] = {}
    counts: dict[str, int] = {}
    for name, base in _automatic(config, kind):
        if name not in names:
            counts[base] = counts.get(base, -1) + 1
            names[name] = f"{base}:{counts[base]}"
    return _replaced(config, names)


def _automatic(config: Any, kind: str) -> Iterator[tuple[str, str]]:
    """Yield the names of layers that Keras may have given, with their parts before the number."""
    if isinstance(config, (list, tuple)):
        for part in config:
            yield from _automatic(part, "")
    elif isinstance(config, Mapping):
        name, base = config.get("name"), _snake_case(kind)
        if kind and isinstance(name, str) and re.fullmatch(rf"{base}(_\d+)?", name):
            yield name, base
        inner = config.get("class_name")
        for key, part in config.items():
            yield from _automatic(part, str(inner or "") if key == "config" else "")


def _snake_case(kind: str) -> str:
    words = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", kind))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()


def _replaced(config: Any, names: Mapping[str, str]) -> Any:
    if isinstance(config, str):
        return names.get(config, config)
    if isinstance(config, (list, tuple)):
        return [_replaced(part, names) for part in config]
    if isinstance(config, Mapping):
        return {key: _replaced(config[key], names) for key in config if key not in _BUILT}
    return config
