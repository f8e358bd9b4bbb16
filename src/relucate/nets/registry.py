"""The built-in networks by name, with the options that each takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InputError, unknown

# Functions of `keras.networks`.
NETS = ("cnn", "vgg", "caffenet", "inception_v3", "mlp", "bn_paper_mlp")


def options(name: str) -> dict[str, Any]:
    """Return a net's options with their defaults.

    >>> options("cnn")["width"]
    16
    """
    parameters = inspect.signature(find(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def find(name: str) -> Callable[..., Any]:
    """Return the function of a net; an unknown name is an InputError."""
    if name not in NETS:
        raise unknown("net", name, NETS)
    from ..keras import networks

    return getattr(networks, name)


def build(name: str, order: str, input_shape: tuple[int, ...], classes: int, **chosen: Any) -> Any:
    """Return an untrained Keras model of net `name` in `order`.

    Raises: InputError: an unknown net or option, or a value of the wrong type.
    """
    function = find(name)
    return function(order, tuple(input_shape), classes, **check_options(name, chosen))


def check_options(name: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options in the types of their defaults; others are an InputError."""
    defaults = options(name)
    checked = {}
    for option, value in chosen.items():
        if option not in defaults:
            raise unknown(f"option of net '{name}'", option, defaults)
        checked[option] = _typed(name, option, value, type(defaults[option]))
    return checked


def _typed(net: str, option: str, value: Any, kind: type) -> Any:
    try:
        if isinstance(value, bool) or (kind is str and not isinstance(value, str)):
            raise TypeError
        typed = kind(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"option {option} of net '{net}' must be of type {kind.__name__}, got {value!r}."
        ) from None
    if isinstance(typed, int) and (typed < 1 or typed != float(value)):
        raise InputError(
            f"option {option} of net '{net}' must be a whole number above 0, got {value!r}."
        )
    return typed


def summary(name: str) -> str:
    """Return the first line of a net's description."""
    return (inspect.getdoc(find(name)) or "").split("\n")[0]
