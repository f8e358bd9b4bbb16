"""Batch norms of tokens: modules that turn or merge the axes around a batch norm of PyTorch's.

x.transpose(1, 2), flatten(0, 1) and the like in front of the norm, and their reverse behind it, are
a norm over the last axis (PatchTST's, LeViT's). Whether a module is one is not taken from its code:
a copy is called, in both modes. Called by `modules`.
"""

from __future__ import annotations

import copy
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .calls.norms import batch_norm_module
from .program import Data, Unknown, need_data
from .translator import Translator

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_SIZES = (6, 2, 5)  # of the axes in front of the channels
_MOST = 1 << 12  # channels: what is larger isn't called

_known: WeakKeyDictionary[nn.Module, frozenset[int]] = WeakKeyDictionary()


def inner_norm(module: nn.Module) -> Any:
    """Return the batch norm of a module that has nothing else with weights; None: it has none."""
    if type(module).__module__.startswith("torch.") or not module._modules:
        return None
    held = [m for m in module.modules() if m._parameters or m._buffers]
    if len(held) != 1 or type(held[0]) not in _BATCH_NORMS or held[0] is module:
        return None
    norm: Any = held[0]
    kept = norm.track_running_stats and norm.affine
    return norm if kept and 1 < norm.num_features <= _MOST else None


def norm_ranks(module: nn.Module) -> frozenset[int]:
    """Return the numbers of axes for which a module is a batch norm over the last one."""
    if inner_norm(module) is None or module._forward_hooks or module._forward_pre_hooks:
        return frozenset()
    if module not in _known:
        _known[module] = frozenset(rank for rank in (2, 3, 4) if _seen(module, rank))
    return _known[module] if max(_known[module], default=0) > 2 else frozenset()


def _seen(module: nn.Module, rank: int) -> bool:
    state = torch.get_rng_state()
    try:
        with torch.no_grad():
            return all(_is_norm(module, rank, training) for training in (False, True))
    except Exception:  # it takes other shapes; whatever its code does
        return False
    finally:
        torch.set_rng_state(state)


def _is_norm(module: nn.Module, rank: int, training: bool) -> bool:
    twin = copy.deepcopy(module).cpu().float()
    for part in twin.modules():
        part.training = training
    norm: Any = inner_norm(twin)
    generator = torch.Generator().manual_seed(0)
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    x = torch.randn((*_SIZES[: rank - 1], norm.num_features), generator=generator)
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    tokens = x.flatten(0, -2)
    factor = 0.1 if norm.momentum is None else norm.momentum
    norm.momentum = factor
    wanted = F.batch_norm(
        tokens, mean, variance, norm.weight, norm.bias, training, factor, norm.eps
    )
    found = twin(x.clone())
    pairs = [
        (found, wanted.reshape(x.shape)),
        (norm.running_mean, mean),
        (norm.running_var, variance),
    ]
    return all(_alike(*pair) for pair in pairs)


def _alike(one: Any, other: Tensor) -> bool:
    same = isinstance(one, Tensor) and one.shape == other.shape
    return same and torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def read_wrapped_norm(t: Translator, m: Any, input: Any) -> Data:
    """Emit the norm over the last axis."""
    if len(need_data(input).shape) not in norm_ranks(m):
        raise Unknown("a norm on values of a shape that it wasn't seen with")
    return batch_norm_module(axis=-1)(t, inner_norm(m), input)
