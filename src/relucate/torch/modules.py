"""The few modules that a lowered network needs beside PyTorch's own.

They keep Keras's arithmetic: moving statistics with the population variance, asymmetric "same"
padding, average pooling that doesn't count the padding. Tensors are (batch, channels, *spatial).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """Batch norm over axis 1 with Keras's moving statistics.

        training:   y = gamma · (x - mean_B) / sqrt(var_B + epsilon) + beta
                    moving = momentum · moving + (1 - momentum) · statistic of the batch
        inference:  the same with the moving statistics

    The moving variance takes the population variance, as Keras's does; PyTorch's own module takes
    the unbiased one (n / (n - 1) larger). `frozen` always normalises with the moving statistics.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        channels: int,
        *,
        momentum: float,
        epsilon: float,
        scale: bool,
        center: bool,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels)) if scale else None
        self.bias = nn.Parameter(torch.zeros(channels)) if center else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.momentum, self.epsilon, self.frozen = momentum, epsilon, frozen

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.frozen:
            return torch.batch_norm(
                x,
                self.weight,
                self.bias,
                self.running_mean,
                self.running_var,
                False,
                0.0,
                self.epsilon,
                False,
            )
        count = x.numel() // x.shape[1]
        if count == 1:
            return self._single(x)
        kept = self.running_var * self.momentum
        y = torch.batch_norm(
            x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            True,
            1.0 - self.momentum,
            self.epsilon,
            False,
        )
        # PyTorch added (1 - momentum) · var · n / (n - 1); take the surplus n-th back out. `.data`,
        # because autograd counts changes of what it saved, though it only reads it at inference.
        self.running_var.data.lerp_(kept, 1.0 / count)
        return y

    def _single(self, x: Tensor) -> Tensor:
        """One value per channel: its variance is zero (PyTorch's kernel would give NaN)."""
        values = x.detach().reshape(-1).to(self.running_mean.dtype)
        self.running_mean.lerp_(values, 1.0 - self.momentum)
        self.running_var.mul_(self.momentum)
        y = (x - x) / self.epsilon**0.5
        shape = [1, -1] + [1] * (x.ndim - 2)
        if self.weight is not None:
            y = y * self.weight.reshape(shape)
        return y if self.bias is None else y + self.bias.reshape(shape)

    def extra_repr(self) -> str:
        return f"{self.running_mean.numel()}, momentum={self.momentum}, epsilon={self.epsilon}"


class LayerNorm(nn.Module):
    """Layer norm over given axes of a tensor (a population variance inside the root)."""

    def __init__(self, axes: Sequence[int], shape: Sequence[int], epsilon: float, roles: set[str]):
        super().__init__()
        self.axes, self.epsilon = tuple(axes), epsilon
        self.weight = nn.Parameter(torch.ones(*shape)) if "gamma" in roles else None
        self.bias = nn.Parameter(torch.zeros(*shape)) if "beta" in roles else None

    def forward(self, x: Tensor) -> Tensor:
        rank = x.ndim
        if self.axes == tuple(range(rank - len(self.axes), rank)):
            shape = list(x.shape[rank - len(self.axes) :])
            return F.layer_norm(x, shape, self.weight, self.bias, self.epsilon)
        mean = x.mean(self.axes, keepdim=True)
        variance = x.var(self.axes, correction=0, keepdim=True)
        y = (x - mean) * torch.rsqrt(variance + self.epsilon)
        shape = [x.shape[axis] if axis in self.axes else 1 for axis in range(rank)]
        if self.weight is not None:
            y = y * self.weight.reshape(shape)
        return y if self.bias is None else y + self.bias.reshape(shape)


class PReLU(nn.Module):
    """max(0, x) + alpha · min(0, x), with alpha of any shape that broadcasts over the batch."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(*shape))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) - self.alpha * F.relu(-x)


class SpatialDropout(nn.modules.dropout._DropoutNd):
    """Dropout of whole channels: one draw per example and channel."""

    def __init__(self, p: float, axis: int) -> None:
        super().__init__(p)
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        shape = [1] * x.ndim
        shape[0], shape[self.axis] = x.shape[0], x.shape[self.axis]
        keep = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1.0 - self.p)
        return x * keep.div_(1.0 - self.p)


class AvgPoolSame(nn.Module):
    """Average pooling with "same" padding that isn't counted: sum of values / number of values.

    Only for windows that reach over the border by different amounts on the two sides: PyTorch's
    own pooling pads both sides alike.
    """

    def __init__(self, window: Sequence[int], strides: Sequence[int], pads: list[int]) -> None:
        super().__init__()
        self.window, self.strides, self.pads = tuple(window), tuple(strides), pads
        self.counts: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self._pool(F.pad(x, self.pads))
        if self.counts is None or self.counts.device != x.device:
            ones = torch.ones((1, 1, *x.shape[2:]), device=x.device)
            self.counts = self._pool(F.pad(ones, self.pads))
        return y / self.counts

    def _pool(self, x: Tensor) -> Tensor:
        pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(self.window) - 1]
        return pool(x, self.window, self.strides)


class Pad(nn.Module):
    """Pad the spatial axes with a constant (what asymmetric "same" padding needs)."""

    def __init__(self, pads: list[int], value: float = 0.0) -> None:
        super().__init__()
        self.pads, self.value = pads, value

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.pads, value=self.value)
