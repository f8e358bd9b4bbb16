"""Where a model builder comes from: a built-in net, `file.py:callable`, `module:callable`, or a
Python function; and how it is called in a worker process.

Loading user code runs it: only what the user named is loaded. Not here: what the arms are (`arms`).
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import nets
from ..errors import InputError, Refused, RelucateError, unknown
from .identity import code_digest
from .rebuilding import rebuilt

Builder = Callable[..., Any]


@dataclass(frozen=True)
class ModelSource:
    """A builder that can travel to another process, and what identifies it.

    kind: net | file | module | function | saved; text: as the user named it; options: extra keyword
    arguments; digest: of the builder's source file or code; payload: a pickled function; norms:
    eps and momentum that every arm's norms are given.
    """

    kind: str
    text: str
    options: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    payload: bytes = b""
    norms: Mapping[str, float] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """Return what a run's hash knows of the builder."""
        return {
            "kind": self.kind,
            "name": self.text,
            "options": dict(self.options),
            "digest": self.digest,
            **({"norms": dict(self.norms)} if self.norms else {}),
        }

    @property
    def description(self) -> str:
        """A word for reports."""
        words = {"net": "built-in net", "saved": "saved model, rebuilt"}
        return words.get(self.kind, f"builder ({self.kind})")

    def build(self, order: str, input_shape: tuple[int, ...], classes: int) -> Any:
        """Build the model in `order` and return it: Keras model or torch module."""
        return self.build_noted(order, input_shape, classes)[0]

    def build_noted(
        self, order: str, input_shape: tuple[int, ...], classes: int
    ) -> tuple[Any, str]:
        """Return the model in `order`, and what to know about it.

        A saved model, and what a builder without `order` gives, is rebuilt in that order.
        """
        if self.kind == "net":
            return nets.build(self.text, order, input_shape, classes, **self.options), ""
        if self.kind == "saved":
            from ..keras.saved import load_saved

            model = load_saved(Path(self.text))
            return rebuilt(model, order, input_shape, trained=True, **self.options)
        builder = self._load()
        options, own = dict(self.options), {}
        if self.equal_biases():
            own = {"bias": options.pop("bias", "rule")}
        arguments = _arguments(builder, self.text, order, input_shape, classes, options)
        model = _call(builder, self.text, order, arguments)
        if _takes_order(_parameters(builder, self.text)):
            return model, ""
        return rebuilt(model, order, input_shape, **own)

    def equal_biases(self) -> str:
        """Return the option `bias` that gives every order the same biases; "" where there is none.

        It imports the builder.
        """
        if self.kind == "net":
            return "always" if "bias" in nets.options(self.text) else ""
        if self.kind == "saved":
            return "keep"
        parameters = _parameters(self._load(), self.text)
        return "" if _takes_order(parameters) or "bias" in parameters else "keep"

    def code(self) -> str:
        """Return a digest of the builder's code and of the user's code that it reaches.

        It imports the builder. Empty for a built-in net, which the version tells, and for a file.
        """
        return "" if self.kind in {"net", "saved"} else code_digest(self._load())

    def _load(self) -> Builder:
        if self.kind != "function":
            return load_callable(self.text)
        import cloudpickle

        try:
            return cloudpickle.loads(self.payload)
        except Exception as error:  # importing what the function needs is the user's own code
            raise InputError(
                f"the builder {self.text} can't be loaded in a worker process: {where(error)}"
            ) from error


def resolve(model: Any, options: Mapping[str, Any] | None = None) -> ModelSource:
    """Return the source that `model` (text or a callable) names.

    Raises: InputError: an unknown net (with the nearest), a builder or file that isn't there,
    options that aren't plain data. Refused: a model object: give its builder, or save it.

    >>> resolve("cnn", {"width": 8}).description
    'built-in net'
    """
    if isinstance(model, ModelSource):
        return model
    chosen = _plain_options(options or {})
    if isinstance(model, str):
        return _from_text(model, chosen)
    functions = (type, functools.partial)
    if callable(model) and (inspect.isroutine(model) or isinstance(model, functions)):
        return _from_function(model, chosen)
    raise Refused(
        f"compare needs a function that builds the model, because every run starts anew; got a "
        f"{type(model).__name__}. Give the builder itself, a saved .keras file, or a name from "
        "`relucate nets`."
    )


