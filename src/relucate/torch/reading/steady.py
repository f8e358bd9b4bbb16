"""Whether a known module is, when it is called, what it was when the forward began.

A forward may set a module's mode or stride for one call, or exchange its weights
(`torch.func.functional_call`). Then the module isn't read as a whole: what it does is traced into.
Called by the three ways into a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from .detached import View

_TENSORS = ("_parameters", "_buffers")
_PLAIN = (bool, int, float, str, tuple)


class Steady:
    """The known modules of a view as they are now.

    Attributes: changed: the paths of those that were found to be otherwise since.
    """

    def __init__(self, view: View, is_leaf: Callable[[str, nn.Module], bool]) -> None:
        self._known = {p: _state(m) for p, m in view.modules.items() if is_leaf(p, m)}
        self.changed: set[str] = set()

    def whole(self, path: str, module: nn.Module) -> bool:
        """Return whether a module is known, and is as it was."""
        if path not in self._known:
            return False
        if not _same(self._known[path], _state(module)):
            self.changed.add(path)
        return path not in self.changed


def _state(module: nn.Module) -> dict[Any, Any]:
    return dict(_items(module))


def _items(module: nn.Module) -> Iterator[tuple[Any, Any]]:
    for path, inner in module.named_modules():
        if isinstance(inner, torch.jit.ScriptModule):
            continue
        for name, value in vars(inner).items():
            if name in _TENSORS:
                yield from (((path, name, key), tensor) for key, tensor in value.items())
            else:
                yield (path, name), value


def _same(before: dict[Any, Any], now: dict[Any, Any]) -> bool:
    return before.keys() == now.keys() and all(
        value is now[key] or (isinstance(value, _PLAIN) and value == now[key])
        for key, value in before.items()
    )
