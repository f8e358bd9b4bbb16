"""The builder of a comparison's arms: builds what MODEL or a Python function gives, in any order.

It can be sent to a worker process, and knows its identity. Not here: what MODEL means
(`nets.models`), importing and calling the user's code (`nets.user_code`), the arms (`arms`).
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import nets
from ..arguments import mapping
from ..errors import InputError, Refused
from ..frameworks import FRAMEWORKS, imported, named, owner
from ..nets.models import APPLICATIONS, load_saved, meaning
from ..nets.user_code import (
    arguments,
    call,
    import_user_module,
    load_callable,
    module_file,
    parameters,
    reported,
    takes_all,
)
from .identity import reached
from .pickling import pickled
from .rebuilding import Made, rebuilt
from .user_files import imports, module_files

Builder = Callable[..., Any]


@dataclass(frozen=True)
class ModelSource:
    """A builder that can be sent to another process, and its identity.

    kind: net | file | module | function | saved; text: as the user named it; options: extra keyword
    arguments; digest: of the builder's source file or code; payload: a pickled function, or the
    content of its file; norms: eps and momentum that every arm's norms are given; imports: the
    user's files and modules to import first, because they register a saved model's custom objects;
    settings: by framework, what the user set in the process where a function was given, such as
    Keras's dtype policy; files: sha256 of the user's files that a worker process will import, by
    path; values: what a given function reads in modules, as text, by module.name.
    """

    kind: str
    text: str
    options: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    payload: bytes = b""
    norms: Mapping[str, float] = field(default_factory=dict)
    imports: tuple[str, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """Return the builder's part of a run's hash."""
        return {
            "kind": self.kind,
            "name": self.text,
            "options": dict(self.options),
            "digest": self.digest,
            **({"norms": dict(self.norms)} if self.norms else {}),
            **({"settings": dict(self.settings)} if self.settings else {}),
            **(
                {"imports": [_imported_digest(name) for name in self.imports]}
                if self.imports
                else {}
            ),
        }

    @property
    def description(self) -> str:
        """A description for reports."""
        words = {"net": "built-in net", "saved": "saved model, rebuilt"}
        return words.get(self.kind, f"builder ({self.kind})")

    def build(self, order: str, input_shape: tuple[int, ...], classes: int) -> Any:
        """Build the model in `order` and return it: Keras model or torch module."""
        return self.build_noted(order, input_shape, classes).model

    def build_noted(self, order: str, input_shape: tuple[int, ...], classes: int) -> Made:
        """Return the model in `order`, and a note on it.

        A saved model, and the model of a builder without `order`, is rebuilt in that order.
        """
        if self.kind == "net":
            return Made(nets.build(self.text, order, input_shape, classes, **self.options))
        self._import()
        if self.kind == "saved":
            self.check_files()
            model, _ = load_saved(Path(self.text), compiled=True)
            return rebuilt(model, order, input_shape, trained=True, **self.options)
        builder = self.load()
        options, own = dict(self.options), {}
        if self.equal_biases():
            own = {"bias": options.pop("bias", "rule")}
        offered = {"order": order, "input_shape": input_shape, "classes": classes}
        if self.text.startswith(APPLICATIONS):
            offered["weights"] = None  # not the trained ones, which Keras would download
        given = arguments(builder, self.text, offered, options)
        model = call(builder, f"the builder '{self.text}'", given, f" for order '{order}'")
        if _takes_order(builder, self.text):
            return Made(model)
        return rebuilt(model, order, input_shape, **own)

    def equal_biases(self) -> str:
        """Return the option `bias` that gives every order the same biases; "" if there is none.

        This imports the builder.
        """
        if self.kind == "net":
            return "always" if "bias" in nets.options(self.text) else ""
        if self.kind == "saved":
            return "keep"
        builder = self.load()
        fixed = _takes_order(builder, self.text) or "bias" in parameters(builder, self.text)
        return "" if fixed else "keep"

    def code(self, loaded: Builder | None = None) -> str:
        """Return a digest of the builder's code and of the user's code that it reaches.

        This imports the builder, unless it is `loaded`. Empty for a built-in net, which the version
        identifies, and for a saved model.

        Raises: InputError: this process doesn't have the values that a given function reads.
        """
        if self.kind in {"net", "saved"}:
            return ""
        found = reached(loaded or self.load())
        for name in sorted(self.values.keys() & found.values.keys()):
            if found.values[name] in (self.values[name], "[]"):  # empty: a cache that fills
                continue
            raise InputError(
                f"{name} is {_shown(self.values[name])} where '{self.text}' was given, and "
                f"{_shown(found.values[name])} in a worker process, which imports the module from "
                "its file: give what changes as an argument of the function (options=, vary=), or "
                "change it in the file."
            )
        return found.digest

    def check_files(self) -> None:
        """Check that the user's files are those of the study's start; call it after the import.

        Raises: InputError: one of them was changed: its runs must not count as runs of this study.
        """
        for path, digest in self.files.items():
            if Path(path).is_file() and _file_digest(Path(path)) != digest:
                raise InputError(
                    f"'{path}' was changed while the study ran, and a run needs it again. Finished "
                    "runs are kept. The same command now compares the changed code."
                )

    def _import(self) -> None:
        for name in self.imports:
            import_user_module(name)

    def set_up(self) -> None:
        """Give this process the settings of the one where the function was given."""
        for name, settings in self.settings.items():
            named(name).use_settings(settings)

    def load(self) -> Builder:
        """Import or unpickle the function, which runs the user's own code, and return it."""
        self._import()
        if self.kind != "function":
            found = load_callable(self.text, self.payload or None)
            if owner(found) is not None:
                raise _no_function(found)
            return found
        import cloudpickle

        self.set_up()
        # This imports what the function needs, which runs the user's own code.
        with reported(f"'{self.text}' can't be loaded in a worker process"):
            return cloudpickle.loads(self.payload)


