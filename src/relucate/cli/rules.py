"""`relucate rules`: the rules of `relucate audit`, and the page of each."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ..errors import unknown
from .completion import completer
from .options import Format, TextOrJson


def rules(
    rule: Annotated[
        str | None,
        typer.Argument(
            help="A code (N101) or a name (redundant-bias); all by default.",
            autocompletion=completer("rule"),
        ),
    ] = None,
    format: Format = TextOrJson.text,
) -> None:
    """List the rules of `relucate audit`, or explain one: why, an example, the fix, exceptions."""
    from ..surgery.rules import RULES

    chosen = [RULES[code] for code in sorted(RULES)]
    if rule is not None:
        chosen = [r for r in chosen if rule.lower() in (r.code.lower(), r.name)]
        if not chosen:
            raise unknown("rule", rule, [*sorted(RULES), *(r.name for r in RULES.values())])
    if format is TextOrJson.json:
        rows = [_row(r) for r in chosen]
        print(json.dumps({"schema": "relucate.rules/1", "rules": rows}, indent=1))
    elif rule is not None:
        from rich.console import Console
        from rich.markdown import Markdown

        from ..surgery.rules.pages import page

        Console().print(Markdown(page(chosen[0])))
    else:
        for r in chosen:
            print(f"{r.code}  {r.name:<28}{r.severity:<9}{r.summary}")


def _row(rule: Any) -> dict[str, str]:
    from ..surgery.rules.pages import page

    names = ("code", "name", "severity", "summary")
    return {**{name: getattr(rule, name) for name in names}, "page": page(rule)}
