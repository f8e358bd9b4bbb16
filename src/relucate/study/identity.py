"""The identity of a piece of the user's code: not its file or its address, but what it does.

Bytecode, constants, defaults, closures, and the user's own functions, classes and values that it
reaches; the user's modules count by their files, with the modules that these import. Installed
packages count only by name, because a run's versions identify them. Called by `source` (a
builder's digest), `own` (the packages of a training) and `fingerprint` (are two built models the
same?).
"""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
_CONSTANT = (tuple, frozenset, CodeType)
_DEPTH = 12  # of nested objects: deeper ones count only by their types


def code_digest(thing: Any) -> str:
    """Return a sha256 (hex) of what a function, class or value does; the same in every process.

    Line numbers, comments and the places of docstrings don't count; constants, closures and the
    user's own functions that it calls do.

    >>> code_digest({"width": 8}) == code_digest({"width": 8}) != code_digest({"width": 16})
    True
    """
    return hashlib.sha256(repr(_Described().of(thing)).encode()).hexdigest()


def packages(thing: Any) -> set[str]:
    """Return the installed packages that a function, class or value reaches, by top-level name.

    They may not be imported yet: an import inside a function counts.

    >>> packages(np.sin)
    {'numpy'}
    """
    described = _Described()
    described.of(thing)
    named = {name.partition(".")[0] for name in described.packages}
    return named - set(sys.stdlib_module_names) - {""}


class _Described:
    """One description: nested tuples of text. Objects seen before become references."""

    def __init__(self) -> None:
        self.packages: set[str] = set()  # modules that aren't the user's
        self.seen: dict[int, int] = {}
        self.kept: list[Any] = []  # keeps the objects alive, so that no id is used twice

    def of(self, thing: Any, depth: int = 0) -> Any:
        """Return the description of anything."""
        if isinstance(thing, _PLAIN):
            return type(thing).__name__, repr(thing)
        if not isinstance(thing, _CONSTANT):  # equal constants may or may not be one object
            if id(thing) in self.seen:
                return "again", self.seen[id(thing)]
            self.seen[id(thing)] = len(self.seen)
            self.kept.append(thing)
        if depth > _DEPTH:
            return "deep", _name(type(thing))
        found = next((d for kind, d in _DESCRIBERS if isinstance(thing, kind)), _Described._object)
        return found(self, thing, depth + 1)

    def _all(self, things: Any, depth: int) -> tuple[Any, ...]:
        return tuple(self.of(thing, depth) for thing in things)

    def _items(self, mapping: Mapping[Any, Any], depth: int) -> tuple[Any, ...]:
        pairs = sorted(mapping.items(), key=lambda item: str(item[0]))
        return tuple((str(key), self.of(value, depth)) for key, value in pairs)

    def _sequence(self, thing: Any, depth: int) -> Any:
        return type(thing).__name__, self._all(thing, depth)

    def _set(self, thing: Any, depth: int) -> Any:
        return type(thing).__name__, self._all(sorted(thing, key=repr), depth)

    def _mapping(self, thing: Any, depth: int) -> Any:
        return "mapping", self._items(thing, depth)

    def _array(self, thing: Any, depth: int) -> Any:
        digest = hashlib.sha256(np.ascontiguousarray(thing).tobytes()).hexdigest()
        return "array", str(thing.dtype), thing.shape, digest

    def _code(self, thing: Any, depth: int) -> Any:
        names = (thing.co_names, thing.co_varnames, thing.co_freevars, thing.co_flags)
        steps = dis.get_instructions(thing)
        imported = [step.argval for step in steps if step.opname == "IMPORT_NAME"]
        files = [digest for name in imported if (digest := self._files(name))]
        own = (self._all(thing.co_consts, depth), files) if files else ()
        return "code", thing.co_code.hex(), names, own or self._all(thing.co_consts, depth)

    def _module(self, thing: Any, depth: int) -> Any:
        return "module", self._files(thing.__name__) or thing.__name__

    def _files(self, name: str) -> str:
        """Return a digest of a module of the user's; "", and note the package, for any other."""
        digest, installed = _module_digest(name)
        self.packages |= installed
        return digest

    def _function(self, thing: Any, depth: int) -> Any:
        if not _is_own(thing.__module__):
            self.packages.add(thing.__module__)
            return "function", _name(thing)
        cells = [_cell(cell) for cell in thing.__closure__ or ()]
        held = (thing.__code__, thing.__defaults__, thing.__kwdefaults__, cells)
        reached = {name: thing.__globals__[name] for name in _globals(thing)}
        return "function", self._all(held, depth), self._items(reached, depth)

    def _method(self, thing: Any, depth: int) -> Any:
        return "method", self._all((thing.__func__, thing.__self__), depth)

    def _partial(self, thing: Any, depth: int) -> Any:
        return "partial", self._all((thing.func, thing.args, thing.keywords), depth)

    def _wrapped(self, thing: Any, depth: int) -> Any:
        return type(thing).__name__, self.of(thing.__func__, depth)

    def _property(self, thing: Any, depth: int) -> Any:
        return "property", self._all((thing.fget, thing.fset), depth)

    def _class(self, thing: Any, depth: int) -> Any:
        if not _is_own(thing.__module__):
            self.packages.add(thing.__module__)
            return "class", _name(thing)
        bases = self._all(thing.__bases__, depth)
        members = {name: value for name, value in vars(thing).items() if name not in _IGNORED}
        return "class", thing.__qualname__, bases, self._items(members, depth)

    def _object(self, thing: Any, depth: int) -> Any:
        if hasattr(thing, "__array__") and not isinstance(thing, type):
            try:
                return self._array(np.asarray(thing), depth)
            except Exception:  # __array__ is the user's or a framework's code
                return "object", _name(type(thing))
        kind = self.of(type(thing), depth)
        return "object", kind, self._items(getattr(thing, "__dict__", {}), depth)


