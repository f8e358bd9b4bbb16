"""The PyTorch writer: what stays as it was, what training does, types, in-place calls, refusals."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tests.torch import zoo
from torch import nn

import relucate
from relucate.errors import Refused
from relucate.torch import read_with_modules
from relucate.torch.writing.writer import write

BEFORE, AFTER = "linear-norm-act", "linear-act-norm"


def written(model, shape):
    reading = read_with_modules(model, shape)
    return write(reading.graph, model, reading).module


@pytest.mark.parametrize("name", list(zoo.MODELS))
def test_nothing_edited_nothing_changed(name):
    factory, shape = zoo.MODELS[name]
    model = zoo.randomize(factory(), 1).eval()
    made = written(model, shape)
    assert type(made) is type(model)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(made(x), model(x))
    held = {id(p) for p in model.parameters()} | {id(m) for m in model.modules()}
    assert not held & ({id(p) for p in made.parameters()} | {id(m) for m in made.modules()})


class Functional(nn.Module):
    """Parameters of its own, functions for everything, dropout that asks for the mode."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3, 3, 3) / 5)
        self.bias = nn.Parameter(torch.randn(6))
        self.gamma, self.beta = nn.Parameter(torch.rand(6) + 0.5), nn.Parameter(torch.randn(6))
        self.register_buffer("mean", torch.randn(6) / 3)
        self.register_buffer("var", torch.rand(6) + 0.5)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = F.conv2d(x, self.weight, self.bias, padding=1)
        x = F.batch_norm(x, self.mean, self.var, self.gamma, self.beta, self.training, 0.2)
        x = F.dropout(F.relu_(x), 0.5, self.training)
        return self.head(x.mean((2, 3)))


