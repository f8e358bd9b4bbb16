"""What the reader makes of modules: torch.nn's own, and batch norms that are frozen by design.

`find` says how a module is read as a whole; a module that it doesn't know is traced into. A
subclass counts as its base only where it changes nothing of what the base computes. Called by
`reader` and, through `find`, by `translator`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ...graph.inference import Mismatch
from ..modules import FixedOffset
from .activations import dropout
from .builder import Weight
from .frozen import is_frozen_batch_norm, read_frozen
from .functions import FUNCTIONS, norm_mode
from .images import pad
from .layers import conv, conv_transpose, dense
from .program import Data, Unknown, need_data
from .shaping import flatten, unflatten
from .transformers import TRANSFORMERS, attention
from .translator import Translator

Handler = Callable[..., Any]


# Linear layers.


def _conv(rank: int) -> Handler:
    def handler(t: Translator, m: Any, input: Any) -> Data:
        x, padding = need_data(input), m.padding
        if m.padding_mode != "zeros":
            x = _around(t, x, m, rank)
            padding = 0
        return conv(t, x, m.weight, m.bias, m.stride, padding, m.dilation, m.groups, rank)

    return handler


def _around(t: Translator, x: Data, m: Any, rank: int) -> Data:
    pads = list(m._reversed_padding_repeated_twice)
    with t.part("pad"):
        return pad(t, x, pads, m.padding_mode)


def _conv_transpose(rank: int) -> Handler:
    def handler(t: Translator, m: Any, input: Any) -> Data:
        attrs = (m.stride, m.padding, m.output_padding, m.groups, m.dilation)
        return conv_transpose(t, need_data(input), m.weight, m.bias, *attrs, rank)

    return handler


def _linear(t: Translator, m: Any, input: Any) -> Data:
    return dense(t, need_data(input), m.weight, m.bias)


def _embedding(t: Translator, m: Any, input: Any) -> Data:
    if m.max_norm is not None:
        raise Unknown("max_norm changes the table at every call")
    return FUNCTIONS["embedding"](t, m.weight, input)


# Norms.


def _batch_norm(*ranks: int) -> Handler:
    def handler(t: Translator, m: Any, input: Any) -> Data:
        x = need_data(input)
        if ranks and len(x.shape) not in ranks:
            raise Mismatch(f"expected {' or '.join(map(str, ranks))} axes")
        return _emit_batch_norm(t, m, x)

    return handler


def _emit_batch_norm(t: Translator, m: Any, x: Data) -> Data:
    weights = {
        "gamma": m.weight,
        "beta": m.bias,
        "moving_mean": m.running_mean,
        "moving_variance": m.running_var,
    }
    attrs = {"axis": 1, "epsilon": float(m.eps), "forced": None}
    if isinstance(m, nn.SyncBatchNorm):
        attrs["synchronized"] = True
    mode = norm_mode(t, m.running_mean, m.momentum)
    mode["frozen"] = t.is_frozen(m) and m.running_mean is not None
    held = {role: None if w is None else Weight(w) for role, w in weights.items()}
    return t.emit("batch_norm", [x], attrs | mode, held)


def _instance_norm(rank: int) -> Handler:
    def handler(t: Translator, m: Any, input: Any) -> Data:
        if len(need_data(input).shape) != rank + 2:
            raise Unknown("an input without a batch axis")
        state = (m.weight, m.bias, m.running_mean, m.running_var)
        return FUNCTIONS["instance_norm"](
            t, input, *state, not m.track_running_stats, m.momentum, m.eps
        )

    return handler


def _layer_norm(t: Translator, m: Any, input: Any) -> Data:
    return FUNCTIONS["layer_norm"](t, input, m.normalized_shape, m.weight, m.bias, m.eps)


def _rms_norm(t: Translator, m: Any, input: Any) -> Data:
    return FUNCTIONS["rms_norm"](t, input, m.normalized_shape, m.weight, m.eps)


def _group_norm(t: Translator, m: Any, input: Any) -> Data:
    return FUNCTIONS["group_norm"](t, input, m.num_groups, m.weight, m.bias, m.eps)


def _local_response_norm(t: Translator, m: Any, input: Any) -> Data:
    return FUNCTIONS["local_response_norm"](t, input, m.size, m.alpha, m.beta, m.k)


# Everything that is a function with the module's attributes as arguments.


def _as(name: str, *attributes: str) -> Handler:
    """Read a module as function `name`, whose arguments after the input are its attributes."""

    def handler(t: Translator, m: Any, input: Any) -> Any:
        return FUNCTIONS[name](t, input, *(getattr(m, attribute) for attribute in attributes))

    return handler


def _prelu(t: Translator, m: Any, input: Any) -> Data:
    return FUNCTIONS["prelu"](t, input, m.weight)


def _softmin(t: Translator, m: Any, input: Any) -> Data:
    with t.part("negative"):
        x = FUNCTIONS["neg"](t, input)
    return FUNCTIONS["softmax"](t, x, m.dim)


def _rrelu(t: Translator, m: Any, input: Any) -> Data:
    return FUNCTIONS["rrelu"](t, input, m.lower, m.upper)


def _dropout(op: str, spatial: bool = False) -> Handler:
    def handler(t: Translator, m: Any, input: Any) -> Data:
        return dropout(t, op, need_data(input), m.p, spatial)

    return handler


def _pad(mode: str) -> Handler:
    def handler(t: Translator, m: Any, input: Any) -> Data:
        return pad(t, input, list(m.padding), mode, getattr(m, "value", 0.0))

    return handler


def _identity(t: Translator, m: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
    return input


def _flatten(t: Translator, m: Any, input: Any) -> Data:
    return flatten(t, input, m.start_dim, m.end_dim)


def _unflatten(t: Translator, m: Any, input: Any) -> Data:
    if not isinstance(m.dim, int):
        raise Unknown("named axes")
    return unflatten(t, input, m.dim, m.unflattened_size)


def _fixed_offset(t: Translator, m: Any, input: Any, source: Any) -> Data:
    return FUNCTIONS["add"](t, need_data(input), m.offset)


def _upsample(t: Translator, m: Any, input: Any) -> Data:
    scale = None if m.size is not None else m.scale_factor
    return FUNCTIONS["interpolate"](t, input, m.size, scale, m.mode, m.align_corners)


_MAX_POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVG_POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_NUMBERS = (1, 2, 3)


def _numbered(name: str, make: Callable[[int], Handler]) -> dict[type, Handler]:
    return {getattr(nn, f"{name}{n}d"): make(n) for n in _NUMBERS if hasattr(nn, f"{name}{n}d")}


MODULES: dict[type, Handler] = {
    **_numbered("Conv", _conv),
    **_numbered("ConvTranspose", _conv_transpose),
    nn.BatchNorm1d: _batch_norm(2, 3),
    nn.BatchNorm2d: _batch_norm(4),
    nn.BatchNorm3d: _batch_norm(5),
    **_numbered("InstanceNorm", _instance_norm),
    **_numbered("MaxPool", lambda n: _as(f"max_pool{n}d", *_MAX_POOL)),
    nn.AvgPool1d: _as("avg_pool1d", *_AVG_POOL),
    nn.AvgPool2d: _as("avg_pool2d", *_AVG_POOL, "divisor_override"),
    nn.AvgPool3d: _as("avg_pool3d", *_AVG_POOL, "divisor_override"),
    **_numbered("AdaptiveAvgPool", lambda n: _as(f"adaptive_avg_pool{n}d", "output_size")),
    **_numbered(
        "AdaptiveMaxPool", lambda n: _as(f"adaptive_max_pool{n}d", "output_size", "return_indices")
    ),
    **_numbered("Dropout", lambda n: _dropout("dropout", spatial=True)),
    **_numbered("ConstantPad", lambda n: _pad("constant")),
    **_numbered("ZeroPad", lambda n: _pad("constant")),
    **_numbered("ReflectionPad", lambda n: _pad("reflect")),
    **_numbered("ReplicationPad", lambda n: _pad("replicate")),
    **_numbered("CircularPad", lambda n: _pad("circular")),
    nn.SyncBatchNorm: _batch_norm(),
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _rms_norm,
    nn.GroupNorm: _group_norm,
    nn.LocalResponseNorm: _local_response_norm,
    nn.Linear: _linear,
    nn.modules.linear.NonDynamicallyQuantizableLinear: _linear,
    nn.Embedding: _embedding,
    nn.Identity: _identity,
    nn.Flatten: _flatten,
    nn.Unflatten: _unflatten,
    nn.Upsample: _upsample,
    nn.UpsamplingNearest2d: _upsample,
    nn.UpsamplingBilinear2d: _upsample,
    nn.PixelShuffle: _as("pixel_shuffle", "upscale_factor"),
    nn.PixelUnshuffle: _as("pixel_unshuffle", "downscale_factor"),
    nn.ChannelShuffle: _as("channel_shuffle", "groups"),
    nn.Dropout: _dropout("dropout"),
    nn.AlphaDropout: _dropout("alpha_dropout"),
    nn.FeatureAlphaDropout: _dropout("alpha_dropout", spatial=True),
    nn.ReLU: _as("relu"),
    nn.ReLU6: _as("relu6"),
    nn.LeakyReLU: _as("leaky_relu", "negative_slope"),
    nn.PReLU: _prelu,
    nn.RReLU: _rrelu,
    nn.ELU: _as("elu", "alpha"),
    nn.SELU: _as("selu"),
    nn.CELU: _as("celu", "alpha"),
    nn.GELU: _as("gelu", "approximate"),
    nn.SiLU: _as("silu"),
    nn.Mish: _as("mish"),
    nn.Hardswish: _as("hardswish"),
    nn.Hardsigmoid: _as("hardsigmoid"),
    nn.Hardtanh: _as("hardtanh", "min_val", "max_val"),
    nn.Sigmoid: _as("sigmoid"),
    nn.LogSigmoid: _as("log_sigmoid"),
    nn.Tanh: _as("tanh"),
    nn.Tanhshrink: _as("tanhshrink"),
    nn.Softshrink: _as("softshrink", "lambd"),
    nn.Hardshrink: _as("hardshrink", "lambd"),
    nn.Threshold: _as("threshold", "threshold", "value"),
    nn.Softplus: _as("softplus", "beta", "threshold"),
    nn.Softsign: _as("softsign"),
    nn.Softmax: _as("softmax", "dim"),
    nn.Softmax2d: lambda t, m, input: FUNCTIONS["softmax"](t, input, -3),
    nn.Softmin: _softmin,
    nn.LogSoftmax: _as("log_softmax", "dim"),
    nn.GLU: _as("glu", "dim"),
    nn.MultiheadAttention: attention,
    FixedOffset: _fixed_offset,
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
    """Return how a module is read as a whole, or None if the reader doesn't know it."""
    if is_frozen_batch_norm(module):
        return read_frozen
    base = _base(module)
    return None if base is None else MODULES[base]


def is_known_whole(module: nn.Module) -> bool:
    """Say whether a module becomes nodes as a whole, though it may be an opaque one."""
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
