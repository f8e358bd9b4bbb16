"""Let a module's methods call modules where they call activations, by their source.

Each call of an activation that is a function (F.relu(x), x.relu_(), self.act(x) with self.act =
F.gelu), or of a module without weights that is called at several places, gets a module of its own
under a new name. The module's class becomes a subclass of the same name whose methods are compiled
from the source with these calls exchanged: conditions, loops, weights and everything else stay, so
that no trace is needed. Called by `functions`; that the result computes the same is shown there.
"""

from __future__ import annotations
import __future__

import ast
import copy
import copyreg
import inspect
import textwrap
import types
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from torch import nn

from ...errors import InputError
from ..reading.calls.elementwise import AS_MODULES
from ..reading.targets import canonical

_FACTORY = "_relucate_factory"
_BY_OBJECT: Any = vars(copyreg)["__newobj__"]  # how pickle makes an object of a class


class Exchanged(NamedTuple):
    """A call of a method, by its number in the order of ast.walk, and what is called instead."""

    method: str
    number: int
    attribute: str
    receiver: bool  # the tensor is what the call is a method of: x.relu()


def calls_as_modules(module: nn.Module) -> bool:
    """Give a module's calls of activations modules of their own; return whether there were any."""
    kind = type(module)
    if nn.Module not in kind.__mro__ or isinstance(module, _Rewritten):
        return False
    added: dict[str, nn.Module] = {}
    edits: list[Exchanged] = []
    for method, index, found in _activations(module):
        name = _free(module, found.name, added)
        added[name] = found.made
        edits.append(Exchanged(method.name, index, name, found.receiver))
    if not edits:
        return False
    try:
        module.__class__ = _subclass(kind, tuple(edits))
    except Exception:  # code that can't be compiled by itself; a class with slots
        return False
    for name, act in added.items():
        act.training = module.training
        module.add_module(name, act)
    return True


def _free(module: nn.Module, name: str, added: dict[str, nn.Module]) -> str:
    free, number = name, 1
    while hasattr(module, free) or free in added:
        free, number = f"{name}_{number}", number + 1
    return free


class _Rewritten:
    """Marks the subclasses that are made here, and lets their instances be copied and pickled."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        made, given, *rest = super().__reduce_ex__(protocol)
        kind: Any = type(self)
        if made is _BY_OBJECT:
            return (_restored, (kind.__mro__[2], kind._exchanged), *rest)
        return (made, given, *rest)


def _restored(kind: type, edits: tuple[Exchanged, ...]) -> Any:
    """Return an empty instance of the subclass; pickle fills it.

    Raises: InputError: the class isn't the one that the module was made from.
    """
    try:
        made = _subclass(kind, edits)
    except Exception as error:
        raise InputError(
            f"the source of {kind.__qualname__} isn't the one that this module was made from: "
            "load it with the version of the code that made it."
        ) from error
    return object.__new__(made)


# The source of a class.


@dataclass(frozen=True)
class _Method:
    name: str
    function: Callable[..., Any]
    definition: ast.FunctionDef

    @cached_property
    def calls(self) -> list[ast.Call]:
        return [node for node in ast.walk(self.definition) if isinstance(node, ast.Call)]

    @property
    def inner(self) -> Any:
        return inspect.unwrap(self.function)

    @property
    def myself(self) -> str:
        """The name of the first argument."""
        return self.definition.args.args[0].arg

    def value(self, module: nn.Module, node: ast.expr) -> Any:
        """Return what a constant, a name outside of the method, or an attribute of self is."""
        if isinstance(node, ast.Attribute):
            return getattr(self.value(module, node.value), node.attr, None)
        if not isinstance(node, ast.Name):
            return _literal(node)
        if node.id == self.myself:
            return module
        code = self.inner.__code__
        if node.id in (*code.co_varnames, *code.co_cellvars):
            return None
        cells = dict(zip(code.co_freevars, self.inner.__closure__ or (), strict=True))
        if node.id in cells:
            return cells[node.id].cell_contents
        return self.inner.__globals__.get(node.id)


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


@lru_cache(maxsize=256)
def _methods(kind: type) -> tuple[_Method, ...]:
    """Return the methods that a class has besides those of nn.Module, where there is a source."""
    found: dict[str, _Method | None] = {}
    for base in kind.__mro__[: kind.__mro__.index(nn.Module)]:
        for name, value in vars(base).items():
            if name not in found and not name.startswith("__") and inspect.isfunction(value):
                definition = _definition(value)
                found[name] = None if definition is None else _Method(name, value, definition)
    return tuple(method for method in found.values() if method is not None)


def _definition(function: types.FunctionType) -> ast.FunctionDef | None:
    """Return a method's definition; None: there is none, or it can't be outside of its class."""
    try:
        (found,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    if not isinstance(found, ast.FunctionDef) or not found.args.args:
        return None
    names = [str(getattr(n, "attr", getattr(n, "id", ""))) for n in ast.walk(found)]
    mangled = any(name.startswith("__") and not name.endswith("__") for name in names)
    return None if mangled else found


# The calls of activations.


@dataclass(frozen=True)
class _Activation:
    name: str
    made: nn.Module
    receiver: bool = False


def _activations(module: nn.Module) -> Iterator[tuple[_Method, int, _Activation]]:
    uses: Counter[str] = Counter()
    for method in _methods(type(module)):
        for index, node in enumerate(method.calls):
            child = _child(module, method, node)
            if child is None:
                found = _of_function(module, method, node)
            else:
                uses[child] += 1
                again = uses[child] > 1
                twin = copy.deepcopy(module._modules[child]) if again else None
                found = None if twin is None else _Activation(child, twin)
            if found is not None:
                yield method, index, found


def _child(module: nn.Module, method: _Method, node: ast.Call) -> str | None:
    """Return the name of the child without weights that a call calls: self.relu(x)."""
    func = node.func
    if not isinstance(func, ast.Attribute) or not isinstance(func.value, ast.Name):
        return None
    child = module._modules.get(func.attr) if func.value.id == method.myself else None
    if child is None or child._modules or child._parameters or child._buffers:
        return None
    return func.attr


def _of_function(module: nn.Module, method: _Method, node: ast.Call) -> _Activation | None:
    """Return the activation that a call of a function or of a tensor's method computes."""
    target = method.value(module, node.func)
    receiver = target is None and isinstance(node.func, ast.Attribute)
    target = getattr(node.func, "attr", None) if receiver else target
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    if target is None or None in given or any(isinstance(a, ast.Starred) for a in node.args):
        return None
    first = receiver or bool(node.args) or given.pop("input", None) is not None
    rest = node.args if receiver else node.args[1:]
    values = {str(name): method.value(module, value) for name, value in given.items()}
    name, in_place = canonical(target, values)
    kind, attributes = AS_MODULES.get(name, (None, []))
    settings = dict(zip(attributes, (method.value(module, x) for x in rest), strict=False))
    settings.update((key, value) for key, value in values.items() if key in attributes)
    others = values.keys() - {*attributes, "inplace"}
    plain = all(isinstance(value, (int, float, str)) for value in settings.values())
    if kind is None or not first or others or not plain or len(rest) > len(attributes):
        return None
    made: Any = kind(**settings)
    if in_place and not hasattr(made, "inplace"):
        return None
    if in_place:
        made.inplace = True
    return _Activation(name, made, receiver)


