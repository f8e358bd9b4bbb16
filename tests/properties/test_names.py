"""Names decide nothing: layers under any names, the code's own among them, become the same."""

import random
from dataclasses import replace

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers as kl
from tests.properties.test_fold import nets
from torch import nn

import relucate
import relucate.torch
from relucate.errors import Refused
from relucate.surgery.audit import audit_graph
from relucate.surgery.borders import strategies
from relucate.surgery.convert import convert_graph
from relucate.surgery.fold import fold_graph
from relucate.surgery.rebuild import rebuild_graph
from relucate.surgery.sites import sites

LOOSE = {"deadline": None, "suppress_health_check": list(HealthCheck)}
ORDERS = ("linear-norm-act", "linear-act-norm", "norm-linear-act", "act-norm-linear", "linear-act")
# What the code names things itself: alone, or behind the name of a layer.
WORDS = (
    "input x y z pad border kernel bias gamma beta moving_mean moving_variance variance alpha norm "
    "batch_norm act relu linear conv dense add affine rescale offset scale seed_generator "
    "seed_generator_state momentum training output weight root dropout"
).split()
ENDS = (
    "_border _with_border _ones _channel _with_ones _ones_padded _shift _scale _offset _act _1 "
    "_seed_generator _kernel _bias _norm"
).split()


def names(generator, count):
    """Return different names: words, and what the code would make of another layer's name."""
    found = []
    while len(found) < count:
        name = generator.choice(WORDS)
        if found and generator.random() < 0.7:
            name = generator.choice(found) + generator.choice(ENDS)
        if name not in found:
            found.append(name)
    generator.shuffle(found)
    return found


def renamed(graph, generator):
    """Return the graph with other names for its nodes, layers and tensors."""
    old = dict.fromkeys([*graph.nodes, *(node.layer for node in graph if node.layer)])
    new = dict(zip(old, names(generator, len(old)), strict=True))
    keys = {key: f"{new[key.rpartition('/')[0]]}/{key.rpartition('/')[2]}" for key in graph.tensors}
    nodes = {
        new[node.name]: replace(
            node,
            name=new[node.name],
            layer=new.get(node.layer, ""),
            inputs=tuple(new[source] for source in node.inputs),
            arrays={role: keys[key] for role, key in node.arrays.items()},
        )
        for node in graph
    }
    return replace(
        graph,
        nodes=nodes,
        inputs=tuple(new[name] for name in graph.inputs),
        outputs=tuple(new[name] for name in graph.outputs),
        tensors={keys[key]: value for key, value in graph.tensors.items()},
        trainable=frozenset(keys[key] for key in graph.trainable),
        masked=frozenset(new[name] for name in graph.masked),
    )


def shown(graph):
    """Return all of a graph but its names."""
    at = {name: number for number, name in enumerate(graph.nodes)}
    return [
        (
            node.op,
            [at[source] for source in node.inputs],
            node.shape,
            dict(node.attrs),
            {
                role: (graph.tensors[key].tobytes(), key in graph.trainable)
                for role, key in node.arrays.items()
            },
            node.name in graph.outputs,
        )
        for node in graph
    ]


PLANS = {
    "fold": lambda graph, order, strategy: fold_graph(graph, strategy),
    "convert": convert_graph,
    "rebuild": lambda graph, order, strategy: rebuild_graph(graph, order),
}


@given(nets(), st.sampled_from(ORDERS), st.sampled_from(strategies()), st.integers(0, 2**32 - 1))
@settings(max_examples=100, **LOOSE)
def test_names_change_no_plan(net, order, strategy, seed):
    graph = net.graph()
    other = renamed(graph, random.Random(seed))
    for plan in PLANS.values():
        assert planned(plan, graph, order, strategy) == planned(plan, other, order, strategy)


def planned(plan, graph, order, strategy):
    """Return what a planner makes of a graph, without names; nothing if it refuses."""
    try:
        made = plan(graph, order, strategy)
    except Refused:
        return None
    outcomes = [(o.status, o.strategy, o.old, o.new) for o in made.outcomes]
    return shown(made.graph), outcomes, len(made.placed)


@given(nets(), st.integers(0, 2**32 - 1))
@settings(max_examples=60, **LOOSE)
def test_names_change_no_reading(net, seed):
    graph = net.graph()
    other = renamed(graph, random.Random(seed))
    assert [site.order for site in sites(graph)] == [site.order for site in sites(other)]
    one, two = ([f.code for f in audit_graph(g).findings] for g in (graph, other))
    assert sorted(one) == sorted(two)


# End to end, in both frameworks. The names to compare with, and those that the code itself makes.
PARTS = ("input", "conv1", "norm1", "act1", "pad", "conv2", "norm2", "act2", "pool", "head")
CASES = [
    dict(zip(PARTS, PARTS, strict=True)),
    {
        **dict(zip(PARTS, PARTS, strict=True)),
        "pad": "act1_border",
        "act2": "conv2_border",
        "pool": "act2_with_border",
    },
    dict(
        zip(
            PARTS,
            "kernel act1 act1_border act1_shift conv2_ones conv2 conv2_border conv2_with_border "
            "conv2_with_ones conv2_channel".split(),
            strict=True,
        )
    ),
    dict(
        zip(
            PARTS,
            "x input bias gamma beta moving_mean moving_variance seed_generator input_1 alpha"
            "".split(),
            strict=True,
        )
    ),
]


