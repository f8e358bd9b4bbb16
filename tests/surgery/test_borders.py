"""The table of borders: a new way docks on in one place, and what is inserted is marked."""

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl
from tests.properties.test_fold import EXACT, Net, close
from tests.surgery.test_fold import conv, norm
from torch import nn

import relucate
from relucate.errors import InputError
from relucate.graph.evaluate import evaluate
from relucate.surgery.borders import BORDERS, Approximate, Border, Branch, strategies
from relucate.surgery.fold import fold_graph


class Explicit(Border):
    """Keep s x + t, and pad the zeros around it in a node of its own."""

    name = "explicit"

    def why_not(self, norm):
        """Return the reason where anything but one 3x3 convolution reads the norm."""
        (absorption, *others) = norm.plan
        direct = norm.point(absorption).name in norm.calls and absorption.pad is None
        return "" if direct and not others else "the strategy explicit needs one reader"

    def cost(self, norm):
        """Return the number of values in the norm's place."""
        return int(np.prod(norm.point(norm.plan[0]).shape[1:]))

    def apply(self, norm):
        """Insert both; the layer pads no more, and has nothing to absorb."""
        draft, (absorption,) = norm.draft, norm.plan
        node, point = draft.nodes[absorption.node], norm.point(absorption)
        arrays = {"scale": norm.channels.scale, "offset": norm.channels.shift}
        kept = draft.insert_behind(
            point.name, "affine", "kept", arrays=arrays, added_for=point.name
        )
        batch, height, width, channels = point.shape
        draft.insert(
            "zero_pad",
            "padded",
            [kept],
            (batch, height + 2, width + 2, channels),
            attrs={"padding": ((1, 1), (1, 1)), "data_format": "channels_last"},
            before=[node.name],
            added_for=node.name,
        )
        draft.change(node.name, attrs={**node.attrs, "padding": "valid"})
        return []


class Twin(Branch):
    """Branch under another name."""

    name = "twin"

    def is_automatic(self, norm):
        """Return True."""
        return True

    def cost(self, norm):
        """Return nothing: `auto` takes it."""
        return 0


@pytest.fixture
def register(monkeypatch):
    def add(border):
        monkeypatch.setitem(BORDERS, border.name, border)

    return add


def net(first=False, size=5):
    made = Net(3, first, np.float64)
    made.add("relu")
    norm(made)
    conv(made, size)
    return made


def folded(made, strategy="auto"):
    graph = made.graph()
    plan = fold_graph(graph, strategy)
    x = made.values["x"]
    for got, expected in zip(evaluate(plan.graph, x), evaluate(graph, x), strict=True):
        close(made, got, expected)
    (outcome,) = plan.outcomes
    return plan, outcome


@pytest.mark.parametrize("border", [Explicit(), Twin()])
def test_a_new_border_folds_by_its_name_and_nothing_else_is_touched(border, register):
    with pytest.raises(InputError, match=border.name):
        fold_graph(net().graph(), border.name)
    register(border)
    assert border.name in strategies()
    plan, outcome = folded(net(), border.name)
    assert (outcome.status, outcome.strategy) == ("done", border.name)
    assert not [node for node in plan.graph if node.kind == "norm"]


def keras_net():
    x = image = keras.Input((6, 6, 3))
    x = kl.BatchNormalization(name="norm")(kl.ReLU()(kl.Conv2D(4, 3, padding="same")(x)))
    model = keras.Model(image, kl.Conv2D(2, 3, padding="same", name="last")(x))
    generator = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(generator.uniform(0.3, 1.2, tuple(variable.shape)))
    return model


def torch_net():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3, padding=1)
    )
    with torch.no_grad():
        for tensor in (*net[2].parameters(), net[2].running_mean, net[2].running_var):
            tensor.uniform_(0.3, 1.2)
    return net.eval()


@pytest.mark.parametrize("build", [keras_net, torch_net])
def test_a_new_border_works_in_both_frameworks(build, register):
    register(Twin())
    example = {} if build is keras_net else {"example": (2, 3, 6, 6)}
    for strategy in ("twin", "auto"):
        _, report = relucate.fold(build(), strategy=strategy, **example)
        assert [site.strategy for site in report.sites] == ["twin"]
        assert report.certificate.passed


@pytest.mark.filterwarnings("ignore:relucate fold:UserWarning")
def test_only_an_inexact_border_may_give_another_function(register):
    class Careless(Approximate):
        name, exact = "careless", True

    class Honest(Approximate):
        name = "honest"

    register(Careless())
    register(Honest())
    with pytest.raises(relucate.errors.Refused, match="isn't returned"):
        relucate.fold(keras_net(), strategy="careless")
    _, report = relucate.fold(keras_net(), strategy="honest")
    assert not report.certificate.passed


def test_auto_takes_the_cheapest_that_may_be_used(register):
    assert folded(net(size=3))[1].strategy == "map"  # three channels behind, four in front
    assert folded(net(size=4))[1].strategy == "map"
    assert folded(net(size=5))[1].strategy == "shift"
    register(Twin())
    assert folded(net(size=5))[1].strategy == "twin"


