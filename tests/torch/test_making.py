"""Calls that become modules: of every kind, with the parameters that the model had."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tests.torch import zoo
from torch import nn

import relucate
from relucate.errors import Refused
from relucate.torch import read
from relucate.torch.writing.making import make_module

SHAPE = (2, 3, 8, 8)
CONVS = {
    "grouped": (nn.Conv2d, {"stride": 2, "padding": (1, 2), "groups": 2}),
    "dilated": (nn.Conv2d, {"dilation": 2, "padding": "same"}),
    "depthwise": (nn.Conv2d, {"padding": 1, "groups": 4}),
    "transposed": (nn.ConvTranspose2d, {"stride": 2, "padding": 1, "output_padding": 1}),
    "transposed and grouped": (nn.ConvTranspose2d, {"groups": 2, "dilation": 2, "bias": False}),
}


@pytest.mark.parametrize("name", list(CONVS))
def test_a_module_computes_what_its_node_does(name):
    kind, options = CONVS[name]
    conv = zoo.randomize(kind(4, 8, 3, **options), 1)
    graph = read(nn.Sequential(conv), (1, 4, 7, 6))
    made = make_module(graph.nodes["0"], graph, conv.weight)
    assert type(made) is kind
    x = torch.randn(2, 4, 7, 6)
    with torch.no_grad():
        torch.testing.assert_close(made(x), conv(x))


@pytest.mark.parametrize("strategy", ["branch", "shift"])
@pytest.mark.parametrize("name", ["transposed", "transposed and grouped", "depthwise"])
def test_a_border_of_any_convolution(name, strategy):
    kind, options = CONVS[name]
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), kind(4, 8, 3, **options)]
    model = zoo.randomize(nn.Sequential(*layers), 2).eval()
    _, report = relucate.fold(model, strategy=strategy, example=SHAPE)
    assert report.done
    assert report.certificate.passed


class Product(nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.first, self.norm, self.linear = nn.Linear(6, 5), nn.BatchNorm1d(5), linear
        self.weight = nn.Parameter(torch.randn(4, 5) if linear else torch.randn(5, 4))

    def forward(self, x):
        x = self.norm(torch.relu(self.first(x)))
        return F.linear(x, self.weight) if self.linear else x @ self.weight


@pytest.mark.parametrize("linear", [True, False])
def test_a_product_gets_a_bias(linear):
    model = zoo.randomize(Product(linear), 3)
    made, report = relucate.fold(model, example=(2, 6))
    assert report.done
    assert report.certificate.passed
    assert sum(isinstance(m, nn.Linear) for m in made.modules()) == 2
    assert sum(p.requires_grad for p in made.parameters()) == 4


class Twice(nn.Module):
    """Two calls of one norm's function."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)])
        self.gamma, self.beta = nn.Parameter(torch.rand(4)), nn.Parameter(torch.randn(4))
        self.register_buffer("mean", torch.randn(4))
        self.register_buffer("variance", torch.rand(4) + 0.5)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        for conv in self.convs:
            x = F.batch_norm(
                conv(x), self.mean, self.variance, self.gamma, self.beta, self.training
            )
            x = torch.relu(x)
        return self.head(x)


@pytest.mark.parametrize("verb", ["convert", "rebuild"])
def test_what_two_calls_share_stays_shared(verb):
    made, report = getattr(relucate, verb)(Twice().eval(), "after", example=SHAPE)
    assert report.done
    norms = [m for m in made.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 2
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert getattr(norms[0], name) is getattr(norms[1], name), name


def test_what_has_no_module_is_refused():
    graph = read(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU()), (1, 4))
    for name, change in {
        "2": {},
        "1": {"attrs": {**graph.nodes["1"].attrs, "forced": True}},
    }.items():
        with pytest.raises(Refused, match=f"'{name}' .* can't be written as a module of its own"):
            make_module(replace(graph.nodes[name], **change), graph, None)
    computed = replace(graph.nodes["0"], attrs={"reparametrized": "computed"})
    with pytest.raises(Refused, match="kernel of '0' is computed by the model"):
        make_module(computed, graph, None)
