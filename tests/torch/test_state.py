"""Whatever a forward does to its module in eval mode, reading, editing and verifying undo it."""

import contextlib
import copy

import pytest
import torch
import torch.nn.functional as F
from tests.torch import zoo
from torch import nn

import relucate
from relucate.errors import Refused
from relucate.torch.running import outputs
from relucate.torch.state import unchanged

SHAPE = (2, 3, 6, 6)


class Restless(nn.Module):
    """Counts its calls, updates statistics, notes what it saw, draws random numbers."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Conv2d(4, 2, 1)
        for name, value in {"mean": 0.0, "variance": 1.0, "count": 0.0}.items():
            self.register_buffer(name, torch.full((4,), value))
        self.plain = torch.zeros(2)
        self.seen, self.calls = [], 0

    def forward(self, x):
        self.count += 1
        self.plain += 1
        self.calls += 1
        self.seen.append(self.calls)
        y = torch.relu(self.norm(self.conv(x)))
        return self.head(F.batch_norm(y, self.mean, self.variance, training=True))


def state_of(model):
    held = {**model.state_dict(), "plain": model.plain}
    held = {name: value.clone() for name, value in held.items()}
    return held, list(model.seen), model.calls, [m.training for m in model.modules()]


def same(one, other):
    return one[1:] == other[1:] and all(torch.equal(one[0][k], other[0][k]) for k in one[0])


@pytest.mark.parametrize(
    "call",
    [
        lambda m: relucate.audit(m, example=SHAPE),
        lambda m: relucate.fold(m, example=SHAPE),
        lambda m: relucate.convert(m, "after", example=SHAPE, data=torch.randn(5, 3, 6, 6).numpy()),
        lambda m: relucate.rebuild(m, "none", example=SHAPE),
        lambda m: relucate.verify(m, copy.deepcopy(m), example=SHAPE),
    ],
    ids=["audit", "fold", "convert", "rebuild", "verify"],
)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.filterwarnings("ignore:relucate convert. the model called an activation as a function")
def test_the_model_stays_as_it_was(call, training):
    model = zoo.randomize(Restless(), 1).train(training)
    before = state_of(model)
    call(model)
    assert same(before, state_of(model))


def test_the_new_model_starts_where_the_old_one_stood():
    model = zoo.randomize(Restless(), 2)
    made, report = relucate.fold(model, example=SHAPE)
    assert report.done
    assert torch.equal(made.count, model.count)


def spoil(layer):
    with unchanged(layer), torch.no_grad():
        layer.weight.add_(torch.randn(2, 3))
        layer.frozen.data = torch.zeros(5)
        del layer.bias
        layer.extra = 1
        raise ZeroDivisionError


def test_random_numbers_parameters_and_errors():
    layer = nn.Linear(3, 2)
    layer.frozen = nn.Parameter(torch.randn(2))
    numbers, weight = torch.get_rng_state(), layer.weight.detach().clone()
    with pytest.raises(ZeroDivisionError):
        spoil(layer)
    assert torch.equal(numbers, torch.get_rng_state())
    assert torch.equal(layer.weight, weight)
    assert layer.frozen.shape == (2,)
    assert layer.bias.shape == (2,)
    assert not hasattr(layer, "extra")


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(3))

    def forward(self, x):
        self.count += 1
        return self.count.expand(len(x), 3)


def test_an_output_that_is_a_buffer_is_not_put_back():
    counter = Counter()
    (found,) = outputs(counter, [torch.zeros(2, 4).numpy()], None)
    assert found.tolist() == [[1.0] * 3] * 2
    assert not counter.count.any()


class Apart(nn.Module):
    """Calls modules that aren't submodules, so that no mode reaches them."""

    def __init__(self, hide):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)
        norm = zoo.randomize(nn.BatchNorm2d(4), 1)
        self.norms = {"list": [norm], "dict": {"a": norm}}.get(hide)
        self.apply_norm = (lambda x: norm(x)) if hide == "closure" else None
        self.hidden = {"norm": norm}.get  # a way to it for the test alone

    def forward(self, x):
        norm = self.apply_norm or self.norms[next(iter(self.norms)) if "a" in self.norms else 0]
        return self.head(norm(self.conv(x)).relu())


HIDDEN = pytest.mark.parametrize("hide", ["list", "dict", "closure"])
STRANGERS = r"calls modules that it doesn't hold as submodules \(BatchNorm2d; from a list"


@HIDDEN
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.filterwarnings("ignore:relucate:UserWarning")
def test_modules_in_lists_and_closures_stay_as_they_were(hide, training):
    model = Apart(hide).eval()
    norm = model.hidden("norm").train(training)
    before = copy.deepcopy(norm.state_dict())
    (site,) = relucate.audit(model, example=SHAPE).sites
    assert site.order == "linear-norm-act"
    relucate.verify(model, model, example=SHAPE)
    for verb, order in (("fold", ()), ("convert", ("after",)), ("rebuild", ("after",))):
        with contextlib.suppress(Refused):
            getattr(relucate, verb)(model, *order, example=SHAPE)
    assert norm.training == training
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())


@HIDDEN
@pytest.mark.filterwarnings("ignore:relucate fold. no effect:UserWarning")
def test_modules_in_lists_and_closures_are_named(hide):
    model = Apart(hide).eval()
    model.hidden("norm").eval()
    for verb, order in (("fold", ()), ("convert", ("after",)), ("rebuild", ("after",))):
        with pytest.raises(Refused, match=STRANGERS):
            getattr(relucate, verb)(model, *order, example=SHAPE)
    model.hidden("norm").train()  # as it is when the model alone was put into eval mode
    with pytest.warns(UserWarning, match=STRANGERS):
        _, report = relucate.fold(model, example=SHAPE)
    assert "the batch's own statistics" in report.skipped[0].reason


def test_layers_in_a_list_are_not_initialised_again():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs, self.norm = [nn.Conv2d(3, 4, 3)], nn.BatchNorm2d(4)
            self.act, self.head = nn.ReLU(), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            return self.head(self.act(self.norm(self.convs[0](x))))

    with pytest.raises(Refused, match=r"\(Conv2d; .*nn.ModuleList.*can't be initialised again"):
        relucate.rebuild(Net(), "after", example=SHAPE)
