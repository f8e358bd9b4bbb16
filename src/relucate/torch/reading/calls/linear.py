"""Linear layers, products and embeddings of PyTorch as nodes of a Graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ....graph.inference import Mismatch
from ..builder import Weight
from ..program import Data, Unknown, need_data
from ..translator import Translator
from .handler import NUMBERS, Handler, functional, module_as, need_weight, numbered
from .resizing import pad


def numbers(value: Any, rank: int) -> tuple[int, ...]:
    """Return one number per spatial axis; a single number is for all of them, as in PyTorch."""
    found = (value,) if isinstance(value, int) else tuple(value)
    return found * rank if len(found) == 1 else found


def spatial_padding(padding: Any, rank: int) -> Any:
    """Return PyTorch's padding in the Graph's form: "valid", "same" or pairs."""
    if isinstance(padding, str):
        return padding
    pads = numbers(padding, rank)
    return tuple((p, p) for p in pads) if any(pads) else "valid"


def check_rank(x: Data, rank: int) -> None:
    """Check that an input has a batch axis, channels and `rank` image axes."""
    if len(x.shape) == rank + 1:
        raise Unknown("an input without a batch axis")
    if len(x.shape) != rank + 2:
        raise Mismatch(f"expected {rank + 2} axes (batch, channels, {rank} spatial)")


def _bias(bias: Any) -> Weight | None:
    if bias is not None and not isinstance(bias, Tensor):
        raise Unknown("its bias depends on the input")
    return None if bias is None else Weight(bias)


def _start(
    rank: int, input: Any, weight: Any, bias: Any, stride: Any, dilation: Any
) -> tuple[Data, dict[str, Any], dict[str, Weight | None]]:
    """Check a convolution's input; return it with the attributes and weights of every kind."""
    need_weight(weight)
    x = need_data(input)
    check_rank(x, rank)
    attrs = {
        "strides": numbers(stride, rank),
        "dilation": numbers(dilation, rank),
        "data_format": "channels_first",
    }
    return x, attrs, {"kernel": Weight(weight, "conv"), "bias": _bias(bias)}


