"""Norms whose layers can't be given other tensors stay, and the others move."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from tests.torch import zoo
from torch import nn

import relucate
from relucate.errors import Refused

TAIL = "linear-norm-act"


def tail(inputs):
    return nn.Linear(inputs, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)


class Whole(nn.Module):
    """Norms inside a module of PyTorch's that is called as a whole."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.tail = nn.Sequential(*tail(4))

    def forward(self, x):
        return self.tail(self.encoder(x)[:, 0])


class Computed(nn.Module):
    """In-place activated batch norms take the size of their weight."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.tail = nn.Sequential(*tail(4))

    def forward(self, x):
        held = self.norm
        scale = held.weight.abs() + held.eps
        state = (held.running_mean, held.running_var, scale, held.bias)
        x = F.batch_norm(self.linear(x), *state, self.training, 0.1, held.eps)
        return self.tail(torch.relu(x))


class Scaled(nn.Module):
    """A layer with an equalised learning rate: its kernel is computed, in a function."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4)
        self.tail = nn.Sequential(*tail(4))

    def forward(self, x):
        x = F.linear(x, self.linear.weight * 0.5)
        return self.tail(torch.relu(self.norm(x)))


CASES = {"whole": (Whole, (2, 3, 4)), "computed": (Computed, (3, 4)), "scaled": (Scaled, (3, 4))}
WHY = {
    "whole": "can't take other parameters",
    "computed": "'/batch_norm/gamma' is computed by the model",
    "scaled": "the kernel of '/dense' is computed by the model",
}


@pytest.mark.parametrize("name", list(CASES))
def test_a_norm_that_cannot_be_written_stays_and_the_others_move(name):
    kind, shape = CASES[name]
    model = zoo.randomize(kind(), 1).eval()
    made, report = relucate.rebuild(model, "after", example=shape)
    assert [site.name for site in report.done] == ["tail.1"]
    assert any(WHY[name] in site.reason for site in report.skipped)
    new, old = (relucate.audit(one, example=shape).sites for one in (made, model))
    wanted = ["linear-act-norm" if site.name == "tail.1" else site.order for site in old]
    assert [site.order for site in new] == wanted


def test_a_value_that_the_model_computes_is_not_set():
    model = zoo.randomize(Computed(), 1).eval()
    made, report = relucate.convert(model, "after", example=(3, 4))
    assert [site.name for site in report.done] == ["tail.1"]
    x = torch.randn(5, 4)
    torch.testing.assert_close(made(x), model(x), rtol=0, atol=1e-5)


def test_where_nothing_else_is_left_the_reason_is_the_refusal():
    class Alone(Computed):
        def __init__(self):
            super().__init__()
            self.tail = nn.Linear(4, 2)

    with pytest.raises(Refused, match="nothing can be done: '/batch_norm/gamma' is computed"):
        relucate.rebuild(Alone().eval(), "after", example=(3, 4))


def test_a_layer_in_its_order_already_keeps_a_bias_that_cannot_go():
    class Biased(Scaled):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            x = F.linear(x, self.linear.weight * 0.5, self.linear.bias)
            return self.tail(torch.relu(self.norm(x)))

    made, report = relucate.rebuild(Biased().eval(), TAIL, example=(3, 4))
    assert [site.name for site in report.done] == ["tail.1"]  # its redundant bias went
    assert report.skipped[0].reason == f"is {TAIL} already"
    assert made.linear.bias is not None


def test_stubs_of_quantization_do_nothing_before_they_are_prepared():
    stubs = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
    model = zoo.randomize(nn.Sequential(stubs[0], *tail(4), stubs[1]), 1).eval()
    for order in ("after", TAIL):
        made, report = relucate.rebuild(model, order, example=(3, 4))
        assert report.done
        assert [site.order for site in relucate.audit(made, example=(3, 4)).sites] == [
            TAIL if order == TAIL else "linear-act-norm"
        ]


class Direct(nn.Module):
    """Calls no module: where it can't be traced, its functions keep a redundant bias."""

    def __init__(self, traceable):
        super().__init__()
        self.traceable = traceable
        self.linear, self.norm, self.act, self.head = tail(4)

    def forward(self, x):
        if self.traceable or int(x.shape[1]):
            x = self.norm.forward(self.linear.forward(x))
        return self.head(self.act(x))


def test_a_bias_that_cannot_go_where_nothing_moves():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        made, report = relucate.rebuild(Direct(False).eval(), TAIL, example=(3, 4))
    assert report.skipped[0].reason == f"is {TAIL} already"
    assert made.linear.bias is not None
    made, report = relucate.rebuild(Direct(True).eval(), TAIL, example=(3, 4))
    assert len(report.done) == 1
    assert made.linear.bias is None


class Positive(nn.Module):
    def forward(self, value):
        return nn.functional.softplus(value)


def test_a_bias_that_is_computed_can_not_be_left_out():
    conv = nn.Conv2d(3, 4, 3)
    nn.utils.parametrize.register_parametrization(conv, "bias", Positive())
    model = zoo.randomize(nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)), 5)
    with pytest.raises(Refused, match="'0' computes its bias by a parametrization"):
        relucate.rebuild(model, "before", example=(2, 3, 6, 6))


@pytest.mark.parametrize("first", [True, False])
def test_norms_that_a_layer_of_pytorch_reads_stay(first):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=first)
    model = nn.Sequential(nn.Linear(5, 8), layer, nn.Linear(8, 4), nn.LayerNorm(4), nn.ReLU())
    made, report = relucate.rebuild(model, "none", example=(2, 7, 5))
    assert [site.status for site in report.sites] == ["skipped", "skipped", "done"]
    assert "a part of a call" in report.skipped[0].reason
    assert isinstance(made.get_submodule("1.norm1"), nn.LayerNorm)
