"""Show that a model whose modules changed places computes what was planned.

It is read again: the same graph as planned, node by node, edge by edge, value by value. And it is
called, in eval and in training mode: the calls of its modules are those of the model that it was
made from, in the same order, each with the same giver of its input. A forward that asks for the
types of its modules, keeps them in lists of its own, or does something else in training mode with
those that moved, shows in one of the two. Called by `writer`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...errors import RelucateError
from ...graph import Graph, Node
from ..reading.reader import Reading, example_of, read
from ..state import untouched
from .exchanging import Exchange
from .turned import axes_of
from .units import condensed, units

Calls = list[tuple[str, str]]  # path of a module, path of the module that gave its input


@dataclass(frozen=True)
class Proof:
    """What was found out about a module whose submodules changed places.

    Attributes: failure: what differs from the plan, or nothing; graph: what was read again, without
        the weights that are initialised later; moved: path -> the path that the module there had.
    """

    failure: str
    graph: Graph
    moved: Mapping[str, str]


def prove(
    made: nn.Module, whole: nn.Module, reading: Reading, new: Graph, found: Exchange
) -> Proof:
    """Return whether `made` is the plan `new`, and does in training what `whole` does."""
    graph, failure = new, _other_calls(made, whole, reading, set(found.moved))
    if not failure:
        try:
            graph = read(made, reading.example, leaves=reading.leaves)
            whole_now = {p: names for p, names in units(graph).items() if p in reading.graph.nodes}
            failure = _difference(condensed(graph, whole_now), reading.graph, new, found)
        except RelucateError as error:
            failure = f"it can't be read again: {error}"
    return Proof(failure, graph, found.moved)


def _other_calls(
    made: nn.Module, whole: nn.Module, reading: Reading, slots: Collection[str]
) -> str:
    given = example_of(whole, reading.example)
    planned: Calls = []
    for training in (False, True):
        before = _calls(whole, *given, training, slots)
        mode = "training" if training else "eval"
        if before is None:
            return f"it can't be called on the example in {mode} mode"
        if before != _calls(made, *given, training, slots):
            return f"its forward makes other calls in {mode} mode when modules change places"
        if training and not _agree(planned, _only(before, slots)):
            return "its forward calls the modules that change places otherwise in training mode"
        planned = _only(before, slots)
    return ""


def _calls(
    model: nn.Module, args: Any, kwargs: Any, training: bool, slots: Collection[str]
) -> Calls | None:
    """Return the calls of a model's modules as they end; None: it can't be called."""
    for batch in (2, 1) if training else (1, 2):
        more = _with_batch(args, batch), _with_batch(kwargs, batch)
        with untouched(model):
            found = _recorded(model, *more, training, slots)
        if found is not None:
            return found
    return None


def _with_batch(given: Any, batch: int) -> Any:
    """Return the example, so many times where it is one: batch norms need more than one."""

    def one(x: Any) -> Any:
        grows = isinstance(x, Tensor) and x.ndim and x.shape[0] == 1
        return x.repeat(batch, *[1] * (x.ndim - 1)) if grows else x

    return pytree.tree_map(one, given)


def _recorded(
    model: nn.Module, args: Any, kwargs: Any, training: bool, slots: Collection[str]
) -> Calls | None:
    calls: Calls = []
    givers: dict[int, tuple[str, Tensor]] = {}  # the tensors are kept, so that no id comes twice
    begun: list[str] = []  # the givers of the calls that haven't ended: what is inside may be one

    def enter(module: nn.Module, inputs: Any) -> None:
        first = inputs[0] if inputs else None
        begun.append(givers.get(id(first), ("",))[0])

    def leave(path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            calls.append((path, begun.pop()))
            if isinstance(output, Tensor):
                givers[id(output)] = (path, output)

        return hook

    handles = []
    for path, module in model.named_modules():
        module.training = training
        hookless = isinstance(module, torch.jit.ScriptModule)
        if not hookless and not any(path.startswith(f"{slot}.") for slot in slots):
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave(path)))
    try:
        with torch.no_grad():
            torch.manual_seed(0)
            model(*_fresh(args), **_fresh(kwargs))
    except Exception:  # the user's code may raise any error
        return None
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _fresh(given: Any) -> Any:
    """Return copies: a forward may change its input in place."""
    return pytree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, given)


def _only(calls: Calls, slots: Collection[str]) -> Calls:
    return [call for call in calls if call[0] in slots]


def _agree(ones: Calls, others: Calls) -> bool:
    """Return whether the same modules are called, and none of them gets another one's output."""
    if [path for path, _ in ones] != [path for path, _ in others]:
        return False
    givers = zip(ones, others, strict=True)
    return all(one[1] == two[1] or not one[1] or not two[1] for one, two in givers)


def _difference(again: Graph, old: Graph, new: Graph, found: Exchange) -> str:
    kept = {name: content for name, content in found.nodes.items() if content is not None}
    if set(again.nodes) != set(kept):
        return "what was written has other layers than planned"
    if again.outputs != tuple(found.place(old, name) for name in old.outputs):
        return "what was written has other outputs than planned"
    for name, content in kept.items():
        one, planned = again.nodes[name], new.nodes[content]
        reads = tuple(found.place(old, source) for source in old.nodes[name].inputs)
        if (one.op, one.shape, one.inputs) != (planned.op, planned.shape, reads):
            return f"'{name}' isn't what was planned there"
        if one.attrs.get("inside") != planned.attrs.get("inside"):
            return f"'{name}' isn't what was planned there"
        if one.kind == "norm" and one.attrs.get("frozen") != planned.attrs.get("frozen"):
            return f"'{name}' would be frozen otherwise than planned"
        if _axes(one) != _axes(planned):
            return f"'{name}' would work along another axis than planned"
        if set(one.arrays) != set(planned.arrays):
            return f"'{name}' has other weights than planned"
        pairs = ((again.tensors[one.arrays[r]], new.tensors[planned.arrays[r]]) for r in one.arrays)
        if not all(_close(*pair) for pair in pairs):
            return f"'{name}' has other weights than planned"
    return ""


def _axes(node: Node) -> Any:
    axis = node.attrs.get("axis")
    if node.kind == "norm":
        return axes_of(node)
    return axis % len(node.shape) if isinstance(axis, int) else axis


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two tensors are the same but for a cast to the module's type."""
    if one.shape != other.shape:
        return False
    same = np.array_equal(one, other)
    return same or bool(np.allclose(one, other, rtol=1e-2, atol=1e-6, equal_nan=True))
