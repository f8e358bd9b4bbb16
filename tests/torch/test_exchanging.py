"""Writing without tracing: modules at each other's paths, and every case that must not be."""

import pickle
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from tests.torch import zoo
from torch import nn

import relucate
from relucate.errors import Refused

pytestmark = pytest.mark.filterwarnings(
    "ignore:relucate .*isn't called for inputs like the example", "ignore:relucate .*no effect"
)
BEFORE, AFTER, FIRST = "linear-norm-act", "linear-act-norm", "norm-linear-act"


def orders(model, shape):
    return [site.order for site in relucate.audit(model, example=shape).sites]


@dataclass
class Found:
    logits: torch.Tensor
    hidden: torch.Tensor


class Untraceable(nn.Module):
    """Public code that torch.fx can't trace: a dataclass, sizes as numbers, an auxiliary head."""

    def __init__(self, act=nn.ReLU):
        super().__init__()
        self.config = {"channels": 6}
        self.conv1, self.norm1, self.act1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), act()
        self.conv2, self.norm2, self.act2 = nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), act()
        self.head, self.aux = nn.Linear(8, 3), nn.Linear(6, 3)

    def forward(self, x):
        if int(x.shape[-1]) % 2:
            x = F.pad(x, (0, 1))
        hidden = self.act1(self.norm1(self.conv1(x)))
        x = self.act2(self.norm2(self.conv2(hidden))).mean((2, 3))
        logits = self.head(x)
        if self.training:
            logits = logits + self.aux(hidden.mean((2, 3)))
        return Found(logits, hidden) if self.config else None


torch.utils._pytree.register_dataclass(Found)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 3, 7, 7)])
@pytest.mark.parametrize("verb", ["convert", "rebuild"])
def test_a_model_that_cannot_be_traced(verb, shape):
    model = zoo.randomize(Untraceable(), 1).eval()
    made, report = getattr(relucate, verb)(model, AFTER, example=shape)
    assert type(made) is Untraceable
    assert made.config == model.config
    assert isinstance(made.act1, nn.BatchNorm2d)
    assert isinstance(made.norm2, nn.ReLU)
    assert len(report.done) == 2
    assert orders(made, shape) == [AFTER, AFTER]
    assert orders(model, shape) == [BEFORE, BEFORE]  # the source is as it was
    x = torch.randn(3, 3, 10, 12)
    if verb == "convert":
        torch.testing.assert_close(made(x).logits, model(x).logits)
        assert report.certificate.passed
    made.train()
    assert not torch.equal(made(x).logits, made.eval()(x).logits)  # the auxiliary head is at work
    twin = pickle.loads(pickle.dumps(made))
    torch.testing.assert_close(twin.eval()(x).logits, made.eval()(x).logits)
    assert report.renamed["act1"] == "norm1"
    assert "'act1' is what was 'norm1'" in str(report)


def test_there_and_back_is_the_same_network():
    model = zoo.randomize(Untraceable(), 2).eval()
    there, _ = relucate.rebuild(model, AFTER, example=(2, 3, 8, 8))
    back, _ = relucate.rebuild(there, BEFORE, example=(2, 3, 8, 8))
    assert [type(m) for m in back.modules()] == [type(m) for m in model.modules()]
    assert orders(back, (2, 3, 8, 8)) == [BEFORE, BEFORE]


def test_the_same_seed_starts_a_layer_alike_in_every_order():
    model = Untraceable()
    starts = [
        relucate.rebuild(model, order, seed=4, example=(2, 3, 8, 8))[0] for order in (AFTER, BEFORE)
    ]
    assert torch.equal(starts[0].conv2.weight, starts[1].conv2.weight)
    first, _ = relucate.rebuild(model, FIRST, seed=4, example=(2, 3, 8, 8))
    assert isinstance(first.conv2, nn.BatchNorm2d)  # linear layer and norm changed places
    assert first.conv2.num_features == 6
    assert torch.equal(first.norm2.weight, starts[0].conv2.weight)


def test_a_frozen_norm_stays_frozen():
    model = zoo.randomize(Untraceable(), 3).train()
    model.norm1.eval()
    made, _ = relucate.convert(model, AFTER, example=(2, 3, 8, 8))
    assert made.training
    assert not made.act1.training
    assert made.norm1.training


