"""A copy of a model to edit: what can't be carried over by a copy is refused by name.

A forward hook may change what its module computes, and was not read; it may refer to the source
model, so that a copy of it would do something else. The hooks of PyTorch's own weight_norm and
spectral_norm belong to their modules and are copied with them. A module's own `__deepcopy__` may
forget its mode, freezing or values: that is put back. Called by `writer`.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ...errors import Refused
from ..reading.detached import only_records

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
    except Exception as error:  # copying the user's attributes may raise any error
        raise Refused(f"the model can't be copied ({type(error).__name__}: {error}).") from error
    for module in twin.modules():
        for kind in _BACKWARD:
            getattr(module, kind).clear()
    _complete(twin, model)
    return twin


def _complete(twin: nn.Module, model: nn.Module) -> None:
    """Give a copy the modes, freezing and values of the model, as far as its own copying lost them.

    Raises: Refused: it has other submodules or tensors, or shares them otherwise.
    """
    if twin is model or dict(model.named_modules()).keys() != dict(twin.named_modules()).keys():
        raise Refused("the model can't be copied: a deep copy of it has other submodules.")
    copy_modes(twin, model)
    old, new = _tensors(model), _tensors(twin)
    if old.keys() != new.keys():
        name = min(old.keys() ^ new.keys())
        raise Refused(f"the model can't be copied: a deep copy of it has another '{name}'.")
    twins: dict[int, int] = {}
    sources: dict[int, int] = {}  # the other way round: as many tensors are shared as before
    for name, tensor in old.items():
        other = new[name]
        one, two = id(tensor), id(other)
        same = twins.setdefault(one, two) == two and sources.setdefault(two, one) == one
        like = (tensor.shape, tensor.dtype) == (other.shape, other.dtype)
        if one == two or not same or not like:
            raise Refused(f"the model can't be copied: a deep copy of it has another '{name}'.")
        if other.is_leaf:
            other.requires_grad_(tensor.requires_grad)
        strided = tensor.layout == torch.strided and tensor.device.type != "meta"
        if strided and tensor.element_size() > 1 and not torch.equal(tensor, other):
            other.detach().copy_(tensor.detach())


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    parameters = model.named_parameters(remove_duplicate=False)
    return {**dict(parameters), **dict(model.named_buffers(remove_duplicate=False))}


def copy_modes(made: nn.Module, model: nn.Module) -> None:
    """Give each submodule the mode of the model's at that path; a new one that of its parent."""
    known = dict(model.named_modules(remove_duplicate=False))
    modes: dict[str, bool] = {}
    for path, module in made.named_modules():
        parent = modes.get(path.rpartition(".")[0], model.training)
        modes[path] = known[path].training if path in known else parent
        module.training = modes[path]


def _check(path: str, module: nn.Module) -> None:
    where = f"module '{path}'" if path else "the model"
    held = (*module._parameters.values(), *module._buffers.values())
    if any(x is not None and nn.parameter.is_lazy(x) for x in held):
        raise Refused(f"{where} is lazy and has no weights yet: call the model once on data first.")
    if "train" in vars(module) and not isinstance(vars(module)["train"], types.MethodType):
        raise Refused(
            f"{where} has a train() that was put on it from outside, which a copy would call on "
            "the source: override train() in its class instead."
        )
    for kind, what in _FORWARD.items():
        for hook in getattr(module, kind).values():
            if _name(hook).startswith(_EXPORTED):
                raise Refused(
                    "the model comes from torch.export, which keeps what it does at inference "
                    "only: give the module that was exported."
                )
            if isinstance(hook, prune.BasePruningMethod):
                name = hook._tensor_name
                raise Refused(
                    f"{where} is pruned: a hook computes its {name} from {name}_orig and a mask. "
                    f"Make that permanent first: torch.nn.utils.prune.remove(module, '{name}')."
                )
            if not isinstance(hook, OWN_HOOKS) and not only_records(hook):
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