_DESCRIBERS: tuple[tuple[Any, Callable[..., Any]], ...] = (
    ((tuple, list), _Described._sequence),
    ((set, frozenset), _Described._set),
    (Mapping, _Described._mapping),
    (np.ndarray, _Described._array),
    (ModuleType, _Described._module),
    (CodeType, _Described._code),
    (FunctionType, _Described._function),
    (MethodType, _Described._method),
    (BuiltinFunctionType, lambda _, thing, depth: ("builtin", _name(thing))),
    (functools.partial, _Described._partial),
    ((staticmethod, classmethod), _Described._wrapped),
    (property, _Described._property),
    (type, _Described._class),
)
_IGNORED = frozenset(
    "__dict__ __weakref__ __doc__ __module__ __firstlineno__ __static_attributes__ __slotnames__ "
    "__annotations__ _abc_impl".split()
)


def _name(thing: Any) -> str:
    name = getattr(thing, "__qualname__", getattr(thing, "__name__", ""))
    return f"{getattr(thing, '__module__', '')}.{name}"


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty: a function that refers to itself before it is bound
        return None


def _globals(function: FunctionType) -> list[str]:
    """Return the names of the globals that a function (with the functions inside it) reads."""
    names = {
        step.argval
        for code in _codes(function.__code__)
        for step in dis.get_instructions(code)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    return sorted(name for name in names if name in function.__globals__)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


@functools.cache
def _is_own(module: str | None) -> bool:
    """Return whether a module is the user's: not an installed package or the standard library."""
    if module is None or module == "__main__":
        return True
    if module.partition(".")[0] == __name__.partition(".")[0]:
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return module not in sys.builtin_module_names
    return _is_own_file(Path(file))


def _is_own_file(path: Path) -> bool:
    path = path.resolve()
    standard = {Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib")}
    installed = {"site-packages", "dist-packages"}.intersection(path.parts)
    ours = Path(__file__).parents[1]
    return not installed and standard.union({ours}).isdisjoint(path.parents)


def _module_digest(name: str) -> tuple[str, set[str]]:
    """Return a sha256 of a module's file and of all files of the user's that it imports.

    The files are read, not imported: the digest doesn't depend on what has been imported already.

    Returns: the digest, "" if the module isn't the user's; the other packages that they import.
    """
    files: dict[Path, str] = {}
    others, waiting = set(), [name]
    while waiting:
        name = waiting.pop()
        path = _own_file(name)
        if path is None:
            top = name.partition(".")[0]
            others |= set() if _own_file(top) else {top}
        elif path not in files:
            content = path.read_bytes()
            files[path] = hashlib.sha256(content).hexdigest()
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            waiting += _imports(content, package)
    digest = hashlib.sha256("".join(sorted(files.values())).encode()).hexdigest()
    return digest if files else "", others


def _own_file(name: str) -> Path | None:
    """Return the Python file of a module of the user's, None for any other module."""
    if name.partition(".")[0] in {*sys.stdlib_module_names, __name__.partition(".")[0]}:
        return None
    spec = find_spec(name)
    origin = spec.origin if spec else getattr(sys.modules.get(name), "__file__", None)
    path = Path(origin) if origin and origin.endswith(".py") else None
    return path if path and path.is_file() and _is_own_file(path) else None


def _imports(content: bytes, package: str) -> Iterator[str]:
    """Yield the absolute names of what a file of a package imports, at any depth."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # it fails when it is imported
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (package or not node.level):
            text = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(text, package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def find_spec(name: str) -> Any:
    """Like importlib.util.find_spec, but without imports and without a look into `sys.modules`."""
    parts, path, spec = name.split("."), None, None
    for end in range(1, len(parts) + 1):
        places = (finder.find_spec(".".join(parts[:end]), path) for finder in sys.meta_path)
        spec = next((found for found in places if found is not None), None)
        if spec is None:
            return None
        path = spec.submodule_search_locations
        if path is None and end < len(parts):
            return None
    return spec
