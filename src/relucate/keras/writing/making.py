"""Keras layers for nodes that are no layer of the source: linear layers, norms, merges.

These nodes were inserted by a planner, are parts of a layer that was split, or belong to a graph
without a source. Only Keras's own layers are used, so the written model can be saved and loaded
without relucate. Not here: operations without weights (`raw`), unchanged layers (`cloning`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras

from ...errors import Refused
from ...graph import Graph, Node
from ..own_activations import RReLU
from ..reading.stepwise import stepwise

kl = keras.layers
Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Made:
    """A layer for a node, not built yet, and layers without weights before and after it.

    `node`: what the layer itself does, without the padding that a layer before it does.
    """

    layer: Any
    node: Node
    before: Any = None
    after: Any = None

    def around(self) -> Made:
        """Return the same with a TimeDistributed around each layer if the node asks for it."""
        if not self.node.time_axes:
            return self
        ends = [layer and stepwise(layer) for layer in (self.before, self.after)]
        return Made(stepwise(self.layer), self.node, *ends)

    def __call__(self, given: Any, **more: Any) -> Any:
        """Call the layers one after the other."""
        given = given if self.before is None else self.before(given)
        value = self.layer(given, **more)
        return value if self.after is None else self.after(value)


def make_layer(node: Node, graph: Graph, common: Mapping[str, Any]) -> Made:
    """Return the stock layer of a node; `common`: its name, dtype, trainable.

    Raises: Refused: Keras has no such layer.
    """
    if node.op not in LAYERS:
        raise Refused(f"'{node.name}' ({node.op}) can't be written as a Keras layer of its own.")
    for attr in ("inseparable", "reparametrized", "quantized", "lora", "renorm"):
        if node.attrs.get(attr):
            raise Refused(f"'{node.name}' ({node.op}) can't be written: {attr}.")
    one_step = replace(node, shape=node.of_one_step(node.shape))
    made = LAYERS[node.op](one_step, graph, dict(common))
    return made if isinstance(made, Made) else Made(made, node)


# Linear layers.


def _window(node: Node, graph: Graph) -> tuple[int, ...]:
    return tuple(graph.tensors[node.arrays["kernel"]].shape[:-2])


def _pick(node: Node, rank: int, *classes: Any) -> Any:
    if not 0 < rank <= len(classes):
        raise Refused(
            f"'{node.name}' ({node.op}) has {rank} spatial axes: Keras has no such layer."
        )
    return classes[rank - 1]


def _arguments(node: Node, graph: Graph) -> dict[str, Any]:
    return {
        "kernel_size": _window(node, graph),
        "strides": tuple(node.attrs["strides"]),
        "padding": node.attrs["padding"],
        "data_format": node.attrs["data_format"],
        "dilation_rate": tuple(node.attrs["dilation"]),
        "use_bias": "bias" in node.arrays,
    }


def _conv(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    window, padding = _window(node, graph), node.attrs["padding"]
    kind = _pick(node, len(window), kl.Conv1D, kl.Conv2D, kl.Conv3D)
    more = {**_arguments(node, graph), "groups": node.attrs.get("groups", 1), **common}
    filters = graph.tensors[node.arrays["kernel"]].shape[-1]
    if isinstance(padding, str):
        return kind(filters, **more)
    if len(window) == 1 and padding == (((window[0] - 1) * node.attrs["dilation"][0], 0),):
        return kind(filters, **{**more, "padding": "causal"})
    return _padded(node, lambda: kind(filters, **{**more, "padding": "valid"}), common)


def _depthwise(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    kind = _pick(node, len(_window(node, graph)), kl.DepthwiseConv1D, kl.DepthwiseConv2D)
    multiplier = graph.tensors[node.arrays["kernel"]].shape[-1]
    more = {**_arguments(node, graph), "depth_multiplier": multiplier, **common}
    if isinstance(node.attrs["padding"], str):
        return kind(**more)
    return _padded(node, lambda: kind(**{**more, "padding": "valid"}), common)


def _padded(node: Node, make: Callable[[], Any], common: dict[str, Any]) -> Made:
    """Put a layer of zeros before it: Keras's own layers have only "same" and "valid"."""
    name = f"{common['name']}_pad"
    pad = zero_pad(node, {**common, "name": name})
    inside = replace(node, attrs={**node.attrs, "padding": "valid"})
    return Made(make(), inside, before=pad)


