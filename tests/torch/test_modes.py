"""Norms that a model keeps from training, by a `train` of its own or in its forward."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tests.torch import zoo
from torch import nn

import relucate
from relucate.torch.reading.modes import after_train
from relucate.torch.reading.reader import read, read_with_modules
from relucate.torch.statistics import reestimate
from relucate.torch.writing.edits import Edits

SHAPE = (2, 3, 6, 6)


class Net(nn.Module):
    """A block of modules, so that a new order needs no new forward."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.act, self.head = nn.ReLU(), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(self.act(self.norm(self.conv(x))))


class OwnTrain(Net):
    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self


class Fixed(OwnTrain):
    def train(self, mode=True):
        super().train(mode)
        for parameter in self.norm.parameters():
            parameter.requires_grad_(False)
        return self


class ByAttribute(Net):
    def train(self, mode=True):
        super().train(mode)
        self.norm.training = self.norm.weight.requires_grad = False
        return self


class InForward(Net):
    def forward(self, x):
        self.norm.eval()
        return super().forward(x)


class InForwardByAttribute(Net):
    def forward(self, x):
        self.norm.training = False
        return super().forward(x)


class Inside(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x).mean((2, 3))


class Untraced(Inside):
    def forward(self, x):
        return super().forward(x) if x.sum() > -1e9 else x


class Functional(Net):
    """Calls a norm's tensors in a function that never takes the batch's statistics."""

    def forward(self, x):
        n, x = self.norm, self.conv(x)
        x = F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, False)
        return self.head(F.relu(x))


class OtherMomentum(Net):
    def forward(self, x):
        n, x = self.norm, self.conv(x)
        x = F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, self.training, 0.4)
        return self.head(F.relu(x))


KEPT = {
    "own train": OwnTrain,
    "own train, without gradients": Fixed,
    "an attribute": ByAttribute,
    "in forward": InForward,
    "an attribute in forward": InForwardByAttribute,
    "a submodule's own train": lambda: Inside(OwnTrain()),
    "in a submodule's forward": lambda: Inside(InForward()),
    "of a model that can't be traced": lambda: Untraced(OwnTrain()),
    "in the forward of a model that can't be traced": lambda: Untraced(InForward()),
}


@pytest.mark.filterwarnings("ignore:relucate:UserWarning")
def test_a_function_that_never_takes_the_batch_is_a_frozen_norm():
    model = zoo.randomize(Functional().eval(), 3)
    (norm,) = [node for node in read(model, SHAPE) if node.op == "batch_norm"]
    assert norm.attrs["frozen"]
    made, _ = relucate.rebuild(model, "before", example=SHAPE)
    made.load_state_dict(model.state_dict())
    torch.testing.assert_close(step(made), step(model))
    reading = read_with_modules(model, SHAPE)
    traced = Edits(reading.graph, model, reading).retraced()
    found = step(traced)
    torch.testing.assert_close(found, {name: step(model)[name] for name in found})


def test_a_function_has_its_own_momentum():
    (norm,) = [node for node in read(OtherMomentum().eval(), SHAPE) if node.op == "batch_norm"]
    assert norm.attrs["momentum"] == pytest.approx(0.6)
    assert not norm.attrs["frozen"]


def step(model):
    """Return the gradients and the buffers after a step in training mode, by name."""
    model = copy.deepcopy(model).train()
    y = model(torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0)))
    (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
    learned = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return learned | dict(model.named_buffers())


@pytest.mark.parametrize("kept", KEPT)
def test_a_norm_that_is_kept_from_training_is_frozen(kept):
    model = KEPT[kept]().eval()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    (norm,) = [node for node in read(model, SHAPE) if node.op == "batch_norm"]
    assert norm.attrs["frozen"]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in model.modules())
    assert "N101" not in {found.code for found in relucate.audit(model, example=SHAPE).findings}


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.filterwarnings("ignore:relucate:UserWarning")
def test_rebuild_to_the_same_order_trains_the_same(kept):
    model = KEPT[kept]().eval()
    made, _ = relucate.rebuild(model, "before", example=SHAPE)
    assert "conv.bias" in "".join(made.state_dict())
    made.load_state_dict(zoo.randomize(model, 3).state_dict())
    torch.testing.assert_close(step(made), step(model))


@pytest.mark.parametrize("kept", [k for k in KEPT if "can't" not in k])
@pytest.mark.parametrize("verb", ["convert", "rebuild"])
def test_a_norm_that_moved_is_kept_from_training_still(verb, kept):
    model = zoo.randomize(KEPT[kept]().eval(), 3)
    made, report = getattr(relucate, verb)(model, "after", example=SHAPE)
    assert len(report.done) == 1
    (norm,) = [m for m in made.modules() if isinstance(m, nn.BatchNorm2d)]
    mean = norm.running_mean.clone()
    found = step(made)
    assert any(torch.equal(mean, value) for value in found.values())
    kept_from_it = {name.rpartition(".")[2] for name in after_train(model).fixed}
    assert {n for n, p in norm.named_parameters() if not p.requires_grad} == kept_from_it
    assert not report.warnings


def test_a_norm_whose_train_would_freeze_another_module_stays():
    model = zoo.randomize(Untraced(OwnTrain()).eval(), 3)
    with pytest.raises(relucate.Refused, match="would be frozen otherwise than planned"):
        relucate.convert(model, "after", example=SHAPE)


def test_a_mode_that_follows_the_model_is_no_frozen_norm():
    class Following(Net):
        def forward(self, x):
            self.norm.train(self.training)
            return super().forward(x)

    (norm,) = [node for node in read(Following().eval(), SHAPE) if node.op == "batch_norm"]
    assert not norm.attrs["frozen"]


def test_a_train_from_outside_is_refused():
    model = Net()
    model.train = lambda mode=True: nn.Module.train(model, mode)
    with pytest.raises(relucate.Refused, match="override train"):
        relucate.convert(model, "after", example=SHAPE)


def test_frozen_norms_keep_their_statistics_when_they_are_estimated_again():
    model = zoo.randomize(OwnTrain(), 3).train()
    before = model.norm.running_mean.clone()
    reestimate(model, [torch.randn(4, 3, 6, 6)])
    assert torch.equal(model.norm.running_mean, before)
    assert model.training
    assert not model.norm.training
