"""Outputs that do not depend on the input (anchors, a weight penalty) are left as they are."""

import pytest
import torch
from torch import nn

import relucate

WAYS = {
    "a buffer": lambda net, x, y: (y, net.anchors),
    "a penalty": lambda net, x, y: {"penalty": (net.anchors**2).sum(), "y": y},
    "a number": lambda net, x, y: (y, 3, torch.zeros(2)),
    "an input": lambda net, x, y: (x, y),
}


class Net(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.c, self.n, self.d = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 4)
        self.register_buffer("anchors", torch.arange(4.0))
        self.way = WAYS[way]

    def forward(self, x):
        return self.way(self, x, self.d(torch.relu(self.n(self.c(x)))))


def flat(found):
    return list(found.values()) if isinstance(found, dict) else list(found)


@pytest.mark.parametrize("way", WAYS)
def test_the_rest_is_read_and_written(way):
    net = Net(way).eval()
    with torch.no_grad():
        net.n.running_mean.normal_()
        net.n.running_var.uniform_(0.5, 2.0)
    assert relucate.audit(net, example=(3, 4)).summary == {"linear-norm-act": 1}
    x = torch.randn(3, 4)
    for made in (
        relucate.fold(net, example=(3, 4))[0],
        relucate.convert(net, "after", example=(3, 4))[0],
    ):
        for old, new in zip(flat(net(x)), flat(made(x)), strict=True):
            torch.testing.assert_close(torch.as_tensor(new), torch.as_tensor(old))


def test_a_model_of_constants_is_refused():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones(3)

    with pytest.raises(relucate.Refused, match="none of the model's outputs depends"):
        relucate.audit(Constant(), example=(3, 4))