def _transpose(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    kernel, padding = graph.tensors[node.arrays["kernel"]], node.attrs["padding"]
    rank = kernel.ndim - 2
    kind = _pick(node, rank, kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose)
    if node.attrs.get("groups", 1) != 1:
        raise Refused(f"'{node.name}' ({node.op}) has groups, but Keras's layer has no groups.")
    extra = node.attrs.get("output_padding")
    more = {**_arguments(node, graph), "output_padding": extra, **common}
    if isinstance(padding, str):
        return kind(kernel.shape[-2], **more)
    if extra is not None:
        raise Refused(f"'{node.name}' ({node.op}) crops {padding} and also pads {extra}.")
    layer = kind(kernel.shape[-2], **{**more, "padding": "valid"})
    inside = replace(node, attrs={**node.attrs, "padding": "valid"})
    return Made(layer, inside, after=crop(node, padding, f"{common['name']}_crop", common))


def _dense(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    kernel = graph.tensors[node.arrays["kernel"]]
    return kl.Dense(kernel.shape[-1], use_bias="bias" in node.arrays, **common)


def _einsum(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    equation, letters = node.attrs["equation"], ""
    if "bias" in node.arrays:
        sizes = graph.tensors[node.arrays["bias"]].shape
        output = equation.partition("->")[2]
        pairs = zip(output[len(output) - len(sizes) :], sizes, strict=True)
        letters = "".join(letter for letter, size in pairs if size != 1)
    return kl.EinsumDense(equation, node.shape[1:], bias_axes=letters or None, **common)


# Padding and cropping.


def _spatial(node: Node, pairs: Pairs, classes: tuple[Any, ...], common: dict[str, Any]) -> Any:
    kind = _pick(node, len(pairs), *classes)
    given: Any = tuple(tuple(pair) for pair in pairs)
    data_format = _layout(node)
    if len(pairs) > 1:
        return kind(given, data_format=data_format, **common)
    if kind is kl.ZeroPadding1D:
        return kind(given[0], data_format=data_format, **common)
    if data_format == "channels_first":
        raise Refused(f"'{node.name}' ({node.op}): Keras crops one axis with channels last only.")
    return kind(given[0], **common)


def zero_pad(node: Node, common: dict[str, Any]) -> Any:
    """Return the layer that pads with zeros as `node.attrs["padding"]` says."""
    classes = (kl.ZeroPadding1D, kl.ZeroPadding2D, kl.ZeroPadding3D)
    return _spatial(node, node.attrs["padding"], classes, common)


def crop(node: Node, pairs: Pairs, name: str, common: dict[str, Any]) -> Any:
    """Return the layer that crops `pairs` along the spatial axes."""
    classes = (kl.Cropping1D, kl.Cropping2D, kl.Cropping3D)
    return _spatial(node, pairs, classes, {**common, "name": name})


def _layout(node: Node) -> str:
    """Return a node's data format; Keras's own default depends on the user's settings."""
    return node.attrs.get("data_format") or "channels_last"


def _upsample(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    factors: tuple[int, ...] = tuple(node.attrs["factors"])
    kind = _pick(node, len(factors), kl.UpSampling1D, kl.UpSampling2D, kl.UpSampling3D)
    if len(factors) > 1:
        return kind(factors, data_format=_layout(node), **common)
    if node.attrs.get("data_format") == "channels_first":
        raise Refused(f"'{node.name}' ({node.op}): Keras repeats one axis with channels last only.")
    return kind(*factors, **common)


# Norms.


def _batch_norm(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    if "moving_mean" not in node.arrays:
        raise Refused(
            f"'{node.name}' ({node.op}) has no moving statistics: Keras has no such layer."
        )
    momentum = node.attrs.get("momentum")
    frozen = {"trainable": False} if node.attrs.get("frozen") else {}
    return kl.BatchNormalization(
        axis=node.attrs["axis"],
        epsilon=node.attrs["epsilon"],
        momentum=0.99 if momentum is None else momentum,
        center="beta" in node.arrays,
        scale="gamma" in node.arrays,
        synchronized=bool(node.attrs.get("synchronized")),
        **{**common, **frozen},
    )


def _layer_norm(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    options = {"axis": list(node.attrs["axes"]), "epsilon": node.attrs["epsilon"]}
    center, scale = "beta" in node.arrays, "gamma" in node.arrays
    if node.op == "layer_norm":
        return kl.LayerNormalization(**options, center=center, scale=scale, **common)
    if node.attrs.get("rms_scaling") or not scale or center:
        raise Refused(f"'{node.name}' ({node.op}) has options that no Keras layer has.")
    return kl.RMSNormalization(**options, **common)


def _group_norm(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    return kl.GroupNormalization(
        groups=node.attrs["groups"],
        axis=node.attrs["axis"],
        epsilon=node.attrs["epsilon"],
        center="beta" in node.arrays,
        scale="gamma" in node.arrays,
        **common,
    )


# Merges, and the rest.


def _merge(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    if node.op == "concat":
        return kl.Concatenate(axis=node.attrs["axis"], **common)
    ranks = {len(graph.nodes[name].shape) for name in node.inputs}
    if len(ranks) > 1 and node.attrs.get("fill_axis") is None:
        raise Refused(f"'{node.name}' ({node.op}) merges values of several ranks.")
    kinds = {
        "add": kl.Add,
        "subtract": kl.Subtract,
        "multiply": kl.Multiply,
        "average": kl.Average,
        "maximum": kl.Maximum,
        "minimum": kl.Minimum,
    }
    return kinds[node.op](**common)


def _rescale(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    return kl.Rescaling(node.attrs["scale"], offset=node.attrs["offset"], **common)


def _pool(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    window, padding = tuple(node.attrs["window"]), node.attrs["padding"]
    largest = node.op == "max_pool"
    classes = (
        (kl.MaxPooling1D, kl.MaxPooling2D, kl.MaxPooling3D)
        if largest
        else (kl.AveragePooling1D, kl.AveragePooling2D, kl.AveragePooling3D)
    )
    odd = any(d != 1 for d in node.attrs.get("dilation") or (1,)) or node.attrs.get("ceil_mode")
    counted = padding != "valid" and node.attrs.get("count_include_pad") and not largest
    if odd or counted or not isinstance(padding, str):
        raise Refused(f"'{node.name}' ({node.op}) pools in a way that no Keras layer does.")
    return _pick(node, len(window), *classes)(
        window,
        strides=tuple(node.attrs["strides"]),
        padding=padding,
        data_format=node.attrs["data_format"],
        **common,
    )


def _dropout(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    rate = node.attrs["rate"]
    if node.op != "dropout":
        kind = kl.AlphaDropout if node.op == "alpha_dropout" else kl.GaussianDropout
        return kind(rate, **common)
    noise = node.attrs.get("noise_shape")
    if node.attrs.get("spatial") is not None:
        kept = {0, node.attrs["spatial"] % len(node.shape)}
        noise = tuple(None if axis in kept else 1 for axis in range(len(node.shape)))
    return kl.Dropout(rate, noise_shape=noise, **common)


def _flatten(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    return kl.Flatten(data_format=_layout(node), **common)


def _prelu(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    alpha = graph.tensors[node.arrays["alpha"]]
    if node.attrs.get("axis") is not None or alpha.ndim != len(node.shape) - 1:
        raise Refused(f"'{node.name}' ({node.op}) has an alpha of shape {alpha.shape}.")
    sizes = enumerate(zip(alpha.shape, node.shape[1:], strict=True), start=1)
    shared = [axis for axis, (own, size) in sizes if own == 1 and size != 1]
    return kl.PReLU(shared_axes=shared or None, **common)


def _rrelu(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    return RReLU(node.attrs["lower"], node.attrs["upper"], **common)


def _embedding(node: Node, graph: Graph, common: dict[str, Any]) -> Any:
    return kl.Embedding(*graph.tensors[node.arrays["table"]].shape, **common)


LAYERS: Mapping[str, Callable[[Node, Graph, dict[str, Any]], Any]] = {
    "conv": _conv,
    "depthwise_conv": _depthwise,
    "conv_transpose": _transpose,
    "dense": _dense,
    "einsum": _einsum,
    "batch_norm": _batch_norm,
    **dict.fromkeys(["layer_norm", "rms_norm"], _layer_norm),
    "group_norm": _group_norm,
    **dict.fromkeys("add subtract multiply average maximum minimum concat".split(), _merge),
    "rescale": _rescale,
    **dict.fromkeys(["max_pool", "avg_pool"], _pool),
    **dict.fromkeys(["dropout", "alpha_dropout", "gaussian_dropout"], _dropout),
    "zero_pad": lambda node, graph, common: zero_pad(node, common),
    "crop": lambda node, graph, common: crop(node, node.attrs["cropping"], common["name"], common),
    "upsample": _upsample,
    "flatten": _flatten,
    "reshape": lambda node, graph, common: kl.Reshape(tuple(node.attrs["target"]), **common),
    "permute": lambda node, graph, common: kl.Permute(tuple(node.attrs["dims"]), **common),
    "identity": lambda node, graph, common: kl.Identity(**common),
    "gaussian_noise": lambda node, graph, common: kl.GaussianNoise(node.attrs["stddev"], **common),
    "prelu": _prelu,
    "rrelu": _rrelu,
    "softmax": lambda node, graph, common: kl.Softmax(node.attrs["axis"], **common),
    "embedding": _embedding,
}
