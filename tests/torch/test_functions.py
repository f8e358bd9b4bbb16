"""Activations that are functions, in models that torch.fx can't trace."""

import pickle

import pytest
import torch
import torch.nn.functional as F
from tests.torch import zoo
from torch import nn

import relucate

AFTER = "linear-act-norm"
SHAPE = (2, 4, 8, 8)
pytestmark = pytest.mark.filterwarnings("ignore:relucate .* called an activation as a function")


ACTS = {
    "relu": F.relu,
    "in place": lambda x: F.relu(x, inplace=True),
    "method": lambda x: x.relu_(),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "hardtanh": lambda x: F.hardtanh(x, -2.0, max_val=3.0),
    "sigmoid": torch.sigmoid,
}


class Block(nn.Module):
    def __init__(self, act="relu"):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.act, self.drop, self.unused = act, nn.Dropout(0.1), nn.Linear(2, 2)

    def forward(self, x, flag=False, *, scale=None):
        y = ACTS[self.act](self.norm(self.conv(x)))
        y = y + 1 if flag else y
        return self.drop(y if scale is None else y * scale)


class Mode(Block):
    def forward(self, x, **_):
        y = ACTS[self.act](self.norm(self.conv(x)))
        return y * 2 if self.training else y


class Scaled(Block):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x, **_):
        return ACTS[self.act](self.norm(self.conv(x))) * self.gain


class Shapes(nn.Module):
    """A root that needs numbers."""

    def __init__(self, *blocks):
        super().__init__()
        self.blocks, self.head = nn.ModuleList(blocks), nn.Conv2d(4, 3, 1)

    def forward(self, x):
        for number, block in enumerate(self.blocks):
            x = block(x, scale=None) if int(x.shape[2]) > 1 or number else x
        return self.head(x)


def network(*blocks):
    return zoo.randomize(Shapes(*blocks), 5).eval()


@pytest.mark.parametrize("act", ACTS)
def test_a_function_becomes_a_module(act):
    net, x = network(Block(act), Block(act)), torch.randn(3, 4, 9, 7)
    made, report = relucate.convert(net, AFTER, example=SHAPE)
    assert len(report.done) == 2
    torch.testing.assert_close(made(x), net(x))
    assert type(made) is Shapes
    assert [site.order for site in relucate.audit(made, example=SHAPE).sites] == [AFTER, AFTER]
    assert not any(module.training for module in made.modules())
    kept = {report.renamed.get(path := name.rpartition(".")[0], path) for name in made.state_dict()}
    assert kept == {name.rpartition(".")[0] for name in net.state_dict()}
    again = pickle.loads(pickle.dumps(made))
    torch.testing.assert_close(again(x), made(x))
    assert "torch.fx.GraphModule" in report.warnings[0]


def test_a_rebuilt_network_trains_and_keeps_its_random_layers():
    made, report = relucate.rebuild(network(Block(), Block()), AFTER, example=SHAPE)
    assert len(report.done) == 2
    made.train()
    x = torch.randn(2, 4, 8, 8)
    assert not torch.equal(made(x), made(x))


def test_another_flag_than_the_traced_one_is_refused():
    made, _ = relucate.convert(network(Block()), AFTER, example=SHAPE)
    with pytest.raises(ValueError, match="expected flag=False, got True"):
        made.blocks[0](torch.randn(2, 4, 8, 8), True)


@pytest.mark.parametrize("kind", [Mode, Scaled])
@pytest.mark.filterwarnings("ignore:relucate .*no effect")
def test_a_forward_that_cannot_be_kept_stays(kind):
    net, x = network(Block(), kind()), torch.randn(3, 4, 8, 8)
    made, report = relucate.convert(net, AFTER, example=SHAPE)
    assert [outcome.name for outcome in report.done] == ["blocks.0.norm"]
    assert "it is no module of its own" in report.skipped[0].reason
    torch.testing.assert_close(made(x), net(x))
    assert type(made.blocks[1]) is kind


class Own(nn.Module):
    """An activation as libraries write it: a module around a function."""

    def __init__(self):
        super().__init__()
        self.act = F.gelu

    def forward(self, x):
        return self.act(x)


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.one, self.act, self.two = (
            nn.LayerNorm(6),
            nn.Linear(6, 6),
            Own(),
            nn.Linear(6, 3),
        )

    def forward(self, x):
        return self.two(self.act(self.one(self.norm(x)))) if x.shape[0] < 1000 else x


def test_a_module_that_only_calls_an_activation_is_one():
    net = Mlp().eval()
    (site,) = relucate.audit(net, example=(2, 6)).sites
    assert site.act == "act"
    made, report = relucate.rebuild(net, AFTER, example=(2, 6))
    assert report.done
    assert type(made) is Mlp
    assert isinstance(made.act, nn.LayerNorm)
    assert isinstance(made.one, Own)


