"""Activations, dropouts and arithmetic of PyTorch as nodes of a Graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ....graph.inference import Mismatch
from ...modules import FixedAffine, FixedOffset
from ..builder import Weight
from ..program import Data, Unknown, need_data
from ..translator import Translator
from .elements import element_by_element, number_in
from .handler import NUMBERS, Handler, module_as, numbered


def _activation(op: str, **named: Any) -> Handler:
    """Return an activation's handler; `named`: argument -> (attr, default)."""
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
    if isinstance(min, Data) and max is None:
        return t.emit("maximum", [x, min])
    low = float("-inf") if min is None else number_in(t, min)
    high = float("inf") if max is None else number_in(t, max)
    if low is None or high is None:
        raise Unknown("between bounds that are tensors")
    if low == 0 and high == 6:
        return t.emit("relu6", [x])
    if low == 0:
        return t.emit("relu", [x], {} if max is None else {"max_value": high})
    return t.emit("hard_tanh", [x], {"min_value": low, "max_value": high})


def _hard_tanh(
    t: Translator, input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Data:
    if min_val == 0 and max_val == 6:
        return t.emit("relu6", [need_data(input)])
    attrs = {"min_value": float(min_val), "max_value": float(max_val)}
    return t.emit("hard_tanh", [need_data(input)], attrs)


def _softmin(t: Translator, m: Any, input: Any) -> Data:
    with t.part("negative"):
        x = _neg(t, input)
    return _soft("softmax")(t, x, m.dim)


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
        return _emit_dropout(t, op, x, p, spatial, forced=bool(on))

    return handler


def _emit_dropout(
    t: Translator, op: str, x: Data, p: float, spatial: bool, *, forced: bool = False
) -> Data:
    """Emit a dropout; `forced`: it is active even in eval mode."""
    attrs: dict[str, Any] = {"rate": float(p)}
    if spatial:
        attrs["spatial"] = 1
    if forced:
        attrs["forced"] = True
    return t.emit(op, [x], attrs, alias=not forced)


def _dropout_module(op: str, spatial: bool = False) -> Handler:
    def handler(t: Translator, m: Any, input: Any) -> Data:
        return _emit_dropout(t, op, need_data(input), m.p, spatial)

    return handler


# Arithmetic: of two inputs, of an input and a number or a weight.


def _arithmetic(op: str, swap: bool = False) -> Handler:
    def handler(
        t: Translator, input: Any, other: Any, alpha: Any = 1, rounding_mode: Any = None
    ) -> Data:
        if rounding_mode is not None:
            raise Unknown("it rounds")
        a, b = (other, input) if swap else (input, other)
        if alpha != 1:
            b = _times(t, b, alpha)
        return combine(t, op, a, b)

    return handler


def _times(t: Translator, value: Any, factor: Any) -> Any:
    if isinstance(value, Data):
        return t.emit("rescale", [value], {"scale": float(factor), "offset": 0.0})
    return value * factor


def combine(t: Translator, op: str, a: Any, b: Any) -> Data:
    """Emit a op b, of which at least one depends on the input."""
    if isinstance(a, Data) and isinstance(b, Data):
        if op in ("add", "multiply", "subtract", "divide") and not _are_numbers(op, a, b):
            raise Unknown("arithmetic of integers")
        return t.emit(op, [a, b], dtype=torch.promote_types(a.dtype, b.dtype))
    x, other = (a, b) if isinstance(a, Data) else (b, a)
    if not isinstance(x, Data) or not x.dtype.is_floating_point:
        raise Unknown("arithmetic of integers")
    first = x is a
    if isinstance(other, Tensor) and not t.is_stored(other):
        number = number_in(t, other)
        other = other if number is None else number
    if isinstance(other, Tensor):
        return _with_weights(t, op, x, other, first)
    if isinstance(other, bool) or not isinstance(other, (int, float)):
        raise Unknown(f"with {type(other).__name__}")
    if op == "divide" and not first:
        return element_by_element(t, "divide", [other, x])
    scale, offset = _as_rescale(op, float(other), first)
    t.refuse_batch(scale, offset)
    return t.emit("rescale", [x], {"scale": scale, "offset": offset})


def _are_numbers(op: str, *values: Data) -> bool:
    """Return whether all values are of floating point; a truth value may be a factor."""
    floats = [x.dtype.is_floating_point for x in values]
    truths = [x.dtype == torch.bool for x in values]
    return all(floats) or (op == "multiply" and any(floats) and any(truths))


def _as_rescale(op: str, number: float, first: bool) -> tuple[float, float]:
    """Return (scale, offset) of x op number (`first`), or of number op x."""
    if op == "add":
        return 1.0, number
    if op == "subtract":
        return (1.0, -number) if first else (-1.0, number)
    if op == "multiply":
        return number, 0.0
    if op == "divide" and first and number:
        return 1.0 / number, 0.0
    raise Unknown(f"{op} with a number")


def _with_weights(t: Translator, op: str, x: Data, other: Tensor, first: bool) -> Data:
    if op not in ("add", "subtract", "multiply", "divide") or (op == "divide" and not first):
        raise Unknown(f"{op} with a constant tensor")
    other = t.without_batch(other, len(x.shape))
    role = "offset" if op in ("add", "subtract") else "scale"
    if op == "subtract" and first:
        other = t.derived(-other, other)
    elif op == "subtract":
        x = t.emit("rescale", [x], {"scale": -1.0, "offset": 0.0})
    elif op == "divide":
        other = t.derived(1.0 / other, other)
    found = t.emit("affine", [x], {}, {role: Weight(other)})
    if len(found.shape) != len(x.shape) or found.shape[0] != x.shape[0]:
        raise Unknown("a constant that gives the input more axes")
    return found


def _fixed_affine(t: Translator, m: FixedAffine, input: Any) -> Data:
    weights = {r: Weight(x) for r in ("scale", "offset") if (x := getattr(m, r)) is not None}
    return t.emit("affine", [need_data(input)], {}, weights)


def _neg(t: Translator, input: Any) -> Data:
    return t.emit("rescale", [need_data(input)], {"scale": -1.0, "offset": 0.0})


def extreme(op: str) -> Handler:
    def handler(t: Translator, input: Any, other: Any) -> Data:
        if isinstance(input, Data) and isinstance(other, Data):
            return t.emit(op, [input, other])
        x, bound = (input, other) if isinstance(input, Data) else (other, input)
        return _clamp(t, x, bound) if op == "maximum" else _clamp(t, x, None, bound)

    return handler


FUNCTIONS: dict[str, Handler] = {
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
    "erf": _activation("erf"),
    "softmax": _soft("softmax"),
    "log_softmax": _soft("log_softmax"),
    "glu": _glu,
    "prelu": _prelu,
    "rrelu": _rrelu,
    "clamp": _clamp,
    "clamp_min": lambda t, input, min: _clamp(t, input, min),
    "clamp_max": lambda t, input, max: _clamp(t, input, None, max),
    "dropout": _dropout("dropout"),
    "feature_dropout": _dropout("dropout", spatial=True),
    "alpha_dropout": _dropout("alpha_dropout"),
    "feature_alpha_dropout": _dropout("alpha_dropout", spatial=True),
    **{f"dropout{n}d": _dropout("dropout", spatial=True) for n in NUMBERS},
    "add": _arithmetic("add"),
    "sub": _arithmetic("subtract"),
    "rsub": _arithmetic("subtract", swap=True),
    "mul": _arithmetic("multiply"),
    "div": _arithmetic("divide"),
    "neg": _neg,
    "maximum": extreme("maximum"),
    "minimum": extreme("minimum"),
}
# The function, and the module's attributes that are its arguments.
_AS_FUNCTIONS: dict[type, str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.LeakyReLU: "leaky_relu negative_slope",
    nn.PReLU: "prelu weight",
    nn.RReLU: "rrelu lower upper",
    nn.ELU: "elu alpha",
    nn.SELU: "selu",
    nn.CELU: "celu alpha",
    nn.GELU: "gelu approximate",
    nn.SiLU: "silu",
    nn.Mish: "mish",
    nn.Hardswish: "hardswish",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Hardtanh: "hardtanh min_val max_val",
    nn.Sigmoid: "sigmoid",
    nn.LogSigmoid: "log_sigmoid",
    nn.Tanh: "tanh",
    nn.Tanhshrink: "tanhshrink",
    nn.Softshrink: "softshrink lambd",
    nn.Hardshrink: "hardshrink lambd",
    nn.Threshold: "threshold threshold value",
    nn.Softplus: "softplus beta threshold",
    nn.Softsign: "softsign",
    nn.Softmax: "softmax dim",
    nn.LogSoftmax: "log_softmax dim",
    nn.GLU: "glu dim",
}
# Of a function, the class that does the same, and the names of the arguments that both have.
AS_MODULES: dict[str, tuple[type, list[str]]] = {
    name: (kind, attributes)
    for kind, (name, *attributes) in ((kind, s.split()) for kind, s in _AS_FUNCTIONS.items())
    if kind is not nn.PReLU
}
MODULES: dict[type, Handler] = {
    **{
        kind: module_as(FUNCTIONS[name], *attributes)
        for kind, (name, *attributes) in ((kind, s.split()) for kind, s in _AS_FUNCTIONS.items())
    },
    nn.Softmax2d: lambda t, m, input: _soft("softmax")(t, input, -3),
    nn.Softmin: _softmin,
    **numbered("Dropout", lambda n: _dropout_module("dropout", spatial=True)),
    nn.Dropout: _dropout_module("dropout"),
    nn.AlphaDropout: _dropout_module("alpha_dropout"),
    nn.FeatureAlphaDropout: _dropout_module("alpha_dropout", spatial=True),
    FixedAffine: _fixed_affine,
    FixedOffset: lambda t, m, input, source: combine(t, "add", need_data(input), m.offset),
}
