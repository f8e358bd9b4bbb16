"""Modules that the reader sees into change places whole; norms of several kinds are taken apart."""

import pickle

import pytest
import torch
import torch.nn.functional as F
from tests.torch import zoo
from torch import nn

import relucate
from relucate.errors import Refused
from relucate.torch.reading.reader import read
from relucate.torch.writing.units import condensed, intact, units

AFTER, BEFORE = "linear-act-norm", "linear-norm-act"
SHAPE = (2, 4, 8, 8)
pytestmark = pytest.mark.filterwarnings("ignore:relucate .* called an activation as a function")


class QuickGelu(nn.Module):
    """CLIP's: an activation in three calls."""

    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Standardized(nn.Conv2d):
    """A convolution whose class computes its weight, as BiT and NF-Nets have it."""

    def forward(self, x):
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        deviation = self.weight.std((1, 2, 3), keepdim=True, unbiased=False)
        weight = (self.weight - mean) / (deviation + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class GroupNormAct(nn.GroupNorm):
    def __init__(self, channels):
        super().__init__(2, channels)
        self.act = nn.ReLU()

    def forward(self, x):
        x = F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        return self.act(x)


class LayerNormAct(nn.LayerNorm):
    def forward(self, x):
        return F.silu(F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps))


class Net(nn.Module):
    """A root that needs numbers."""

    def __init__(self, linear, norm, act=None):
        super().__init__()
        self.linear, self.norm, self.act = linear, norm, act or nn.Identity()
        self.head = nn.LazyLinear(3)

    def forward(self, x):
        if int(x.shape[1]) > 1:
            x = self.act(self.norm(self.linear(x)))
        return self.head(x)


class First(Net):
    """The norm is in front, as in a transformer's MLP."""

    def forward(self, x):
        if int(x.shape[1]) > 1:
            x = x[:, :, :1] + self.act(self.linear(self.norm(x)))
        return self.head(x)


def build(net, shape=SHAPE):
    net(torch.randn(shape))
    return zoo.randomize(net, 5).eval()


def check(net, order, shape=SHAPE, verb="rebuild"):
    made, report = getattr(relucate, verb)(net, order, example=shape)
    assert len(report.done) == 1
    orders = [site.order for site in relucate.audit(made, example=shape).sites]
    assert orders == [order]
    assert type(made) is type(net)
    x = torch.randn(3, *shape[1:])
    torch.testing.assert_close(pickle.loads(pickle.dumps(made))(x), made(x))
    if verb == "convert":
        torch.testing.assert_close(made(x), net(x))
    return made


def test_an_activation_in_several_calls():
    net = build(First(nn.Linear(8, 6), nn.LayerNorm(8), QuickGelu()), (2, 4, 8))
    made = check(net, AFTER, (2, 4, 8))
    assert [type(m) for m in (made.norm, made.linear, made.act)] == [
        nn.Linear,
        QuickGelu,
        nn.LayerNorm,
    ]
    assert made.act.normalized_shape == (6,)


def test_a_convolution_that_computes_its_weight():
    net = build(Net(nn.GroupNorm(2, 4), Standardized(4, 6, 3, padding=1), nn.ReLU()))
    made = check(net, AFTER)
    assert isinstance(made.linear, Standardized)
    assert isinstance(made.act, nn.GroupNorm)


@pytest.mark.parametrize(
    ("linear", "norm", "shape"),
    [
        (nn.Conv2d(4, 6, 3, padding=1), GroupNormAct(6), SHAPE),
        (nn.Linear(8, 6), LayerNormAct(6), (2, 4, 8)),
    ],
)
def test_group_and_layer_norms_with_an_activation_inside(linear, norm, shape):
    check(build(Net(linear, norm), shape), AFTER, shape)


def test_what_is_a_unit():
    net = build(Net(Standardized(4, 6, 3, padding=1), nn.BatchNorm2d(6), QuickGelu()))
    graph = read(net, SHAPE)
    found = units(graph)
    assert {path: len(nodes) for path, nodes in found.items()} == {"linear": 1, "act": 3}
    small = condensed(graph, found)
    assert [name for name in small.nodes if name in ("linear", "norm", "act", "head")] == [
        "linear",
        "norm",
        "act",
        "head",
    ]
    assert small.nodes["linear"].op == "conv"
    assert small.nodes["act"].attrs["inside"] != ()
    assert intact(found, graph, graph) == found


class SamePadded(nn.Conv2d):
    """TensorFlow's padding, as timm has it: its one call is two nodes."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


class Sized(nn.Sequential):
    """A root that needs numbers."""

    def forward(self, x):
        return super().forward(x if int(x.shape[1]) > 1 else -x)


@pytest.mark.parametrize("verb", ["fold", "convert", "rebuild"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("root", [nn.Sequential, Sized])
def test_a_padded_convolution_gets_other_weights(verb, bias, root):
    net = root(
        SamePadded(4, 6, 2, bias=bias),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 5, 1),
        nn.Flatten(),
        nn.Linear(320, 3),
    )
    net = zoo.randomize(net, 5).eval()
    made, report = getattr(relucate, verb)(
        net, *(() if verb == "fold" else (AFTER,)), example=SHAPE
    )
    assert len(report.done) == 1
    x = torch.randn(3, *SHAPE[1:])
    if verb == "rebuild":
        assert [site.order for site in relucate.audit(made, example=SHAPE).sites] == [AFTER]
    else:
        torch.testing.assert_close(made(x), net(x))


class NoBias(SamePadded):
    """It has a place for a bias, and doesn't use it."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, None, self.stride)


def test_a_convolution_that_ignores_its_bias_is_refused():
    rest = nn.Conv2d(6, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(180, 3)
    net = Sized(NoBias(4, 6, 2, bias=False), nn.BatchNorm2d(6), nn.ReLU(), *rest)
    net = zoo.randomize(net, 5).eval()
    with pytest.raises(Refused, match="other weights than planned"):
        relucate.fold(net, example=SHAPE)


def test_only_the_norm_next_to_what_cannot_be_written_stays():
    class Function(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 4, 1, 1))

        def forward(self, x):
            return F.conv2d(x, self.weight)

    rest = nn.Conv2d(6, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(180, 3)
    net = Sized(Function(), nn.BatchNorm2d(6), nn.ReLU(), *rest)
    net = zoo.randomize(net, 5).eval()
    made, report = relucate.fold(net, example=SHAPE)
    assert [site.name for site in report.done] == ["4"]
    x = torch.randn(SHAPE)
    torch.testing.assert_close(made(x), net(x))


class Twice(nn.Module):
    """Two inputs, or two outputs, or two calls: no unit."""

    def forward(self, x, y):
        return x * torch.sigmoid(y)


class TwoInputs(Net):
    def forward(self, x):
        y = self.norm(self.linear(x)) if int(x.shape[1]) > 1 else x
        return self.head(self.act(y, y + 1))


def test_a_module_with_two_inputs_is_no_unit():
    net = build(TwoInputs(nn.Linear(8, 6), nn.LayerNorm(6), Twice()), (2, 4, 8))
    assert not units(read(net, (2, 4, 8)))
