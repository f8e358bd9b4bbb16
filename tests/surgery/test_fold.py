"""What a scale and shift may pass on its way to a linear layer, and by which strategy."""

from dataclasses import replace

import numpy as np
import pytest
from tests.properties.test_fold import EXACT, Net, close

from relucate.graph.evaluate import evaluate
from relucate.surgery.fold import fold_graph


def behind_an_activation(*between, negative=False, window=(1, 1), first=False):
    """relu, norm, what is between, conv; statistics are random, gammas positive or not."""
    net = Net(3, first, np.float64)
    net.add("relu")
    size = net.channels()
    gamma = net.random.uniform(0.5, 1.5, size) * np.where(np.arange(size) % 2, -1, 1) ** negative
    arrays = {
        "gamma": gamma,
        "beta": net.random.normal(size=size),
        "moving_mean": net.random.normal(size=size),
        "moving_variance": net.random.uniform(0.2, 3.0, size),
    }
    net.add("batch_norm", attrs={"axis": net.axis, "epsilon": 1e-3}, arrays=arrays)
    for op, attrs in between:
        net.add(op, attrs=attrs)
    attrs = {"strides": (1, 1), "padding": "same", "dilation": (1, 1), "groups": 1}
    net.add("conv", attrs=attrs, arrays={"kernel": net.normal(*window, net.channels(), 5)})
    return net


def fold(net, strategy="auto"):
    plan = fold_graph(net.graph(), strategy)
    (outcome,) = plan.outcomes
    (expected,), (got,) = (
        evaluate(net.graph(), net.values["x"]),
        evaluate(plan.graph, net.values["x"]),
    )
    if strategy != "approximate":
        close(net, got, expected)
    return plan.graph, outcome, np.abs(got - expected).max()


def pool(op, padding, **more):
    return op, {"window": (3, 3), "strides": (1, 1), "padding": padding, **more}


@pytest.mark.parametrize("padding", ["same", ((1, 0), (1, 1))])
@pytest.mark.parametrize("first", [False, True])
def test_an_average_pool_lets_a_shift_through_unless_it_counts_padded_zeros(padding, first):
    counted = behind_an_activation(pool("avg_pool", padding, count_include_pad=True), first=first)
    _, outcome, _ = fold(counted)
    assert outcome.status == "skipped"
    assert "counts padded zeros" in outcome.reason
    other = behind_an_activation(pool("avg_pool", padding, count_include_pad=False), first=first)
    assert fold(other)[1].status == "done"
    whole = behind_an_activation(pool("avg_pool", "valid", count_include_pad=True), first=first)
    assert fold(whole)[1].status == "done"


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_max_pool_lets_no_negative_scale_through(padding):
    assert fold(behind_an_activation(pool("max_pool", padding)))[1].status == "done"
    _, outcome, _ = fold(behind_an_activation(pool("max_pool", padding), negative=True))
    assert outcome.status == "skipped"
    assert "no negative scale" in outcome.reason


@pytest.mark.parametrize("strategy", EXACT)
@pytest.mark.parametrize("first", [False, True])
def test_every_strategy_is_exact_through_zero_padding(strategy, first):
    net = behind_an_activation(negative=True, window=(3, 3), first=first)
    graph, outcome, _ = fold(net, strategy)
    assert outcome.status == "done"
    # five channels behind the convolution, four in front: a shift there moves fewer values
    assert outcome.strategy == ("shift" if strategy == "auto" else strategy)
    added = {node.op for node in graph} - {node.op for node in net.graph()}
    expected = {"map": {"affine"}, "shift": {"affine"}, "ones": {"slice", "rescale", "concat"}}
    assert added == expected.get(outcome.strategy, {"slice", "rescale", "add"})


def test_a_bias_in_place_of_the_border_is_wrong_there_and_only_there():
    net = behind_an_activation(window=(3, 3))
    graph, outcome, gap = fold(net, "approximate")
    assert (outcome.strategy, outcome.status) == ("approximate", "done")
    assert gap > 0.1
    x = net.values["x"]
    (expected,), (got,) = evaluate(net.graph(), x), evaluate(graph, x)
    np.testing.assert_allclose(got[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], rtol=0, atol=1e-9)


def test_zeros_padded_by_a_layer_of_their_own():
    pad = ("zero_pad", {"padding": ((1, 0), (2, 1))})
    for strategy in EXACT:
        _, outcome, _ = fold(behind_an_activation(pad, window=(3, 3)), strategy)
        assert outcome.status == "done"


