"""The user's own code: importing it, calling it, and finding the line that failed.

Loading user code runs it, so only code that the user named is loaded. A builder that ends the
program (`sys.exit`) has failed: a check that ran nothing must not look like success. Called by
`models` and by a study's `source`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import io
import linecache
import os
import sys
import tokenize
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

from ..errors import InputError, RelucateError, unknown

_ALIASES = {"num_classes": "classes", "n_classes": "classes", "shape": "input_shape"}
_OWN = " A function that trains by itself and returns its score is given by --run (run=)."
_SUCH_AS = {"order": "before", "input_shape": "'[32,32,3]'", "classes": "10"}


def path_part(text: str) -> Path | None:
    """Return the file of `file.py:callable`, None for `package.module:callable`."""
    head = text.rpartition(":")[0]
    return Path(head).resolve() if head.endswith(".py") else None


def names_code(text: str) -> bool:
    """Return whether text is `file.py:name`, or `package.module:name` of a module that exists.

    >>> names_code("data.py:load"), names_code("json.decoder:scanner"), names_code("folder:images")
    (True, True, False)
    """
    if path_part(text) is not None:
        return True
    head, colon, name = text.partition(":")
    if not colon or not all(part.isidentifier() for part in (*head.split("."), name)):
        return False
    _import_from_here()
    top = head.partition(".")[0]
    return top in sys.modules or importlib.util.find_spec(top) is not None


def user_data(text: str) -> Any:
    """Import `file.py:name` or `package.module:name` and return the data that it is or returns.

    This runs the user's own code.
    Raises: InputError: the function needs arguments, fails or returns None.
    """
    found = _named(text)
    if not callable(found):
        return found
    missing = [p.name for p in parameters(found, text).values() if _is_needed(p)]
    if missing:
        raise InputError(
            f"'{text}' needs the arguments {', '.join(missing)}: data are a value, or what a "
            "function returns that needs none."
        )
    return _called(found, f"'{text}'", {}, "", "data")


def load_callable(text: str, content: bytes | None = None) -> Callable[..., Any]:
    """Import `file.py:callable` or `package.module:callable` and return the callable.

    This runs the user's own code. content: of the file, None: what it holds now.
    """
    found = _named(text, content)
    if not callable(found):
        kind = type(found).__name__
        raise InputError(f"'{text}' is of type {kind}; expected a function.")
    return found


def _named(text: str, content: bytes | None = None) -> Any:
    head, _, name = text.rpartition(":")
    path = path_part(text)
    module = _import_file(path, content) if path is not None else _import_module(head)
    if not hasattr(module, name):
        raise unknown(f"function in {head}", name, _callables(module) or ["nothing callable"])
    return getattr(module, name)


def import_user_module(text: str) -> Any:
    """Import a file or a module by name, which runs the user's own code, and return it."""
    return _import_file(Path(text)) if text.endswith(".py") else _import_module(text)


def module_file(name: str) -> Path | None:
    """Return the file of a module, None if it has none. The parents of the module are imported.

    Raises: InputError: there is no such module.
    """
    _import_from_here()
    try:
        spec = importlib.util.find_spec(name)
    except (Exception, SystemExit):  # it imports the parent package, the user's own code
        spec = None
    if spec is None:
        raise InputError(
            f"no module '{name}': expected package.module:function that Python can import "
            "from here, or file.py:function."
        )
    origin = Path(spec.origin) if spec.origin else None
    return origin if origin is not None and origin.is_file() else None


def check_file(path: Path) -> None:
    """Raise InputError unless `path` is a file."""
    if not path.is_file():
        raise InputError(f"no file '{path}': expected a Python file with the function in it.")


def _callables(module: Any) -> list[str]:
    """Return the names that could be builders: the module's own if it has any, else all."""
    have = {n: v for n, v in vars(module).items() if not n.startswith("_") and callable(v)}
    own = [n for n, v in have.items() if getattr(v, "__module__", None) == module.__name__]
    return own or list(have)


def _import_file(path: Path, content: bytes | None = None) -> Any:
    if content is None:
        check_file(path)
        content = path.read_bytes()
    name = f"relucate_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"'{path}' can't be imported as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    with reported(f"'{path}' failed at import"):
        try:
            exec(_compiled(content, str(path)), vars(module))
        except BaseException:
            del sys.modules[name]
            raise
    return module