def test_a_loop_over_a_block_moves_as_a_whole():
    model, shape = zoo.randomize(zoo.ShapeDecides(), 4).eval(), zoo.MODELS["shape_decides"][1]
    made, report = relucate.convert(model, AFTER, example=shape)
    assert report.certificate.passed
    assert [type(m) for m in made.block] == [nn.Conv2d, nn.ELU, nn.BatchNorm2d]
    x = torch.randn(2, 3, 32, 32)  # another number of rounds
    torch.testing.assert_close(made(x), model(x))


# What must not be exchanged.


class Base(Untraceable):
    def forward(self, x):
        x = x * int(x.shape[-1])
        return self.head(self.act2(self.norm2(self.conv2(self.first(x)))).mean((2, 3)))

    def first(self, x):
        return self.act1(self.norm1(self.conv1(x)))


class SharedAct(Base):
    def __init__(self):
        super().__init__()
        self.act2 = self.act1


class InALis(Base):
    """The forward calls modules out of a list of its own: other names change nothing."""

    def __init__(self):
        super().__init__()
        self.own = [self.conv1, self.norm1, self.act1]

    def first(self, x):
        for module in self.own:
            x = module(x)
        return x


class AsksForTypes(Base):
    def first(self, x):
        for module in (self.conv1, self.norm1, self.act1):
            x = module(x)
            if isinstance(module, nn.ReLU):
                x = x + x.mean()
        return x


class OtherwiseInTraining(Base):
    def first(self, x):
        x = self.conv1(x)
        if self.training:
            return self.norm1(self.act1(x))
        return self.act1(self.norm1(x))


class TwiceInTraining(Base):
    def first(self, x):
        x = self.act1(self.norm1(self.conv1(x)))
        return self.act1(x) if self.training else x


class TypesInTraining(Base):
    def first(self, x):
        for module in (self.conv1, self.norm1, self.act1):
            if not (self.training and isinstance(module, nn.ReLU)):
                x = module(x)
        return x


class ReadsWeights(Base):
    def first(self, x):
        return self.act1(self.norm1(self.conv1(x))) * self.norm1.weight.numel()


class Functional(Base):
    def first(self, x):
        return {"relu": F.relu}["relu"](self.norm1(self.conv1(x)))


REFUSING = [InALis, AsksForTypes, OtherwiseInTraining, TwiceInTraining, TypesInTraining]


@pytest.mark.parametrize("verb", ["convert", "rebuild"])
@pytest.mark.parametrize("kind", [*REFUSING, ReadsWeights])
def test_what_a_forward_would_not_do_is_refused(kind, verb):
    model = zoo.randomize(kind(), 5).eval()
    with pytest.raises(Refused, match="change places"):
        getattr(relucate, verb)(model, AFTER, example=(2, 3, 8, 8))


@pytest.mark.parametrize("verb", ["convert", "rebuild"])
def test_norms_that_cannot_move_stay_and_the_others_move(verb):
    model = zoo.randomize(Functional(), 6).eval()
    made, report = getattr(relucate, verb)(model, AFTER, example=(2, 3, 8, 8))
    assert [(o.name, o.status) for o in report.sites] == [("norm1", "skipped"), ("norm2", "done")]
    assert "torch.fx can't trace" in report.skipped[0].reason
    assert orders(made, (2, 3, 8, 8)) == [BEFORE, AFTER]


def test_an_activation_with_several_sites_stays_where_it_is():
    model = zoo.randomize(SharedAct(), 7).eval()
    with pytest.raises(Refused, match="'act1' is used at several places"):
        relucate.convert(model, AFTER, example=(2, 3, 8, 8))


