"""Call a user's module and leave it unchanged.

A forward may set attributes, count its calls in a buffer, update statistics or draw random numbers,
even in eval mode. Called by `running` and `reader` around all code that runs a user's module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._python_dispatch import _disable_current_modes

_CONTAINERS = (dict, list, set)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Restore a module's tensors, attributes and modes, and the random state, afterwards.

    Of objects in its attributes, only lists, dicts and sets are restored.
    """
    with _restoring(model):
        yield


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Do as `unchanged`, also for modules that the model calls and doesn't hold as submodules.

    They are in a plain list, a dict or a closure, so that the model's mode doesn't reach them.
    """
    with _restoring(model) as before:
        hook = register_module_forward_pre_hook(before.add_other)
        try:
            yield
        finally:
            hook.remove()


@contextmanager
def _restoring(model: nn.Module) -> Iterator[_Before]:
    before = _Before()
    for module in model.modules():
        before.add(module)
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield before
    finally:
        before.put_back()


class _Before:
    """Modules and their tensors as they were."""

    def __init__(self) -> None:
        self._seen: dict[int, nn.Module] = {}  # the modules too, so that no id comes twice
        self._kept: list[_Kept] = []
        self._values: dict[int, tuple[Tensor, Tensor, bool]] = {}

    def add(self, module: nn.Module) -> None:
        """Keep a module of the model."""
        one = _Kept(module)
        self._seen[id(module)] = module
        self._keep(one, one.tensors())

    def add_other(self, module: nn.Module, given: Any = None) -> None:
        """Keep a module, before it is called, if it has tensors that no module of the model has."""
        if id(module) in self._seen:
            return
        self._seen[id(module)] = module
        one = _Kept(module)
        own = [x for x in one.tensors() if type(x) in (Tensor, nn.Parameter)]  # and no stand-ins
        if any(id(x) not in self._values for x in own):
            with torch._C.DisableTorchFunction(), _disable_current_modes():
                self._keep(one, own)

    def _keep(self, one: _Kept, tensors: Iterable[Tensor]) -> None:
        self._kept.append(one)
        new = {id(x): x for x in tensors if id(x) not in self._values}
        self._values |= {key: (x, x.detach().clone(), x.requires_grad) for key, x in new.items()}

    def put_back(self) -> None:
        """Restore them."""
        for one in self._kept:
            one.put_back()
        for tensor, value, learned in self._values.values():
            _restore(tensor, value)
            if tensor.is_leaf and tensor.requires_grad != learned:
                tensor.requires_grad_(learned)


def _restore(tensor: Tensor, value: Tensor) -> None:
    # `.data`, because autograd counts changes of tensors that a backward pass may still need.
    if tensor.shape != value.shape:
        tensor.data = value
    elif not torch.equal(tensor, value):
        tensor.data.copy_(value)


class _Kept:
    """One module's attributes: a copy of the dict, and of the contents of its containers."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._attributes = dict(vars(module))
        self._training = module.training  # which a ScriptModule doesn't keep in its attributes
        held = [value for value in self._attributes.values() if isinstance(value, _CONTAINERS)]
        self._contents = [(value, value.copy()) for value in held]

    def tensors(self) -> Iterator[Tensor]:
        """Yield the tensors that the module holds and that have values."""
        if isinstance(self._module, torch.jit.ScriptModule):
            yield from self._module.parameters(recurse=False)
            yield from self._module.buffers(recurse=False)
        for value in self._attributes.values():
            inner = value.values() if isinstance(value, dict) else (value,)
            inner = value if isinstance(value, (list, tuple)) else inner
            yield from (x for x in inner if isinstance(x, Tensor) and _has_values(x))

    def put_back(self) -> None:
        """Restore the module's attributes and the contents of its containers."""
        vars(self._module).clear()
        vars(self._module).update(self._attributes)
        if self._module.training != self._training:
            self._module.training = self._training
        for container, before in self._contents:
            _refill(container, before)


def _has_values(tensor: Tensor) -> bool:
    dense = tensor.layout == torch.strided and tensor.device.type != "meta"
    return dense and not nn.parameter.is_lazy(tensor)


def _refill(container: Any, before: Any) -> None:
    if isinstance(container, list):
        container[:] = before
    else:
        container.clear()
        container.update(before)
