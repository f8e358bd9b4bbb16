"""Norms of PyTorch as nodes of a Graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ....graph.inference import Mismatch
from ...modules import AxisLayerNorm, AxisRMSNorm, TokenBatchNorm
from ..builder import Weight
from ..program import Data, Unknown, need_data
from ..translator import Translator
from .handler import Handler, functional, module_as, need_weight, numbered


def _state(gamma: Any, beta: Any, mean: Any, variance: Any) -> dict[str, Weight | None]:
    roles = {"gamma": gamma, "beta": beta, "moving_mean": mean, "moving_variance": variance}
    return {role: need_weight(value) for role, value in roles.items()}


def _batch_norm(
    t: Translator,
    input: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float | None,
    eps: float,
    cudnn_enabled: bool = False,
) -> Data:
    x = need_data(input)
    _check_rank(t, x, running_mean)
    weights = _state(weight, bias, running_mean, running_var)
    forced = True if training and running_mean is not None else None
    attrs = {"axis": 1, "epsilon": float(eps), "forced": forced}
    return t.emit("batch_norm", [x], attrs | _mode(t, running_mean, momentum), weights)


def _check_rank(t: Translator, x: Data, running_mean: Any) -> None:
    """Check what a batch norm checks in its own forward, which is let pass while it is traced.

    Raises: Mismatch.
    """
    owner: Any = t.owner_of(running_mean)
    if owner is not None and owner is t.view.modules[t.path] and hasattr(owner, "num_features"):
        try:
            type(owner)._check_input_dim(owner, torch.empty(x.shape, device="meta"))
        except ValueError as error:
            raise Mismatch(str(error)) from error


def _mode(t: Translator, running_mean: Any, momentum: float | None) -> dict[str, Any]:
    """Return momentum and frozen: of the norm module that owns the statistics, if there is one.

    In eval mode such modules pass a momentum that isn't the one of their training.
    """
    owner: Any = t.owner_of(running_mean)
    if owner is not None and owner is t.view.modules[t.path] and hasattr(owner, "momentum"):
        momentum = owner.momentum
    frozen = owner is not None and (t.is_frozen(owner) or t.is_fixed(running_mean))
    kept = None if momentum is None else 1.0 - float(momentum)
    return {"momentum": kept, "frozen": frozen}


def batch_norm_module(*ranks: int, axis: int = 1) -> Handler:
    """Return the handler of a batch norm over one axis, for inputs of these numbers of axes."""

    def handler(t: Translator, m: Any, input: Any) -> Data:
        x = need_data(input)
        if ranks and len(x.shape) not in ranks:
            raise Mismatch(f"expected {' or '.join(map(str, ranks))} axes")
        weights = _state(m.weight, m.bias, m.running_mean, m.running_var)
        attrs = {"axis": axis % len(x.shape), "epsilon": float(m.eps), "forced": None}
        if isinstance(m, nn.SyncBatchNorm):
            attrs["synchronized"] = True
        mode = _mode(t, m.running_mean, m.momentum)
        mode["frozen"] = t.is_frozen(m) and m.running_mean is not None
        return t.emit("batch_norm", [x], attrs | mode, weights)

    return handler


def _instance_norm(
    t: Translator,
    input: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = False,
) -> Data:
    if use_input_stats:
        weights = {"gamma": need_weight(weight), "beta": need_weight(bias)}
    else:
        weights = _state(weight, bias, running_mean, running_var)
    return t.emit("instance_norm", [need_data(input)], {"axis": 1, "epsilon": float(eps)}, weights)


def _instance_norm_module(rank: int) -> Handler:
    def handler(t: Translator, m: Any, input: Any) -> Data:
        if len(need_data(input).shape) != rank + 2:
            raise Unknown("an input without a batch axis")
        state = (m.weight, m.bias, m.running_mean, m.running_var)
        return _instance_norm(t, input, *state, not m.track_running_stats, m.momentum, m.eps)

    return handler


def _layer_norm(
    t: Translator,
    input: Any,
    normalized_shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = False,
) -> Data:
    x = need_data(input)
    attrs = {"axes": _last(x, normalized_shape), "epsilon": float(eps)}
    weights = {"gamma": need_weight(weight), "beta": need_weight(bias)}
    return t.emit("layer_norm", [x], attrs, weights)


def _over_an_axis(op: str) -> Handler:
    def handler(t: Translator, m: Any, input: Any) -> Data:
        x = need_data(input)
        if (x.shape[m.axis],) != tuple(m.normalized_shape):
            raise Mismatch(f"expected an input whose axis {m.axis} is {m.normalized_shape[0]}")
        epsilon = torch.finfo(x.dtype).eps if m.eps is None else float(m.eps)
        weights = {"gamma": need_weight(m.weight), "beta": need_weight(getattr(m, "bias", None))}
        return t.emit(op, [x], {"axes": (m.axis,), "epsilon": epsilon}, weights)

    return handler


def _last(x: Data, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the last axes, which have these sizes."""
    rank = len(x.shape)
    if tuple(x.shape[rank - len(sizes) :]) != tuple(sizes):
        raise Mismatch(f"expected an input whose last axes are {tuple(sizes)}")
    return tuple(range(rank - len(sizes), rank))


