"""A norm between two permutations changes places with an activation that isn't between them."""

import pickle

import pytest
import torch
from tests.torch import zoo
from torch import nn
from torch.nn import functional as F

import relucate
from relucate.errors import Refused

AFTER, BEFORE, SHAPE = "linear-act-norm", "linear-norm-act", (2, 3, 12)


class Speech(nn.Module):
    """Wav2Vec2's feature extractor: channels last for the norm alone."""

    def __init__(self, norm, act, traceable):
        super().__init__()
        self.conv, self.norm, self.act, self.traceable = nn.Conv1d(3, 6, 3), norm, act, traceable
        self.head = nn.Conv1d(6, 2, 3)

    def forward(self, x):
        if not self.traceable and int(x.shape[1]) < 1:
            return x
        x = self.norm(self.conv(x).transpose(-2, -1)).transpose(-2, -1)
        return self.head(self.act(x)).mean(-1)


class Behind(Speech):
    """The other way round: the norm behind the activation."""

    def forward(self, x):
        if not self.traceable and int(x.shape[1]) < 1:
            return x
        x = self.norm(self.act(self.conv(x)).transpose(-2, -1)).transpose(-2, -1)
        return self.head(x).mean(-1)


class Tokens(nn.Module):
    """A batch norm over tokens, which PyTorch wants channels first."""

    def __init__(self, traceable):
        super().__init__()
        self.linear, self.norm, self.act = nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU()
        self.head, self.traceable = nn.Linear(6, 3), traceable

    def forward(self, x):
        if not self.traceable and int(x.shape[1]) < 1:
            return x
        return self.head(self.act(self.norm(self.linear(x).transpose(1, 2)).transpose(1, 2)))


def orders(net, shape=SHAPE):
    return [site.order for site in relucate.audit(net, example=shape).sites]


@pytest.mark.parametrize("traceable", [True, False])
@pytest.mark.parametrize("norm", [nn.LayerNorm(6), nn.RMSNorm(6), nn.LayerNorm(6, bias=False)])
def test_rebuild_turns_the_norm(norm, traceable):
    net = zoo.randomize(Speech(norm, nn.GELU(), traceable), 3)
    made, report = relucate.rebuild(net, AFTER, example=SHAPE)
    assert len(report.done) == 1
    assert orders(made) == [AFTER]
    x = torch.randn(4, 3, 20)
    y = F.gelu(made.conv(x)).transpose(1, 2)
    fresh = type(norm)(6)  # as it starts
    expected = made.head(fresh(y).transpose(1, 2)).mean(-1)
    torch.testing.assert_close(made(x), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(made))(x), expected)


