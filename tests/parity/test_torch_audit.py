"""Audit of PyTorch models: the order comes back, the rules speak PyTorch, bad input is named."""

import pytest
import torch
import torch.nn.functional as F
from tests.torch import zoo
from torch import nn

import relucate
from relucate.torch import ConvBlock

NORMED = [order for order in zoo.ORDERS if "norm" in order]
# What is true of each, counted by hand in its source.
SUMMARIES = {
    "resnet_basic": {"linear-norm-act": 3, "linear-norm": 3},
    "resnet_bottleneck": {"linear-norm-act": 5, "linear-norm": 2},
    "resnet_preact": {"norm-act-linear": 5, "linear-norm-act": 1},
    "densenet": {"norm-act-linear": 8},
    "mobilenet_v2": {"linear-norm-act": 5, "linear-norm": 2},
    "mobilenet_v3": {"linear-norm-act": 4, "linear-norm": 2},
    "inception": {"linear-norm-act": 4},
    "shufflenet": {"linear-norm-act": 1, "linear-norm": 1},
    "efficientnet": {"linear-norm-act": 2, "linear-norm": 1},
    "convnext": {"linear-norm": 1},
    "vit": {"norm-linear": 2, "norm-linear-act": 1},
    "reused": {"linear-norm-act": 1},
    "int_of_shape": {"linear-norm-act": 1},
    "made_inside": {"linear-norm-act": 1},
    "shape_decides": {"linear-norm-act": 1},
}


def report(model, shape, **options):
    return relucate.audit(zoo.randomize(model, 3), example=shape, **options)


@pytest.mark.parametrize("order", NORMED)
@pytest.mark.parametrize("name", list(zoo.ORDERED))
def test_the_order_comes_back(name, order):
    found = report(zoo.ORDERED[name](order), zoo.MODELS[name][1])
    assert list(found.summary) == [order]
    assert found.unknown == ()


@pytest.mark.parametrize("name", list(SUMMARIES))
def test_families(name):
    factory, shape = zoo.MODELS[name]
    found = report(factory(), shape)
    assert found.summary == SUMMARIES[name]
    assert not found.at_least("error")


def test_a_norm_with_an_activation_inside_is_both():
    found = report(*(f() if callable(f) else f for f in zoo.MODELS["efficientnet"]))
    acts = {site.name.split("/")[0]: site.act_op for site in found.sites}
    assert acts == {"bn1": "silu", "bn2": "silu", "bn3": None}


@pytest.mark.parametrize("norm", ["batch", "layer", "instance", "group"])
@pytest.mark.parametrize("order", NORMED)
def test_blocks_of_our_own(order, norm):
    net = nn.Sequential(
        ConvBlock(4, 8, 3, order=order, norm=norm), ConvBlock(8, 8, 3, order=order, norm=norm)
    )
    found = report(net, (2, 4, 8, 8))
    assert found.summary == {order: 2}
    assert {site.kind for site in found.sites} == {norm}


class Steps(nn.Module):
    """Modules in a row; a softmax or another function at the end."""

    def __init__(self, *steps):
        super().__init__()
        self.steps = nn.ModuleList([s for s in steps if isinstance(s, nn.Module)])
        self.plan = steps

    def forward(self, x):
        for step in self.plan:
            x = step(x)
        return x


def conv(c_in, c_out, **options):
    return nn.Conv2d(c_in, c_out, 3, **{"padding": 1} | options)


def unmoved():
    net = Steps(conv(3, 4, bias=False), nn.BatchNorm2d(4), F.relu, nn.Flatten())
    nn.init.uniform_(net.steps[1].weight, 0.5, 1.5)
    return net


# rule -> (a model that has it, one that nearly has it)
RULES = {
    "N101": (
        lambda: Steps(conv(3, 4), nn.BatchNorm2d(4), F.relu),
        lambda: Steps(conv(3, 4), F.relu, nn.BatchNorm2d(4)),
    ),
    "N102": (
        lambda: Steps(conv(3, 4, bias=False), torch.relu, nn.BatchNorm2d(4)),
        lambda: Steps(conv(3, 4, bias=False), nn.BatchNorm2d(4), torch.relu),
    ),
    "N103": (
        lambda: Steps(conv(3, 4, bias=False), nn.BatchNorm2d(4), F.relu, conv(4, 4)),
        lambda: Steps(conv(3, 4, bias=False), nn.BatchNorm2d(4), F.silu, conv(4, 4)),
    ),
    "N201": (
        lambda: Steps(
            conv(3, 4), nn.BatchNorm2d(4), F.relu, conv(4, 4), F.relu, nn.BatchNorm2d(4), conv(4, 4)
        ),
        lambda: Steps(
            conv(3, 4), nn.BatchNorm2d(4), F.relu, conv(4, 4), nn.BatchNorm2d(4), F.relu, conv(4, 4)
        ),
    ),
    "N205": (
        lambda: Steps(conv(3, 4), nn.Dropout(0.3), nn.BatchNorm2d(4), F.relu),
        lambda: Steps(conv(3, 4), nn.BatchNorm2d(4), F.relu, nn.Dropout(0.3)),
    ),
    "N501": (
        lambda: Steps(conv(3, 4), F.relu, nn.BatchNorm2d(4), conv(4, 4)),
        lambda: Steps(conv(3, 4), F.relu, nn.BatchNorm2d(4), conv(4, 4, padding=0)),
    ),
}


@pytest.mark.parametrize("code", list(RULES))
def test_rules(code):
    has, nearly = RULES[code]
    assert code in {f.code for f in report(has(), (2, 3, 8, 8)).findings}
    assert code not in {f.code for f in report(nearly(), (2, 3, 8, 8)).findings}


def test_statistics_that_never_moved():
    net = unmoved()
    codes = {f.code for f in relucate.audit(net, example=(2, 3, 8, 8)).findings}
    moved = {f.code for f in report(unmoved(), (2, 3, 8, 8)).findings}
    assert "N301" in codes
    assert "N301" not in moved


def test_fixes_are_in_pytorch_words():
    found = report(RULES["N101"][0](), (2, 3, 8, 8)).findings
    text = " ".join(f.fix + f.message for f in found)
    assert "bias=False" in text
    assert not any(word in text for word in ("use_bias", "scale=False", "moving_"))


def test_reading_changes_nothing():
    net = zoo.randomize(zoo.vgg(), 5).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = torch.get_rng_state()
    relucate.audit(net, example=(2, 3, 8, 8))
    assert net.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
