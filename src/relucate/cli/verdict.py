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
from .options import TextOrJson

TABLE, DECISION, OUTPUT = "Table", "Decision", "Output"


def verdict(
    scores: Annotated[
        Path,
        typer.Argument(
            help="A CSV or JSON lines file: a row per run with columns for arm, seed and score, or "
            "a row per seed with a column for each arm."
        ),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(help="What the scores are: mae, auc, ... Several: repeat it."),
    ] = None,
    margin: Annotated[
        list[float] | None,
        typer.Option(
            help="Smallest difference that matters, in the metric's own unit; one for each "
            "metric. [dim]\\[default: the metric's, if it has one][/dim]"
        ),
    ] = None,
    lower_is_better: Annotated[
        bool | None,
        typer.Option(
            "--lower-is-better/--higher-is-better",
            help="Needed only for a metric whose name doesn't say it.",
        ),
    ] = None,
    unit: Annotated[
        list[str] | None, typer.Option(help="Unit of the scores, such as mm or %; one for each.")
    ] = None,
    scale: Annotated[
        list[float] | None, typer.Option(help="Shown value = scale · value; one for each.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="The arm that the others are compared against (default: the first)."),
    ] = None,
    arms: Annotated[
        str | None, typer.Option(help="The arms to compare, with commas (default: all).")
    ] = None,
    worst: Annotated[
        list[float] | None,
        typer.Option(
            help="What a run without a score counts (missing, NaN, infinite, or 'diverged'); one "
            "for each metric.",
            rich_help_panel=DECISION,
        ),
    ] = None,
    paired: Annotated[
        bool,
        typer.Option(
            "--paired/--unpaired",
            help="Compare seed by seed, or all runs of each arm by Welch's interval.",
            rich_help_panel=DECISION,
        ),
    ] = True,
    looks: Annotated[
        bool,
        typer.Option(
            "--looks",
            help="You looked at the result after every pair and could have stopped.",
            rich_help_panel=DECISION,
        ),
    ] = False,
    level: Annotated[
        float, typer.Option(help="Coverage of the intervals together.", rich_help_panel=DECISION)
    ] = 0.95,
    arm: Annotated[str, typer.Option(help="Column of the arms.", rich_help_panel=TABLE)] = "arm",
    seed: Annotated[str, typer.Option(help="Column of the seeds.", rich_help_panel=TABLE)] = "seed",
    score: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of the scores, one for each metric (default: score, or the metric's "
            "name).",
            rich_help_panel=TABLE,
        ),
    ] = None,
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
) -> None:
    """Say which arm is better from scores that exist already, whatever was trained and however."""
    from ..api.verdict import verdict as decide

    if not metric:
        raise InputError("name what the scores are: --metric mae, --metric auc, ...")
    if out is not None and out.suffix not in {".html", ".json"}:
        raise InputError(f"--out must end in .html or .json, got '{out}'.")
    study = decide(
        scores,
        metric=metric,
        margin=margin or None,
        lower_is_better=lower_is_better,
        unit=unit or None,
        scale=scale or None,
        worst=worst or None,
        against=against,
        arms=None if arms is None else [name.strip() for name in arms.split(",")],
        paired=paired,
        looks=looks,
        level=level,
        arm=arm,
        seed=seed,
        score=score,
        command=shlex.join(["relucate", *sys.argv[1:]]),
    )
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
