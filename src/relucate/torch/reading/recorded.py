"""The third way into a PyTorch model: its forward runs on the example, and each call is noted.

For what neither torch.fx nor torch.export follows. A forward that reads values of tensors may do
something else for other inputs. So whatever it gets or makes by its own code, between the modules
that it calls, passes through an opaque node; what is inside these modules is known. Called by
`reader`.
"""

from __future__ import annotations

import operator
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakTensorKeyDictionary

from ..state import unchanged
from .detached import View
from .nested import flat, map_nested, plain
from .program import GUARD, MADE, Call, Program, Stopped
from .steady import Steady
from .targets import has_tag

_OPERATORS = {"__getitem__": operator.getitem, "__setitem__": operator.setitem}
_SWAPPED = {  # of a number and a tensor
    "__rdiv__": operator.truediv,
    "__rfloordiv__": operator.floordiv,
    "__rmod__": operator.mod,
    "__rpow__": operator.pow,
    "__rsub__": operator.sub,
}
_READS_VALUES = {
    *("item", "tolist", "numpy", "equal", "allclose", "is_nonzero", "__array__", "__bool__"),
    *("__complex__", "__contains__", "__dlpack__", "__float__", "__format__", "__index__"),
    *("__int__", "__repr__"),
}


def record(
    view: View, is_leaf: Callable[[str, nn.Module], bool], args: Any, kwargs: Any
) -> Program:
    """Return the program of the calls that the view's forward makes on the example.

    Raises: Stopped (from what stopped it).
    """
    readers: frozenset[str] = frozenset()
    while True:  # who reads values is known at the end of a run
        recorder = _Recorder(view, is_leaf, readers)
        try:
            with unchanged(view.root):
                recorder.run(args, kwargs)
        except Stopped:
            raise
        except Exception as error:
            raise Stopped(f"{type(error).__name__}: {error}") from error
        if recorder.readers <= readers:
            return recorder.program
        readers |= recorder.readers


