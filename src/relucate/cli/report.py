"""`relucate report`: show a finished comparison again, in the terminal and as HTML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError


def report(
    study: Annotated[
        Path, typer.Argument(help="The study.json that `relucate compare` wrote.")
    ] = Path("relucate-out/study.json"),
    html: Annotated[
        Path | None, typer.Option(help="Where the HTML report goes (default: next to the study).")
    ] = None,
) -> None:
    """Show a finished comparison and write its HTML report."""
    from rich.console import Console

    from ..report import print_study, write_html

    document = read_study(study)
    page = write_html(document, html or study.with_name("report.html"))
    print_study(document, Console())
    print(f"Report: {page}")


def read_study(path: Path) -> dict[str, Any]:
    """Return the study in a file, in today's schema.

    Raises: InputError: no such file, not JSON, or not a whole study.
    """
    from ..report.facts import current

    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"can't read '{path}' ({error.strerror}): expected the study.json that "
            "`relucate compare` writes into its --out folder."
        ) from None
    except (ValueError, RecursionError):
        raise InputError(f"'{path}' isn't JSON: expected a study.json.") from None
    if not isinstance(document, dict):
        raise InputError(f"'{path}' isn't a comparison of relucate: expected a study.json.")
    try:
        return current(document)
    except InputError as error:
        raise InputError(f"'{path}' isn't a comparison of relucate: {error}") from None
