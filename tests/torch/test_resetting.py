"""Rebuilt weights that PyTorch's weight_norm and spectral_norm compute, and what is refused."""

import warnings

import pytest
import torch
from tests.torch import zoo
from torch import nn

import relucate
from relucate.errors import Refused

SHAPE = (2, 3, 6, 6)


def quiet(function, module):
    with warnings.catch_warnings():  # PyTorch: weight_norm by hooks is deprecated
        warnings.simplefilter("ignore", FutureWarning)
        return function(module)


NORMS = {
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
    "weight_norm by hook": lambda module: quiet(nn.utils.weight_norm, module),
    "spectral_norm by hook": lambda module: quiet(nn.utils.spectral_norm, module),
}


def net(norm, place=0):
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)]
    model = zoo.randomize(nn.Sequential(*layers), 1)
    model[place] = norm(model[place])
    return model


@pytest.mark.parametrize("name", list(NORMS))
@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("order", ["after", "none"])
def test_computed_weights_start_anew_and_train(name, place, order):
    model = net(NORMS[name], place).eval()
    old = model[place].weight.detach().clone()
    plain, _ = relucate.rebuild(net(lambda m: m, place), order, seed=3, example=SHAPE)
    made, report = relucate.rebuild(model, order, seed=3, example=SHAPE)
    again, _ = relucate.rebuild(net(NORMS[name], place), order, seed=3, example=SHAPE)
    assert report.done
    assert torch.equal(model[place].weight, old)
    layer = made.eval().get_submodule(str(place))
    wanted = plain.get_submodule(str(place)).weight.detach()
    if name.startswith("spectral"):
        wanted = wanted / torch.linalg.matrix_norm(wanted.flatten(1), 2)
    torch.testing.assert_close(layer.weight.detach(), wanted, rtol=2e-2, atol=1e-5)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(made(x), again.eval()(x), rtol=0, atol=0)
    made.train()(x).square().mean().backward()
    assert all(p.grad is not None for p in made.parameters())


@pytest.mark.parametrize("name", list(NORMS))
@pytest.mark.parametrize("order", ["before", "norm-linear-act"])
def test_a_computed_weight_stays_where_only_a_bias_changes(name, order):
    model = net(NORMS[name])
    model = nn.Sequential(model[0], model[2], model[1], model[3]).eval()
    before = model[0].weight.detach().clone()
    made, report = relucate.convert(model, order, example=SHAPE)
    assert report.certificate.passed
    assert report.done
    assert torch.equal(made.get_submodule("0").weight, before)


def test_a_spectral_norm_takes_no_step_while_its_layer_is_edited():
    model = net(NORMS["spectral_norm"])
    model = nn.Sequential(model[0], model[2], model[1], model[3])
    made, _ = relucate.convert(model, "before", example=SHAPE)
    assert made.training
    assert torch.equal(made.eval().get_submodule("0").weight, model.eval()[0].weight)


@pytest.mark.parametrize("name", list(NORMS))
def test_a_norm_behind_a_computed_weight_is_skipped(name):
    with pytest.warns(UserWarning, match="no effect"):
        made, report = relucate.fold(net(NORMS[name]).eval(), example=SHAPE)
    assert f"{name.split()[0]} computes it; take that off" in report.skipped[0].reason
    assert report.certificate.max_abs == 0
    assert hasattr(made[0], "weight")


def test_the_seed_decides_what_a_spectral_norm_starts_from():
    model = net(NORMS["spectral_norm"]).train()
    for _ in range(5):
        model(torch.randn(SHAPE))
    one, _ = relucate.rebuild(model, "after", seed=3, example=SHAPE)
    other, _ = relucate.rebuild(net(NORMS["spectral_norm"]), "after", seed=3, example=SHAPE)
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def test_another_parametrization_is_refused_by_name():
    model = net(nn.utils.parametrizations.orthogonal)
    with pytest.raises(Refused, match=r"'0' computes its weight \(Orthogonal\)"):
        relucate.rebuild(model, "after", example=SHAPE)


class FixedNorm(nn.Module):
    """A batch norm of buffers alone, as torchvision's frozen one."""

    def __init__(self, channels):
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(channels) + 0.5)

    def forward(self, x):
        held = (self.weight, self.bias, self.running_mean, self.running_var)
        weight, bias, mean, variance = (value[:, None, None] for value in held)
        return (x - mean) * (variance + 1e-5).rsqrt() * weight + bias


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_norm_of_buffers_starts_as_a_new_one(order):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), FixedNorm(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # there is nothing to do for one of them
        made, _ = relucate.rebuild(model, order, example=SHAPE)
    (norm,) = [module for module in made if isinstance(module, FixedNorm)]
    values = {name: value.unique().tolist() for name, value in norm.named_buffers()}
    assert values == {"weight": [1], "bias": [0], "running_mean": [0], "running_var": [1]}


class Bands(nn.Module):
    """As timm's rotary embedding: what initialises it fails after it was half done."""

    def __init__(self):
        super().__init__()
        self.register_buffer("shift", torch.ones(1))
        self.register_buffer("bands", None)

    def reset_parameters(self):
        self.shift.zero_()
        self.bands.copy_(torch.ones(1))

    def forward(self, x):
        return x + self.shift


def test_a_module_whose_own_method_fails_is_refused_or_left_to_init():
    model = nn.Sequential(*net(lambda module: module), Bands())
    example = torch.zeros(SHAPE)
    with pytest.raises(Refused, match=r"'4' \(Bands\).*AttributeError.*init=lambda module: None"):
        relucate.rebuild(model, "after", example=example)
    rebuilt, _ = relucate.rebuild(model, "after", example=example, init=lambda module: None)
    (bands,) = (module for module in rebuilt.modules() if hasattr(module, "bands"))
    assert bands.shift == 1
    assert model[4].shift == 1
