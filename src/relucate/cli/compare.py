"""`relucate compare`: train a model in several orders, in pairs, to a verdict."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError, printable
from ..files import write_text
from ..option import option as described
from ..study.interruption import interruptible
from ..study.options import MODEL, RUNNING, TRAINING, StudyOptions
from ..train.metric import metric_named
from ..train.recipe import Recipe
from .completion import completer
from .fields import given_values, options_of
from .options import (
    DataOptions,
    ReadOptions,
    TextOrJson,
    builder_options,
    load_data,
    varied_options,
)

_OWN = "the net's"


@dataclass(frozen=True)
class _NetOptions:
    """Options of the built-in nets, which a builder may take, too."""

    act: str | None = described(None, "Activation: relu, tanh, ...", shown=_OWN)
    norm: str | None = described(None, "Norm: batch, layer, group, none.", shown=_OWN)
    width: int | None = described(None, "Filters or units of the first block.", shown=_OWN)
    depth: int | None = described(None, "Number of stages, blocks or layers.", shown=_OWN)
    dropout: float | None = described(None, "Rate of the order's drop token.", shown="0")
    bias: str | None = described(
        None,
        "Biases: rule, always or never; of a model that is rebuilt: rule or keep.",
        shown="rule",
    )


@dataclass(frozen=True)
class _CommandOptions:
    """Options that only the command line has."""

    recipe: str | None = described(
        None,
        "A published experiment from `relucate recipes`: its net, data, orders and training, where "
        "you give none.",
        panel=TRAINING,
    )
    out: Path = described(Path("relucate-out"), "Folder for the store of runs and the report.")
    card: Path | None = described(
        None, "Also write what was found as a card, a JSON file for `relucate evidence`."
    )
    format: TextOrJson = described(TextOrJson.text, "text or json on standard output.")
    quiet: bool = described(False, "No progress on standard error.")


@options_of(
    {
        DataOptions: "Data",
        ReadOptions: "Data",
        StudyOptions: "",
        _NetOptions: MODEL,
        Recipe: TRAINING,
        _CommandOptions: RUNNING,
    }
)
def compare(
    model: Annotated[
        str | None,
        typer.Argument(
            show_default=False,
            autocompletion=completer("model"),
            help="A .keras file, keras.applications:NAME, a net from `relucate nets`, or a builder "
            "that may take `order`: file.py:build or package.module:build. A builder is your own "
            "code, and naming it runs it. [dim]\\[default: cnn][/dim]",
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
    **options: Any,
) -> None:
    """Train a model in several orders, seed by seed in pairs, and say which is better.

    Without arguments: net cnn on digits, norm before the activation against norm after it. Any
    other task, metric or framework: your own training (--run). Finished runs are kept in the store,
    so the same command continues where it stopped.
    """
    asked = given_values(StudyOptions, options)
    own = _CommandOptions(**given_values(_CommandOptions, options))
    _check_enough(asked)
    _check_places(own.out, own.card)
    if not own.quiet:  # before the imports, which may take seconds
        _say("starting" if "run" in asked else f"reading the data {options['data'] or ''}".rstrip())
    asked["vary"] = varied_options(asked.get("vary"))
    asked["options"] = _builder_options(given_values(_NetOptions, options), option)
    if "run" in asked:
        _refuse_trained(model, options)
        if "metric" in asked:  # without it `run` refuses
            metric = metric_named(asked["metric"], asked.get("lower_is_better"))
            asked |= _in_its_unit(asked, metric)
    with interruptible(last=True), _early(model, asked):
        try:
            from ..api.study import compare as run

            if "run" not in asked:
                dataset = load_data(_with_data_of(own.recipe, options), quiet=own.quiet)
                asked |= _in_its_unit(asked, _task_metric(asked, dataset))
                asked |= {"model": model, "data": dataset, "recipe": _recipe(own, options)}
            if not own.quiet:
                _say_what_is_replaced(own.out, part=_part(asked))
            study = run(
                store=own.out / "runs.sqlite",
                progress=not own.quiet,
                command=_command(),
                **asked,
            )
        except KeyboardInterrupt:
            print(f"relucate: interrupted; continue with: {_command()}", file=sys.stderr)
            raise
        _show(study, own.out, own.format, part=_part(asked))
        if own.card is not None:
            study.card(own.card)


def _early(model: str | None, asked: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """Start the workers before all else; not for a training of one's own."""
    from ..study import early  # not for --help

    return nullcontext() if "run" in asked else early.workers(model, asked)


def _check_enough(asked: Mapping[str, Any]) -> None:
    """Refuse a whole study that can't have a verdict."""
    if asked.get("pairs") in (1, 2) and "first_seed" not in asked:
        raise InputError(
            f"--pairs must be at least 3, got {asked['pairs']}: fewer give no verdict. For a part "
            "of a study, whose stores `relucate merge` joins, give --first-seed too."
        )


def _check_places(out: Path, card: Path | None) -> None:
    """Refuse places that can't be written to before any work is done."""
    _check_folder(out, "--out")
    if card is not None:
        _check_folder(card.parent, "--card")
    if card is not None and card.is_dir():
        raise InputError(f"--card must name a file, got the folder '{card}'.")


def _check_folder(folder: Path, option: str) -> None:
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise InputError(f"{option} needs a folder, and '{there}' is a file: name another place.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{option}: no permission to write in '{there}': name another place.")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _say_what_is_replaced(out: Path, part: str) -> None:
    """Say whose report will be replaced, unless it is of the same study with fewer pairs."""
    from ..study.next_steps import continued

    earlier = _command_of(out / f"study{part}.json")
    if earlier and continued(earlier, 0) != continued(_command(), 0):
        _say(f"the report in {out} will be replaced (its runs stay), it is of: {earlier}")


def _command_of(study: Path) -> str | None:
    """Return the command that made a study.json, None if there is none that can be read."""
    try:
        found = json.loads(study.read_text("utf-8"))
        return printable(found["command"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _with_data_of(recipe: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options, with the data of a named recipe if none are given."""
    from ..nets import recipe_named

    if recipe is None or options["data"] is not None:
        return options
    named = recipe_named(recipe)
    return {
        **options,
        "data": named.source_of_data(),
        "size": options["size"] or named.size or None,
    }


def _recipe(own: _CommandOptions, options: dict[str, Any]) -> dict[str, Any]:
    named = {} if own.recipe is None else {"name": own.recipe}
    return {**named, **given_values(Recipe, options)}


_TRAINED = (  # of StudyOptions
    "task norm_eps norm_momentum imports tune rates engine device probe".split()
)


def _refuse_trained(model: str | None, options: dict[str, Any]) -> None:
    """Raise InputError for an option that only the package's own training has."""
    kinds = (DataOptions, ReadOptions, _NetOptions, Recipe)
    given = [name for kind in kinds for name in given_values(kind, options)]
    given += ["recipe"] if options["recipe"] is not None else []
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