class Cache:
    """A library's container of outputs: no pytree, no dataclass."""

    def __init__(self, *tensors):
        self.layers, self.whole, self.kind = [Cache()] if tensors else [], self, torch.float32
        for number, tensor in enumerate(tensors):
            setattr(self, f"key_{number}", tensor)


class Positions(nn.Module):
    """Modules that are called on constants, and outputs in a container."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Embedding(9, 6), nn.BatchNorm1d(6)
        self.one = nn.Linear(6, 6)
        self.register_buffer("places", torch.arange(9))

    def forward(self, x):
        y = torch.relu(self.norm(self.one(x).flatten(0, 1)).reshape(x.shape))
        return {"y": y + self.embed(self.places[: int(x.shape[1])]), "cache": Cache(y, x)}


def test_modules_of_constants_and_containers_of_outputs_are_read():
    net, x = zoo.randomize(Positions(), 6).eval(), torch.randn(4, 6, 6)
    made, report = relucate.fold(net, example=(2, 6, 6))
    assert len(report.done) == 1
    torch.testing.assert_close(made(x)["y"], net(x)["y"])
    torch.testing.assert_close(made(x)["cache"].key_0, net(x)["cache"].key_0)


def recording(seen, name):
    """Return a hook as transformers installs it on a model's first call."""

    def hook(module, args, output):
        seen.append(output)

    hook.__module__ = name
    return hook


class Recorded(nn.Module):
    """A library that reads its hidden states by hooks on itself."""

    def __init__(self, name="transformers.utils.output_capturing"):
        super().__init__()
        self.norm, self.one, self.two = nn.BatchNorm1d(6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.name, self.installed = name, False

    def forward(self, x):
        if not self.installed:
            SEEN.clear()
            self.one.register_forward_hook(recording(SEEN, self.name))
            self.installed = True
        SEEN.clear()
        y = self.two(torch.relu(self.one(self.norm(x))))
        (hidden,) = SEEN if x.shape[0] < 1000 else (x,)
        return y + hidden[:, :3]


SEEN = []


@pytest.mark.parametrize("called", [False, True])
def test_hidden_states_that_a_library_collects_by_hooks_are_read(called):
    net, x = zoo.randomize(Recorded(), 7).eval(), torch.randn(4, 6)
    if called:
        net(x)
    hooks = len(net.one._forward_hooks)
    made, report = relucate.fold(net, example=(2, 6))
    assert len(report.done) == 1
    assert (len(net.one._forward_hooks), net.installed) == (hooks, called)
    torch.testing.assert_close(made(x), net(x))


def test_other_hooks_are_still_refused():
    net = zoo.randomize(Recorded("somewhere"), 7).eval()
    net(torch.randn(4, 6))
    with pytest.raises(relucate.errors.RelucateError):
        relucate.fold(net, example=(2, 6))


class Shared(nn.Module):
    """One activation module that is called twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x, scale=None):
        return self.relu(self.norm2(self.conv2(self.relu(self.norm(self.conv(x))))))


@pytest.mark.parametrize("verb", [relucate.convert, relucate.rebuild])
def test_an_activation_module_that_is_called_twice(verb):
    net, x = network(Shared(), Shared()), torch.randn(3, 4, 9, 7)
    made, report = verb(net, AFTER, example=SHAPE)
    assert len(report.done) == 4
    assert {site.order for site in relucate.audit(made, example=SHAPE).sites} == {AFTER}
    if verb is relucate.convert:
        torch.testing.assert_close(made(x), net(x))


class Fused(nn.Module):
    """A convolution, and norm and activation in one module."""

    def __init__(self, norm=zoo.BatchNormAct2d):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1), norm(4)

    def forward(self, x, scale=None):
        return self.bn(self.conv(x))


@pytest.mark.parametrize("verb", ["fold", "convert", "rebuild"])
def test_a_norm_with_an_activation_inside(verb):
    net, x = network(Fused(), Fused()), torch.randn(3, 4, 9, 7)
    order = () if verb == "fold" else (AFTER,)
    made, report = getattr(relucate, verb)(net, *order, example=SHAPE)
    assert len(report.done) == 2
    assert not report.skipped
    assert type(made) is Shapes
    if verb != "rebuild":
        torch.testing.assert_close(made(x), net(x))
    if verb != "fold":
        assert {site.order for site in relucate.audit(made, example=SHAPE).sites} == {AFTER}
        made.train()(x)
        moved = [module for module in made.modules() if type(module) is nn.BatchNorm2d]
        assert [int(module.num_batches_tracked) for module in moved] == [1, 1]


class Late(zoo.BatchNormAct2d):
    """It does more in training mode."""

    def forward(self, x):
        return super().forward(x) + (1.0 if self.training else 0.0)


def test_a_norm_that_does_more_in_training_stays():
    net = network(Fused(), Fused(Late))
    made, report = relucate.fold(net, example=SHAPE)
    assert [outcome.name for outcome in report.done] == ["blocks.0.bn/batch_norm"]
    assert type(made.blocks[1].bn) is Late
