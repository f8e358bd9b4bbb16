"""Norms over tokens whose batch and time axes the model merges, and parts again."""

import numpy as np
import pytest
import torch
from tests.torch import zoo
from torch import nn

import relucate
from relucate.torch.modules import TokenBatchNorm
from relucate.torch.reading.reader import read

BEFORE, AFTER = "linear-norm-act", "linear-act-norm"
WAYS = {
    "reshape_as": lambda x, norm: norm(x.flatten(0, 1)).reshape_as(x),
    "view": lambda x, norm: norm(x.view(-1, x.shape[-1])).view(x.shape),
    "sizes": lambda x, norm: norm(x.reshape(x.shape[0] * x.shape[1], -1)).view(*x.shape[:2], -1),
    "unflatten": lambda x, norm: norm(x.flatten(0, -2)).unflatten(0, x.shape[:-1]),
}
shapes = pytest.mark.parametrize("shape", [(2, 5, 8), (2, 8, 8)])  # the second: time == channels


class Tokens(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.way, self.linear, self.norm = way, nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8)

    def forward(self, x):
        return self.way(self.linear(x), self.norm)


class Untraceable(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) if x.shape[0] < 1000 else x


def network(way, *, traced=True):
    layers = [Tokens(way), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)]
    net = zoo.randomize(nn.Sequential(*layers), 3).eval()
    return net if traced else Untraceable(net).eval()


@shapes
@pytest.mark.parametrize("way", WAYS)
def test_merged_tokens_read_as_a_norm_over_the_last_axis(way, shape):
    graph = read(network(WAYS[way]), shape)
    assert [node.op for node in graph] == "input dense batch_norm relu dense relu dense".split()
    assert graph.nodes["0.norm"].attrs["axis"] == 2
    assert graph.nodes["0.norm"].shape == (None, *shape[1:])


@shapes
@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_verbs_on_merged_tokens(way, traced, shape):
    net, x = network(WAYS[way], traced=traced), torch.randn(3, 7, 8)
    folded, report = relucate.fold(net, example=shape)
    assert len(report.done) == 1
    torch.testing.assert_close(folded(x), net(x))
    data = np.random.default_rng(0).normal(size=(6, *shape[1:])).astype("float32")
    after, report = relucate.convert(net, AFTER, example=shape, data=data)
    assert len(report.done) == 1
    torch.testing.assert_close(after(x), net(x))
    (norm,) = (m for m in after.modules() if isinstance(m, nn.BatchNorm1d))
    seen = []
    handle = norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    after(torch.from_numpy(data))
    handle.remove()
    torch.testing.assert_close(seen[0].flatten(0, -2).mean(0), norm.running_mean)
    made, report = relucate.rebuild(net, AFTER, example=shape)
    assert [site.order for site in relucate.audit(made, example=shape).sites] == [AFTER]
    back, _ = relucate.convert(after, BEFORE, example=shape)
    torch.testing.assert_close(back(x), net(x))


class Merged(nn.Module):
    """All of a block on merged tokens; the activation is a function."""

    def __init__(self, last=None):
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8)
        self.last = last

    def forward(self, x):
        y = self.two(torch.relu(self.norm(self.one(x.flatten(0, 1)))))
        return y.reshape(x.shape) if self.last is None else self.last(y)


@shapes
def test_a_whole_block_on_merged_tokens(shape):
    net, x = zoo.randomize(Merged(), 4).eval(), torch.randn(3, 7, 8)
    for made, report in (
        relucate.fold(net, example=shape),
        relucate.convert(net, AFTER, example=shape),
    ):
        assert report.done
        torch.testing.assert_close(made(x), net(x))


def test_tokens_that_stay_merged_are_a_node_that_rearranges():
    net = zoo.randomize(Merged(lambda y: y), 4).eval()
    graph = read(net, (2, 5, 8))
    assert graph.nodes["/flatten"].attrs["rearranges"]
    assert graph.nodes["norm"].attrs["axis"] == 1
    made, _ = relucate.fold(net, example=(2, 5, 8))
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(made(x), net(x))


class Turned(nn.Module):
    def __init__(self, turn):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)
        self.turn = turn

    def forward(self, x):
        return self.head(self.norm(self.turn(self.conv(x))).relu())


