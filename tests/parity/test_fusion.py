"""The backward fold against torch.nn.utils.fusion: the same or nearer to exact."""

import copy

import pytest
import torch
from tests.torch import zoo
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

import relucate

LAYERS = {
    "conv2d": (lambda: nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d, (2, 6, 7, 5)),
    "conv2d without bias": (
        lambda: nn.Conv2d(6, 8, 3, stride=2, bias=False), nn.BatchNorm2d, (2, 6, 7, 5),
    ),
    "grouped": (
        lambda: nn.Conv2d(6, 8, 3, groups=2, dilation=2, padding=2), nn.BatchNorm2d, (2, 6, 7, 6),
    ),
    "depthwise": (lambda: nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d, (2, 6, 7, 6)),
    "conv1d": (lambda: nn.Conv1d(6, 8, 3), nn.BatchNorm1d, (2, 6, 9)),
    "conv3d": (lambda: nn.Conv3d(6, 8, 2), nn.BatchNorm3d, (2, 6, 3, 4, 3)),
    "transposed": (
        lambda: nn.ConvTranspose2d(6, 8, 3, stride=2, output_padding=1), nn.BatchNorm2d,
        (2, 6, 4, 5),
    ),
    "linear": (lambda: nn.Linear(6, 8), nn.BatchNorm1d, (4, 6)),
}  # fmt: skip


@pytest.mark.parametrize("name", list(LAYERS))
@pytest.mark.parametrize("seed", range(5))
def test_as_good_as_fusion(name, seed):
    make, norm_class, shape = LAYERS[name]
    linear = make()
    width = getattr(linear, "out_channels", 0) or linear.out_features
    model = zoo.randomize(nn.Sequential(linear, norm_class(width)), seed).eval()
    with torch.no_grad():
        model[1].weight[0] = 0.0
        model[1].weight[1] *= -1
    transposed = isinstance(linear, nn.ConvTranspose2d)

    def fused(pair):
        linear, norm = pair
        if isinstance(linear, nn.Linear):
            return fuse_linear_bn_eval(linear, norm)
        return fuse_conv_bn_eval(linear, norm, transpose=transposed)

    exact = fused(copy.deepcopy(model).double())
    theirs = fused(copy.deepcopy(model))
    folded, report = relucate.fold(model, example=shape)
    assert len(report.done) == 1
    ours = folded[0]
    for part in ("weight", "bias"):
        errors = [
            (getattr(made, part).detach().double() - getattr(exact, part)).abs().max()
            for made in (ours, theirs)
        ]
        scale = getattr(exact, part).abs().max()
        assert errors[0] <= errors[1] + 1e-9 * scale
        assert errors[0] <= 6.1e-8 * scale  # rounded once