class Traceable(nn.Module):
    """torch.fx traces it all; the ReLU works in place, and a skip reads what it reads."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU(True)
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return self.head(self.act(self.norm(self.conv(x))))

    def describe(self):
        return "mine"


@pytest.mark.parametrize("order", [AFTER, FIRST])
def test_traceable_models_keep_their_class_where_names_of_weights_stay(order):
    model = zoo.randomize(Traceable(), 8).eval()
    made, report = relucate.convert(model, order, example=(2, 3, 4, 4))
    assert report.certificate.passed
    if order == AFTER:
        assert type(made) is Traceable
        assert made.describe() == "mine"
    else:  # the linear layer would have another name, and there is a way that keeps it
        assert isinstance(made, torch.fx.GraphModule)
    assert isinstance(made.conv, nn.Conv2d)


def test_the_users_input_is_not_changed_in_place():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU(True), nn.Conv2d(3, 2, 1))
    made, _ = relucate.rebuild(net, "act-norm-linear", example=(2, 3, 4, 4))
    x = -torch.rand(2, 3, 4, 4)
    before = x.clone()
    made.eval()(x)
    assert torch.equal(x, before)


# What a model returns.


@dataclass
class Own:
    y: torch.Tensor
    hidden: list[torch.Tensor]


class OwnDict(dict):
    pass


class Returns(nn.Module):
    def __init__(self, kind, hard):
        super().__init__()
        self.kind, self.hard = kind, hard
        self.conv, self.bn, self.act = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        if self.hard:  # for torch.fx
            x = x * int(x.shape[2])
        hidden = self.act(self.bn(self.conv(x)))
        return self.kind(y=self.head(hidden), hidden=[hidden])


@pytest.mark.parametrize("order", ["none", AFTER, FIRST])
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("kind", [Own, OwnDict, dict])
@pytest.mark.filterwarnings("ignore:relucate convert. the new module returns a dict, not a OwnDict")
def test_what_a_model_returns_stays(kind, hard, order):
    model = zoo.randomize(Returns(kind, hard), 9).eval()
    made, report = relucate.convert(model, order, example=(2, 3, 6, 6))
    assert report.done
    assert report.certificate.passed
    assert report.certificate.inputs
    assert made.hard == model.hard
    traced = isinstance(made, torch.fx.GraphModule)
    assert traced == (order == FIRST and not hard)
    out = made(torch.randn(2, 3, 6, 6))
    if traced and kind is OwnDict:
        assert any("returns a dict, not a OwnDict" in note for note in report.warnings)
    else:
        assert type(out) is kind


class FirstNorm(nn.Module):
    """A norm in front of a padded convolution, as in Hubert; a negative and a zero scale."""

    def __init__(self):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm1d(4), nn.Conv1d(4, 4, 5, padding=2, groups=2)

    def forward(self, x):
        return self.conv(self.norm(x)) if int(x.shape[2]) > 1 else x


@pytest.mark.parametrize("scale", [0.5, 0.0])
def test_a_shift_takes_the_place_of_the_norm_that_it_is_left_of(scale):
    model, x = zoo.randomize(FirstNorm(), 3).eval(), torch.randn(3, 4, 9)
    model.norm.weight.data[:] = torch.tensor([scale, -1.0, 2.0, 1.5])
    made, report = relucate.fold(model, strategy="shift", example=(2, 4, 8))
    assert [outcome.name for outcome in report.done] == ["norm"]
    assert type(made) is FirstNorm
    assert not list(made.norm.parameters())
    torch.testing.assert_close(made(x), model(x))
    torch.testing.assert_close(pickle.loads(pickle.dumps(made))(x), model(x))
    assert not relucate.audit(made, example=(2, 4, 8)).sites


class Slopes(nn.Module):
    """A slope for each channel, where torch.fx can't trace."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.act = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4)
        self.second, self.head = nn.Conv2d(4, 6, 3), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        x = self.first(x) if int(x.shape[1]) == 3 else x
        return self.head(self.second(self.act(self.norm(x))))


def test_slopes_move_to_other_channels():
    made, report = relucate.rebuild(Slopes(), "norm-act-linear", example=(2, 3, 8, 8))
    assert [site.status for site in report.sites] == ["done"]
    made, report = relucate.rebuild(Slopes(), "linear-norm-act", example=(2, 3, 8, 8))
    assert made(torch.randn(2, 3, 8, 8)).shape == (2, 2, 4, 4)
    back, report = relucate.rebuild(made, "act-norm-linear", example=(2, 3, 8, 8))
    assert [site.new for site in report.sites] == ["act-norm-linear"]
    slopes = next(m for m in back.modules() if isinstance(m, nn.PReLU))
    assert slopes.num_parameters == 3
    assert back(torch.randn(2, 3, 8, 8)).shape == (2, 2, 4, 4)
