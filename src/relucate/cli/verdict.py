"""`relucate verdict`: a verdict on scores that exist already."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from ..files import write_text
from ..study.options import VerdictOptions
from .fields import given_values, options_of
from .options import TextOrJson

OUTPUT = "Output"


@options_of({VerdictOptions: ""})
def verdict(
    scores: Annotated[
        Path,
        typer.Argument(
            help="A CSV or JSON lines file: a row per run with columns for arm, seed and score, or "
            "a row per seed with a column for each arm."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the report (.html) or the document (.json, for `relucate report`).",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    format: Annotated[
        TextOrJson,
        typer.Option(help="text or json on standard output.", rich_help_panel=OUTPUT),
    ] = TextOrJson.text,
    **options: Any,
) -> None:
    """Say which arm is better from scores that exist already, whatever was trained and however."""
    from ..api.verdict import verdict as decide

    given = given_values(VerdictOptions, options)
    asked = {name: value for name, value in given.items() if value != []}
    if out is not None and out.suffix not in {".html", ".json"}:
        raise InputError(f"--out must end in .html or .json, got '{out}'.")
    study = decide(scores, command=shlex.join(["relucate", *sys.argv[1:]]), **asked)
    _show(study, out, format)


def _show(study: Any, out: Path | None, format: TextOrJson) -> None:
    from rich.console import Console

    from ..report import print_study

    text = json.dumps(study.to_dict(), indent=1)
    if format is TextOrJson.json:
        print(text)
    else:
        print_study(study.to_dict(), Console())
    if out is None:
        return
    if out.suffix == ".html":
        study.report(out)
    else:
        write_text(out, text)
    if format is TextOrJson.text:
        print(f"Report: {out}")
