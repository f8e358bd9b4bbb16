"""The few modules that a lowered network needs besides PyTorch's own.

They keep Keras's arithmetic: moving statistics with the population variance, asymmetric "same"
padding, average pooling that doesn't count the padding. Tensors are (batch, channels, *spatial).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PART = 16  # images
_NAIVE = 2**15  # values per channel up to which a plain float32 sum is good to 3e-4


class BatchNorm(nn.Module):
    """Batch norm over axis 1 with Keras's moving statistics.

        training:   y = gamma · (x - mean_B) / sqrt(var_B + epsilon) + beta
                    moving = momentum · moving + (1 - momentum) · statistic of the batch
        inference:  the same with the moving statistics

    The moving variance averages the population variance, as Keras's does; PyTorch's own module
    averages the unbiased one (n / (n - 1) times it). A `frozen` norm always uses the moving
    statistics.
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
        self.surplus: dict[BatchNorm, float] | None = None  # who corrects the variance (`together`)

    def forward(self, x: Tensor) -> Tensor:
        state = (self.weight, self.bias, self.running_mean, self.running_var)
        if not self.training or self.frozen:
            return torch.batch_norm(x, *state, False, 0.0, self.epsilon, False)
        count = x.numel() // x.shape[1]
        if count == 1:
            return self._single(x)
        # PyTorch adds up channels-last memory on a CPU one value after another.
        naive = x.device.type == "cpu" and not x.is_contiguous()
        if count > _NAIVE and x.dtype == torch.float32 and naive:
            return self._exact(x)
        # PyTorch adds (1 - momentum) · var · n / (n - 1), an n-th too much. `.data`, because
        # autograd counts changes of saved tensors, though it reads this one in eval only.
        kept = None if self.surplus is not None else self.running_var * self.momentum
        y = torch.batch_norm(x, *state, True, 1.0 - self.momentum, self.epsilon, False)
        if kept is not None:
            self.running_var.data.lerp_(kept, 1.0 / count)
        elif self.surplus is not None:
            self.surplus[self] = 1.0 / count
        return y

    def _exact(self, x: Tensor) -> Tensor:
        y, mean, variance = _ExactBatchNorm.apply(x, self.weight, self.bias, self.epsilon)  # type: ignore[misc]
        self.running_mean.data.lerp_(mean, 1.0 - self.momentum)
        self.running_var.data.lerp_(variance, 1.0 - self.momentum)
        return y

    def _single(self, x: Tensor) -> Tensor:
        """One value per channel: its variance is zero (PyTorch's kernel would give NaN)."""
        values = x.detach().reshape(-1).to(self.running_mean.dtype)
        self.running_mean.data.lerp_(values, 1.0 - self.momentum)
        self.running_var.data.mul_(self.momentum)
        y = (x - x) / self.epsilon**0.5
        shape = [1, -1] + [1] * (x.ndim - 2)
        if self.weight is not None:
            y = y * self.weight.reshape(shape)
        return y if self.bias is None else y + self.bias.reshape(shape)

    def extra_repr(self) -> str:
        return f"{self.running_mean.numel()}, momentum={self.momentum}, epsilon={self.epsilon}"


