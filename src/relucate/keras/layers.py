"""What each Keras layer means as Graph nodes: one small function per family of layers.

A function gets the layer and returns `Step`s: the logical operations of one call, in order. Types
are matched exactly (a subclass may override `call`, so it is somebody else's layer). What isn't in
the table becomes one opaque step. Called by `read`; decides nothing about placement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import layers as kl


@dataclass(frozen=True)
class Step:
    """One logical operation of a layer: suffix of the node's name, op, attributes, weights."""

    op: str
    attrs: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)  # role -> keras.Variable
    suffix: str = ""


_FUNCTIONS = {
    getattr(keras.activations, name): (op, attrs)
    for name, op, attrs in [
        ("relu", "relu", {}),
        ("relu6", "relu6", {}),
        ("leaky_relu", "leaky_relu", {"negative_slope": 0.2}),
        ("elu", "elu", {"alpha": 1.0}),
        ("selu", "selu", {}),
        ("celu", "celu", {"alpha": 1.0}),
        ("gelu", "gelu", {"approximate": False}),
        ("silu", "silu", {}),
        ("hard_silu", "hard_silu", {}),
        ("mish", "mish", {}),
        ("sigmoid", "sigmoid", {}),
        ("hard_sigmoid", "hard_sigmoid", {}),
        ("log_sigmoid", "log_sigmoid", {}),
        ("tanh", "tanh", {}),
        ("hard_tanh", "hard_tanh", {}),
        ("tanh_shrink", "tanh_shrink", {}),
        ("hard_shrink", "hard_shrink", {"threshold": 0.5}),
        ("soft_shrink", "soft_shrink", {"threshold": 0.5}),
        ("sparse_plus", "sparse_plus", {}),
        ("sparse_sigmoid", "sparse_sigmoid", {}),
        ("softplus", "softplus", {}),
        ("softsign", "softsign", {}),
        ("squareplus", "squareplus", {"b": 4.0}),
        ("exponential", "exponential", {}),
        ("softmax", "softmax", {"axis": -1}),
        ("log_softmax", "log_softmax", {"axis": -1}),
    ]
    if hasattr(keras.activations, name)
}


def opaque(thing: Any, why: str = "") -> Step:
    """Return the step for what isn't known: its type (and why) goes into every message."""
    return Step("opaque", {"type": type(thing).__name__, "why": why})


def activation(function: Any, suffix: str = "") -> list[Step]:
    """Return the steps of an `activation=` argument: none for linear, one, or a layer's own."""
    if function is None or function is keras.activations.linear:
        return []
    if isinstance(function, keras.layers.Layer):
        return _activation_layer(function, suffix)
    for known, (op, attrs) in _FUNCTIONS.items():  # by identity: a callable need not have a hash
        if function is known:
            return [Step(op, attrs, suffix=suffix and op)]
    name = getattr(function, "__name__", type(function).__name__)
    return [Step("opaque", {"type": name, "why": "activation function"}, suffix=suffix)]


def _activation_layer(layer: Any, suffix: str) -> list[Step]:
    try:
        found = steps(layer)
    except AttributeError:  # Keras builds it at the first call on data, not with its owner
        found = [opaque(layer, "has no weights yet: call the model once on data")]
    return [Step(s.op, s.attrs, s.variables, suffix and s.op) for s in found]


def _present(**variables: Any) -> dict[str, Any]:
    return {role: variable for role, variable in variables.items() if variable is not None}


def _window(layer: Any) -> dict[str, Any]:
    return {
        "strides": tuple(layer.strides),
        "padding": layer.padding,
        "data_format": layer.data_format,
    }


def _plain_kernel(layer: Any) -> Step | None:
    """Return an opaque step for a kernel that isn't a plain variable, and for causal padding."""
    if getattr(layer, "lora_enabled", False):
        return opaque(layer, "LoRA is enabled: merge it first")
    if getattr(layer, "quantization_mode", None):
        return opaque(layer, f"quantized to {layer.quantization_mode}")
    if getattr(layer, "padding", None) == "causal":
        return opaque(layer, "causal padding")
    return None


def _conv(layer: Any) -> list[Step]:
    if odd := _plain_kernel(layer):
        return [odd]
    attrs = {**_window(layer), "dilation": tuple(layer.dilation_rate), "groups": layer.groups}
    weights = _present(kernel=layer.kernel, bias=layer.bias if layer.use_bias else None)
    return [Step("conv", attrs, weights), *activation(layer.activation, "act")]


def _depthwise(layer: Any) -> list[Step]:
    if odd := _plain_kernel(layer):
        return [odd]
    attrs = {**_window(layer), "dilation": tuple(layer.dilation_rate)}
    weights = _present(kernel=layer.kernel, bias=layer.bias if layer.use_bias else None)
    return [Step("depthwise_conv", attrs, weights), *activation(layer.activation, "act")]


