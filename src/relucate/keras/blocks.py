"""Blocks of linear layer, norm, activation and dropout in any order: conv and dense.

`conv2d_bn` has the signature of the helper inside keras.applications, so it can replace that
helper; every other choice is a keyword. Not here: whole networks (`networks`), changing the order
of an existing model (`surgery`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
from keras import layers

from ..block import check_rate, group_count
from ..errors import unknown
from ..order import Order, bias_is_redundant
from .own_activations import OWN_ACTIVATIONS, pieces

NORMS = ("batch", "layer", "group", "none")
_DATA_FORMATS = ("channels_last", "channels_first")
_SUFFIX = {"batch": "bn", "layer": "ln", "group": "gn", "none": ""}


def conv2d_bn(
    x: Any,
    filters: int,
    num_row: int,
    num_col: int,
    padding: str = "same",
    strides: tuple[int, int] | int = (1, 1),
    name: str | None = None,
    *,
    order: str | Order = "before",
    activation: Any = "relu",
    norm: str = "batch",
    dropout: float = 0.0,
    use_bias: bool | None = None,
    scale: bool = True,
    center: bool = True,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    groups: int | None = None,
    kernel_initializer: Any = "glorot_uniform",
    kernel_regularizer: Any = None,
    dilation_rate: tuple[int, int] | int = 1,
    conv_groups: int = 1,
    data_format: str | None = None,
) -> Any:
    """Apply a convolution, a norm, an activation and dropout in the given order.

        before:  y = act(norm(conv(x)))        after:  y = norm(act(conv(x)))

    Args:
        x: tensor (batch, height, width, channels), or channels first if `data_format` says so.
        filters, num_row, num_col, padding, strides, name: as in keras.applications' own helper;
            layers are named `name + "_conv"`, `name + "_bn"` (`_ln`, `_gn` for layer and group
            norm), `name` (the activation) and `name + "_drop"`.
        order: an order such as "before", "after", "norm-act-linear", "linear-norm-act-drop".
        activation: anything that `keras.activations.get` accepts; "prelu" (a slope per channel),
            "rrelu", "maxout" (the larger of two values, so the convolution has twice the filters);
            or a layer or its class (each block gets a new one).
        norm: "batch", "layer" (over the channels at each position), "group" or "none".
        dropout: rate of the `drop` token; must be 0 if the order has no such token.
        use_bias: of the convolution; None follows the bias rule (no bias only where a norm that
            subtracts a mean per channel directly follows).
        scale, center: whether the norm has a gamma (keras.applications' Inception v3 uses False)
            and a beta.
        groups: of the group norm, lowered to the largest divisor of the channels; -1 is one per
            channel; None is 32, with at least four channels in each (a group of one unit of a dense
            layer is always zero; a group of two is little more than a sign).
        conv_groups: of the convolution, each of which reads its share of the channels.
        data_format: None is `keras.config.image_data_format()`.

    Returns: the block's output tensor.
    Raises: InputError: an unknown norm, activation, initializer or data format, groups below 1, a
        dropout rate without a `drop` token or outside [0, 1).
    Source: Ioffe and Szegedy, Batch Normalization, 2015, section 3.2 (norm before the activation).

    >>> image = keras.Input((32, 32, 3))
    >>> conv2d_bn(image, 16, 3, 3, order="after", name="stem").shape
    (None, 32, 32, 16)
    """
    data_format = data_format or keras.config.image_data_format()
    if data_format not in _DATA_FORMATS:
        raise unknown("data format", data_format, _DATA_FORMATS)
    axis = 1 if data_format == "channels_first" else -1
    order = Order(order)
    filters *= pieces(order, activation)

    def linear(tensor: Any, bias: bool) -> Any:
        return layers.Conv2D(
            filters,
            (num_row, num_col),
            strides=strides,
            padding=padding,
            use_bias=bias,
            dilation_rate=dilation_rate,
            groups=conv_groups,
            data_format=data_format,
            kernel_initializer=_initializer(kernel_initializer),
            kernel_regularizer=kernel_regularizer,
            name=name and f"{name}_conv",
        )(tensor)

    normalize = _normalizer(norm, axis, (scale, center), momentum, epsilon, groups, name)
    activate = partial(_activate, activation=activation, name=name, axis=axis)
    bias = _bias(order, norm, use_bias, groups, filters)
    return _apply(x, order, lambda t: linear(t, bias), normalize, activate, dropout, name)


def dense_bn(
    x: Any,
    units: int,
    name: str | None = None,
    *,
    order: str | Order = "before",
    activation: Any = "relu",
    norm: str = "batch",
    dropout: float = 0.0,
    use_bias: bool | None = None,
    scale: bool = True,
    center: bool = True,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    groups: int | None = None,
    kernel_initializer: Any = "glorot_uniform",
    kernel_regularizer: Any = None,
) -> Any:
    """Apply a dense layer, a norm, an activation and dropout in the given order.

    As `conv2d_bn`, for tensors (batch, ..., features); the dense layer is called
    `name + "_dense"`.

    >>> dense_bn(keras.Input((64,)), 100, order="linear-norm-act-drop", dropout=0.2).shape
    (None, 100)
    """
    order = Order(order)
    units *= pieces(order, activation)
    bias = _bias(order, norm, use_bias, groups, units)

    def linear(tensor: Any) -> Any:
        return layers.Dense(
            units,
            use_bias=bias,
            kernel_initializer=_initializer(kernel_initializer),
            kernel_regularizer=kernel_regularizer,
            name=name and f"{name}_dense",
        )(tensor)

    normalize = _normalizer(norm, -1, (scale, center), momentum, epsilon, groups, name)
    activate = partial(_activate, activation=activation, name=name, axis=-1)
    return _apply(x, order, linear, normalize, activate, dropout, name)


def _bias(
    order: Order, norm: str, use_bias: bool | None, groups: int | None, channels: int
) -> bool:
    if norm not in NORMS:
        raise unknown("norm", norm, NORMS)
    if use_bias is not None:
        return use_bias
    return not bias_is_redundant(
        order, norm, groups=group_count(groups, channels), channels=channels
    )


def _initializer(initializer: Any) -> Any:
    try:
        return keras.initializers.get(initializer)
    except ValueError:
        raise unknown("initializer", initializer, _names(keras.initializers)) from None


def _normalizer(
    norm: str,
    axis: int,
    affine: tuple[bool, bool],
    momentum: float,
    epsilon: float,
    groups: int | None,
    block: Any,
) -> Callable[[Any], Any]:
    shared: Any = {"axis": axis, "scale": affine[0], "center": affine[1], "epsilon": epsilon}
    name = block and f"{block}_{_SUFFIX.get(norm)}"

    def normalize(x: Any) -> Any:
        if norm == "batch":
            return layers.BatchNormalization(momentum=momentum, name=name, **shared)(x)
        if norm == "layer":
            return layers.LayerNormalization(name=name, **shared)(x)
        if norm == "group":
            count = group_count(groups, x.shape[axis])
            return layers.GroupNormalization(count, name=name, **shared)(x)
        return x

    return normalize


def _apply(
    x: Any,
    order: Order,
    linear: Callable[[Any], Any],
    normalize: Callable[[Any], Any],
    activate: Callable[[Any], Any],
    dropout: float,
    name: str | None,
) -> Any:
    check_rate(dropout, order)
    apply = {
        "linear": linear,
        "norm": normalize,
        "act": activate,
        "drop": lambda t: layers.Dropout(dropout, name=name and f"{name}_drop")(t),
    }
    for token in order.tokens:
        x = apply[token](x)
    return x


def _activate(x: Any, activation: Any, name: str | None, axis: int) -> Any:
    if isinstance(activation, str) and activation in OWN_ACTIVATIONS:
        return OWN_ACTIVATIONS[activation](x, name, axis)
    if isinstance(activation, layers.Layer):
        # One layer object would share its weights (PReLU) between blocks.
        config = {**activation.get_config(), "name": name}
        return type(activation).from_config(config)(x)
    if isinstance(activation, type) and issubclass(activation, layers.Layer):
        return activation(name=name)(x)
    try:
        function = keras.activations.get(activation)
    except ValueError:
        known = [*_names(keras.activations), *OWN_ACTIVATIONS]
        raise unknown("activation", activation, known) from None
    return layers.Activation(function, name=name)(x)


def _names(module: Any) -> list[str]:
    """Return the names that a Keras module offers, as strings."""
    skip = {"get", "serialize", "deserialize"}
    return sorted(n for n in dir(module) if n[0].islower() and n not in skip)
