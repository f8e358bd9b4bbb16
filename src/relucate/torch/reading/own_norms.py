"""Layer, RMS and group norms that a library writes itself: T5's, Llama's, timm's, ConvNeXt's.

They hold a weight, maybe a bias, and compute one of the formulas that PyTorch's classes have, in
code of their own. Which one is not taken from a name: a copy is called, in both modes, with any
weights, on rows of several sizes, so that epsilon shows. Called by `modules`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .builder import Weight
from .program import Data, Unknown, need_data
from .translator import Translator

_EPSILONS = (1e-5, 1e-6, 1e-8, 1e-12, torch.finfo(torch.float32).eps, 0.0)
_SCALES = (1.0, 1e-3, 1e-6)  # of rows: their variance is far above, near and below an epsilon
_MOST = 1 << 14  # channels: what is larger isn't called


@dataclass(frozen=True)
class OwnNorm:
    """What a module computes.

    Attributes:
        op: "layer_norm", "rms_norm" or "group_norm".
        axis: of the channels: 1 or -1.
        groups: of a group norm; else 0.
        above: what is added to the module's weight: 1 in Gemma's, 0 in others.
    """

    op: str
    axis: int
    epsilon: float
    groups: int = 0
    above: float = 0.0

    @property
    def layout(self) -> str:
        """How the weight is kept (`graph.layouts`)."""
        return "less_one" if self.above else "same"

    def of(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """Return the norm of x."""
        weight = weight + self.above if weight is not None and self.above else weight
        if self.op == "group_norm":
            return F.group_norm(x, self.groups, weight, bias, self.epsilon)
        last = x.movedim(self.axis, -1)
        size = last.shape[-1:]
        if self.op == "rms_norm":
            found = F.rms_norm(last, size, weight, self.epsilon)
        else:
            found = F.layer_norm(last, size, weight, bias, self.epsilon)
        return found.movedim(-1, self.axis)


_known: WeakKeyDictionary[nn.Module, OwnNorm | None] = WeakKeyDictionary()


def own_norm(module: nn.Module) -> OwnNorm | None:
    """Return what norm a module of a class that isn't PyTorch's computes; None: it is none."""
    if type(module).__module__.startswith("torch.") or not _looks_like_one(module):
        return None
    if module not in _known:
        _known[module] = seen_norm(module)
    return _known[module]


def _looks_like_one(module: nn.Module) -> bool:
    held = {name: p for name, p in module._parameters.items() if p is not None}
    if module._modules or "weight" not in held or held.keys() - {"weight", "bias"}:
        return False
    if any(buffer is not None for buffer in module._buffers.values()):
        return False
    sizes = {tuple(p.shape) for p in held.values()}
    return len(sizes) == 1 and len(size := sizes.pop()) == 1 and 1 < size[0] <= _MOST


def seen_norm(module: nn.Module) -> OwnNorm | None:
    """Return what norm a module computes, by calling copies of it."""
    state = torch.get_rng_state()
    try:
        with torch.no_grad():
            twin: Any = copy.deepcopy(module).cpu().float()
            generator = torch.Generator().manual_seed(0)
            for parameter in twin.parameters():
                parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
            return next((norm for norm in _candidates(twin) if _is(twin, norm, generator)), None)
    except Exception:  # whatever its code does
        return None
    finally:
        torch.set_rng_state(state)


def _candidates(twin: Any) -> Iterator[OwnNorm]:
    own = [value for value in vars(twin).values() if isinstance(value, float)]
    groups = getattr(twin, "num_groups", None)
    for epsilon in dict.fromkeys((*own, *_EPSILONS)):
        for axis in (-1, 1):
            yield OwnNorm("layer_norm", axis, epsilon)
            if getattr(twin, "bias", None) is None:
                yield OwnNorm("rms_norm", axis, epsilon)
                yield OwnNorm("rms_norm", axis, epsilon, above=1.0)
        if isinstance(groups, int) and groups > 0:
            yield OwnNorm("group_norm", 1, epsilon, groups)


def _is(twin: Any, norm: OwnNorm, generator: torch.Generator) -> bool:
    """Return whether a module computes a norm: on tokens and images, or on images alone."""
    weight, bias = twin.weight, getattr(twin, "bias", None)
    wide = [None if p is None else p.double() for p in (weight, bias)]
    size = weight.numel()
    shapes = [(3, size, 2, 5)] if norm.axis == 1 else [(3, 7, size), (3, 2, 5, size)]
    for shape in shapes:
        x = torch.randn(shape, generator=generator) + 0.3
        x *= torch.tensor(_SCALES).reshape(3, *[1] * (len(shape) - 1))
        expected = norm.of(x.double(), *wide)
        for mode in (False, True):
            y = _called(twin.train(mode), x)
            if y is None or y.shape != x.shape:
                return False
            if not torch.allclose(y.double(), expected, rtol=1e-4, atol=1e-6):
                return False
    return True


def _called(twin: nn.Module, x: Tensor) -> Tensor | None:
    given = x.clone()
    try:
        y = twin(given)
    except Exception:  # it takes other shapes
        return None
    return y if isinstance(y, Tensor) and torch.equal(given, x) else None


def read_own_norm(t: Translator, m: Any, input: Any) -> Data:
    """Emit the norm."""
    x, norm = need_data(input), own_norm(m)
    if norm is None or len(x.shape) < 2 or (norm.axis == 1 and len(x.shape) != 4):
        raise Unknown("a norm on values of a shape that it wasn't seen with")
    weights = {"gamma": Weight(m.weight, norm.layout)}
    if getattr(m, "bias", None) is not None:
        weights["beta"] = Weight(m.bias)
    if norm.op == "group_norm":
        attrs: dict[str, Any] = {"groups": norm.groups, "axis": 1, "epsilon": norm.epsilon}
    else:
        attrs = {"axes": (norm.axis % len(x.shape),), "epsilon": norm.epsilon}
    return t.emit(norm.op, [x], attrs, weights)
