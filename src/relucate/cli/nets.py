"""`relucate nets`: the built-in networks and their options."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .options import TextOrJson


def nets(
    format: Annotated[
        TextOrJson, typer.Option(help="text or json on standard output.")
    ] = TextOrJson.text,
) -> None:
    """List the built-in networks with their options and defaults."""
    from ..nets import NETS, options, summary

    if format is TextOrJson.json:
        rows = [{"name": n, "summary": summary(n), "options": options(n)} for n in NETS]
        print(json.dumps({"schema": "relucate.nets/1", "nets": rows}, indent=1))
        return
    for name in NETS:
        print(f"{name:<14}{summary(name)}")
        print(f"{'':<14}" + " ".join(f"{k}={v}" for k, v in options(name).items()))
