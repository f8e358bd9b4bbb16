"""Look through nested arguments and outputs: lists, dicts and `Parts` of Data and tensors.

Called by `translator`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .program import Data, Parts, Stopped


def plain(value: Any) -> Any:
    """Return a model's outputs with dicts in place of dataclasses and of dicts of its own.

    A library's container, such as a cache of keys and values, becomes a list of its tensors.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, Mapping)):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return [plain(item) for item in value]
    return list(_held(value, set())) if _is_container(value) else value


def _is_container(value: Any) -> bool:
    known = isinstance(value, (Tensor, torch.nn.Module, type)) or callable(value)
    home = type(value).__module__.partition(".")[0]
    return hasattr(value, "__dict__") and not known and home not in ("torch", "enum")


def _held(value: Any, seen: set[int]) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif id(value) not in seen:
        seen.add(id(value))
        if isinstance(value, Mapping):
            inner = list(value.values())
        elif isinstance(value, (list, tuple)):
            inner = list(value)
        else:
            inner = list(vars(value).values()) if _is_container(value) else []
        for item in inner:
            yield from _held(item, seen)


def flat(value: Any, dicts: bool = True) -> Iterator[Any]:
    """Yield the items of nested values; all parts of several outputs count as read."""
    if isinstance(value, Parts):
        value = [value.get(index) for index in range(len(value))]
    elif isinstance(value, dict) and dicts:
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from flat(item, dicts)
    else:
        yield value


def data_in(value: Any) -> Iterator[Data]:
    """Yield the Data in nested arguments."""
    return (item for item in flat(value) if isinstance(item, Data))


def leaves(value: Any) -> Iterator[Any]:
    """Yield the items of nested outputs that aren't None, a number or a text."""
    return (x for x in flat(value) if x is not None and not isinstance(x, (int, float, str)))


def has_data(value: Any) -> bool:
    """Say whether something in nested arguments depends on the model's input."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return any(has_data(item) for item in value)
    return isinstance(value, (Data, Parts))


def part(parts: Parts, index: Any) -> Any:
    if isinstance(index, slice):
        return [parts.get(i) for i in range(len(parts))[index]]
    return parts.get(index)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the constant tensors in nested arguments."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def map_nested(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return [map_nested(function, item) for item in value]
    if isinstance(value, dict):
        return {key: map_nested(function, item) for key, item in value.items()}
    return function(value)


def as_parts(made: Any) -> Any:
    if callable(made):
        return made()
    if isinstance(made, list):
        return Parts([partial(as_parts, item) for item in made])
    return made


def take(remaining: list[Any], shape: tuple[int, ...]) -> Any:
    for index, value in enumerate(remaining):
        if isinstance(value, (Data, Tensor)) and tuple(value.shape) == shape:
            return remaining.pop(index)
    raise Stopped("a module's outputs can't be told apart")