@pytest.mark.parametrize(
    "turn",
    [torch.flipud, lambda x: x.roll(1, 2), lambda x: torch.roll(x, (1, 2), (2, 3))],
)
def test_what_moves_values_along_an_axis_is_a_node_that_rearranges(turn):
    model, shape = zoo.randomize(Turned(turn), 4), (2, 3, 6, 6)
    (site,) = relucate.audit(model, example=shape).sites
    assert site.order == "linear-norm-act"
    _, report = relucate.rebuild(model, AFTER, example=shape)
    assert [site.new for site in report.sites] == [AFTER]


class Half(nn.Module):
    """The activation, a function, reads merged tokens; the norm is behind them."""

    def __init__(self):
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8)

    def forward(self, x):
        y = torch.relu(self.norm(self.one(x).flatten(0, 1)).reshape(x.shape))
        return self.two(y)


@pytest.mark.parametrize("size", [(2, 5, 8), (3, 8, 8)])
def test_what_reads_the_other_form_gets_it(size):
    net = zoo.randomize(Half(), 4).eval()
    made, _ = relucate.convert(net, AFTER, example=(2, 5, 8))
    assert relucate.audit(made, example=(2, 5, 8)).summary == {AFTER: 1}
    x = torch.randn(size)
    torch.testing.assert_close(made(x), net(x), rtol=1e-5, atol=1e-5)


class Index(nn.Module):
    """Leading axes are merged in two steps: the linear layer reads them after the first."""

    def __init__(self, time):
        super().__init__()
        self.time = time
        self.one, self.norm, self.two = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8)

    def forward(self, x):
        x = torch.relu(self.norm(self.one(x[:, 0]).reshape(-1, 8)))
        return self.two(x.reshape(-1, self.time, 8).mean(1))


class Squeeze(Index):
    def forward(self, x):
        x = torch.relu(self.norm(self.one(x.squeeze(1)).reshape(-1, 8)))
        return self.two(x.reshape(-1, self.time, 8).mean(1))


class Flatten(Index):
    def forward(self, x):
        x = torch.relu(self.norm(self.one(x.flatten(0, 1)).reshape(-1, 8)))
        return self.two(x.reshape(-1, self.time, 8).mean(1))


@pytest.mark.filterwarnings("ignore:relucate")
@pytest.mark.parametrize("kind", [Index, Squeeze, Flatten])
@pytest.mark.parametrize("time", [5, 8])
def test_axes_merged_in_two_steps(kind, time):
    shape, x = (2, 1, time, 8), torch.randn(3, 1, time, 8)
    net = zoo.randomize(kind(time), 4).eval()
    made, report = relucate.convert(net, AFTER, example=shape)
    assert report.done
    torch.testing.assert_close(made(x), net(x), rtol=1e-5, atol=1e-5)
    made = relucate.rebuild(net, AFTER, example=shape)[0].eval()
    assert relucate.audit(made, example=shape).summary == {AFTER: 1}
    y = made.norm(torch.relu(made.one(x[:, 0])).reshape(-1, 8))
    torch.testing.assert_close(made(x), made.two(y.reshape(-1, time, 8).mean(1)))


def test_a_permuted_norm_is_moved_to_its_other_axis():  # time == channels
    net = network(lambda x, norm: norm(x.transpose(1, 2)).transpose(1, 2))
    made, _ = relucate.rebuild(net, AFTER, example=(2, 8, 8))
    (norm,) = [node for node in read(made, (2, 8, 8)) if node.kind == "norm"]
    assert norm.attrs["axis"] == 2
    assert relucate.audit(made, example=(2, 8, 8)).summary == {AFTER: 1}


def test_a_token_batch_norm_is_a_batch_norm_over_the_last_axis():
    norm, plain = TokenBatchNorm(4), nn.BatchNorm1d(4)
    x = torch.randn(6, 5, 3, 4)
    torch.testing.assert_close(norm(x), plain(x.reshape(-1, 4)).reshape(x.shape))
    torch.testing.assert_close(norm.running_var, plain.running_var)
    assert type(TokenBatchNorm.like(plain)) is TokenBatchNorm
    own = type("Own", (nn.BatchNorm1d,), {})(4)
    assert TokenBatchNorm.like(own) is own
