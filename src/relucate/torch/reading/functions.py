"""What the reader makes of PyTorch's functions: linear layers, norms, pools, and all the others.

One small function per name (see `targets.canonical`), with PyTorch's argument names; aten's
functions have the same. Each emits nodes or says `Unknown`. The table at the end holds the
functions of the other files too; `modules` has those for modules. Called by `translator`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...graph.inference import Mismatch
from .activations import ACTIVATIONS
from .arithmetic import ARITHMETIC
from .builder import Weight
from .cutting import CUTTING
from .images import IMAGES
from .layers import conv, conv_transpose, dense, pool
from .program import Data, Unknown, need_data
from .shaping import SHAPING
from .translator import Translator

Handler = Callable[..., Any]


def _need_weight(w: Any) -> Weight | None:
    if w is not None and not isinstance(w, Tensor):
        raise Unknown("its weights depend on the input")
    return None if w is None else Weight(w)


# Linear layers.


def _conv(rank: int) -> Handler:
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
        _need_weight(weight)
        return conv(t, need_data(input), weight, bias, stride, padding, dilation, groups, rank)

    return handler


def _conv_transpose(rank: int) -> Handler:
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
        _need_weight(weight)
        attrs = (stride, padding, output_padding, groups, dilation)
        return conv_transpose(t, need_data(input), weight, bias, *attrs, rank)

    return handler


def _linear(t: Translator, input: Any, weight: Any, bias: Any = None) -> Data:
    _need_weight(weight)
    return dense(t, need_data(input), weight, bias)


def _matmul(t: Translator, input: Any, other: Any) -> Data:
    if isinstance(input, Data) and isinstance(other, Tensor) and other.ndim == 2:
        if len(input.shape) < 2:
            raise Unknown("a vector times a matrix")
        return t.emit("dense", [input], {}, {"kernel": Weight(other)})
    if not isinstance(input, Data) or not isinstance(other, Data):
        raise Unknown("a product with a constant that isn't a matrix on the right")
    shape = tuple((torch.empty(input.shape, device="meta") @ _meta(other)).shape)
    return t.emit("matmul", [input, other], shape=shape)


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


def _meta(x: Data) -> Tensor:
    return torch.empty(x.shape, device="meta")


def _embedding(t: Translator, weight: Any, indices: Any, *rest: Any, **named: Any) -> Data:
    _need_weight(weight)
    weights = {"table": Weight(weight)}
    return t.emit("embedding", [need_data(indices)], {}, weights, dtype=weight.dtype)


def _functional_embedding(
    t: Translator,
    input: Any,
    weight: Any,
    padding_idx: Any = None,
    max_norm: Any = None,
    *rest: Any,
    **named: Any,
) -> Data:
    if max_norm is not None:
        raise Unknown("max_norm changes the table at every call")
    return _embedding(t, weight, input)


def _attention(t: Translator, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> Data:
    inputs = [need_data(x) for x in (query, key, value)]
    shape = (*inputs[0].shape[:-1], inputs[2].shape[-1])
    return t.emit("attention", inputs, {"projections": False}, shape=shape)


# Norms.


def _batch_norm(
    t: Translator,
    input: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float | None,
    eps: float,
    cudnn_enabled: bool = False,
) -> Data:
    x = need_data(input)
    weights = {
        "gamma": _need_weight(weight),
        "beta": _need_weight(bias),
        "moving_mean": _need_weight(running_mean),
        "moving_variance": _need_weight(running_var),
    }
    forced = True if training and running_mean is not None else None
    attrs = {"axis": 1, "epsilon": float(eps), "forced": forced}
    return t.emit("batch_norm", [x], attrs | norm_mode(t, running_mean, momentum), weights)


def norm_mode(t: Translator, running_mean: Any, momentum: float | None) -> dict[str, Any]:
    """Return momentum and frozen: of the norm module that owns the statistics, if one does.

    In eval mode such modules hand over a momentum that isn't the one they train with.
    """
    owner: Any = t.owner_of(running_mean)
    if owner is not None and hasattr(owner, "momentum"):
        momentum = owner.momentum
    frozen = owner is not None and t.is_frozen(owner)
    kept = None if momentum is None else 1.0 - float(momentum)
    return {"momentum": kept, "frozen": frozen}


def _functional_batch_norm(
    t: Translator,
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Data:
    state = (weight, bias, running_mean, running_var)
    return _batch_norm(t, input, *state, training, momentum, eps)


def _instance_norm(
    t: Translator,
    input: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = False,
) -> Data:
    weights = {"gamma": _need_weight(weight), "beta": _need_weight(bias)}
    if not use_input_stats:
        weights["moving_mean"] = _need_weight(running_mean)
        weights["moving_variance"] = _need_weight(running_var)
    return t.emit("instance_norm", [need_data(input)], {"axis": 1, "epsilon": float(eps)}, weights)


def _functional_instance_norm(
    t: Translator,
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Data:
    state = (weight, bias, running_mean, running_var)
    return _instance_norm(t, input, *state, use_input_stats, momentum, eps)


def _layer_norm(
    t: Translator,
    input: Any,
    normalized_shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = False,
) -> Data:
    x = need_data(input)
    attrs = {"axes": _last(x, normalized_shape), "epsilon": float(eps)}
    weights = {"gamma": _need_weight(weight), "beta": _need_weight(bias)}
    return t.emit("layer_norm", [x], attrs, weights)


def _last(x: Data, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the last axes, which have these sizes."""
    rank = len(x.shape)
    if tuple(x.shape[rank - len(sizes) :]) != tuple(sizes):
        raise Mismatch(f"expected an input whose last axes are {tuple(sizes)}")
    return tuple(range(rank - len(sizes), rank))


