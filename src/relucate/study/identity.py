"""The identity of a piece of the user's code: not its file or its address, but what it does.

Bytecode, constants, defaults, closures, and the user's own functions, classes and values that it
reaches; the user's modules count by their files, with the modules that these import. Installed
packages count only by name, because a run's versions identify them. Called by `source` (a
builder's digest, and whether a worker process has the same code), `own` (the packages of a
training) and `fingerprint` (are two built models the same?).
"""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import os
import sys
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from ..frameworks import content
from .user_files import CHANGING, constants, find_spec, is_own, module_files

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
_WEAK = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary, weakref.WeakSet)
_CONSTANT = (tuple, frozenset, CodeType)
_LEVELS = 12  # of packages' objects in each other: deeper ones count only by their types


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
    values that it reads in modules and classes, as text, by module.name, without those that the
    code itself sets.
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
    settings = {k: text for k, text in described.values.items() if k not in described.stored}
    return Reached(digest, described.files, settings)


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
        self.read: dict[str, Any] = {}  # modules that were looked up, by name
        self.owners: set[str] = set()  # modules of the functions
        self.values: dict[str, str] = {}
        self.constants: dict[str, set[str]] = {}  # names that a module's file gives a value, by it
        self.stored: set[str] = set()  # names of globals that the code itself sets
        self.numbers: dict[int, int] = {}  # by id
        self.kept: list[Any] = []  # keeps the objects alive, so that no id is used twice
        self.waiting: deque[tuple[Any, int]] = deque()
        self.level = 0  # of the object that is being described, in those of installed packages

    def all_of(self, thing: Any) -> tuple[Any, ...]:
        """Return the description of anything and of everything that it reaches."""
        found = [self.of(thing)]
        while self.waiting:
            thing, self.level = self.waiting.popleft()
            found.append(self._one(thing))
        return tuple(found)

    def _one(self, thing: Any) -> Any:
        try:
            describe = next((d for kind, d in _DESCRIBERS if isinstance(thing, kind)), None)
            return (describe or _Described._object)(self, thing)
        except Exception:  # the user's code, such as a dict whose __iter__ fails: its attributes
            with suppress(Exception):
                return "object", self.of(type(thing)), self.of(object.__getstate__(thing))
            return "object", self.of(type(thing))

    def of(self, thing: Any) -> Any:
        """Return a plain value, or the number of an object, which is described later."""
        if _is_one_of(type(thing), _PLAIN):
            return type(thing).__name__, repr(thing)
        if _is_one_of(type(thing), _CONSTANT):  # equal constants may or may not be one object
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
        if type(thing).__module__ == "builtins" or not is_own(type(thing).__module__):
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
            files, installed = module_files([name], self.read)
            self.packages |= installed
            self.files |= files
            text = "".join(sorted(files.values()))
            self.modules[name] = hashlib.sha256(text.encode()).hexdigest() if files else ""
        return self.modules[name]

    def _values(self, module: str, owner: str, named: Mapping[str, Any]) -> None:
        """Note the plain values that the module's file writes out: others may differ anywhere."""
        if module not in self.constants:
            self.constants[module] = set(constants(module))
        texts = {f"{owner}{name}": _plain_text(value) for name, value in named.items()}
        for name in self.constants[module].intersection(texts):
            text = texts[name]
            self.values |= {} if text is None else {f"{module}.{name}": _short(text)}

    def _function(self, thing: Any) -> Any:
        module = thing.__globals__.get("__name__")  # __module__ may be that of what it wraps
        if not is_own(module):
            self.packages.add(module)
            if _is_in(sys.modules.get(module), thing):
                return "function", _name(thing)
            compiled = content(thing)
            if compiled is not None:
                return "function", self.of(compiled)
            return "function", _name(thing), *self._around(thing)
        held = (thing.__code__, thing.__defaults__, thing.__kwdefaults__)
        reached = {name: thing.__globals__[name] for name in _globals(thing)}
        self._values(str(module), "", reached)
        self.stored |= {f"{module}.{name}" for name in _named_by(thing, "STORE_GLOBAL")}
        self.stored |= set(_changed(thing))
        self._travels(str(module or ""))
        for other in filter(_is_own_module, reached.values()):
            read = {name: vars(other)[name] for name in _attributes(thing, other)}
            self._values(other.__name__, "", read)
        return "function", self._all(held), *self._around(thing), self._items(reached)

    def _around(self, thing: Any) -> tuple[Any, ...]:
        cells = self._all(_cell(cell) for cell in thing.__closure__ or ())
        return cells, self._items(vars(thing))

    def _travels(self, module: str) -> None:
        """Note the files of a module that a worker imports; any other travels with its code."""
        if module not in self.owners:
            self.owners.add(module)
            if module and find_spec(module):
                self.files |= module_files([module], self.read)[0]

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
        if not is_own(thing.__module__):
            self.packages.add(str(thing.__module__))
            return "class", _name(thing)
        kinds = self._all((type(thing), *thing.__bases__))
        members = {name: value for name, value in vars(thing).items() if name not in _IGNORED}
        self._values(thing.__module__, f"{thing.__qualname__}.", members)
        return "class", thing.__qualname__, kinds, self._items(members)

    def _object(self, thing: Any) -> Any:
        array = _as_array(thing)
        if array is not None:
            return self._array(array)
        kind = self.of(type(thing))
        inner = content(thing)
        self.level += not is_own(type(thing).__module__)
        return "object", kind, self.of(_state(thing) if inner is None else inner)


