"""What fold, convert, rebuild and verify have in common: options, reading MODEL, writing OUT.

The output file is whole or absent: it is written beside its place and then moved there.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from .options import TextOrJson, builder_options, input_shapes

Model = Annotated[
    str,
    typer.Argument(
        help="A .keras or .pt2 file, keras.applications:NAME, a net from `relucate nets`, or a "
        "function that builds the model: file.py:build or package.module:build. A function is your "
        "own code, and naming it runs it.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="File to write: .keras for Keras, .pt2 (torch.export) for PyTorch. By default the "
        "model's name with the verb, here.",
    ),
]
Force = Annotated[bool, typer.Option(help="Replace a file that is there already.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and write nothing.")]
InputShape = Annotated[
    list[str] | None,
    typer.Option(
        help="Shape of an input without the batch axis, such as 3x224x224: torch models need it; "
        "once per input."
    ),
]
Option = Annotated[
    list[str] | None,
    typer.Option("--option", "-O", help="Argument of the function or net: NAME=VALUE."),
]
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        help="Python file or module to import first: it registers a saved model's custom objects.",
    ),
]
Every = Annotated[bool, typer.Option("--all", help="Each norm on its own, in any model.")]
Format = Annotated[TextOrJson, typer.Option("--format", help="text or json, on standard output.")]


def load(
    model: str, input_shape: list[str] | None, option: list[str] | None, imports: list[str] | None
) -> Any:
    """Return the model that MODEL names (`nets.models.Loaded`)."""
    from ..nets.models import load_model

    return load_model(
        model,
        input_shapes=input_shapes(input_shape),
        options=builder_options(option),
        imports=imports or [],
    )


def target(model: str, loaded: Any, out: Path | None, verb: str, force: bool) -> Path:
    """Return where the new model is to be written.

    Raises: InputError: the wrong ending, a folder that isn't there, a file that is.
    """
    ending = ".keras" if _is_keras(loaded.model) else ".pt2"
    past = {"fold": "folded", "convert": "converted", "rebuild": "rebuilt"}[verb]
    stem = Path(model.rpartition(":")[2]).stem
    path = out or Path(f"{stem}-{past}{ending}")
    if path.suffix != ending:
        raise InputError(f"--out is a {ending} file for this model, got '{path}'.")
    if not path.parent.is_dir():
        raise InputError(f"the folder '{path.parent}' of --out doesn't exist.")
    if path.exists() and not force:
        raise InputError(f"'{path}' exists already: give another --out, or --force to replace it.")
    return path


def _is_keras(model: Any) -> bool:
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.layers.Layer)


def save(model: Any, path: Path, example: Any) -> None:
    """Write a model; on failure nothing is left behind.

    Raises: InputError: the place can't be written to. Refused: torch.export can't express it.
    """
    name = ""
    try:
        with tempfile.NamedTemporaryFile(suffix=path.suffix, dir=path.parent, delete=False) as made:
            name = made.name
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # as any other new file, not for its owner alone
        if path.suffix == ".keras":
            model.save(name)
        else:
            from ..torch.running import export

            export(model, Path(name), example)
        os.replace(name, path)
        name = ""
    except OSError as error:
        raise InputError(f"can't write '{path}': {error.strerror or error}.") from error
    finally:
        if name and os.path.exists(name):
            os.unlink(name)


def run(action: Any) -> Any:
    """Call `action`, whose warnings are in its report already."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="relucate", category=UserWarning)
        return action()


def show(
    report: Any, format: TextOrJson, every: bool, *, path: Path | None = None, planned: bool = False
) -> None:
    """Print a report, and where the model was written."""
    data = report.to_dict()
    if format is TextOrJson.json:
        print(json.dumps({**data, "out": None if path is None else str(path)}, indent=1))
        return
    from rich.console import Console

    from ..report.transform import print_transform

    print_transform(data, Console(file=sys.stdout), every=every, planned=planned)
    if path is not None:
        print(f"Written: {path}")


def calibration(data: str | None, images: int, raw: bool, model: Any) -> Any:
    """Return training inputs of --data in the model's layout, or None.

    Standardised exactly as `relucate compare` trains on them, unless `raw`.
    Raises: InputError: no such data.
    """
    if data is None:
        return None
    import numpy as np

    from ..api.study import load_data
    from ..train.standard import Standard

    if images < 2:
        raise InputError(f"--images is 2 or more: a variance is to be measured; got {images}.")
    loaded = load_data(data)
    standard = Standard.of(loaded.x_train, standardize=not raw)  # of the whole training set
    if images < len(loaded.x_train) and images > loaded.classes:
        loaded = loaded.subset(images)
    x = standard(loaded.x_train)
    return x if _is_keras(model) or x.ndim < 3 else np.moveaxis(x, -1, 1)