@pytest.mark.parametrize("traceable", [True, False])
def test_and_back(traceable):
    net = zoo.randomize(Behind(nn.LayerNorm(6), nn.GELU(), traceable), 3)
    made, report = relucate.rebuild(net, BEFORE, example=SHAPE)
    assert len(report.done) == 1
    assert orders(made) == [BEFORE]
    x = torch.randn(4, 3, 20)
    y = nn.LayerNorm(6)(made.conv(x).transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(made(x), made.head(F.gelu(y)).mean(-1))


def test_an_activation_with_weights_along_an_axis_stays():
    net = zoo.randomize(Speech(nn.LayerNorm(6), nn.PReLU(6), False), 3)
    with pytest.raises(Refused):
        relucate.rebuild(net, AFTER, example=SHAPE)


class Own(nn.LayerNorm):
    """A class that we can't turn."""


class Called(Speech):
    """The norm is a function between two permutations, as in timm's LayerNormAct2d."""

    def forward(self, x):
        x = self.conv(x).transpose(-2, -1)
        x = F.layer_norm(x, (6,), self.norm.weight, self.norm.bias)
        return self.head(self.act(x.transpose(-2, -1))).mean(-1)


class CalledBehind(Speech):
    def forward(self, x):
        x = self.act(self.conv(x)).transpose(-2, -1)
        x = F.layer_norm(x, (6,), self.norm.weight, self.norm.bias)
        return self.head(x.transpose(-2, -1)).mean(-1)


@pytest.mark.parametrize(
    ("net", "order"),
    [
        (Speech(Own(6), nn.GELU(), True), AFTER),
        (Behind(Own(6), nn.GELU(), True), BEFORE),
        (Called(nn.LayerNorm(6), nn.GELU(), True), AFTER),
        (CalledBehind(nn.LayerNorm(6), nn.GELU(), True), BEFORE),
    ],
)
def test_a_norm_that_has_no_other_axis_stays_between_the_permutations(net, order):
    made, report = relucate.rebuild(zoo.randomize(net, 3), order, example=SHAPE)
    assert len(report.done) == 1
    assert orders(made) == [order]
    x = torch.randn(4, 3, 20)
    y, act, norm = made.conv(x), F.gelu, nn.LayerNorm(6)
    y = act(y) if order == AFTER else y
    y = norm(y.transpose(1, 2)).transpose(1, 2)
    y = act(y) if order == BEFORE else y
    torch.testing.assert_close(made(x), made.head(y).mean(-1))


def test_where_it_cannot_stay_it_is_refused_with_the_reason():
    net = zoo.randomize(Speech(Own(6), nn.PReLU(6), True), 3)
    with pytest.raises(Refused, match="can't go behind the permutation: its axis is fixed"):
        relucate.rebuild(net, AFTER, example=SHAPE)


@pytest.mark.parametrize("traceable", [True, False])
@pytest.mark.parametrize("verb", ["rebuild", "convert"])
def test_batch_norms_over_tokens(verb, traceable):
    net = zoo.randomize(Tokens(traceable), 3).eval()
    made, report = getattr(relucate, verb)(net, AFTER, example=(2, 7, 5))
    assert len(report.done) == 1
    assert orders(made, (2, 7, 5)) == [AFTER]
    if verb == "convert":
        x = torch.randn(3, 9, 5)
        torch.testing.assert_close(made(x), net(x))
    made.train()(torch.randn(4, 7, 5))


def test_the_source_keeps_its_norm():
    net = zoo.randomize(Speech(nn.LayerNorm(6), nn.GELU(), False), 3)
    relucate.rebuild(net, AFTER, example=SHAPE)
    assert type(net.norm) is nn.LayerNorm
    assert orders(net) == [BEFORE]


class Shuffled(nn.Module):
    """ShuffleNet's order of channels, written with a transposition of five axes."""

    def __init__(self, size):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, size, 3), nn.BatchNorm2d(size), nn.ReLU()
        self.head = nn.Conv2d(size, 2, 3)

    def forward(self, x):
        x = self.norm(self.conv(x))
        n, c, h, w = x.shape
        x = x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(self.act(x))


def with_a_module(size):
    conv, norm, head = nn.Conv2d(3, size, 3), nn.BatchNorm2d(size), nn.Conv2d(size, 2, 3)
    return nn.Sequential(conv, norm, nn.ChannelShuffle(2), nn.ReLU(), head)


@pytest.mark.parametrize("size", [4, 6])  # as many channels as rows, or not
@pytest.mark.parametrize("net", [Shuffled, with_a_module])
def test_a_norm_crosses_a_channel_shuffle(net, size):
    shape = (2, 3, 8, 8)
    net = zoo.randomize(net(size), 3).eval()
    made, report = relucate.convert(net, AFTER, example=shape)
    assert [site.status for site in report.sites] == ["done"]
    x = torch.randn(shape)
    torch.testing.assert_close(made(x), net(x))
    rebuilt, report = relucate.rebuild(net, AFTER, example=shape)
    assert [site.status for site in report.sites] == ["done"]
    assert orders(rebuilt, shape) == [AFTER]


class Looked(nn.Module):
    """Features that are looked up by numbers of fewer axes, and a permutation elsewhere."""

    def __init__(self):
        super().__init__()
        self.rows, self.conv, self.norm = nn.Embedding(9, 6), nn.Conv1d(6, 6, 3), nn.BatchNorm1d(6)
        self.act, self.head = nn.GELU(), nn.Conv1d(6, 2, 3)

    def forward(self, x):
        places = torch.cumsum(x.ne(0).long(), 1) * 2
        x = (self.rows(x) + self.rows(places % 9)).transpose(1, 2)
        return self.head(self.act(self.norm(self.conv(x))).transpose(1, 2).transpose(1, 2))


@pytest.mark.parametrize("verb", [relucate.convert, relucate.rebuild])
def test_axes_are_not_followed_to_where_they_are_looked_up(verb):
    net = zoo.randomize(Looked(), 3).eval()
    tokens = torch.randint(0, 9, (2, 12))
    made, report = verb(net, AFTER, example=tokens)
    assert [site.status for site in report.sites] == ["done"]
    if verb is relucate.convert:
        torch.testing.assert_close(made(tokens), net(tokens))
