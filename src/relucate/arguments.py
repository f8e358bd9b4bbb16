"""Checks of what a caller passes: a number, a name, several names.

Every function that people call uses them, so that a wrong type is an InputError with the argument's
name and value, not a traceback from inside. Not here: checks that need more than the value.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from .errors import InputError, unknown


def whole(value: Any, name: str, least: int, most: int = 2**63 - 1) -> int:
    """Return a whole number of at least `least`; True and False don't count.

    >>> whole(3, "pairs", 1)
    3
    """
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r:.80}.")
    if number > most:
        raise InputError(f"{name} must be at most {most:,}, got {f'{number:,}':.80}.")
    return number


def is_finite(value: Any) -> bool:
    """Return whether a value is a number that a float can hold; True and False aren't.

    >>> is_finite(0.5), is_finite(True), is_finite("0.5"), is_finite(10**400)
    (True, False, False, False)
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    return bool(number and abs(value) <= sys.float_info.max)  # type: ignore[operator]


def positive(value: Any, name: str, what: str = "a finite number") -> float:
    """Return a finite number above 0; what: names the kind of number in the error."""
    if is_finite(value) and value > 0:
        return float(value)
    raise InputError(f"{name} must be {what} above 0, got {value!r:.80}.")


def one_of(value: Any, what: str, choices: Iterable[str]) -> str:
    """Return a text that is among the choices; what: names the kind of choice in the error."""
    names = tuple(choices)
    if isinstance(value, str) and value in names:
        return value
    raise unknown(what, f"{value!s:.80}", names)


def texts(value: Any, name: str) -> tuple[str, ...]:
    """Return several texts; a single text counts as one, not as its letters.

    >>> texts("LSTM", "leaves"), texts(["LSTM", "GRU"], "leaves")
    (('LSTM',), ('LSTM', 'GRU'))
    """
    if isinstance(value, str):
        return (value,)
    found = tuple(value) if isinstance(value, Iterable) else (value,)
    if isinstance(value, Mapping) or not all(isinstance(text, str) for text in found):
        raise InputError(f"{name} must be a list of texts, got {value!r:.80}.")
    return found


def mapping(value: Any, name: str) -> dict[str, Any]:
    """Return names with values as a dict; None is empty."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{name} must be a dict of names and values, got {value!r:.80}.")
    return dict(value)


def on_host(values: Any) -> Any:
    """Return values as NumPy can read them: a copy of a tensor that is on a GPU or has a gradient.

    >>> on_host([1, 2])
    [1, 2]
    """
    if hasattr(values, "detach") and hasattr(values, "cpu"):
        return values.detach().cpu()
    return values
