"""Blocks of linear layer, norm, activation and dropout in any order, for PyTorch.

A block's children are called `linear`, `norm`, `act` and `drop` and registered in data-flow order:
two orders share their state-dict keys, and `children()` yields them in the order of the data flow.
Not here: activation arguments and norms (`pieces`), a norm for existing modules (`lasagne`),
changing a whole model (`surgery`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..block import check_rate, group_count
from ..errors import InputError, unknown
from ..order import Order, bias_is_redundant
from .pieces import (
    ChannelLayerNorm,
    activation_module,
    conv_batch_norm,
    dense_batch_norm,
    gain_of,
    keep_input,
)

NORMS = ("batch", "instance", "group", "layer", "none")
_groups = partial(group_count, option="norm_groups")
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


class _Block(nn.Module):
    """The common part of conv and dense blocks: children in data-flow order, called in turn."""

    linear: nn.Module

    def _assemble(
        self,
        order: str | Order,
        norm: str,
        activation: Any,
        dropout: float,
        bias: bool | None,
        sizes: tuple[int, int],
        norm_groups: int | None,
        make_linear: Callable[[bool], nn.Module],
        make_norm: Callable[[int], nn.Module],
        init: Any,
    ) -> None:
        self.order, self.norm_kind = Order(order), norm
        act = activation_module(activation)
        tokens = _present(self.order, norm, act, dropout)
        width = sizes[tokens.index("norm") > tokens.index("linear")] if "norm" in tokens else 0
        if bias is None:
            groups = _groups(norm_groups, sizes[1]) if norm == "group" else None
            effective = Order("-".join(tokens))
            bias = not bias_is_redundant(effective, norm, groups=groups, channels=sizes[1])
        if act is not None and "act" in tokens:
            keep_input(act, tokens)
        make: dict[str, Callable[[], nn.Module | None]] = {
            "linear": lambda: make_linear(bias),
            "norm": lambda: make_norm(width),
            "act": lambda: act,
            "drop": lambda: nn.Dropout(dropout),
        }
        for token in tokens:
            self.add_module(token, make[token]())
        _initialise(self.linear, tokens, act, init)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the children in data-flow order."""
        for module in self.children():
            x = module(x)
        return x

    def extra_repr(self) -> str:
        return f"order='{self.order}'"


