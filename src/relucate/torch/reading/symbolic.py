"""The first way into a PyTorch model: torch.fx runs its forward on stand-ins for tensors.

Nothing is computed. Modules that the reader knows stay whole, all others are traced into, so that
an activation inside a norm is seen. It stops where the code needs a number: int() of a shape, a
condition. Called by `reader`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import ParameterProxy, TraceError
from torch.utils import _pytree as pytree

from ...errors import Refused
from ...phrases import some
from .constants import run_without_values
from .contexts import Lost, cause_of, check_contexts, noted
from .detached import View, meta_copy
from .program import Call, Program, Stopped
from .steady import Steady
from .targets import canonical

IN_PLACE = ("iadd", "isub", "imul", "itruediv", "ifloordiv", "ipow", "imod", "imatmul")


_CONSTANT = "_tensor_constant"  # how torch.fx calls the tensors that a forward makes
_NUMBERS = (bool, int, float, str)
_HELD = ("_parameters", "_buffers", "_modules", "_forward_hooks")


class _Proxy(fx.Proxy):
    """fx's stand-in records `x += y` as `x = x + y`; here what it does to x's memory is kept.

    And a tensor's sizes can be counted (`*x.shape[2:]`).
    """

    tracer: Any

    def __len__(self) -> int:
        return self.tracer.count(self)


def _in_place(name: str) -> Callable[..., Any]:
    target = getattr(operator, name)

    def method(self: fx.Proxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", target, (self, other), {})

    return method


for _name in IN_PLACE:
    setattr(_Proxy, f"__{_name}__", _in_place(_name))


class _Weight(ParameterProxy):
    """A stand-in for a parameter or buffer, whose memory can't be exchanged unseen."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "data":
            raise Lost(f"it sets the data of '{self.name}'")
        super().__setattr__(name, value)


