"""What a trace of calls would lose, so that it stops: autocast, checkpoints, backward passes.

Called by `symbolic` and by who traces single submodules.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

_KNOWN = {
    "control flow": "which branch runs depends on values or sizes of tensors",
    "cannot be interpreted as an integer": "it needs sizes or values of tensors as numbers",
    "not '_Proxy'": "it needs sizes or values of tensors as numbers",
}
_SETS = {
    torch.autocast: "a part of it sets torch.autocast",
    torch.autograd.graph.saved_tensors_hooks: "a part of it is checkpointed or offloaded",
}
_entered: list[str] = []  # what the code that is traced now is inside of


class Lost(NameError):
    """A trace would lose what its text says."""


def cause_of(error: BaseException) -> str:
    """Return in plain words why a forward couldn't be traced, or nothing if it isn't known."""
    if isinstance(error, Lost):
        return str(error)
    return next((words for part, words in _KNOWN.items() if part in str(error)), "")


@contextmanager
def noted() -> Iterator[None]:
    """Stop at a function with its own backward pass, and note what else no call keeps."""
    outer = _entered.copy()
    _entered.clear()
    try:
        with ExitStack() as stack:
            stack.enter_context(_own_gradients())
            for kind, why in _SETS.items():
                stack.enter_context(_own_context(kind, why))
            yield
    finally:
        _entered[:] = outer


def check_contexts() -> None:
    """Check that the code that is traced now isn't inside a part that sets what no call keeps.

    Raises: Lost.
    """
    if _entered:
        raise Lost(_entered[-1])


@contextmanager
def _own_context(kind: Any, why: str) -> Iterator[None]:
    enter, leave = kind.__enter__, kind.__exit__

    def entering(self: Any) -> Any:
        _entered.append(why)
        return enter(self)

    def leaving(self: Any, *given: Any) -> Any:
        _entered.remove(why)
        return leave(self, *given)

    kind.__enter__, kind.__exit__ = entering, leaving
    try:
        yield
    finally:
        kind.__enter__, kind.__exit__ = enter, leave


@contextmanager
def _own_gradients() -> Iterator[None]:
    plain: Any = vars(torch.autograd.Function)["apply"]

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(x, fx.Proxy) for x in pytree.tree_leaves((args, kwargs))):
            raise Lost(f"{cls.__name__} has a backward pass of its own")
        return plain.__func__(cls, *args, **kwargs)

    made: Any = classmethod(apply)
    torch.autograd.Function.apply = made
    try:
        yield
    finally:
        torch.autograd.Function.apply = plain
