"""The errors that relucate raises on purpose: one base class, two kinds.

The command line turns them into one message and an exit code, without a traceback; Python callers
catch `RelucateError`. Every message says what was expected, what came, and what to do.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence


class RelucateError(Exception):
    """Base class of the errors that relucate raises on purpose."""

    exit_code = 2


class InputError(RelucateError, ValueError):
    """An input is wrong: a name, an option, a file, an array (exit code 2)."""


class Refused(RelucateError):
    """The request is understood but can't be done faithfully, so it isn't done (exit code 3)."""

    exit_code = 3


def printable(text: str) -> str:
    """Return a text that can't steer a terminal: "?" for each control or formatting character.

    Names of layers, classes and files may come from other people's files. Escape sequences (C0 and
    C1) and bidirectional overrides could colour, hide or reorder the text around them. Line breaks
    and tabs stay.

    >>> printable("a\\x1b[31mb")
    'a?[31mb'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def briefly(error: BaseException) -> str:
    """Return an error's kind and what it says first, in at most 300 characters.

    Frameworks repeat the arguments of a call in their messages, whole arrays among them.
    """
    said = re.split(r"\n\s*Arguments received by", str(error))[0].split()
    text = " ".join(said) or "no message"
    return f"{type(error).__name__}: {text if len(text) <= 300 else text[:300] + ' ...'}"


def unknown(what: str, got: object, choices: Iterable[object]) -> InputError:
    """Return the error for a name that isn't among `choices`; it suggests a similar one.

    >>> print(unknown("norm", "bacth", ["batch", "layer"]))
    unknown norm 'bacth': did you mean 'batch'? Choose from: batch, layer.
    """
    names = [str(choice) for choice in choices]
    near = _nearest(str(got), names)
    hint = f": did you mean '{near}'?" if near else "."
    return InputError(f"unknown {what} '{got}'{hint} Choose from: {', '.join(names)}.")


def _nearest(got: str, names: Sequence[str]) -> str | None:
    """Return the name most similar to `got`, ignoring case; a name that starts with it wins."""
    lowered = {name.lower(): name for name in names}
    longer = [name for name in lowered if len(got) > 2 and name.startswith(got.lower())]
    cutoff = 0.0 if longer else 0.6
    near = difflib.get_close_matches(got.lower(), longer or lowered, n=1, cutoff=cutoff)
    return lowered[near[0]] if near else None
