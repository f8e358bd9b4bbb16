"""`relucate rebuild`: the same architecture in another order, untrained."""

from __future__ import annotations

from typing import Annotated

import typer

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
    load,
    run,
    save,
    show,
    target,
)


def rebuild(
    model: Model,
    order: Annotated[
        str, typer.Option(help="The order to rebuild in: before, after, none, norm-act-linear, ...")
    ],
    out: Out = None,
    seed: Annotated[int, typer.Option(help="Of the new weights.")] = 0,
    bias: Annotated[
        str, typer.Option(help="rule: as the order makes them redundant; keep: as they are.")
    ] = "rule",
    dry_run: DryRun = False,
    force: Force = False,
    input_shape: InputShape = None,
    option: Option = None,
    imports: Imports = None,
    every: Every = False,
    format: Format = TextOrJson.text,
) -> None:
    """Build the same architecture in another order, freshly initialised."""
    from ..api import transform

    loaded = load(model, input_shape, option, imports)
    if dry_run:
        plan = transform.plan("rebuild", loaded.model, order, bias=bias, example=loaded.example)
        show(plan, format, every, planned=True)
        return
    path = target(model, loaded, out, "rebuild", force)
    given = {"seed": seed, "bias": bias, "example": loaded.example}
    made, report = run(lambda: transform.rebuild(loaded.model, order, **given))
    save(made, path, loaded.example)
    show(report, format, every, path=path)
