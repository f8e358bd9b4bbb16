"""`relucate fold`: absorb every norm that can be, exactly, for inference."""

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


def fold(
    model: Model,
    out: Out = None,
    strategy: Annotated[
        str,
        typer.Option(
            help="How a norm in front of zero padding is absorbed: auto, map, ones, branch, shift "
            "(all exact), or approximate (wrong at the border; the report says how much)."
        ),
    ] = "auto",
    dry_run: DryRun = False,
    force: Force = False,
    input_shape: InputShape = None,
    option: Option = None,
    imports: Imports = None,
    every: Every = False,
    format: Format = TextOrJson.text,
) -> None:
    """Absorb every batch norm for inference, exactly, and verify the result."""
    from ..api import transform

    loaded = load(model, input_shape, option, imports)
    if dry_run:
        plan = transform.plan("fold", loaded.model, strategy=strategy, example=loaded.example)
        show(plan, format, every, planned=True)
        return
    path = target(model, loaded, out, "fold", force)
    made, report = run(
        lambda: transform.fold(loaded.model, strategy=strategy, example=loaded.example)
    )
    save(made, path, loaded.example)
    show(report, format, every, path=path)
