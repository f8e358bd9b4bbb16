"""Activations written out in a forward: the norms around them are found, moved and folded away."""

import pytest
import torch
from tests.torch import zoo
from torch import nn

import relucate

WRITTEN = {  # name in the audit: the activation, and how many channels it reads for each of its own
    "silu": (lambda x: x * torch.sigmoid(x), 1),
    "leaky_relu": (lambda x: torch.maximum(x, 0.1 * x), 1),
    "minimum": (lambda x: torch.minimum(x, 0.1 * x), 1),
    "gelu": (lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)), 1),
    "glu": (lambda x: x[:, :6] * torch.sigmoid(x[:, 6:]), 2),
    "maxout": (lambda x: torch.maximum(x[:, :6], x[:, 6:]), 2),
}
BEFORE, AFTER = "linear-norm-act", "linear-act-norm"


class Written(nn.Module):
    def __init__(self, name, order):
        super().__init__()
        self.act, width = WRITTEN[name]
        self.order = order
        self.first = nn.Conv2d(3, 6 * width, 3, padding=1)
        self.norm = nn.BatchNorm2d(6 * width if order == BEFORE else 6)
        self.second = nn.Conv2d(6, 4, 3, stride=2, padding=1)

    def forward(self, x):
        x = self.first(x)
        x = self.act(self.norm(x)) if self.order == BEFORE else self.norm(self.act(x))
        return self.second(x)


@pytest.fixture(params=[(name, order) for name in WRITTEN for order in (BEFORE, AFTER)])
def written(request):
    name, order = request.param
    model = zoo.randomize(Written(name, order), 0).eval()
    with torch.no_grad():
        model.norm.weight[::2] *= -1
    x = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    return name, order, model, x


def test_the_order_around_it_is_found(written):
    name, order, model, x = written
    (site,) = relucate.audit(model, example=x).sites
    assert (site.order, site.act_op) == (order, name)


def test_converting_and_folding_keep_the_function(written):
    _, order, model, x = written
    other = AFTER if order == BEFORE else BEFORE
    moved, _ = relucate.convert(model, other, example=x)
    assert relucate.audit(moved, example=x).summary == {other: 1}
    folded, _ = relucate.fold(model, example=x)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        for found in (moved, folded):
            torch.testing.assert_close(found.eval()(x), model(x), rtol=1e-4, atol=1e-5)


def test_rebuilding_gives_the_norm_the_width_of_its_place(written):
    name, order, model, x = written
    other = AFTER if order == BEFORE else BEFORE
    rebuilt, _ = relucate.rebuild(model, other, example=x)
    (norm,) = (each for each in rebuilt.modules() if isinstance(each, nn.BatchNorm2d))
    assert relucate.audit(rebuilt, example=x).summary == {other: 1}
    assert norm.num_features == (6 * WRITTEN[name][1] if other == BEFORE else 6)