class _ExactBatchNorm(torch.autograd.Function):
    """Batch norm in training whose statistics are summed pairwise; it returns them too.

    PyTorch's kernel for channels-last memory on a CPU adds up one float32 after another: over the
    131072 pixels of 128 images of 32 x 32, its variance is off by 1e-3, here by 1e-7.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float):
        axes = [0, *range(2, x.ndim)]
        mean = x.mean(axes)
        center = mean.reshape(1, -1, *[1] * (x.ndim - 2))
        # A few images at a time stay in the processor's cache.
        squares = torch.stack([(part - center).square_().sum(axes) for part in x.split(_PART)])
        variance = squares.sum(0) / (x.numel() // x.shape[1])
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + epsilon))
        ctx.epsilon, ctx.wanted = epsilon, [True, weight is not None, bias is not None]
        ctx.mark_non_differentiable(mean, variance)
        y = torch.batch_norm(x, weight, bias, mean, variance, False, 0.0, epsilon, False)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, weight, mean, scale = ctx.saved_tensors
        found = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, weight, None, None, mean, scale, True, ctx.epsilon, ctx.wanted
        )
        return *(g if wanted else None for g, wanted in zip(found, ctx.wanted, strict=True)), None


class TokenBatchNorm(nn.BatchNorm1d):
    """PyTorch's batch norm over the last axis of tokens (batch, ..., channels), not over axis 1."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(0, -2)).reshape(input.shape)

    @classmethod
    def like(cls, norm: nn.Module) -> nn.Module:
        """Return `norm`, a plain batch norm that got merged tokens, with another forward."""
        return of_class(cls, norm) if type(norm) is nn.BatchNorm1d else norm


class AxisLayerNorm(nn.LayerNorm):
    """PyTorch's layer norm over one axis, `axis`, which isn't the last."""

    axis: int

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(self.axis, -1)).movedim(-1, self.axis)


class AxisRMSNorm(nn.RMSNorm):
    """PyTorch's RMS norm over one axis, `axis`, which isn't the last."""

    axis: int

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(self.axis, -1)).movedim(-1, self.axis)


def of_class(cls: type[nn.Module], module: nn.Module) -> Any:
    """Return a module of another class with the very parameters and attributes of `module`."""
    made = object.__new__(cls)
    vars(made).update(vars(module))
    return made