def _rms_norm(
    t: Translator,
    input: Any,
    normalized_shape: Sequence[int],
    weight: Any = None,
    eps: float | None = None,
) -> Data:
    x = need_data(input)
    epsilon = torch.finfo(x.dtype).eps if eps is None else float(eps)
    attrs = {"axes": _last(x, normalized_shape), "epsilon": epsilon}
    return t.emit("rms_norm", [x], attrs, {"gamma": need_weight(weight)})


def _group_norm(
    t: Translator,
    input: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = False,
) -> Data:
    attrs = {"groups": num_groups, "axis": 1, "epsilon": float(eps)}
    weights = {"gamma": need_weight(weight), "beta": need_weight(bias)}
    x = need_data(input)
    if x.shape[1] % num_groups:
        raise Mismatch(f"expected a multiple of {num_groups} channels")
    return t.emit("group_norm", [x], attrs, weights)


def _normalize(
    t: Translator, input: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None
) -> Data:
    x, axis = need_data(input), dim
    if p != 2 or not isinstance(axis, int) or axis % len(x.shape) == 0 or out is not None:
        raise Unknown("not the Euclidean norm over one axis")
    return t.emit("unit_norm", [x], {"axes": (axis,), "epsilon": float(eps)})


def _local_response_norm(
    t: Translator, input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Data:
    attrs = {"axis": 1, "size": size, "alpha": alpha, "beta": beta, "bias": k}
    return t.emit("lrn", [need_data(input)], attrs)


FUNCTIONS: dict[str, Handler] = {
    "batch_norm": _batch_norm,
    "functional_batch_norm": functional(nn.functional.batch_norm, _batch_norm),
    "instance_norm": _instance_norm,
    "functional_instance_norm": functional(nn.functional.instance_norm, _instance_norm),
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "normalize": _normalize,
    "local_response_norm": _local_response_norm,
}
MODULES: dict[type, Handler] = {
    nn.BatchNorm1d: batch_norm_module(2, 3),
    nn.BatchNorm2d: batch_norm_module(4),
    nn.BatchNorm3d: batch_norm_module(5),
    nn.SyncBatchNorm: batch_norm_module(),
    TokenBatchNorm: batch_norm_module(axis=-1),
    **numbered("InstanceNorm", _instance_norm_module),
    nn.LayerNorm: module_as(_layer_norm, "normalized_shape", "weight", "bias", "eps"),
    nn.RMSNorm: module_as(_rms_norm, "normalized_shape", "weight", "eps"),
    AxisLayerNorm: _over_an_axis("layer_norm"),
    AxisRMSNorm: _over_an_axis("rms_norm"),
    nn.GroupNorm: module_as(_group_norm, "num_groups", "weight", "bias", "eps"),
    **dict.fromkeys(
        (nn.LocalResponseNorm, nn.CrossMapLRN2d),
        module_as(_local_response_norm, "size", "alpha", "beta", "k"),
    ),
}
