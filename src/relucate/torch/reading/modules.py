"""Which modules are read as a whole: torch.nn's own, and norms that libraries write themselves.

A module that `find` doesn't know is traced inside. A subclass counts as its base only if it changes
nothing that the base computes. Called by `reader` and, through `find`, by `translator`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from . import calls
from .calls.handler import Handler
from .frozen import batch_norm_class, is_frozen_batch_norm, read_frozen
from .own_activations import own_activation
from .own_norms import own_norm, read_own_norm
from .transformers import TRANSFORMERS, attention
from .translator import Translator
from .wrapped_norms import norm_ranks, read_wrapped_norm

MODULES: dict[type, Handler] = {
    **calls.MODULES,
    nn.MultiheadAttention: attention,
    **TRANSFORMERS,
}

# What a subclass must not change to count as its base.
_COMPUTING = ("forward", "__call__", "_conv_forward", "_output_padding")
_TRACED_INTO = (
    nn.Sequential,
    nn.ModuleList,
    nn.ModuleDict,
    nn.ParameterList,
    nn.ParameterDict,
    nn.TransformerDecoder,
    nn.TransformerDecoderLayer,
    nn.Transformer,
)


def find(module: nn.Module) -> Handler | None:
    """Return the handler that reads a module as a whole, or None if the reader doesn't know it."""
    if isinstance(module, torch.jit.ScriptModule):
        return None
    if is_frozen_batch_norm(module):
        return read_frozen
    base = _base(module) or batch_norm_class(module)
    if base is None and own_norm(module) is not None:
        return read_own_norm
    if base is None:
        act = own_activation(module)
        known = read_wrapped_norm if norm_ranks(module) else None
        return known if act is None else partial(_read_as, act)
    return MODULES[base]


def _read_as(act: nn.Module, t: Translator, m: Any, input: Any) -> Any:
    """Read a module as another one that computes the same."""
    return MODULES[type(act)](t, act, input)


def is_known_whole(module: nn.Module) -> bool:
    """Return whether a module becomes nodes as a whole, also if it is opaque."""
    if find(module) is not None or isinstance(module, torch.jit.ScriptModule):
        return True
    home = type(module).__module__
    if home.startswith("torch.ao."):
        return not isinstance(module, nn.Sequential)
    return home.startswith("torch.nn.modules.") and not isinstance(module, _TRACED_INTO)


def _base(module: nn.Module) -> type | None:
    if "forward" in vars(module):  # exchanged on this very module
        return None
    cls = type(module)
    base = next((c for c in cls.__mro__ if c in MODULES), None)
    if base is None or base is cls:
        return base
    names = [name for name in _COMPUTING if hasattr(base, name)]
    return base if all(getattr(cls, name) is getattr(base, name) for name in names) else None
