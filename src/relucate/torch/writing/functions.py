"""Give each call of an activation a module of its own, for models without a trace.

Submodules call activations as functions, one module several times, or have the norm inside
(`fused`). Only the forward of each such submodule is traced, with its children as they are: it
becomes a torch.fx.GraphModule that calls nn.ReLU and the like at a path, so that modules can change
places (`exchanging`). Called by `writer`; that the result computes the same is shown there and by
the certificate.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError

from ...errors import RelucateError
from ...graph import Graph, Node
from ..modules import FixedArgument
from ..reading.calls.elementwise import AS_MODULES
from ..reading.contexts import check_contexts, noted
from ..reading.reader import Reading, example_of, read_with_modules
from ..reading.targets import canonical
from ..state import untouched
from .copying import copied
from .fused import is_fused, taken_apart
from .keeping import keep, traced_module
from .sources import calls_as_modules


@dataclass(frozen=True)
class WithModules:
    """A model whose activations are modules.

    Attributes: names: a node of the source's graph -> that of `reading.graph`; keys: likewise of
        tensors; paths: the submodules whose forward was traced.
    """

    model: nn.Module
    reading: Reading
    names: Mapping[str, str]
    keys: Mapping[str, str]
    paths: tuple[str, ...]

    def renamed(self, graph: Graph) -> Graph:
        """Return an edited graph of the source with the names that this model's nodes have."""
        names, keys, known = self.names, self.keys, self.reading.graph.nodes
        nodes: dict[str, Node] = {}
        for node in graph:
            name = names.get(node.name, node.name)
            layer = known[name].layer if node.name in names else node.layer
            inputs = tuple(names.get(source, source) for source in node.inputs)
            added = names.get(node.added_for, node.added_for)
            arrays = {role: keys.get(key, key) for role, key in node.arrays.items()}
            own = {"inputs": inputs, "added_for": added, "arrays": arrays}
            nodes[name] = replace(node, name=name, layer=layer, **own)
        return replace(
            graph,
            nodes=nodes,
            outputs=tuple(names.get(name, name) for name in graph.outputs),
            tensors={keys.get(key, key): array for key, array in graph.tensors.items()},
            trainable=frozenset(keys.get(key, key) for key in graph.trainable),
        )


def with_modules(whole: nn.Module, reading: Reading, paths: Collection[str]) -> WithModules | None:
    """Return a copy of the model in which each activation of the submodules at `paths` is a module.

    None: there is none, because no such forward can be traced, or what is read of it differs.
    """
    try:
        twin = copied(whole)
        calls = _arguments(twin, reading, paths)
        traced = [
            path
            for path in sorted(paths)
            if path in calls and _trace_in(twin, path, calls[path], reading)
        ]
        if not traced:
            return None
        again = read_with_modules(twin, reading.example, leaves=reading.leaves)
    except RelucateError:
        return None
    names, keys = _matched(reading.graph, again.graph)
    return WithModules(twin, again, names, keys, tuple(traced)) if names else None


