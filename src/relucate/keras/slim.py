"""TensorFlow slim's `conv2d`, `fc` and `batch_norm` as Keras layers, in any order.

The arithmetic and the defaults are those of `inception/slim/ops.py`, the code of TensorFlow's first
Inception v3: norm between linear layer and activation, no bias under a norm, no gamma, a truncated
normal start, half the squared weights as penalty. Also here: the order and arguments of
`conv2d_bn` for `normalizer_fn` and `batch_norm_params`. Not here: TensorFlow's scopes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
from keras import layers as kl

from ..errors import InputError, Refused, unknown
from ..order import Order, bias_is_redundant
from .blocks import _activate
from .own_activations import pieces

_DATA_FORMATS = ("channels_last", "channels_first")
# What `inception_model.py` passes as batch_norm_params.
INCEPTION = {"decay": 0.9997, "epsilon": 0.001}

_BATCH_NORM = {"decay": 0.999, "center": True, "scale": False, "epsilon": 0.001}
_GROUP_NORM = {
    "groups": 32,
    "channels_axis": -1,
    "reduction_axes": (-3, -2),
    "center": True,
    "scale": True,
    "epsilon": 1e-6,
}
# Where TensorFlow 1 keeps variables: these don't change what a network computes.
_BOOKKEEPING = frozenset(
    "moving_vars restore reuse scope variables_collections outputs_collections updates_collections "
    "fused mean_close_to_zero".split()
)
# Arguments that must have their default here, and why.
_FIXED = {
    "activation": (None, "an activation inside the norm is a second one"),
    "activation_fn": (None, "an activation inside the norm is a second one"),
    "is_training": (True, "Keras chooses training or inference at the call"),
    "trainable": (True, "a frozen Keras norm uses its moving statistics, slim's doesn't"),
    "param_initializers": (None, "set them on the layer"),
    "param_regularizers": (None, "set them on the layer"),
    "batch_weights": (None, "Keras's batch norm has no weights per example"),
    "zero_debias_moving_mean": (False, "Keras's moving mean isn't debiased"),
    "renorm": (False, "the blocks have no batch renormalization"),
    "renorm_clipping": (None, "the blocks have no batch renormalization"),
    "renorm_decay": (0.99, "the blocks have no batch renormalization"),
    "adjustment": (None, "the blocks have no adjustment"),
    "data_format": ("NHWC", "use the block's own data_format"),
}


class Translation(NamedTuple):
    """An order, and the keyword arguments of `relucate.keras.conv2d_bn` that go with it."""

    order: Order
    arguments: dict[str, Any]


def conv2d(
    x: Any,
    num_filters_out: int,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: str = "SAME",
    activation: Any = "relu",
    stddev: float = 0.01,
    bias: float = 0.0,
    weight_decay: float = 0.0,
    batch_norm_params: Mapping[str, Any] | None = None,
    *,
    order: str | Order = "before",
    name: str | None = None,
    data_format: str | None = None,
) -> Any:
    """Apply slim's convolution: linear, batch norm if it has parameters, activation.

        y = act(norm(conv(x)))   with batch_norm_params,   y = act(conv(x) + bias)   without

    Args:
        x: tensor (batch, height, width, channels), or channels first if `data_format` says so.
        num_filters_out, kernel_size, stride, padding: "SAME" or "VALID", in any case.
        activation: anything `keras.activations.get` takes, or None.
        stddev: of the kernel's truncated normal start (drawn again beyond two of them).
        bias: the bias's initial value, where there is a bias (`relucate.order.bias_is_redundant`:
            in slim's own order none under a norm).
        weight_decay: w adds w/2 · Σ kernel² to the loss, TensorFlow's `l2_loss`; Keras's own L2(w)
            is twice that.
        batch_norm_params: the norm's decay (0.999), center (True), scale (False), epsilon (0.001);
            None is no norm, an empty dict is these defaults. `INCEPTION` is Inception v3's.
        order: an order of linear, norm and act; slim has only "before".
        name: layers are called `name + "_conv"`, `name + "_bn"` and `name`, as in `conv2d_bn`.

    Returns: the block's output tensor.
    Raises: InputError: an unknown argument or a drop token. Refused: Keras can't express it.
    Source: tensorflow/models, `inception/inception/slim/ops.py`.

    >>> conv2d(keras.Input((35, 35, 3)), 8, [3, 3], 2, "VALID", batch_norm_params=INCEPTION).shape
    (None, 17, 17, 8)
    """
    if padding.lower() not in ("same", "valid"):
        raise unknown("padding", padding, ("SAME", "VALID"))
    data_format = data_format or keras.config.image_data_format()
    if data_format not in _DATA_FORMATS:
        raise unknown("data format", data_format, _DATA_FORMATS)
    linear = {
        "filters": num_filters_out,
        "kernel_size": kernel_size,
        "strides": stride,
        "padding": padding.lower(),
        "data_format": data_format,
        "name": name and f"{name}_conv",
        **_start(stddev, bias, weight_decay),
    }
    axis = 1 if data_format == "channels_first" else -1
    return _stack(x, kl.Conv2D, linear, activation, batch_norm_params, order, axis, name)


def fc(
    x: Any,
    num_units_out: int,
    activation: Any = "relu",
    stddev: float = 0.01,
    bias: float = 0.0,
    weight_decay: float = 0.0,
    batch_norm_params: Mapping[str, Any] | None = None,
    *,
    order: str | Order = "before",
    name: str | None = None,
) -> Any:
    """Apply slim's fully connected layer: as `conv2d`, on tensors (batch, features).

    Raises: InputError: as `conv2d`, or a tensor of another rank (flatten it first).

    >>> fc(keras.Input((64,)), 10, activation=None, stddev=0.001).shape
    (None, 10)
    """
    if len(x.shape) != 2:
        raise InputError(f"fc takes a tensor (batch, features), got {x.shape}: flatten it first.")
    linear = {
        "units": num_units_out,
        "name": name and f"{name}_dense",
        **_start(stddev, bias, weight_decay),
    }
    return _stack(x, kl.Dense, linear, activation, batch_norm_params, order, -1, name)


def batch_norm(
    x: Any,
    decay: float = 0.999,
    center: bool = True,
    scale: bool = False,
    epsilon: float = 0.001,
    *,
    axis: int = -1,
    name: str | None = None,
) -> Any:
    """Apply slim's batch norm: no gamma by default, since the next layer can scale.

        moving = decay · moving + (1 - decay) · statistic of the batch

    >>> batch_norm(keras.Input((8,))).shape
    (None, 8)
    """
    return kl.BatchNormalization(
        axis=axis, momentum=decay, center=center, scale=scale, epsilon=epsilon, name=name
    )(x)


def translate(
    *,
    normalizer_fn: Any = None,
    normalizer_params: Mapping[str, Any] | None = None,
    batch_norm_params: Mapping[str, Any] | None = None,
    activation_fn: Any = "relu",
) -> Translation:
    """Return a slim layer's norm and activation as an order and arguments of `conv2d_bn`.

    Args:
        normalizer_fn, normalizer_params: of tf_slim's layers: `batch_norm` or `group_norm`, a name
            or a function of that name, and its arguments.
        batch_norm_params: of the older `ops.py`, in place of these two; None is no norm.
        activation_fn: the layer's, or None; a function is passed on unchanged.

    Returns: the order, and the keyword arguments for it: `conv2d_bn(x, ..., order=order, **args)`
        builds what slim builds (kernel initializer, padding and strides are yours). slim makes no
        bias under any norm, so `use_bias` is False where the bias rule would keep one. If `groups`
        doesn't divide the channels, slim raises an error and `conv2d_bn` lowers it. The moving
        variance of TensorFlow's `fused` kernels is n / (n - 1) times Keras's.
    Raises: InputError: an unknown argument, or both spellings at once. Refused: `conv2d_bn` can't
        express it, with the reason.

    >>> translate(batch_norm_params=INCEPTION).arguments["momentum"]
    0.9997
    >>> translate(normalizer_fn="batch_norm", activation_fn=None).order
    Order('linear-norm')
    """
    if batch_norm_params is not None:
        if normalizer_fn is not None or normalizer_params is not None:
            raise InputError(
                "batch_norm_params is another spelling of normalizer_fn and normalizer_params: "
                "give one of the two."
            )
        normalizer_fn, normalizer_params = "batch_norm", batch_norm_params
    order = Order.from_slim(normalizer_fn, activation_fn)
    arguments = {} if activation_fn is None else {"activation": activation_fn}
    if normalizer_fn is None:
        return Translation(order, {"norm": "none", **arguments})  # slim ignores the parameters too
    name = getattr(normalizer_fn, "__name__", normalizer_fn)
    if name == "batch_norm":
        norm = _batch_arguments(normalizer_params or {})
    elif name == "group_norm":
        norm = _group_arguments(normalizer_params or {})
    else:
        raise Refused(
            f"conv2d_bn can't express the normalizer {name!r}, only batch_norm and group_norm"
            f"{_WHY_NOT.get(name, '')}."
        )
    return Translation(order, {**norm, **arguments})


_WHY_NOT = {
    "layer_norm": " (slim's layer_norm takes one mean over height, width and channels)",
    "instance_norm": " (the Keras blocks have no instance norm)",
}


def _batch_arguments(params: Mapping[str, Any]) -> dict[str, Any]:
    given = _known("batch_norm", params, _BATCH_NORM)
    _need_center(given)
    return {
        "norm": "batch",
        "scale": given["scale"],
        "momentum": given["decay"],
        "epsilon": given["epsilon"],
    }


def _group_arguments(params: Mapping[str, Any]) -> dict[str, Any]:
    given = _known("group_norm", params, _GROUP_NORM)
    _need_center(given)
    axes = {given["channels_axis"], *given["reduction_axes"]}
    if axes != {-1, -2, -3} or given["channels_axis"] == -2:
        raise Refused(
            "conv2d_bn's group norm takes the mean over height, width and a group of channels: "
            "channels_axis=-1, reduction_axes=(-3, -2), or -3 and (-2, -1) for channels first; "
            f"got {given['channels_axis']} and {given['reduction_axes']}."
        )
    form = "channels_first" if given["channels_axis"] == -3 else "channels_last"
    return {
        "norm": "group",
        "groups": given["groups"],
        "scale": given["scale"],
        "epsilon": given["epsilon"],
        "data_format": form,
        "use_bias": False,
    }


def _need_center(given: Mapping[str, Any]) -> None:
    if not given["center"]:
        raise Refused("conv2d_bn's norms have a beta; center=False can't be expressed.")


def _known(what: str, params: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of slim's norm that change its result, with their defaults."""
    given = dict(defaults)
    for name, value in params.items():
        if name in _FIXED:
            default, why = _FIXED[name]
            if value != default:
                raise Refused(f"{what}'s {name}={value!r} can't be expressed: {why}.")
        elif name in defaults:
            given[name] = value
        elif name not in _BOOKKEEPING:
            raise unknown(f"argument of {what}", name, [*defaults, *_FIXED, *sorted(_BOOKKEEPING)])
    return given


