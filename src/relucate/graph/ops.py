"""The registry of a Graph's operations: one record each, the only home of these facts.

Readers, planners, rules and lowering ask `OPERATIONS` (or `Node.operation`), or take a set of names
from `select`. What an operation computes is in `evaluate` (NumPy), the shape that it gives in
`inference`. `tests/graph/test_ops.py` lists what is missing for an operation that is added here,
and checks on random inputs that the statements are true.

Axes in attributes count the batch axis; with `time_distributed` they count without the time axis,
which the operation doesn't see. A missing attribute has its default; a default of None means that
nothing is set (dilation: one per axis). Layouts of the tensors:

    conv            kernel (*window, in / groups, out), bias
    depthwise_conv  kernel (*window, channels, multiplier), bias
    conv_transpose  kernel (*window, out / groups, in), bias
    dense           over the last axis: kernel (in, out), bias
    einsum          kernel and bias as they broadcast against the output
    norms           gamma, beta, moving_mean, moving_variance: one entry per channel (`axis`), or
                    over `axes` in ascending order
    prelu           alpha as it broadcasts, or along `axis` where that is given
    affine          scale, offset (one or both) as they broadcast
    constant        value, the same for each example of its input; its batch axis has size one
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .padding import adds_zeros

Attrs = Mapping[str, Any]
_Facts = dict[str, Any]  # fields of Operation
Scale = Literal["any", "positive", "none"]
Shift = Literal["commutes", "borders", "constant", "none"]
REQUIRED: Any = object()  # the default of an attribute that every node has to give
TOKENS = frozenset({"linear", "norm", "act", "drop"})  # the kinds that an order speaks of
# What a node of any operation may have: applied step by step, why it can only be written with the
# nodes around it, a call's own `training`, how the source spelled it, a cast; why the kernel of a
# layer isn't a plain variable.
COMMON = frozenset(
    "time_distributed inseparable forced written dtype reparametrized quantized lora".split()
)


@dataclass(frozen=True)
class Operation:
    """One operation. The facts about scale, shift and sign hold at inference.

    `scale` and `shift` are about one number s or t per channel, the same at each position; for a
    merge every input is scaled or shifted alike. Linear layers, norms and `affine` have "none".
    """

    name: str
    kind: str  # a token of an order, or: merge, pool, pad, shape, other
    attrs: Attrs = field(default_factory=dict)  # name -> default
    arrays: tuple[str, ...] = ()  # roles that its tensors may have
    # How its output's shape is found: as the input's, by broadcasting the inputs, by a rule of
    # `inference`, or given by the code that makes the node.
    shape: Literal["same", "broadcast", "rule", "given"] = "same"
    # f(s x) = s f(x) for any s, for s > 0 only, or not.
    scale: Scale | Callable[[Attrs], Scale] = "none"
    # f(x + t) = f(x) + t; except where zeros are padded in; = f(x) + another constant per channel.
    shift: Shift | Callable[[Attrs], Shift] = "none"
    nonnegative: bool | Callable[[Attrs], bool] = False  # f(x) >= 0 for every x
    turns_negative: bool = False  # f(x) may be < 0 though x >= 0, in training too
    mixes: bool = False  # a channel of its output depends on other channels of its input
    moves_axes: bool = False  # an axis of its output may be another axis of its input
    spatial: bool = False  # works along the image's axes, of which the channels may be one
    pads: bool = False  # may pad its input with zeros before it computes
    head: bool = False  # at the model's output it makes probabilities: no block's activation
    unknown: bool = False  # it may be a norm's linear layer, its activation or another norm
    transparent: bool = False  # the walk between a layer and its norm passes it
    absorbs: bool = False  # its kernel and bias can take over a scale and a shift per channel
    centers: Literal["", "channel", "group", "axes"] = ""  # a norm: over what it subtracts a mean
    # Its difference in training: none; multiplies by random numbers; adds them; another one.
    training: Literal["same", "multiplies", "adds", "other"] = "same"
    lowers: bool = False  # `torch.lower` has an emitter for it
    not_lowered: tuple[str, ...] = ()  # attributes that the emitter doesn't honour
    unevaluated: str = ""  # why it has no meaning in NumPy

    @property
    def token(self) -> str:
        """`linear`, `norm`, `act`, `drop` (the tokens of an order) or `other`."""
        return self.kind if self.kind in TOKENS else "other"

    def scale_of(self, attrs: Attrs) -> Scale:
        """Return what it does to a scale with these attributes."""
        return self.scale(self.complete(attrs)) if callable(self.scale) else self.scale

    def shift_of(self, attrs: Attrs) -> Shift:
        """Return what it does to a shift with these attributes."""
        return self.shift(self.complete(attrs)) if callable(self.shift) else self.shift

    def never_negative(self, attrs: Attrs) -> bool:
        """Return whether its output is never negative with these attributes."""
        found = self.nonnegative
        return found(self.complete(attrs)) if callable(found) else found

    def complete(self, attrs: Attrs) -> dict[str, Any]:
        """Return the attributes together with the defaults of those that are missing."""
        defaults = {name: value for name, value in self.attrs.items() if value is not REQUIRED}
        return {**defaults, **attrs}


def _op(
    name: str,
    kind: str,
    attrs: Attrs | None = None,
    flags: str = "",
    arrays: str = "",
    *,
    not_lowered: str = "",
    **facts: Any,
) -> Operation:
    """Return an operation; `flags` are the names of what is true of it."""
    facts |= dict.fromkeys(flags.split(), True)
    words = {"arrays": tuple(arrays.split()), "not_lowered": tuple(not_lowered.split())}
    return Operation(name, kind, attrs or {}, **words, **facts)


def _act(name: str, flags: str = "lowers", **facts: Any) -> Operation:
    return _op(name, "act", flags=flags, **facts)


# padding: "valid", "same" or ((before, after), ...) zeros per spatial axis.
_WINDOW = {"strides": REQUIRED, "padding": REQUIRED, "data_format": "channels_last"}
_CONV = {**_WINDOW, "dilation": None, "groups": 1}
_KERNEL: _Facts = {"arrays": "kernel bias", "shape": "rule"}
_LINEAR = [
    _op("conv", "linear", _CONV, "mixes pads absorbs lowers", **_KERNEL),
    # One group per channel; `groups` is ignored.
    _op("depthwise_conv", "linear", _CONV, "pads absorbs lowers", **_KERNEL),
    # Pairs as padding say how much of the full output is cut off.
    _op("conv_transpose", "linear", _CONV | {"output_padding": None}, "mixes absorbs", **_KERNEL),
    _op("dense", "linear", None, "mixes absorbs lowers", **_KERNEL),
    _op("einsum", "linear", {"equation": REQUIRED}, "mixes", **_KERNEL | {"shape": "given"}),
]

_BY_AXES = {"axes": REQUIRED, "epsilon": REQUIRED}
_BY_CHANNEL = {"axis": REQUIRED, "epsilon": REQUIRED}
# momentum: the share of the old that is kept; None: a cumulative average. Without moving statistics
# a batch norm takes those of the batch at inference too.
_BATCH = {"momentum": None, "frozen": False, "renorm": False, "synchronized": False}
_AFFINE = "gamma beta"
_MOVING = f"{_AFFINE} moving_mean moving_variance"
_RENORM = f"{_MOVING} moving_stddev renorm_mean renorm_stddev"
_GROUPS = _BY_CHANNEL | {"groups": REQUIRED}
_RMS = _BY_AXES | {"rms_scaling": False}  # Keras's, which divides by the standard deviation
_LRN = {"axis": -1, "size": REQUIRED, "alpha": 1e-4, "beta": 0.75, "bias": 1.0}
_NORMS = [
    _op(
        "batch_norm",
        "norm",
        _BY_CHANNEL | _BATCH,
        "lowers",
        _RENORM,
        not_lowered="renorm synchronized",
        centers="channel",
        training="other",
    ),
    _op("instance_norm", "norm", _BY_CHANNEL, arrays=_MOVING, centers="channel"),
    _op("group_norm", "norm", _GROUPS, "mixes lowers", _AFFINE, centers="group"),
    _op("layer_norm", "norm", _BY_AXES, "mixes lowers", _AFFINE, centers="axes"),
    _op("rms_norm", "norm", _RMS, "mixes lowers", _AFFINE),
    _op("unit_norm", "norm", _BY_AXES, "mixes lowers"),  # x / max(‖x‖₂, epsilon)
    _op("lrn", "norm", _LRN, "mixes", unevaluated="only its name and its settings are kept"),
]

_RELU = {"negative_slope": 0.0, "threshold": 0.0, "max_value": None}


def _relu_scale(attrs: Attrs) -> Scale:
    return "none" if attrs["max_value"] is not None or attrs["threshold"] else "positive"


_SLOPE = {"negative_slope": REQUIRED}
_RANGE = {"min_value": -1.0, "max_value": 1.0}
_SOFTPLUS = {"beta": 1.0, "threshold": None}  # where beta x is above the threshold it gives x
_SHRINK = {"threshold": 0.5}
_AXIS = {"axis": -1}  # one axis or several
_DRAWN = {"lower": REQUIRED, "upper": REQUIRED}  # slopes; at inference their mean
_FIXED = {"threshold": REQUIRED, "value": REQUIRED}
_ACTS = [
    *map(_act, "selu silu hard_silu mish log_sigmoid tanh tanh_shrink softsign erf".split()),
    *[
        _act(name, nonnegative=True)
        for name in "relu6 hard_sigmoid exponential sparse_plus sparse_sigmoid".split()
    ],
    _act("sigmoid", "head lowers", nonnegative=True),
    _act(
        "relu",
        attrs=_RELU,
        scale=_relu_scale,
        nonnegative=lambda attrs: not attrs["negative_slope"] and attrs["threshold"] >= 0,
    ),
    _act("leaky_relu", attrs=_SLOPE, scale="positive"),
    _act("prelu", attrs={"axis": None}, arrays="alpha", scale="positive", not_lowered="axis"),
    _act("rrelu", attrs=_DRAWN, scale="positive", training="multiplies"),
    _act("elu", attrs={"alpha": 1.0}),
    _act("celu", attrs={"alpha": 1.0}),
    _act("gelu", attrs={"approximate": False}),
    _act(
        "hard_tanh",
        attrs=_RANGE,
        nonnegative=lambda attrs: attrs["min_value"] >= 0,
    ),
    _act("soft_shrink", attrs=_SHRINK),
    _act("hard_shrink", attrs=_SHRINK),
    _act(
        "threshold",
        attrs=_FIXED,
        nonnegative=lambda attrs: attrs["threshold"] >= 0 and attrs["value"] >= 0,
    ),
    _act("softplus", attrs=_SOFTPLUS, not_lowered="beta threshold", nonnegative=True),
    _act("squareplus", attrs={"b": 4.0}, nonnegative=True),
    _act("softmax", "mixes head lowers", attrs=_AXIS, nonnegative=True),
    _act("log_softmax", "mixes head lowers", attrs=_AXIS),
    _act("glu", "mixes lowers", attrs=_AXIS, shape="rule"),
    # form "keras" isn't the published one, and isn't evaluated.
    _act("sparsemax", "mixes", attrs=_AXIS | {"form": None}, nonnegative=True),
]

_SAME: _Facts = {"scale": "any", "shift": "commutes"}
_THROUGH: _Facts = _SAME | {"transparent": True}
_RANDOM: _Facts = _THROUGH | {"training": "multiplies"}
_RATE = {"rate": REQUIRED, "noise_shape": None}
_SPATIAL_RATE = _RATE | {"spatial": None}  # the channel axis, where whole channels are dropped
_STOP = {"stop_gradient": False}  # nothing is learned through it
_DROPS = [
    _op("dropout", "drop", _SPATIAL_RATE, "lowers", **_RANDOM),
    _op("gaussian_dropout", "drop", _RATE, **_RANDOM),
    _op("stochastic_depth", "drop", _RATE, "lowers", not_lowered="noise_shape", **_RANDOM),
    # What it drops becomes a negative number, so that mean and variance stay.
    _op("alpha_dropout", "drop", _SPATIAL_RATE, "turns_negative", training="other", **_THROUGH),
    _op(
        "gaussian_noise",
        "other",
        {"stddev": REQUIRED},
        "turns_negative",
        **_THROUGH,
        training="adds",
    ),
    _op("identity", "other", _STOP, "lowers", not_lowered="stop_gradient", **_THROUGH),
]

# fill_axis: where lower ranks get axes of size one; None: in front, as NumPy broadcasts.
_MERGED: _Facts = {"attrs": {"fill_axis": None}, "shape": "broadcast"}
_MERGES = [
    _op("add", "merge", flags="lowers", scale="any", shift="constant", **_MERGED),
    _op("subtract", "merge", flags="lowers", scale="any", shift="constant", **_MERGED),
    _op("multiply", "merge", flags="lowers", **_MERGED),
    _op("divide", "merge", flags="lowers", **_MERGED),
    _op("average", "merge", flags="lowers", **_SAME, **_MERGED),
    _op("maximum", "merge", flags="lowers", scale="positive", shift="commutes", **_MERGED),
    _op("minimum", "merge", flags="lowers", scale="positive", shift="commutes", **_MERGED),
    _op("concat", "merge", {"axis": REQUIRED}, "lowers", shape="rule", **_SAME),
]

# adaptive: the output's size that a call asked for; window and strides say the same.
_POOL = _WINDOW | {"window": REQUIRED, "dilation": None, "ceil_mode": False, "adaptive": None}
_AVERAGE = _POOL | {"count_include_pad": False}
_GLOBAL = {"axes": REQUIRED, "keepdims": False}
_MAXIMUM: _Facts = _THROUGH | {"scale": "positive", "shape": "rule"}
_MOVED: _Facts = _THROUGH | {"shape": "rule"}


def _average_shift(attrs: Attrs) -> Shift:
    return "borders" if attrs["count_include_pad"] and adds_zeros(attrs["padding"]) else "commutes"


_ODD = "dilation ceil_mode adaptive"
_MEAN: _Facts = _MOVED | {"shift": _average_shift, "not_lowered": f"{_ODD} count_include_pad"}
_POOLS = [
    _op("max_pool", "pool", _POOL, "spatial lowers", not_lowered=_ODD, **_MAXIMUM),
    _op("avg_pool", "pool", _AVERAGE, "spatial pads lowers", **_MEAN),
    _op("global_max_pool", "pool", _GLOBAL, "moves_axes lowers", **_MAXIMUM),
    _op("global_avg_pool", "pool", _GLOBAL, "moves_axes lowers", **_MOVED),
]

_IMAGE = {"data_format": "channels_last"}
_PADDING = {"padding": REQUIRED, **_IMAGE}  # ((before, after), ...) per spatial axis
_MODE = _PADDING | {"mode": REQUIRED, "value": None}  # constant, reflect, symmetric, edge, wrap
_SLICE = {"axis": REQUIRED, "start": None, "stop": None, "step": None}
_RESIZED = {"method": REQUIRED, **_IMAGE, "factors": None, "align_corners": None}


# They pad with values of the input; NumPy's other modes compute new ones (linear_ramp, maximum).
_COPIES = frozenset({"reflect", "symmetric", "edge", "wrap"})
# Averages of values of the input, with weights >= 0 that sum to 1.
_AVERAGES = frozenset({"nearest", "nearest-exact", "linear", "bilinear", "trilinear", "area"})


def _pad_scale(attrs: Attrs) -> Scale:
    zeros = attrs["mode"] == "constant" and not attrs["value"]
    return "any" if zeros or attrs["mode"] in _COPIES else "none"


def _pad_shift(attrs: Attrs) -> Shift:
    if attrs["mode"] in _COPIES:
        return "commutes"
    return "borders" if attrs["mode"] == "constant" else "none"


def _resize_shift(attrs: Attrs) -> Shift:
    return "commutes" if attrs["method"] in _AVERAGES else "none"


_PADDED: _Facts = _MOVED | {"shift": "borders"}
_MODES: _Facts = _MOVED | {"scale": _pad_scale, "shift": _pad_shift}
_OWN_WAY: _Facts = {"shape": "given", "unevaluated": "each framework interpolates in its own way"}
_SHAPERS = [
    _op("zero_pad", "pad", _PADDING, "spatial pads lowers", **_PADDED),
    _op("pad", "pad", _MODE, "spatial turns_negative", **_MODES),
    _op("crop", "shape", {"cropping": REQUIRED, **_IMAGE}, "spatial lowers", **_MOVED),
    _op("slice", "shape", _SLICE, "lowers", **_MOVED),
    _op("upsample", "shape", {"factors": REQUIRED, **_IMAGE}, "spatial lowers", **_MOVED),
    _op(
        "resize",
        "shape",
        _RESIZED,
        "spatial turns_negative",
        **_THROUGH | {"shift": _resize_shift, **_OWN_WAY},
    ),
    _op("reshape", "shape", {"target": REQUIRED}, "moves_axes lowers", **_MOVED),
    _op("permute", "shape", {"dims": REQUIRED}, "moves_axes lowers", **_MOVED),
    # data_format "channels_first" moves the channels last first.
    _op("flatten", "shape", _IMAGE, "moves_axes lowers", **_MOVED),
]


def _reduced_scale(attrs: Attrs) -> Scale:
    found: dict[str, Scale] = {"mean": "any", "sum": "any", "max": "positive", "min": "positive"}
    return found.get(attrs["function"], "none")


def _reduced_shift(attrs: Attrs) -> Shift:
    if attrs["function"] in ("mean", "max", "min"):
        return "commutes"
    return "constant" if attrs["function"] == "sum" else "none"


_ATTENTION = {"type": None, "heads": None, "projections": True, "batch_first": None, "rate": 0.0}
_GIVEN: _Facts = {"shape": "given", "unevaluated": "it multiplies two values"}
_RESCALE = {"scale": REQUIRED, "offset": REQUIRED}
_RESCALED: _Facts = _THROUGH | {
    "scale": lambda attrs: "none" if attrs["offset"] else "any",
    "shift": "constant",
}
_REDUCE = _GLOBAL | {"function": REQUIRED}  # sum, mean, max, min, prod, var, std
_REDUCED: _Facts = _MOVED | {"scale": _reduced_scale, "shift": _reduced_shift}
_FIXED_AFFINE = "scale offset mean variance"
# rearranges: it only moves values; norms: names of the norm layers inside; function, operands: it
# is a known function of each element (`functions`).
_OPAQUE = {
    "type": "unknown",
    "why": "",
    "rearranges": False,
    "norms": (),
    "function": "",
    "operands": (None,),
}
_UNREAD: _Facts = {"shape": "given", "unevaluated": "the reader doesn't know it"}
_OTHERS = [
    _op("rescale", "other", _RESCALE, "turns_negative lowers", **_RESCALED),
    _op("affine", "other", None, "transparent turns_negative lowers", _FIXED_AFFINE, shape="rule"),
    _op("reduce", "other", _REDUCE, "moves_axes lowers", **_REDUCED),
    _op("constant", "other", arrays="value", shape="given"),
    _op("embedding", "other", None, "mixes", "table", shape="rule"),
    _op("matmul", "other", {"equation": None}, "mixes unknown", **_GIVEN),
    _op("dot", "other", {"axes": None, "normalize": False}, "mixes unknown", **_GIVEN),
    # Its own projections are inside.
    _op("attention", "other", _ATTENTION, "mixes", **_GIVEN),
    _op("input", "other", shape="given", unevaluated="its value is given"),
    _op("opaque", "other", _OPAQUE, "mixes unknown", **_UNREAD),
]

_ALL = (*_LINEAR, *_NORMS, *_ACTS, *_DROPS, *_MERGES, *_POOLS, *_SHAPERS, *_OTHERS)
OPERATIONS: dict[str, Operation] = {op.name: op for op in _ALL}  # more may be added


def select(**facts: Any) -> frozenset[str]:
    """Return the names of the operations of which all these facts are true.

    >>> sorted(select(kind="act", mixes=True))
    ['glu', 'log_softmax', 'softmax', 'sparsemax']
    """
    return frozenset(
        name
        for name, operation in OPERATIONS.items()
        if all(getattr(operation, fact) == value for fact, value in facts.items())
    )
