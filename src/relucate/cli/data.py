"""`relucate data`: what a data set holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .compare import Format, _decoding, _size


def data(
    source: Annotated[
        str,
        typer.Argument(
            help="digits, folder:PATH, npz:PATH, cifar10, cifar100, mnist or fashion_mnist."
        ),
    ] = "digits",
    size: Annotated[
        str | None, typer.Option(help="Resize a folder's images: SIDE or HEIGHTxWIDTH.")
    ] = None,
    grayscale: Annotated[bool, typer.Option(help="One channel for a folder's images.")] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Skip files of a folder that aren't images.")
    ] = False,
    test_split: Annotated[
        float, typer.Option(help="Share that becomes the test part where the data has none.")
    ] = 0.2,
    cache: Annotated[Path | None, typer.Option(help="Where decoded folders are kept.")] = None,
    format: Annotated[Format, typer.Option(help="text or json on standard output.")] = Format.text,
) -> None:
    """Show a data set's classes, sizes and content fingerprint."""
    from ..api.study import load_data

    found = load_data(
        source,
        size=_size(size),
        grayscale=grayscale,
        skip_bad=skip_bad,
        test_split=test_split,
        cache=cache,
        progress=_decoding,
    )
    if format is Format.json:
        print(json.dumps({"schema": "relucate.data/1", **found.to_dict()}, indent=1))
    else:
        print(found)
