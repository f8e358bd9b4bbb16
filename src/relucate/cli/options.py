"""Options that several verbs read in the same way."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..errors import InputError


def builder_options(texts: Iterable[str] | None) -> dict[str, Any]:
    """Return NAME=VALUE texts as a dict; a value is JSON where it reads as such, else text."""
    chosen = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InputError(f"--option is NAME=VALUE, got '{text}'.")
        chosen[name.strip()] = _value(value.strip())
    return chosen


def varied_options(texts: Iterable[str] | None) -> dict[str, list[Any]]:
    """Return NAME=A,B,... texts as lists of values, each read as `builder_options` reads one."""
    varied: dict[str, list[Any]] = {}
    for text in texts or ():
        name, equals, values = (part.strip() for part in text.partition("="))
        found = [value.strip() for value in values.split(",")]
        if not equals or not name or not all(found):
            raise InputError(f"--vary is NAME=VALUE,VALUE and so on, got '{text}'.")
        if name in varied:
            raise InputError(f"--vary {name} is given twice: put all its values into one.")
        varied[name] = [_value(value) for value in found]
    return varied


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def input_shapes(texts: Iterable[str] | None) -> list[tuple[int, ...]]:
    """Return the shapes, without the batch axis, that --input-shape gives."""
    return [_shape(text) for text in texts or ()]


def _shape(text: str) -> tuple[int, ...]:
    parts = text.lower().replace(",", "x").split("x")
    try:
        sizes = tuple(int(part) for part in parts)
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise InputError(
            f"--input-shape is sizes without the batch axis, such as 3x224x224, got '{text}'."
        )
    return sizes
