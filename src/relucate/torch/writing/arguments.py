"""The arguments of a module that torch.fx makes: those that the source's forward was read with.

A traced forward has an argument for each tensor. Here it has the source's own: nested ones are
taken apart inside, and what was a constant when the source was read has to be that constant.
Called by `edits`.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ..reading.reader import example_of

_EMPTY: Any = inspect.Parameter.empty


def add_arguments(graph: fx.Graph, model: nn.Module, example: Any) -> list[fx.Node]:
    """Add the arguments of a model's forward to a graph; return the node of each tensor in them."""
    given = list(_named(model, example))
    defaults = _defaults(model, given)
    found = [graph.placeholder(n, default_value=defaults.get(n, _EMPTY)) for n, _ in given]
    return [
        node
        for (name, value), whole in zip(given, found, strict=True)
        for node in _tensors(graph, name, value, whole)
    ]


def constants(model: nn.Module, example: Any) -> dict[str, Any]:
    """Return the arguments of an example that are no tensors, by name."""
    return {
        f"{name}{pytree.keystr(path)}": leaf
        for name, value in _named(model, example)
        for path, leaf in pytree.tree_leaves_with_path(value)
        if not isinstance(leaf, Tensor)
    }


def _named(model: nn.Module, example: Any) -> Iterator[tuple[str, Any]]:
    args, kwargs = example_of(model, example)
    names = list(inspect.signature(model.forward).parameters.values())
    for index, value in enumerate(args):
        plain = index < len(names) and names[index].kind is not inspect.Parameter.VAR_POSITIONAL
        yield (names[index].name if plain else f"input_{index}"), value
    yield from kwargs.items()


def _defaults(model: nn.Module, given: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the constants at the end of the arguments that are what the forward takes without."""
    known = inspect.signature(model.forward).parameters
    found: dict[str, Any] = {}
    for name, value in reversed(given):
        if name not in known or isinstance(value, Tensor) or known[name].default != value:
            break
        found[name] = value
    return found


def _tensors(graph: fx.Graph, name: str, value: Any, whole: fx.Node) -> Iterator[fx.Node]:
    for path, leaf in pytree.tree_leaves_with_path(value):
        node = whole
        for key in path:
            at: Any = key
            if isinstance(key, pytree.GetAttrKey):
                node = graph.call_function(getattr, (node, at.name))
            else:
                index = at.idx if isinstance(key, pytree.SequenceKey) else at.key
                node = graph.call_function(operator.getitem, (node, index))
        if isinstance(leaf, Tensor):
            yield node
        else:
            _expect(graph, f"{name}{pytree.keystr(path)}", node, leaf)


def _expect(graph: fx.Graph, name: str, node: fx.Node, constant: Any) -> None:
    """Add a check that an argument is what it was when the model was read."""
    text = f"this module was made for calls with {name}={constant!r}"
    same = graph.call_function(operator.eq, (node, constant))
    graph.call_function(torch._assert, (same, text))
