"""Compute what depends on weights alone, and the shapes of what isn't understood.

Weights of a model stay as they are: a function that changes its argument gets a copy. Called by
`translator`.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from .detached import meta_copy
from .nested import map_nested
from .program import Data, Parts, Stopped


class NotConstant(Exception):
    """The function can't be called on the constants."""


def compute(target: Any, args: Any, kwargs: Any, in_place: bool) -> Any:
    """Return target(*args, **kwargs), whose arguments are numbers and weights.

    Raises: NotConstant: the call fails.
    """
    if in_place:
        args = (args[0].clone() if isinstance(args[0], Tensor) else args[0], *args[1:])
    try:
        with torch.no_grad():
            return _call(target, args, kwargs)
    except Exception as error:
        raise NotConstant(str(error)) from error


def _call(target: Any, args: Any, kwargs: Any) -> Any:
    if isinstance(target, str):
        return getattr(args[0], target)(*args[1:], **kwargs)
    return target(*args, **kwargs)


def run_without_values(target: Any, args: Any, kwargs: Any) -> Any:
    """Return what a function or module gives, as tensors that have shapes, but no values.

    Raises: Stopped: it needs the values, or its shapes don't fit.
    """
    try:
        with torch.no_grad():
            if isinstance(target, torch.jit.ScriptModule):  # its code knows no meta device
                return _without_values(_called_on_zeros(target, args, kwargs))
            args, kwargs = _without_values(args), _without_values(kwargs)
            if isinstance(target, nn.Module):
                return meta_copy(target)(*args, **kwargs)
            return _call(target, args, kwargs)
    except Exception as error:
        raise Stopped(f"{type(error).__name__}: {error}") from error


def _called_on_zeros(module: Any, args: Any, kwargs: Any) -> Any:
    twin = copy.deepcopy(module).eval()
    device = next((p.device for p in twin.parameters()), torch.device("cpu"))

    def zeros(x: Any) -> Any:
        return torch.zeros_like(x, device=device) if isinstance(x, Tensor) else x

    args, kwargs = (map_nested(zeros, _without_values(given)) for given in (args, kwargs))
    return twin(*args, **kwargs)


def _without_values(value: Any) -> Any:
    if isinstance(value, Data):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    if isinstance(value, Tensor):
        return torch.empty_like(value, device="meta")
    if isinstance(value, Parts):
        return tuple(_without_values(value.get(index)) for index in range(len(value)))
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return type(value)(_without_values(item) for item in value)
    if isinstance(value, dict):
        return {key: _without_values(item) for key, item in value.items()}
    return value
