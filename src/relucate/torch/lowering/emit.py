"""How each Graph operation is written as torch.fx nodes; used by `lower` alone.

One small function per family of operations: it gets the emitter, the node and the `Value`s that the
node reads, and returns the node's own. The table of all of them is at the end.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from ...errors import Refused
from ...graph import Node
from ...graph.padding import explicit_padding
from ..modules import (
    Affine,
    AvgPoolSame,
    BatchNorm,
    GroupNorm,
    LayerNorm,
    Pad,
    PReLU,
    RMSNorm,
    RReLU,
    SharedDropout,
)
from .emitter import Emitter, Value
from .reshaping import RESHAPING, flat


def _spatial_sizes(emitter: Emitter, node: Node) -> tuple[int | None, ...]:
    shape = emitter.input_shape(node)
    return shape[2:] if node.attrs["data_format"] == "channels_first" else shape[1:-1]


def _same_pads(emitter: Emitter, node: Node, window: Sequence[int]) -> list[tuple[int, int]]:
    padding, strides = node.attrs["padding"], node.attrs["strides"]
    sizes = _spatial_sizes(emitter, node)
    for size, stride in zip(sizes, strides, strict=True):
        if padding == "same" and size is None and stride > 1:
            raise Refused(
                f"can't lower layer '{node.layer}': 'same' padding with stride {stride} needs a "
                "fixed image size; build the model with one."
            )
    # With stride one the zeros don't depend on the size.
    known, dilation = [size or 1 for size in sizes], node.attrs["dilation"] or (1,) * len(window)
    return explicit_padding(padding, known, window, strides, dilation)


def _symmetric(pads: Sequence[tuple[int, int]]) -> bool:
    return all(before == after for before, after in pads)


def _plain_strides(x: torch.Tensor) -> torch.Tensor:
    """Return one-channel images as if they had been made channels first.

    Their memory is the same either way, but where it is called channels last, PyTorch 2.13 (oneDNN)
    gets convolutions with strides like (1, 2) wrong as soon as the output is one pixel wide.
    """
    return x.squeeze(1).unsqueeze(1)


_CONVS: tuple[Callable[..., nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _conv(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    depthwise = node.op == "depthwise_conv"
    kernel = emitter.source.tensors[node.arrays["kernel"]].shape
    window = kernel[:-2]
    value = emitter.spatial(values[0], node)
    pads = _same_pads(emitter, node, window)
    x = value.fx
    if not _symmetric(pads):
        x = emitter.extra(node, "pad", Pad(flat(pads)), x)
        pads = [(0, 0)] * len(window)
    groups = kernel[-2] if depthwise else node.attrs["groups"]
    channels_in = kernel[-2] if depthwise else kernel[-2] * groups
    channels_out = kernel[-2] * kernel[-1] if depthwise else kernel[-1]
    if channels_in == 1 and node.attrs["strides"][-1] > node.attrs["strides"][0]:
        x = emitter.function(_plain_strides, x)

    def make() -> nn.Module:
        return _CONVS[len(window) - 1](
            channels_in,
            channels_out,
            window,
            stride=node.attrs["strides"],
            padding=tuple(before for before, _ in pads),
            dilation=node.attrs["dilation"] or 1,
            groups=groups,
            bias="bias" in node.arrays,
        )

    y = emitter.module(node, make, x)
    layout = "depthwise" if depthwise else "conv"
    emitter.bind(node, {"kernel": ("weight", layout), "bias": ("bias", "same")})
    return Value(y, value.moved)


def _dense(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    features, units = emitter.source.tensors[node.arrays["kernel"]].shape
    has_bias = "bias" in node.arrays
    x = emitter.native(values[0])
    y = emitter.module(node, lambda: nn.Linear(features, units, bias=has_bias), x)
    emitter.bind(node, {"kernel": ("weight", "dense"), "bias": ("bias", "same")})
    return Value(y, moved=False)


_AFFINE = {"gamma": ("weight", "same"), "beta": ("bias", "same")}


def _channel_first(emitter: Emitter, value: Value, axis: int, rank: int) -> tuple[fx.Node, bool]:
    """Bring graph axis `axis` to axis 1; return the node and whether it has to go back."""
    axis %= rank
    if axis == rank - 1 and value.moved:
        return value.fx, False
    x = emitter.native(value)
    return (x, False) if axis == 1 else (emitter.function(torch.movedim, x, axis, 1), True)


def _by_channel(emitter: Emitter, node: Node, value: Value, make: Callable[[], nn.Module]) -> Value:
    axis, rank = node.attrs["axis"], len(node.shape)
    x, back = _channel_first(emitter, value, axis, rank)
    y = emitter.module(node, make, x)
    if not back:
        return Value(y, value.moved and axis % rank == rank - 1)
    if axis % rank == rank - 1:
        return Value(y, moved=True)
    return Value(emitter.function(torch.movedim, y, 1, axis % rank), moved=False)


def _batch_norm(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    channels = emitter.source.tensors[node.arrays["moving_mean"]].size

    def make() -> nn.Module:
        return BatchNorm(
            channels,
            momentum=node.attrs["momentum"],
            epsilon=node.attrs["epsilon"],
            scale="gamma" in node.arrays,
            center="beta" in node.arrays,
            frozen=node.attrs["frozen"],
        )

    value = _by_channel(emitter, node, values[0], make)
    statistics = {
        "moving_mean": ("running_mean", "same"),
        "moving_variance": ("running_var", "same"),
    }
    emitter.bind(node, {**_AFFINE, **statistics})
    return value


def _group_norm(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    channels = int(node.shape[node.attrs["axis"]] or 0)

    def make() -> nn.Module:
        return GroupNorm(node.attrs["groups"], channels, node.attrs["epsilon"], set(node.arrays))

    value = _by_channel(emitter, node, values[0], make)
    emitter.bind(node, _AFFINE)
    return value


def _layer_norm(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    shapes = {role: emitter.source.tensors[key].shape for role, key in node.arrays.items()}

    def make() -> nn.Module:
        return LayerNorm(node.attrs["axes"], node.attrs["epsilon"], shapes)

    y = emitter.module(node, make, emitter.native(values[0]))
    emitter.bind(node, _AFFINE)
    return Value(y, moved=False)


def _rms_norm(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    shapes = {role: emitter.source.tensors[key].shape for role, key in node.arrays.items()}
    axes, epsilon, centered = (node.attrs[k] for k in ("axes", "epsilon", "rms_scaling"))

    def make() -> nn.Module:
        return RMSNorm(axes, epsilon, shapes, centered=centered)

    y = emitter.module(node, make, emitter.native(values[0]))
    emitter.bind(node, _AFFINE)
    return Value(y, moved=False)


def _unit_norm(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    axes = tuple(node.attrs["axes"])
    y = emitter.function(_of_unit_length, emitter.native(values[0]), axes, node.attrs["epsilon"])
    return Value(y, moved=False)


def _of_unit_length(x: torch.Tensor, axes: tuple[int, ...], epsilon: float) -> torch.Tensor:
    # Without a root, whose gradient at zero would be NaN.
    return x * x.square().sum(axes, keepdim=True).clamp(min=epsilon**2).rsqrt()


# Pools.


def _max_pool(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    value = emitter.spatial(values[0], node)
    window, strides = node.attrs["window"], node.attrs["strides"]
    pads = _same_pads(emitter, node, window)
    x = value.fx
    inner = [before for before, _ in pads]
    if not _symmetric(pads) or any(2 * p > k for p, k in zip(inner, window, strict=True)):
        x = emitter.extra(node, "pad", Pad(flat(pads), -math.inf), x)
        inner = [0] * len(window)
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(window) - 1]
    return Value(emitter.function(pool, x, window, strides, tuple(inner)), value.moved)


def _avg_pool(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    value = emitter.spatial(values[0], node)
    window, strides = node.attrs["window"], node.attrs["strides"]
    pads = _same_pads(emitter, node, window)
    if not _symmetric(pads):
        made = AvgPoolSame(window, strides, flat(pads))
        return Value(emitter.extra(node, "pool", made, value.fx), value.moved)
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(window) - 1]
    padding = tuple(before for before, _ in pads)
    y = emitter.function(
        pool, value.fx, window, strides, padding, ceil_mode=False, count_include_pad=False
    )
    return Value(y, value.moved)


def _global_pool(reduce: Callable[..., Any]) -> Callable[..., Value]:
    def emit(emitter: Emitter, node: Node, values: list[Value]) -> Value:
        value = values[0]
        keep = node.attrs["keepdims"]
        rank = len(emitter.input_shape(node))
        places = tuple(value.place(axis, rank) for axis in node.attrs["axes"])
        if value.moved and 1 not in places:
            y = emitter.function(reduce, value.fx, places, keepdim=keep)
            return Value(y, moved=len(node.shape) > 2)
        x = emitter.native(value)
        return Value(emitter.function(reduce, x, tuple(node.attrs["axes"]), keepdim=keep), False)

    return emit


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": torch.sum,
    "mean": torch.mean,
    "max": torch.amax,
    "min": torch.amin,
}


def _reduce(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    if (function := node.attrs["function"]) not in _REDUCTIONS:
        raise Refused(f"can't lower layer '{node.layer}' (reduce): its function is {function}.")
    return _global_pool(_REDUCTIONS[function])(emitter, node, values)


# Elementwise operations keep the layout; merges agree on one.


def _hard_sigmoid(x: torch.Tensor) -> torch.Tensor:
    return F.relu6(x + 3.0) / 6.0


def _squareplus(x: torch.Tensor, b: float = 4.0) -> torch.Tensor:
    return (x + torch.sqrt(x * x + b)) / 2


def _sparse_plus(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x < 1.0, (x.clamp(min=-1.0) + 1.0) ** 2 / 4, x)


def _sparse_sigmoid(x: torch.Tensor) -> torch.Tensor:
    # Unlike clamp, whose gradient at its bounds depends on PyTorch's version.
    return torch.where(x <= -1.0, 0.0, torch.where(x >= 1.0, 1.0, 0.5 * (x + 1.0)))


def _relu(x: torch.Tensor, slope: float, threshold: float, top: float | None) -> torch.Tensor:
    # Term by term as Keras has it, so that the gradient is the same at the kinks too.
    if slope and not threshold and top is None:
        return F.leaky_relu(x, slope)
    y = torch.where(x > threshold, x, 0.0) if threshold else F.relu(x)
    if top is not None:
        if top == 6 and not threshold:
            y = F.relu6(x)
        else:  # tensors, because clamp by numbers has another gradient at its bounds (PyTorch 2.14)
            y = y.clamp(y.new_zeros(()), y.new_full((), top))
    return y - slope * F.relu(threshold - x) if slope else y


def _emit_relu(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    x = values[0]
    slope, threshold, top = (node.attrs[k] for k in ("negative_slope", "threshold", "max_value"))
    if not slope and not threshold and top is None:
        return Value(emitter.function(F.relu, x.fx), x.moved)
    return Value(emitter.function(_relu, x.fx, slope, threshold, top), x.moved)


def _elementwise(target: Callable[..., Any], **renamed: str) -> Callable[..., Value]:
    """Emit target(x, argument=attrs[name] for each argument, name in `renamed`)."""

    def emit(emitter: Emitter, node: Node, values: list[Value]) -> Value:
        kwargs = {argument: node.attrs[name] for argument, name in renamed.items()}
        return Value(emitter.function(target, values[0].fx, **kwargs), values[0].moved)

    return emit


def _gelu(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    form = "tanh" if node.attrs["approximate"] else "none"
    return Value(emitter.function(F.gelu, values[0].fx, approximate=form), values[0].moved)


def _softmax(target: Callable[..., Any]) -> Callable[..., Value]:
    def emit(emitter: Emitter, node: Node, values: list[Value]) -> Value:
        x = emitter.native(values[0])
        return Value(emitter.function(target, x, node.attrs["axis"]), False)

    return emit


def _prelu(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    shape = emitter.source.tensors[node.arrays["alpha"]].shape
    y = emitter.module(node, lambda: PReLU(shape), emitter.native(values[0]))
    emitter.bind(node, {"alpha": ("alpha", "same")})
    return Value(y, moved=False)


def _rrelu(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    ends = (node.attrs["lower"], node.attrs["upper"])
    return Value(emitter.module(node, lambda: RReLU(*ends), values[0].fx), values[0].moved)


def _glu(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    place = values[0].place(node.attrs["axis"], len(node.shape))
    return Value(emitter.function(F.glu, values[0].fx, place), values[0].moved)


def _affine(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    shapes = {role: emitter.source.tensors[key].shape for role, key in node.arrays.items()}
    y = emitter.module(node, lambda: Affine(shapes), emitter.native(values[0]))
    emitter.bind(node, {"scale": ("scale", "same"), "offset": ("offset", "same")})
    return Value(y, moved=False)


def _dropout(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    rate, value, rank = node.attrs["rate"], values[0], len(node.shape)
    shape = _drawn(node, rank)
    if shape is None:
        return Value(emitter.module(node, lambda: nn.Dropout(rate), value.fx), value.moved)
    if value.moved and len(shape) == rank:
        shape = (shape[0], shape[-1], *shape[1:-1])
    else:
        value = Value(emitter.native(value), moved=False)
    return Value(emitter.module(node, lambda: SharedDropout(rate, shape), value.fx), value.moved)


def _drawn(node: Node, rank: int) -> tuple[int | None, ...] | None:
    """Return the shape of what a dropout draws, in the graph's layout; None: all values."""
    if node.op == "stochastic_depth":  # whole examples
        return (None, *[1] * (rank - 1))
    if (spatial := node.attrs["spatial"]) is not None:
        return tuple(None if axis in (0, spatial % rank) else 1 for axis in range(rank))
    return node.attrs["noise_shape"]


