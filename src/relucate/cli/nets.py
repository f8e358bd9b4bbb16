"""`relucate nets` and `relucate recipes`: the built-in networks, and published experiments."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from .completion import completer
from .options import Format, TextOrJson


def nets(format: Format = TextOrJson.text) -> None:
    """List the built-in networks with their options and defaults."""
    from ..nets import NETS, options, summary

    if format is TextOrJson.json:
        rows = [{"name": n, "summary": summary(n), "options": options(n)} for n in NETS]
        print(json.dumps({"schema": "relucate.nets/1", "nets": rows}, indent=1))
        return
    for name in NETS:
        print(f"{name:<14}{summary(name)}")
        print(f"{'':<14}" + " ".join(f"{k}={v}" for k, v in options(name).items()))


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Show everything of this one.",
            show_default=False,
            autocompletion=completer("recipe"),
        ),
    ] = None,
    format: Format = TextOrJson.text,
) -> None:
    """List published experiments as recipes, for `relucate compare --recipe NAME`.

    NAME:small is a version that runs in seconds or minutes. It shows that the recipe works; its
    verdict is about a tiny net, not about the published result.
    """
    from ..nets import recipe_named, recipe_names

    found = [recipe_named(one) for one in ([name] if name else recipe_names())]
    if format is TextOrJson.json:
        rows = [one.to_dict() for one in found]
        print(json.dumps({"schema": "relucate.recipes/1", "recipes": rows}, indent=1))
        return
    for one in found:
        print(f"{one.name:<16}{one.title}" if name is None else _whole(one.to_dict()))


def _whole(recipe: dict[str, Any]) -> str:
    shown = {key: value for key, value in recipe.items() if value}
    return "\n".join(f"{key:<10}{_text(value)}" for key, value in shown.items())


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_text(inner)}" for name, inner in value.items())
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
