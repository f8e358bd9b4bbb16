"""The identity of a piece of the user's code: not its file or its address, but what it does.

Bytecode, constants, defaults, closures, and the user's own functions, classes and values that it
reaches; the user's modules count by their files, with the modules that these import. Installed
packages count only by name, because a run's versions identify them. Called by `source` (a
builder's digest, and whether a worker process has the same code), `own` (the packages of a
training) and `fingerprint` (are two built models the same?).
"""

from __future__ import annotations

import ast
import copyreg
import dis
import functools
import hashlib
import importlib.util
import itertools
import os
import sys
import sysconfig
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
_CONSTANT = (tuple, frozenset, CodeType)
_LEVELS = (
    12  # of objects of installed packages in each other: deeper ones count only by their types
)


def code_digest(thing: Any) -> str:
    """Return a sha256 (hex) of what a function, class or value does; the same in every process.

    Line numbers, comments and the places of docstrings don't count; constants, closures and the
    user's own functions that it calls do.

    >>> code_digest({"width": 8}) == code_digest({"width": 8}) != code_digest({"width": 16})
    True
    """
    return reached(thing).digest


@dataclass(frozen=True)
class Reached:
    """What a function, class or value is, and what it reaches.

    digest: as from `code_digest`; files: sha256 of the user's files, by path; values: the plain
    values that it reads in modules and classes, as text, by module.name.
    """

    digest: str
    files: dict[str, str]
    values: dict[str, str]


def reached(thing: Any) -> Reached:
    """Return the identity of a function, class or value, with its files and values.

    >>> reached(reached).digest == code_digest(reached)
    True
    """
    described = _Described()
    text = repr(described.all_of(thing))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Reached(digest, described.files, described.values)


def packages(thing: Any) -> set[str]:
    """Return the installed packages that a function, class or value reaches, by top-level name.

    They may not be imported yet: an import inside a function counts.

    >>> packages(np.sin)
    {'numpy'}
    """
    described = _Described()
    described.all_of(thing)
    named = {name.partition(".")[0] for name in described.packages}
    return named - set(sys.stdlib_module_names) - {""}