def _rescale(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    x = emitter.function(operator.mul, values[0].fx, node.attrs["scale"])
    return Value(emitter.function(operator.add, x, node.attrs["offset"]), values[0].moved)


def _identity(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    return values[0]


def _agreed(emitter: Emitter, node: Node, values: list[Value]) -> tuple[list[fx.Node], bool]:
    """Return the inputs in one layout and of one rank, and whether their channels are on axis 1."""
    ranks = [len(emitter.input_shape(node, place)) for place in range(len(node.inputs))]
    if all(value.moved for value in values) and len(set(ranks)) == 1:
        return [value.fx for value in values], True
    xs = [emitter.native(value) for value in values]
    axis = node.attrs.get("fill_axis")
    return [
        _filled(emitter, *pair, max(ranks), axis) for pair in zip(xs, ranks, strict=True)
    ], False


def _filled(emitter: Emitter, x: fx.Node, rank: int, wanted: int, axis: int | None) -> fx.Node:
    for _ in range(0 if axis is None else wanted - rank):
        x = emitter.function(torch.unsqueeze, x, axis)
    return x


def _merge(target: Callable[..., Any]) -> Callable[..., Value]:
    def emit(emitter: Emitter, node: Node, values: list[Value]) -> Value:
        xs, moved = _agreed(emitter, node, values)
        total = xs[0]
        for x in xs[1:]:
            total = emitter.function(target, total, x)
        if node.op == "average":
            total = emitter.function(operator.truediv, total, float(len(xs)))
        return Value(total, moved)

    return emit


def _concat(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    xs, moved = _agreed(emitter, node, values)
    place = Value(xs[0], moved).place(node.attrs["axis"], len(node.shape))
    return Value(emitter.function(torch.cat, xs, place), moved)


EMITTERS: dict[str, Callable[[Emitter, Node, list[Value]], Value]] = {
    "conv": _conv,
    "depthwise_conv": _conv,
    "dense": _dense,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "rms_norm": _rms_norm,
    "unit_norm": _unit_norm,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_max_pool": _global_pool(torch.amax),
    "global_avg_pool": _global_pool(torch.mean),
    "reduce": _reduce,
    "relu": _emit_relu,
    "relu6": _elementwise(F.relu6),
    "leaky_relu": _elementwise(F.leaky_relu, negative_slope="negative_slope"),
    "prelu": _prelu,
    "rrelu": _rrelu,
    "threshold": _elementwise(F.threshold, threshold="threshold", value="value"),
    "glu": _glu,
    "elu": _elementwise(F.elu, alpha="alpha"),
    "selu": _elementwise(F.selu),
    "celu": _elementwise(F.celu, alpha="alpha"),
    "gelu": _gelu,
    "silu": _elementwise(F.silu),
    "hard_silu": _elementwise(F.hardswish),
    "mish": _elementwise(F.mish),
    "sigmoid": _elementwise(torch.sigmoid),
    "hard_sigmoid": _elementwise(_hard_sigmoid),
    "log_sigmoid": _elementwise(F.logsigmoid),
    "tanh": _elementwise(torch.tanh),
    "hard_tanh": _elementwise(F.hardtanh, min_val="min_value", max_val="max_value"),
    "tanh_shrink": _elementwise(F.tanhshrink),
    "hard_shrink": _elementwise(F.hardshrink, lambd="threshold"),
    "soft_shrink": _elementwise(F.softshrink, lambd="threshold"),
    "sparse_plus": _elementwise(_sparse_plus),
    "sparse_sigmoid": _elementwise(_sparse_sigmoid),
    "softplus": _elementwise(F.softplus),
    "softsign": _elementwise(F.softsign),
    "squareplus": _elementwise(_squareplus, b="b"),
    "exponential": _elementwise(torch.exp),
    "erf": _elementwise(torch.erf),
    "softmax": _softmax(torch.softmax),
    "log_softmax": _softmax(torch.log_softmax),
    "dropout": _dropout,
    "stochastic_depth": _dropout,
    "affine": _affine,
    "identity": _identity,
    "rescale": _rescale,
    "add": _merge(operator.add),
    "subtract": _merge(operator.sub),
    "multiply": _merge(operator.mul),
    "divide": _merge(operator.truediv),
    "average": _merge(operator.add),
    "maximum": _merge(torch.maximum),
    "minimum": _merge(torch.minimum),
    "concat": _concat,
    **RESHAPING,
}
