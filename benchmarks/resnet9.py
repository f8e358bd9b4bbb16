"""ResNet-9 for images of 32 x 32 pixels, in either order: the net of `gpu.py`'s seconds to 94 %.

Source: Page, How to Train Your ResNet, 2018, which reaches 94 % on CIFAR-10 in 24 epochs.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def build(order: str, input_shape: tuple[int, ...], classes: int, width: int = 64) -> nn.Module:
    """Return the net with every norm before or after its ReLU; `width` filters at first."""
    return nn.Sequential(
        _block(order, input_shape[-1], width),
        _block(order, width, 2 * width, nn.MaxPool2d(2)),
        _Residual(order, 2 * width),
        _block(order, 2 * width, 4 * width, nn.MaxPool2d(2)),
        _block(order, 4 * width, 8 * width, nn.MaxPool2d(2)),
        _Residual(order, 8 * width),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(8 * width, classes, bias=False),
        _Scale(),
    )


def _block(order: str, inside: int, outside: int, *behind: nn.Module) -> nn.Sequential:
    conv = nn.Conv2d(inside, outside, 3, padding=1, bias=False)
    pair: list[Any] = [nn.BatchNorm2d(outside), nn.ReLU()]
    if order not in ("before", "linear-norm-act"):
        pair.reverse()
    return nn.Sequential(conv, *pair, *behind)


class _Residual(nn.Module):
    def __init__(self, order: str, width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(_block(order, width, width), _block(order, width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.blocks(x)


class _Scale(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.125 * x