def _plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, checked: they are part of a run's hash and of the report."""
    if "order" in options:
        raise InputError(
            f"option order={options['order']!r} would give every arm the same order: name the "
            "orders to compare instead."
        )
    for name, value in options.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise InputError(
                f"option {name}={value!r} isn't plain data (text, finite number, True, False, "
                "None, or a list of such): name it by text and make the object in the builder."
            ) from None
    return dict(options)


def _from_text(text: str, options: dict[str, Any]) -> ModelSource:
    if text in nets.NETS:
        return ModelSource("net", text, nets.check_options(text, options))
    if text.endswith((".keras", ".h5")):
        return _from_saved(text, options)
    if ":" not in text:
        if text.endswith(".py"):
            raise InputError(f"'{text}' names a file: expected the builder too, as {text}:build.")
        error = unknown("net", text, nets.NETS)
        raise InputError(
            f"{error} Or name your own builder as file.py:build or package.module:build."
        )
    path = _path_part(text)
    if path is not None:
        if not path.is_file():
            raise InputError(f"no file '{path}': expected a Python file with the builder in it.")
        return ModelSource("file", f"{path}:{text.rpartition(':')[2]}", options, _digest(path))
    return ModelSource("module", text, options, _module_digest(text.rpartition(":")[0]))


def _from_saved(text: str, options: dict[str, Any]) -> ModelSource:
    path = Path(text)
    if path.suffix != ".keras":
        raise InputError(f"'{text}' is in an old format: load it in Keras and save it as .keras.")
    if not path.is_file():
        raise InputError(f"no file '{text}': expected a model saved as .keras.")
    if set(options) - {"bias"}:
        raise InputError(f"'{text}' is a file: its only option is bias, got {', '.join(options)}.")
    return ModelSource("saved", str(path.resolve()), options, _digest(path))


def _module_digest(name: str) -> str:
    _import_from_here()
    try:
        spec = importlib.util.find_spec(name)
    except Exception:  # it imports the parent package, which is the user's own code
        spec = None
    if spec is None:
        raise InputError(
            f"no module '{name}': expected package.module:builder that Python can import from "
            "here, or file.py:builder."
        )
    origin = Path(spec.origin) if spec.origin else None
    return _digest(origin) if origin is not None and origin.is_file() else ""


def _import_from_here() -> None:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def _from_function(function: Builder, options: dict[str, Any]) -> ModelSource:
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    name = f"{inner.__module__}.{getattr(inner, '__qualname__', 'builder')}"
    try:
        payload = _pickled(function, inner.__module__)
    except Exception as error:  # cloudpickle raises whatever the object's __reduce__ raises
        raise InputError(
            f"the builder {name} can't be sent to a worker process ({error}): make it a function "
            "at the top of a module."
        ) from None
    return ModelSource("function", name, options, code_digest(function), payload)


def _pickled(function: Builder, module: str | None) -> bytes:
    """Pickle a function: by name if a worker can import its module, else with its code."""
    import cloudpickle

    if module is None or module == "__main__" or _is_importable(module):
        return cloudpickle.dumps(function)
    cloudpickle.register_pickle_by_value(sys.modules[module])
    try:
        return cloudpickle.dumps(function)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[module])


def _is_importable(module: str) -> bool:
    """Say whether a fresh interpreter with this `sys.path` finds the same file by that name."""
    parts, path, spec = module.split("."), None, None
    for end in range(1, len(parts) + 1):
        spec = _find_spec(".".join(parts[:end]), path)
        if spec is None:
            return False
        path = spec.submodule_search_locations
    file = getattr(sys.modules.get(module), "__file__", None)
    return spec is not None and (file is None or spec.origin == file)


def _find_spec(name: str, path: Any) -> Any:
    """As importlib.util.find_spec, which trusts `sys.modules`."""
    specs = (finder.find_spec(name, path) for finder in sys.meta_path)
    return next((spec for spec in specs if spec is not None), None)