def resolve(
    model: Any, options: Mapping[str, Any] | None = None, imports: Sequence[str] = ()
) -> ModelSource:
    """Return the source that `model` (text or a callable) names.

    Args: options: keyword arguments of the builder; imports: files or modules to import first.

    Raises: InputError: an unknown net, a missing builder or file, options that aren't plain data.
    Refused: a model object: give its builder, or save it.

    >>> resolve("cnn", {"width": 8}).description
    'built-in net'
    """
    if isinstance(model, ModelSource):
        return model
    chosen = _plain_options(mapping(options, "options"))
    if isinstance(model, str):
        for name in imports:
            import_user_module(name)
        paths = (str(Path(name).resolve()) if name.endswith(".py") else name for name in imports)
        return replace(_from_text(model, chosen), imports=tuple(paths))
    if is_function(model):
        return _from_function(model, chosen)
    raise _no_function(model)


def is_function(thing: object) -> bool:
    """Return whether a thing is a function, method, class or partial: not an object with a call."""
    functions = (type, functools.partial)
    return callable(thing) and (inspect.isroutine(thing) or isinstance(thing, functions))


def _no_function(model: object) -> Refused:
    return Refused(
        "compare needs a function that builds the model, because every run starts from scratch; "
        f"got a {type(model).__name__}. Give the builder itself, a saved .keras file, or a name "
        "from `relucate nets`."
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
                "None, or a list of such): name it by text and make the object in the function."
            ) from None
    return dict(options)


def _from_text(text: str, options: dict[str, Any]) -> ModelSource:
    found = meaning(text)
    if found.kind == "net":
        return ModelSource("net", text, nets.check_options(text, options))
    content = b"" if found.path is None else found.path.read_bytes()
    digest = "" if found.path is None else hashlib.sha256(content).hexdigest()
    if found.kind == "saved":
        if set(options) - {"bias"}:
            named = ", ".join(options)
            raise InputError(f"'{text}' is a file: its only option is bias, got {named}.")
        path = str(Path(text).resolve())
        return ModelSource("saved", path, options, digest, files={path: digest})
    if found.kind == "file" and found.path:  # the worker's folder may be another one
        files = _imported_files(content, found.path)
        return ModelSource(
            "file", f"{found.path}:{found.name}", options, digest, content, files=files
        )
    files, _ = module_files([text.rpartition(":")[0]])
    return ModelSource("module", text, options, digest, files=files)


def _imported_files(content: bytes, path: Path) -> dict[str, str]:
    """Return the sha256 of the user's files that a file imports, by path."""
    folder = str(path.parent)
    sys.path.insert(0, folder)
    try:
        return module_files(imports(content, ""))[0]
    finally:
        sys.path.remove(folder)


def _from_function(function: Builder, options: dict[str, Any]) -> ModelSource:
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    name = f"{inner.__module__}.{getattr(inner, '__qualname__', 'builder')}"
    try:
        payload = pickled(function, inner.__module__)
    except Exception as error:  # any error of an object's __reduce__
        raise InputError(
            f"'{name}' can't be sent to a worker process ({error}): make it a function at the top "
            "of a module."
        ) from None
    found = ((each, named(each).settings()) for each in sorted(imported() & FRAMEWORKS.keys()))
    settings = {each: values for each, values in found if values}
    known = reached(function)
    return ModelSource(
        "function",
        name,
        options,
        known.digest,
        payload,
        settings=settings,
        files=known.files,
        values=known.values,
    )


def _imported_digest(name: str) -> str:
    path = Path(name) if name.endswith(".py") else module_file(name)
    return "" if path is None else _file_digest(path)


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _shown(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _takes_order(builder: Builder, text: str) -> bool:
    taken = parameters(builder, text)
    return "order" in taken or takes_all(taken)