_DESCRIBERS: tuple[tuple[Any, Callable[..., Any]], ...] = (
    (_PLAIN, _Described._plain),
    ((tuple, list), _Described._sequence),
    ((set, frozenset), _Described._set),
    (type(os.environ), lambda _, thing: ("object", "os.environ")),  # of the shell, not of the code
    (_WEAK, lambda _, thing: ("object", _name(type(thing)))),  # a cache: its items come and go
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
    if not is_own(kind.__module__) and (standard or not hasattr(thing, "__dict__")):
        reduced = _reduced(thing)
        if reduced is not None:
            return reduced
    state = object.__getstate__(thing)
    if not isinstance(state, dict):
        return state
    kept = [(name, state[name]) for name in sorted(state, key=str) if not _is_cached(kind, name)]
    return kept or None


def _is_cached(kind: type, name: Any) -> bool:
    """Return whether an attribute is a cached property, which may have been read or not."""
    found = next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
    return isinstance(found, functools.cached_property)


def _is_in(module: Any, thing: Any) -> bool:
    """Return whether a function is what its module has by its name: its version identifies it."""
    for name in thing.__qualname__.split("."):
        module = getattr(module, name, None)
    return module is thing


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


def _is_one_of(kind: type, kinds: tuple[type, ...]) -> bool:
    return any(kind is each for each in kinds)  # not by ==, which may be a metaclass's


def _sortable(thing: Any) -> str:
    """Return a text to sort by that is the same in every process."""
    if isinstance(thing, (tuple, frozenset)):
        parts = [_sortable(item) for item in thing]
        return repr(sorted(parts) if isinstance(thing, frozenset) else parts)
    if isinstance(thing, _PLAIN):
        return repr(thing)
    plain = {k: v for k, v in getattr(thing, "__dict__", {}).items() if isinstance(v, _PLAIN)}
    return f"{_name(thing)} {sorted(plain.items()) if is_own(type(thing).__module__) else ''}"


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
    names = _named_by(function, "LOAD_GLOBAL", "LOAD_NAME")
    return sorted(name for name in names if name in function.__globals__)


def _named_by(function: FunctionType, *operations: str) -> set[str]:
    """Return the names in these operations of a function and of the functions inside it."""
    return {
        step.argval
        for code in _codes(function.__code__)
        for step in dis.get_instructions(code)
        if step.opname in operations
    }


def _changed(function: FunctionType) -> Iterator[str]:
    """Yield what a function changes in globals, as module.name: COUNTS["a"] += 1, Net.count = 2."""
    starts: dict[Any, str] = {}  # the globals that are read, by their places in the source
    for step in (s for code in _codes(function.__code__) for s in dis.get_instructions(code)):
        at = step.positions and (step.positions.lineno, step.positions.col_offset)
        if step.opname == "LOAD_GLOBAL":
            starts[at] = step.argval
        name = starts.get(at) if at and None not in at else None
        if name is None:
            continue
        if step.opname == "STORE_SUBSCR" or str(step.argval) in CHANGING:
            yield f"{function.__globals__.get('__name__')}.{name}"
        elif step.opname == "STORE_ATTR":
            owner = function.__globals__.get(name)
            inner = [owner.__module__, owner.__qualname__] if isinstance(owner, type) else [name]
            yield ".".join([*inner, step.argval])


def _attributes(function: FunctionType, module: ModuleType) -> set[str]:
    """Return the names in a module that a function may read there."""
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    return names & vars(module).keys()


def _is_own_module(thing: Any) -> bool:
    return isinstance(thing, ModuleType) and is_own(thing.__name__)


def _short(text: str) -> str:
    """Return a text that says the same of a long list in less room."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return text if len(text) <= 200 else f"{text[:50]}... (sha256 {digest})"


def _may_be_a_module(text: object) -> bool:
    return isinstance(text, str) and all(part.isidentifier() for part in text.split("."))


def _plain_text(value: Any, depth: int = 4) -> str | None:
    """Return a text of nested plain values, also in attributes; None for anything else."""
    if isinstance(value, _PLAIN):
        return repr(value)
    inner: Any = (
        vars(value) if hasattr(value, "__dict__") and is_own(type(value).__module__) else value
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
