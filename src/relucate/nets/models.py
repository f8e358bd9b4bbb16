"""What MODEL means: a name, a file, or a function of the user's that builds a model.

    model.keras                     a saved Keras model
    model.pt2                       a module that torch.export saved
    keras.applications:ResNet50     with weights=None
    cnn, inception_v3, ...          a net from `relucate nets`
    file.py:build, package.module:build

`meaning` returns which of these a text is, or raises an error that says why it is none, the same
for every verb. `load_model` makes the one model of `audit`, `fold` and so on. Not here: the arms of
a comparison (`study.source`).
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backend import use_backend
from ..errors import InputError, RelucateError, briefly, unknown
from ..frameworks import owner
from . import registry
from .user_code import (
    arguments,
    call,
    check_file,
    import_user_module,
    load_callable,
    module_file,
    path_part,
)

APPLICATIONS = "keras.applications:"
_SHAPES = {"mlp": (64,), "bn_paper_mlp": (28, 28, 1), "inception_v3": (75, 75, 3)}
_STATES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".weights.h5")
_FORMS = (
    "a .keras or .pt2 file, keras.applications:NAME, a name from `relucate nets`, or your own "
    "function as file.py:build or package.module:build"
)


@dataclass(frozen=True)
class Meaning:
    """What a text means: kind is net, application, saved, file or module.

    path: the model's file (saved), or the Python file that holds the function, if it has one.
    """

    kind: str
    text: str
    path: Path | None = None

    @property
    def name(self) -> str:
        """The name of the function or application: the text after the last colon."""
        return self.text.rpartition(":")[2]


@dataclass(frozen=True)
class Loaded:
    """A model, an input for it (torch), and the file and line that make it, for annotations."""

    model: Any
    example: Any = None
    file: str | None = None
    line: int | None = None


def meaning(text: str) -> Meaning:
    """Return what `text` means.

    No user code runs, except that finding a module imports the packages around it.
    Raises: InputError: no such net, file, application or module; a file that holds no network.

    >>> meaning("cnn").kind
    'net'
    """
    if text in registry.NETS:
        return Meaning("net", text)
    if text.startswith(APPLICATIONS):
        use_backend()
        from ..keras.saved import find_application

        found = Meaning("application", text, module_file("keras.applications"))
        find_application(found.name)
        return found
    path = Path(text)
    if path.suffix in {".keras", ".pt2"} or ":" not in text:
        return _file(text, path)
    source = path_part(text)
    if source is not None:
        check_file(source)
        return Meaning("file", text, source)
    return Meaning("module", text, module_file(text.rpartition(":")[0]))


def _file(text: str, path: Path) -> Meaning:
    if path.is_dir():
        raise _folder(text, path)
    if path.suffix == ".py":
        raise InputError(f"'{text}' names a file: expected the function too, as {text}:build.")
    old = path.suffix in {".h5", ".hdf5", ".pb"}
    if path.suffix not in {".keras", ".pt2"} and not old and not text.endswith(_STATES):
        raise _unknown_model(text)
    if not path.is_file():
        ending = path.suffix if path.suffix in {".keras", ".pt2"} else ".keras"
        raise InputError(f"no file '{text}': expected a model saved as {ending}.")
    if text.endswith(_STATES):
        raise InputError(
            f"'{text}' holds weights without a network: give the function that builds the network "
            "and loads them, as file.py:build (torch: with --input-shape)."
        )
    if path.suffix == ".pb":
        raise _folder(str(path.parent), path.parent)
    if old:
        raise InputError(
            f"'{text}' is in an old format: load it in Keras and save it again as .keras."
        )
    return Meaning("saved", text, path)


def _folder(text: str, path: Path) -> InputError:
    if not (path / "saved_model.pb").is_file():
        return InputError(f"'{text}' is a folder: expected {_FORMS}.")
    return InputError(
        f"'{text}' is a TensorFlow SavedModel, which Keras 3 can't load as layers: give the "
        "function that builds the network in Keras 3 and loads its weights, as file.py:build. "
        "(The package tf_keras, which is Keras 2, loads a SavedModel and can save its weights.)"
    )


def _unknown_model(text: str) -> InputError:
    if not re.fullmatch(r"[A-Z]\w+", text):
        return InputError(f"{unknown('model', text, registry.NETS)} Or give {_FORMS}.")
    try:  # the networks that come with Keras are called so
        near = f"did you mean '{meaning(f'{APPLICATIONS}{text}').text}'?"
    except InputError as error:
        near = str(error)
    return InputError(f"unknown model '{text}': {near} Or give {_FORMS}.")


def load_saved(path: Path, *, compiled: bool = False) -> tuple[Any, Any]:
    """Return the model in a .keras or .pt2 file, and the example that a .pt2 file contains.

    With `compiled`, a Keras model is compiled as it was when it was saved.
    """
    if path.suffix == ".keras":
        use_backend()
        from ..keras import saved

        return saved.load_saved(path, compiled=compiled), None
    from ..torch.running import load_exported

    return load_exported(path)


def load_model(
    text: str,
    *,
    input_shapes: Sequence[tuple[int, ...]] = (),
    options: Mapping[str, Any] | None = None,
    imports: Iterable[str] = (),
    compiled: bool = False,
) -> Loaded:
    """Return the model that `text` names.

    Args:
        input_shapes: without the batch axis, one per input: of torch models, nets, applications.
        options: keyword arguments of the function, net or application.
        imports: files or modules to import first, because they register custom objects.
        compiled: a saved Keras model is to be compiled as it was.
    Raises: InputError, Refused: no such model, a broken file, missing arguments.
    """
    use_backend()
    for name in imports:
        import_user_module(name)
    found = meaning(text)
    options = dict(options or {})
    shape = tuple(input_shapes[0]) if input_shapes else None
    if found.kind == "net":
        return Loaded(_net(text, shape, options))
    if found.kind == "application":
        from ..keras.saved import application

        return Loaded(application(found.name, shape, options))
    if found.kind == "saved" and found.path is not None:
        if options:
            raise InputError(f"'{text}' is a file: it takes no options, got {', '.join(options)}.")
        model, example = load_saved(found.path, compiled=compiled)
        return Loaded(model, _example(input_shapes) or example, file=_relative(found.path))
    function = load_callable(text)
    if owner(function) is not None:
        if options:
            raise InputError(f"'{text}' is a model: it takes no options, got {', '.join(options)}.")
        return Loaded(function, _example(input_shapes))
    offered = {} if shape is None else {"input_shape": shape}
    model = call(function, f"'{text}'", arguments(function, text, offered, options))
    return Loaded(model, _example(input_shapes), *_place(function))


def _net(name: str, shape: tuple[int, ...] | None, options: dict[str, Any]) -> Any:
    order = options.pop("order", "before")
    classes = options.pop("classes", 10)
    shape = shape or _SHAPES.get(name, (32, 32, 3))
    try:
        return registry.build(name, order, shape, classes, **options)
    except RelucateError:
        raise
    except Exception as error:  # out of memory, or what the backend raises for such sizes
        raise InputError(
            f"net '{name}' can't be built for inputs of shape {shape}: {briefly(error)}"
        ) from error


def _example(shapes: Sequence[tuple[int, ...]]) -> Any:
    """Return the shapes with a batch axis: the torch reader makes inputs from them."""
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
    """Return a path as code hosts need it: with slashes, relative to here if it is below."""
    try:
        return path.resolve().relative_to(os.getcwd()).as_posix()
    except ValueError:
        return path.resolve().as_uri()