def _rms_norm(
    t: Translator,
    input: Any,
    normalized_shape: Sequence[int],
    weight: Any = None,
    eps: float | None = None,
) -> Data:
    x = need_data(input)
    epsilon = torch.finfo(x.dtype).eps if eps is None else float(eps)
    attrs = {"axes": _last(x, normalized_shape), "epsilon": epsilon}
    return t.emit("rms_norm", [x], attrs, {"gamma": _need_weight(weight)})


def _group_norm(
    t: Translator,
    input: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = False,
) -> Data:
    attrs = {"groups": num_groups, "axis": 1, "epsilon": float(eps)}
    weights = {"gamma": _need_weight(weight), "beta": _need_weight(bias)}
    x = need_data(input)
    if x.shape[1] % num_groups:
        raise Mismatch(f"expected a multiple of {num_groups} channels")
    return t.emit("group_norm", [x], attrs, weights)


def _normalize(
    t: Translator, input: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None
) -> Data:
    x, axis = need_data(input), dim
    if p != 2 or not isinstance(axis, int) or axis % len(x.shape) == 0 or out is not None:
        raise Unknown("not the Euclidean norm over one axis")
    return t.emit("unit_norm", [x], {"axes": (axis,), "epsilon": float(eps)})


def _local_response_norm(
    t: Translator, input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Data:
    attrs = {"size": size, "alpha": alpha, "beta": beta, "bias": k}
    return t.emit("lrn", [need_data(input)], attrs)


# Pools.


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
        return pool(t, op, need_data(input), kernel_size, stride, padding, rank, **more)

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
        return pool(t, op, need_data(input), kernel_size, stride, padding, rank, **more)

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
        return pool(t, op, x, window, window, 0, rank, adaptive=wanted)

    return handler


_NUMBERS = (1, 2, 3)
FUNCTIONS: dict[str, Handler] = {
    **SHAPING,
    **ACTIVATIONS,
    **ARITHMETIC,
    **CUTTING,
    **IMAGES,
    **{f"conv{n}d": _conv(n) for n in _NUMBERS},
    **{f"conv_transpose{n}d": _conv_transpose(n) for n in _NUMBERS},
    **{f"max_pool{n}d": _pool("max_pool", n) for n in _NUMBERS},
    **{f"avg_pool{n}d": _pool("avg_pool", n) for n in _NUMBERS},
    **{f"adaptive_avg_pool{n}d": _adaptive("avg_pool", n) for n in _NUMBERS},
    **{f"adaptive_max_pool{n}d": _adaptive("max_pool", n) for n in _NUMBERS},
    "linear": _linear,
    "matmul": _matmul,
    "bmm": _matmul,
    "einsum": _einsum,
    "mm": _matmul,
    "embedding": _embedding,
    "functional_embedding": _functional_embedding,
    "scaled_dot_product_attention": _attention,
    "batch_norm": _batch_norm,
    "functional_batch_norm": _functional_batch_norm,
    "instance_norm": _instance_norm,
    "functional_instance_norm": _functional_instance_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "normalize": _normalize,
    "local_response_norm": _local_response_norm,
}
