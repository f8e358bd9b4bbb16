"""`relucate compare`: train a model in several orders, in pairs, to a verdict."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from ..files import write_text
from ..option import option as described
from ..study.interruption import interruptible
from ..study.options import MODEL, RUNNING, TRAINING, StudyOptions
from ..train.metric import metric_named
from ..train.recipe import Recipe
from .fields import given_values, options_of
from .options import (
    DataOptions,
    ReadOptions,
    TextOrJson,
    builder_options,
    load_data,
    varied_options,
)


@dataclass(frozen=True)
class _NetOptions:
    """Options of the built-in nets, which a builder may take, too."""

    act: str | None = described(None, "Activation: relu, tanh, ...")
    norm: str | None = described(None, "Norm: batch, layer, group, none.")
    width: int | None = described(None, "Filters or units of the first block.")
    depth: int | None = described(None, "Number of stages, blocks or layers.")
    dropout: float | None = described(None, "Rate of the order's drop token.")
    bias: str | None = described(
        None, "Biases: rule, always or never; of a model that is rebuilt: rule or keep."
    )


@options_of(
    {
        DataOptions: "Data",
        ReadOptions: "Data",
        StudyOptions: "",
        _NetOptions: MODEL,
        Recipe: TRAINING,
    }
)
def compare(
    model: Annotated[
        str | None,
        typer.Argument(
            show_default="cnn",
            help="A .keras file, keras.applications:NAME, a net from `relucate nets`, or a builder "
            "that may take `order`: file.py:build or package.module:build. A builder is your own "
            "code, and naming it runs it.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-O",
            help="Any other option of the builder, or of --run, NAME=VALUE.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(help="Folder for the store of runs and the report.", rich_help_panel=RUNNING),
    ] = Path("relucate-out"),
    card: Annotated[
        Path | None,
        typer.Option(
            help="Also write what was found as a card, a JSON file for `relucate evidence`.",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    format: Annotated[
        TextOrJson,
        typer.Option(help="text or json on standard output.", rich_help_panel=RUNNING),
    ] = TextOrJson.text,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", help="No progress on standard error.", rich_help_panel=RUNNING),
    ] = False,
    **options: Any,
) -> None:
    """Train a model in several orders, seed by seed in pairs, and say which is better.

    Without arguments: net cnn on digits, norm before the activation against norm after it. Any
    other task, metric or framework: your own training (--run). Finished runs are kept in the store,
    so the same command continues where it stopped.
    """
    from ..api.study import compare as run
    from ..api.study import make_recipe

    asked = given_values(StudyOptions, options)
    asked["vary"] = varied_options(asked.get("vary"))
    asked["options"] = _builder_options(given_values(_NetOptions, options), option)
    if "run" in asked:
        _refuse_trained(model, options)
        if "metric" in asked:  # without it `run` refuses
            own = metric_named(asked["metric"], asked.get("lower_is_better"))
            asked |= _in_its_unit(asked, own)
    with interruptible(last=True):
        try:
            if "run" not in asked:
                dataset = load_data(options, quiet=quiet)
                asked |= _in_its_unit(asked, _task_metric(asked, dataset))
                recipe = make_recipe(given_values(Recipe, options), dataset)
                asked |= {"model": model, "data": dataset, "recipe": recipe}
            study = run(
                store=out / "runs.sqlite",
                progress=not quiet,
                command=_command(),
                **asked,
            )
        except KeyboardInterrupt:
            print(f"relucate: interrupted; continue with: {_command()}", file=sys.stderr)
            raise
        _show(study, out, format, part=_part(asked))
        if card is not None:
            study.card(card)


_TRAINED = "task norm_eps norm_momentum imports tune rates engine device".split()  # of StudyOptions


def _refuse_trained(model: str | None, options: dict[str, Any]) -> None:
    """Raise InputError for an option that only the package's own training has."""
    kinds = (DataOptions, ReadOptions, _NetOptions, Recipe)
    given = [name for kind in kinds for name in given_values(kind, options)]
    given += [name for name in given_values(StudyOptions, options) if name in _TRAINED]
    if model is not None:
        raise InputError(
            f"MODEL ('{model}') and --run each say what to train: give one of the two."
        )
    if given:
        flag = "import" if given[0] == "imports" else given[0].replace("_", "-")
        raise InputError(
            f"--{flag} doesn't apply with --run: your own training decides it. What your function "
            "takes besides order and seed is given by --option NAME=VALUE."
        )


def _task_metric(asked: dict[str, Any], dataset: Any) -> Any:
    """Return the metric that a built-in task is scored by."""
    from ..train.tasks import task_for

    return task_for(asked.get("task"), dataset.labels, asked.get("metric")).metric


def _in_its_unit(asked: dict[str, Any], metric: Any) -> dict[str, float]:
    """Return margin and target, which are given as the metric is shown, in its own unit."""
    return {name: asked[name] / metric.scale for name in ("margin", "target") if name in asked}


def _command() -> str:
    return shlex.join(["relucate", *sys.argv[1:]])


_STORED = (
    "All runs are in the store next to it: the same command shows and writes their result again."
)


def _part(asked: dict[str, Any]) -> str:
    """Return what the names of the files have in them if other jobs run the other pairs.

    Such jobs share a folder, and the report of all pairs must stay.
    """
    return f"-seed-{asked['first_seed']}" if "first_seed" in asked else ""


def _show(study: Any, out: Path, format: TextOrJson, part: str) -> None:
    """Print the verdict, then write the files: a full disk must not hide the verdict."""
    text = json.dumps(study.to_dict(), indent=1)
    try:
        _print(study, text if format is TextOrJson.json else None)
    finally:  # also if the other end of a pipe was closed
        write_text(out / f"study{part}.json", text, _STORED)
        page = study.report(out / f"report{part}.html")
    if format is TextOrJson.text:
        print(f"Report: {page}")


def _print(study: Any, text: str | None) -> None:
    from rich.console import Console

    from ..report import print_study

    if text is None:
        print_study(study.to_dict(), Console())
    else:
        print(text)
    sys.stdout.flush()


def _builder_options(chosen: dict[str, Any], texts: list[str] | None) -> dict[str, Any]:
    further = builder_options(texts)
    for name in chosen.keys() & further:
        raise InputError(
            f"--{name} {chosen[name]} and --option {name}={further[name]} set the same option: "
            "give one of the two."
        )
    return {**chosen, **further}
