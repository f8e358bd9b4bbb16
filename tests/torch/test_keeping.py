"""A retraced forward trains as the model does: frozen norms, parts without gradients, autocast."""

import contextlib
import copy
import io

import pytest
import torch
import torch.nn.functional as F
from tests.torch import zoo
from torch import nn
from torch.utils.checkpoint import checkpoint

import relucate
from relucate.torch.reading.reader import read_with_modules
from relucate.torch.writing.edits import Edits

SHAPE = (2, 3, 6, 6)


class Net(nn.Module):
    """Two blocks whose activations are functions, so that a new order needs a new forward."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.next, self.other = nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.head = nn.Conv2d(5, 2, 1)

    def stem(self, x):
        return F.relu(self.norm(self.conv(x)))

    def forward(self, x):
        return self.head(F.relu(self.other(self.next(self.stem(x)))))


class Frozen(Net):
    """Freezes a norm whenever it is put into training mode, as detectors do."""

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self


def edited(verb, model):
    made, report = getattr(relucate, verb)(model, "after", example=SHAPE)
    assert len(report.done) == 2
    assert type(made) is not type(model)
    return made


def saved(made):
    file = io.BytesIO()
    torch.save(made, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("verb", ["convert", "rebuild"])
@pytest.mark.parametrize("copied", [lambda made: made, copy.deepcopy, saved])
def test_norms_that_the_model_keeps_in_eval_mode_stay_there(verb, copied):
    made = copied(edited(verb, zoo.randomize(Frozen(), 1).eval()))
    assert made.train() is made
    assert {path for path, module in made.named_modules() if not module.training} == {"norm"}
    assert not any(module.training for module in made.eval().modules())


class Detached(Net):
    def stem(self, x):
        return super().stem(x).detach()


class NoGrad(Net):
    @torch.no_grad()
    def stem(self, x):
        return super().stem(x)


class InsideOut(Net):
    """Only what is between the parts without gradients is learned."""

    def forward(self, x):
        with torch.no_grad():
            x = self.conv(x)
            with torch.enable_grad():
                x = F.relu(self.norm(x))
            x = x + x.flatten(1).mean(1)[:, None, None, None]
        return self.head(F.relu(self.other(self.next(x))))


def learned(model):
    model = copy.deepcopy(model).train()
    model(torch.randn(SHAPE)).square().sum().backward()
    return {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("verb", ["convert", "rebuild"])
@pytest.mark.parametrize("kind", [Detached, NoGrad, InsideOut])
def test_parts_without_gradients_stay_without(verb, kind):
    model = zoo.randomize(kind(), 2).eval()
    assert learned(edited(verb, model)) == learned(model) == {"next", "other", "head"}


class Pair(Net):
    @torch.no_grad()
    def halves(self, x):
        return torch.split(x, 2, 1)

    def forward(self, x):
        one, two = self.halves(self.stem(x))
        return self.head(F.relu(self.other(self.next(torch.cat([two, one], 1)))))


def test_several_values_from_a_part_without_gradients_keep_the_forward():
    model = zoo.randomize(Pair(), 3).eval()
    with pytest.warns(UserWarning, match="of a subclass of its class now"):
        made, report = relucate.convert(model, "after", example=SHAPE)
    assert report.certificate.passed
    assert learned(model) == {"next", "other", "head"}
    assert learned(made) == {"next", "relu", "head"}  # its norm is where a ReLU would be


class Half(Net):
    def stem(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().stem(x)

    def forward(self, x):
        y = self.stem(x)
        return self.head(F.relu(self.other(self.next(y.float())))), y


def test_autocast_keeps_the_forward():
    model = zoo.randomize(Half(), 4).eval()
    for made, _ in (
        relucate.fold(model, example=SHAPE),
        relucate.rebuild(model, "before", example=SHAPE),
    ):
        assert [y.dtype for y in made.eval()(torch.randn(SHAPE))] == [torch.float32, torch.bfloat16]


class Reversed(torch.autograd.Function):
    """Turns gradients round, as domain adversarial training does."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, *given):
        return -given[0]


