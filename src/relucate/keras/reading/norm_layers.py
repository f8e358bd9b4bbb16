"""What each norm layer and each fixed affine layer of Keras means as Graph nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from .steps import Step, present, scaled


def _axes(axis: Any) -> list[int]:
    return [axis] if isinstance(axis, int) else list(axis)


def _batch_norm(layer: Any) -> list[Step]:
    renorm = bool(getattr(layer, "renorm", False))
    attrs = {
        "axis": layer.axis,
        "epsilon": layer.epsilon,
        "momentum": layer.momentum,
        "frozen": not layer.trainable,
        "renorm": renorm,
        "synchronized": bool(layer.synchronized),
    }
    weights = present(
        gamma=layer.gamma if layer.scale else None,
        beta=layer.beta if layer.center else None,
        moving_mean=layer.moving_mean,
        moving_variance=layer.moving_variance,
        moving_stddev=layer.moving_stddev if renorm else None,
        renorm_mean=layer.renorm_mean if renorm else None,
        renorm_stddev=layer.renorm_stddev if renorm else None,
    )
    return [Step("batch_norm", attrs, weights)]


def _layer_norm(layer: Any) -> list[Step]:
    attrs = {"axes": _axes(layer.axis), "epsilon": layer.epsilon}
    weights = present(gamma=layer.gamma, beta=layer.beta)
    if getattr(layer, "rms_scaling", False):
        return [Step("rms_norm", {**attrs, "rms_scaling": True}, weights)]
    return [Step("layer_norm", attrs, weights)]


def _rms_norm(layer: Any) -> list[Step]:
    attrs = {"axes": _axes(layer.axis), "epsilon": layer.epsilon}
    return [Step("rms_norm", attrs, present(gamma=layer.scale))]


def _group_norm(layer: Any) -> list[Step]:
    attrs = {"groups": layer.groups, "axis": layer.axis, "epsilon": layer.epsilon}
    weights = present(
        gamma=layer.gamma if layer.scale else None, beta=layer.beta if layer.center else None
    )
    return [Step("group_norm", attrs, weights)]


def _unit_norm(layer: Any) -> list[Step]:
    return [Step("unit_norm", {"axes": _axes(layer.axis), "epsilon": 1e-12})]


def _normalization(layer: Any) -> list[Step]:
    """y = (x - mean) / max(sqrt(variance), epsilon), or its inverse."""
    mean, variance = (
        np.asarray(keras.ops.convert_to_numpy(v), np.float64) for v in (layer.mean, layer.variance)
    )
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    scale, offset = (deviation, mean) if layer.invert else (1 / deviation, -mean / deviation)
    kept = present(
        mean=getattr(layer, "adapt_mean", None), variance=getattr(layer, "adapt_variance", None)
    )
    return [Step("affine", {}, kept, constants={"scale": scale, "offset": offset})]


def _rescaling(layer: Any) -> list[Step]:
    scale, offset = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
    if scale.ndim and keras.config.image_data_format() == "channels_first":
        scale = scale.reshape(scale.shape + (1,) * (3 - scale.ndim))  # Keras's own rule
    return [scaled(scale, offset)]


NORM_LAYERS: Mapping[type, Callable[[Any], list[Step]]] = {
    kl.BatchNormalization: _batch_norm,
    kl.LayerNormalization: _layer_norm,
    kl.RMSNormalization: _rms_norm,
    kl.GroupNormalization: _group_norm,
    kl.UnitNormalization: _unit_norm,
    kl.Normalization: _normalization,
    kl.Rescaling: _rescaling,
}

_NORMS = tuple(kind for kind in NORM_LAYERS if kind not in {kl.Normalization, kl.Rescaling})


def norms_inside(layer: Any) -> tuple[str, ...]:
    """Return the norm layers within a layer, itself included: by class, or by moving statistics."""
    return tuple(dict.fromkeys(x.path or x.name for x in layer._flatten_layers() if _is_known(x)))


def _is_known(layer: Any) -> bool:
    statistics = all(hasattr(layer, name) for name in ("moving_mean", "moving_variance"))
    return statistics or isinstance(layer, _NORMS)


def is_norm(layer: Any) -> bool:
    """Return whether a layer is a norm: one of Keras's norms, or one that another library brings.

    That one has moving statistics, or its class's name says norm. By name alone a layer with a
    kernel is no norm, nor is a layer or model that only holds others, nor a class of Keras's own:
    its SpectralNormalization changes a kernel, its Normalization prepares inputs.
    """
    if _is_known(layer):
        return True
    kind = type(layer)
    if "norm" not in kind.__name__.lower() or kind.__module__.startswith("keras."):
        return False
    holds_others = bool(layer._layers) and not layer._trainable_variables
    return not (holds_others or getattr(layer, "kernel", None) is not None)
