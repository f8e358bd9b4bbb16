"""Norms that libraries write themselves are read by what they compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import relucate
from relucate.graph import evaluate
from relucate.torch.reading.frozen import batch_norm_class
from relucate.torch.reading.own_norms import OwnNorm, own_norm, seen_norm
from relucate.torch.reading.reader import read

from . import zoo

AFTER = "linear-act-norm"


class Subclass(nn.LayerNorm):
    """PyTorch's class with a forward of its own, as timm has it."""

    def forward(self, x):
        return F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps)


class Channels(nn.LayerNorm):
    """Over axis 1 of images, as in ConvNeXt."""

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class Rms(nn.Module):
    """As in T5 and Llama."""

    def __init__(self, size, epsilon=1e-6):
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.ones(size)), epsilon

    def forward(self, x):
        kind = x.dtype
        x = x.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return self.weight * x.to(kind)


class AboveOne(Rms):
    """Gemma's: the weight is what the scale is above 1."""

    def forward(self, x):
        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return y * (1.0 + self.weight)


class Groups(nn.GroupNorm):
    def forward(self, x):
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class Written(nn.Module):
    """By hand, with epsilon under the root; `unlike` changes the formula."""

    def __init__(self, size, unlike=""):
        super().__init__()
        self.unlike = unlike
        self.weight, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))

    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        if self.unlike == "epsilon":
            scale = 1 / (x.std(-1, keepdim=True, correction=0) + 1e-6)
        elif self.unlike == "training" and self.training:
            scale = torch.ones_like(mean)
        else:
            correction = int(self.unlike == "unbiased")
            scale = (x.var(-1, keepdim=True, correction=correction) + 1e-5).rsqrt()
        y = (x - mean) * scale * self.weight + self.bias
        if self.unlike == "clamped":
            y = y.clamp(-1.5, 1.5)
        return torch.relu(y) if self.unlike == "activation" else y


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (Subclass(6, eps=1e-3), OwnNorm("layer_norm", -1, 1e-3)),
        (Channels(6), OwnNorm("layer_norm", 1, 1e-5)),
        (Rms(6), OwnNorm("rms_norm", -1, 1e-6)),
        (Rms(6, 1e-12), OwnNorm("rms_norm", -1, 1e-12)),
        (AboveOne(6), OwnNorm("rms_norm", -1, 1e-6, above=1.0)),
        (Groups(2, 6), OwnNorm("group_norm", 1, 1e-5, 2)),
        (Written(6), OwnNorm("layer_norm", -1, 1e-5)),
    ],
)
def test_a_norm_is_known_by_what_it_computes(module, expected):
    state = {name: value.clone() for name, value in module.state_dict().items()}
    assert own_norm(module) == expected
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("unlike", ["epsilon", "training", "unbiased", "clamped", "activation"])
def test_what_computes_something_else_is_no_norm(unlike):
    assert seen_norm(Written(6, unlike)) is None


class Block(nn.Module):
    """Norm first, as in a transformer."""

    def __init__(self, norm):
        super().__init__()
        self.norm, self.up, self.act = norm, nn.Linear(6, 9), nn.GELU()
        self.down = nn.Linear(9, 6)

    def forward(self, x):
        return x + self.down(self.act(self.up(self.norm(x))))


class Deciding(Block):
    """Its forward can't be traced by torch.fx."""

    def forward(self, x):
        return super().forward(x) if x.shape[-1] == 6 else x


@pytest.mark.parametrize("kind", [Block, Deciding])
@pytest.mark.parametrize("norm", [Subclass, Rms, AboveOne, Written])
def test_an_own_norm_is_one_module_that_moves(kind, norm):
    net = zoo.randomize(nn.Sequential(kind(norm(6)), kind(norm(6))), 1).eval()
    graph = read(net, (2, 5, 6))
    assert [node.name for node in graph if node.kind == "norm"] == ["0.norm", "1.norm"]
    assert not graph.opaque
    made, report = relucate.rebuild(net, AFTER, example=(2, 5, 6), init=lambda module: None)
    assert len(report.done) == 2
    orders = [site.order for site in relucate.audit(made, example=(2, 5, 6)).sites]
    assert orders == [AFTER] * 2
    moved = [module for module in made.modules() if type(module) is norm]
    start = 0.0 if norm is AboveOne else 1.0
    assert [module.weight.tolist() for module in moved] == [[start] * 9] * 2