def test_a_border_says_what_to_know_of_the_new_graph(register):
    class Odd(Branch):
        name = "odd"

        def warning(self, graph, layers):
            return f"{graph.name}: odd for {', '.join(layers)}"

    register(Odd())
    plan, _ = folded(net(), "odd")
    assert plan.warnings == ("net: odd for 'batch_norm2'",)
    assert folded(net())[0].warnings == ()


@pytest.mark.parametrize("strategy", EXACT)
def test_what_is_inserted_names_the_node_that_it_is_for(strategy):
    made = net()
    plan, outcome = folded(made, strategy)
    added = [node for node in plan.graph if node.name not in made.nodes]
    assert added
    of = "batch_norm2" if outcome.strategy == "shift" else made.last
    assert {node.added_for for node in added} == {of}
    assert not any(node.added_for for node in plan.graph if node.name in made.nodes)


def test_marks_outlive_a_plan():
    made = net(size=3)
    graph = folded(made)[0].graph
    again = Net(4, False, np.float64)
    again.__dict__.update(made.__dict__, nodes=dict(graph.nodes), tensors=dict(graph.tensors))
    (again.last,) = graph.outputs
    again.values[again.last] = evaluate(graph, made.values["x"])[0]
    norm(again)
    again.add("relu")
    assert folded(again)[1].reason == f"into {made.last}"


@pytest.mark.parametrize("strategy", EXACT)
@pytest.mark.parametrize("padded_first", [False, True])
def test_a_reused_layer_that_meets_padding_at_one_call_only(strategy, padded_first):
    # Its kernel changes once for all calls: at the other one W t is no bias, either.
    made = Net(11, False, np.float64)
    made.add("relu")
    start = norm(made)
    calls, keys = [], None
    for padded in (padded_first, not padded_first):
        made.last = start
        if padded:
            made.add("zero_pad", attrs={"padding": ((1, 1), (1, 1))})
        attrs = {"strides": (1, 1), "padding": "valid", "dilation": (1, 1), "groups": 1}
        arrays = {"kernel": made.normal(3, 3, 4, 2)} if keys is None else None
        layer = calls[0] if calls else None
        calls.append(made.add("conv", attrs=attrs, arrays=arrays, keys=keys, layer=layer))
        keys = dict(made.nodes[calls[0]].arrays)
    for name in calls:
        made.last = name
        made.add("global_avg_pool", attrs={"axes": (1, 2), "keepdims": False})
    made.add("add", *list(made.nodes)[-2:])
    assert folded(made, strategy)[1].status == "done"


# What needs no border: the framework's own padding by copies, and its interpolation.

TORCH = {
    "reflect": [nn.ReflectionPad2d(1), nn.Conv2d(4, 2, 3)],
    "replicate": [nn.Conv2d(4, 2, 3, padding=1, padding_mode="replicate")],
    "circular": [nn.Conv2d(4, 2, 3, padding=1, padding_mode="circular")],
    "bilinear": [nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(4, 2, 3)],
    "bilinear, corners": [
        nn.Upsample(scale_factor=1.7, mode="bilinear", align_corners=True),
        nn.Conv2d(4, 2, 3),
    ],
    "area": [nn.Upsample(size=(5, 4), mode="area"), nn.Conv2d(4, 2, 3)],
    "nearest": [nn.Upsample(size=(7, 9)), nn.Conv2d(4, 2, 3)],
}
KERAS = {
    "reflect": lambda x: keras.ops.pad(x, ((0, 0), (1, 1), (2, 2), (0, 0)), mode="reflect"),
    "bilinear": lambda x: kl.UpSampling2D(2, interpolation="bilinear")(x),
    "resizing": lambda x: kl.Resizing(7, 9, interpolation="bilinear")(x),
}


@pytest.mark.parametrize("layers", TORCH.values(), ids=TORCH)
def test_a_norm_in_front_of_torch_layers_that_pad_no_zeros(layers):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), *layers)
    with torch.no_grad():
        for tensor in (*net[2].parameters(), net[2].running_mean, net[2].running_var):
            tensor.uniform_(0.3, 1.2)
        net[2].weight[0] *= -1
    _, report = relucate.fold(net.eval(), example=(2, 3, 8, 8))
    assert [(site.status, site.strategy) for site in report.sites] == [("done", None)]
    assert report.certificate.passed


@pytest.mark.parametrize("call", KERAS.values(), ids=KERAS)
def test_a_norm_in_front_of_keras_layers_that_pad_no_zeros(call):
    x = image = keras.Input((6, 6, 3))
    x = kl.BatchNormalization()(kl.ReLU()(kl.Conv2D(4, 3)(x)))
    model = keras.Model(image, kl.Conv2D(2, 3)(call(x)))
    generator = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(generator.uniform(0.3, 1.2, tuple(variable.shape)))
    _, report = relucate.fold(model)
    assert [(site.status, site.strategy) for site in report.sites] == [("done", None)]
    assert report.certificate.passed
