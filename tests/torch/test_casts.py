"""Forwards that cast values to another type around their norm."""

import pytest
import torch
from tests.torch import zoo
from torch import nn
from torch.nn import functional as F

import relucate
from relucate.errors import Refused

AFTER, SHAPE = "linear-act-norm", (2, 3, 8, 8)


class Casts(nn.Module):
    """The norm in float64, all else in float32."""

    def __init__(self, act=None):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).double()
        self.act, self.head = act, nn.Conv2d(4, 2, 3)

    def forward(self, x):
        x = self.norm(self.conv(x).double())
        if self.act is None:
            return self.head(F.relu(x.float()))
        return self.head(self.act(x).float())


CASES = [("convert", AFTER), ("rebuild", AFTER), ("rebuild", "norm-linear-act")]


@pytest.mark.parametrize(("verb", "order"), CASES)
def test_a_norm_that_would_read_another_type_stays(verb, order):
    net = zoo.randomize(Casts(), 3).eval()
    with pytest.raises(Refused, match=r"the forward casts the values of '(conv|norm)'"):
        getattr(relucate, verb)(net, order, example=SHAPE)


def test_modules_change_places_between_the_casts():
    net = zoo.randomize(Casts(nn.ReLU()), 3).eval()
    made, report = relucate.convert(net, "after", example=SHAPE)
    assert report.done
    x = torch.randn(SHAPE)
    torch.testing.assert_close(made(x), net(x))


def test_a_cast_elsewhere_is_no_reason_to_stay():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.Sequential(*zoo.block("linear-norm-act", 3, 4), nn.Conv2d(4, 4, 1))
            self.casts = Casts()

        def forward(self, x):
            return self.casts(F.relu(self.blocks(x))[:, :3])

    net = zoo.randomize(Net(), 3).eval()
    made, report = relucate.rebuild(net, AFTER, example=SHAPE)
    assert [site.status for site in report.sites] == ["done", "skipped"]
    assert made(torch.randn(SHAPE)).shape == (2, 2, 4, 4)
