"""Which attributes of each operation the emitters honour; anything else is refused by name.

A graph may say more of a node than its emitter looks at (a padding mode, a call's `training`, a
time axis). Ignoring that would be silently wrong. Called by `lower` for every node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...graph import Node

_WINDOW = "strides padding data_format"
_HONOURED: Mapping[str, str] = {
    "conv": f"{_WINDOW} dilation groups",
    "depthwise_conv": f"{_WINDOW} dilation groups",  # one per channel, whatever it says
    "conv_transpose": f"{_WINDOW} dilation groups output_padding",
    "dense": "",
    "batch_norm": "axis epsilon momentum frozen",
    "layer_norm": "axes epsilon",
    "rms_norm": "axes epsilon",
    "group_norm": "groups axis epsilon",
    "max_pool": f"{_WINDOW} window",
    "avg_pool": f"{_WINDOW} window",
    "global_max_pool": "axes keepdims",
    "global_avg_pool": "axes keepdims",
    "relu": "negative_slope threshold max_value",
    "leaky_relu": "negative_slope",
    "elu": "alpha",
    "celu": "alpha",
    "gelu": "approximate",
    "hard_shrink": "threshold",
    "soft_shrink": "threshold",
    "squareplus": "b",
    "softmax": "axis",
    "log_softmax": "axis",
    "dropout": "rate spatial",
    "rescale": "scale offset",
    "flatten": "data_format",
    "reshape": "target",
    "permute": "dims",
    "zero_pad": "padding data_format",
    "crop": "cropping data_format",
    "upsample": "factors data_format",
    "concat": "axis",
    **dict.fromkeys("add subtract multiply average maximum minimum".split(), "fill_axis"),
}


def unsupported(node: Node) -> str:
    """Return what a node asks for that its emitter would ignore, or an empty string.

    None, False and an absent attribute ask for nothing.
    """
    honoured = _HONOURED.get(node.op, "").split()
    for name, value in node.attrs.items():
        if name not in honoured and value is not None and value is not False:
            return f"{name}={value!r}"
    return _odd_value(node.op, node.attrs)


def _odd_value(op: str, attrs: Mapping[str, Any]) -> str:
    if op in {"softmax", "log_softmax"} and not isinstance(attrs.get("axis", -1), int):
        return f"over several axes {attrs['axis']}"
    if op in {"max_pool", "avg_pool"} and attrs["padding"] not in ("valid", "same"):
        return f"padding={attrs['padding']!r}"
    return ""