BETWEEN = {
    "straight through": lambda model, x: x + (x.round() - x).detach(),
    "dropout of channels": lambda model, x: F.dropout2d(x, 0.5, model.training),
    "dropout that is always on": lambda model, x: F.dropout(x, 0.5),
    "alpha dropout": lambda model, x: F.alpha_dropout(x, 0.5, model.training),
    "alpha dropout of channels": lambda model, x: F.feature_alpha_dropout(x, 0.5, model.training),
    "random slopes": lambda model, x: F.rrelu(x - 1, 0.1, 0.9, model.training),
}


class Between(Net):
    def __init__(self, between):
        super().__init__()
        self.between = between

    def forward(self, x):
        return self.head(F.relu(self.other(self.next(self.between(self, self.stem(x))))))


def trained(model, x):
    """Return the output and the gradients of a step in training mode."""
    model = copy.deepcopy(model).train()
    torch.manual_seed(5)
    y = model(x)
    (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
    return y.detach(), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", BETWEEN)
def test_a_new_forward_trains_as_the_old_one(name):
    model = zoo.randomize(Between(BETWEEN[name]), 6).eval()
    reading = read_with_modules(model, SHAPE)
    made = Edits(reading.graph, model, reading).retraced()
    x = torch.randn(SHAPE)
    (one, slopes), (two, others) = trained(model, x), trained(made, x)
    torch.testing.assert_close(two, one)
    torch.testing.assert_close(others, slopes)
    if name == "dropout that is always on":
        torch.manual_seed(1)
        one = model(x)
        torch.manual_seed(1)
        torch.testing.assert_close(made.eval()(x), one)


class Island(Net):
    """A head in full precision, whatever the caller runs the model in."""

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))
        with torch.autocast("cpu", enabled=False):
            return self.head(F.relu(self.other(self.next(x.float()))))


class Islands(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Island()

    def forward(self, x):
        return self.inner(x) if x.shape[0] > 0 else x


@pytest.mark.filterwarnings("ignore:relucate:UserWarning")
@pytest.mark.parametrize("kind", [Island, Islands])
def test_parts_without_autocast_stay_without(kind):
    model = zoo.randomize(kind(), 6).eval()
    assert "sets torch.autocast" in read_with_modules(model, SHAPE).not_retraced or kind is Islands
    made, _ = relucate.fold(model, example=SHAPE)
    others = [made]
    for verb in (relucate.convert, relucate.rebuild):
        with contextlib.suppress(relucate.Refused):
            others.append(verb(model, "after", example=SHAPE)[0].eval())
    x = torch.randn(SHAPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert {other(x).dtype for other in [model, *others]} == {torch.float32}


def checkpointed(model, x):
    return checkpoint(F.relu, x, use_reentrant=False)


class Branching(Net):
    def forward(self, x):
        return super().forward(x) if x.mean() > -1e9 else x


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        (Branching(), "which branch runs depends on values or sizes"),
        (Between(lambda model, x: Reversed.apply(x)), "Reversed has a backward pass of its own"),
        (Between(lambda model, x: x[: int(x.shape[0])]), "sizes or values of tensors as numbers"),
        (Island(), "a part of it sets torch.autocast"),
        (Between(checkpointed), "a part of it is checkpointed"),
    ],
)
def test_why_a_forward_cannot_be_traced_is_said(model, cause):
    assert cause in read_with_modules(model.eval(), SHAPE).not_retraced


def test_a_backward_pass_of_its_own_keeps_the_forward():
    model = zoo.randomize(Between(lambda model, x: Reversed.apply(x)), 6).eval()
    reading = read_with_modules(model, SHAPE)
    assert "can't trace" in reading.not_retraced
    made, _ = relucate.fold(model, example=SHAPE)
    x = torch.randn(SHAPE)
    made, (_, slopes) = trained(made, x)[1], trained(model, x)
    assert all(slope.abs().sum() > 0 for slope in made.values())
    assert slopes.keys() > made.keys()


@pytest.mark.filterwarnings("ignore:relucate:UserWarning")
def test_numbers_that_depend_on_the_mode_are_noted():
    model = Between(lambda model, x: x * (2.0 if model.training else 1.0))
    _, report = relucate.convert(zoo.randomize(model, 7).eval(), "after", example=SHAPE)
    assert any("does something else in training mode" in text for text in report.warnings)
    model = Between(BETWEEN["dropout of channels"])
    _, report = relucate.convert(zoo.randomize(model, 7).eval(), "after", example=SHAPE)
    assert not report.warnings
