"""A copy of a model to edit: what can't be carried over by a copy is refused by name.

A forward hook may change what its module computes, and was not read; it may refer to the source
model, so that a copy of it would do something else. The hooks of PyTorch's own weight_norm and
spectral_norm belong to their modules and are copied with them. Called by `writer`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ...errors import Refused

OWN_HOOKS = (WeightNorm, SpectralNorm)
_FORWARD = {"_forward_hooks": "forward hook", "_forward_pre_hooks": "forward pre-hook"}
_EXPORTED = "_create_stateful_graph_module"  # of torch.export: its modules check their inputs
_BACKWARD = ("_backward_hooks", "_backward_pre_hooks")


def copied(model: nn.Module) -> nn.Module:
    """Return a copy that shares nothing with the model, without backward hooks.

    Raises: Refused: a forward hook, a lazy module without weights, an attribute that can't be
        copied.
    """
    for path, module in model.named_modules():
        _check(path, module)
    computed = {id(x): x.detach().clone() for x in _computed(model)}
    try:
        twin = copy.deepcopy(model, computed)
    except Exception as error:  # whatever the user's attributes do
        raise Refused(f"the model can't be copied ({type(error).__name__}: {error}).") from error
    for module in twin.modules():
        for kind in _BACKWARD:
            getattr(module, kind).clear()
    return twin


def _check(path: str, module: nn.Module) -> None:
    where = f"module '{path}'" if path else "the model"
    held = (*module._parameters.values(), *module._buffers.values())
    if any(x is not None and nn.parameter.is_lazy(x) for x in held):
        raise Refused(f"{where} is lazy and has no weights yet: call the model once on data first.")
    for kind, what in _FORWARD.items():
        for hook in getattr(module, kind).values():
            if _name(hook).startswith(_EXPORTED):
                raise Refused(
                    "the model comes from torch.export, which keeps what it does at inference "
                    "only: give the module that was exported."
                )
            if not isinstance(hook, OWN_HOOKS):
                raise Refused(
                    f"{where} has a {what} ({_name(hook)}), which can change what it computes and "
                    "can't be read: remove it, and register it on the result again if it only "
                    "looks on."
                )


def _name(hook: Any) -> str:
    return getattr(hook, "__qualname__", type(hook).__qualname__)


def _computed(model: nn.Module) -> Iterator[Tensor]:
    """Yield attributes that autograd computed: a deep copy refuses them (old weight norms)."""
    for module in model.modules():
        yield from (x for x in vars(module).values() if isinstance(x, Tensor) and not x.is_leaf)


def backward_hooks(model: nn.Module) -> tuple[str, ...]:
    """Return the modules that have backward hooks, which no copy has."""
    found = ((path or "the model", module) for path, module in model.named_modules())
    return tuple(path for path, m in found if any(getattr(m, kind) for kind in _BACKWARD))
