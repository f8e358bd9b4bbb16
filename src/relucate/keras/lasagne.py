"""Lasagne's `batch_norm(layer)` for Keras 3: a small stack of a layer, a norm and its activation.

Here: which layers have an activation that can be moved out, the copy of such a layer without it,
the bias rule by axes. Not here: blocks made from numbers (`blocks`), changing whole models
(`surgery`). Called by users only. The argument is never changed: the stack owns copies.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import keras
from keras import layers as kl

from ..errors import InputError, Refused, unknown
from ..graph import select
from ..order import Order

_WITH_ACTIVATION = tuple(
    getattr(kl, name)
    for name in (
        "Dense EinsumDense TernaryDense Conv1D Conv2D Conv3D Conv1DTranspose Conv2DTranspose "
        "Conv3DTranspose DepthwiseConv1D DepthwiseConv2D SeparableConv1D SeparableConv2D"
    ).split()
    if hasattr(kl, name)  # TernaryDense is newer than the oldest supported Keras
)
_RECURRENT = (
    *(kl.RNN, kl.LSTM, kl.GRU, kl.SimpleRNN, kl.Bidirectional, kl.StackedRNNCells),
    *(kl.LSTMCell, kl.GRUCell, kl.SimpleRNNCell, kl.ConvLSTM1D, kl.ConvLSTM2D, kl.ConvLSTM3D),
)
_ATTENTION = (*(kl.Attention, kl.AdditiveAttention, kl.MultiHeadAttention, kl.GroupQueryAttention),)


def batch_norm(
    layer: Any, order: str | Order = "before", *, name: str | None = None, **arguments: Any
) -> keras.Sequential:
    """Return a stack of a copy of `layer`, a batch norm and the layer's activation.

        before:  y = act(norm(W x))        after:  y = norm(act(W x + b))

    The copy keeps everything (name, initializers, regularizers, trained weights) except its
    activation, which becomes a layer of its own, with its weights if it has any (PReLU). The copy
    has no bias only where the bias rule says so: the norm directly follows, and its axis is the one
    axis along which the bias differs. `layer` itself is not changed.

    Args:
        layer: Dense, EinsumDense, Conv1D to Conv3D, their transposes, DepthwiseConv1D/2D or
            SeparableConv1D/2D, built or not. Without an activation the stack has none either.
        order: an order of linear, norm and act; without norm ("none") the stack has no norm.
        name: of the norm; None is the layer's name + "_bn". The activation is called that
            + "_nonlin" and the stack that + "_stack", in every order.
        arguments: of `keras.layers.BatchNormalization`. Its `axis` is the layer's channel axis
            unless given: 1 for channels first; for EinsumDense the axis that the kernel makes, if
            it makes one, else the last.

    Returns: a `keras.Sequential` of Keras's own layers: it can be called on a tensor, added to a
        Sequential, saved, and loaded where relucate isn't installed. Its first call builds it, for
        inputs of that shape: call it on `keras.Input((None, None, channels))` first if sizes vary.
    Raises:
        InputError: a wrong order or argument.
        Refused: a layer without such an activation (recurrent, attention, wrappers, models), a
            subclass with its own `call`, a quantized kernel or one with LoRA, an activation that
            mixes channels (softmax, log_softmax, sparsemax, glu).

    An activity regularizer moves to the activation, so it still gets the activation's output.
    The new norm is untrained, so a trained layer's function changes; `relucate.convert` keeps it.
    Source: Lasagne, `lasagne.layers.batch_norm`, which changes its argument and has one order.

    >>> stack = batch_norm(keras.layers.Dense(8, activation="tanh", name="hidden"))
    >>> [layer.name for layer in stack.layers]
    ['hidden', 'hidden_bn', 'hidden_bn_nonlin']
    >>> stack.layers[0].use_bias, stack(keras.Input((5,))).shape
    (False, (None, 8))
    """
    _check_layer(layer)
    _check_arguments(arguments)
    has_act = layer.activation is not keras.activations.linear and layer.activation is not None
    order = _effective(Order(order), layer, has_act)
    name = name or f"{layer.name}_bn"
    axis = arguments.pop("axis", None)
    bias = True
    if order.has_norm:
        follows = ("linear", "norm") in pairwise(order.tokens)
        first = order.tokens.index("norm") < order.tokens.index("linear")
        axis = axis if axis is not None else _channel_axis(layer, before=first)
        bias = not (follows and _subtracts_mean(arguments) and _bias_lies_along(layer, axis))
    regularizer = layer.activity_regularizer if has_act else None
    arguments = {"dtype": layer.dtype_policy, **arguments}
    make = {
        "linear": lambda: _copy_linear(layer, bias, has_act),
        "norm": lambda: kl.BatchNormalization(axis=axis, name=name, **arguments),
        "act": lambda: _copy_activation(layer, f"{name}_nonlin", regularizer, order),
    }
    return keras.Sequential([make[token]() for token in order.tokens], name=f"{name}_stack")


def _check_layer(layer: Any) -> None:
    """Raise why a layer's activation can't be moved out of it."""
    kind = type(layer).__name__
    who = f"{kind} '{layer.name}'" if isinstance(layer, kl.Layer) else repr(layer)
    known = ", ".join(cls.__name__ for cls in _WITH_ACTIVATION)
    if not isinstance(layer, kl.Layer):
        raise InputError(f"batch_norm takes a Keras layer, got {who} ({kind}). It takes {known}.")
    if not isinstance(layer, _WITH_ACTIVATION):
        raise Refused(f"batch_norm can't take {who}: {_why_not(layer)}. It takes {known}.")
    if own := _own_methods(layer):
        raise Refused(
            f"batch_norm can't take {who}: it has its own {own}, so what it does with its "
            "activation is unknown. Take the activation out of it and stack the three yourself."
        )
    if getattr(layer, "quantization_mode", None):
        raise Refused(f"batch_norm can't take {who}: its kernel is quantized.")
    if getattr(layer, "lora_enabled", False):
        raise Refused(f"batch_norm can't take {who}: LoRA is enabled, merge it into the kernel.")
    _check_activation(layer.activation, who)


def _why_not(layer: Any) -> str:
    if isinstance(layer, keras.Model):
        return "it is a whole model, apply batch_norm to layers"
    if isinstance(layer, _RECURRENT):
        return "its activations work inside the recurrence"
    if isinstance(layer, _ATTENTION):
        return "its activations work inside the attention"
    if isinstance(layer, kl.Wrapper):
        return "it wraps another layer, apply batch_norm to the one inside"
    if not hasattr(layer, "activation"):
        return "it has no activation"
    return "it is no convolution or dense layer of Keras"


def _own_methods(layer: Any) -> str:
    """Return the first method that isn't Keras's own among those that decide what is computed."""
    for method in ("call", "__call__", "build"):
        owner = next(cls for cls in type(layer).__mro__ if method in vars(cls))
        if not _is_keras(owner):
            return method
    return ""


def _check_activation(activation: Any, who: str) -> None:
    function = activation
    if isinstance(function, kl.Activation):
        function = function.activation
    while isinstance(function, partial):
        function = function.func
    name = getattr(function, "__name__", "")
    if isinstance(function, kl.Softmax):
        name = "softmax"
    if name in select(kind="act", mixes=True):
        raise Refused(
            f"batch_norm can't take {who}: its activation {name} mixes the channels or changes "
            "their number, so a norm on its other side gives another network. Use a layer "
            "without activation here, then apply the activation."
        )
    if isinstance(function, keras.Model):
        raise Refused(f"batch_norm can't take {who}: its activation is a whole model.")


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    known = [*inspect.signature(kl.BatchNormalization.__init__).parameters][1:]
    known = [n for n in known if n != "kwargs"] + ["dtype", "trainable"]
    for name in arguments:
        if name not in known:
            raise unknown("argument of batch_norm", name, ["order", "name", *known])


def _effective(order: Order, layer: Any, has_act: bool) -> Order:
    """Return the order of the parts that the stack will have."""
    if order.has_drop:
        raise InputError(
            f"the order '{order}' has a drop token, but batch_norm adds no dropout: "
            f"use '{order.without('drop')}' and a Dropout layer of your own."
        )
    if has_act and not order.has_act:
        raise InputError(
            f"{type(layer).__name__} '{layer.name}' has the activation {_shown(layer.activation)}, "
            f"but the order '{order}' says nowhere to put it: add an act token."
        )
    return order.without("act") if order.has_act and not has_act else order


def _shown(activation: Any) -> str:
    return getattr(activation, "__name__", type(activation).__name__)


def _subtracts_mean(arguments: Mapping[str, Any]) -> bool:
    """Return whether training subtracts the batch's mean: not if frozen, not quite if renorm."""
    return bool(arguments.get("trainable", True)) and not arguments.get("renorm", False)


