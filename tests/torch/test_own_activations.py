"""Activations that libraries write themselves are read by what they compute."""

import math

import pytest
import torch
import torch.nn.functional as F
from tests.torch import zoo
from torch import nn

import relucate
from relucate.torch.reading.own_activations import own_activation
from relucate.torch.reading.reader import read

AFTER = "linear-act-norm"


class NewGelu(nn.Module):
    """GPT-2's."""

    def forward(self, input):
        inner = math.sqrt(2.0 / math.pi) * (input + 0.044715 * torch.pow(input, 3.0))
        return 0.5 * input * (1.0 + torch.tanh(inner))


class HardSigmoid(nn.Module):
    """MobileNetV3's in public code."""

    def __init__(self, inplace=True):
        super().__init__()
        self.relu = nn.ReLU6(inplace=inplace)

    def forward(self, x):
        return self.relu(x + 3) / 6


class HardSwish(nn.Module):
    def __init__(self):
        super().__init__()
        self.sigmoid = HardSigmoid()

    def forward(self, x):
        return x * self.sigmoid(x)


class LeanSwish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, *gradients):
        (x,) = ctx.saved_tensors
        gate = torch.sigmoid(x)
        return gradients[0] * gate * (1 + x * (1 - gate))


class Swish(nn.Module):
    """EfficientNet's that saves memory."""

    def forward(self, x):
        return LeanSwish.apply(x)


class Mish(nn.Module):
    def __init__(self, inplace=False):
        super().__init__()
        self.inplace = inplace

    def forward(self, x):
        gate = F.softplus(x).tanh()
        return x.mul_(gate) if self.inplace else x * gate


class Secret(nn.Module):
    """It changes its input, and has no attribute that says so."""

    def forward(self, x):
        return x.mul_(x.sigmoid())


class Quick(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class InTraining(nn.Module):
    def forward(self, x):
        return F.relu(x) if self.training else F.gelu(x)


class Gated(nn.Module):
    def forward(self, x, gate=None):
        return F.silu(x) if gate is None else x * gate


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (NewGelu(), nn.GELU),
        (HardSigmoid(), nn.Hardsigmoid),
        (HardSwish(), nn.Hardswish),
        (Swish(), nn.SiLU),
        (Mish(), nn.Mish),
        (Mish(inplace=True), nn.Mish),
    ],
)
def test_an_activation_is_known_by_what_it_computes(module, kind):
    assert type(own_activation(module)) is kind
    net = zoo.randomize(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), module), 1).eval()
    assert [node.name for node in read(net, (2, 3, 4, 4)) if node.kind == "act"] == ["2"]
    made, report = relucate.convert(net, AFTER, example=(2, 3, 4, 4))
    assert len(report.done) == 1
    x = torch.randn(3, 3, 5, 5)
    torch.testing.assert_close(made(x), net(x))
    assert type(made[1]) is type(module)


@pytest.mark.parametrize("kind", [Secret, Quick, InTraining, Gated, nn.Identity])
def test_what_computes_something_else_is_none(kind):
    assert own_activation(kind()) is None
