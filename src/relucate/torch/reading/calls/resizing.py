"""PyTorch's functions that pad and scale images, as nodes of a Graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from ..program import Data, Unknown, need_data
from ..translator import Translator
from .axes import cut
from .handler import NUMBERS, Handler, numbered

_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(t: Translator, input: Any, pad: Any, mode: str = "constant", value: Any = None) -> Data:
    """Emit F.pad: its pairs go from the last axis to the first; negative ones crop."""
    x = need_data(input)
    if not isinstance(pad, (list, tuple)) or not all(isinstance(n, int) for n in pad):
        raise Unknown("by something that isn't made of numbers")
    rank = len(x.shape)
    pairs = [(0, 0)] * rank
    for index in range(len(pad) // 2):
        pairs[rank - 1 - index] = (pad[2 * index], pad[2 * index + 1])
    if pairs[0] != (0, 0):
        raise Unknown("it pads the batch axis")
    if any(before < 0 or after < 0 for before, after in pairs):
        return _cropped(t, x, pairs)
    return _padded(t, x, pairs, mode, value)


def _cropped(t: Translator, x: Data, pairs: Sequence[tuple[int, int]]) -> Data:
    if any(before > 0 or after > 0 for before, after in pairs):
        raise Unknown("it pads and crops")
    for axis, (before, after) in enumerate(pairs):
        x = cut(t, x, axis, -before, x.shape[axis] + after)
    return x


def _padded(
    t: Translator, x: Data, pairs: Sequence[tuple[int, int]], mode: str, value: Any
) -> Data:
    fill = float(value or 0.0)
    if mode != "constant" and mode not in _MODES:
        raise Unknown(f"the mode {mode}")
    spatial = {"padding": tuple(pairs[2:]), "data_format": "channels_first"}
    # Axis 1 counts as an image axis if the last axis is the channel axis.
    channels = {"padding": (pairs[1], *((0, 0) for _ in pairs[2:-1]))}
    for attrs in (channels, spatial):
        if not any(n for pair in attrs["padding"] for n in pair):
            continue
        if len(x.shape) < 3:
            raise Unknown("an input without image axes")
        if mode == "constant" and not fill:
            x = t.emit("zero_pad", [x], attrs)
        elif mode == "constant":
            x = t.emit("pad", [x], {"mode": mode, "value": fill} | attrs)
        else:
            x = t.emit("pad", [x], {"mode": _MODES[mode], "value": 0.0} | attrs)
    return x


def _interpolate(
    t: Translator,
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
    recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> Data:
    """Emit an upsampling (nearest, by whole factors) or another resize."""
    x = need_data(input)
    rank = len(x.shape) - 2
    sizes = x.shape[2:]
    if size is not None:
        wanted = (size,) * rank if isinstance(size, int) else tuple(size)
    else:
        factors = scale_factor if isinstance(scale_factor, (list, tuple)) else [scale_factor] * rank
        wanted = tuple(math.floor(n * f) for n, f in zip(sizes, factors, strict=True))
    if wanted == sizes:
        return x
    nearest = mode.startswith("nearest")
    whole = all(w % n == 0 and w // n <= 16 for w, n in zip(wanted, sizes, strict=True))
    if nearest and whole:
        factors = tuple(w // n for w, n in zip(wanted, sizes, strict=True))
        return t.emit("upsample", [x], {"factors": factors, "data_format": "channels_first"})
    attrs: dict[str, Any] = {"method": mode, "data_format": "channels_first"}
    if not nearest:
        attrs["align_corners"] = bool(align_corners)
    return t.emit("resize", [x], attrs, shape=(*x.shape[:2], *wanted))


def _nearest(
    t: Translator, input: Any, output_size: Any, scale_factors: Any = None, *rest: Any
) -> Data:
    return _interpolate(t, input, output_size, scale_factors)


def _linear_resize(mode: str) -> Handler:
    def handler(
        t: Translator,
        input: Any,
        output_size: Any,
        align_corners: bool = False,
        scale_factors: Any = None,
        *rest: Any,
    ) -> Data:
        return _interpolate(t, input, output_size, scale_factors, mode, align_corners)

    return handler


def _pad_module(mode: str) -> Handler:
    def handler(t: Translator, m: Any, input: Any) -> Data:
        return pad(t, input, list(m.padding), mode, getattr(m, "value", 0.0))

    return handler


def _upsample(t: Translator, m: Any, input: Any) -> Data:
    scale = None if m.size is not None else m.scale_factor
    return _interpolate(t, input, m.size, scale, m.mode, m.align_corners)


FUNCTIONS: dict[str, Handler] = {
    "pad": pad,
    "constant_pad_nd": lambda t, input, pad_, value=0.0: pad(t, input, pad_, "constant", value),
    "interpolate": _interpolate,
    **{f"upsample_nearest{n}d": _nearest for n in NUMBERS},
    "upsample_linear1d": _linear_resize("linear"),
    "upsample_bilinear2d": _linear_resize("bilinear"),
    "upsample_trilinear3d": _linear_resize("trilinear"),
    "upsample_bicubic2d": _linear_resize("bicubic"),
}
MODULES: dict[type, Handler] = {
    **numbered("ConstantPad", lambda n: _pad_module("constant")),
    **numbered("ZeroPad", lambda n: _pad_module("constant")),
    **numbered("ReflectionPad", lambda n: _pad_module("reflect")),
    **numbered("ReplicationPad", lambda n: _pad_module("replicate")),
    **numbered("CircularPad", lambda n: _pad_module("circular")),
    **dict.fromkeys((nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d), _upsample),
}