@pytest.mark.parametrize("mode", ["reflect", "symmetric", "edge", "wrap", "maximum", "linear_ramp"])
@pytest.mark.parametrize("first", [False, True])
def test_padding_that_copies_values_needs_no_border(mode, first):
    net = Net(3, first, np.float64)
    net.add("relu")
    norm(net)
    net.add("pad", attrs={"padding": ((1, 0), (2, 1)), "mode": mode, "value": None})
    conv(net, padding="valid")
    (outcome,) = outcomes(net)
    copies = mode in {"reflect", "symmetric", "edge", "wrap"}
    assert (outcome.status, outcome.strategy) == ("done" if copies else "skipped", None)


def test_a_torch_model_takes_images_of_any_size():
    net = behind_an_activation(window=(3, 3), first=True)
    net.add("avg_pool", attrs={"window": (2, 2), "strides": (2, 2), "padding": "valid"})
    small = {"strides": (2, 2), "padding": "same", "dilation": (1, 1), "groups": 1}
    net.add("relu")
    norm(net)
    net.add("conv", attrs=small, arrays={"kernel": net.normal(3, 3, net.channels(), 2)})
    strategies = {}
    for framework in ("keras", "torch"):
        plan = fold_graph(replace(net.graph(), framework=framework))
        strategies[framework] = [outcome.strategy for outcome in plan.outcomes]
        assert plan.warnings == ()
    assert strategies == {"keras": ["shift", "map"], "torch": ["shift", "shift"]}
    assert fold_graph(net.graph(), "map").warnings == ()
    (warning,) = fold_graph(replace(net.graph(), framework="torch"), "map").warnings
    assert "example's size only" in warning


def norm(net, axis=None, **attrs):
    """Add a batch norm with random statistics, gammas of zero and below among them."""
    axis = net.axis if axis is None else axis
    size = net.values[net.last].shape[axis]
    arrays = {
        "gamma": net.random.normal(size=size) * (np.arange(size) != 1),
        "beta": net.random.normal(size=size),
        "moving_mean": net.random.normal(size=size),
        "moving_variance": net.random.uniform(0.2, 3.0, size),
    }
    return net.add("batch_norm", attrs={"axis": axis, "epsilon": 1e-3, **attrs}, arrays=arrays)


def conv(net, size=4, window=3, padding="same", stride=1):
    attrs = {"strides": (stride,) * 2, "padding": padding, "dilation": (1, 1), "groups": 1}
    kernel = net.normal(window, window, net.channels(), size)
    return net.add("conv", attrs=attrs, arrays={"kernel": kernel})


def outcomes(net, strategy="auto"):
    """Fold, check that it is exact, and return what became of the norms."""
    graph, plan = net.graph(), fold_graph(net.graph(), strategy)
    (expected,), (got,) = (evaluate(g, net.values["x"]) for g in (graph, plan.graph))
    close(net, got, expected)
    return plan.outcomes


@pytest.mark.parametrize("op", ["multiply", "maximum", "minimum", "divide"])
def test_a_norm_behind_a_merge_that_is_not_linear_goes_forwards(op):
    net = Net(5, False, np.float64)
    start = net.last
    one = conv(net)
    net.last = start
    conv(net)
    two = net.add("sigmoid")
    net.add(op, one, two)
    norm(net)
    conv(net, window=1)
    (outcome,) = outcomes(net)
    assert (outcome.status, outcome.reason) == ("done", f"into {net.last}")
    net.nodes.popitem()
    net.last = list(net.nodes)[-1]
    (outcome,) = outcomes(net)
    assert outcome.reason.startswith(f"backwards: '{op}4' ({op}) lies between; forwards: ")


def channels_of_zeros(net, around=(0, 0)):
    pair = (2, 1)
    given = (pair, around) if net.first else (around, pair)
    layout = "channels_last" if net.first else "channels_first"
    return net.add("zero_pad", attrs={"padding": given, "data_format": layout})


SLICES = {
    "some rows": (False, {"start": 1, "step": 2}, "done"),
    "rows turned round": (False, {"step": -1}, "done"),
    "channels turned round": (True, {"step": -1}, "done"),
    "the first channels": (True, {"stop": 3}, "skipped"),
}


@pytest.mark.parametrize("name", SLICES)
@pytest.mark.parametrize("first", [False, True])
def test_a_norm_behind_a_slice_goes_backwards_if_that_keeps_the_channels(first, name):
    channels, ends, status = SLICES[name]
    net = Net(6, first, np.float64)
    conv(net)
    axis = net.axis % 4 if channels else net.axis % 4 % 3 + 1
    net.add("slice", attrs={"axis": axis, **ends})
    norm(net)
    net.add("relu")
    (outcome,) = outcomes(net)
    assert outcome.status == status
    assert status == "done" or "takes some of the channels" in outcome.reason