class _Tracer(fx.Tracer):
    """Traces into what `is_leaf` doesn't name, and notes in whose forward each call is."""

    proxy_buffer_attributes = True

    def __init__(
        self, view: View, is_leaf: Callable[[str, nn.Module], bool], example: tuple[Any, Any]
    ) -> None:
        super().__init__(param_shapes_constant=True)
        self._view, self._example = view, example
        for path, module in view.modules.items():
            self._prepare(path, module, is_leaf(path, module))
        self._steady = Steady(view, is_leaf)
        self._owners: list[tuple[str, int]] = [("", 0)]
        self._counts: dict[str, int] = {}
        self._tensors: dict[str, fx.Proxy] = {}
        self._values: dict[fx.Node, Any] = {}

    def _prepare(self, path: str, module: nn.Module, known: bool) -> None:
        """Let a known module stay whole if its `forward` is called, and no norm ask for a rank."""
        if isinstance(module, torch.jit.ScriptModule):
            return
        if known:
            vars(module)["forward"] = partial(self._forward, path, module, module.forward)
        elif isinstance(module, nn.modules.batchnorm._NormBase):
            vars(module)["_check_input_dim"] = _let_pass

    def _forward(
        self, path: str, module: nn.Module, forward: Any, *args: Any, **kwargs: Any
    ) -> Any:
        given = pytree.tree_leaves((args, kwargs))
        if any(isinstance(x, fx.Proxy) for x in given) and self._steady.whole(path, module):
            return self.create_proxy("call_module", path, args, kwargs)
        return forward(*args, **kwargs)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        check_contexts()
        node = super().create_node(*args, **kwargs)
        node.meta["owner"] = self._owners[-1]
        node.meta["no_grad"] = node.op.startswith("call") and not torch.is_grad_enabled()
        return node

    def create_proxy(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> Any:
        # What a library registers with torch.fx as a whole may be plain code.
        if kind == "call_function" and not canonical(target, {})[0] and callable(target):
            try:
                found = target(*args[0], **args[1])
            except Exception:  # it needs numbers: then it stays whole
                found = None
            if isinstance(found, fx.Proxy):
                return found
        return super().create_proxy(kind, target, *args, **kwargs)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        leaves, spec = pytree.tree_flatten(self._example)
        proxies = [
            self.create_proxy("placeholder", f"input_{i}", (), {}) if _is_tensor(leaf) else leaf
            for i, leaf in enumerate(leaves)
        ]

        def call(root: nn.Module, *flat: Any) -> Any:
            args, kwargs = pytree.tree_unflatten(list(flat), spec)
            return root.forward(*args, **kwargs)

        return call, [self.root, *proxies]

    def iter(self, obj: Any) -> Iterator[Any]:
        return iter([obj[at] for at in range(self.count(obj))])

    def count(self, proxy: fx.Proxy) -> int:
        """Return how many sizes or parts a stand-in has.

        Raises: TraceError: it is a tensor, or it isn't known.
        """
        for node in self.graph.nodes:
            if node not in self._values:
                self._values[node] = self._value(node)
            if node is proxy.node:
                break
        value = self._values[proxy.node]
        if not isinstance(value, (tuple, list)):
            raise TraceError(f"the number of its parts decides ({proxy.node.name})")
        return len(value)

    def detach(self, graph: fx.Graph) -> None:
        """Let what was computed under `torch.no_grad` be read outside of it as `x.detach()`.

        A call that is traced keeps no such context.
        Raises: TraceError: it isn't one tensor.
        """
        for node in list(graph.nodes):
            if node.op != "output" and node not in self._values:
                self._values[node] = self._value(node)
            readers = [user for user in node.users if not user.meta.get("no_grad")]
            if node.meta.get("no_grad") and readers:
                self._detach(graph, node, readers)

    def _detach(self, graph: fx.Graph, node: fx.Node, readers: Sequence[fx.Node]) -> None:
        value = self._values[node]
        if isinstance(value, (tuple, list)) and any(map(_is_tensor, pytree.tree_leaves(value))):
            raise TraceError(f"several values leave a part without gradients ({node.name})")
        if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
            return
        with graph.inserting_after(node):
            made = graph.call_method("detach", (node,))
        self._values[made] = value
        made.meta["owner"] = node.meta["owner"]
        for reader in readers:
            reader.replace_input_with(node, made)

    def _value(self, node: fx.Node) -> Any:
        """Return what a traced call gives for the example: tensors without values."""
        if node.op == "placeholder":
            tensors = [x for x in pytree.tree_leaves(self._example) if _is_tensor(x)]
            return torch.empty_like(tensors[int(node.name.rpartition("_")[2])], device="meta")
        if node.op == "get_attr":
            return torch.empty_like(self._view.tensor(str(node.target)), device="meta")
        args, kwargs = fx.map_arg((node.args, node.kwargs), self._values.__getitem__)
        target: Any = node.target
        if node.op == "call_module":
            twin = meta_copy(self._view.modules[str(target)])
            for module in twin.modules():
                vars(module).pop("forward", None)  # which notes a call
            target = twin.forward
        return run_without_values(target, args, kwargs)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        path = self._view.paths.get(id(m))
        if path is None:
            if not any(isinstance(x, fx.Proxy) for x in pytree.tree_leaves((args, kwargs))):
                return forward(*args, **kwargs)
            raise Lost(f"a {type(m).__name__} is made inside forward")
        if self._steady.whole(path, m):
            return self.create_proxy("call_module", path, args, kwargs)
        count = self._counts.get(path, 0)
        self._counts[path] = count + 1
        self._owners.append((path, count))
        try:
            return forward(*args, **kwargs)
        finally:
            self._owners.pop()

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if not isinstance(attr_val, Tensor) or id(attr_val) not in self._view.names:
            return attr_val
        name = self._view.names[id(attr_val)]
        if name not in self._tensors:
            node = self.create_node("get_attr", name, (), {})
            shaped = (
                attr_val if isinstance(attr_val, nn.Parameter) else nn.Parameter(attr_val, False)
            )
            self._tensors[name] = _Weight(self, node, name, shaped)
        return self._tensors[name]

    def create_arg(self, a: Any) -> Any:
        # fx looks for each of them among all parameters, which takes quadratic time.
        if isinstance(a, Tensor) and id(a) in self._view.names:
            return self.create_node("get_attr", self._view.names[id(a)], (), {})
        if isinstance(a, nn.Parameter):
            raise Lost("a parameter is made inside forward")
        return super().create_arg(a)


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


def _let_pass(input: Any) -> None:
    pass


def trace(
    view: View, is_leaf: Callable[[str, nn.Module], bool], example: tuple[Any, Any]
) -> Program:
    """Return the program of the view's forward.

    Raises: Stopped (from what stopped it): the forward needs more than stand-ins.
    """
    if is_leaf("", view.root):
        return _one_call(view, example)
    program, changes = _traced(view, is_leaf, example, {})
    if changes:
        _check_repeats(program, lambda given: _traced(view, is_leaf, example, given), changes)
    return program


_Changes = dict[tuple[str, str], Any]  # path and name of an attribute -> its value


def _check_repeats(
    first: Program, again: Callable[[_Changes], tuple[Program, _Changes]], changes: _Changes
) -> None:
    """Check that later calls do what the first one does, although it sets numbers and texts.

    What differs in the second call alone was prepared by the first.
    Raises: Refused.
    """
    second, more = again(changes)
    if not more or _is_alike(first, second):
        return
    third, _ = again({**changes, **more})
    if not _is_alike(second, third):
        named = some(f"'{path}.{name}'" if path else f"'{name}'" for path, name in more)
        raise Refused(
            f"what the model's forward does depends on {named}, which every call changes: what a "
            "later call does can't be told from one."
        )


def _is_alike(one: Program, other: Program) -> bool:
    found = [
        [(c.target, c.module, c.owner, str((c.args, c.kwargs))) for c in each.calls]
        for each in (one, other)
    ]
    return found[0] == found[1]


def _traced(
    view: View,
    is_leaf: Callable[[str, nn.Module], bool],
    example: tuple[Any, Any],
    given: _Changes,
) -> tuple[Program, _Changes]:
    """Return the program of a call with some attributes, and the plain attributes that it sets."""
    numbers, before = torch.get_rng_state(), _Snapshot(view)
    for (path, name), value in given.items():
        vars(view.modules[path])[name] = value
    tracer = _Tracer(view, is_leaf, example)
    try:
        with torch.enable_grad(), noted():
            graph = tracer.trace(view.root)
        if any(node.meta.get("no_grad") for node in graph.nodes):
            with torch.no_grad():
                tracer.detach(graph)
        plain = before.plain_changes(given)
    except Exception as error:
        stopped = Stopped(f"{type(error).__name__}: {error}")
        stopped.cause = cause_of(error)
        raise stopped from error
    finally:
        changed = before.put_back()
    if not torch.equal(numbers, torch.get_rng_state()):
        torch.set_rng_state(numbers)
        raise Stopped("its forward draws random numbers in eval mode")
    for node in graph.nodes:  # of a registered function's result, if that was traced into
        if node.op != "call_function" or canonical(node.target, {})[0]:
            node.meta.pop("is_wrapped", None)
    made = {name: x for x, name in tracer.tensor_attrs.items() if name.startswith(_CONSTANT)}
    program = _program(view, graph, made)
    program.changed = changed
    return program, plain


class _Snapshot:
    """The attributes of all modules of a view, which a forward may set while it is traced."""

    def __init__(self, view: View) -> None:
        plain = {p: m for p, m in view.modules.items() if not isinstance(m, torch.jit.ScriptModule)}
        self._attributes = [(m, path, dict(vars(m))) for path, m in plain.items()]
        self._held = [(m, {k: dict(vars(m)[k]) for k in _HELD}) for m in plain.values()]

    def plain_changes(self, given: _Changes) -> _Changes:
        """Return the numbers and texts that aren't what they were, or what was given."""
        return {
            (path, name): vars(module)[name]
            for module, path, attributes in self._attributes
            for name, value in attributes.items()
            if isinstance(value, _NUMBERS)
            and isinstance(vars(module).get(name), _NUMBERS)
            and vars(module)[name] != given.get((path, name), value)
        }

    def put_back(self) -> list[str]:
        """Undo all changes; return the names of the buffers that were set."""
        changed = []
        for (module, path, attributes), (_, held) in zip(self._attributes, self._held, strict=True):
            for name, buffer in held["_buffers"].items():
                if vars(module)["_buffers"].get(name) is not buffer:
                    changed.append(f"{path}.{name}" if path else name)
            for kind in _HELD:
                attributes[kind].clear()
                attributes[kind].update(held[kind])
            vars(module).clear()
            vars(module).update(attributes)
        return changed


def _one_call(view: View, example: tuple[Any, Any]) -> Program:
    """Return the program of a model that is itself a module that stays whole."""
    graph = fx.Graph()
    program = Program("fx", graph)

    def name(leaf: Any) -> Any:
        if not _is_tensor(leaf):
            return leaf
        program.inputs.append(graph.placeholder(f"input_{len(program.inputs)}"))
        return program.inputs[-1]

    args, kwargs = pytree.tree_map(name, example)
    node = graph.call_module("", args, kwargs)
    program.calls.append(Call("", True, tuple(args), dict(kwargs), (node,), "", 0))
    program.results = node
    return program


def _program(view: View, graph: fx.Graph, constants: Mapping[str, Any]) -> Program:
    state: dict[Any, Tensor] = dict(view.root.named_parameters(remove_duplicate=False))
    state.update(view.root.named_buffers(remove_duplicate=False))
    program = Program("fx", graph)
    for node in graph.nodes:
        owner, owner_call = node.meta["owner"]
        if node.op == "placeholder":
            program.inputs.append(node)
        elif node.op == "get_attr":
            found = state.get(node.target)
            if found is None and node.target in constants:  # made inside forward
                found = node.meta["constant"] = constants[node.target]
            elif found is None:
                found = _attribute(view.root, node.target)
            program.tensors[node] = found
        elif node.op == "output":
            program.results = _opened(node.args[0])
        elif is_output_class(node):  # its arguments are the outputs
            continue
        else:
            module = node.op == "call_module"
            call = Call(node.target, module, node.args, node.kwargs, (node,), owner, owner_call)
            program.calls.append(call)
    return program


def is_output_class(node: Any) -> bool:
    """Return whether a traced call makes the dataclass that holds a model's outputs."""
    called = isinstance(node, fx.Node) and node.op == "call_function"
    is_class = called and isinstance(node.target, type) and is_dataclass(node.target)
    return is_class and all(user.op == "output" or is_output_class(user) for user in node.users)


def _opened(value: Any) -> Any:
    """Return traced outputs with what is in their dataclasses in place of these."""
    if is_output_class(value):
        return {"args": _opened(list(value.args)), **_opened(dict(value.kwargs))}
    if isinstance(value, (list, tuple)):
        return [_opened(item) for item in value]
    if isinstance(value, dict):
        return {key: _opened(item) for key, item in value.items()}
    return value


def _attribute(root: nn.Module, path: str) -> Any:
    value: Any = root
    for name in path.split("."):
        value = getattr(value, name)
    return value
