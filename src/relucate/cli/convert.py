"""`relucate convert`: the trained model in another order, computing the same function."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from .completion import completer
from .options import SOURCES
from .transforming import Model, Strategy, calibration, carry_out, transforms


@transforms
def convert(
    model: Model,
    order: Annotated[
        str,
        typer.Option(
            help="The order to convert to: before, after, none, norm-linear-act, ...",
            autocompletion=completer("order"),
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Training data to measure the statistics of the moved norms on; without it they "
            f"are neutral: {SOURCES}"
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="How many examples of --data are used.")] = 1024,
    raw: Annotated[
        bool, typer.Option(help="Take --data as it is, not standardised per channel.")
    ] = False,
    strategy: Strategy = "auto",
    **options: Any,
) -> None:
    """Put a trained model's norms into another order with the same function at inference."""
    measured = partial(calibration, data, images, raw)
    carry_out("convert", model, options, order, data=measured, strategy=strategy)
