"""The parts of a block besides the linear layer: activation, norm, gain of the initial weights.

Here: the module of an `activation` argument, and norms that PyTorch lacks or doesn't check. Called
by `blocks` and `lasagne`, which decide where each part goes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, unknown

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "rrelu": nn.RReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "mish": nn.Mish,
    "sigmoid": nn.Sigmoid,
    "log_sigmoid": nn.LogSigmoid,
    "hard_sigmoid": nn.Hardsigmoid,
    "hard_silu": nn.Hardswish,
    "hard_swish": nn.Hardswish,
    "tanh": nn.Tanh,
    "hard_tanh": nn.Hardtanh,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
}
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class ChannelLayerNorm(nn.LayerNorm):
    """Layer norm over axis 1, at each position on its own.

    Not `nn.GroupNorm(1, channels)`, whose mean goes over the positions too.
    """

    def __init__(self, channels: int, eps: float, affine: bool, dims: int) -> None:
        super().__init__(channels, eps, affine)
        self.to_last = (0, *range(2, dims + 2), 1)
        self.back = (0, dims + 1, *range(1, dims + 1))

    def forward(self, input: Tensor) -> Tensor:
        x = input.permute(self.to_last)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(self.back)


class Function(nn.Module):
    """A function of one tensor as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))


def activation_module(activation: Any) -> nn.Module | None:
    """Return a new module for an `activation` argument; None for None.

    Raises: InputError: an unknown name, an object that isn't callable, or a GLU (it halves the
        channels).
    """
    if activation is None:
        return None
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise unknown("activation", activation, sorted(ACTIVATIONS))
        return ACTIVATIONS[activation]()
    if isinstance(activation, nn.Module):
        module = copy.deepcopy(activation)
    elif isinstance(activation, type) and issubclass(activation, nn.Module):
        module = activation()
    elif callable(activation):
        module = Function(activation)  # type: ignore[arg-type]
    else:
        raise InputError(
            "an activation must be a name, a module, its class, a function or None; got "
            f"{activation!r} ({type(activation).__name__})."
        )
    if isinstance(module, nn.GLU) or getattr(activation, "__name__", "") == "glu":
        raise InputError(
            "glu halves the channels, so a norm after it would have another width: put it after "
            "the block."
        )
    return module


def keep_input(act: nn.Module, tokens: Sequence[str]) -> None:
    """Switch off an activation's in-place mode, if it would change the block's own input.

    That is so if there is nothing before it except a dropout, which returns its input at inference:
    the activation would overwrite the caller's tensor, such as a residual branch.
    Raises: InputError: a function that works in place (PyTorch's names for them end in `_`).
    """
    if set(tokens[: tokens.index("act")]) - {"drop"}:
        return
    for module in act.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
        name = getattr(getattr(module, "function", None), "__name__", "")
        if name.endswith("_"):
            raise InputError(
                f"{name} would overwrite the block's input, since the activation comes first in "
                f"'{'-'.join(tokens)}': use the function without the underscore."
            )


def dense_batch_norm(features: int, **arguments: Any) -> nn.BatchNorm1d:
    """Return a batch norm for (batch, features) that refuses tensors of three axes.

    `nn.Linear` works on the last axis, `nn.BatchNorm1d` on axis 1. On (batch, time, features) these
    are different axes, and if both have the same size there would be no error.
    """
    norm = nn.BatchNorm1d(features, **arguments)
    # On the instance, not in a subclass: for torch.fx and others it is still PyTorch's own class.
    norm._check_input_dim = _check_features  # type: ignore[method-assign]
    return norm


def conv_batch_norm(dims: int, channels: int, **arguments: Any) -> nn.Module:
    """Return a batch norm for (batch, channels, *spatial) that refuses another number of axes.

    `nn.Conv1d` also accepts (channels, length), which `nn.BatchNorm1d` would take for (batch,
    channels). The norms of other dims have a strict check already.
    """
    norm = _BATCH_NORMS[dims - 1](channels, **arguments)
    if dims == 1:
        norm._check_input_dim = _check_sequence  # type: ignore[method-assign]
    return norm


def _check_features(input: Tensor) -> None:
    if input.dim() != 2:
        raise InputError(
            "a batch norm of a linear layer's features takes (batch, features), got "
            f"{tuple(input.shape)}: flatten the leading axes first (x.flatten(0, -2))."
        )


def _check_sequence(input: Tensor) -> None:
    if input.dim() != 3:
        raise InputError(
            "a batch norm of a 1-D convolution's channels takes (batch, channels, length), got "
            f"{tuple(input.shape)}."
        )


def gain_of(act: nn.Module) -> float:
    """Return 1 / sqrt(E f(z)²) of an activation f, with z normal of mean 0 and variance 1.

    By the trapezoidal rule from -8 to 8; sqrt(2) for ReLU, 1 for the identity and SELU, 1.59 for
    tanh. Raises: InputError: f doesn't accept a tensor (points, channels), or returns only zeros.

    >>> round(gain_of(nn.ReLU()), 5), round(gain_of(nn.Tanh()), 3)
    (1.41421, 1.593)
    """
    act = copy.deepcopy(act).eval().float().cpu()
    width = max((p.numel() for p in act.parameters()), default=1)
    z = torch.linspace(-8.0, 8.0, 4001, dtype=torch.float32, device="cpu")
    density = torch.exp(-(z.double() ** 2) / 2) / math.sqrt(2 * math.pi)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            squares = act(z[:, None].repeat(1, width)).double().square().mean(1)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise InputError(
            f"can't measure the gain of {type(act).__name__} ({error}): give init='torch' or a "
            "function that fills the weight."
        ) from error
    moment = float(torch.trapezoid(squares * density, z.double()))
    if not moment > 0 or not math.isfinite(moment):
        raise InputError(
            f"{type(act).__name__} gives E f(z)² = {moment} on normal inputs, so there is no gain: "
            "give init='torch' or a function that fills the weight."
        )
    return 1 / math.sqrt(moment)