def _path_part(text: str) -> Path | None:
    head = text.rpartition(":")[0]
    return Path(head).resolve() if head.endswith(".py") else None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_callable(text: str) -> Builder:
    """Import `file.py:callable` or `package.module:callable` and return the callable.

    This runs the user's own code.
    """
    head, _, name = text.rpartition(":")
    path = _path_part(text)
    module = _import_file(path) if path is not None else _import_module(head)
    if not hasattr(module, name):
        raise unknown(f"builder in {head}", name, _callables(module) or ["nothing callable"])
    found = getattr(module, name)
    if not callable(found):
        kind = type(found).__name__
        raise InputError(f"'{text}' is of type {kind}; expected a function that builds.")
    return found


def import_user_module(text: str) -> Any:
    """Import a file or a module by name, which runs the user's own code, and return it."""
    return _import_file(Path(text)) if text.endswith(".py") else _import_module(text)


def _callables(module: Any) -> list[str]:
    """Return the names of what could be a builder, the module's own if it has any."""
    have = {n: v for n, v in vars(module).items() if not n.startswith("_") and callable(v)}
    own = [n for n, v in have.items() if getattr(v, "__module__", None) == module.__name__]
    return own or list(have)


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"no file '{path}': expected a Python file with the builder in it.")
    name = f"relucate_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"'{path}' can't be imported as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"'{path}' failed at import: {where(error)}") from error
    return module


def _import_module(name: str) -> Any:
    _import_from_here()
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise InputError(f"module '{name}' failed at import: {where(error)}") from error


def where(error: BaseException) -> str:
    """Return an error in one line with the user's line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    machinery = (str(Path(__file__).parents[1]) + os.sep, "<frozen importlib", importlib.__file__)
    own = [f for f in frames if not f.filename.startswith(machinery)]
    users = [f for f in own if not {"site-packages", "dist-packages"} & set(Path(f.filename).parts)]
    last = (users or own)[-1:]
    at = f" (line {last[0].lineno} of {last[0].filename})" if last else ""
    return f"{type(error).__name__}: {error}{at}"


_ALIASES = {"num_classes": "classes", "n_classes": "classes", "shape": "input_shape"}


def _arguments(
    builder: Builder,
    text: str,
    order: str,
    input_shape: tuple[int, ...],
    classes: int,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    parameters = _parameters(builder, text)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in options:
        if name not in parameters and not takes_all:
            raise unknown(f"option of builder '{text}'", name, parameters)
    given = {"order": order, "input_shape": input_shape, "classes": classes}
    if text.startswith("keras.applications:"):
        given["weights"] = None  # not the trained ones, which Keras would download
    names = ("order", *parameters) if takes_all else tuple(parameters)
    known = {name: _ALIASES.get(name, name) for name in names}
    arguments = {name: given[key] for name, key in known.items() if key in given} | dict(options)
    missing = [p.name for p in parameters.values() if _is_needed(p) and p.name not in arguments]
    if missing:
        raise InputError(
            f"the builder '{text}' needs {', '.join(missing)}: give them with --option NAME=VALUE "
            "(options={...} in Python), or a default."
        )
    return arguments


def _parameters(builder: Builder, text: str) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(builder).parameters
    except (TypeError, ValueError):
        raise InputError(
            f"'{text}' has no signature that Python can read: wrap it in a function that takes "
            "`order`."
        ) from None


def _takes_order(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return "order" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _is_needed(parameter: inspect.Parameter) -> bool:
    variable = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    return parameter.default is parameter.empty and not variable


def _call(builder: Builder, text: str, order: str, arguments: dict[str, Any]) -> Any:
    try:
        model = builder(**arguments)
    except RelucateError:
        raise
    except Exception as error:
        raise InputError(
            f"the builder '{text}' failed for order '{order}': {where(error)}"
        ) from error
    if model is None:
        raise InputError(
            f"the builder '{text}' returned None for order '{order}': return the model."
        )
    return model