def _separable(layer: Any) -> list[Step]:
    if odd := _plain_kernel(layer):
        return [odd]
    attrs = {**_window(layer), "dilation": tuple(layer.dilation_rate)}
    point = {
        "strides": (1,) * layer.rank,
        "padding": "valid",
        "data_format": layer.data_format,
        "dilation": (1,) * layer.rank,
        "groups": 1,
    }
    weights = _present(kernel=layer.pointwise_kernel, bias=layer.bias if layer.use_bias else None)
    return [
        Step("depthwise_conv", attrs, {"kernel": layer.depthwise_kernel}, suffix="depthwise"),
        Step("conv", point, weights),
        *activation(layer.activation, "act"),
    ]


def _dense(layer: Any) -> list[Step]:
    if odd := _plain_kernel(layer):
        return [odd]
    weights = _present(kernel=layer.kernel, bias=layer.bias if layer.use_bias else None)
    return [Step("dense", {}, weights), *activation(layer.activation, "act")]


def _batch_norm(layer: Any) -> list[Step]:
    attrs = {
        "axis": layer.axis,
        "epsilon": layer.epsilon,
        "momentum": layer.momentum,
        "frozen": not layer.trainable,
        "renorm": bool(getattr(layer, "renorm", False)),
        "synchronized": bool(layer.synchronized),
    }
    weights = _present(
        gamma=layer.gamma if layer.scale else None,
        beta=layer.beta if layer.center else None,
        moving_mean=layer.moving_mean,
        moving_variance=layer.moving_variance,
    )
    return [Step("batch_norm", attrs, weights)]


def _layer_norm(layer: Any) -> list[Step]:
    if getattr(layer, "rms_scaling", False):
        return [opaque(layer, "rms_scaling")]
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    weights = _present(gamma=layer.gamma, beta=layer.beta)
    return [Step("layer_norm", {"axes": axes, "epsilon": layer.epsilon}, weights)]


def _group_norm(layer: Any) -> list[Step]:
    attrs = {"groups": layer.groups, "axis": layer.axis, "epsilon": layer.epsilon}
    weights = _present(
        gamma=layer.gamma if layer.scale else None, beta=layer.beta if layer.center else None
    )
    return [Step("group_norm", attrs, weights)]


def _pool(op: str) -> Callable[[Any], list[Step]]:
    return lambda layer: [Step(op, {**_window(layer), "window": tuple(layer.pool_size)})]


def _global_pool(op: str) -> Callable[[Any], list[Step]]:
    def steps_of(layer: Any) -> list[Step]:
        rank = layer.input_spec.ndim - 2
        first = 2 if layer.data_format == "channels_first" else 1
        axes = tuple(range(first, first + rank))
        return [Step(op, {"axes": axes, "keepdims": bool(layer.keepdims)})]

    return steps_of


def _relu(layer: Any) -> list[Step]:
    attrs = {
        "negative_slope": float(layer.negative_slope),
        "threshold": float(layer.threshold),
        "max_value": None if layer.max_value is None else float(layer.max_value),
    }
    return [Step("relu", attrs)]


def _softmax(layer: Any) -> list[Step]:
    if not isinstance(layer.axis, int):
        return [opaque(layer, f"softmax over several axes {layer.axis}")]
    return [Step("softmax", {"axis": layer.axis})]


def _dropout(layer: Any) -> list[Step]:
    if layer.noise_shape is not None:
        return [opaque(layer, "noise_shape")]
    return [Step("dropout", {"rate": float(layer.rate)})]


def _spatial_dropout(layer: Any) -> list[Step]:
    channels_first = getattr(layer, "data_format", "channels_last") == "channels_first"
    attrs = {"rate": float(layer.rate), "spatial": 1 if channels_first else -1}
    return [Step("dropout", attrs)]


def _zero_pad(layer: Any) -> list[Step]:
    padding = layer.padding
    pairs = [tuple(p) if isinstance(p, (tuple, list)) else (p, p) for p in padding]
    if type(layer) is kl.ZeroPadding1D:
        pairs = [tuple(padding)]
    data_format = getattr(layer, "data_format", "channels_last")
    return [Step("zero_pad", {"padding": pairs, "data_format": data_format})]


def _upsample(layer: Any) -> list[Step]:
    if getattr(layer, "interpolation", "nearest") != "nearest":
        return [opaque(layer, f"interpolation {layer.interpolation}")]
    factors = (layer.size,) if isinstance(layer.size, int) else tuple(layer.size)
    data_format = getattr(layer, "data_format", "channels_last")
    return [Step("upsample", {"factors": factors, "data_format": data_format})]


