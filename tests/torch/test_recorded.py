"""What no tracer follows is read from a call; code that reads values stays unknown."""

import pytest
import torch
import torch.nn.functional as F
from tests.torch import zoo
from torch import nn

import relucate
from relucate.errors import Refused
from relucate.torch.reading.program import GUARD, MADE, Stopped
from relucate.torch.reading.reader import read, read_with_modules

IMAGE = (2, 3, 8, 8)
pytestmark = [
    pytest.mark.filterwarnings("ignore:relucate .* depends on values of tensors"),
    pytest.mark.filterwarnings("ignore:relucate fold. no effect"),
]


@pytest.fixture(autouse=True)
def called(monkeypatch):
    """Make torch.fx and torch.export stop at once."""

    def stop(*args):
        raise Stopped("by the test")

    monkeypatch.setattr("relucate.torch.reading.reader.trace", stop)
    monkeypatch.setattr("relucate.torch.reading.reader.export", stop)


class Block(nn.Module):
    def __init__(self, channels=4, inputs=3):
        super().__init__()
        self.conv = nn.Conv2d(inputs, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Net(nn.Module):
    """Two blocks, and code between them that reads values."""

    def __init__(self, code, second=None):
        super().__init__()
        self.code, self.first, self.second = code, Block(), second or Block(4, 4)

    def forward(self, x):
        return self.second(self.code(self.first(x)))


def scaled(x):
    return x * max(x.abs().max().item(), 1.0)


def branching(x):
    return -x if x.sum() > 0 else x


def cut(x):
    return x[:, :, : 1 + int((x[0, 0, 0, 0] > 1e9).long())]


def picked(x):
    return torch.stack([row[row > -1e9].reshape(row.shape) for row in x])


def through_numpy(x):
    return torch.from_numpy(x.detach().numpy() * 2)


def from_a_list(x):
    return x + torch.tensor(x.sum().tolist())


def guarded(graph):
    return [node.layer for node in graph.opaque if node.attrs["type"] in (GUARD, MADE)]


CODE = [scaled, branching, cut, picked, through_numpy, from_a_list]


@pytest.mark.parametrize("code", CODE)
def test_the_modules_around_are_read(code):
    net = zoo.randomize(Net(code), 3)
    x = torch.randn(IMAGE)
    reading = read_with_modules(net, x)
    assert reading.way == "call"
    assert guarded(reading.graph)
    found = relucate.audit(net, example=x)
    assert {site.name: site.order for site in found.sites} == {
        "first.bn": "linear-norm-act",
        "second.bn": "linear-norm-act",
    }


@pytest.mark.parametrize("code", CODE)
def test_fold_keeps_to_the_modules(code):
    net = zoo.randomize(Net(code), 3).eval()
    folded, report = relucate.fold(net, example=torch.randn(IMAGE))
    assert len(report.done) == 2
    for seed in range(5):
        x = torch.randn(3, 3, 9, 9, generator=torch.Generator().manual_seed(seed)) - 1
        torch.testing.assert_close(folded(x), net(x), rtol=1e-4, atol=1e-4)


class InTheRoot(nn.Module):
    """Linear layer and norm are neighbours only for inputs like the example."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return F.relu(self.bn(y)) if x[0, 0, 0, 0] < 100 else y


def test_the_order_in_code_that_reads_values_is_unknown():
    net = zoo.randomize(InTheRoot(), 3)
    (site,) = relucate.audit(net, example=IMAGE).sites
    assert site.unknown
    _, report = relucate.fold(net, example=IMAGE)
    assert not report.done


class Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x, normed):
        y = self.conv(x)
        return F.relu(self.bn(y)) if normed else y


class Telling(nn.Module):
    """Calls a module with a number that it read."""

    def __init__(self):
        super().__init__()
        self.step = Step()

    def forward(self, x):
        return self.step(x, bool(x.sum() > -1e9))


def test_a_number_that_was_read_makes_who_gets_it_unknown():
    net = zoo.randomize(Telling(), 3)
    (site,) = relucate.audit(net, example=IMAGE).sites
    assert site.unknown


class Used(nn.Module):
    """A value that is used again only for other inputs than the example."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.choice = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Choice()

    def forward(self, x):
        y = self.conv(x)
        return self.choice(self.bn(y), y)


class Choice(nn.Module):
    def forward(self, one, other):
        return one if one.sum() < 1e9 else other


def test_what_such_code_gets_counts_as_used():
    net = zoo.randomize(Used(), 3)
    _, report = relucate.fold(net, example=IMAGE)
    assert not report.done


class Counting(Net):
    """A forward that changes its own buffers, and keeps what it computed."""

    def __init__(self):
        super().__init__(branching)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.last = super().forward(x)
        return self.last * self.calls


def test_what_a_forward_changes_is_put_back():
    net = zoo.randomize(Counting(), 3)
    names = set(vars(net))
    graph = read(net, IMAGE)
    assert net.calls == 0
    assert set(vars(net)) == names
    assert any("every call changes 'calls'" in text for text in graph.obstacles)


class Constants(nn.Module):
    """Values of weights are no values of the input."""

    def __init__(self):
        super().__init__()
        self.block = Block()
        self.register_buffer("step", torch.tensor(2))

    def forward(self, x):
        x = self.block(x)
        return x[:, :, :: self.step.item()] if int(x.shape[1]) > 1 else x


def test_values_of_constants_may_be_read():
    graph = read(zoo.randomize(Constants(), 3), IMAGE)
    assert not guarded(graph)


class InPlace(nn.Module):
    """A view changes what others read, in code that reads values."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Block(), Block(4, 4)

    def forward(self, x):
        y = self.first(x)
        part = y[:, :2]
        if y.max() > -1e9:
            part.mul_(3)
            y[:, 3] += 1
        return self.second(y)


def test_changes_in_place():
    net = zoo.randomize(InPlace(), 3).eval()
    folded, report = relucate.fold(net, example=IMAGE)
    assert len(report.done) == 2
    x = torch.randn(IMAGE)
    torch.testing.assert_close(folded(x), net(x), rtol=1e-4, atol=1e-4)


def test_nothing_is_left_behind():
    before = nn.Module.__call__
    net = zoo.randomize(Net(branching), 3)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.ones(IMAGE)
    numbers = torch.get_rng_state()
    read(net, x)
    assert nn.Module.__call__ is before
    assert torch.equal(x, torch.ones(IMAGE))
    assert torch.equal(numbers, torch.get_rng_state())
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name])


def test_the_note_says_where_values_are_read():
    net = zoo.randomize(Net(branching), 3)
    with pytest.warns(UserWarning, match=r"test_recorded\.py.*return -x if x\.sum\(\) > 0"):
        relucate.fold(net, example=IMAGE)


class SetsData(Net):
    def forward(self, x):
        y = self.first(x)
        if y.sum() > -1e9:
            y.data = y.data * 2
        return self.second(y)


def test_what_stops_a_call_is_named():
    with pytest.raises(Refused, match="sets the attribute data"):
        read(SetsData(None), IMAGE)
