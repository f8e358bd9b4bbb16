"""Shared by fold, convert and rebuild, and in part by audit and verify: options, MODEL, OUT.

The output file is whole or absent: it is written next to its place and then moved there.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperOption

from ..errors import InputError, RelucateError
from ..files import replacing
from ..option import option as described
from .completion import completer
from .fields import given_values, options_of
from .options import TextOrJson, builder_options, input_shapes
from .plain import PlainCommand

_STRATEGY = "How a norm in front of zero padding is absorbed"

Model = Annotated[
    str,
    typer.Argument(
        help="A .keras or .pt2 file, keras.applications:NAME, a net from `relucate nets`, or a "
        "model of your code or a function that builds one: file.py:build or package.module:build. "
        "Naming it runs your code.",
        show_default=False,
        autocompletion=completer("model"),
    ),
]
Strategy = Annotated[str, typer.Option(help=_STRATEGY)]


class WithStrategies(PlainCommand):
    """A command whose help lists the border strategies.

    They are imported when the help is shown, so that other commands start faster.
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


@dataclass(frozen=True)
class ModelOptions:
    """How MODEL is built."""

    input_shape: list[str] | None = described(
        None,
        "Shape of an input without the batch axis, such as 3x224x224: torch models need it; once "
        "per input.",
    )
    option: list[str] | None = described(
        None, "Argument of the function or net: NAME=VALUE.", flag="--option -O"
    )
    imports: list[str] | None = described(
        None,
        "Python file or module to import first: it registers a saved model's custom objects.",
        flag="--import",
    )


@dataclass(frozen=True)
class WritingOptions:
    """Where the new model is written, and what is shown of it."""

    out: Path | None = described(
        None,
        "File to write: .keras for Keras, .pt2 (torch.export) for PyTorch. By default the model's "
        "name with the verb, here.",
        flag="--out -o",
    )
    dry_run: bool = described(False, "Show the plan and write nothing.")
    force: bool = described(
        False, "Replace a file that is there already.", flag="--force/--no-force"
    )
    every: bool = described(False, "List each norm separately, in any model.", flag="--all")
    format: TextOrJson = described(TextOrJson.text, "text or json, on standard output.")


transforms = options_of({WritingOptions: "", ModelOptions: ""}, after=10)


def load(model: str, options: Mapping[str, Any], *, compiled: bool = False) -> Any:
    """Return the model that MODEL names (`nets.models.Loaded`), built with `ModelOptions`.

    With `compiled`, a saved Keras model is compiled as it was.
    """
    from ..frameworks import import_keras
    from ..nets.models import APPLICATIONS, load_model
    from ..nets.registry import NETS

    chosen = ModelOptions(**given_values(ModelOptions, options))
    saved = Path(model).suffix == ".keras" and Path(model).is_file()
    if not chosen.imports and (saved or model in NETS or model.startswith(APPLICATIONS)):
        import_keras()
    return load_model(
        model,
        input_shapes=input_shapes(chosen.input_shape),
        options=builder_options(chosen.option),
        imports=chosen.imports or [],
        compiled=compiled,
    )


def carry_out(
    verb: str,
    model: str,
    options: Mapping[str, Any],
    *order: str,
    data: Callable[[Any], Any] | None = None,
    **given: Any,
) -> None:
    """Load MODEL, transform and write it, and show the report; or only plan, with --dry-run.

    Args: verb: fold, convert or rebuild; order, given: arguments of that function; data: returns
        its calibration data for a model.
    """
    from ..api import transform

    loaded = load(model, options, compiled=verb == "rebuild")
    chosen = WritingOptions(**given_values(WritingOptions, options))
    given["example"] = loaded.example
    if chosen.dry_run:
        plan = transform.plan(verb, loaded.model, *order, **given)
        _show(plan, chosen, planned=True)
        return
    path = _target(model, loaded, chosen.out, verb, chosen.force)
    if data is not None:
        given["data"] = data(loaded.model)
    with warnings.catch_warnings():  # the report has them
        warnings.filterwarnings("ignore", message="relucate", category=UserWarning)
        made, report = getattr(transform, verb)(loaded.model, *order, **given)
    _save(made, path, loaded.example)
    _show(report, chosen, path=path)


