"""`relucate evidence`: what is known about norm before or after the activation."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .completion import completer
from .fields import options_of
from .options import Format, TextOrJson
from .transforming import ModelOptions, load


def _option(name: str, text: str) -> Any:
    return typer.Option(help=text, autocompletion=completer(f"known {name}"))


@options_of({ModelOptions: ""})
def evidence(
    act: Annotated[str | None, _option("act", "Activation, such as relu or tanh.")] = None,
    net: Annotated[str | None, _option("net", "Part of a network's name, such as vgg.")] = None,
    data: Annotated[str | None, _option("data", "Part of a data set's name.")] = None,
    task: Annotated[str | None, _option("task", "Task, such as classification.")] = None,
    norm: Annotated[str | None, _option("norm", "Kind of norm, such as batch.")] = None,
    depth: Annotated[
        int | None,
        typer.Option(help="Linear layers on the longest path: half to twice as many fit."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Take activation, kind of norm and depth from this model (as audit)."),
    ] = None,
    cards: Annotated[
        Path | None,
        typer.Option(help="Your own cards (compare --card): a file, or a folder of them."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Also list the sources, and how they were checked.")
    ] = False,
    format: Format = TextOrJson.text,
    **options: Any,
) -> None:
    """Show published results and our own: which order was ahead, for which network, by how much."""
    from ..api.evidence import evidence as run

    given: dict[str, Any] = {
        "cards": cards,
        "act": act,
        "net": net,
        "data": data,
        "task": task,
        "norm": norm,
        "depth": depth,
    }
    if model is not None:
        loaded = load(model, options)
        given |= {"model": loaded.model, "example": loaded.example}
    found = run(**given)
    if format is TextOrJson.json:
        print(json.dumps(found.to_dict(), indent=1))
        return
    from rich.console import Console

    from ..report.evidence import print_evidence

    print_evidence(found.to_dict(), Console(file=sys.stdout), every=every)
