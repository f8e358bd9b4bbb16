"""PyTorch's functions that return a tensor's sizes and properties, and copies of its values."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..program import GUARD, Data, Unknown, need_data
from ..translator import Translator
from .axes import permute, transpose
from .elements import element_by_element
from .handler import Handler


def _getattr(t: Translator, input: Any, name: str) -> Any:
    x = need_data(input)
    rank = len(x.shape)
    if name in ("T", "mT"):
        if name == "T" and rank != 2:
            return permute(t, x, tuple(reversed(range(rank))))
        return transpose(t, x, -2, -1)
    answers = {
        "shape": torch.Size(x.shape),
        "ndim": rank,
        "dtype": x.dtype,
        "device": t.device,
        "is_cuda": t.device.type == "cuda",
        "requires_grad": False,
        "data": x,
        "is_nested": False,
        "is_quantized": False,
    }
    if name not in answers:
        raise Unknown(f"the attribute {name}")
    return answers[name]


def _size(t: Translator, input: Any, dim: int | None = None) -> Any:
    shape = torch.Size(need_data(input).shape)
    return shape if dim is None else shape[dim]


def _nothing(t: Translator, *args: Any, **kwargs: Any) -> None:
    """A check, which returns nothing."""


# Copies: the same values.


def _same(t: Translator, input: Any, *args: Any, **kwargs: Any) -> Data:
    return need_data(input)


def _detach(t: Translator, input: Any) -> Data:
    attrs = {"stop_gradient": True}
    return t.emit("identity", [need_data(input)], attrs, label="detach", alias=True)


def _clone(t: Translator, input: Any, *args: Any, **kwargs: Any) -> Data:
    return t.fresh(need_data(input))


def _to(t: Translator, input: Any, *args: Any, **kwargs: Any) -> Data:
    x, wanted = need_data(input), [*args, *kwargs.values()]
    kinds = [w.dtype if isinstance(w, (Data, Tensor)) else w for w in wanted]
    for kind in kinds:
        if isinstance(kind, torch.dtype):
            x = _as_type(t, x, kind)
    return x


def _cast(kind: torch.dtype) -> Handler:
    def handler(t: Translator, input: Any, *args: Any, **kwargs: Any) -> Data:
        return _as_type(t, need_data(input), kind)

    return handler


def _as_type(t: Translator, x: Data, kind: torch.dtype) -> Data:
    """Return x as another floating-point type: for the Graph they are the same."""
    if kind == x.dtype:
        return x
    if kind.is_floating_point and x.dtype == torch.bool:
        return element_by_element(t, "as_number", [x], kind)
    if not (kind.is_floating_point and x.dtype.is_floating_point):
        raise Unknown(f"a cast from {x.dtype} to {kind}")
    return replace(x, dtype=kind)


def _guarded(t: Translator, input: Any, *others: Any) -> Data:
    """Read a tensor in a forward that reads values, which may have changed it."""
    x = need_data(input)
    given = list({d.name: d for d in (x, *others) if isinstance(d, Data)}.values())
    why = "the forward around it reads values of tensors"
    return replace(t.unknown(GUARD, why, given, x.shape, x.dtype), storage=x.storage)


def _identity(t: Translator, m: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
    return input


FUNCTIONS: dict[str, Handler] = {
    "getattr": _getattr,
    "size": _size,
    **dict.fromkeys(("dim", "ndimension"), lambda t, input: len(need_data(input).shape)),
    **dict.fromkeys(("numel", "nelement"), lambda t, input: math.prod(need_data(input).shape)),
    "is_floating_point": lambda t, input: need_data(input).dtype.is_floating_point,
    **dict.fromkeys(("_assert", "_assert_tensor_metadata"), _nothing),
    **dict.fromkeys(("contiguous", "cpu", "cuda", "alias", "requires_grad"), _same),
    "detach": _detach,
    **dict.fromkeys(("clone", "lift_fresh_copy"), _clone),
    **dict.fromkeys(("to", "type", "type_as", "_to_copy"), _to),
    "float": _cast(torch.float32),
    "double": _cast(torch.float64),
    "half": _cast(torch.float16),
    "bfloat16": _cast(torch.bfloat16),
    GUARD: _guarded,
}
_STUBS = (torch.ao.quantization.QuantStub, torch.ao.quantization.DeQuantStub)
# The stubs do nothing before `prepare` watches them, which a hook does.
MODULES: dict[type, Handler] = dict.fromkeys((nn.Identity, *_STUBS), _identity)
