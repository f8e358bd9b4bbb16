"""What each Keras layer means as Graph nodes: one small function per family of layers.

A function gets the layer and returns `Step`s: the logical operations of one call, in order. A
subclass is taken for its base only if it overrides nothing that computes. A type that isn't in the
table becomes one opaque step. Called by `read`; decides nothing about placement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import keras
from keras import layers as kl

from ...graph import select
from ..own_activations import RReLU
from .functions import function_step
from .norm_layers import NORM_LAYERS
from .own_functions import function_of, with_values
from .steps import Step, opaque, present, reshaped

Shape = tuple[int | None, ...]
_Steps = Callable[[Any], list[Step]]


def activation(function: Any, suffix: str = "") -> list[Step]:
    """Return the steps of an `activation=` argument: none for linear, one, or a layer's own."""
    if function is None or function is keras.activations.linear:
        return []
    if isinstance(function, keras.layers.Layer):
        return _activation_layer(function, suffix)
    if found := function_step(function, suffix):
        return [found]
    name = getattr(function, "__name__", type(function).__name__)
    unread = Step("opaque", {"type": name, "why": "activation function"}, suffix=suffix)
    return [with_values(unread, function)]


def _activation_layer(layer: Any, suffix: str) -> list[Step]:
    try:
        found = steps(layer)
    except AttributeError:  # Keras builds it at the first call on data, not with its layer
        found = [opaque(layer, "has no weights yet: call the model once on data")]
    if found[0].op == "opaque":
        found = [replace(found[0], variables={v.path: v for v in layer.weights})]
    return [Step(s.op, s.attrs, s.variables, suffix and s.op, s.constants) for s in found]


# Linear layers.


def _bias(layer: Any) -> Any:
    return layer.bias if layer.use_bias else None


def _padding(layer: Any) -> Any:
    if layer.padding != "causal":
        return layer.padding
    axes = zip(layer.kernel_size, layer.dilation_rate, strict=True)
    return tuple(((window - 1) * dilation, 0) for window, dilation in axes)


def _window(layer: Any) -> dict[str, Any]:
    return {
        "strides": tuple(layer.strides),
        "padding": _padding(layer),
        "data_format": layer.data_format,
    }


def _kernel(layer: Any, role: str = "kernel", name: str = "kernel") -> dict[str, Any]:
    """Return a linear step's attributes, variables and constants that describe its kernel."""
    mode = getattr(layer, "quantization_mode", None)
    plain = getattr(layer, f"_{name}", None)  # the variable, where the public name is a property
    plain = getattr(layer, name) if plain is None else plain
    if mode:
        rest = {v.name: v for v in layer.weights if v.name != "bias"}
        return {"attrs": {"quantized": mode}, "variables": rest}
    if getattr(layer, "lora_enabled", False):
        merged = keras.ops.convert_to_numpy(getattr(layer, name))
        rest = {v.name: v for v in layer.weights if v.name.startswith("lora_")}
        attrs = {"lora": f"of rank {layer.lora_rank}"}
        return {
            "attrs": attrs,
            "variables": {"base": plain, **rest},
            "constants": {role: merged},
        }
    return {"attrs": {}, "variables": {role: plain}}


def _linear(op: str, layer: Any, attrs: Mapping[str, Any]) -> list[Step]:
    found = _kernel(layer)
    variables = {**found["variables"], **present(bias=_bias(layer))}
    step = Step(op, {**attrs, **found["attrs"]}, variables, constants=found.get("constants", {}))
    return [step, *activation(layer.activation, "act")]


def _conv(layer: Any) -> list[Step]:
    dilation = tuple(layer.dilation_rate)
    return _linear("conv", layer, {**_window(layer), "dilation": dilation, "groups": layer.groups})


def _depthwise(layer: Any) -> list[Step]:
    attrs = {**_window(layer), "dilation": tuple(layer.dilation_rate)}
    return _linear("depthwise_conv", layer, attrs)


def _conv_transpose(layer: Any) -> list[Step]:
    attrs = {
        **_window(layer),
        "dilation": tuple(layer.dilation_rate),
        "output_padding": layer.output_padding and tuple(layer.output_padding),
        "groups": 1,
    }
    return _linear("conv_transpose", layer, attrs)


def _separable(layer: Any) -> list[Step]:
    attrs = {**_window(layer), "dilation": tuple(layer.dilation_rate)}
    point = {
        "strides": (1,) * layer.rank,
        "padding": "valid",
        "data_format": layer.data_format,
        "dilation": (1,) * layer.rank,
        "groups": 1,
    }
    weights = present(kernel=layer.pointwise_kernel, bias=_bias(layer))
    return [
        Step("depthwise_conv", attrs, {"kernel": layer.depthwise_kernel}, suffix="depthwise"),
        Step("conv", point, weights),
        *activation(layer.activation, "act"),
    ]


