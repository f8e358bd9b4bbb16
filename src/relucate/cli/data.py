"""`relucate data`: the contents of a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .completion import completer
from .fields import options_of
from .options import SOURCES, Format, ReadOptions, TextOrJson, read_data


@options_of({ReadOptions: ""})
def data(
    source: Annotated[
        str,
        typer.Argument(
            help=SOURCES,
            autocompletion=completer("data"),
        ),
    ] = "digits",
    cache: Annotated[Path | None, typer.Option(help="Where decoded folders are kept.")] = None,
    format: Format = TextOrJson.text,
    **options: Any,
) -> None:
    """Show a data set's classes, sizes and content fingerprint."""
    found = read_data(source, options, cache=cache)
    if format is TextOrJson.json:
        print(json.dumps({"schema": "relucate.data/1", **found.to_dict()}, indent=1))
    else:
        print(found)
