"""Helpers for the handlers.

A function's handler takes the Translator and the function's arguments, with PyTorch's names (aten's
functions have the same names); a module's handler takes the Translator, the module and its input.
Each emits nodes or raises `Unknown`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..builder import Weight
from ..program import Unknown
from ..translator import Translator

Handler = Callable[..., Any]
NUMBERS = (1, 2, 3)  # of spatial axes


def need_weight(w: Any) -> Weight | None:
    """Return one of the model's own tensors as a weight.

    Raises: Unknown: it depends on the input.
    """
    if w is not None and not isinstance(w, Tensor):
        raise Unknown("its weights depend on the input")
    return None if w is None else Weight(w)


def module_as(function: Handler, *attributes: str) -> Handler:
    """Read a module as a function whose arguments after the input are attributes of the module."""

    def handler(t: Translator, m: Any, input: Any) -> Any:
        return function(t, input, *(getattr(m, attribute) for attribute in attributes))

    return handler


def functional(function: Callable[..., Any], handler: Handler) -> Handler:
    """Read a function of torch.nn.functional: the handler gets its arguments by name."""
    signature = inspect.signature(function)

    def named(t: Translator, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        return handler(t, **given.arguments)

    return named


def numbered(name: str, make: Callable[[int], Handler]) -> dict[type, Handler]:
    """Return the handlers of a module that exists for one, two and three spatial axes."""
    return {getattr(nn, f"{name}{n}d"): make(n) for n in NUMBERS if hasattr(nn, f"{name}{n}d")}
