"""`relucate probe`: what the norms, the activations and the next layers of a model see on data."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from .fields import options_of
from .options import SOURCES, ReadOptions, TextOrJson, read_data
from .transforming import Model, ModelOptions, examples, load


@options_of({ModelOptions: "", ReadOptions: ""})
def probe(
    model: Model,
    data: Annotated[str, typer.Option(help=f"Training data: {SOURCES}")],
    images: Annotated[int, typer.Option(help="How many examples of --data are used.")] = 512,
    batch: Annotated[int, typer.Option(help="Examples per batch.")] = 32,
    site: Annotated[
        str | None,
        typer.Option(help="Look only at norms (without norms: activations) named like this."),
    ] = None,
    gradients: Annotated[
        bool,
        typer.Option("--gradients", help="Also measure the gradients of the loss at each point."),
    ] = False,
    raw: Annotated[
        bool, typer.Option(help="Take --data as it is, not standardised per channel.")
    ] = False,
    leaf: Annotated[
        list[str] | None,
        typer.Option(help="Torch: name or class of a submodule that isn't read."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="List each site separately, in any model.")
    ] = False,
    format: Annotated[
        TextOrJson, typer.Option(help="text or json, on standard output.")
    ] = TextOrJson.text,
    **options: Any,
) -> None:
    """Run a model on data once, and measure what its norms and its layers see."""
    from ..api.probe import probe as run
    from ..nets.registry import NETS
    from ..train.tasks import task_for

    dataset = read_data(data, options)
    if model in NETS and not options.get("input_shape"):
        options["input_shape"] = ["x".join(map(str, dataset.x_train.shape[1:]))]
    loaded = load(model, options)
    x, labels, sentence = examples(dataset, images, raw, loaded.model)
    report = run(
        loaded.model,
        x,
        batch=batch,
        site=site,
        gradients=gradients,
        labels=labels if gradients else None,
        task=task_for(None, dataset.labels).name if gradients else None,
        example=loaded.example,
        leaves=leaf or [],
    )
    if format is TextOrJson.json:
        print(json.dumps({**report.to_dict(), "data": f"{data}: {sentence}"}, indent=None))
        return
    from rich.console import Console

    from ..report.probe import print_probe

    print_probe(report.to_dict(), Console(file=sys.stdout), every=every)
    print(f"Data: {data}, {sentence}.")
