"""Pools and reductions of PyTorch as nodes of a Graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ....graph.inference import output_shape
from ..program import Data, Parts, Unknown, need_data
from ..translator import Translator
from .elementwise import extreme
from .handler import NUMBERS, Handler, module_as, numbered
from .linear import check_rank, numbers, spatial_padding


def _emit_pool(
    t: Translator, op: str, x: Data, window: Any, stride: Any, padding: Any, rank: int, **more: Any
) -> Data:
    """Emit a max or average pool."""
    check_rank(x, rank)
    window = numbers(window, rank)
    empty = stride is None or (isinstance(stride, Sequence) and not stride)
    attrs = {
        "window": window,
        "strides": window if empty else numbers(stride, rank),
        "padding": spatial_padding(padding, rank),
        "data_format": "channels_first",
    }
    if "dilation" in more:
        more["dilation"] = numbers(more["dilation"], rank)
    return t.emit(op, [x], attrs | more)


def _pool(op: str, rank: int) -> Handler:
    def maximum(
        t: Translator,
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Data:
        if return_indices:
            raise Unknown("it returns indices too")
        more = {"dilation": dilation, "ceil_mode": ceil_mode}
        return _emit_pool(t, op, need_data(input), kernel_size, stride, padding, rank, **more)

    def average(
        t: Translator,
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: Any = None,
    ) -> Data:
        if divisor_override is not None:
            raise Unknown("it has a divisor of its own")
        more = {"ceil_mode": ceil_mode, "count_include_pad": bool(count_include_pad)}
        return _emit_pool(t, op, need_data(input), kernel_size, stride, padding, rank, **more)

    return maximum if op == "max_pool" else average


def _adaptive(op: str, rank: int) -> Handler:
    def handler(t: Translator, input: Any, output_size: Any, return_indices: bool = False) -> Data:
        x = need_data(input)
        if return_indices or len(x.shape) != rank + 2:
            raise Unknown("it returns indices too" if return_indices else "no batch axis")
        wanted = (output_size,) * rank if isinstance(output_size, int) else tuple(output_size)
        sizes = x.shape[2:]
        wanted = tuple(n if w is None else w for w, n in zip(wanted, sizes, strict=True))
        if all(w == 1 for w in wanted):
            attrs = {"axes": tuple(range(2, rank + 2)), "keepdims": True}
            return t.emit(f"global_{op}", [x], attrs)
        if wanted == sizes:
            return x
        if any(n % w for n, w in zip(sizes, wanted, strict=True)):
            raise Unknown(f"windows of several sizes: from {sizes} to {wanted}")
        window = tuple(n // w for n, w in zip(sizes, wanted, strict=True))
        return _emit_pool(t, op, x, window, window, 0, rank, adaptive=wanted)

    return handler


def _reduction(function: str) -> Handler:
    def handler(
        t: Translator, input: Any, dim: Any = None, keepdim: bool = False, **kwargs: Any
    ) -> Any:
        x = need_data(input)
        if kwargs.keys() - {"dtype"}:
            raise Unknown("called with arguments that the reader doesn't know")
        keepdim = kwargs.get("keepdims", keepdim)
        return reduced(t, function, x, dim, keepdim)

    return handler


def reduced(t: Translator, function: str, x: Data, dim: Any, keepdims: bool) -> Data:
    """Emit a reduction; a mean or maximum over a whole image is a global pool."""
    rank = len(x.shape)
    if dim is None or (not isinstance(dim, int) and not len(dim)):
        raise Unknown("over all axes, the batch axis too")
    axes = tuple(sorted({a % rank for a in ([dim] if isinstance(dim, int) else dim)}))
    if 0 in axes:
        raise Unknown("over the batch axis")
    attrs = {"axes": axes, "keepdims": bool(keepdims)}
    pools = {"mean": "global_avg_pool", "max": "global_max_pool"}
    if rank >= 4 and axes == tuple(range(2, rank)) and function in pools:
        return t.emit(pools[function], [x], attrs)
    return t.emit("reduce", [x], {"function": function} | attrs)


def _extreme(function: str) -> Handler:
    def handler(t: Translator, input: Any, dim: Any = None, keepdim: bool = False) -> Any:
        x = need_data(input)
        if isinstance(dim, (Data, Tensor)):
            return extreme(f"{function}imum")(t, x, dim)
        if not isinstance(dim, int):
            raise Unknown("over all axes, the batch axis too")

        def values() -> Data:
            return reduced(t, function, x, dim, keepdim)

        def indices() -> Data:
            shape = output_shape("reduce", {"axes": (dim,), "keepdims": keepdim}, {}, [x.shape])
            return t.unknown(f"arg{function}", "indices", [x], shape, torch.int64)

        return Parts([t.later(values), t.later(indices)])

    return handler


def _spread(function: str) -> Handler:
    def handler(
        t: Translator,
        input: Any,
        dim: Any = None,
        unbiased: Any = True,
        keepdim: bool = False,
        correction: Any = 1,
    ) -> Any:
        if unbiased or (correction and unbiased is None):
            raise Unknown("with Bessel's correction")
        return reduced(t, function, need_data(input), dim, keepdim)

    return handler


_MAX_POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVG_POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
FUNCTIONS: dict[str, Handler] = {
    **{f"max_pool{n}d": _pool("max_pool", n) for n in NUMBERS},
    **{f"avg_pool{n}d": _pool("avg_pool", n) for n in NUMBERS},
    **{f"adaptive_avg_pool{n}d": _adaptive("avg_pool", n) for n in NUMBERS},
    **{f"adaptive_max_pool{n}d": _adaptive("max_pool", n) for n in NUMBERS},
    **{name: _reduction(name) for name in ("sum", "mean", "prod")},
    "amax": _reduction("max"),
    "amin": _reduction("min"),
    "max": _extreme("max"),
    "min": _extreme("min"),
    "var": _spread("var"),
    "std": _spread("std"),
}
MODULES: dict[type, Handler] = {
    **numbered("MaxPool", lambda n: module_as(_pool("max_pool", n), *_MAX_POOL)),
    nn.AvgPool1d: module_as(_pool("avg_pool", 1), *_AVG_POOL),
    nn.AvgPool2d: module_as(_pool("avg_pool", 2), *_AVG_POOL, "divisor_override"),
    nn.AvgPool3d: module_as(_pool("avg_pool", 3), *_AVG_POOL, "divisor_override"),
    **numbered("AdaptiveAvgPool", lambda n: module_as(_adaptive("avg_pool", n), "output_size")),
    **numbered(
        "AdaptiveMaxPool",
        lambda n: module_as(_adaptive("max_pool", n), "output_size", "return_indices"),
    ),
}