class _Recorder(TorchFunctionMode):
    """Notes the calls of functions and of known modules, and in whose forward each is.

    Attributes: readers: the paths of the modules whose forward may depend on values: they were read
        in it or in what it calls, or it got numbers that may be such values.
    """

    def __init__(
        self, view: View, is_leaf: Callable[[str, nn.Module], bool], known: frozenset[str]
    ) -> None:
        super().__init__()
        self._view, self._steady, self._known = view, Steady(view, is_leaf), known
        self._graph = fx.Graph()
        self.program = Program("call", self._graph)
        self.readers: set[str] = set()
        self._names: Any = WeakTensorKeyDictionary()  # tensor -> its name in the program
        self._dependent: set[fx.Node] = set()  # names of what depends on the input
        self._frames: list[tuple[str, int]] = [("", 0)]
        self._got: list[list[fx.Node]] = [[]]  # the tensors that each frame was given
        self._read: list[fx.Node] = []  # whose values were read
        self._latest: list[fx.Node] = []  # of what depends on the input
        self._calls: Counter[str] = Counter()
        self._whole = False  # inside a module that is noted as one call
        # The tensors too, so that no id comes twice.
        self._held = {id(x): x for m in view.modules.values() for x in _held(m)}

    def run(self, args: Any, kwargs: Any) -> None:
        """Call the view's root."""
        args, kwargs = pytree.tree_map(_fresh, (args, kwargs))
        for tensor in filter(_is_tensor, pytree.tree_leaves((args, kwargs))):
            node = self._graph.placeholder(f"input_{len(self.program.inputs)}")
            self.program.inputs.append(node)
            self._names[tensor] = node
        self._dependent.update(self.program.inputs)
        self._got[0] = self.program.inputs
        with torch.no_grad(), self._each_module(), self:
            results = self._view.root(*args, **kwargs)
        self.program.results = map_nested(self._name, plain(results))

    # What runs.

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._whole:
            return func(*args, **kwargs)
        target, given = _target(func, args)
        names, named = self._named(given, kwargs)
        result = func(*args, **kwargs)
        if any(map(_is_tensor, flat(kwargs.get("out")))):
            raise Stopped(f"{target} puts its result into a tensor that it is given")
        if _depends_on_values(func, args) and self._depends(names, named):
            self._note_read(_nodes((names, named)))
        made = args[0] if target is operator.setitem else result
        if any(map(_is_tensor, flat(made))):
            self._note_function(target, names, named, made)
        return result

    @contextmanager
    def _each_module(self) -> Iterator[None]:
        original = nn.Module.__call__

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            path = self._view.paths.get(id(module))
            if path is None and not self._whole:
                self.program.note_stranger(module)
            if self._whole or path is None or module is self._view.root:
                return original(module, *args, **kwargs)
            run = self._call_whole if self._steady.whole(path, module) else self._call_inside
            return run(path, lambda: original(module, *args, **kwargs), args, kwargs)

        nn.Module.__call__ = call
        try:
            yield
        finally:
            nn.Module.__call__ = original

    def _call_whole(self, path: str, call: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        names, named = self._named(plain(args), plain(kwargs))
        self._whole = True
        try:
            result = call()
        finally:
            self._whole = False
        if _has_numbers(plain(result)) and self._depends(names, named):
            self._note_read(_nodes((names, named)))
        self._note_module(path, names, named, result)
        return result

    def _call_inside(self, path: str, call: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        if self._by_values and self._in_a_reader and _has_numbers((args, kwargs)):
            self.readers.add(path)
        got = _nodes(self._named(plain(args), plain(kwargs)))
        self._got.append([name for name in got if name in self._dependent])
        self._frames.append((path, self._calls[path]))
        self._calls[path] += 1
        try:
            result = call()
        finally:
            self._frames.pop()
            self._got.pop()
        self._guard(_tensors(result))
        return result

    # Values.

    @property
    def _by_values(self) -> bool:
        """Whether values were read, so that any number from now on may depend on them."""
        return bool(self.program.values_read)

    @property
    def _in_a_reader(self) -> bool:
        return self._frames[-1][0] in self._known

    def _note_read(self, names: list[fx.Node]) -> None:
        self._read += names
        self.readers.update(path for path, _ in self._frames)
        self.program.values_read.append(_place())

    def _guard(self, tensors: list[Tensor]) -> None:
        for tensor in tensors if self._in_a_reader else ():
            name = self._name(tensor)
            if name in self._dependent:
                self._put_unknown(GUARD, tensor, name, *self._got[-1])
            elif self._by_values:
                self._made(tensor)

    def _made(self, tensor: Tensor) -> fx.Node:
        """Note a tensor that was made where it can't be seen, perhaps of the values that were."""
        return self._put_unknown(MADE, tensor, *self.program.inputs, *self._read, *self._latest)

    def _put_unknown(self, target: str, tensor: Tensor, *sources: fx.Node) -> fx.Node:
        with torch._C.DisableTorchFunction():
            (name,) = self._note(target, False, sources, {}, (_like(tensor),))
        self._names[tensor] = name
        self._dependent.add(name)
        return name

    # What is noted.

    def _named(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Return arguments with names in place of tensors."""
        return pytree.tree_map(self._name, tuple(args)), pytree.tree_map(self._name, dict(kwargs))

    def _name(self, value: Any) -> Any:
        if isinstance(value, slice):
            return slice(*map(self._name, (value.start, value.stop, value.step)))
        if not isinstance(value, Tensor):
            return value
        if (name := self._names.get(value)) is not None:
            return name
        if id(value) not in self._held:  # made where it can't be seen
            return self._made(value)
        name = self._graph.create_node("get_attr", self._view.names.get(id(value), "held"))
        self.program.tensors[name] = value
        self._names[value] = name
        return name

    def _depends(self, *given: Any) -> bool:
        return not self._dependent.isdisjoint(_nodes(given))

    def _note(
        self, target: Any, module: bool, args: Any, kwargs: Any, outputs: tuple[Any, ...]
    ) -> tuple[fx.Node, ...]:
        kind = "call_method" if isinstance(target, str) else "call_function"
        names = tuple(self._graph.create_node(kind, target, args, kwargs) for _ in outputs)
        self.program.calls.append(
            Call(target, module, args, kwargs, names, *self._frames[-1], outputs)
        )
        if self._depends(args, kwargs):
            self._dependent.update(names)
            self._latest = [*names]
        return names

    def _note_module(self, path: str, args: Any, kwargs: Any, result: Any) -> None:
        made = _tensors(result)
        if not made:
            return
        with torch._C.DisableTorchFunction():
            names = self._note(path, True, args, kwargs, tuple(map(_like, made)))
        for tensor, name in zip(made, names, strict=True):
            self._names[tensor] = name
        self._guard(made)

    def _note_function(self, target: Any, args: Any, kwargs: Any, result: Any) -> None:
        with torch._C.DisableTorchFunction():
            several = not isinstance(result, Tensor)
            outputs = [_like(x) for x in result] if several else _like(result)
            (name,) = self._note(target, False, args, kwargs, (outputs,))
        if not several:
            self._names[result] = name
        for number, tensor in enumerate(result if several else ()):
            if isinstance(tensor, Tensor):
                part = (name, number)
                with torch._C.DisableTorchFunction():
                    names = self._note(operator.getitem, False, part, {}, (_like(tensor),))
                self._names[tensor] = names[0]
        self._guard(_tensors(result))


def _target(func: Any, args: Any) -> tuple[Any, Any]:
    """Return a function, or the name of a method, and its arguments as torch.fx has them.

    Raises: Stopped: an attribute is set.
    """
    name = getattr(func, "__name__", "")
    if name == "__set__":
        raise Stopped(f"it sets the attribute {func.__self__.__name__} of a tensor")
    if name == "__get__":
        return getattr, (args[0], func.__self__.__name__)
    if name in _SWAPPED:
        return _SWAPPED[name], (args[1], args[0])
    if name in _OPERATORS:
        return _OPERATORS[name], args
    return (name if getattr(Tensor, name, None) is func else func), args


def _depends_on_values(func: Any, args: Any) -> bool:
    """Return whether a function gives numbers, or sizes, that depend on values of its arguments."""
    name = getattr(func, "__name__", "")
    if name == "__getitem__":
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return any(_is_tensor(x) and x.dtype in (torch.bool, torch.uint8) for x in index)
    return name in _READS_VALUES or has_tag(name, torch.Tag.dynamic_output_shape)


def _place() -> str:
    """Return the line of the model's code that is running."""
    roots = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith((*roots, "<")):
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return ""


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _tensors(result: Any) -> list[Tensor]:
    return [x for x in flat(plain(result)) if isinstance(x, Tensor)]


def _held(module: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors among a module's attributes, its parameters and buffers with them."""
    yield from filter(_is_tensor, pytree.tree_leaves(list(vars(module).values())))


def _has_numbers(given: Any) -> bool:
    return any(isinstance(x, (bool, int, float, str)) for x in pytree.tree_leaves(given))


def _nodes(value: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.map_arg(value, found.append)
    return found


def _fresh(value: Any) -> Any:
    """Return a copy of an input, which the forward may change."""
    is_tensor = isinstance(value, Tensor)
    return value.clone(memory_format=torch.contiguous_format) if is_tensor else value


def _like(value: Any) -> Any:
    """Return a tensor's shape and type as a tensor without values."""
    is_tensor = isinstance(value, Tensor)
    return torch.empty(value.shape, dtype=value.dtype, device="meta") if is_tensor else value