class ConvBlock(_Block):
    """A convolution, a norm, an activation and dropout in the given order.

        before:  y = act(norm(conv(x)))        after:  y = norm(act(conv(x)))

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, groups, padding_mode: of
            `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d`.
        padding: "same" keeps the size at stride 1 (dilation · (kernel - 1) / 2 on each side; even
            kernels need stride 1), "valid" is 0, or a number or tuple.
        order: an order such as "before", "after", "norm-act-linear", "linear-norm-act-drop".
        activation: a name from `ACTIVATIONS`, a module class (called without arguments), a module
            (copied with its weights, so that blocks don't share them), a function of one tensor, or
            None for none.
        norm: "batch", "instance", "group", "layer" (over the channels at each position) or "none".
        dropout: rate of the `drop` token; must be 0 if the order has no such token.
        bias: of the convolution; None follows the bias rule: no bias only where a norm that
            subtracts a mean per channel directly follows (`relucate.order.bias_is_redundant`).
        affine: whether the norm has weight and bias.
        eps, momentum: in PyTorch's convention: momentum is the share of the new statistic (Keras's
            is 1 - momentum).
        norm_groups: of the group norm, lowered to the largest divisor of the channels; -1 is one
            per channel; None is 32, with at least four channels in each.
        init: "auto" (below), "torch" for PyTorch's own, or a function that fills the weight.
        dims: 1, 2 or 3 spatial axes.

    Input (batch, in_channels, *spatial), output (batch, out_channels, *spatial). The norm has
    in_channels if it comes before the convolution, else out_channels.

    "auto" draws the weight from a normal distribution with mean 0 and

        std = gain / sqrt(fan_in),   gain = 1 / sqrt(E f(z)²),  z normal with variance 1

    where f is the last function before the linear layer in a chain of such blocks: the activation
    if it is nearest before the linear layer, continuing with the previous block (so in "before",
    "none" and "norm-act-linear": gain sqrt(2) for ReLU, as He et al.), none if a norm is nearest
    ("after", "norm-linear-act": its output already has variance 1, gain 1). So the variance of the
    linear layer's output is about 1 in every order. In "after", where no norm is between the linear
    layer and the activation, this keeps a tanh from saturating. The bias starts at 0.

    Raises: InputError: an unknown norm, activation or init, a dropout rate without a `drop` token
        or outside [0, 1), norm_groups below 1, an even kernel with "same" and a stride, other dims;
        at the call, an input without batch axis (its height could be taken for the channels).
    Source: Ioffe and Szegedy, Batch Normalization, 2015; He et al., Delving Deep into Rectifiers,
        2015 (the gain).

    >>> block = ConvBlock(3, 16, order="after")
    >>> list(block.state_dict())[:4]
    ['linear.weight', 'linear.bias', 'norm.weight', 'norm.bias']
    >>> block(torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 16, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] = "same",
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        *,
        order: str | Order = "before",
        activation: Any = "relu",
        norm: str = "batch",
        dropout: float = 0.0,
        bias: bool | None = None,
        affine: bool = True,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        norm_groups: int | None = None,
        init: str | Callable[[Tensor], Any] = "auto",
        dims: int = 2,
    ) -> None:
        super().__init__()
        if dims not in (1, 2, 3):
            raise InputError(f"dims must be 1, 2 or 3, got {dims!r}.")
        kernel, steps, holes = (_tuple(v, dims) for v in (kernel_size, stride, dilation))

        def make_linear(with_bias: bool) -> nn.Module:
            return _CONVS[dims - 1](
                in_channels,
                out_channels,
                kernel,  # type: ignore[arg-type]
                stride=steps,  # type: ignore[arg-type]
                padding=_padding(padding, kernel, steps, holes),  # type: ignore[arg-type]
                dilation=holes,  # type: ignore[arg-type]
                groups=groups,
                padding_mode=padding_mode,  # type: ignore[arg-type]
                bias=with_bias,
            )

        def make_norm(channels: int) -> nn.Module:
            if norm == "batch":
                return conv_batch_norm(dims, channels, eps=eps, momentum=momentum, affine=affine)
            if norm == "instance":
                return _INSTANCE_NORMS[dims - 1](channels, eps, affine=affine)
            if norm == "group":
                return nn.GroupNorm(_groups(norm_groups, channels), channels, eps, affine)
            return ChannelLayerNorm(channels, eps, affine, dims)

        sizes = (in_channels, out_channels)
        self._assemble(
            order, norm, activation, dropout, bias, sizes, norm_groups, make_linear, make_norm, init
        )
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        # Convolutions accept an image without a batch axis; a group norm would then take its height
        # for the channels, without an error if the two are equal.
        if self.norm_kind == "group":
            _need_rank(self, x, self.dims + 2, "(batch, channels, *spatial)")
        return super().forward(x)


class DenseBlock(_Block):
    """A linear layer, a norm, an activation and dropout in the given order.

    As `ConvBlock`, for tensors (batch, features). Norm "layer" and "none" accept any leading axes;
    PyTorch's batch and group norm use axis 1 for the features, so with them another rank is
    refused: flatten it first. There is no instance norm: it would normalize single values.

    >>> block = DenseBlock(64, 100, order="linear-norm-act-drop", dropout=0.2)
    >>> block(torch.ones(8, 64)).shape, block.linear.bias is None
    (torch.Size([8, 100]), True)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        order: str | Order = "before",
        activation: Any = "relu",
        norm: str = "batch",
        dropout: float = 0.0,
        bias: bool | None = None,
        affine: bool = True,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        norm_groups: int | None = None,
        init: str | Callable[[Tensor], Any] = "auto",
    ) -> None:
        super().__init__()
        if norm == "instance":
            raise InputError(
                "a dense block has no instance norm: it would normalize single values. "
                "Choose from: batch, group, layer, none."
            )

        def make_norm(features: int) -> nn.Module:
            if norm == "batch":
                return dense_batch_norm(features, eps=eps, momentum=momentum, affine=affine)
            if norm == "group":
                return nn.GroupNorm(_groups(norm_groups, features), features, eps, affine)
            return nn.LayerNorm(features, eps, affine)

        def make_linear(with_bias: bool) -> nn.Module:
            return nn.Linear(in_features, out_features, with_bias)

        sizes = (in_features, out_features)
        self._assemble(
            order, norm, activation, dropout, bias, sizes, norm_groups, make_linear, make_norm, init
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.norm_kind == "group":
            _need_rank(self, x, 2, "(batch, features)")
        return super().forward(x)


def _present(order: Order, norm: str, act: nn.Module | None, dropout: float) -> tuple[str, ...]:
    """Return the tokens that the block will have, or raise which arguments don't fit."""
    if norm not in NORMS:
        raise unknown("norm", norm, NORMS)
    check_rate(dropout, order)
    absent = {"norm"} if norm == "none" else set()
    absent |= {"act"} if act is None else set()
    return tuple(token for token in order.tokens if token not in absent)


def _initialise(linear: Any, tokens: Sequence[str], act: nn.Module | None, init: Any) -> None:
    if init == "torch":
        return
    with torch.no_grad():
        if callable(init):
            init(linear.weight)
        elif init == "auto":
            fan_in = linear.weight[0].numel()
            std = _input_gain(tokens, act) / math.sqrt(fan_in)
            linear.weight.normal_(0.0, std)
        else:
            raise unknown("init", init, ("auto", "torch", "a function"))
        if linear.bias is not None:
            linear.bias.zero_()


def _input_gain(tokens: Sequence[str], act: nn.Module | None) -> float:
    """Return the gain of the nearest token before the linear layer, in a chain of such blocks."""
    at = tokens.index("linear")
    before = [*tokens[at + 1 :], *tokens[:at]]
    nearest = next((token for token in reversed(before) if token != "drop"), "")
    return gain_of(act) if nearest == "act" and act is not None else 1.0


def _need_rank(block: nn.Module, x: Any, rank: int, layout: str) -> None:
    # torch.fx traces with a proxy, which has no rank.
    if isinstance(x, Tensor) and x.dim() != rank:
        raise InputError(
            f"{type(block).__name__} with this norm takes {layout}, got {tuple(x.shape)}."
        )


def _tuple(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    found = (value,) * dims if isinstance(value, int) else tuple(value)
    if len(found) != dims:
        raise InputError(f"expected one number or {dims} of them, got {value!r}.")
    return found


def _padding(
    padding: str | int | Sequence[int],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> str | tuple[int, ...]:
    if not isinstance(padding, str):
        return _tuple(padding, len(kernel))
    if padding not in ("same", "valid"):
        raise unknown("padding", padding, ("same", "valid", "a number"))
    if padding == "valid":
        return (0,) * len(kernel)
    spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if all(span % 2 == 0 for span in spans):
        return tuple(span // 2 for span in spans)
    if any(s != 1 for s in stride):
        raise InputError(
            f"padding='same' with the even kernel {kernel} and stride {stride} would need more on "
            "one side than on the other: give a number, or pad the input yourself."
        )
    return "same"
