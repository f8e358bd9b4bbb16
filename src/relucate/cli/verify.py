"""`relucate verify`: do two models compute the same?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError, printable
from .fields import options_of
from .options import Format, TextOrJson
from .transforming import Model, ModelOptions, load


@options_of({ModelOptions: ""}, after=4)
def verify(
    a: Model,
    b: Annotated[str, typer.Argument(help="The other model, named in the same way.")],
    inputs: Annotated[
        Path | None,
        typer.Option(
            help="A .npy or .npz file with inputs (one array per input) to use, not random ones."
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Allowed difference, relative to the output's scale; 1e-5 for float32."),
    ] = None,
    format: Format = TextOrJson.text,
    **options: Any,
) -> None:
    """Compare two models on random and border-stressing inputs; exit with 1 if they differ."""
    from ..api.transform import verify as run
    from ..data.npz import load_arrays

    one, other = load(a, options), load(b, options)
    if tolerance is not None and not tolerance > 0:
        raise InputError(f"--tolerance must be above 0, got {tolerance}.")
    arrays = None if inputs is None else load_arrays(inputs)
    found = run(one.model, other.model, arrays, example=one.example, tolerance=tolerance)
    if format is TextOrJson.json:
        print(json.dumps({"schema": "relucate.verify/1", **found.to_dict()}, indent=1))
    else:
        for line in (str(found), *(f"Note: {note}" for note in found.notes)):
            print(printable(line))
    if not found.passed:
        raise typer.Exit(1)