def test_an_own_norm_on_images():
    block = nn.Sequential(nn.Conv2d(3, 6, 3), Channels(6), nn.ReLU(), nn.Conv2d(6, 2, 1))
    net = zoo.randomize(block, 1).eval()
    assert [site.order for site in relucate.audit(net, example=(2, 3, 8, 8)).sites] == [
        "linear-norm-act"
    ]
    made, report = relucate.rebuild(net, AFTER, example=(2, 3, 8, 8))
    assert report.done
    assert type(made[2]) is Channels


def test_a_weight_above_one_is_read_as_the_scale_that_it_is():
    net, x = nn.Sequential(nn.Linear(4, 6), AboveOne(6), nn.ReLU()), torch.randn(5, 4)
    net[1].weight.data.uniform_(-0.5, 0.5)
    graph = read(net, (2, 4))
    (found,) = evaluate(graph, x.numpy())
    np.testing.assert_allclose(found, net(x).detach().numpy(), rtol=1e-5, atol=1e-6)


class Ghost(nn.BatchNorm1d):
    """Statistics of small parts of a batch in training."""

    def forward(self, x):
        if self.training:
            return torch.cat([super(Ghost, self).forward(part) for part in x.split(2)])
        return super().forward(x)


class InFloat(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x.float()).to(x.dtype)


class Swapped(nn.BatchNorm2d):
    def forward(self, x):
        state = (self.running_mean, self.running_var, self.weight, self.bias)
        return torch.batch_norm(x, *reversed(state[2:]), *state[:2], False, 0.1, self.eps, False)


class Absolute(nn.BatchNorm2d):
    def forward(self, x):
        state = (self.running_mean, self.running_var, self.weight.abs(), self.bias)
        return nn.functional.batch_norm(x, *state, eps=self.eps)


class Batch(nn.BatchNorm2d):
    def forward(self, x):
        return nn.functional.batch_norm(x, None, None, self.weight, self.bias, True, eps=self.eps)


class Conditional(nn.BatchNorm2d):
    def forward(self, x, plain=True):
        return super().forward(x) if plain else x


@pytest.mark.parametrize(
    ("norm", "alike"),
    [
        (Ghost(4), True),
        (InFloat(4), True),
        (InFloat(4, affine=False), True),
        (Swapped(4), False),
        (Absolute(4), False),
        (Batch(4), False),
        (Conditional(4), False),
        (nn.BatchNorm2d(4), False),
    ],
)
def test_a_batch_norm_with_a_forward_of_its_own_is_known_by_what_it_computes(norm, alike):
    assert (batch_norm_class(norm) is not None) is alike


@pytest.mark.parametrize("verb", ["fold", "convert", "rebuild"])
def test_a_batch_norm_that_does_more_in_training_stays_whole(verb):
    layers = [nn.Linear(4, 4), Ghost(4), nn.ReLU(), nn.Linear(4, 2)]
    model = zoo.randomize(nn.Sequential(*layers), 1).eval()
    order = () if verb == "fold" else ("after",)
    made, report = getattr(relucate, verb)(model, *order, example=(4, 4))
    assert report.done
    if verb == "fold":
        assert isinstance(made[1], nn.Identity)
    else:
        assert [type(layer) for layer in made][:3] == [nn.Linear, nn.ReLU, Ghost]
    if verb != "rebuild":
        x = torch.randn(5, 4)
        torch.testing.assert_close(made(x), model(x), rtol=0, atol=1e-5)
