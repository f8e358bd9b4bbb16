"""A norm in parallel with a linear layer goes into the tap that reads the output's own position."""

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl
from tests.properties.test_fold import Net
from tests.surgery.test_fold import norm, outcomes
from torch import nn

import relucate
from relucate.graph.evaluate import evaluate
from relucate.surgery.fold import fold_graph


def start(first=False):
    net = Net(4, first, np.float64)
    net.add("relu")
    return net, net.last


def beside(net, at, op="conv", window=3, padding="same", size=None, **more):
    """Add a convolution behind `at` with as many outputs as inputs."""
    net.last, inputs = at, net.channels(at)
    window = (window, window) if isinstance(window, int) else window
    attrs = {"strides": (1, 1), "padding": padding, "dilation": (1, 1), "groups": 1, **more}
    if op == "depthwise_conv":
        kernel = net.normal(*window, inputs, 1)
    else:
        kernel = net.normal(*window, inputs // attrs["groups"], size or inputs)
    return net.add(op, attrs=attrs, arrays={"kernel": kernel})


def identity(net, at):
    net.last = at
    return norm(net)


def folded(net):
    """Fold; return the graph without norms, and what became of the last."""
    plan = fold_graph(net.graph())
    (expected,), (got,) = (evaluate(g, net.values["x"]) for g in (net.graph(), plan.graph))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    return plan.graph, plan.outcomes[-1]


SHAPES = [
    {},
    {"groups": 2},
    {"groups": 4},
    {"op": "depthwise_conv"},
    {"dilation": (2, 1)},
    {"window": (5, 3), "dilation": (1, 2), "groups": 2},
    {"window": 1},
    {"window": 1, "padding": "valid"},
    {"window": 2},
    {"padding": ((2, 0), (1, 1))},
    {"padding": ((0, 2), (2, 0)), "op": "depthwise_conv"},
]


@pytest.mark.parametrize("more", SHAPES)
@pytest.mark.parametrize("first", [False, True])
def test_a_norm_goes_into_the_kernel_of_a_parallel_convolution(more, first):
    net, at = start(first)
    one = beside(net, at, **more)
    net.add("add", one, identity(net, at))
    graph, outcome = folded(net)
    assert (outcome.status, outcome.reason) == ("done", f"into {one}")
    assert [node.op for node in graph] == ["input", "relu", graph.nodes[one].op]
    assert "bias" in graph.nodes[one].arrays


@pytest.mark.parametrize(
    "more",
    [
        {"padding": ((1, 1), (3, 0)), "window": (3, 4)},
        {"padding": ((1, 1), (1, 1)), "window": (3, 3), "dilation": (1, 1)},
        {"padding": ((1, 1), (2, 1)), "window": (3, 4), "mode": "reflect"},
    ],
)
def test_padding_by_a_layer_of_its_own_counts(more):
    net, at = start()
    more = dict(more)
    padding = {"padding": more.pop("padding")}
    mode = more.pop("mode", None)
    pad = net.add("pad" if mode else "zero_pad", attrs=padding | ({"mode": mode} if mode else {}))
    one = beside(net, pad, padding="valid", **more)
    net.add("add", identity(net, at), one)
    assert folded(net)[1].status == "done"


def test_a_whole_block_folds_in_one_call():
    """RepVGG: a 3 x 3 and a 1 x 1 convolution, each with its norm, and a norm alone."""
    net, at = start()
    beside(net, at)
    one = norm(net)
    beside(net, at, window=1)
    two = norm(net)
    net.add("add", net.add("add", two, one), identity(net, at))
    net.add("relu")
    graph, outcome = folded(net)
    assert outcome.status == "done"
    assert [node.op for node in graph] == ["input", "relu", "conv", "conv", "add", "relu"]


BUILDS = ["minus norm", "minus conv", "minus both", "scaled", "rescaled", "dropped", "higher"]
HALF = {"scale": 0.5, "offset": 1.0}


@pytest.mark.parametrize("build", BUILDS)
def test_signs_and_scales_of_the_terms_count(build):
    net, at = start()
    one, two = beside(net, at), identity(net, at)
    if build == "minus norm":
        net.add("subtract", one, two)
    elif build == "minus conv":
        minus = net.add("rescale", one, attrs={"scale": -0.5, "offset": 2.0})
        net.add("add", two, minus)
    elif build == "minus both":
        net.add("subtract", net.add("subtract", at, one), two)
    elif build == "scaled":
        net.add("add", net.add("rescale", one, attrs={"scale": 3.0, "offset": 0.0}), two)
    elif build == "rescaled":
        two = net.add("rescale", two, attrs={"scale": -2.0, "offset": 0.5})
        net.add("add", net.add("rescale", net.add("subtract", at, two), attrs=HALF), one)
    elif build == "dropped":
        net.add("add", net.add("dropout", one, attrs={"rate": 0.5}), net.add("identity", two))
    else:
        net.add("subtract", net.add("add", at, two), one)
    assert folded(net)[1].status == "done"


OTHERS = "strided narrow between cut act twice output pooled broadcast other norm_minus zero used"


@pytest.mark.parametrize("build", OTHERS.split())
def test_what_is_no_such_branch_stays(build):
    net, at = start()
    if build == "strided":
        one = beside(net, at, padding=((3, 3), (3, 3)), strides=(2, 2), window=2)
    elif build == "narrow":
        one = beside(net, at, padding=((0, 0), (1, 1)), window=(1, 3), dilation=(1, 1), size=1)
    elif build == "between":  # the output's own position lies between two taps
        one = beside(net, at, padding=((1, 3), (1, 1)), dilation=(2, 1))
    elif build == "cut":  # of the border's values not all are read
        pad = net.add("crop", at, attrs={"cropping": ((1, 1), (0, 0))})
        one = beside(net, pad, padding=((2, 2), (1, 1)))
    elif build == "act":
        beside(net, at)
        one = net.add("tanh")
    elif build == "other":
        one = beside(net, net.add("tanh", at))
    elif build == "pooled":
        net.add("avg_pool", at, attrs={"window": (3, 3), "strides": (1, 1), "padding": "same"})
        one = beside(net, net.last)
    elif build == "zero":
        one = net.add("rescale", beside(net, at), attrs={"scale": 0.0, "offset": 1.0})
    else:
        one = beside(net, at)
    two = identity(net, at)
    if build == "norm_minus":
        net.add("subtract", two, one)
    elif build == "twice":
        net.add("add", two, net.add("add", one, one))
    elif build == "broadcast":
        axes = {"axes": (1, 2), "keepdims": True}
        net.add("add", net.add("global_avg_pool", one, attrs=axes), two)
    elif build == "used":
        net.add("multiply", net.add("add", one, two), net.add("tanh", two))
    elif build == "output":
        net.add("multiply", net.add("add", one, two), net.add("tanh", one))
    else:
        net.add("add", one, two)
    graph, outcome = folded(net)
    assert outcome.status == "skipped"
    assert outcome.reason.startswith("backwards: ")
    assert set(graph.nodes) == set(net.nodes)


def test_a_shared_block_needs_one_kernel_for_all_of_its_calls():
    def block(net, at, conv, batch_norm):
        one = net.add(
            "conv",
            at,
            attrs=net.nodes[conv].attrs,
            layer=conv,
            keys=dict(net.nodes[conv].arrays),
        )
        two = net.add(
            "batch_norm",
            at,
            attrs=net.nodes[batch_norm].attrs,
            layer=batch_norm,
            keys=dict(net.nodes[batch_norm].arrays),
        )
        return one, two

    net, at = start()
    conv, batch_norm = beside(net, at), identity(net, at)
    at = net.add("relu", net.add("add", conv, batch_norm))
    one, two = block(net, at, conv, batch_norm)
    net.add("add", one, two)
    graph, outcome = folded(net)
    assert outcome.status == "done"
    assert [n.op for n in graph] == ["input", "relu", "conv", "relu", "conv"]
    net, at = start()
    conv, batch_norm = beside(net, at), identity(net, at)
    at = net.add("relu", net.add("add", conv, batch_norm))
    one, _ = block(net, at, conv, batch_norm)
    net.add("subtract", one, net.last)
    assert folded(net)[1].status == "skipped"


def test_a_convolution_used_elsewhere_stays():
    net, at = start()
    one = beside(net, at)
    other = net.add("conv", at, attrs=net.nodes[one].attrs, keys=dict(net.nodes[one].arrays))
    net.add("add", net.add("add", one, identity(net, at)), net.add("tanh", other))
    assert folded(net)[1].status == "skipped"


@pytest.mark.parametrize("first", [False, True])
def test_a_dense_layer_in_parallel(first):
    net, _ = start(first)
    at = net.add("flatten")
    size = net.channels()
    arrays = {"kernel": net.normal(size, size), "bias": net.random.normal(size=size)}
    one = net.add("dense", at, arrays=arrays)
    net.add("add", one, identity(net, at))
    (outcome,) = outcomes(net)
    assert outcome.status == "done"


# Whole models.


def randomized(model):
    random = np.random.default_rng(0)
    for variable in model.weights:
        drawn = random.normal(size=tuple(variable.shape)) * 0.4
        variable.assign(np.abs(drawn) + 0.3 if "variance" in variable.path else drawn)
    return model


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("together", [False, True])
def test_keras_blocks(together, layout):
    shape, axis = ((8, 8, 4), -1) if layout == "channels_last" else ((4, 8, 8), 1)
    x = image = keras.Input(shape)
    for groups in (1, 2):
        conv = {"padding": "same", "use_bias": False, "data_format": layout, "groups": groups}
        terms = [kl.BatchNormalization(axis)(kl.Conv2D(4, size, **conv)(x)) for size in (3, 1)]
        terms.append(kl.BatchNormalization(axis)(x))
        x = kl.Add()(terms) if together else kl.Add()([kl.Add()(terms[:2]), terms[2]])
        x = kl.ReLU()(x)
    model = randomized(keras.Model(image, kl.Flatten()(x)))
    made, report = relucate.fold(model)
    assert report.certificate.passed
    assert len(report.done) == 6
    assert not [layer for layer in made.layers if isinstance(layer, kl.BatchNormalization)]
    assert len(made.layers) == len(model.layers) - 6 - (0 if together else 2)


class Block(nn.Module):
    """RepVGG's, as its public implementations have it."""

    def __init__(self, groups, traceable):
        super().__init__()
        self.traceable = traceable
        self.rbr_identity = nn.BatchNorm2d(4)
        self.rbr_dense = self.conv(3, 1, groups)
        self.rbr_1x1 = self.conv(1, 0, groups)
        self.se, self.act = nn.Identity(), nn.ReLU()

    def conv(self, size, padding, groups):
        conv = nn.Conv2d(4, 4, size, padding=padding, groups=groups, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(4))

    def forward(self, x):
        if not self.traceable and int(x.shape[-1]) > 1000:
            return x
        out = self.rbr_dense(x)
        out += self.rbr_1x1(x)
        return self.act(self.se(self.rbr_identity(x) + out))


def torch_net(traceable):
    torch.manual_seed(0)
    net = nn.Sequential(Block(1, traceable), Block(2, traceable), nn.Conv2d(4, 4, 1))
    net.append(nn.BatchNorm2d(4))
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(0.3, 1.3) if "var" in name else tensor.normal_().mul_(0.4)
    return net.eval()


def test_torch_blocks():
    net = torch_net(traceable=True)
    made, report = relucate.fold(net, example=(2, 4, 8, 8))
    assert report.certificate.passed
    assert (len(report.done), len(report.skipped)) == (7, 0)
    assert not [m for m in made.modules() if isinstance(m, nn.BatchNorm2d)]
    x = torch.randn(2, 4, 11, 9)
    torch.testing.assert_close(made(x), net(x), rtol=1e-4, atol=1e-4)


def test_a_branch_that_cannot_be_taken_out_keeps_no_other_norm():
    """Without a trace of the forward no term can be taken out of a sum; the others are folded."""
    net = torch_net(traceable=False)
    made, report = relucate.fold(net, example=(2, 4, 8, 8))
    assert report.certificate.passed
    assert (len(report.done), len(report.skipped)) == (5, 2)
    assert all("can't trace" in site.reason for site in report.skipped)
    assert len([m for m in made.modules() if isinstance(m, nn.BatchNorm2d)]) == 2