# The subclass.


@lru_cache(maxsize=256)
def _subclass(kind: type, edits: tuple[Exchanged, ...]) -> type:
    methods = {method.name: method for method in _methods(kind)}
    own: dict[str, Any] = {
        name: _compiled(methods[name], [edit for edit in edits if edit.method == name])
        for name in dict.fromkeys(edit.method for edit in edits)
    }
    own.update((name, getattr(kind, name)) for name in ("__module__", "__qualname__", "__doc__"))
    return type(kind.__name__, (_Rewritten, kind), {**own, "_exchanged": edits})


def _compiled(method: _Method, edits: list[Exchanged]) -> Any:
    """Return a method with some of its calls made calls of attributes."""
    inner, definition = method.inner, copy.deepcopy(method.definition)
    calls = [node for node in ast.walk(definition) if isinstance(node, ast.Call)]
    for edit in edits:
        _exchange(calls[edit.number], method.myself, edit)
    free = ", ".join(inner.__code__.co_freevars)
    factory: Any = ast.parse(f"def {_FACTORY}({free}):\n    return {definition.name}")
    factory.body[0].body.insert(0, definition)
    flags = inner.__code__.co_flags & __future__.annotations.compiler_flag
    name = inner.__code__.co_filename
    code = compile(ast.fix_missing_locations(factory), name, "exec", flags, dont_inherit=True)
    space: dict[str, Any] = {}
    exec(code, inner.__globals__, space)
    made = space[_FACTORY](*(cell.cell_contents for cell in inner.__closure__ or ()))
    bare: Any = inspect.unwrap(made)
    bare.__defaults__, bare.__kwdefaults__ = inner.__defaults__, inner.__kwdefaults__
    made.__qualname__ = method.function.__qualname__
    return made


def _exchange(node: ast.Call, myself: str, edit: Exchanged) -> None:
    """Let a call be one of an attribute of self, with the tensor alone."""
    named = next((keyword.value for keyword in node.keywords if keyword.arg == "input"), None)
    if edit.receiver and isinstance(node.func, ast.Attribute):
        tensor: ast.expr | None = node.func.value
    else:
        tensor = node.args[0] if node.args else named
    if tensor is None:
        raise ValueError(f"another call than that of {edit.attribute}")
    node.func = ast.Attribute(ast.Name(myself, ast.Load()), edit.attribute, ast.Load())
    node.args, node.keywords = [tensor], []
