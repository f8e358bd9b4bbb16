"""Random networks with random statistics: converting keeps the function in every order."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.properties.test_fold import close, computed, nets

from relucate.errors import Refused
from relucate.surgery.convert import convert_graph
from relucate.surgery.moments import Moments
from relucate.surgery.rebuild import rebuild_graph
from relucate.surgery.sites import sites

ORDERS = ["linear-norm-act", "linear-act-norm", "norm-linear-act", "act-norm-linear", "linear-act"]
LOOSE = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def sound(graph):
    """Edges lead to earlier nodes, tensors are used, shapes of norms fit."""
    seen = set()
    for node in graph:
        assert set(node.inputs) <= seen
        seen.add(node.name)
        if node.op == "batch_norm":
            size = node.shape[node.attrs["axis"]]
            assert {graph.tensors[key].shape for key in node.arrays.values()} == {(size,)}
    assert set(graph.outputs) <= seen
    assert {key for node in graph for key in node.arrays.values()} == set(graph.tensors)


def measured(net, plan, seed):
    """Random moments for each placed norm: any numbers keep the function."""
    random = np.random.default_rng(seed)
    made = {}
    for name in plan.placed:
        node = plan.graph.nodes[name]
        size, key = node.shape[node.attrs["axis"]], node.arrays["moving_mean"]
        if key not in made:
            made[key] = Moments(random.normal(size=size), random.uniform(0, 3, size), 9)
    return {name: made[plan.graph.nodes[name].arrays["moving_mean"]] for name in plan.placed}


def check(net, order):
    graph = net.graph()
    before = {key: value.copy() for key, value in graph.tensors.items()}
    plan = convert_graph(graph, order)
    sound(plan.graph)
    x = np.random.default_rng(1).normal(size=net.values["x"].shape) * 2
    expected, got = computed(graph, x), computed(plan.graph, x)
    close(net, got, expected)
    if plan.placed:
        again = convert_graph(graph, order, moments=measured(net, plan, 3))
        sound(again.graph)
        close(net, computed(again.graph, x), expected)
        moved = set(plan.placed)
        norms = {node.name for node in plan.graph if node.kind == "norm"}
        assert moved <= norms
    if order != "linear-act":
        assert sum(n.kind == "norm" for n in plan.graph) == sum(n.kind == "norm" for n in graph)
    for key, value in before.items():
        np.testing.assert_array_equal(graph.tensors[key], value)
    return plan


@given(nets(), st.sampled_from(ORDERS))
@settings(max_examples=200, **LOOSE)
def test_converting_keeps_the_function(net, order):
    check(net, order)


@given(nets(), st.sampled_from(["linear-norm-act", "linear-act-norm"]))
@settings(max_examples=60, **LOOSE)
def test_there_and_back(net, order):
    graph = net.graph()
    back = "linear-act-norm" if order == "linear-norm-act" else "linear-norm-act"
    there = convert_graph(graph, order).graph
    again = convert_graph(there, back).graph
    x = np.random.default_rng(2).normal(size=net.values["x"].shape)
    close(net, computed(again, x), computed(graph, x))


@given(nets(), st.sampled_from([*ORDERS, "norm-act-linear", "act-linear-norm"]))
@settings(max_examples=100, **LOOSE)
def test_rebuilding_gives_a_sound_graph(net, order):
    graph = net.graph()
    try:
        plan = rebuild_graph(graph, order)
    except Refused as refused:  # norms that stay would read as another order
        if "which stays" not in str(refused):
            raise
        return
    sound(plan.graph)
    x = np.random.default_rng(1).normal(size=net.values["x"].shape)
    expected, got = computed(graph, x), computed(plan.graph, x)
    assert got.shape == expected.shape
    kinds = [sum(node.kind == kind for node in plan.graph) for kind in ("linear", "act")]
    assert kinds == [sum(node.kind == kind for node in graph) for kind in ("linear", "act")]
    if order == "linear-act":
        assert not sites(plan.graph)


@pytest.mark.nightly
@given(nets(), st.sampled_from(ORDERS))
@settings(max_examples=2000, **LOOSE)
def test_converting_keeps_the_function_nightly(net, order):
    check(net, order)