def keras_net(called, after):
    def parts(number):
        made = [
            kl.BatchNormalization(name=called[f"norm{number}"]),
            kl.ReLU(name=called[f"act{number}"]),
        ]
        return made[::-1] if after else made

    x = image = keras.Input((8, 8, 3), name=called["input"])
    x = kl.Conv2D(4, 3, padding="same", name=called["conv1"])(x)
    for layer in parts(1):
        x = layer(x)
    x = kl.ZeroPadding2D(name=called["pad"])(x)
    x = kl.Conv2D(5, 3, name=called["conv2"])(x)
    for layer in parts(2):
        x = layer(x)
    x = kl.GlobalAveragePooling2D(name=called["pool"])(x)
    model = keras.Model(image, kl.Dense(3, name=called["head"])(x))
    generator = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(generator.uniform(0.3, 1.2, tuple(variable.shape)))
    return model


def torch_net(called, after):
    def parts(number, size):
        made = [
            (called[f"norm{number}"], nn.BatchNorm2d(size)),
            (called[f"act{number}"], nn.ReLU()),
        ]
        return made[::-1] if after else made

    net = nn.Sequential()
    for name, module in (
        (called["conv1"], nn.Conv2d(3, 4, 3, padding=1)),
        *parts(1, 4),
        (called["pad"], nn.ZeroPad2d(1)),
        (called["conv2"], nn.Conv2d(4, 5, 3)),
        *parts(2, 5),
        (called["pool"], nn.AvgPool2d(8)),
        (called["input"], nn.Flatten()),
        (called["head"], nn.Linear(5, 3)),
    ):
        net.add_module(name, module)
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.3, 1.2)
    return net.eval()


def summary(result, called):
    """Return what a verb made and what it says of that, without names."""
    model, report = result
    back = {name: part for part, name in called.items()}
    listed = model.layers if isinstance(model, keras.Model) else list(model.named_modules())[1:]
    if isinstance(model, keras.Model):
        made = [(type(layer).__name__, back.get(layer.name)) for layer in listed]
    else:
        made = [(type(module).__name__, back.get(name)) for name, module in listed]
    sites = [(back[s.name], s.status, s.strategy, s.old, s.new) for s in report.sites]
    certificate = report.certificate and report.certificate.max_rel
    return made, sites, certificate, report.parameters


VERBS = {
    "before": lambda *given, **more: relucate.convert(*given, "before", **more),
    "after": lambda *given, **more: relucate.convert(*given, "after", **more),
    "rebuilt": lambda *given, **more: relucate.rebuild(*given, "after", **more),
    "back": lambda *given, **more: relucate.rebuild(*given, "before", **more),
    **{
        strategy: lambda *given, strategy=strategy, **more: relucate.fold(
            *given, strategy=strategy, **more
        )
        for strategy in strategies()
        if strategy != "approximate"
    },
}


@pytest.mark.filterwarnings("ignore:relucate:UserWarning")
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("net", "more"),
    [(keras_net, {}), (torch_net, {"example": (2, 3, 8, 8)})],
    ids=["keras", "torch"],
)
def test_names_change_nothing_end_to_end(net, more, verb, after):
    first, *others = (summary(VERBS[verb](net(c, after), **more), c) for c in CASES)
    for other in others:
        assert other == first


class Functional(nn.Module):
    """Two convolutions, the second under any name, and functions that the reader has to name."""

    def __init__(self, name):
        super().__init__()
        self.block = nn.Conv2d(3, 3, 3, padding=1)
        self.add_module(name, nn.Conv2d(3, 3, 3, padding=1))
        self.norm, self.second = nn.BatchNorm2d(3), name

    def forward(self, x):
        y = getattr(self, self.second)(torch.relu(self.block(self.block(x))))
        return torch.relu(self.norm(torch.relu(y) + x))


@pytest.mark.parametrize(
    "name", "/relu /relu_1 /relu_2 /add block@1 block/conv x norm_border".split()
)
def test_a_module_may_be_called_as_the_reader_calls_functions(name):
    plain, other = (relucate.torch.read(Functional(n).eval(), (2, 3, 8, 8)) for n in ("b", name))
    assert [(n.op, n.shape) for n in other] == [(n.op, n.shape) for n in plain]
    at = [{name: number for number, name in enumerate(g.nodes)} for g in (plain, other)]
    assert [[at[1][s] for s in n.inputs] for n in other] == [
        [at[0][s] for s in n.inputs] for n in plain
    ]


def test_a_norm_without_gamma_gets_one_of_its_own():
    class Net(nn.Module):
        """Statistics as buffers of the model itself: what a norm gets has no layer's name."""

        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
            for number in (1, 2):
                self.register_buffer(f"mean{number}", torch.rand(4))
                self.register_buffer(f"variance{number}", torch.rand(4) + 0.5)

        def forward(self, x):
            x = torch.relu(F.batch_norm(self.one(x), self.mean1, self.variance1))
            return torch.relu(F.batch_norm(self.two(x), self.mean2, self.variance2))

    graph = relucate.torch.read(Net().eval(), (2, 3, 8, 8))
    plan = convert_graph(graph, "linear-act-norm")
    keys = [key for node in plan.graph if node.kind == "norm" for key in node.arrays.values()]
    assert len(keys) == len(set(keys))
