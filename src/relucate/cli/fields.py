"""Options of the command line from the fields of a dataclass, and given options back to values.

A field's metadata describes its option: help; panel; flag (its names, if not the field's);
shown (the default in words); scale (it is given as scale times the value). An option that isn't
given is None here, so that only the field has the default.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from enum import Enum
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from ..errors import InputError
from .completion import completer


def options_of(
    panels: Mapping[type, str], *, after: int = 1
) -> Callable[[Callable[..., None]], Any]:
    """Return a decorator that replaces a verb's **options by the options of dataclasses.

    Args:
        panels: dataclasses, each with the default title above its options.
        after: number of the verb's own parameters that the help shows first.
    """
    made = [
        _parameter(field, kind, panel) for kind, panel in panels.items() for field in fields(kind)
    ]

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        @wraps(verb)
        def run(**given: Any) -> None:
            verb(**given)

        own = [p for p in signature(verb, eval_str=True).parameters.values() if p.name != "options"]
        own = [own[0], *(p.replace(kind=p.KEYWORD_ONLY) for p in own[1:])]
        every = [*own[:after], *made, *own[after:]]
        run.__annotations__ = {p.name: p.annotation for p in every}
        run.__signature__ = Signature(every)  # type: ignore[attr-defined]
        del run.__wrapped__  # type: ignore[attr-defined]  # typer would read its annotations
        return run

    return decorate


def _parameter(field: Field[Any], kind: type, panel: str) -> Parameter:
    metadata = field.metadata
    names = metadata.get("flag", "").split()
    wanted = _given_type(get_type_hints(kind)[field.name])
    if wanted is bool:
        names = names or [f"--{field.name.replace('_', '-')}"]
    option = typer.Option(
        *names,
        help=f"{metadata['help']}{_shown(field)}",
        rich_help_panel=metadata.get("panel", panel) or None,
        show_default=False,  # typer would put parentheses around it
        autocompletion=completer(field.name, metadata.get("choices")),
    )
    switch = wanted is bool and field.default is not None
    annotation = Annotated[wanted if switch else wanted | None, option]
    default = False if switch else None
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _given_type(hint: Any) -> Any:
    """Return an option's type: a tuple is given as one text with commas."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    return str if get_origin(hint) is tuple else hint


def _shown(field: Field[Any]) -> str:
    """Return the default as the help shows it, in rich's markup."""
    default: Any = field.default
    if "shown" in field.metadata:
        default = field.metadata["shown"]
    elif default in (None, "") or isinstance(default, bool):
        return ""
    elif "scale" in field.metadata:
        default = f"{field.metadata['scale'] * default:g}"
    elif isinstance(default, tuple):
        default = ",".join(default)
    elif isinstance(default, Enum):
        default = default.value
    return f" [dim]\\[default: {default}][/dim]"


def given_values(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given options of a dataclass as values of its fields.

    Raises: InputError: a list of numbers that holds something else.
    """
    hints = get_type_hints(kind)
    chosen = {}
    for field in fields(kind):
        value = given[field.name]
        if isinstance(field.default, bool):
            if value:
                chosen[field.name] = not field.default
        elif value is not None:
            chosen[field.name] = _value(field, hints[field.name], value)
    return chosen


def _value(field: Field[Any], hint: Any, value: Any) -> Any:
    if "scale" in field.metadata:
        return value / field.metadata["scale"]
    parts = next((kind for kind in (hint, *get_args(hint)) if get_origin(kind) is tuple), None)
    if parts is None:
        return value
    texts = tuple(part.strip() for part in value.split(","))
    if get_args(parts)[0] is not float:
        return texts
    try:
        return [float(text) for text in texts]
    except ValueError:
        name = field.name.replace("_", "-")
        raise InputError(
            f"--{name} must be numbers with commas, such as 0.01,0.1, got '{value}'."
        ) from None
