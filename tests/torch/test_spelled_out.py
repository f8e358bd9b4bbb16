"""Activations written out in a forward: the norms around them are found, moved and folded away."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.torch import zoo
from torch import nn

import relucate
from relucate.graph import evaluate
from relucate.graph.functions import apply
from relucate.torch.reading.reader import read

WRITTEN = {  # name in the audit: the activation, and how many channels it reads for each of its own
    "silu": (lambda x: x * torch.sigmoid(x), 1),
    "leaky_relu": (lambda x: torch.maximum(x, 0.1 * x), 1),
    "minimum": (lambda x: torch.minimum(x, 0.1 * x), 1),
    "gelu": (lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)), 1),
    "glu": (lambda x: x[:, :6] * torch.sigmoid(x[:, 6:]), 2),
    "maxout": (lambda x: torch.maximum(x[:, :6], x[:, 6:]), 2),
    "elementwise": (lambda x: x + torch.sin(x) ** 2, 1),
    "sin": (torch.sin, 1),
    "mish": (lambda x: x * torch.tanh(F.softplus(x)), 1),
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


FORMS = {  # another way to write an activation: its name
    "where": (lambda x: torch.where(x > 0, x, 0), "relu"),
    "where other way round": (lambda x: torch.where(x < 0, torch.zeros_like(x), x), "relu"),
    "where, a slope": (lambda x: torch.where(x > 0, x, 0.1 * x), "leaky_relu"),
    "where, expm1": (lambda x: torch.where(x > 0, x, 0.7 * torch.expm1(x)), "elu"),
    "larger of zeros": (lambda x: torch.maximum(x, torch.zeros_like(x)), "relu"),
    "larger of a tensor": (lambda x: torch.maximum(x, torch.tensor(0.0)), "relu"),
    "clamped": (lambda x: torch.clamp(x, torch.tensor(0.0), torch.tensor(6.0)), "relu6"),
    "half of both": (lambda x: (x.abs() + x) / 2, "relu"),
    "times a truth": (lambda x: x * (x > 0), "relu"),
    "times a number": (lambda x: x * (x > 0).to(x.dtype), "relu"),
    "two truths": (lambda x: x * ~((x < 0) | (x < -1)), "relu"),
    "filled": (lambda x: x.masked_fill(x < 0, 0.0), "relu"),
    "filled in place": (lambda x: x.masked_fill_(x < 0, 0.0), "relu"),
    "relu squared": (lambda x: F.relu(x) ** 2, "squared_relu"),
    "relu by itself": (lambda x: (lambda r: r * r)(F.relu(x)), "squared_relu"),
    "quick gelu": (lambda x: x * torch.sigmoid(1.702 * x), "quick_gelu"),
    "gelu by tanh": (
        lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x.pow(3)))),
        "gelu",
    ),
    "softplus": (lambda x: torch.log1p(torch.exp(x)), "softplus"),
    "softsign": (lambda x: x / (1 + x.abs()), "softsign"),
    "sigmoid": (lambda x: 1 / (1 + torch.exp(-x)), "sigmoid"),
    "hard swish": (lambda x: x * F.relu6(x + 3) / 6, "hard_silu"),
    "hard swish's wrong cousin": (lambda x: x * F.relu6(x + 2) / 6, "x*relu6"),
    "pieces": (lambda x: x.unflatten(1, (2, 3)).amax(1), "maxout"),
    "pieces side by side": (lambda x: x.unflatten(1, (3, 2)).max(2).values, "maxout"),
    "pieces, any size": (lambda x: x.reshape(x.size(0), 2, 3, *x.shape[2:]).amax(1), "maxout"),
    "pieces, any sizes": (lambda x: x.view(x.shape[0], 3, 2, *x.size()[2:]).max(2)[0], "maxout"),
    "larger of a new number": (lambda x: torch.maximum(x, x.new_zeros(())), "relu"),
    "larger of new numbers": (lambda x: torch.maximum(x, x.new_zeros(x.shape)), "relu"),
    "where, a new number": (lambda x: torch.where(x > 0, x, x.new_full((1,), 0.0)), "relu"),
    "a new slope": (lambda x: torch.maximum(x, x * x.new_tensor(0.1)), "leaky_relu"),
    "both signs": (lambda x: torch.cat([F.relu(x), F.relu(-x)], 1), "crelu"),
    "both signs at once": (lambda x: torch.cat([x, -x], 1).relu(), "crelu"),
    "both signs, elu": (lambda x: torch.cat([F.elu(x), F.elu(-x)], 1), "elu"),
}


class Named(nn.Module):
    """An activation between misleading names."""

    def __init__(self, name, before=True):
        super().__init__()
        self.act, self.before = FORMS[name][0], before
        narrow = 12 if "both" in name and "half" not in name else 6
        narrow = 3 if FORMS[name][1] == "maxout" else narrow
        self.softmax = nn.Conv2d(3, 6, 3)  # names mean nothing
        self.relu = nn.BatchNorm2d(6 if before else narrow)
        self.norm = nn.Conv2d(narrow, 4, 3)

    def forward(self, dropout):
        y = self.softmax(dropout)
        return self.norm(self.act(self.relu(y)) if self.before else self.relu(self.act(y)))


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_known_by_its_values_and_norms_move_across_it(name, before):
    model, x = zoo.randomize(Named(name, before), 1).eval(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        model.relu.weight[::2] *= -1
    orders = (BEFORE, AFTER) if before else (AFTER, BEFORE)
    (site,) = relucate.audit(model, example=x).sites
    assert (site.order, site.act_op, site.unknown) == (orders[0], FORMS[name][1], ())
    moved, _ = relucate.convert(model, orders[1], example=x)
    assert relucate.audit(moved, example=x).summary == {orders[1]: 1}
    folded, report = relucate.fold(model, example=x)
    assert len(report.done) == 1
    with torch.no_grad():
        for found in (moved, folded):
            torch.testing.assert_close(found(x), model(x), rtol=1e-4, atol=1e-5)


def squeezed(net, x):
    return x * torch.sigmoid(net.other(x.mean((2, 3), keepdim=True)))


def standardised(net, x):
    return x / torch.sqrt(x.pow(2).mean(1, keepdim=True) + 1e-5)


def centred(net, x):
    spread = ((x - x.mean(1, keepdim=True)) ** 2).mean(1, keepdim=True)
    return (x - x.mean(1, keepdim=True)) * torch.rsqrt(spread + 1e-5)


OTHERS = {
    "squeeze and excitation": squeezed,
    "a norm by hand": standardised,
    "a norm by hand, centred": centred,
    "attention": lambda net, x: x * torch.sigmoid(net.other(x)),
    "a residual branch": lambda net, x: x + net.other(F.relu(x)) * 0.5,
    "a line": lambda net, x: x + 0.5 * x - 1,
    "pooled pieces": lambda net, x: x.unflatten(2, (3, 2)).amax(3),
}


class Other(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.conv, self.silu = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.other, self.end = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 4, 1)
        self.act = OTHERS[name]

    def forward(self, x):
        return self.end(self.act(self, self.silu(self.conv(x))))


@pytest.mark.parametrize("name", OTHERS)
def test_what_reads_other_values_too_is_no_activation_of_this_one(name):
    model, x = zoo.randomize(Other(name), 2).eval(), torch.randn(2, 3, 8, 8)
    (site,) = relucate.audit(model, example=x).sites
    known = "relu" if name == "a residual branch" else None
    assert site.act_op == known


class Learned(nn.Module):
    """Two blocks share an activation whose slope is learned."""

    def __init__(self, slope):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)
        self.n1, self.n2, self.end = nn.BatchNorm2d(6), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)
        self.slope = nn.Parameter(torch.full((6, 1, 1), slope))

    def act(self, x):
        return x * torch.sigmoid(self.slope * x)

    def forward(self, x):
        return self.end(self.act(self.n2(self.two(self.act(self.n1(self.one(x)))))))


@pytest.mark.parametrize("slope", [0.0, 1.0])  # a line, and silu, before training
def test_a_learned_number_has_no_value(slope):
    model, x = zoo.randomize(Learned(slope), 3).eval(), torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        model.slope.fill_(slope)
    found = [(site.order, site.act_op) for site in relucate.audit(model, example=x).sites]
    assert found == [(BEFORE, "x*sigmoid")] * 2
    moved, report = relucate.convert(model, AFTER, example=x)
    assert len(report.done) == 2
    with torch.no_grad():
        torch.testing.assert_close(moved(x), model(x), rtol=1e-4, atol=1e-5)


class ReadTwice(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.conv, self.norm, self.end = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)
        self.act = act

    def forward(self, x):
        y = self.norm(self.conv(x))
        return self.end(self.act(y)) + self.end(y)


@pytest.mark.parametrize(
    ("act", "name"),
    [(lambda x: torch.where(x > 0, x, 0.1 * x), "leaky_relu"), (torch.sin, None)],
)
def test_a_value_that_is_read_elsewhere_too(act, name):
    model, x = zoo.randomize(ReadTwice(act), 4).eval(), torch.randn(2, 3, 8, 8)
    (site,) = relucate.audit(model, example=x).sites
    assert site.act_op == name
    assert bool(site.unknown) == (name is None)
    folded, _ = relucate.fold(model, example=x)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)
    with pytest.warns(UserWarning, match="none of the 1 norms could be changed"):
        relucate.convert(model, AFTER, example=x)


def called(name, *numbers, inside=lambda x: x):
    return lambda x: getattr(torch, name)(inside(x), *numbers) * x


FUNCTIONS = {
    **{name: called(name) for name in "abs sign floor ceil trunc square round".split()},
    **{name: called(name) for name in "reciprocal expm1 exp2 sin cos tan sinh cosh".split()},
    **{name: called(name) for name in ("atan", "asinh")},
    **{name: called(name, inside=torch.abs) for name in "sqrt rsqrt log log1p log2".split()},
    **{name: called(name, inside=torch.sigmoid) for name in ("log10", "asin", "acos")},
    **{name: called(name, 0.3) for name in "gt ge lt le eq ne".split()},
    "a power": lambda x: x**3,
    "a base": lambda x: 2**x,
    "divided": lambda x: 3 / x,
    "where": lambda x: torch.where((x > 0) & (x < 1), 2.0, x),
    "filled": lambda x: torch.full_like(x, 0.5) * x,
    "not": lambda x: torch.logical_not(x > 0) * x,
}


@pytest.mark.parametrize("way", ["fx", "export"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_each_element_mean_what_torch_computes(name, way):
    class Model(nn.Module):
        def forward(self, x):
            if way == "export" and int(x.shape[1]) != 5:
                raise ValueError
            return FUNCTIONS[name](x)

    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = read(Model(), x)
    (found,) = evaluate(graph, x.numpy(), unread=apply)
    np.testing.assert_allclose(found, Model()(x).numpy(), rtol=1e-6)


GATES = {
    "a slice of channels": lambda x: x * torch.sigmoid(x[:, :1]),
    "the channels turned round": lambda x: x * torch.sigmoid(x.flip(1)),
    "the largest of two channels": lambda x: torch.maximum(x, x.flip(1)),
    "a homogeneous one": lambda x: x * F.relu(x[:, :1]),
}


class Mixing(nn.Module):
    """An activation whose values depend on other channels, which has no scale per channel."""

    def __init__(self, gate, after):
        super().__init__()
        self.gate, self.after = gate, after
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.next = nn.Conv2d(4, 2, 3)

    def forward(self, x):
        x = self.conv(x)
        x = self.norm(self.gate(x)) if self.after else self.gate(self.norm(x))
        return self.next(x)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("after", [False, True])
def test_norms_around_gates_that_mix_channels_are_folded_and_moved(gate, after):
    model = zoo.randomize(Mixing(GATES[gate], after), 3).eval()
    x = torch.randn(2, 3, 9, 9)
    moved, report = relucate.convert(model, BEFORE if after else AFTER, example=x)
    folded, _ = relucate.fold(model, example=x)
    assert len(report.done) == 1
    with torch.no_grad():
        torch.testing.assert_close(moved.eval()(x), model(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(folded.eval()(x), model(x), rtol=1e-4, atol=1e-5)
    found = relucate.audit(model, example=x).findings
    assert after or "N103" not in {one.code for one in found}
