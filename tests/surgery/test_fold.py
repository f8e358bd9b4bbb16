"""What a scale and shift may pass on its way to a linear layer, and by which strategy."""

import numpy as np
import pytest
from tests.properties.test_fold import EXACT, Net, close

from relucate.graph.evaluate import evaluate
from relucate.surgery.fold import fold_graph


def behind_an_activation(*between, negative=False, window=(1, 1), first=False):
    """relu, norm, what stands between, conv; statistics are random, gammas positive or not."""
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
    (reflected,) = [
        fold(behind_an_activation(("pad", {**pad[1], "mode": "reflect", "value": 0.0})))
    ]
    assert reflected[1].status == "skipped"