def _rescale(layer: Any) -> list[Step]:
    if not isinstance(layer.scale, (int, float)) or not isinstance(layer.offset, (int, float)):
        return [opaque(layer, "one scale per channel")]
    return [Step("rescale", {"scale": float(layer.scale), "offset": float(layer.offset)})]


def _fixed(op: str) -> Callable[[Any], list[Step]]:
    return lambda layer: [Step(op)]


def _merge(op: str) -> Callable[[Any], list[Step]]:
    # A merging layer lines up batch axes: lower ranks get their missing axes right behind it.
    return lambda layer: [Step(op, {"fill_axis": 1})]


_LAYERS: dict[type, Callable[[Any], list[Step]]] = {
    **dict.fromkeys([kl.Conv1D, kl.Conv2D, kl.Conv3D], _conv),
    **dict.fromkeys([kl.DepthwiseConv1D, kl.DepthwiseConv2D], _depthwise),
    **dict.fromkeys([kl.SeparableConv1D, kl.SeparableConv2D], _separable),
    kl.Dense: _dense,
    kl.BatchNormalization: _batch_norm,
    kl.LayerNormalization: _layer_norm,
    kl.GroupNormalization: _group_norm,
    **dict.fromkeys([kl.MaxPooling1D, kl.MaxPooling2D, kl.MaxPooling3D], _pool("max_pool")),
    **dict.fromkeys(
        [kl.AveragePooling1D, kl.AveragePooling2D, kl.AveragePooling3D], _pool("avg_pool")
    ),
    **dict.fromkeys(
        [kl.GlobalMaxPooling1D, kl.GlobalMaxPooling2D, kl.GlobalMaxPooling3D],
        _global_pool("global_max_pool"),
    ),
    **dict.fromkeys(
        [kl.GlobalAveragePooling1D, kl.GlobalAveragePooling2D, kl.GlobalAveragePooling3D],
        _global_pool("global_avg_pool"),
    ),
    kl.Activation: lambda layer: activation(layer.activation) or [Step("identity")],
    kl.ReLU: _relu,
    kl.LeakyReLU: lambda la: [Step("leaky_relu", {"negative_slope": float(la.negative_slope)})],
    kl.ELU: lambda layer: [Step("elu", {"alpha": float(layer.alpha)})],
    kl.PReLU: lambda layer: [Step("prelu", {}, {"alpha": layer.alpha})],
    kl.Softmax: _softmax,
    kl.Dropout: _dropout,
    **dict.fromkeys(
        [kl.SpatialDropout1D, kl.SpatialDropout2D, kl.SpatialDropout3D], _spatial_dropout
    ),
    kl.Flatten: lambda layer: [Step("flatten", {"data_format": layer.data_format})],
    kl.Permute: lambda layer: [Step("permute", {"dims": tuple(layer.dims)})],
    **dict.fromkeys([kl.ZeroPadding1D, kl.ZeroPadding2D, kl.ZeroPadding3D], _zero_pad),
    **dict.fromkeys([kl.UpSampling1D, kl.UpSampling2D, kl.UpSampling3D], _upsample),
    kl.Rescaling: _rescale,
    kl.Identity: _fixed("identity"),
    kl.Add: _merge("add"),
    kl.Subtract: _merge("subtract"),
    kl.Multiply: _merge("multiply"),
    kl.Average: _merge("average"),
    kl.Maximum: _merge("maximum"),
    kl.Minimum: _merge("minimum"),
    kl.Concatenate: lambda layer: [Step("concat", {"axis": layer.axis})],
    kl.Reshape: lambda layer: [Step("reshape")],  # the target is the output's own shape
}

# Functions called on symbolic tensors (`keras.ops.relu(x)`) are operations, not layers.
_RAW_OPS = {
    "Relu": ("relu", {}),
    "Relu6": ("relu6", {}),
    "Sigmoid": ("sigmoid", {}),
    "Tanh": ("tanh", {}),
    "Silu": ("silu", {}),
    "Softplus": ("softplus", {}),
    "Softsign": ("softsign", {}),
    "Selu": ("selu", {}),
    "Add": ("add", {}),
    "Subtract": ("subtract", {}),
    "Multiply": ("multiply", {}),
    "Maximum": ("maximum", {}),
    "Minimum": ("minimum", {}),
}


def steps(operation: Any) -> list[Step]:
    """Return the logical operations of one call of a Keras layer or operation."""
    if type(operation) in _LAYERS:
        return _LAYERS[type(operation)](operation)
    module = type(operation).__module__
    if module.startswith("keras.src.ops.") and type(operation).__name__ in _RAW_OPS:
        op, attrs = _RAW_OPS[type(operation).__name__]
        return [Step(op, attrs)]
    return [opaque(operation)]