class _Described:
    """One description: nested tuples of text. Objects are numbered, nearest first.

    Without recursion, so that no chain of functions is too long to be followed.
    """

    def __init__(self) -> None:
        self.packages: set[str] = set()  # modules that aren't the user's
        self.modules: dict[str, str] = {}  # digests, by name; "" of those that aren't the user's
        self.files: dict[str, str] = {}
        self.values: dict[str, str] = {}
        self.numbers: dict[int, int] = {}  # by id
        self.kept: list[Any] = []  # keeps the objects alive, so that no id is used twice
        self.waiting: deque[tuple[Any, int]] = deque()
        self.level = 0  # of the object that is being described, in those of installed packages

    def all_of(self, thing: Any) -> tuple[Any, ...]:
        """Return the description of anything and of everything that it reaches."""
        found = [self.of(thing)]
        while self.waiting:
            thing, self.level = self.waiting.popleft()
            describe = next((d for kind, d in _DESCRIBERS if isinstance(thing, kind)), None)
            found.append((describe or _Described._object)(self, thing))
        return tuple(found)

    def of(self, thing: Any) -> Any:
        """Return a plain value, or the number of an object, which is described later."""
        if type(thing) in _PLAIN:
            return type(thing).__name__, repr(thing)
        if type(thing) in _CONSTANT:  # equal constants may or may not be one object
            return next(d for kind, d in _DESCRIBERS if isinstance(thing, kind))(self, thing)
        if self.level > _LEVELS:
            return "deep", _name(type(thing))
        number = self.numbers.setdefault(id(thing), len(self.numbers))
        if number == len(self.kept):
            self.kept.append(thing)
            self.waiting.append((thing, self.level))
        return "number", number

    def _all(self, things: Any) -> tuple[Any, ...]:
        return tuple(self.of(thing) for thing in things)

    def _items(self, named: Mapping[str, Any]) -> tuple[Any, ...]:
        """Describe attributes or globals, whose order doesn't count."""
        return tuple((name, self.of(named[name])) for name in sorted(named, key=str))

    def _kind(self, thing: Any) -> Any:
        """Describe what a container or plain value of the user's own class has besides."""
        if type(thing).__module__ == "builtins" or not _is_own(type(thing).__module__):
            return type(thing).__name__
        return self.of(type(thing)), self._items(getattr(thing, "__dict__", {}))

    def _plain(self, thing: Any) -> Any:
        base: Any = next(kind for kind in _PLAIN if isinstance(thing, kind))
        return self._kind(thing), base.__repr__(thing)

    def _sequence(self, thing: Any) -> Any:
        return self._kind(thing), self._all(thing)

    def _set(self, thing: Any) -> Any:
        places = sorted(thing, key=lambda item: (_name(type(item)), _sortable(item)))
        return self._kind(thing), self._all(places)

    def _mapping(self, thing: Any) -> Any:
        return self._kind(thing), tuple((self.of(key), self.of(thing[key])) for key in thing)

    def _array(self, thing: Any) -> Any:
        if thing.dtype.hasobject:  # its bytes are addresses
            return "array", str(thing.dtype), thing.shape, self.of(thing.tolist())
        hidden = self.of(np.ma.getmaskarray(thing)) if np.ma.isMaskedArray(thing) else ()
        digest = hashlib.sha256(np.ascontiguousarray(thing).tobytes()).hexdigest()
        return "array", str(thing.dtype), thing.shape, digest, hidden

    def _code(self, thing: Any) -> Any:
        names = (thing.co_names, thing.co_varnames, thing.co_freevars, thing.co_flags)
        steps = dis.get_instructions(thing)
        imported = [step.argval for step in steps if step.opname == "IMPORT_NAME"]
        if {"import_module", "__import__"}.intersection(thing.co_names):
            imported += [name for name in thing.co_consts if _may_be_a_module(name)]
        files = [digest for name in imported if (digest := self._files(name))]
        code = thing.co_code.hex(), thing.co_exceptiontable.hex()
        return "code", code, names, self._all(thing.co_consts), files

    def _module(self, thing: Any) -> Any:
        return "module", self._files(thing.__name__) or thing.__name__

    def _files(self, name: str) -> str:
        """Return a digest of a module of the user's; "", and note the package, for any other."""
        if name not in self.modules:
            files, installed = module_files([name])
            self.packages |= installed
            self.files |= files
            text = "".join(sorted(files.values()))
            self.modules[name] = hashlib.sha256(text.encode()).hexdigest() if files else ""
        return self.modules[name]

    def _values(self, owner: str, named: Mapping[str, Any]) -> None:
        texts = {f"{owner}.{name}": _plain_text(value) for name, value in named.items()}
        self.values |= {name: text for name, text in texts.items() if text is not None}

    def _function(self, thing: Any) -> Any:
        cells = self._all(_cell(cell) for cell in thing.__closure__ or ())
        attributes = self._items(vars(thing))
        module = thing.__globals__.get("__name__")  # __module__ may be that of what it wraps
        if not _is_own(module):
            self.packages.add(module)
            return "function", _name(thing), cells, attributes
        held = (thing.__code__, thing.__defaults__, thing.__kwdefaults__)
        reached = {name: thing.__globals__[name] for name in _globals(thing)}
        self._values(str(module), reached)
        if module and find_spec(module):  # a worker imports it; the rest travels with its code
            self.files |= module_files([module])[0]
        for other in filter(_is_own_module, reached.values()):
            self._values(other.__name__, {n: vars(other)[n] for n in _attributes(thing, other)})
        return "function", self._all(held), cells, attributes, self._items(reached)

    def _method(self, thing: Any) -> Any:
        return "method", self._all((thing.__func__, thing.__self__))

    def _builtin(self, thing: Any) -> Any:
        bound = () if isinstance(thing.__self__, ModuleType) else self.of(thing.__self__)
        return "builtin", _name(thing), bound

    def _partial(self, thing: Any) -> Any:
        return "partial", self._all((thing.func, thing.args, thing.keywords))

    def _wrapped(self, thing: Any) -> Any:
        return type(thing).__name__, self.of(thing.__func__)

    def _property(self, thing: Any) -> Any:
        return "property", self._all((thing.fget, thing.fset, thing.fdel))

    def _class(self, thing: Any) -> Any:
        if not _is_own(thing.__module__):
            self.packages.add(str(thing.__module__))
            return "class", _name(thing)
        kinds = self._all((type(thing), *thing.__bases__))
        members = {name: value for name, value in vars(thing).items() if name not in _IGNORED}
        self._values(_name(thing), members)
        return "class", thing.__qualname__, kinds, self._items(members)

    def _object(self, thing: Any) -> Any:
        array = _as_array(thing)
        if array is not None:
            return self._array(array)
        kind = self.of(type(thing))
        self.level += not _is_own(type(thing).__module__)
        return "object", kind, self.of(_state(thing))


_DESCRIBERS: tuple[tuple[Any, Callable[..., Any]], ...] = (
    (_PLAIN, _Described._plain),
    ((tuple, list), _Described._sequence),
    ((set, frozenset), _Described._set),
    (type(os.environ), lambda _, thing: ("object", "os.environ")),  # of the shell, not of the code
    (Mapping, _Described._mapping),
    (np.ndarray, _Described._array),
    (ModuleType, _Described._module),
    (CodeType, _Described._code),
    (FunctionType, _Described._function),
    (MethodType, _Described._method),
    (BuiltinFunctionType, _Described._builtin),
    (functools.partial, _Described._partial),
    ((staticmethod, classmethod), _Described._wrapped),
    (property, _Described._property),
    (type, _Described._class),
)
_IGNORED = frozenset(
    "__dict__ __weakref__ __doc__ __module__ __firstlineno__ __static_attributes__ __slotnames__ "
    "__annotations__ _abc_impl".split()
)


