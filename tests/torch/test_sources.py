"""Activations that are functions, in forwards that can't be traced: root, weights, conditions."""

import copy
import functools
import pickle

import pytest
import torch
import torch.nn.functional as F
from tests.torch import zoo
from torch import nn
from torch.nn.functional import leaky_relu as lrelu

import relucate
from relucate.errors import InputError
from relucate.torch.writing import sources

AFTER = "linear-act-norm"
SHAPE = (2, 4, 8, 8)
pytestmark = pytest.mark.filterwarnings("ignore:relucate .* called an activation as a function")


class Net(nn.Module):
    """A root that needs numbers."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, x):
        if int(x.shape[2]) > 1:
            x = F.relu(self.norm(self.conv(x)))
        x = self.norm2(self.conv2(x)).relu_()
        return self.head(x)


class Weights(Net):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4, 1, 1))

    def reset_parameters(self):
        nn.init.ones_(self.gain)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x))) * self.gain
        x = lrelu(input=self.norm2(self.conv2(x)), negative_slope=0.2)
        return self.head(x) * int(x.shape[2] > 1)


class Base(Net):
    slope, act = 0.3, staticmethod(F.gelu)

    def first(self, x):
        return self.act(self.norm(self.conv(x)))

    def features(self, x, scale=1.0):
        return F.leaky_relu(self.norm2(self.conv2(x)), self.slope, inplace=False) * scale


def decorated(function):
    @functools.wraps(function)
    def call(self, x, *, scale=None):
        return function(self, x, scale=scale or 1.0)

    return call


class Derived(Base):
    """What it calls is in methods of its bases; one of its own is decorated, and calls super()."""

    def first(self, x):
        return super().first(x)

    @decorated
    def features(self, x, scale=2.0):
        other = super().first
        return self.norm2(self.conv2(x)).sigmoid() * scale if callable(other) else x

    def forward(self, x):
        x = F.elu(self.norm(self.conv(x))) if int(x.shape[2]) > 1 else x
        return self.head(self.features(x))


class Modes(Net):
    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        return self.head(x * 2 if self.training else x * int(x.shape[2] > 1))


class Shared(Net):
    def __init__(self):
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.act(self.norm(self.conv(x))) if int(x.shape[2]) > 1 else x
        return self.head(self.act(self.norm2(self.conv2(x))))


def build(kind):
    return zoo.randomize(kind(), 5).eval()


@pytest.mark.parametrize("kind", [Net, Weights, Derived, Modes, Shared])
@pytest.mark.parametrize("verb", ["convert", "rebuild"])
def test_a_root_that_cannot_be_traced(kind, verb):
    net, x = build(kind), torch.randn(3, 4, 9, 7)
    net(torch.randn(SHAPE))
    made, report = getattr(relucate, verb)(net, AFTER, example=SHAPE)
    assert len(report.done) == 2
    orders = [site.order for site in relucate.audit(made, example=SHAPE).sites]
    assert orders == [AFTER, AFTER]
    assert isinstance(made, kind)
    assert type(net) is kind
    if verb == "convert":
        torch.testing.assert_close(made(x), net(x))
        for again in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
            assert type(again) is type(made)
            torch.testing.assert_close(again(x), made(x))
    made.train()(x).sum().backward()


class Looped(Net):
    def forward(self, x):
        for number in range(int(x.shape[1]) // 2):
            conv, norm = ((self.conv, self.norm), (self.conv2, self.norm2))[number]
            x = F.relu(norm(conv(x)))
        return self.head(x)


class Mangled(Net):
    def __scaled(self, x):
        return x * int(x.shape[0] > 0)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(self.__scaled(x))))
        return self.head(F.relu(self.norm2(self.conv2(x))))


@pytest.mark.parametrize("kind", [Looped, Mangled])
def test_what_has_no_place_of_its_own_is_left_alone(kind):
    net, x = build(kind), torch.randn(3, 4, 8, 8)
    try:
        made, report = relucate.convert(net, AFTER, example=SHAPE)
    except relucate.errors.Refused:
        return
    assert not report.done
    torch.testing.assert_close(made(x), net(x))


def test_a_pickle_with_other_code_is_refused(monkeypatch):
    made, _ = relucate.convert(build(Net), AFTER, example=SHAPE)
    data = pickle.dumps(made)
    sources._subclass.cache_clear()
    monkeypatch.setattr(sources, "_methods", lambda kind: ())
    with pytest.raises(InputError, match="source of Net isn't the one"):
        pickle.loads(data)
