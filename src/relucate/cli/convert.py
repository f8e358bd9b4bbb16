"""`relucate convert`: the trained model in the other order, computing the same."""

from __future__ import annotations

from typing import Annotated

import typer

from .fold import Strategy
from .transforming import (
    DryRun,
    Every,
    Force,
    Format,
    Imports,
    InputShape,
    Model,
    Option,
    Out,
    TextOrJson,
    calibration,
    load,
    run,
    save,
    show,
    target,
)


def convert(
    model: Model,
    order: Annotated[
        str, typer.Option(help="The order to convert to: before, after, none, norm-linear-act, ...")
    ],
    out: Out = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Training data (digits, folder:PATH, npz:PATH) to measure the statistics of the "
            "moved norms on; neutral ones without."
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="How many examples of --data are used.")] = 1024,
    raw: Annotated[
        bool, typer.Option(help="Take --data as it is, not standardised per channel.")
    ] = False,
    strategy: Strategy = "auto",
    dry_run: DryRun = False,
    force: Force = False,
    input_shape: InputShape = None,
    option: Option = None,
    imports: Imports = None,
    every: Every = False,
    format: Format = TextOrJson.text,
) -> None:
    """Put a trained model's norms into another order with the same function at inference."""
    from ..api import transform

    loaded = load(model, input_shape, option, imports)
    example = loaded.example
    if dry_run:
        plan = transform.plan("convert", loaded.model, order, strategy=strategy, example=example)
        show(plan, format, every, planned=True)
        return
    path = target(model, loaded, out, "convert", force)
    arrays = calibration(data, images, raw, loaded.model)
    made, report = run(
        lambda: transform.convert(
            loaded.model, order, data=arrays, strategy=strategy, example=example
        )
    )
    save(made, path, example)
    show(report, format, every, path=path)