def _conv(rank: int) -> Handler:
    """Emit a conv, or a depthwise conv where every channel has its own group."""

    def handler(
        t: Translator,
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Data:
        x, attrs, weights = _start(rank, input, weight, bias, stride, dilation)
        attrs["padding"] = spatial_padding(padding, rank)
        if groups > 1 and weight.shape[1] == 1:
            weights["kernel"] = Weight(weight, "depthwise", groups)
            return t.emit("depthwise_conv", [x], attrs, weights)
        return t.emit("conv", [x], attrs | {"groups": groups}, weights)

    return handler


def _conv_module(rank: int) -> Handler:
    def handler(t: Translator, m: Any, input: Any) -> Data:
        x, padding = need_data(input), m.padding
        if m.padding_mode != "zeros":
            with t.part("pad"):
                x = pad(t, x, list(m._reversed_padding_repeated_twice), m.padding_mode)
            padding = 0
        return _conv(rank)(t, x, m.weight, m.bias, m.stride, padding, m.dilation, m.groups)

    return handler


def _conv_transpose(rank: int) -> Handler:
    """Emit a transposed conv: its full output is cropped by `padding` on both sides."""

    def handler(
        t: Translator,
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Data:
        x, attrs, weights = _start(rank, input, weight, bias, stride, dilation)
        extra = numbers(output_padding, rank)
        attrs["padding"] = tuple((p, p) for p in numbers(padding, rank))
        attrs |= {"groups": groups, "output_padding": extra if any(extra) else None}
        return t.emit("conv_transpose", [x], attrs, weights)

    return handler


def _linear(t: Translator, input: Any, weight: Any, bias: Any = None) -> Data:
    """Emit a dense layer over the last axis."""
    need_weight(weight)
    x = need_data(input)
    if len(x.shape) < 2:
        raise Unknown("an input without a batch axis")
    weights = {"kernel": Weight(weight, "dense"), "bias": _bias(bias)}
    return t.emit("dense", [x], {}, weights)


def _matmul(t: Translator, input: Any, other: Any) -> Data:
    if isinstance(input, Data) and isinstance(other, Tensor) and other.ndim == 2:
        if len(input.shape) < 2:
            raise Unknown("a vector times a matrix")
        return t.emit("dense", [input], {}, {"kernel": Weight(other)})
    if not isinstance(input, Data) or not isinstance(other, Data):
        raise Unknown("a product with a constant that isn't a matrix on the right")
    x, y = (torch.empty(v.shape, device="meta") for v in (input, other))
    return t.emit("matmul", [input, other], shape=tuple((x @ y).shape))


def _addmm(
    t: Translator, input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1
) -> Data:
    """Emit a dense layer, as GPT-2 writes it: its weight isn't turned."""
    x = need_data(mat1)
    plain = isinstance(input, Tensor) and isinstance(mat2, Tensor) and input.ndim == 1
    if not plain or (beta, alpha) != (1, 1):
        raise Unknown("not a bias and a matrix of weights")
    return t.emit("dense", [x], {}, {"kernel": Weight(mat2), "bias": Weight(input)})


def _einsum(t: Translator, equation: Any, *operands: Any) -> Data:
    if not isinstance(equation, str) or len(operands) == 1:
        operands = tuple(t.items(operands[0])) if operands else ()
    if not isinstance(equation, str) or len(operands) != 2:
        raise Unknown("not an equation of two operands")
    (left, _, out), x = equation.replace(" ", "").partition("->"), need_data(operands[0])
    first, _, second = left.partition(",")
    if "." in equation or not out or out[0] != first[0] or out[0] in second[1:]:
        raise Unknown("its batch axis isn't the first one")
    shapes = [torch.empty(o.shape, device="meta") for o in operands]
    shape = tuple(torch.einsum(equation, *shapes).shape)
    if isinstance(operands[1], Data):
        if second[0] != out[0]:
            raise Unknown("its batch axis isn't the first one")
        return t.emit("matmul", [x, operands[1]], {"equation": equation}, shape=shape)
    if out[0] in second:
        raise Unknown("the weights have a batch axis")
    weights = {"kernel": Weight(operands[1])}
    return t.emit("einsum", [x], {"equation": equation}, weights, shape=shape)


def _embedding(t: Translator, weight: Any, indices: Any, *rest: Any, **named: Any) -> Data:
    need_weight(weight)
    weights = {"table": Weight(weight)}
    return t.emit("embedding", [need_data(indices)], {}, weights, dtype=weight.dtype)


def _looked_up(t: Translator, input: Any, weight: Any, max_norm: Any, **_: Any) -> Data:
    if max_norm is not None:
        raise Unknown("max_norm changes the table at every call")
    return _embedding(t, weight, input)


def _attention(t: Translator, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> Data:
    inputs = [need_data(x) for x in (query, key, value)]
    shape = (*inputs[0].shape[:-1], inputs[2].shape[-1])
    return t.emit("attention", inputs, {"projections": False}, shape=shape)


_TRANSPOSED = ("weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
FUNCTIONS: dict[str, Handler] = {
    **{f"conv{n}d": _conv(n) for n in NUMBERS},
    **{f"conv_transpose{n}d": _conv_transpose(n) for n in NUMBERS},
    "linear": _linear,
    **dict.fromkeys(("matmul", "bmm", "mm"), _matmul),
    "addmm": _addmm,
    "einsum": _einsum,
    "embedding": _embedding,
    "functional_embedding": functional(nn.functional.embedding, _looked_up),
    "scaled_dot_product_attention": _attention,
}
MODULES: dict[type, Handler] = {
    **numbered("Conv", _conv_module),
    **numbered("ConvTranspose", lambda n: module_as(_conv_transpose(n), *_TRANSPOSED)),
    nn.Linear: module_as(_linear, "weight", "bias"),
    nn.modules.linear.NonDynamicallyQuantizableLinear: module_as(_linear, "weight", "bias"),
    nn.Embedding: module_as(_looked_up, "weight", "max_norm"),
}
