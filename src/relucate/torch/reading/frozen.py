"""Batch norms with a forward of their own: frozen by design, or subclasses of PyTorch's.

Such as torchvision's FrozenBatchNorm2d. They hold weight, bias, running_mean and running_var and
compute x * scale + shift from them. That a module is one is not taken from its name: it is called,
on copies: what is no subclass of PyTorch's in both modes. Called by `modules`.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .builder import Weight
from .program import Data, need_data
from .translator import Translator

_HELD = {"weight", "bias", "running_mean", "running_var"}
_RANKS = {nn.BatchNorm1d: 3, nn.BatchNorm2d: 4, nn.BatchNorm3d: 5}
_known: WeakKeyDictionary[nn.Module, float | None] = WeakKeyDictionary()
_alike: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def is_frozen_batch_norm(module: nn.Module) -> bool:
    """Say whether a module computes a batch norm with its moving statistics in both modes."""
    return _epsilon(module) is not None


def _epsilon(module: nn.Module) -> float | None:
    """Return the epsilon of a frozen batch norm; None: it is none."""
    if type(module).__module__.startswith("torch.nn.modules.") or not _looks_like_one(module):
        return None
    if module not in _known:
        _known[module] = _found_epsilon(module)
    return _known[module]


def _looks_like_one(module: Any) -> bool:
    held = module._parameters.keys() | module._buffers.keys()
    if module._modules or not held >= _HELD or held - _HELD - {"num_batches_tracked"}:
        return False
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return False
    sizes = {tuple(value.shape) for name in _HELD if (value := getattr(module, name)) is not None}
    return len(sizes) == 1 and len(sizes.pop()) == 1


def _found_epsilon(module: Any) -> float | None:
    generator = torch.Generator().manual_seed(0)
    size = module.running_mean.numel()
    x = torch.randn(3, size, 2, 2, generator=generator, dtype=module.running_mean.dtype)
    state = torch.get_rng_state()
    try:
        with torch.no_grad():
            twin = copy.deepcopy(module).cpu()
            _draw(twin, size, generator)
            before = {name: getattr(twin, name).clone() for name in _HELD}
            found = [twin.train(mode)(x) for mode in (True, False)]
            same = all(torch.equal(getattr(twin, name), before[name]) for name in _HELD)
            epsilon = _seen_epsilon(twin, x)
    except Exception:  # its code fails on an input of this shape, so it isn't one
        return None
    finally:
        torch.set_rng_state(state)
    expected = _formula(x, before, epsilon)
    return epsilon if same and all(_close(y, expected) for y in found) else None


def _draw(twin: nn.Module, size: int, generator: torch.Generator) -> None:
    """Give a copy other tensors, so that its formula is seen with any weights.

    Signs take turns: a formula may take a weight's size alone.
    """
    signs = 1.0 - 2.0 * (torch.arange(size) % 2)
    for name, value in (*twin.named_parameters(), *twin.named_buffers()):
        if name in _HELD:
            drawn = torch.rand(size, generator=generator) + 0.5
            value.copy_(drawn if name == "running_var" else drawn * signs)


def _seen_epsilon(twin: Any, x: Tensor) -> float:
    """Return the epsilon that a batch norm adds: its `eps`, or seen where the variance is 0."""
    if isinstance(held := getattr(twin, "eps", None), float):
        return held
    for name in _HELD:
        getattr(twin, name).fill_(float(name == "weight"))
    found = (x.double() / twin(x).double()).square().median().item()
    return float(f"{found:.5g}")


def _formula(x: Tensor, held: dict[str, Tensor], epsilon: float) -> Tensor:
    wide = {name: value.double().reshape(1, -1, 1, 1) for name, value in held.items()}
    scale = wide["weight"] / (wide["running_var"] + epsilon).sqrt()
    return (x.double() - wide["running_mean"]) * scale + wide["bias"]


def _close(y: Any, expected: Tensor) -> bool:
    return isinstance(y, Tensor) and torch.allclose(y.double(), expected, rtol=0, atol=1e-5)


def batch_norm_class(module: nn.Module) -> type[nn.Module] | None:
    """Return PyTorch's class of a subclass whose own forward computes the same at inference.

    What it does in training mode (ghost batches, other types) is its own: it stays one module.
    """
    base = next((one for one in _RANKS if isinstance(module, one)), None)
    own = base is not None and type(module) is not base and "forward" not in vars(module)
    if base is None or not own or not _takes_one_input(module):
        return None
    if module not in _alike:
        _alike[module] = _computes_the_same(module, _RANKS[base])
    return base if _alike[module] else None


def _takes_one_input(module: Any) -> bool:
    held = module._parameters.keys() | module._buffers.keys()
    if module._modules or held != _HELD | {"num_batches_tracked"}:
        return False
    if any(getattr(module, name) is None for name in _HELD - {"weight", "bias"}):
        return False
    taken = inspect.signature(module.forward).parameters.values()
    return [p.kind for p in taken] == [inspect.Parameter.POSITIONAL_OR_KEYWORD]


def _computes_the_same(module: Any, rank: int) -> bool:
    size = module.running_mean.numel()
    generator = torch.Generator().manual_seed(0)
    state = torch.get_rng_state()
    try:
        with torch.no_grad():
            twin = copy.deepcopy(module).cpu().float().eval()
            _draw(twin, size, generator)
            held = {name: _of_one(twin, name).clone() for name in _HELD}
            x = torch.randn(3, size, *[2] * (rank - 2), generator=generator)
            found = twin(x)
            same = all(torch.equal(_of_one(twin, name), held[name]) for name in _HELD)
    except Exception:  # it takes other inputs
        return False
    finally:
        torch.set_rng_state(state)
    expected = _formula(x.reshape(3, size, -1, 1), held, module.eps).reshape(x.shape)
    return same and _close(found, expected)


def _of_one(module: Any, name: str) -> Tensor:
    value = getattr(module, name)
    return torch.full_like(module.running_mean, float(name == "weight")) if value is None else value


def read_frozen(t: Translator, m: Any, input: Any) -> Data:
    """Emit the batch norm."""
    weights = {
        "gamma": Weight(m.weight),
        "beta": Weight(m.bias),
        "moving_mean": Weight(m.running_mean),
        "moving_variance": Weight(m.running_var),
    }
    attrs = {"axis": 1, "epsilon": _epsilon(m), "momentum": 1.0, "frozen": True, "forced": None}
    return t.emit("batch_norm", [need_data(input)], attrs, weights)
