"""What MODEL means on the command line: a file, a name, or a function of the user's that builds.

    model.keras                     a saved Keras model
    model.pt2                       a module that torch.export saved
    keras.applications:ResNet50     with weights=None
    cnn, inception_v3, ...          a net from `relucate nets`
    file.py:build, package.module:build

Not here: reading the model (`api.audit`), arms of a comparison (`study.source`).
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import nets
from ..backend import use_backend
from ..errors import InputError, RelucateError, unknown
from ..study.source import import_user_module, load_callable, where

_SHAPES = {"mlp": (64,), "bn_paper_mlp": (28, 28, 1), "inception_v3": (75, 75, 3)}
_STATES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".weights.h5")
_FORMS = (
    "a .keras or .pt2 file, keras.applications:NAME, a name from `relucate nets`, or your own "
    "function as file.py:build or package.module:build"
)


@dataclass(frozen=True)
class Loaded:
    """A model, an input for it (torch), and where it is made: file and line for annotations."""

    model: Any
    example: Any = None
    file: str | None = None
    line: int | None = None


def load_model(
    text: str,
    *,
    input_shapes: Sequence[tuple[int, ...]] = (),
    options: Mapping[str, Any] | None = None,
    imports: Iterable[str] = (),
) -> Loaded:
    """Return the model that `text` names.

    Args:
        input_shapes: without the batch axis, one per input: of torch models, nets, applications.
        options: keyword arguments of the function, net or application.
        imports: files or modules to import first, because they register custom objects.
    Raises: InputError, Refused: no such model, a broken file, arguments that are missing.
    """
    use_backend()
    for name in imports:
        import_user_module(name)
    options = dict(options or {})
    shape = tuple(input_shapes[0]) if input_shapes else None
    if text.startswith("keras.applications:"):
        from ..keras.saved import application

        return Loaded(application(text.partition(":")[2], shape, options))
    if text in nets.NETS:
        return Loaded(_net(text, shape, options))
    path = Path(text)
    if path.suffix == ".keras":
        from ..keras.saved import load_saved

        _no_options(options, text)
        return Loaded(load_saved(path), file=_relative(path))
    if path.suffix == ".pt2":
        from ..torch.running import load_exported

        _no_options(options, text)
        model, example = load_exported(path)
        return Loaded(model, _example(input_shapes) or example, file=_relative(path))
    _refuse_other_files(text, path)
    return _from_callable(text, input_shapes, options)


def _net(name: str, shape: tuple[int, ...] | None, options: dict[str, Any]) -> Any:
    order = options.pop("order", "before")
    classes = options.pop("classes", 10)
    return nets.build(name, order, shape or _SHAPES.get(name, (32, 32, 3)), classes, **options)


def _no_options(options: Mapping[str, Any], text: str) -> None:
    if options:
        raise InputError(f"'{text}' is a file: it takes no options, got {', '.join(options)}.")


def _refuse_other_files(text: str, path: Path) -> None:
    if text.endswith(_STATES):
        raise InputError(
            f"'{text}' holds weights without a network: give the function that builds the network "
            "and loads them, as file.py:build (torch: with --input-shape)."
        )
    if path.suffix in {".h5", ".hdf5"} or path.is_dir() or path.suffix == ".pb":
        raise InputError(
            f"'{text}' is in an old format: load it in Keras and save it again as .keras."
        )
    if path.suffix == ".py":
        raise InputError(f"'{text}' names a file: expected the function too, as {text}:build.")
    if ":" not in text:
        if re.fullmatch(r"[A-Z]\w+", text):
            raise InputError(
                f"unknown model '{text}': the networks that come with Keras are called "
                f"keras.applications:{text}. Or give {_FORMS}."
            )
        error = unknown("model", text, nets.NETS)
        raise InputError(f"{error} Or give {_FORMS}.")


def _from_callable(
    text: str, input_shapes: Sequence[tuple[int, ...]], options: dict[str, Any]
) -> Loaded:
    function = load_callable(text)
    arguments = _arguments(function, text, input_shapes, options)
    try:
        model = function(**arguments)
    except RelucateError:
        raise
    except Exception as error:  # the user's own code
        raise InputError(f"'{text}' failed: {where(error)}") from error
    file, line = _place(function)
    return Loaded(model, _example(input_shapes), file, line)


def _arguments(
    function: Any, text: str, input_shapes: Sequence[tuple[int, ...]], options: dict[str, Any]
) -> dict[str, Any]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return options
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in options:
        if name not in parameters and not takes_all:
            raise unknown(f"option of '{text}'", name, parameters or ["(it takes none)"])
    given = dict(options)
    if input_shapes and "input_shape" in parameters:
        given.setdefault("input_shape", tuple(input_shapes[0]))
    missing = [
        p.name
        for p in parameters.values()
        if p.default is p.empty
        and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        and p.name not in given
    ]
    if missing:
        shown = " ".join(f"-O {name}=..." for name in missing)
        raise InputError(
            f"'{text}' needs the arguments {', '.join(missing)}: give them as {shown}, or name a "
            "function that needs none."
        )
    return given


def _example(shapes: Sequence[tuple[int, ...]]) -> Any:
    """Return shapes with a batch axis for the torch reader, which makes the inputs."""
    batched = [(2, *shape) for shape in shapes]
    return None if not batched else batched[0] if len(batched) == 1 else tuple(batched)


def _place(function: Any) -> tuple[str | None, int | None]:
    try:
        path = inspect.getsourcefile(inspect.unwrap(function))
        line = inspect.getsourcelines(inspect.unwrap(function))[1]
    except (TypeError, OSError):
        return None, None
    return (_relative(Path(path)), max(line, 1)) if path else (None, None)


def _relative(path: Path) -> str:
    """Return a path as code hosts want it: relative to here where it lies below, with slashes."""
    try:
        return path.resolve().relative_to(os.getcwd()).as_posix()
    except ValueError:
        return path.resolve().as_uri()
