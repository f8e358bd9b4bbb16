"""What the reader makes of PyTorch's activation functions and dropouts.

Names and arguments are PyTorch's, as in `functions`. Called by `translator` through the table at
the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...graph.inference import Mismatch
from .builder import Weight
from .program import Data, Unknown, need_data
from .translator import Translator

Handler = Callable[..., Any]


def _activation(op: str, **named: Any) -> Handler:
    """An activation without arguments, or with those in `named`: argument -> (attr, default)."""
    names = list(named)

    def handler(t: Translator, input: Any, *args: Any, **kwargs: Any) -> Data:
        kwargs.pop("inplace", None)
        if len(args) == len(names) + 1 and isinstance(args[-1], bool):  # inplace
            args = args[:-1]
        if len(args) > len(names) or not set(kwargs) <= set(names):
            raise Unknown("called with arguments that the reader doesn't know")
        given = dict(zip(names, args, strict=False)) | kwargs
        attrs = {attr: given.get(name, default) for name, (attr, default) in named.items()}
        return t.emit(op, [need_data(input)], attrs)

    return handler


def _gelu(t: Translator, input: Any, approximate: str = "none") -> Data:
    return t.emit("gelu", [need_data(input)], {"approximate": approximate == "tanh"})


def _prelu(t: Translator, input: Any, weight: Any) -> Data:
    x = need_data(input)
    if not isinstance(weight, Tensor):
        raise Unknown("its slopes depend on the input")
    if len(x.shape) < 2:
        raise Unknown("an input without a channel axis")
    if weight.numel() not in (1, x.shape[1]):
        raise Mismatch(f"expected {weight.numel()} channels, got {x.shape[1]}")
    return t.emit("prelu", [x], {"axis": 1}, {"alpha": Weight(weight)})


def _soft(op: str) -> Handler:
    def handler(
        t: Translator,
        input: Any,
        dim: int | None = None,
        _stacklevel: int = 3,
        dtype: Any = None,
    ) -> Data:
        x = need_data(input)
        if isinstance(_stacklevel, torch.dtype):
            dtype = _stacklevel
        if dim is None:  # PyTorch's old rule
            dim = 0 if len(x.shape) in (0, 1, 3) else 1
        if dim % len(x.shape) == 0:
            raise Unknown("over the batch axis")
        return t.emit(op, [x], {"axis": dim}, dtype=dtype)

    return handler


def _glu(t: Translator, input: Any, dim: int = -1) -> Data:
    x = need_data(input)
    if dim % len(x.shape) == 0:
        raise Unknown("over the batch axis")
    return t.emit("glu", [x], {"axis": dim})


def _softplus(t: Translator, input: Any, beta: float = 1.0, threshold: float = 20.0) -> Data:
    return t.emit("softplus", [need_data(input)], {"beta": beta, "threshold": threshold})


def _rrelu(
    t: Translator,
    input: Any,
    lower: float = 0.125,
    upper: float = 1.0 / 3,
    training: bool = False,
    *rest: Any,
    **named: Any,
) -> Data:
    attrs = {"lower": lower, "upper": upper}
    return t.emit("rrelu", [need_data(input)], attrs | ({"forced": True} if training else {}))


def _clamp(t: Translator, input: Any, min: Any = None, max: Any = None) -> Data:
    x = need_data(input)
    if any(isinstance(end, (Data, Tensor)) for end in (min, max)):
        raise Unknown("between bounds that are tensors")
    if min == 0 and max == 6:
        return t.emit("relu6", [x])
    if min == 0:
        return t.emit("relu", [x], {} if max is None else {"max_value": float(max)})
    low, high = (float("-inf") if min is None else min), (float("inf") if max is None else max)
    return t.emit("hard_tanh", [x], {"min_value": float(low), "max_value": float(high)})


def _clamp_min(t: Translator, input: Any, min: Any) -> Data:
    return _clamp(t, input, min)


def _clamp_max(t: Translator, input: Any, max: Any) -> Data:
    return _clamp(t, input, None, max)


def _hard_tanh(
    t: Translator, input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Data:
    if min_val == 0 and max_val == 6:
        return t.emit("relu6", [need_data(input)])
    attrs = {"min_value": float(min_val), "max_value": float(max_val)}
    return t.emit("hard_tanh", [need_data(input)], attrs)


def _dropout(op: str, spatial: bool = False) -> Handler:
    def handler(
        t: Translator,
        input: Any,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
        train: bool | None = None,
    ) -> Data:
        on = training if train is None else train
        x = need_data(input)
        return dropout(t, op, x, p, spatial, forced=bool(on))

    return handler


def dropout(
    t: Translator, op: str, x: Data, p: float, spatial: bool, *, forced: bool = False
) -> Data:
    """Emit a dropout; `forced`: it drops even in eval mode."""
    attrs: dict[str, Any] = {"rate": float(p)}
    if spatial:
        attrs["spatial"] = 1
    if forced:
        attrs["forced"] = True
    return t.emit(op, [x], attrs, alias=not forced)


ACTIVATIONS: dict[str, Handler] = {
    "relu": _activation("relu"),
    "relu6": _activation("relu6"),
    "leaky_relu": _activation("leaky_relu", negative_slope=("negative_slope", 0.01)),
    "elu": _activation("elu", alpha=("alpha", 1.0)),
    "selu": _activation("selu"),
    "celu": _activation("celu", alpha=("alpha", 1.0)),
    "gelu": _gelu,
    "silu": _activation("silu"),
    "hardswish": _activation("hard_silu"),
    "mish": _activation("mish"),
    "sigmoid": _activation("sigmoid"),
    "hardsigmoid": _activation("hard_sigmoid"),
    "logsigmoid": _activation("log_sigmoid"),
    "log_sigmoid": _activation("log_sigmoid"),
    "tanh": _activation("tanh"),
    "hardtanh": _hard_tanh,
    "tanhshrink": _activation("tanh_shrink"),
    "softshrink": _activation("soft_shrink", lambd=("threshold", 0.5)),
    "hardshrink": _activation("hard_shrink", lambd=("threshold", 0.5)),
    "threshold": _activation("threshold", threshold=("threshold", 0), value=("value", 0)),
    "softplus": _softplus,
    "softsign": _activation("softsign"),
    "exp": _activation("exponential"),
    "softmax": _soft("softmax"),
    "log_softmax": _soft("log_softmax"),
    "glu": _glu,
    "prelu": _prelu,
    "rrelu": _rrelu,
    "clamp": _clamp,
    "clamp_min": _clamp_min,
    "clamp_max": _clamp_max,
    "dropout": _dropout("dropout"),
    "feature_dropout": _dropout("dropout", spatial=True),
    "alpha_dropout": _dropout("alpha_dropout"),
    "feature_alpha_dropout": _dropout("alpha_dropout", spatial=True),
    **{f"dropout{n}d": _dropout("dropout", spatial=True) for n in (1, 2, 3)},
}
