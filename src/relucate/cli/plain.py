"""Help in plain words: `number` and `text` instead of the names of Python's types.

Called by `app` for every verb. Not here: the options themselves.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from enum import Enum
from inspect import signature
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from typer.core import TyperArgument, TyperCommand, TyperGroup
from typer.models import ArgumentInfo, OptionInfo

_NAMES = {bool: "", int: "number", float: "number", str: "text", Path: "path"}


def name_types(verb: Callable[..., Any]) -> None:
    """Name the types of a verb's options in plain words, in place.

    >>> from typing import Annotated
    >>> import typer
    >>> def verb(size: Annotated[list[int] | None, typer.Option()] = None) -> None: ...
    >>> name_types(verb)
    >>> next(iter(signature(verb).parameters.values())).annotation.__metadata__[0].metavar
    'number ...'
    """
    parameters = signature(verb, eval_str=True).parameters.values()
    verb.__annotations__ = {p.name: p.annotation for p in parameters}  # not read from text again
    for parameter in parameters:
        kind, *more = get_args(parameter.annotation) or [parameter.annotation]
        for info in (*more, parameter.default):
            if isinstance(info, OptionInfo) and info.metavar is None:
                info.metavar = _named(kind)
            elif isinstance(info, ArgumentInfo) and info.metavar is None:
                info.metavar = parameter.name.upper()


def _named(kind: Any) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is list:
        return f"{_named(get_args(kind)[0])} ..."
    if issubclass(kind, Enum):
        return "|".join(choice.value for choice in kind)
    return _NAMES[kind]


def _expected(found: dict[str, Any]) -> str:
    """Return what was expected and what came, from an error of pydantic, which typer parses with.

    >>> _expected({"type": "int_parsing", "msg": "Input should be ...", "input": "x"})
    "expected a whole number, got 'x'."
    """
    for kind, name in (("int", "a whole number"), ("float", "a number")):
        if found["type"].startswith(kind):
            return f"expected {name}, got {found['input']!r}."
    return found["msg"].removeprefix("Value error, ")


def _no_type(ctx: Any) -> None:
    """Return nothing: typer shows the type of an argument besides its name."""


class _PlainHelp:
    """Help in paragraphs of the terminal's width, without types of --help and the arguments.

    The arguments' descriptions say what they are. A wrong value is named in its error.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of a command."""
        try:
            return super().parse_args(ctx, args)  # type: ignore[misc]
        except Exception as error:
            found = getattr(error.__cause__, "errors", list)()
            if found and hasattr(error, "message"):
                error.message = _expected(found[0])  # type: ignore[attr-defined]
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        for parameter in self.params:  # type: ignore[attr-defined]
            if isinstance(parameter, TyperArgument):
                parameter.display_type_rich = _no_type  # type: ignore[method-assign]
            elif parameter.is_flag:  # those that typer adds, for completion
                parameter.metavar = ""
        text = inspect.cleandoc(self.help or "")  # type: ignore[has-type]
        self.help = "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
        super().format_help(ctx, formatter)  # type: ignore[misc]

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option that shows the help."""
        found = super().get_help_option(ctx)  # type: ignore[misc]
        if found is not None:
            found.metavar = ""
        return found


class PlainCommand(_PlainHelp, TyperCommand):
    """A verb."""


class PlainGroup(_PlainHelp, TyperGroup):
    """All verbs."""
