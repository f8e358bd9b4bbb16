"""Turn a traced program into a Graph: names, shapes, weights; which node reads which.

Each call goes to the table of modules or of functions, which calls back to `emit`. What depends on
weights alone is computed; what isn't understood becomes an opaque node. In-place changes are
followed: whoever reads a changed tensor later gets the changed one. Called by `reader`.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...errors import Refused
from ...graph import Node
from ...graph.inference import Mismatch
from ..modules import NORMS, STATISTICS
from .builder import Builder, Scope, Weight
from .constants import NotConstant, compute, run_without_values
from .detached import View
from .nested import (
    data_in,
    flat,
    has_data,
    leaves,
    part,
    take,
    tensors_in,
)
from .program import Call, Data, Parts, Program, Rearranged, Stopped, Unknown
from .targets import canonical, describe, is_random, place_of

_NORMS = (*NORMS, nn.LocalResponseNorm, nn.CrossMapLRN2d)
_FIELDS = {"values": 0, "indices": 1}


class Translator(Builder):
    """State of one reading. `modules` and `functions` are the tables of what is known."""

    def __init__(
        self,
        view: View,
        batch: int,
        modules: Callable[[nn.Module], Callable[..., Any] | None],
        functions: Mapping[str, Callable[..., Any]],
        kept: Collection[str] = (),
    ) -> None:
        super().__init__(view, batch, kept)
        self._modules, self._functions = modules, functions
        self.obstacles: list[str] = []
        self.changes: dict[str, None] = {}  # tensors of the model that every call changes
        self._env: dict[fx.Node, Any] = {}
        self._stored: dict[int, list[fx.Node]] = {}  # storage -> names that may share it
        self._stale: dict[fx.Node, Callable[[], Data]] = {}  # -> its value, changed by a view
        self._exported = False
        self._alone: set[int] = set()
        # For who writes the model back: traced name -> node, at each call and when it was made.
        self.reads: dict[str, dict[str, str]] = {}
        self.bound: dict[str, str] = {}
        self.casts: set[str] = set()  # nodes whose values are cast to another type
        self.leads: dict[str, int] = {}  # traced names of tensors -> leading axes merged in them

    # The program.

    def run(self, program: Program, inputs: Sequence[tuple[str, Tensor]]) -> list[Data]:
        """Translate all calls; return the outputs.

        Raises: Stopped: something can't be found out in this way. Mismatch: shapes don't fit.
        """
        self._exported = program.way != "fx"
        for name in program.changed:
            self._note_change(name)
        taken = set(self.view.modules)
        for node, (name, tensor) in zip(program.inputs, inputs, strict=True):
            while name in taken:
                name += "_"
            taken.add(name)
            self._bind(node, self._input(name, tensor))
        for node, tensor in program.tensors.items():
            self._env[node] = tensor
            name = self.view.names.get(id(tensor))
            if name is not None:
                self._sources[id(tensor)] = (tensor, frozenset({name}))
        calls = _live(program)
        self._alone = _alone(calls)
        for call in calls:
            self._run(call)
        self._note_reads("output", program.results)
        found = [
            value for value in leaves(self.resolve(program.results)) if isinstance(value, Data)
        ]
        if not found:
            raise Refused("none of the model's outputs depends on its input: there is no node.")
        # Others are constants, which the written model repeats.
        return [self.merged_by_a_node(value) for value in found]

    def _note_reads(self, reader: str, arguments: Any) -> None:
        found: set[fx.Node] = set()
        _collect(arguments, found)
        values = {node.name: self._env.get(node) for node in found}
        self.reads[reader] = {n: v.name for n, v in values.items() if isinstance(v, Data)}

    def _input(self, name: str, tensor: Tensor) -> Data:
        node = Node(name, "input", (), self._public(tuple(tensor.shape)), name)
        self.nodes[name], self.types[name] = node, tensor.dtype
        return Data(name, tuple(tensor.shape), tensor.dtype, self._storage())

    def _run(self, call: Call) -> None:
        self._current = call
        self._note_reads(call.results[0].name, (call.args, call.kwargs))
        args: Any = ()
        try:
            args, kwargs = self.resolve(call.args), self.resolve(call.kwargs)
            if call.module:
                value = self.call_module(call.target, args, kwargs)
            else:
                self._scope = Scope(call.owner, call.owner_call, False)
                value = self._function(call, args, kwargs)
        except Mismatch as error:
            raise Mismatch(self._located(call, args, str(error))) from error
        except RuntimeError as error:  # of PyTorch: the shapes don't fit
            raise Mismatch(self._located(call, args, str(error).partition("\n")[0])) from error
        except Stopped as error:
            error.place = error.place or place_of(call)
            raise
        self._assign(call, value)

    def _located(self, call: Call, args: Any, message: str) -> str:
        shapes = [str(self._public(d.shape)) for d in data_in(args)]
        if call.module:
            module = self.view.module_of(call.target)
            where = f"layer '{call.target}' ({module})"
        else:
            where = f"{describe(call.target)} in '{call.owner or 'the model'}'"
        return f"{where} got an input of shape {', '.join(shapes)}: {message}"

    def resolve(self, value: Any) -> Any:
        """Return nested arguments with the values of the traced names."""
        if isinstance(value, fx.Node):
            if value in self._stale:
                self._env[value] = self._stale.pop(value)()
            return self._env[value]
        if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
            made = [self.resolve(item) for item in value]
            return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)
        if isinstance(value, dict):
            return {key: self.resolve(item) for key, item in value.items()}
        if isinstance(value, slice):
            return slice(*(self.resolve(v) for v in (value.start, value.stop, value.step)))
        return value

    def _assign(self, call: Call, value: Any) -> None:
        together = call.module and call.outputs is not None  # a group of exported nodes
        if not together or (len(call.results) == 1 and isinstance(value, (Data, Tensor))):
            self._bind(call.results[0], value)
            return
        remaining = list(flat(value, dicts=False))
        for node, output in zip(call.results, call.outputs or (), strict=True):
            self._bind(node, take(remaining, tuple(output.shape)))

    def _bind(self, node: fx.Node, value: Any) -> None:
        self._env[node] = value
        if isinstance(value, Data):
            self._stored.setdefault(value.storage, []).append(node)
            self.origins.setdefault(value.name, node.name)
            self.bound.setdefault(node.name, value.name)
            if value.lead:
                self.leads[node.name] = len(value.lead)
            if self.types.get(value.name, value.dtype) != value.dtype:
                self.casts.add(value.name)

    # Calls.

    def call_module(self, path: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Translate one call of the module at `path`."""
        path = self.view.path_of(path)
        module = self.view.modules[path]
        call = self._calls.get(path, 0)
        self._calls[path] = call + 1
        layer = path or type(module).__name__  # a model that is itself a known module
        outer, self._scope = self._scope, Scope(layer, call, True)
        handler = self._modules(module)
        try:
            if not has_data([args, kwargs]):
                return self._module_of_constants(module, args, kwargs)
            if handler is None:
                return self.opaque(type(module).__name__, _why(module), [args, kwargs], module)
            self._check_unchanged(module)
            if not _fits(handler, (self, module, *args), kwargs):
                raise Unknown("called with extra arguments")
            value = handler(self, module, *args, **kwargs)
            if getattr(module, "inplace", False) and isinstance(value, Data):
                return self._changed(args[0], value)
            return value
        except Unknown as error:
            return self.opaque(type(module).__name__, str(error), [args, kwargs], module)
        finally:
            self._scope = outer

    def _check_unchanged(self, module: nn.Module) -> None:
        """Check that the forward didn't change a module's tensors before this call.

        Raises: Unknown.
        """
        for tensor in (*module.parameters(), *module.buffers()):
            if (name := self.view.names.get(id(tensor))) in self.changes:
                raise Unknown(f"every call of the model changes '{name}'")

    def _function(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name, in_place = canonical(call.target, kwargs)
        if name == "getitem" and isinstance(args[0], Parts):
            return part(args[0], args[1])
        if name == "getattr" and isinstance(args[0], Parts) and args[1] in _FIELDS:
            return args[0].get(_FIELDS[args[1]])
        if not has_data([args, kwargs]):
            if is_random(call.target):
                return self.opaque(name or describe(call.target), "random numbers", [args, kwargs])
            return self._constant(call, args, kwargs, in_place)
        handler = self._functions.get(name)
        try:
            if handler is None:
                raise Unknown("not a function that the reader knows")
            if not _fits(handler, (self, *args), kwargs):
                raise Unknown("called with arguments that the reader doesn't know")
            value = self._checked(call, args, handler(self, *args, **kwargs))
        except Unknown as error:
            kind, moves = name or describe(call.target), isinstance(error, Rearranged)
            value = self.opaque(kind, str(error), [args, kwargs], rearranges=moves)
        if isinstance(value, Data) and id(call) in self._alone:
            value = self._as_module(call, value)
        return self._changed(args[0], value) if in_place else value

    def _as_module(self, call: Call, value: Data) -> Data:
        """Name an activation by the module that does nothing else, as if PyTorch had that class."""
        node, module = self.nodes[value.name], self.view.modules[call.owner]
        holds = any(True for _ in (*module.children(), *module.parameters(), *module.buffers()))
        if node.kind != "act" or node.arrays or holds or not call.owner:
            return value
        name = call.owner + (f"@{call.owner_call}" if call.owner_call else "")
        del self.nodes[value.name]
        self.nodes[name] = replace(node, name=name, layer=call.owner)
        self.origins[name] = self.origins.pop(value.name)
        return replace(value, name=name)

    def _checked(self, call: Call, args: Any, value: Any) -> Any:
        """Compare with what torch.export says: the shape, and whether there is one output.

        Raises: Unknown: another shape.
        """
        if call.outputs is None or not isinstance(value, Data):
            return value
        output = call.outputs[0]
        if isinstance(output, (list, tuple)):  # values and indices
            inputs = list(data_in(args))
            others = [self.later(lambda o=o: self._second(call, inputs, o)) for o in output[1:]]
            return Parts([lambda: value, *others])
        if isinstance(output, Tensor) and tuple(output.shape) != value.shape:
            raise Unknown(f"its shape is {tuple(output.shape)}, not {value.shape}")
        return value

    def _second(self, call: Call, inputs: list[Data], output: Tensor) -> Data:
        kind, shape = describe(call.target), tuple(output.shape)
        return self.unknown(kind, "another output", inputs, shape, output.dtype)

    def _constant(self, call: Call, args: Any, kwargs: Any, in_place: bool) -> Any:
        try:
            value = compute(call.target, args, kwargs, in_place)
        except NotConstant as error:
            return self.opaque(describe(call.target), str(error), [args, kwargs])
        names = frozenset(
            name
            for tensor in tensors_in([args, kwargs])
            for name in self._sources.get(id(tensor), (None, ()))[1]
        )
        for tensor in tensors_in(value):
            if id(tensor) not in self.view.names:
                self._sources[id(tensor)] = (tensor, names)
        if in_place and call.args and isinstance(call.args[0], fx.Node):
            self._env[call.args[0]] = value
            if name := self.view.names.get(id(args[0])):
                self._note_change(name)
        return value

    def _module_of_constants(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        try:
            value = compute(module, args, kwargs, False)
        except NotConstant as error:
            raise Unknown(str(error)) from error
        held = [*tensors_in([args, kwargs]), *module.parameters()]
        names = frozenset(name for tensor in held for name in self._made_of(tensor))
        for tensor in tensors_in(value):
            self._sources[id(tensor)] = (tensor, names)
        return value

    def _note_change(self, name: str) -> None:
        self.changes[name] = None
        self.obstacles.append(f"every call changes '{name}', in eval mode too")

    def _changed(self, target: Any, value: Any) -> Any:
        """Let all later readers of `target` get `value`, and none a stale view of it."""
        if isinstance(target, Tensor) and isinstance(value, Data) and self._exported:
            return self._filled(target, value)
        if not isinstance(target, Data) or not isinstance(value, Data):
            raise Stopped("it changes part of a tensor in place")
        changed = replace(value, storage=target.storage)
        for node in self._stored.get(target.storage, ()):
            old = self._env[node]
            if (old.name, old.shape, old.lead) == (target.name, target.shape, target.lead):
                self._env[node] = changed
            else:
                earlier = self._stale.get(node, partial(_same, old))
                self._stale[node] = self.later(partial(self._renewed, earlier, changed))
        return changed

    def _filled(self, target: Tensor, value: Data) -> Data:
        """Let all later readers of a constant's memory get what depends on the values put there.

        Raises: Stopped: a tensor of the model.
        """
        place = _memory(target)
        if any(_memory(x) == place for x in self.view.root.state_dict().values()):
            raise Stopped("it puts values into a tensor of the model")
        for node, held in list(self._env.items()):
            if isinstance(held, (list, tuple)) and any(_memory(x) == place for x in flat(held)):
                raise Stopped("it puts values into a part of a tensor")
            if not isinstance(held, Tensor) or _memory(held) != place:
                continue
            known = held is target
            made = value if known else self._holding(value, held)
            self._bind(node, replace(made, storage=value.storage))
        return value

    def _holding(self, value: Data, held: Tensor) -> Data:
        kind = describe(self._current.target) if self._current else ""
        inputs, shape = [self.merged_by_a_node(value)], tuple(held.shape)
        return self.unknown(kind, "a view of it is changed", inputs, shape, held.dtype)

    def _renewed(self, earlier: Callable[[], Data], changed: Data) -> Data:
        """Return what a tensor is after a change of another view of its memory: it isn't known.

        Raises: Stopped: in what torch.fx traced, from which the calls are written again.
        """
        where, old = describe(self._current.target) if self._current else "", earlier()
        if not self._exported:
            raise Stopped(f"{where} changes a tensor in place that is read again as a view")
        inputs = [self.merged_by_a_node(x) for x in (old, changed)]
        made = self.unknown(where, "a view of it is changed", inputs, old.shape, old.dtype)
        return replace(made, storage=old.storage)

    def opaque(
        self,
        kind: str,
        why: str,
        args: Any,
        module: nn.Module | None = None,
        *,
        rearranges: bool = False,
    ) -> Any:
        """Add an opaque node for the current call; one per output that is read."""
        inputs = list({d.name: d for d in data_in(args)}.values())
        attrs: dict[str, Any] = {"type": kind, "why": why}
        if rearranges:
            attrs["rearranges"] = True
        if module is not None:
            attrs["norms"] = norms_inside(module, self._scope.layer)
        if module is not None and type(module).__module__.startswith("torch.ao."):
            attrs["quantized"] = True
        weights = {name: Weight(p) for name, p in _weights(module)}
        own = [x for x in tensors_in(args) if self._made_of(x)] if module is None else []
        weights.update((f"argument_{number}", Weight(x)) for number, x in enumerate(own))
        return self._several(self._outputs_of(args, module), "opaque", inputs, attrs, weights, kind)

    def _outputs_of(self, args: Any, module: nn.Module | None) -> Any:
        call = self._current
        if call is None:
            raise Stopped("no call")
        if call.outputs is not None:
            return call.outputs[0] if len(call.outputs) == 1 else call.outputs
        positional, named = args
        return run_without_values(module or call.target, positional, named)


def norms_inside(module: nn.Module, layer: str) -> tuple[str, ...]:
    """Return the norms within a module, itself included: by class, or by running statistics."""
    found = (
        f"{layer}.{path}" if path else layer
        for path, one in module.named_modules()
        if isinstance(one, _NORMS) or all(hasattr(one, name) for name in STATISTICS)
    )
    return tuple(found)


def _weights(module: nn.Module | None) -> Iterator[tuple[str, Tensor]]:
    if module is not None and not isinstance(module, torch.jit.ScriptModule):
        yield from module.named_parameters()


def _why(module: nn.Module) -> str:
    if type(module).__module__.startswith("torch.ao."):
        return "a quantized module"
    return "not a module that the reader knows"


def _memory(value: Any) -> int | None:
    """Return where a constant is kept; None: it is no tensor, or an empty one."""
    dense = isinstance(value, Tensor) and value.layout == torch.strided
    return (value.untyped_storage().data_ptr() or None) if dense else None


def _same(value: Data) -> Data:
    return value


@cache
def _signature(handler: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(handler)


def _fits(handler: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> bool:
    try:
        _signature(handler).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _live(program: Program) -> list[Call]:
    """Return the calls that the results need, and those that change something in place."""
    wanted: set[fx.Node] = set()
    _collect(program.results, wanted)
    kept = []
    for call in reversed(program.calls):
        changes = not call.module and canonical(call.target, call.kwargs)[1]
        if changes or call.module or not wanted.isdisjoint(call.results):
            _collect(call.args, wanted)
            _collect(call.kwargs, wanted)
            kept.append(call)
    return kept[::-1]


def _alone(calls: Sequence[Call]) -> set[int]:
    """Return the ids of the functions that are all that one call of a module does."""
    owners = Counter((call.owner, call.owner_call) for call in calls if not call.module)
    return {id(c) for c in calls if not c.module and owners[c.owner, c.owner_call] == 1}


def _collect(value: Any, into: set[fx.Node]) -> None:
    fx.map_arg(value, into.add)