def _compiled(content: bytes, path: str) -> CodeType:
    """Compile this content, and not the file, which may have been edited since it was read."""
    code = compile(content, path, "exec", dont_inherit=True)
    lines = io.TextIOWrapper(
        io.BytesIO(content), tokenize.detect_encoding(io.BytesIO(content).readline)[0]
    )
    linecache.cache[path] = len(content), None, lines.readlines(), path  # for inspect.getsource
    return code


def _import_module(name: str) -> Any:
    _import_from_here()
    with reported(f"module '{name}' failed at import"):
        return importlib.import_module(name)


def _import_from_here() -> None:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


@contextmanager
def reported(problem: str, but: Any = ()) -> Iterator[None]:
    """Turn an error of the user's code into an InputError: `problem`, the error, the user's line.

    `sys.exit` counts as an error; Ctrl-C doesn't; errors of the class `but` stay as they are. A
    child process that the code forked ends here: it must not do the same work a second time.
    """
    process = os.getpid()
    try:
        yield
    except but:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{problem}: {where(error)}") from error
    finally:
        if os.getpid() != process:
            os._exit(0)


def where(error: BaseException) -> str:
    """Return an error as one line, with the place in the user's code that raised it."""
    at = place(error)
    if isinstance(error, SystemExit):
        code = "" if error.code is None else repr(error.code)
        return f"it called sys.exit({code}){at}, which would end the program without a result"
    if isinstance(error, ImportError) and "attempted relative import" in str(error):
        at += ": with relative imports, name it as package.module:function instead of its file"
    return f"{type(error).__name__}: {error}{at}"


def place(error: BaseException) -> str:
    """Return the place in the user's code that raised an error, in parentheses; "" if unknown."""
    frames = traceback.extract_tb(error.__traceback__)
    machinery = (str(Path(__file__).parents[1]) + os.sep, "<frozen importlib", importlib.__file__)
    own = [f for f in frames if not f.filename.startswith(machinery)]
    users = [f for f in own if not {"site-packages", "dist-packages"} & set(Path(f.filename).parts)]
    last = (users or own)[-1:]
    return f" (line {last[0].lineno} of {last[0].filename})" if last else ""


def parameters(builder: Callable[..., Any], text: str) -> Mapping[str, inspect.Parameter]:
    """Return a builder's parameters by name.

    Raises: InputError: Python can't read its signature.
    """
    try:
        return inspect.signature(builder).parameters
    except (TypeError, ValueError):
        raise InputError(
            f"'{text}' has no signature that Python can read: wrap it in a function of your own."
        ) from None


def takes_all(taken: Mapping[str, inspect.Parameter]) -> bool:
    """Return whether a builder takes any keyword argument (**options)."""
    return any(p.kind is p.VAR_KEYWORD for p in taken.values())


def arguments(
    builder: Callable[..., Any], text: str, offered: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the keyword arguments for a builder: those of `offered` that it takes, all `options`.

    Args:
        offered: arguments by our names (order, input_shape, classes, ...); the builder may call
            them num_classes, n_classes or shape.
        options: the user's own, which override `offered`.
    Raises: InputError: an option that it doesn't take, or a required argument that is missing.
    """
    taken = parameters(builder, text)
    for name in options:
        if name not in taken and not takes_all(taken):
            raise unknown(f"option of '{text}'", name, taken or ["(it takes none)"])
    names = ("order", *taken) if takes_all(taken) else tuple(taken)
    known = {name: _ALIASES.get(name, name) for name in names}
    given = {name: offered[key] for name, key in known.items() if key in offered} | dict(options)
    missing = [p.name for p in taken.values() if _is_needed(p) and p.name not in given]
    if missing:
        shown = " ".join(f"-O {name}={_SUCH_AS.get(known[name], '...')}" for name in missing)
        raise InputError(
            f"'{text}' needs the arguments {', '.join(missing)}: give them as {shown} (options="
            f"{{...}} in Python), or give them defaults.{_OWN if 'seed' in missing else ''}"
        )
    return given


def _is_needed(parameter: inspect.Parameter) -> bool:
    variable = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    return parameter.default is parameter.empty and not variable


def call(builder: Callable[..., Any], what: str, given: Mapping[str, Any], when: str = "") -> Any:
    """Call a builder and return its model; what and when are for the message if it fails."""
    return _called(builder, what, given, when, "model")


def _called(
    function: Callable[..., Any], what: str, given: Mapping[str, Any], when: str, wanted: str
) -> Any:
    with reported(f"{what} failed{when}", but=RelucateError):  # from our blocks in the user's net
        found = function(**given)
    if found is None:
        raise InputError(f"{what} returned None{when}: return the {wanted}.")
    return found