def _channel_axis(layer: Any, before: bool) -> int:
    """Return the axis of the channels that come out of the layer, or (before) go into it."""
    if not isinstance(layer, kl.EinsumDense):
        return 1 if getattr(layer, "data_format", None) == "channels_first" else -1
    given, kernel, made = _einsum_terms(layer)
    term, other = (given, made) if before else (made, given)
    channels = [letter for letter in term if letter in kernel and letter not in other]
    return _position(term, channels[0]) if len(channels) == 1 else -1


def _einsum_terms(layer: Any) -> tuple[str, str, str]:
    """Return the letters of an EinsumDense's input, kernel and output; a dot is an ellipsis."""
    left, made = layer.equation.replace(" ", "").replace("...", ".").split("->")
    given, kernel = left.split(",")
    return given, kernel, made


def _position(term: str, letter: str) -> int:
    """Return the axis of a letter, counted from the side without an ellipsis."""
    at = term.index(letter)
    return at - len(term) if "." in term[:at] or ("." not in term and at == len(term) - 1) else at


def _bias_lies_along(layer: Any, axis: int) -> bool:
    """Return whether the bias differs along this axis only: then the norm subtracts all of it."""
    if isinstance(layer, kl.EinsumDense):
        made = _einsum_terms(layer)[2]
        if layer.bias_axes is None or len(layer.bias_axes) != 1:
            return False
        rank = None if "." in made else len(made)
        return _same_axis(axis, _position(made, layer.bias_axes), rank)
    rank = layer.rank + 2 if hasattr(layer, "rank") else None
    if rank is None and layer.built:
        rank = len(_built_shape(layer))
    return _same_axis(axis, _channel_axis(layer, before=False), rank)