def _start(stddev: float, bias: float, weight_decay: float) -> dict[str, Any]:
    penalty = keras.regularizers.L2(weight_decay / 2) if weight_decay > 0 else None
    return {
        "kernel_initializer": keras.initializers.TruncatedNormal(stddev=stddev),
        "bias_initializer": keras.initializers.Constant(bias),
        "kernel_regularizer": penalty,
    }


def _stack(
    x: Any,
    make: Any,
    linear: Mapping[str, Any],
    activation: Any,
    batch_norm_params: Mapping[str, Any] | None,
    order: str | Order,
    axis: int,
    name: str | None,
) -> Any:
    order = Order(order)
    if order.has_drop:
        raise InputError(f"slim's layers have no dropout: use '{order.without('drop')}'.")
    if batch_norm_params is None and order.has_norm:
        order = order.without("norm")
    if activation is None and order.has_act:
        order = order.without("act")
    if pieces(order, activation) > 1:
        raise InputError("slim's layers have no maxout: use relucate.keras.conv2d_bn.")
    norm = _known("batch_norm", batch_norm_params or {}, _BATCH_NORM)
    bias = not bias_is_redundant(order, "batch")
    apply = {
        "linear": lambda t: make(**linear, use_bias=bias)(t),
        "norm": lambda t: batch_norm(t, **norm, axis=axis, name=name and f"{name}_bn"),
        "act": lambda t: _activate(t, activation, name, axis),
    }
    for token in order.tokens:
        x = apply[token](x)
    return x
