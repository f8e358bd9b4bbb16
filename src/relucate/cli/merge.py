"""`relucate merge`: the stores of several jobs or machines into one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import printable
from ..phrases import count
from .options import TextOrJson


def merge(
    stores: Annotated[
        list[Path],
        typer.Argument(help="Stores of finished runs (runs.sqlite), or the folders that hold one."),
    ],
    out: Annotated[
        Path, typer.Option(help="Store, or folder for one, that gets all runs of the others.")
    ],
    format: Annotated[
        TextOrJson, typer.Option(help="text or json on standard output.")
    ] = TextOrJson.text,
) -> None:
    """Join the stores of several jobs, such as those of a SLURM array, into one.

    The command that the jobs ran, with --out FOLDER of the new store, then shows the whole study.
    If one run has different results in two stores, the first is kept, and a note names it.
    """
    from ..study.merging import merge as join

    merged = join(stores, out)
    for text in merged.differing:
        print(f"note: {printable(text)}.", file=sys.stderr)
    if format is TextOrJson.json:
        found = {key: getattr(merged, key) for key in ("runs", "added", "repeated", "differing")}
        print(json.dumps({"schema": "relucate.merge/1", "store": str(merged.path), **found}))
        return
    again = f", {merged.repeated} in more than one" if merged.repeated else ""
    print(f"{merged.path}: {count(merged.runs, 'run')} ({merged.added} new{again})")