@pytest.mark.parametrize("strategy", EXACT)
@pytest.mark.parametrize("first", [False, True])
def test_channels_of_zeros_stay_zeros(first, strategy):
    net = Net(6, first, np.float64)
    net.add("relu")
    norm(net)
    channels_of_zeros(net)
    conv(net)
    (outcome,) = outcomes(net, strategy)
    assert outcome.status == "done"


def test_channels_of_zeros_with_zeros_around():
    net = Net(6, False, np.float64)
    net.add("relu")
    norm(net)
    channels_of_zeros(net, (1, 0))
    conv(net)
    (outcome,) = outcomes(net)
    assert outcome.status == "skipped"
    assert "pads zeros to the channels and around them, too" in outcome.reason


@pytest.mark.parametrize("shifts", [False, True])
def test_a_norm_behind_channels_of_zeros(shifts):
    net = Net(7, True, np.float64)
    conv(net)
    channels_of_zeros(net)
    name = norm(net)
    if not shifts:
        for role in ("beta", "moving_mean"):
            net.tensors[f"{name}/{role}"][:2] = net.tensors[f"{name}/{role}"][-1:] = 0
    net.add("relu")
    (outcome,) = outcomes(net)
    if shifts:
        assert "pads channels of zeros, which would be shifted" in outcome.reason
    else:
        assert (outcome.status, outcome.reason) == ("done", "into conv1")


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("max_pool", {"window": (2, 2), "strides": (1, 1), "padding": "same"}),
        ("avg_pool", {"window": (2, 2), "strides": (1, 1), "padding": "same"}),
        ("crop", {"cropping": ((1, 1), (0, 0))}),
        ("upsample", {"factors": (2, 1)}),
    ],
)
def test_an_image_axis_is_no_channel_axis(op, attrs):
    net = Net(8, False, np.float64)
    net.add("relu")
    norm(net, axis=1)
    net.add(op, attrs=attrs)
    net.add("flatten")
    size = net.values[net.last].shape[-1]
    net.add("dense", arrays={"kernel": net.normal(size, 3)})
    (outcome,) = outcomes(net)
    assert f"'{op}3' ({op}) works along the norm's axis 1" in outcome.reason


def test_dropout_that_never_rests_lets_no_shift_through():
    net = behind_an_activation(("dropout", {"rate": 0.5}))
    (name,) = (node.name for node in net.nodes.values() if node.op == "dropout")
    net.nodes[name] = replace(net.nodes[name], attrs={"rate": 0.5, "forced": True})
    (outcome,) = fold_graph(net.graph()).outcomes
    assert f"'{name}' (dropout) is called in training mode" in outcome.reason


@pytest.mark.parametrize(
    ("op", "attrs", "passes"),
    [
        ("gaussian_noise", {"stddev": 0.5}, False),
        ("alpha_dropout", {"rate": 0.5}, False),
        ("gaussian_dropout", {"rate": 0.5}, True),
    ],
)
def test_noise_that_never_rests_lets_no_scale_through(op, attrs, passes):
    net = behind_an_activation((op, attrs))
    for key in net.tensors:
        if key.endswith(("beta", "moving_mean")):
            net.tensors[key][:] = 0
    (name,) = (node.name for node in net.nodes.values() if node.op == op)
    net.nodes[name] = replace(net.nodes[name], attrs={**attrs, "forced": True})
    (outcome,) = fold_graph(net.graph()).outcomes
    if passes:  # it multiplies by random numbers
        assert outcome.status == "done"
    else:
        assert f"'{name}' ({op}) is called in training mode" in outcome.reason


@pytest.mark.parametrize("strategy", EXACT)
@pytest.mark.parametrize("first", [False, True])
def test_a_norm_behind_the_border_of_another_is_absorbed_too(first, strategy):
    net = Net(9, first, np.float64)
    norm(net)
    conv(net, stride=2)
    norm(net)
    net.add("relu")
    assert [outcome.status for outcome in outcomes(net, strategy)] == ["done", "done"]
    assert outcomes(net, strategy)[1].reason.startswith("into conv2")


def test_an_affine_of_the_users_own_is_left_alone():
    net = Net(9, False, np.float64)
    conv(net)
    net.add("affine", arrays={"offset": net.random.normal(size=4)})
    norm(net)
    net.add("relu")
    (outcome,) = outcomes(net)
    assert "(affine) lies between" in outcome.reason


