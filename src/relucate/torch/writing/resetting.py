"""Initialise the parameters of a written model again, each module from a seed of its own path.

By each module's own `reset_parameters`; what the model's __init__ does to them afterwards isn't
known. A weight that PyTorch's weight_norm or spectral_norm computes is initialised as that of the
plain module is, then taken apart. Called by `writer`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm, _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm

from ...errors import Refused, briefly
from ...train.framework import Init
from ..reading.frozen import is_frozen_batch_norm
from .copying import OWN_HOOKS

_ITERATIONS = 15  # of the power method: as many as PyTorch does for a new spectral norm


def reset(
    model: nn.Module,
    fresh: int,
    moved: Mapping[str, str] | None = None,
    init: Init | None = None,
) -> None:
    """Initialise all parameters again, reproducibly, and leave the global generator alone.

    Args:
        moved: path -> the path that gives the seed: that the module had in the source.
        init: initialises the parameters of a module that has no method for it.
    Raises: Refused: a module that has parameters and no such method, or that computes its weight in
        another way.
    """
    devices = [] if not torch.cuda.is_available() else list(range(torch.cuda.device_count()))
    inside = {id(m) for held in _parametrizations(model) for m in held.modules()}
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        for path, module in model.named_modules():
            if id(module) not in inside:
                origin = _origin(path, moved or {})
                torch.manual_seed(zlib.crc32(f"{fresh}:{origin}".encode()))
                _reset_one(path, module, init)


def _origin(path: str, moved: Mapping[str, str]) -> str:
    parts = path.split(".")
    for n in range(len(parts), 0, -1):
        if source := moved.get(".".join(parts[:n])):
            return ".".join([source, *parts[n:]])
    return path


def _parametrizations(model: nn.Module) -> list[nn.Module]:
    found = (m for m in model.modules() if parametrize.is_parametrized(m))
    return [held for m in found if isinstance(held := m.parametrizations, nn.Module)]


def _reset_one(path: str, module: nn.Module, init: Init | None) -> None:
    hooks = [h for h in module._forward_pre_hooks.values() if isinstance(h, OWN_HOOKS)]
    if parametrize.is_parametrized(module):
        _reset_parametrized(path, module)
    elif hooks:
        _reset_hooked(path, module, hooks)
    elif method := _method(path, module, init):
        _call(method, path, module, init)


def _method(path: str, module: nn.Module, init: Init | None = None) -> Callable[[], None] | None:
    """Return how a module initialises its parameters; None: there are none.

    Raises: Refused: there are parameters and no method.
    """
    own = [*module._parameters.values(), *module._buffers.values()]
    if not any(tensor is not None for tensor in own):
        return None
    if is_frozen_batch_norm(module):  # which has no method of its own
        return partial(_reset_frozen, module)
    method: Any = getattr(module, "reset_parameters", None)
    method = method or getattr(module, "_reset_parameters", None)
    if method is None and any(p is not None for p in module._parameters.values()):
        if init is not None:
            return partial(init, module)
        raise Refused(
            f"'{path}' ({type(module).__name__}) has parameters and no reset_parameters: give it "
            "one, or a function init(module) that initialises it (init=lambda module: None keeps "
            "the values of a model that was just built)."
        )
    return method


def _reset_frozen(norm: Any) -> None:
    """Make a norm with fixed tensors what a new one is: its statistics were of trained weights."""
    for tensor, value in (
        (norm.weight, 1.0),
        (norm.bias, 0.0),
        (norm.running_mean, 0.0),
        (norm.running_var, 1.0),
    ):
        tensor.fill_(value)


def _call(
    method: Callable[[], None], path: str, module: nn.Module, init: Init | None = None
) -> None:
    """Call what initialises a module; `init` does it instead if that fails.

    Raises: Refused: it fails, and there is no `init`.
    """
    own = (*module._parameters.values(), *module._buffers.values())
    before = [(t, t.clone()) for t in own if t is not None] if init is not None else []
    try:
        method()
    except Exception as error:
        if init is None:
            raise Refused(
                f"'{path}' ({type(module).__name__}) can't be initialised again: its method for it "
                f"fails ({briefly(error)}). Mend it, or give a function init(module) that does it "
                "(init=lambda module: None keeps the values of a model that was just built)."
            ) from error
        for tensor, old in before:
            tensor.copy_(old)
        init(module)


def _plain(path: str, module: nn.Module, names: Iterable[str], hidden: set[str]) -> Any:
    """Return the module as it is without what computes the tensors `names`, initialised.

    Its other parameters are the module's own.
    """
    held = module.__dict__
    bare = object.__new__(parametrize.type_before_parametrizations(module))
    bare.__dict__.update({k: v for k, v in held.items() if k not in names})
    kept = {k: v for k, v in held["_parameters"].items() if k not in hidden}
    made = {name: nn.Parameter(torch.empty_like(getattr(module, name))) for name in names}
    bare.__dict__["_parameters"] = {**kept, **made}
    modules = {k: v for k, v in held["_modules"].items() if k != "parametrizations"}
    bare.__dict__["_modules"] = modules
    if method := _method(path, bare):
        _call(method, path, module)
    return bare


# torch.nn.utils.parametrizations.


def _reset_parametrized(path: str, module: nn.Module) -> None:
    held: Any = module.parametrizations
    for name, parts in held.items():
        for part in parts:
            if not isinstance(part, (_SpectralNorm, _WeightNorm)):
                kind = type(part).__name__.lstrip("_")
                raise Refused(
                    f"'{path}' computes its {name} ({kind}), which can't be initialised again: "
                    "take the parametrization off, rebuild, and put it on the result."
                )
    bare = _plain(path, module, list(held), set())
    for name, parts in held.items():
        setattr(module, name, getattr(bare, name).detach())
        for part in parts:
            _start_vectors(part.buffers())
        _iterate(module, name)


def _start_vectors(vectors: Iterable[Tensor]) -> None:
    """Let the power method of a spectral norm start from new vectors, not from trained ones."""
    for vector in vectors:
        vector.copy_(F.normalize(torch.randn_like(vector), dim=0))


def _iterate(module: nn.Module, name: str) -> None:
    """Read a computed weight in training mode: a spectral norm takes a step each time."""
    parts: Any = module.parametrizations
    modes = {part: part.training for part in parts.modules()}
    parts.train()
    for _ in range(_ITERATIONS):
        getattr(module, name)
    for part, training in modes.items():
        part.training = training


# torch.nn.utils.weight_norm and spectral_norm, by hooks.


def _reset_hooked(path: str, module: nn.Module, hooks: Iterable[Any]) -> None:
    for hook in hooks:
        name = hook.name
        if isinstance(hook, WeightNorm):
            bare = _plain(path, module, [name], {f"{name}_g", f"{name}_v"})
            weight = getattr(bare, name)
            getattr(module, f"{name}_v").copy_(weight)
            getattr(module, f"{name}_g").copy_(torch.norm_except_dim(weight, 2, hook.dim))
            setattr(module, name, hook.compute_weight(module))
            continue
        bare = _plain(path, module, [name], {f"{name}_orig"})
        getattr(module, f"{name}_orig").copy_(getattr(bare, name))
        _start_vectors([getattr(module, f"{name}_{vector}") for vector in "uv"])
        for _ in range(_ITERATIONS):
            setattr(module, name, hook.compute_weight(module, do_power_iteration=True))
