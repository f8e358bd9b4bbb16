"""`relucate compare`: train a model in several orders, in pairs, to a verdict."""

from __future__ import annotations

import json
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from .options import builder_options, varied_options

_TRAINING = "How each run trains"
_MODEL = "Options of the net (see: relucate nets) or of your builder"
_DATA = "Data"
_STUDY = "The comparison"
_RUNNING = "Running"


class Format(StrEnum):
    """What goes to standard output."""

    text = "text"
    json = "json"


def _option(panel: str, text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


def compare(
    model: Annotated[
        str,
        typer.Argument(
            help="A net from `relucate nets`, or a builder that takes `order`: file.py:build or "
            "package.module:build. A builder is your own code, and naming it runs it."
        ),
    ] = "cnn",
    data: Annotated[
        str,
        _option(
            _DATA,
            "digits, folder:PATH, npz:PATH, or cifar10, cifar100, mnist, fashion_mnist.",
            "--data",
        ),
    ] = "digits",
    size: Annotated[
        str | None, _option(_DATA, "Resize a folder's images: SIDE or HEIGHTxWIDTH.")
    ] = None,
    grayscale: Annotated[bool, _option(_DATA, "One channel for a folder's images.")] = False,
    skip_bad: Annotated[
        bool, _option(_DATA, "Skip files of a folder that aren't images.", "--skip-bad")
    ] = False,
    test_split: Annotated[
        float, _option(_DATA, "Share that becomes the test part where the data has none.")
    ] = 0.2,
    train_size: Annotated[
        int | None, _option(_DATA, "Train on this many examples (stratified).")
    ] = None,
    test_size: Annotated[
        int | None, _option(_DATA, "Test on this many examples (stratified).")
    ] = None,
    orders: Annotated[
        str, _option(_STUDY, "What to compare, against the first: a,b or more.")
    ] = "before,after",
    vary: Annotated[
        list[str] | None,
        _option(
            _STUDY,
            "Train every order with each of several values: act=relu,tanh or dropout=0,0.2.",
        ),
    ] = None,
    pairs: Annotated[
        int | None,
        _option(
            _STUDY,
            "Seeds per order, fixed beforehand. By default it looks after every pair and stops as "
            "soon as the answer stands.",
        ),
    ] = None,
    max_pairs: Annotated[
        int, _option(_STUDY, "Stop here without an answer; more go on from there.")
    ] = 30,
    first_seed: Annotated[int, _option(_STUDY, "The first pair's seed.")] = 0,
    margin: Annotated[
        float, _option(_STUDY, "Smallest difference that matters, in points of accuracy.")
    ] = 0.5,
    level: Annotated[float, _option(_STUDY, "Coverage of the interval.")] = 0.95,
    target: Annotated[
        float | None, _option(_STUDY, "Compare the steps to this accuracy, in percent.")
    ] = None,
    act: Annotated[str | None, _option(_MODEL, "Activation: relu, tanh, ...")] = None,
    norm: Annotated[str | None, _option(_MODEL, "Norm: batch, layer, group, none.")] = None,
    width: Annotated[int | None, _option(_MODEL, "Filters or units of the first block.")] = None,
    depth: Annotated[int | None, _option(_MODEL, "Number of stages, blocks or layers.")] = None,
    dropout: Annotated[float | None, _option(_MODEL, "Rate of the order's drop token.")] = None,
    bias: Annotated[
        str | None,
        _option(
            _MODEL,
            "Biases: rule, always or never; of a model that is rebuilt: rule or keep.",
        ),
    ] = None,
    norm_eps: Annotated[float | None, _option(_MODEL, "Give every arm's norms this eps.")] = None,
    norm_momentum: Annotated[
        float | None,
        _option(_MODEL, "And this momentum, as Keras has it (PyTorch's is 1 minus this)."),
    ] = None,
    option: Annotated[
        list[str] | None,
        _option(_MODEL, "Any other option of the builder, NAME=VALUE.", "--option", "-O"),
    ] = None,
    tune: Annotated[
        str | None,
        _option(
            _TRAINING,
            "lr: find each arm's best learning rate first, on held-out training data.",
        ),
    ] = None,
    rates: Annotated[
        str | None, _option(_TRAINING, "Learning rates that --tune lr tries: 0.01,0.03,0.1.")
    ] = None,
    validation: Annotated[
        float | None,
        _option(
            _TRAINING,
            "Hold out this share of the training data and score the epoch that is best there.",
        ),
    ] = None,
    epochs: Annotated[int | None, _option(_TRAINING, "Passes over the training data.")] = None,
    batch_size: Annotated[int | None, _option(_TRAINING, "Examples per step.")] = None,
    optimizer: Annotated[str | None, _option(_TRAINING, "sgd (Nesterov) or adamw.")] = None,
    lr: Annotated[float | None, _option(_TRAINING, "Peak learning rate.")] = None,
    momentum: Annotated[float | None, _option(_TRAINING, "Momentum of sgd.")] = None,
    weight_decay: Annotated[float | None, _option(_TRAINING, "Weight decay.")] = None,
    decay_all: Annotated[
        bool, _option(_TRAINING, "Decay norm parameters and biases too.", "--decay-all")
    ] = False,
    schedule: Annotated[
        str | None, _option(_TRAINING, "onecycle, cosine, constant or step.")
    ] = None,
    label_smoothing: Annotated[float | None, _option(_TRAINING, "Label smoothing.")] = None,
    precision: Annotated[str | None, _option(_TRAINING, "fp32 or bf16.")] = None,
    augment: Annotated[str | None, _option(_TRAINING, "flip, crop or flip,crop.")] = None,
    raw: Annotated[
        bool, _option(_TRAINING, "Don't standardise the inputs per channel.", "--raw")
    ] = False,
    reestimate: Annotated[
        int | None,
        _option(_TRAINING, "Training examples for re-estimating batch-norm statistics (0: off)."),
    ] = None,
    curve: Annotated[
        int | None, _option(_TRAINING, "Test examples scored after each epoch (0: off).")
    ] = None,
    engine: Annotated[str, _option(_RUNNING, "auto, torch or keras.")] = "auto",
    device: Annotated[str, _option(_RUNNING, "auto, cpu or cuda (engine torch).")] = "auto",
    jobs: Annotated[int, _option(_RUNNING, "Runs side by side (0: one per core).")] = 0,
    threads: Annotated[int, _option(_RUNNING, "Threads of each run.")] = 1,
    out: Annotated[Path, _option(_RUNNING, "Folder for the store of runs and the report.")] = Path(
        "relucate-out"
    ),
    format: Annotated[Format, _option(_RUNNING, "text or json on standard output.")] = Format.text,
    quiet: Annotated[bool, _option(_RUNNING, "No progress on standard error.", "--quiet")] = False,
) -> None:
    """Train a model in several orders, seed by seed in pairs, and say which is better.

    Without arguments: net cnn on digits, norm before the activation against norm after it. Finished
    runs are kept in the store, so that the same command continues where it was stopped.
    """
    given = dict(locals())
    try:
        study = _run(given)
    except KeyboardInterrupt:
        print(f"relucate: interrupted; continue with: {_command()}", file=sys.stderr)
        raise
    _show(study, out, format)


def _run(given: dict[str, Any]) -> Any:
    from ..api.study import compare as run
    from ..api.study import load_data, make_recipe

    dataset = load_data(
        given["data"],
        size=_size(given["size"]),
        grayscale=given["grayscale"],
        skip_bad=given["skip_bad"],
        test_split=given["test_split"],
        progress=None if given["quiet"] else _decoding,
    )
    if given["train_size"] is not None or given["test_size"] is not None:
        dataset = dataset.subset(given["train_size"], given["test_size"])
    same = (
        "pairs max_pairs first_seed level engine device jobs threads norm_eps norm_momentum".split()
    )
    return run(
        given["model"],
        dataset,
        orders=given["orders"].split(","),
        vary=varied_options(given["vary"]),
        options=_builder_options(given),
        recipe=make_recipe(_recipe(given), dataset),
        margin=given["margin"] / 100,
        tune=given["tune"],
        rates=_rates(given["rates"]),
        target=None if given["target"] is None else given["target"] / 100,
        store=given["out"] / "runs.sqlite",
        progress=not given["quiet"],
        command=_command(),
        **{name: given[name] for name in same},
    )


def _command() -> str:
    return shlex.join(["relucate", *sys.argv[1:]])


def _show(study: Any, out: Path, format: Format) -> None:
    from rich.console import Console

    from ..report import print_study

    document = study.to_dict()
    page = study.report(out / "report.html")
    (out / "study.json").write_text(json.dumps(document, indent=1) + "\n")
    if format is Format.json:
        print(json.dumps(document, indent=1))
        return
    print_study(document, Console())
    print(f"Report: {page}")


def _builder_options(given: dict[str, Any]) -> dict[str, Any]:
    names = ("act", "norm", "width", "depth", "dropout", "bias")
    chosen = {name: given[name] for name in names if given[name] is not None}
    further = builder_options(given["option"])
    for name in chosen.keys() & further:
        raise InputError(
            f"--{name} {chosen[name]} and --option {name}={further[name]} set the same option: "
            "give one of the two."
        )
    return {**chosen, **further}


def _recipe(given: dict[str, Any]) -> dict[str, Any]:
    names = (
        "epochs batch_size optimizer lr momentum weight_decay schedule label_smoothing precision "
        "reestimate curve validation"
    ).split()
    chosen = {name: given[name] for name in names if given[name] is not None}
    if given["augment"]:
        chosen["augment"] = tuple(name.strip() for name in given["augment"].split(","))
    if given["decay_all"]:
        chosen["decay_all"] = True
    if given["raw"]:
        chosen["standardize"] = False
    return chosen


def _rates(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"--rates is numbers with commas, such as 0.01,0.1, got '{text}'."
        ) from None


def _size(text: str | None) -> Any:
    if text is None:
        return None
    parts = text.lower().split("x")
    try:
        sizes = [int(part) for part in parts]
    except ValueError:
        sizes = []
    if len(sizes) not in (1, 2) or min(sizes, default=0) < 1:
        raise InputError(
            f"--size is SIDE or HEIGHTxWIDTH in pixels, such as 32 or 32x48, got '{text}'."
        )
    return sizes[0] if len(sizes) == 1 else tuple(sizes)


def _decoding(done: int, total: int) -> None:
    """Show how far decoding is, on standard error, if it is a terminal."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\rdecoding images: {done:,} of {total:,}", end=end, file=sys.stderr, flush=True)