@pytest.mark.parametrize("strategy", EXACT)
def test_calls_that_differ_in_epsilon_are_no_calls_of_one_layer(strategy):
    net = Net(10, False, np.float64)
    conv(net)
    name = norm(net)
    net.add("relu")
    conv(net)
    attrs = {"axis": -1, "epsilon": 0.5}
    net.add("batch_norm", attrs=attrs, keys=dict(net.nodes[name].arrays), layer=name)
    net.add("relu")
    (outcome,) = outcomes(net, strategy)
    assert outcome.reason == "its calls differ, in epsilon or in axis"


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("back", [False, True])
def test_a_reshape_lets_channels_through_that_are_along_one_axis_on_both_sides(first, back):
    net = Net(12, first, np.float64)
    if back:  # DCGAN's start
        net.add("flatten")
        net.add("dense", arrays={"kernel": net.normal(net.channels(), 72)})
        net.add("reshape", attrs={"target": (8, 3, 3) if first else (3, 3, 8)})
        norm(net)
        net.add("relu")
        conv(net)
    else:
        net.add("relu")
        norm(net)
        size = int(np.prod(net.values[net.last].shape[1:]))
        net.add("reshape", attrs={"target": (size,)})
        net.add("dense", arrays={"kernel": net.normal(size, 3)})
    (outcome,) = outcomes(net)
    assert outcome.status == "done"


@pytest.mark.parametrize(
    ("target", "status"), [((36, 4), "done"), ((12, 12), "done"), ((72, 2), "skipped")]
)
def test_a_reshape_that_spreads_the_channels(target, status):
    net = Net(13, False, np.float64)
    net.add("relu")
    norm(net)
    net.add("reshape", attrs={"target": target})
    net.add("dense", arrays={"kernel": net.normal(net.channels(), 3)})
    (outcome,) = outcomes(net)
    assert outcome.status == status
    assert status == "done" or "spreads the channels over several axes" in outcome.reason


@pytest.mark.parametrize("first", [False, True])
def test_a_norm_behind_a_flatten_of_one_pixel(first):
    net = Net(14, first, np.float64)
    conv(net, window=6, padding="valid")
    net.add("flatten")
    norm(net)
    net.add("relu")
    (outcome,) = outcomes(net)
    assert (outcome.status, outcome.reason) == ("done", "into conv1")


@pytest.mark.parametrize("count", [2, 3])
def test_a_chain_of_norms_goes_in_one_call(count):
    net = Net(15, False, np.float64)
    net.add("relu")
    for _ in range(count):
        norm(net)
    conv(net)
    assert [outcome.status for outcome in outcomes(net)] == ["done"] * count


def test_a_norm_between_activations_takes_the_norm_before_it():
    net = Net(16, True, np.float64)
    net.add("relu")
    norm(net)
    last = norm(net)
    net.add("tanh")
    first, second = outcomes(net)
    assert (first.status, first.reason) == ("done", f"into {last}")
    assert second.status == "skipped"


def test_a_chain_in_front_of_zero_padding_leaves_one_shift():
    net = Net(17, True, np.float64)
    net.add("relu")
    norm(net)
    norm(net)
    conv(net)
    assert [o.status for o in outcomes(net, "shift")] == ["done"] * 2
    graph = fold_graph(net.graph(), "shift").graph
    assert [node.op for node in graph] == ["input", "relu", "affine", "conv"]


@pytest.mark.parametrize("build", ["axis", "no gamma", "no statistics", "forked", "shared", "tied"])
def test_a_norm_that_cannot_take_another(build):
    net = Net(18, False, np.float64)
    net.add("relu")
    first = norm(net)
    second = norm(net, axis=1 if build == "axis" else None)
    net.add("tanh")
    if build == "no gamma":
        del net.nodes[second].arrays["gamma"], net.tensors[f"{second}/gamma"]
    elif build == "no statistics":
        for role in ("moving_mean", "moving_variance"):
            del net.nodes[second].arrays[role], net.tensors[f"{second}/{role}"]
    elif build == "forked":
        net.add("multiply", net.last, first)
    elif build == "shared":
        keys = dict(net.nodes[second].arrays)
        net.add("batch_norm", attrs=net.nodes[second].attrs, layer=second, keys=keys)
        net.add("sigmoid")
    elif build == "tied":
        net.nodes[second].arrays["gamma"] = f"{first}/gamma"
        del net.tensors[f"{second}/gamma"]
    assert outcomes(net)[0].status == "skipped"