def _target(model: str, loaded: Any, out: Path | None, verb: str, force: bool) -> Path:
    """Return the path to write the new model to.

    Raises: InputError: the wrong ending, a missing folder, an existing file.
    """
    from ..frameworks import framework_of

    ending = framework_of(loaded.model).ending
    past = {"fold": "folded", "convert": "converted", "rebuild": "rebuilt"}[verb]
    stem = Path(model.rpartition(":")[2]).stem
    path = out or Path(f"{stem}-{past}{ending}")
    if path.suffix != ending:
        raise InputError(f"--out must end in {ending} for this model, got '{path}'.")
    if not path.parent.is_dir():
        raise InputError(f"the folder '{path.parent}' of --out doesn't exist.")
    if path.exists() and not force:
        raise InputError(f"'{path}' exists already: give another --out, or --force to replace it.")
    return path


def _save(model: Any, path: Path, example: Any) -> None:
    """Write a model; after an error no file is left behind.

    Raises: InputError: the place can't be written to. Refused: the file can't express the model.
    """
    from ..frameworks import framework_of

    try:
        with replacing(path) as new:
            framework_of(model).save(model, new, example)
    except OSError as error:
        raise InputError(f"can't write '{path}': {error.strerror or error}.") from error


def _show(
    report: Any, chosen: WritingOptions, *, path: Path | None = None, planned: bool = False
) -> None:
    """Print a report, and where the model was written."""
    data = report.to_dict()
    if chosen.format is TextOrJson.json:
        print(json.dumps({**data, "out": None if path is None else str(path)}, indent=1))
        return
    from rich.console import Console

    from ..report.transform import print_transform

    print_transform(data, Console(file=sys.stdout), every=chosen.every, planned=planned)
    if path is not None:
        print(f"Written: {path}")


def calibration(data: str | None, images: int, raw: bool, model: Any) -> Any:
    """Return training inputs of --data in the model's layout, as `examples` does, or None."""
    if data is None:
        return None
    from ..api.study import load_data

    return examples(load_data(data), images, raw, model)[0]


def examples(loaded: Any, images: int, raw: bool, model: Any) -> tuple[Any, Any, str]:
    """Return training inputs of a Dataset in the model's layout, labels, and what was done.

    They are standardised as in `relucate compare`, unless `raw`: not for a model that scales its
    inputs itself.
    Raises: InputError: too few images.
    """
    import numpy as np

    from ..frameworks import framework_of
    from ..train.standard import Standard

    if images < 2:
        raise InputError(f"--images must be at least 2, to measure a variance, got {images}.")
    scaled = _scales_inputs(model)
    standard = Standard.of(loaded.x_train, standardize=not (raw or scaled))  # of all of it
    total = len(loaded.x_train)
    taken, labels = _taken(loaded, images)
    x = standard(taken)
    how = "standardised as in compare"
    if raw or scaled:
        how = "not standardised" + (", because the model scales them itself" if scaled else "")
    sentence = f"{len(x):,} of the {total:,} training examples, {how}"
    first = framework_of(model).images_first and x.ndim > 3
    return np.moveaxis(x, -1, 1) if first else x, labels, sentence


def _taken(loaded: Any, images: int) -> tuple[Any, Any]:
    """Return so many training examples with their labels: of each class, if there are enough."""
    import numpy as np

    total = len(loaded.x_train)
    if images >= total:
        return loaded.x_train, loaded.y_train
    if images < loaded.classes:
        picked = np.sort(np.random.default_rng(0).choice(total, images, replace=False))
        return loaded.x_train[picked], loaded.y_train[picked]
    found = loaded.subset(images)
    return found.x_train, found.y_train


def _scales_inputs(model: Any) -> bool:
    from ..frameworks import framework_of

    try:
        return bool(framework_of(model).read(model).graph.input_scaling)
    except RelucateError:  # unread without an example: a module, which has no such layers
        return False
