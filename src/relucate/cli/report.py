"""`relucate report`: show a finished comparison again, in the terminal and as HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
    from ..report.reading import read_study

    document = read_study(study)
    page = write_html(document, html or study.with_name("report.html"))
    print_study(document, Console())
    print(f"Report: {page}")