def _arguments(
    twin: nn.Module, reading: Reading, paths: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Return the arguments of the submodules by name; a submodule whose calls differ has none."""
    found: dict[str, list[dict[str, Any]]] = {}

    def watch(path: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            bound = inspect.signature(module.forward).bind(*args, **kwargs)
            bound.apply_defaults()
            found.setdefault(path, []).append(dict(bound.arguments))

        return hook

    handles = [
        twin.get_submodule(path).register_forward_pre_hook(watch(path), with_kwargs=True)
        for path in paths
    ]
    args, kwargs = example_of(twin, reading.example)
    try:
        with untouched(twin), torch.no_grad():
            for module in twin.modules():
                module.training = False
            twin(*args, **kwargs)
    except Exception:  # whatever the user's code does
        return {}
    finally:
        for handle in handles:
            handle.remove()
    return {path: calls[0] for path, calls in found.items() if _are_alike(calls)}


def _are_alike(calls: list[dict[str, Any]]) -> bool:
    """Return whether all calls have tensors and numbers at the same places, the numbers equal."""
    plain = (int, float, str, bool, type(None))
    fixed = [{n: v for n, v in call.items() if not isinstance(v, Tensor)} for call in calls]
    known = all(isinstance(value, plain) for values in fixed for value in values.values())
    return known and all(values == fixed[0] for values in fixed)


class _Tracer(fx.Tracer):
    """Records calls of all children as they are.

    Raises: TraceError: one is made without gradients, which is no call. Lost: or under autocast.
    """

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        check_contexts()
        if not torch.is_grad_enabled():
            raise TraceError("a part runs without gradients")
        return super().create_node(*args, **kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _trace_in(twin: nn.Module, path: str, arguments: Mapping[str, Any], reading: Reading) -> bool:
    """Put a traced submodule in the place of the one at `path`; return whether it could be."""
    source = twin.get_submodule(path)
    if is_fused(source):
        x = next((value for value in arguments.values() if isinstance(value, Tensor)), None)
        made = None if x is None else taken_apart(source, x)
        if made is None:
            return False
        for node in list(made.graph.nodes):
            _as_module(made, made.graph, node)
        made.recompile()
        return _put(twin, source, made)
    if calls_as_modules(source):
        return True
    if not path or any(p is not None for p in source._parameters.values()):
        return False  # its own reset_parameters would be lost
    fixed = {name: value for name, value in arguments.items() if not isinstance(value, Tensor)}
    if (graph := _graph(source, fixed)) is None:
        return False
    _check_arguments(source, graph, fixed)
    for node in list(graph.nodes):
        _as_module(source, graph, node)
    _apart(source, graph)
    inside = {p.removeprefix(f"{path}.") for p in reading.frozen if p.startswith(f"{path}.")}
    made = traced_module(source, graph, inside)
    for name, child in source._modules.items():
        made._modules.setdefault(name, child)  # what its forward doesn't call
    for name, buffer in source._buffers.items():
        made._buffers.setdefault(name, buffer)
    keep(made, source)
    made.training = source.training
    return _put(twin, source, made)


def _put(twin: nn.Module, source: nn.Module, made: nn.Module) -> bool:
    """Put a module in the place of another, wherever that is."""
    for parent in list(twin.modules()):
        for name, child in parent._modules.items():
            if child is source:
                parent._modules[name] = made
    return True


def _graph(module: nn.Module, fixed: dict[str, Any]) -> fx.Graph | None:
    """Return the graph of a forward that makes the same calls in training mode, or None."""
    graphs = []
    for training in (True, False):
        with untouched(module), torch.enable_grad(), noted():
            module.training = training
            try:
                graphs.append(_Tracer().trace(module, concrete_args=fixed))
            except Exception:  # a forward that needs numbers
                return None
    calls = [[(n.op, n.target, str(n.args), str(n.kwargs)) for n in g.nodes] for g in graphs]
    inputs = [node for node in graphs[1].nodes if node.op == "placeholder"]
    names = list(inspect.signature(module.forward).parameters)
    if calls[0] != calls[1] or len(inputs) != len(names):
        return None
    for node, name in zip(inputs, names, strict=True):  # torch.fx numbers those with fixed values
        node.target = name
    return graphs[1]


def _check_arguments(source: nn.Module, graph: fx.Graph, fixed: Mapping[str, Any]) -> None:
    """Let modules check the fixed arguments: the checks of torch.fx can't be pickled."""
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    for node in inputs:
        if node.target in fixed:
            for user in list(node.users):
                for check in [*user.users, user]:
                    graph.erase_node(check)
            with graph.inserting_after(inputs[-1]):
                module = FixedArgument(str(node.target), fixed[node.target])
                graph.call_module(_added(source, f"fixed_{node.target}", module), (node,))


def _added(source: nn.Module, name: str, module: nn.Module) -> str:
    path, number = name, 1
    while hasattr(source, path):
        path, number = f"{name}_{number}", number + 1
    module.training = source.training
    source.add_module(path, module)
    return path


def _as_module(source: nn.Module, graph: fx.Graph, node: fx.Node) -> None:
    if node.op not in ("call_function", "call_method"):
        return
    name, in_place = canonical(node.target, dict(node.kwargs))
    kind, attributes = AS_MODULES.get(name, (None, []))
    values = dict(zip(attributes, node.args[1:], strict=False))
    values.update((key, value) for key, value in node.kwargs.items() if key in attributes)
    others = node.kwargs.keys() - {*attributes, "inplace"}
    plain = all(isinstance(value, (int, float, str)) for value in values.values())
    if kind is None or others or not plain or len(node.args) > 1 + len(attributes):
        return
    module: Any = kind(**values)
    if in_place and not hasattr(module, "inplace"):
        return
    if in_place:
        module.inplace = True
    with graph.inserting_before(node):
        called = graph.call_module(_added(source, name, module), node.args[:1])
    node.replace_all_uses_with(called)
    graph.erase_node(node)


def _apart(source: nn.Module, graph: fx.Graph) -> None:
    """Let each call of a module without state be one of a module of its own."""
    seen: set[str] = set()
    for node in graph.nodes:
        path = str(node.target)
        if node.op == "call_module" and path in seen and _is_stateless(source.get_submodule(path)):
            name = path.replace(".", "_")
            node.target = _added(source, name, copy.deepcopy(source.get_submodule(path)))
        elif node.op == "call_module":
            seen.add(path)


def _is_stateless(module: nn.Module) -> bool:
    return not (module._modules or module._parameters or module._buffers)


def _matched(old: Graph, new: Graph) -> tuple[dict[str, str], dict[str, str]]:
    """Return old name -> new name, of nodes and of tensors; none if the graphs differ in more."""
    names = dict(zip(old.nodes, new.nodes, strict=False))
    keys: dict[str, str] = {}
    if len(old.nodes) != len(new.nodes) or len(old.tensors) != len(new.tensors):
        return {}, {}
    for one, other in zip(old, new, strict=True):
        inputs = tuple(names[source] for source in one.inputs)
        same = (one.op, one.shape, one.arrays.keys()) == (
            other.op,
            other.shape,
            other.arrays.keys(),
        )
        if not same or inputs != other.inputs or one.attrs != other.attrs:
            return {}, {}
        for role, key in one.arrays.items():
            if keys.setdefault(key, other.arrays[role]) != other.arrays[role]:
                return {}, {}
    equal = all(np.array_equal(old.tensors[a], new.tensors[b]) for a, b in keys.items())
    ends = tuple(names[name] for name in old.outputs)
    known = equal and len({*keys.values()}) == len(keys) == len(old.tensors)
    return (names, keys) if known and ends == new.outputs else ({}, {})
