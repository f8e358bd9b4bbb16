"""`relucate rebuild`: the same architecture in another order, untrained."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .completion import completer
from .transforming import Model, carry_out, transforms


@transforms
def rebuild(
    model: Model,
    order: Annotated[
        str,
        typer.Option(
            help="The order to rebuild in: before, after, none, norm-act-linear, ...",
            autocompletion=completer("order"),
        ),
    ],
    seed: Annotated[int, typer.Option(help="Of the new weights.")] = 0,
    bias: Annotated[
        str, typer.Option(help="rule: none where the order makes it redundant; keep: as it is.")
    ] = "rule",
    **options: Any,
) -> None:
    """Build the same architecture in another order, freshly initialised."""
    carry_out("rebuild", model, options, order, seed=seed, bias=bias)