def _as_array(thing: Any) -> np.ndarray | None:
    """Return the values of an array of any framework, None for anything else."""
    if not hasattr(thing, "__array__"):
        return None
    attempts: tuple[Callable[[], Any], ...] = (
        lambda: thing,
        lambda: thing.detach().cpu(),  # a tensor with a gradient, or on a GPU
        lambda: thing.detach().tolist(),  # of a type that NumPy doesn't have
    )
    for attempt in attempts:
        with suppress(Exception):  # __array__ is the user's or a framework's code
            return np.asarray(attempt())
    return None


def _state(thing: Any) -> Any:
    """Return what an object consists of: its attributes, or what pickle would store of it.

    An object of the user's is asked for its attributes and slots, whatever it tells pickle; one of
    the standard library (a logger) for what it tells pickle, if that isn't only its name.
    """
    kind = type(thing)
    standard = kind.__module__.partition(".")[0] in sys.stdlib_module_names
    if not _is_own(kind.__module__) and (standard or not hasattr(thing, "__dict__")):
        reduced = _reduced(thing)
        if reduced is not None:
            return reduced
    state = object.__getstate__(thing)
    return sorted(state.items()) if isinstance(state, dict) else state


def _reduced(thing: Any) -> Any:
    """Return what pickle would store of an object, None for nothing (a lock, an open file)."""
    reducer = copyreg.dispatch_table.get(type(thing), lambda thing: thing.__reduce_ex__(4))
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reduced = reducer(thing)
        if not isinstance(reduced, str):
            return [*reduced[:3], *(list(items) for items in reduced[3:5] if items is not None)]
        return None if hasattr(thing, "__dict__") else reduced
    return None


def _sortable(thing: Any) -> str:
    """Return a text to sort by that is the same in every process."""
    return repr(thing) if isinstance(thing, (*_PLAIN, tuple)) else _name(thing)


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


def _attributes(function: FunctionType, module: ModuleType) -> set[str]:
    """Return the names in a module that a function may read there."""
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    return names & vars(module).keys()


def _is_own_module(thing: Any) -> bool:
    return isinstance(thing, ModuleType) and _is_own(thing.__name__)


def _may_be_a_module(text: object) -> bool:
    return isinstance(text, str) and all(part.isidentifier() for part in text.split("."))


def _plain_text(value: Any, depth: int = 4) -> str | None:
    """Return a text of nested plain values, also in attributes; None for anything else."""
    if isinstance(value, _PLAIN):
        return repr(value)
    inner: Any = (
        vars(value) if hasattr(value, "__dict__") and _is_own(type(value).__module__) else value
    )
    if depth and isinstance(inner, (dict, list, tuple)):
        parts = [*inner, *inner.values()] if isinstance(inner, dict) else inner
        texts = [_plain_text(part, depth - 1) for part in parts]
        return None if None in texts else f"[{', '.join(map(str, texts))}]"
    return None


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


@functools.cache
def _is_own(module: Any) -> bool:
    """Return whether a module is the user's: not an installed package or the standard library."""
    if module is None or module == "__main__":
        return True
    if not isinstance(module, str):  # of a class in C that describes its instances' module
        return False
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


def module_files(names: Iterable[str]) -> tuple[dict[str, str], set[str]]:
    """Return the sha256 of modules' files and of all files of the user's that they import.

    The files are read, not imported: the result doesn't depend on what has been imported already.

    Returns: sha256 by path, without modules that aren't the user's; the other packages that they
        import.
    """
    files: dict[str, str] = {}
    others, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        path = _own_file(name)
        if path is None:
            top = name.partition(".")[0]
            others |= set() if _own_file(top) else {top}
        elif str(path) not in files:
            content = path.read_bytes()
            files[str(path)] = hashlib.sha256(content).hexdigest()
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            around = itertools.accumulate(name.split(".")[:-1], "{}.{}".format)
            waiting += [*around, *imports(content, package)]
    return files, others


def _own_file(name: str) -> Path | None:
    """Return the file of a module of the user's, None for any other module."""
    if name.partition(".")[0] in {*sys.stdlib_module_names, __name__.partition(".")[0]}:
        return None
    spec = find_spec(name)
    origin = spec.origin if spec else getattr(sys.modules.get(name), "__file__", None)
    path = Path(origin) if origin else None  # it may be a compiled module
    return path if path and path.is_file() and _is_own_file(path) else None


def imports(content: bytes, package: str) -> Iterator[str]:
    """Yield the absolute names of what a file of a package imports, at any depth."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # it is compiled, or fails when it is imported
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
        spec = _spec_in(".".join(parts[:end]), path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
        if path is None and end < len(parts):
            return None
    return spec


def _spec_in(name: str, path: Any) -> Any:
    """Return the spec of a module in the folders `path` of the package around it."""
    try:
        places = (finder.find_spec(name, path) for finder in sys.meta_path)
        return next((found for found in places if found is not None), None)
    except KeyError:  # a folder without __init__.py, in another one that isn't imported
        folders = [Path(folder, name.rpartition(".")[2]) for folder in path]
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder) for folder in folders if folder.is_dir()]
        return spec