class GroupNorm(nn.GroupNorm):
    """PyTorch's group norm with or without gamma and beta each, for any number of values."""

    def __init__(self, groups: int, channels: int, epsilon: float, roles: Collection[str]) -> None:
        super().__init__(groups, channels, epsilon)
        if "gamma" not in roles:
            self.register_parameter("weight", None)
        if "beta" not in roles:
            self.register_parameter("bias", None)

    def forward(self, input: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not input.requires_grad:
            # Without a gradient for its input (the images themselves) PyTorch 2.13 crashes in the
            # backward pass of channels-last memory.
            input = input.detach().requires_grad_()
        if self.weight is None and self.bias is not None:  # PyTorch 2.13 has no backward for that
            y = torch.group_norm(input, self.num_groups, eps=self.eps)
            return y + self.bias.reshape(1, -1, *[1] * (input.ndim - 2))
        # nn.GroupNorm's own forward refuses one value per group, where the norm returns beta.
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class LayerNorm(nn.Module):
    """Layer norm over given axes of a tensor (a population variance inside the root).

    Negative axes stay negative: a shared layer may be called on tensors of several ranks.
    """

    def __init__(
        self, axes: Sequence[int], epsilon: float, shapes: Mapping[str, Sequence[int]]
    ) -> None:
        super().__init__()
        self.axes, self.epsilon = tuple(axes), epsilon
        self.weight = nn.Parameter(torch.ones(*shapes["gamma"])) if "gamma" in shapes else None
        self.bias = nn.Parameter(torch.zeros(*shapes["beta"])) if "beta" in shapes else None

    def forward(self, x: Tensor) -> Tensor:
        rank = x.ndim
        axes = sorted(axis % rank for axis in self.axes)
        shape = [x.shape[axis] for axis in axes]
        if axes == list(range(rank - len(axes), rank)):
            return F.layer_norm(x, shape, self.weight, self.bias, self.epsilon)
        mean = x.mean(axes, keepdim=True)
        variance = x.var(axes, correction=0, keepdim=True)
        return self._scaled((x - mean) * torch.rsqrt(variance + self.epsilon), axes)

    def _scaled(self, y: Tensor, axes: list[int]) -> Tensor:
        full = [size if axis in axes else 1 for axis, size in enumerate(y.shape)]
        if self.weight is not None:
            y = y * self.weight.reshape(full)
        return y if self.bias is None else y + self.bias.reshape(full)


class RMSNorm(LayerNorm):
    """gamma · x / sqrt(mean of x² + epsilon) + beta over given axes.

    `centered`: divided by the standard deviation instead, though no mean is subtracted: Keras's
    layer norm with rms_scaling.
    """

    def __init__(
        self,
        axes: Sequence[int],
        epsilon: float,
        shapes: Mapping[str, Sequence[int]],
        *,
        centered: bool = False,
    ) -> None:
        super().__init__(axes, epsilon, shapes)
        self.centered = centered

    def forward(self, x: Tensor) -> Tensor:
        axes = sorted(axis % x.ndim for axis in self.axes)
        full = x.to(torch.promote_types(x.dtype, torch.float32))  # bfloat16 is too coarse for sums
        if self.centered:
            power = full.var(axes, correction=0, keepdim=True)
        else:
            power = full.square().mean(axes, keepdim=True)
        return self._scaled(full * torch.rsqrt(power + self.epsilon), axes)


# The norms, for decay, counts and refusals: PyTorch's own classes, ours and their subclasses.
# _NormBase is the base of batch, synchronized and instance norms.
NORMS = (
    BatchNorm,
    LayerNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.modules.batchnorm._NormBase,
)
STATISTICS = ("running_mean", "running_var")


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a norm: one of `NORMS`, or one that another library brings.

    That one has running statistics, or its class's name says norm. By name alone a linear layer is
    no norm, nor is a module that only holds others, nor a class of PyTorch's own: its spectral norm
    changes a kernel.
    """
    if isinstance(module, NORMS) or all(hasattr(module, name) for name in STATISTICS):
        return True
    kind = type(module)
    if "norm" not in kind.__name__.lower() or kind.__module__.startswith("torch."):
        return False
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    holds_others = not own and any(True for _ in module.children())
    return not (holds_others or isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)))


class PReLU(nn.Module):
    """max(0, x) + alpha · min(0, x), with alpha of any shape that broadcasts over the batch."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(*shape))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) - self.alpha * F.relu(-x)


class RReLU(nn.RReLU):
    """x for x ≥ 0, else slope · x; the slope is drawn for every value in training, else the mean.

    Draws are float32 whatever the input is, so a seed gives the same slopes in bfloat16, rounded.
    PyTorch's own module loses the channels-last layout.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return F.leaky_relu(input, (self.lower + self.upper) / 2)
        slope = torch.empty_like(input, dtype=torch.float32).uniform_(self.lower, self.upper)
        return input * slope.masked_fill_(input.detach() >= 0, 1.0).to(input.dtype)


class Affine(nn.Module):
    """x * scale + offset, one or both, of any shape that broadcasts over the batch."""

    def __init__(self, shapes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.scale, self.offset = (
            nn.Parameter(torch.zeros(tuple(shapes[role]))) if role in shapes else None
            for role in ("scale", "offset")
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.scale is None else x * self.scale
        return x if self.offset is None else x + self.offset


class SharedDropout(nn.modules.dropout._DropoutNd):
    """Dropout with one draw for several values: whole channels, whole examples.

    Args: shape: of what is drawn, as it broadcasts against the input; None: the input's size there.
    """

    def __init__(self, p: float, shape: Sequence[int | None]) -> None:
        super().__init__(p)
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        shape = [x.shape[axis] if size is None else size for axis, size in enumerate(self.shape)]
        keep = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1.0 - self.p)
        return x * keep.div_(1.0 - self.p)


class AvgPoolSame(nn.Module):
    """Average pooling with "same" padding that isn't counted: sum of values / number of values.

    Only for windows that reach over the border by different amounts on the two sides: PyTorch's
    own pooling pads both sides equally.
    """

    def __init__(self, window: Sequence[int], strides: Sequence[int], pads: list[int]) -> None:
        super().__init__()
        self.window, self.strides, self.pads = tuple(window), tuple(strides), pads
        self._kept: tuple[torch.Size, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        return self._pool(F.pad(x, self.pads)) / self._share(x)

    def _share(self, x: Tensor) -> Tensor:
        """Return the share of each window that is inside the image, cached for the next call."""
        size = x.shape[2:]
        if self._kept is None or self._kept[0] != size or self._kept[1].device != x.device:
            with torch.inference_mode(False):  # the cached tensor may be used in training next
                ones = torch.ones((1, 1, *size), device=x.device)
                self._kept = size, self._pool(F.pad(ones, self.pads))
        return self._kept[1]

    def _pool(self, x: Tensor) -> Tensor:
        pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(self.window) - 1]
        return pool(x, self.window, self.strides)


class FixedOffset(nn.Module):
    """y + offset, with one offset per position, where y was made from an x of one size only.

    Plain addition would broadcast an offset of one pixel. And with strides, images of two sizes may
    give outputs of the same size, whose borders differ.
    """

    offset: Tensor

    def __init__(self, offset: Tensor, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("offset", offset)
        self.shape = tuple(shape)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"expected values of shape {('n', *self.shape)}, got {tuple(x.shape)}: the model "
                "was folded with strategy='map', for inputs of one size. Give inputs of that size, "
                "or fold it with strategy='shift'."
            )
        return y + self.offset

    def extra_repr(self) -> str:
        return f"x of {self.shape}"


class FixedAffine(nn.Module):
    """x * scale + offset, one or both, of any shape that broadcasts over the batch; not trained."""

    scale: Tensor | None
    offset: Tensor | None

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for role in ("scale", "offset"):
            self.register_buffer(role, tensors.get(role))

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.scale is None else x * self.scale
        return x if self.offset is None else x + self.offset


class FixedArgument(nn.Module):
    """Refuse another value for an argument than that which a forward was traced with."""

    def __init__(self, name: str, value: Any) -> None:
        super().__init__()
        self.name, self.value = name, value

    def forward(self, value: Any) -> None:
        if value != self.value:
            raise ValueError(
                f"expected {self.name}={self.value!r}, got {value!r}: the forward of this module "
                "was traced, for that value only."
            )


class Pad(nn.Module):
    """Pad the spatial axes with a constant, as asymmetric "same" padding needs."""

    def __init__(self, pads: list[int], value: float = 0.0) -> None:
        super().__init__()
        self.pads, self.value = pads, value

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.pads, value=self.value)


def cut(x: Tensor, axis: int, start: int | None, stop: int | None, step: int | None) -> Tensor:
    """Return x[start:stop:step] along an axis, as Python slices: the step may be negative."""
    if step is None or step > 0:
        return _Cut.apply(x, (slice(None),) * axis + (slice(start, stop, step),))
    places = range(*slice(start, stop, step).indices(x.shape[axis]))[::-1]
    return cut(x, axis, places.start, places.stop, places.step).flip(axis)


class _Cut(torch.autograd.Function):
    """x[key], whose gradient keeps the layout of x.

    PyTorch's own is channels first: the convolution before it would have to convert it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, key: tuple[slice, ...]) -> Tensor:
        layout = _LAYOUTS.get(x.ndim, torch.contiguous_format)
        kept = layout if x.is_contiguous(memory_format=layout) else torch.contiguous_format
        ctx.shape, ctx.layout, ctx.key = x.shape, kept, key
        return x[key]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (given,) = gradients
        whole = torch.empty(
            ctx.shape, dtype=given.dtype, device=given.device, memory_format=ctx.layout
        ).zero_()
        whole[ctx.key] = given
        return whole, None


_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def channels_last_weights(module: nn.Module) -> None:
    """Store image and volume kernels channels last: then convolutions return channels last too."""
    for parameter in module.parameters():
        if parameter.ndim in _LAYOUTS:
            parameter.data = parameter.data.contiguous(memory_format=_LAYOUTS[parameter.ndim])