def _same_axis(a: int, b: int, rank: int | None) -> bool:
    return a == b if rank is None else a % rank == b % rank


def _copy_linear(layer: Any, bias: bool, has_act: bool) -> Any:
    """Return a copy of the layer without activation, with or without bias, with its weights."""
    config = _bare_config(layer, has_act)
    if not bias:
        config.update(
            {"bias_axes": None} if isinstance(layer, kl.EinsumDense) else {"use_bias": False}
        )
    copy = _from_config(layer, config)
    if layer.built:
        copy.build(_built_shape(layer))
        inside = {id(w) for w in getattr(layer.activation, "weights", [])}
        sources = {w.name: w for w in layer.weights if id(w) not in inside}
        for weight in copy.weights:
            weight.assign(sources[weight.name])
    return copy


def _bare_config(layer: Any, has_act: bool) -> dict[str, Any]:
    # A lambda can't go through a config, and the layer itself must not be changed: use a shadow of
    # it that shares all except the activation. (Keras's own copy would save and load a file.)
    shadow = object.__new__(type(layer))
    vars(shadow).update(vars(layer))
    vars(shadow)["activation"] = keras.activations.linear
    if has_act:
        vars(shadow)["activity_regularizer"] = None
    return shadow.get_config()


def _built_shape(layer: Any) -> Any:
    """Return the input shape that a layer was built for."""
    shape = (layer.get_build_config() or {}).get("input_shape")
    if shape is None:
        raise Refused(f"{type(layer).__name__} '{layer.name}' doesn't say how it was built.")
    return shape


def _from_config(layer: Any, config: dict[str, Any]) -> Any:
    """Return a layer of the same class from a config, and check that it follows the config."""
    try:
        copy = type(layer).from_config(config)
    except Exception as error:
        raise _not_remade(layer, f"{type(error).__name__}: {error}") from error
    # A user's __init__ may change its arguments, without a get_config that knows it.
    if not _is_keras(type(layer)) and (differ := _differences(copy.get_config(), config)):
        raise _not_remade(layer, f"the copy has another {differ}")
    return copy


def _differences(got: dict[str, Any], wanted: dict[str, Any]) -> str:
    return ", ".join(key for key in wanted if key not in got or got[key] != wanted[key])


def _is_keras(cls: type) -> bool:
    return cls.__module__.startswith("keras.")


def _not_remade(layer: Any, why: str) -> Refused:
    return Refused(
        f"{type(layer).__name__} '{layer.name}' can't be made again from its config ({why}): "
        "give it a get_config, and register your own by keras.saving.register_keras_serializable."
    )


def _copy_activation(layer: Any, name: str, regularizer: Any, order: Order) -> Any:
    activation = layer.activation
    if not isinstance(activation, kl.Layer):
        return kl.Activation(
            activation, name=name, dtype=layer.dtype_policy, activity_regularizer=regularizer
        )
    if regularizer is not None and activation.activity_regularizer is not None:
        raise Refused(
            f"'{layer.name}' and its activation '{activation.name}' both have an "
            "activity_regularizer, and one layer can hold one only: drop one of them."
        )
    copy = _from_config(activation, {**activation.get_config(), "name": name})
    if regularizer is not None:
        copy.activity_regularizer = regularizer
    if activation.weights:
        if order.tokens.index("act") < order.tokens.index("linear"):
            raise Refused(
                f"the activation '{activation.name}' of '{layer.name}' has weights for the "
                f"layer's outputs, but in the order '{order}' it would get its inputs."
            )
        copy.build(_built_shape(activation))
        for weight, source in zip(copy.weights, activation.weights, strict=True):
            weight.assign(source)
    return copy