def test_functions_become_modules_that_train():
    model = Functional().eval()
    made, report = relucate.convert(model, AFTER, example=(2, 3, 5, 5))
    assert report.certificate.passed
    norms = [m for m in made.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [norm.momentum for norm in norms] == [pytest.approx(0.2)]
    made.train()
    x = torch.randn(8, 3, 5, 5)
    before = norms[0].running_mean.clone()
    one, two = made(x), made(x)
    assert not torch.equal(one, two)  # dropout is at work
    assert not torch.equal(before, norms[0].running_mean)  # so are batch statistics
    one.sum().backward()
    assert all(p.grad is not None for p in made.parameters())


class Shared(nn.Module):
    """An in-place ReLU whose input is read by somebody else once the norm is gone."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.act = nn.ReLU()
        self.norm = nn.BatchNorm2d(3)
        self.conv2 = nn.Conv2d(3, 3, 1)
        self.drop = nn.Dropout(0.5, inplace=True)

    def forward(self, x):
        x = self.act(self.conv(x))
        return x + self.conv2(self.drop(self.norm(x)))


def test_a_call_in_place_stops_where_others_read_its_input():
    model = zoo.randomize(Shared(), 2).eval()
    made, report = relucate.fold(model, example=(2, 3, 4, 4))
    assert report.done
    assert model.drop.inplace
    assert not made.drop.inplace
    made.train()
    x = torch.randn(64, 3, 4, 4)
    # Dropout must not reach the other reader: its mean over many passes is the eval-mode output.
    with torch.no_grad():
        mean = torch.stack([made(x) for _ in range(400)]).mean(0)
        made.eval()
        torch.testing.assert_close(mean, made(x), rtol=0, atol=0.5)
        parts = (mean - made(x)).mean()
        assert abs(parts) < 0.02


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_types_stay(dtype):
    model = zoo.randomize(zoo.vgg(AFTER), 3).to(dtype).eval()
    made, report = relucate.fold(model, example=(2, 3, 8, 8))
    assert {p.dtype for p in made.parameters()} == {dtype}
    assert report.certificate.dtype == str(dtype).removeprefix("torch.")
    assert report.certificate.passed


def test_frozen_parameters_stay_frozen():
    model = zoo.randomize(zoo.vgg(BEFORE), 4)
    for parameter in model[0][0].parameters():
        parameter.requires_grad_(False)
    model[0][1].requires_grad_(False)
    made, _ = relucate.convert(model, AFTER, example=(2, 3, 8, 8))
    frozen = {name for name, p in made.named_parameters() if not p.requires_grad}
    assert frozen == {"0.0.weight", "0.0.bias", "0.2.weight", "0.2.bias"}  # where the norm is now


def test_what_was_written_is_a_module_like_any_other(tmp_path):
    model = zoo.randomize(zoo.UNet(BEFORE), 5)
    shape = zoo.MODELS["unet"][1]
    made, _ = relucate.convert(model, AFTER, example=shape)
    made.eval()
    x = torch.randn(5, *shape[1:])  # another batch size
    expected = made(x)
    torch.save(made.state_dict(), tmp_path / "state.pt")
    twin = copy.deepcopy(made)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    twin.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(twin(x), expected)
    program = torch.export.export(made, (x,))
    torch.testing.assert_close(program.module()(x), expected)


def test_paths_stay_where_a_traced_norm_moves():
    model = zoo.randomize(zoo.resnet_basic(), 6)  # one ReLU for all of a block: it can't be moved
    made, report = relucate.convert(model, AFTER, example=zoo.MODELS["resnet_basic"][1])
    assert report.done
    assert isinstance(made, torch.fx.GraphModule)
    names = set(made.state_dict())
    assert names >= set(model.state_dict())
    assert all(name.endswith("conv1.bias") for name in names - set(model.state_dict()))


def test_modes_are_not_changed():
    model = zoo.randomize(zoo.vgg(BEFORE), 7).train()
    model[0][1].eval()
    relucate.convert(model, AFTER, example=(2, 3, 8, 8))
    assert model.training
    assert not model[0][1].training


def test_fresh_weights_leave_the_global_generator_alone():
    model = zoo.vgg(BEFORE)
    state = torch.get_rng_state()
    relucate.rebuild(model, AFTER, seed=3, example=(2, 3, 8, 8))
    assert torch.equal(state, torch.get_rng_state())


def test_a_module_without_reset_parameters_is_named():
    with pytest.raises(Refused, match=r"'' \(ViT\) has parameters and no reset_parameters"):
        relucate.rebuild(zoo.ViT(), "none", example=zoo.MODELS["vit"][1])


def test_init_starts_what_has_no_reset_parameters():
    model, shape = zoo.randomize(zoo.ViT(), 10), zoo.MODELS["vit"][1]
    seen = []

    def init(module):
        seen.append(type(module).__name__)
        nn.init.normal_(module.pos_embed)

    one, two = (relucate.rebuild(model, "none", init=init, example=shape)[0] for _ in range(2))
    assert set(seen) == {"ViT"}
    assert torch.equal(one.pos_embed, two.pos_embed)  # from the seed
    assert not torch.equal(one.pos_embed, model.pos_embed)
    kept, _ = relucate.rebuild(model, "none", init=lambda module: None, example=shape)
    assert torch.equal(kept.pos_embed, model.pos_embed)
    assert not torch.equal(kept.qkv.weight, model.qkv.weight)


def test_spectral_norm_stays():
    conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))
    model = nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU()).eval()
    zoo.randomize(model[1], 8)
    with pytest.warns(UserWarning, match="no effect"):
        _, report = relucate.fold(model, example=(2, 3, 6, 6))
    assert "spectral_norm computes it; take that off first" in report.skipped[0].reason


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("verb", ["convert", "rebuild"])
def test_a_norm_in_front_of_a_convolution_that_pads_otherwise(verb, mode):
    conv = nn.Conv2d(4, 4, 3, padding=(1, 2), padding_mode=mode)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), conv, nn.BatchNorm2d(4), nn.ReLU()]
    model = zoo.randomize(nn.Sequential(*layers, nn.Conv2d(4, 2, 1)), 9)
    made, report = getattr(relucate, verb)(model, "norm-linear-act", example=(2, 3, 8, 8))
    assert len(report.done) == 2
    assert relucate.audit(made, example=(2, 3, 8, 8)).summary == {"norm-linear-act": 2}
    x = torch.randn(2, 3, 9, 8)
    assert made(x).shape == model(x).shape
    assert model[3].padding_mode == mode
    if verb == "convert":
        assert report.certificate.passed


def test_the_slopes_of_a_prelu_follow_its_channels():
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4, init=0.1), nn.Conv2d(4, 2, 1)]
    model = zoo.randomize(nn.Sequential(*layers), 10)
    made, report = relucate.rebuild(model, "norm-act-linear", example=(2, 3, 8, 8))
    assert report.done
    slopes = made.get_submodule("2")
    assert slopes.num_parameters == 3
    torch.testing.assert_close(slopes.weight.detach(), torch.full((3,), 0.1))
    made(torch.randn(2, 3, 8, 8)).sum().backward()
    assert slopes.weight.grad is not None
    assert model[2].weight.shape == (4,)


class OwnSlopes(nn.Module):
    """Holds the slopes of its activation itself, and calls a function with them."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.slopes, self.head = nn.Parameter(torch.rand(4)), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(nn.functional.prelu(self.norm(self.conv(x)), self.slopes))


def test_the_slopes_of_a_function_follow_its_channels():
    model, x = OwnSlopes(), torch.randn(2, 3, 8, 8)
    made, report = relucate.rebuild(
        model, "norm-act-linear", example=(2, 3, 8, 8), init=lambda module: None
    )
    assert [site.new for site in report.sites] == ["norm-act-linear"]
    assert made(x).shape == model(x).shape
    assert [m.num_parameters for m in made.modules() if isinstance(m, nn.PReLU)] == [3]


class Weighted(nn.Module):
    """Makes constants in its forward."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)
        self.plain = torch.rand(4, 1, 1) + 0.5

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x))) * self.plain
        return self.head(x + torch.linspace(-1.0, 1.0, 4).reshape(4, 1, 1))


def test_constants_that_are_made_in_the_forward():
    model = zoo.randomize(Weighted(), 11)
    made, report = relucate.convert(model, AFTER, example=(2, 3, 8, 8))
    assert report.done
    assert report.certificate.passed
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(made.eval()(x), model.eval()(x), rtol=0, atol=1e-5)


# What torch.fx drops when it builds a module, and what it can't see.


class MyLinear(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        shape = self.normalized_shape
        return F.layer_norm(x, shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class Standardized(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Blur(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("filter", torch.ones(8, 1, 3, 3) / 9, persistent=False)

    def forward(self, x):
        return F.conv2d(x, self.filter, groups=8)


def with_own_classes():
    layers = [Standardized(3, 8, 3), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
    ends = [
        nn.Conv2d(8, 8, 1),
        LayerNorm2d(8),
        Blur(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        MyLinear(8, 4),
    ]
    return nn.Sequential(*layers, *ends)


@pytest.mark.parametrize("order", ["none", AFTER, "norm-linear-act"])
def test_classes_and_unsaved_buffers_stay(order):
    model, shape = with_own_classes(), (2, 3, 12, 12)
    made, report = relucate.rebuild(model, order, seed=1, example=shape)
    assert report.done
    kinds = {type(m) for m in made.modules()}
    assert {Standardized, Blur, MyLinear} <= kinds
    assert not torch.equal(made.get_submodule("9").weight, model[9].weight)  # it is new
    assert not [name for name in made.state_dict() if "filter" in name]
    assert [name for name, _ in made.named_buffers() if "filter" in name]


class Shortcut(nn.Module):
    """The commonest ResNet block: an empty container where nothing is to be done."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.shortcut, self.more = nn.Sequential(), nn.ModuleList()

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x))) + self.shortcut(x)
        for module in self.more:
            out = module(out)
        return out


@pytest.mark.parametrize("order", ["none", AFTER])
def test_an_empty_container_is_no_obstacle(order):
    model = zoo.randomize(Shortcut(), 5).eval()
    assert read_with_modules(model, (2, 4, 6, 6)).way == "fx"
    made, report = relucate.convert(model, order, example=(2, 4, 6, 6))
    assert report.done
    assert report.certificate.passed
    x = torch.randn(2, 4, 9, 5)
    torch.testing.assert_close(made.eval()(x), model(x))