def _dense(layer: Any) -> list[Step]:
    return _linear("dense", layer, {})


def _einsum(layer: Any) -> list[Step]:
    found = _kernel(layer)
    attrs = {"equation": layer.equation, **found["attrs"]}
    variables = {**found["variables"], **present(bias=layer.bias)}
    step = Step("einsum", attrs, variables, constants=found.get("constants", {}))
    return [step, *activation(layer.activation, "act")]


def _embedding(layer: Any) -> list[Step]:
    found = _kernel(layer, "table", "embeddings")
    return [
        Step(
            "embedding",
            found["attrs"],
            found["variables"],
            constants=found.get("constants", {}),
        )
    ]


# Pools.


def _pool(op: str) -> _Steps:
    return lambda layer: [Step(op, {**_window(layer), "window": tuple(layer.pool_size)})]


def _global_pool(op: str) -> _Steps:
    def steps_of(layer: Any) -> list[Step]:
        rank = layer.input_spec.ndim - 2
        first = 2 if layer.data_format == "channels_first" else 1
        axes = tuple(range(first, first + rank))
        return [Step(op, {"axes": axes, "keepdims": bool(layer.keepdims)})]

    return steps_of


def _adaptive_pool(kind: str) -> Callable[[Any, Shape], list[Step]]:
    def steps_of(layer: Any, shape: Shape) -> list[Step]:
        """Return a pool if windows divide the input evenly, a global pool for one window."""
        first, wanted = layer.data_format == "channels_first", tuple(layer.output_size)
        sizes = shape[2:] if first else shape[1:-1]
        if set(wanted) == {1}:
            axes = tuple(range(2 if first else 1, len(shape) if first else len(shape) - 1))
            return [Step(f"global_{kind}_pool", {"axes": axes, "keepdims": True})]
        if any(n is None or n % k for n, k in zip(sizes, wanted, strict=True)):
            return [opaque(layer, "its windows have several sizes")]
        window = tuple((n or 0) // k for n, k in zip(sizes, wanted, strict=True))
        attrs = {"window": window, "strides": window, "padding": "valid"}
        return [Step(f"{kind}_pool", {**attrs, "data_format": layer.data_format})]

    return steps_of


# Activations.


def _relu(layer: Any) -> list[Step]:
    attrs = {
        "negative_slope": float(layer.negative_slope),
        "threshold": float(layer.threshold),
        "max_value": None if layer.max_value is None else float(layer.max_value),
    }
    return [Step("relu", attrs)]


def _softmax(layer: Any) -> list[Step]:
    axis = layer.axis if isinstance(layer.axis, int) else tuple(layer.axis)
    return [Step("softmax", {"axis": axis})]


# Noise.


def _dropout(op: str) -> _Steps:
    def steps_of(layer: Any) -> list[Step]:
        attrs: dict[str, Any] = {"rate": float(layer.rate)}
        if getattr(layer, "noise_shape", None) is not None:
            attrs["noise_shape"] = tuple(layer.noise_shape)
        return [Step(op, attrs)]

    return steps_of


def _spatial_dropout(layer: Any) -> list[Step]:
    channels_first = getattr(layer, "data_format", "channels_last") == "channels_first"
    attrs = {"rate": float(layer.rate), "spatial": 1 if channels_first else -1}
    return [Step("dropout", attrs)]


# Shapes.


def _pairs(given: Any, rank: int) -> tuple[tuple[int, int], ...]:
    if rank == 1:
        return (tuple(given),)
    return tuple(tuple(p) if isinstance(p, (tuple, list)) else (p, p) for p in given)


def _border(op: str, attr: str, rank: int) -> _Steps:
    def steps_of(layer: Any) -> list[Step]:
        data_format = getattr(layer, "data_format", "channels_last")
        return [Step(op, {attr: _pairs(getattr(layer, attr), rank), "data_format": data_format})]

    return steps_of


def _upsample(layer: Any) -> list[Step]:
    factors = (layer.size,) if isinstance(layer.size, int) else tuple(layer.size)
    data_format = getattr(layer, "data_format", "channels_last")
    method = getattr(layer, "interpolation", "nearest")
    if method != "nearest":
        return [Step("resize", {"method": method, "data_format": data_format, "factors": factors})]
    return [Step("upsample", {"factors": factors, "data_format": data_format})]


def _resizing(layer: Any) -> list[Step]:
    if layer.crop_to_aspect_ratio or layer.pad_to_aspect_ratio:
        return [opaque(layer, "keeps the aspect ratio")]
    method, data_format = layer.interpolation, layer.data_format
    return [Step("resize", {"method": method, "data_format": data_format})]


def _repeat(layer: Any, shape: Shape) -> list[Step]:
    row = reshaped((shape[0], 1, *shape[1:]), "row")
    repeat = Step("upsample", {"factors": (layer.n,), "data_format": "channels_last"})
    return [row, repeat] if row else [opaque(layer, "unknown sizes")]


def _fixed(op: str) -> _Steps:
    return lambda layer: [Step(op)]


def _merge(op: str) -> _Steps:
    # A merging layer aligns batch axes: lower ranks get their missing axes right after it.
    return lambda layer: [Step(op, {"fill_axis": 1})]


LAYERS: dict[type, _Steps] = {
    **dict.fromkeys([kl.Conv1D, kl.Conv2D, kl.Conv3D], _conv),
    **dict.fromkeys([kl.DepthwiseConv1D, kl.DepthwiseConv2D], _depthwise),
    **dict.fromkeys([kl.SeparableConv1D, kl.SeparableConv2D], _separable),
    **dict.fromkeys([kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose], _conv_transpose),
    kl.Dense: _dense,
    kl.EinsumDense: _einsum,
    kl.Embedding: _embedding,
    **NORM_LAYERS,
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
    RReLU: lambda la: [Step("rrelu", {"lower": float(la.lower), "upper": float(la.upper)})],
    kl.Softmax: _softmax,
    kl.Dropout: _dropout("dropout"),
    kl.AlphaDropout: _dropout("alpha_dropout"),
    kl.GaussianDropout: _dropout("gaussian_dropout"),
    kl.GaussianNoise: lambda la: [Step("gaussian_noise", {"stddev": float(la.stddev)})],
    **dict.fromkeys(
        [kl.SpatialDropout1D, kl.SpatialDropout2D, kl.SpatialDropout3D], _spatial_dropout
    ),
    kl.Flatten: lambda layer: [Step("flatten", {"data_format": layer.data_format})],
    kl.Permute: lambda layer: [Step("permute", {"dims": tuple(layer.dims)})],
    kl.Reshape: _fixed("reshape"),  # the target is the output's own shape
    kl.ZeroPadding1D: _border("zero_pad", "padding", 1),
    **dict.fromkeys([kl.ZeroPadding2D, kl.ZeroPadding3D], _border("zero_pad", "padding", 2)),
    kl.Cropping1D: _border("crop", "cropping", 1),
    **dict.fromkeys([kl.Cropping2D, kl.Cropping3D], _border("crop", "cropping", 2)),
    **dict.fromkeys([kl.UpSampling1D, kl.UpSampling2D, kl.UpSampling3D], _upsample),
    kl.Resizing: _resizing,
    kl.Identity: _fixed("identity"),
    kl.ActivityRegularization: _fixed("identity"),  # its penalty is an obstacle
    kl.Add: _merge("add"),
    kl.Subtract: _merge("subtract"),
    kl.Multiply: _merge("multiply"),
    kl.Average: _merge("average"),
    kl.Maximum: _merge("maximum"),
    kl.Minimum: _merge("minimum"),
    kl.Concatenate: lambda layer: [Step("concat", {"axis": layer.axis})],
    kl.Dot: lambda la: [Step("dot", {"axes": la.axes, "normalize": bool(la.normalize)})],
}


# Layers around layers, and layers with layers inside.


def _spectral(layer: Any, shape: Shape) -> list[Step]:
    """Return the inner layer's steps: at inference it uses the kernel of the last training step."""
    found = steps(layer.layer, shape)
    if found[0].op not in select(kind="linear") | {"embedding"}:
        return [opaque(layer, f"around a {type(layer.layer).__name__}")]
    kernel = found[0].with_attrs(reparametrized="spectral_norm")
    variables = {**kernel.variables, **present(vector_u=getattr(layer, "vector_u", None))}
    return [replace(kernel, variables=variables), *found[1:]]


def _time_distributed(layer: Any, shape: Shape) -> list[Step]:
    time = shape[1] if len(shape) > 1 else None
    if type(layer.layer) is kl.TimeDistributed:
        return [opaque(layer, "within another TimeDistributed")]
    found = steps(layer.layer, (*shape[:1], *shape[2:]))
    return [
        replace(
            step.with_attrs(time_distributed=True),
            shape=step.shape and (step.shape[0], time, *step.shape[1:]),
        )
        for step in found
    ]


def _attention(layer: Any) -> list[Step]:
    rate = float(getattr(layer, "dropout", None) or getattr(layer, "_dropout", None) or 0.0)
    attrs = {"type": type(layer).__name__, "rate": rate}
    prefix = f"{layer.path}/"  # the written layer may have another name
    weights = {v.path.removeprefix(prefix): v for v in layer.weights}
    return [Step("attention", attrs, weights)]


_ATTENTION = [kl.Attention, kl.AdditiveAttention, kl.MultiHeadAttention, kl.GroupQueryAttention]
LAYERS.update(dict.fromkeys(_ATTENTION, _attention))

# These need the shape of their input, too.
SHAPED: dict[type, Callable[[Any, Shape], list[Step]]] = {
    kl.RepeatVector: _repeat,
    kl.SpectralNormalization: _spectral,
    kl.TimeDistributed: _time_distributed,
    **{
        getattr(kl, f"Adaptive{word}Pooling{rank}D"): _adaptive_pool(kind)
        for word, kind in (("Average", "avg"), ("Max", "max"))
        for rank in (1, 2, 3)
        if hasattr(kl, f"Adaptive{word}Pooling{rank}D")
    },
}
if hasattr(
    kl, "ReversibleEmbedding"
):  # a call in reverse has an extra argument, which makes it opaque
    LAYERS[kl.ReversibleEmbedding] = _embedding


def _custom_scale(layer: Any) -> list[Step]:
    """Return first + scale · second: Inception-ResNet's residual."""
    attrs = {"scale": float(layer.scale), "offset": 0.0}
    return [
        Step("rescale", attrs, suffix="scale", inputs=(1,)),
        Step("add", {"fill_axis": None}, inputs=(0, -1)),
    ]


# Layers that keras.applications defines for itself, by module and name.
_APPLICATIONS: dict[str, _Steps] = {
    "keras.src.applications.convnext.LayerScale": lambda layer: [
        Step("affine", {}, {"scale": layer.gamma})
    ],
    "keras.src.applications.convnext.StochasticDepth": lambda layer: [
        Step("stochastic_depth", {"rate": float(layer.drop_path_rate)})
    ],
    "keras.src.applications.inception_resnet_v2.CustomScaleLayer": _custom_scale,
}
_WHY_OPAQUE: dict[type, str] = {
    kl.Lambda: "any Python code",
    kl.Masking: "zeros what is masked",
    kl.Bidirectional: "recurrent",
    **dict.fromkeys([kl.RNN, kl.SimpleRNN, kl.LSTM, kl.GRU], "recurrent"),
    **dict.fromkeys([kl.ConvLSTM1D, kl.ConvLSTM2D, kl.ConvLSTM3D], "recurrent"),
}


# What a subclass may define without changing what its layer computes.
_HARMLESS = frozenset(
    "__init__ __module__ __qualname__ __doc__ __annotations__ __firstlineno__ __static_attributes__"
    " __dict__ __weakref__ get_config from_config".split()
)


def known_kind(kind: type) -> type:
    """Return the class of Keras's that a plain subclass computes as, or the class itself.

    A plain subclass has an `__init__`, a configuration and methods of its own, and redefines
    nothing of its base: only then its layers compute what the base's do.
    """
    base = next((part for part in kind.__mro__ if part in LAYERS), kind)
    own = kind.__mro__[: kind.__mro__.index(base)]
    return base if all(_is_plain(part, base) for part in own) else kind


def _is_plain(kind: type, base: type) -> bool:
    return all(
        name in _HARMLESS or not (hasattr(base, name) or hasattr(value, "__set__"))
        for name, value in vars(kind).items()
    )


# Unknown, but no part of a block: they change pictures in training.
_AUGMENTING: frozenset[Any] = frozenset(
    {
        kl.AugMix,
        kl.AutoContrast,
        kl.CutMix,
        kl.Equalization,
        kl.MixUp,
        kl.RandAugment,
        kl.RandomBrightness,
        kl.RandomColorDegeneration,
        kl.RandomColorJitter,
        kl.RandomContrast,
        kl.RandomCrop,
        kl.RandomElasticTransform,
        kl.RandomErasing,
        kl.RandomFlip,
        kl.RandomGaussianBlur,
        kl.RandomGrayscale,
        kl.RandomHue,
        kl.RandomInvert,
        kl.RandomPerspective,
        kl.RandomPosterization,
        kl.RandomRotation,
        kl.RandomSaturation,
        kl.RandomSharpness,
        kl.RandomShear,
        kl.RandomTranslation,
        kl.RandomZoom,
        kl.Solarization,
    }
)


def steps(layer: Any, shape: Shape = ()) -> list[Step]:
    """Return the logical operations of one call of a Keras layer on tensors of `shape`."""
    kind = known_kind(type(layer))
    if "call" in vars(layer):
        return [opaque(layer, "its call was replaced")]
    if kind in LAYERS:
        return LAYERS[kind](layer)
    if kind in SHAPED:
        return SHAPED[kind](layer, shape)
    home = f"{kind.__module__}.{kind.__qualname__}"
    if home in _APPLICATIONS:
        return _APPLICATIONS[home](layer)
    found = with_values(opaque(layer, _WHY_OPAQUE.get(kind, "")), function_of(layer), shape)
    return [found.with_attrs(rearranges=True) if kind in _AUGMENTING else found]
