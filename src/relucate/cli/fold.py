"""`relucate fold`: absorb every norm that can be, exactly, for inference."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

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

_STRATEGY = "How a norm in front of zero padding is absorbed"
Strategy = Annotated[str, typer.Option(help=_STRATEGY)]


class WithStrategies(TyperCommand):
    """A command whose help lists the border strategies that there are.

    They are looked up when the help is shown: the start-up needs no surgery.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Complete the help of --strategy, and print."""
        from ..surgery.borders import is_exact, strategies

        exact = ", ".join(name for name in strategies() if is_exact(name))
        other = ", ".join(name for name in strategies() if not is_exact(name))
        for parameter in self.params:
            if isinstance(parameter, TyperOption) and parameter.name == "strategy":
                parameter.help = (
                    f"{_STRATEGY}: {exact} (all exact), or {other} (wrong at the border; the "
                    "report says how much)."
                )
        super().format_help(ctx, formatter)


def fold(
    model: Model,
    out: Out = None,
    strategy: Strategy = "auto",
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
