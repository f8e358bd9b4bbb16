"""Forwards that change a module, or the model's own tensors, for one call or for all later ones."""

import pytest
import torch
from tests.torch import zoo
from torch import nn
from torch.nn import functional as F

import relucate
from relucate.errors import Refused

AFTER, SHAPE = "linear-act-norm", (2, 3, 8, 8)


class Net(nn.Module):
    def __init__(self, traceable=True):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3)
        self.traceable = traceable
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        if not self.traceable and int(x.shape[1]) < 1:
            return x
        return self.head(F.relu(self.block(x)))

    def block(self, x):
        return self.norm(self.conv(x))


class Training(Net):
    def block(self, x):
        self.norm.train()
        x = self.norm(self.conv(x))
        self.norm.eval()
        return x


class Epsilon(Net):
    def block(self, x):
        kept, self.norm.eps = self.norm.eps, 0.5
        x = self.norm(self.conv(x))
        self.norm.eps = kept
        return x


class Stride(Net):
    def block(self, x):
        self.conv.stride = (2, 2)
        x = self.norm(self.conv(x))
        self.conv.stride = (1, 1)
        return x


class Doubled(Net):
    def block(self, x):
        twice = {"weight": self.conv.weight * 2}
        return self.norm(torch.func.functional_call(self.conv, twice, (x,)))


class Clamped(Net):
    def block(self, x):
        with torch.no_grad():
            self.conv.weight.clamp_(-0.1, 0.1)
        return self.norm(self.conv(x))


class Data(Net):
    def block(self, x):
        self.conv.weight.data = self.conv.weight.data.clamp(-0.1, 0.1)
        return self.norm(self.conv(x))


def same(one, other):
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(one(x), other(x))


def attempt(verb, net):
    try:
        made, _ = getattr(relucate, verb)(net, *([AFTER] * (verb == "convert")), example=SHAPE)
    except Refused as refused:
        return None, str(refused)
    return made, ""


@pytest.mark.parametrize("traceable", [True, False])
@pytest.mark.parametrize("kind", [Training, Epsilon, Stride, Doubled, Clamped])
@pytest.mark.parametrize("verb", ["fold", "convert"])
@pytest.mark.filterwarnings("ignore:relucate")
def test_what_is_changed_for_a_call_is_read_as_it_is_then(kind, traceable, verb):
    net = zoo.randomize(kind(traceable), 3).eval()
    made, why = attempt(verb, net)
    if made is None:
        assert "modules" in why
        assert "NOT the same" not in why
    else:
        same(made, net)


@pytest.mark.parametrize("traceable", [True, False])
def test_an_audit_knows_the_mode_of_a_call(traceable):
    found = relucate.audit(Training(traceable), example=SHAPE)
    assert "N403" in {finding.code for finding in found.findings}


@pytest.mark.parametrize("traceable", [True, False])
def test_a_new_value_of_a_weight_cannot_be_read(traceable):
    with pytest.raises(Refused, match="sets the attribute data of a tensor"):
        relucate.audit(Data(traceable), example=SHAPE)


class Growing(Net):
    """Its outputs depend on how often it was called."""

    def block(self, x):
        x = self.norm(self.conv(x)) * self.scale
        self.scale.add_(1)
        return x


def test_a_module_that_would_not_change_its_tensors_is_refused():
    net = zoo.randomize(Growing(), 3).eval()
    with pytest.raises(Refused, match="every call of this model changes 'scale'"):
        relucate.convert(net, AFTER, example=SHAPE)
    folded, report = relucate.fold(net, example=SHAPE)
    assert report.done
    for _ in range(2):
        same(folded, net)


class Alternating(Net):
    """Another norm at every call."""

    def __init__(self):
        super().__init__()
        self.norms, self.step = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3)), 0

    def block(self, x):
        norm, self.step = self.norms[self.step % 3], self.step + 1
        return norm(self.conv(x))


class Counting(Net):
    """Counts its calls, and prepares something in the first one."""

    def __init__(self):
        super().__init__()
        self.calls, self.ready = 0, False

    def block(self, x):
        self.calls += 1
        if not self.ready:
            self.ready, x = True, x * 1.0
        return super().block(x)


@pytest.mark.parametrize("verb", [relucate.audit, relucate.fold])
def test_a_forward_that_goes_by_its_calls_is_refused(verb):
    with pytest.raises(Refused, match="depends on 'step', which every call changes"):
        verb(Alternating(), example=SHAPE)


def test_a_forward_may_count_its_calls():
    net = zoo.randomize(Counting(), 3).eval()
    folded, report = relucate.fold(net, example=SHAPE)
    assert report.done
    assert (net.calls, net.ready) == (0, False)
    same(folded, net)
