"""`relucate audit`: where each norm of a model sits, and what is wrong with it."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .fields import options_of
from .transforming import Model, ModelOptions, load


class AuditFormat(StrEnum):
    """What goes to standard output."""

    text = "text"
    json = "json"
    sarif = "sarif"


class FailOn(StrEnum):
    """The severity from which an audit counts as failed."""

    error = "error"
    warning = "warning"
    note = "note"
    never = "never"


@options_of({ModelOptions: ""})
def audit(
    model: Model,
    leaf: Annotated[
        list[str] | None,
        typer.Option(help="Torch: name or class of a submodule that isn't read."),
    ] = None,
    select: Annotated[
        list[str] | None,
        typer.Option(help="Rules to apply: codes, their beginnings (N1) or names, with commas."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Rules to leave out, in the same way.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Training steps, to judge whether the momentum of norms is too slow."),
    ] = None,
    fail_on: Annotated[
        FailOn, typer.Option(help="Exit with 1 if there is a finding at or above this severity.")
    ] = FailOn.error,
    every: Annotated[
        bool,
        typer.Option("--all", help="List each norm and each finding separately, in any model."),
    ] = False,
    format: Annotated[
        AuditFormat, typer.Option(help="text, json, or sarif for code hosts, on standard output.")
    ] = AuditFormat.text,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Also write a page with a map of the network (.html), or the map (.svg, .png).",
        ),
    ] = None,
    **options: Any,
) -> None:
    """Show where each norm sits relative to its activation, and what is wrong with it.

    Data flow decides about orders. Rules and their codes: docs/rules.
    """
    from ..api.audit import audit as run
    from ..report.audit_page import check_ending

    if out is not None:
        check_ending(out)
    loaded = load(model, options)
    report = run(
        loaded.model,
        example=loaded.example,
        steps=steps,
        select=_split(select),
        ignore=_split(ignore),
        leaves=leaf or [],
    )
    _show(report, format, every, loaded)
    if out is not None:
        path = report.report(out)
        if format is AuditFormat.text:
            print(f"Written: {path}")
    if fail_on is not FailOn.never and report.at_least(fail_on.value):
        raise typer.Exit(1)


def _show(report: Any, format: AuditFormat, every: bool, loaded: Any) -> None:
    if format is AuditFormat.json:
        print(json.dumps(report.to_dict(), indent=1))
    elif format is AuditFormat.sarif:
        print(json.dumps(report.to_sarif(file=loaded.file, line=loaded.line), indent=1))
    else:
        from rich.console import Console

        from ..report.audit import print_audit

        print_audit(report.to_dict(), Console(file=sys.stdout), every=every)


def _split(texts: list[str] | None) -> list[str]:
    return [part for text in texts or [] for part in text.split(",") if part.strip()]
