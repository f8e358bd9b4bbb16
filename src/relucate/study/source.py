"""Where a model builder comes from: a built-in net, `file.py:callable`, `module:callable`, or a
Python function; and how it is called in a worker process.

Loading user code runs it: only what the user named is loaded. Not here: what the arms are (`arms`).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import nets
from ..errors import InputError, Refused, RelucateError, unknown

Builder = Callable[..., Any]


@dataclass(frozen=True)
class ModelSource:
    """A builder that can travel to another process, and what identifies it.

    kind: net | file | module | function; text: as the user named it; options: extra keyword
    arguments; digest: of the builder's source file or code; payload: a pickled function.
    """

    kind: str
    text: str
    options: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    payload: bytes = b""

    def identity(self) -> dict[str, Any]:
        """Return what a run's hash knows of the builder."""
        return {
            "kind": self.kind,
            "name": self.text,
            "options": dict(self.options),
            "digest": self.digest,
        }

    @property
    def description(self) -> str:
        """A word for reports."""
        return "built-in net" if self.kind == "net" else f"builder ({self.kind})"

    def build(self, order: str, input_shape: tuple[int, ...], classes: int) -> Any:
        """Build the model in `order` and return it: Keras model or torch module."""
        if self.kind == "net":
            return nets.build(self.text, order, input_shape, classes, **self.options)
        builder = self._load()
        arguments = _arguments(builder, self.text, order, input_shape, classes, self.options)
        return _call(builder, self.text, order, arguments)

    def _load(self) -> Builder:
        if self.kind == "function":
            import cloudpickle

            return cloudpickle.loads(self.payload)
        return load_callable(self.text)


def resolve(model: Any, options: Mapping[str, Any] | None = None) -> ModelSource:
    """Return the source that `model` (text or a callable) names.

    Raises: InputError: an unknown net (with the nearest), a builder that can't be imported or isn't
    callable. Refused: a model file or object, which would have to be rebuilt in the other order.
    """
    chosen = dict(options or {})
    if isinstance(model, ModelSource):
        return model
    if isinstance(model, str):
        return _from_text(model, chosen)
    if callable(model) and (inspect.isroutine(model) or isinstance(model, type)):
        return _from_function(model, chosen)
    raise Refused(
        f"compare needs a function that builds the model and takes `order`; got a "
        f"{type(model).__name__}. Give the builder itself, or a name from `relucate nets`."
    )


def _from_text(text: str, options: dict[str, Any]) -> ModelSource:
    if text in nets.NETS:
        return ModelSource("net", text, nets.check_options(text, options))
    if text.endswith((".keras", ".h5")):
        raise Refused(
            f"'{text}' is a saved model: compare needs a builder that takes `order` "
            "(file.py:build), because a saved model would have to be rebuilt in the other order."
        )
    if ":" not in text:
        error = unknown("net", text, nets.NETS)
        raise InputError(f"{error} Or name your own builder as file.py:build or package.module:build.")
    path = _path_part(text)
    if path is not None:
        if not path.is_file():
            raise InputError(f"no file '{path}': expected a Python file with the builder in it.")
        return ModelSource("file", f"{path}:{text.rpartition(':')[2]}", options, _digest(path))
    return ModelSource("module", text, options, _module_digest(text.rpartition(":")[0]))


def _module_digest(name: str) -> str:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise InputError(
            f"no module '{name}': expected package.module:builder that Python can import from "
            "here, or file.py:builder."
        )
    origin = Path(spec.origin) if spec.origin else None
    return _digest(origin) if origin is not None and origin.is_file() else ""


def _from_function(function: Builder, options: dict[str, Any]) -> ModelSource:
    import cloudpickle

    name = f"{function.__module__}.{getattr(function, '__qualname__', 'builder')}"
    try:
        payload = cloudpickle.dumps(function)
    except Exception as error:  # cloudpickle raises whatever the object's __reduce__ raises
        raise InputError(
            f"the builder {name} can't be sent to a worker process ({error}): make it a function "
            "at the top of a module."
        ) from None
    try:
        code = inspect.getsource(function)
    except (OSError, TypeError):
        code = repr(getattr(function, "__code__", function))
    digest = hashlib.sha256(code.encode()).hexdigest()
    return ModelSource("function", name, options, digest, payload)


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
        have = [n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n))]
        raise unknown(f"builder in {head}", name, have or ["nothing callable"])
    found = getattr(module, name)
    if not callable(found):
        raise InputError(f"'{text}' is a {type(found).__name__}, expected a function that builds.")
    return found


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
        raise InputError(f"'{path}' failed at import: {_where(error)}") from error
    return module


def _import_module(name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise InputError(f"module '{name}' failed at import: {_where(error)}") from error


def _where(error: BaseException) -> str:
    """Return an error in one line with the user's line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "importlib" not in f.filename and "relucate" not in f.filename]
    at = f" (line {own[-1].lineno} of {own[-1].filename})" if own else ""
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
    parameters = inspect.signature(builder).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if "order" not in parameters and not takes_all:
        raise Refused(
            f"the builder '{text}' takes no `order`: give it a parameter `order` that says where "
            "the norm goes (and pass it on, for example, to relucate.keras.conv2d_bn)."
        )
    given = {"order": order, "input_shape": input_shape, "classes": classes}
    arguments = {"order": order}
    for name in parameters:
        key = _ALIASES.get(name, name)
        if key in given:
            arguments[name] = given[key]
    for name in options:
        if name not in parameters and not takes_all:
            raise unknown(f"option of builder '{text}'", name, parameters)
    arguments |= options
    missing = [
        p.name
        for p in parameters.values()
        if p.default is p.empty
        and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        and p.name not in arguments
    ]
    if missing:
        raise InputError(
            f"the builder '{text}' needs {', '.join(missing)}: give them with --option NAME=VALUE "
            "(options={...} in Python), or a default."
        )
    return arguments


def _call(builder: Builder, text: str, order: str, arguments: dict[str, Any]) -> Any:
    try:
        model = builder(**arguments)
    except RelucateError:
        raise
    except Exception as error:
        raise InputError(
            f"the builder '{text}' failed for order '{order}': {_where(error)}"
        ) from error
    if model is None:
        raise InputError(f"the builder '{text}' returned None for order '{order}': return the model.")
    return model
