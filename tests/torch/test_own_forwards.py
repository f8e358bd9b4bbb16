"""Modules that are called by their `forward`, and batch norms whose own forward does more."""

import warnings

import pytest
import torch
from tests.torch import zoo
from torch import nn
from torch.nn import functional as F

import relucate

AFTER, SHAPE = "linear-act-norm", (2, 3, 8, 8)


class Called(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
        self.head = nn.Conv2d(4, 2, 3)

    def forward(self, x):
        x = self.act.forward(self.norm.forward(self.conv.forward(x)))
        return self.head.forward(x)


class Scaled(nn.BatchNorm2d):
    def forward(self, input):
        return super().forward(input) * 2 + 1


class Activated(nn.BatchNorm2d):
    def forward(self, input):
        return F.silu(super().forward(input))


def scaled():
    return nn.Sequential(nn.Conv2d(3, 4, 3), Scaled(4), nn.ReLU(), nn.Conv2d(4, 2, 3))


def activated():
    return nn.Sequential(nn.Conv2d(3, 4, 3), Activated(4), nn.Conv2d(4, 2, 3))


@pytest.mark.parametrize("make", [Called, scaled, activated])
@pytest.mark.parametrize("verb", ["fold", "convert"])
def test_the_same_function(make, verb):
    net = zoo.randomize(make(), 3).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made, report = getattr(relucate, verb)(net, *[AFTER][: verb == "convert"], example=SHAPE)
    assert [site.status for site in report.sites] == ["done"]
    x = torch.randn(5, 3, 9, 7)
    torch.testing.assert_close(made(x), net(x))
    assert relucate.audit(made, example=SHAPE).summary == ({} if verb == "fold" else {AFTER: 1})


@pytest.mark.parametrize("make", [Called, scaled, activated])
def test_a_rebuilt_norm_trains_as_the_source_does(make):
    net = make()
    made, report = relucate.rebuild(net, AFTER, example=SHAPE)
    assert [(site.status, site.new) for site in report.sites] == [("done", AFTER)]
    (norm,) = (m for m in made.modules() if isinstance(m, nn.BatchNorm2d))
    made.train()(torch.randn(4, 3, 8, 8))
    assert norm.momentum == pytest.approx(0.1)
    assert norm.num_batches_tracked == 1


def test_other_tensors_than_an_image_are_refused_as_before():
    with pytest.raises(relucate.InputError, match="expected 4D input"):
        relucate.audit(nn.Sequential(nn.Linear(4, 4), Scaled(4)), example=(2, 4))
