"""Blocks stacked at random in a known order: audit gives that order back."""

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import relucate
from relucate.graph import Graph, Node
from relucate.keras import conv2d_bn, dense_bn
from relucate.surgery.audit import audit_graph
from relucate.surgery.sites import sites

ORDERS = ("linear-norm-act", "linear-act-norm", "norm-act-linear", "norm-linear-act")
WITH_DROP = tuple(
    "-".join((*tokens[:i], "drop", *tokens[i:]))
    for tokens in (order.split("-") for order in ORDERS)
    for i in range(4)
)
LOOKED_THROUGH = ("max_pool", "avg_pool", "zero_pad", "dropout", "identity", "permute", "rescale")


plans = st.fixed_dictionaries(
    {
        "order": st.sampled_from([*ORDERS, *WITH_DROP]),
        "images": st.booleans(),
        "data_format": st.sampled_from(["channels_last", "channels_first"]),
        "norm": st.sampled_from(["batch", "layer", "group"]),
        "act": st.sampled_from(["relu", "tanh", "gelu", "swish", keras.layers.PReLU]),
        "between": st.lists(
            st.sampled_from(["nothing", "pool", "drop", "residual"]), min_size=1, max_size=4
        ),
        "head": st.booleans(),
    }
)


def build(plan):
    """Return a Keras model of a few blocks, all in one order."""
    common = {"order": plan["order"], "norm": plan["norm"], "activation": plan["act"]}
    common["dropout"] = 0.3 if "drop" in plan["order"] else 0.0
    x = image = keras.Input((8, 8, 8) if plan["images"] else (8,))
    for between in plan["between"]:
        shortcut = x
        if plan["images"]:
            x = conv2d_bn(x, 8, 3, 3, data_format=plan["data_format"], **common)
        else:
            x = dense_bn(x, 8, **common)
        if between == "pool" and plan["images"]:
            pool = keras.layers.MaxPooling2D(2, padding="same", data_format=plan["data_format"])
            x = pool(x)
        elif between == "drop":
            x = keras.layers.Dropout(0.1)(x)
        elif between == "residual":
            x = keras.layers.Add()([x, shortcut])
    if plan["head"]:
        x = keras.layers.Dense(3)(keras.layers.Flatten()(x))
    return keras.Model(image, x)


@given(plans)
@settings(max_examples=60, deadline=None)
def test_audit_gives_the_order_back(plan):
    expected = plan["order"].replace("drop-", "").replace("-drop", "")
    report = relucate.audit(build(plan))
    assert report.summary == {expected: len(plan["between"])}
    assert report.unknown == ()


OP = {"linear": "conv", "norm": "batch_norm", "act": "relu"}


@st.composite
def graphs(draw):
    """A chain of blocks in one order, with layers that the audit ignores between any two."""
    order = draw(st.sampled_from(ORDERS))
    nodes, last = {"x": Node("x", "input", (), (None, 4, 4, 8))}, "x"
    tokens = [OP[token] for token in order.split("-")] * draw(st.integers(1, 12))
    for op in [*tokens, *(["dense"] if draw(st.booleans()) else [])]:
        for inner in [*draw(st.lists(st.sampled_from(LOOKED_THROUGH), max_size=2)), op]:
            name = f"{inner}{len(nodes)}"
            attrs = {"axis": -1, "data_format": "channels_last", "padding": "valid"}
            nodes[name] = Node(name, inner, (last,), (None, 4, 4, 8), name, attrs=attrs)
            last = name
    return Graph("g", nodes, ("x",), (last,), {}), order


@given(graphs())
@settings(max_examples=200, deadline=None)
def test_in_chains_of_any_length(case):
    graph, order = case
    audit = audit_graph(graph, select=["N201"])
    assert set(audit.summary) == {order}
    assert audit.findings == ()


@st.composite
def unread(draw):
    """A chain of blocks in one order as its operations, and which of them are unknown."""
    order = draw(st.sampled_from(ORDERS))
    ops = [OP[token] for token in order.split("-")] * draw(st.integers(1, 6))
    for _ in range(draw(st.integers(0, 3))):
        ops.insert(draw(st.integers(0, len(ops))), draw(st.sampled_from(LOOKED_THROUGH)))
    ops += draw(st.sampled_from([[], ["dense"], ["dense", "softmax"], ["add"]]))
    most = draw(st.sampled_from([1, 1, 4]))
    gone = draw(st.sets(st.integers(0, len(ops) - 1), min_size=1, max_size=most))
    return ops, gone


def line(ops, gone=()):
    nodes, last = {"x": Node("x", "input", (), (None, 4, 4, 8))}, "x"
    for number, op in enumerate(ops):
        name = f"{op}{number}"
        known = op != "add" and number not in gone
        inputs = ("x", last) if op == "add" else (last,)
        attrs = {"axis": -1, "data_format": "channels_last", "padding": "valid"} if known else {}
        op = "opaque" if number in gone else op
        nodes[name] = Node(name, op, inputs, (None, 4, 4, 8), name, attrs=attrs)
        last = name
    return Graph("g", nodes, ("x",), (last,), {})


@given(unread())
@settings(max_examples=500, deadline=None)
def test_a_layer_that_cannot_be_read_misleads_nobody(case):
    ops, gone = case
    truth = {site.name: site for site in sites(line(ops))}
    names = {f"{ops[number]}{number}" for number in gone}
    found = sites(line(ops, gone))
    assert {site.name for site in found} == truth.keys() - names
    for site in found:
        true = truth[site.name]
        if site.unknown:
            assert set(site.unknown) <= names
            assert len(gone) > 1 or true.order in site.orders
        else:
            assert (site.order, site.linear, site.act) == (true.order, true.linear, true.act)


@st.composite
def tangles(draw):
    """Layers that read any of those before them, and another topological order of the same."""
    nodes = {"x": Node("x", "input", (), (None, 4, 4, 8))}
    for op in draw(st.lists(st.sampled_from([*OP.values(), "relu", "add"]), max_size=30)):
        name, earlier = f"{op}{len(nodes)}", list(nodes)
        # Mostly what came just before: whole blocks, several readers of one value.
        back = st.integers(1, min(4, len(earlier)))
        sources = [earlier[-draw(back)] for _ in range(1 + (op == "add"))]
        attrs = {"axis": -1, "data_format": "channels_last", "padding": "valid"}
        nodes[name] = Node(name, op, tuple(sources), (None, 4, 4, 8), name, attrs=attrs)
    read = {source for node in nodes.values() for source in node.inputs}
    ends = tuple(name for name in nodes if name not in read)
    random, other, left = draw(st.randoms(use_true_random=False)), {}, dict(nodes)
    while left:
        ready = [name for name, node in left.items() if all(s in other for s in node.inputs)]
        name = random.choice(ready)
        other[name] = left.pop(name)
    return [Graph("g", listed, ("x",), ends, {}) for listed in (nodes, other)]


@given(tangles())
@settings(max_examples=300, deadline=None)
def test_how_the_layers_are_listed_changes_no_order(graphs):
    one, other = ({site.name: site.order for site in sites(graph)} for graph in graphs)
    assert one == other


@pytest.mark.parametrize("odd", ORDERS[1:])
def test_the_property_tells_orders_apart(odd):
    x = image = keras.Input((8,))
    for order in (ORDERS[0], ORDERS[0], odd):
        x = keras.layers.Add()([dense_bn(x, 8, order=order), x])
    report = relucate.audit(keras.Model(image, x))
    assert report.summary[ORDERS[0]] == 2
    assert set(report.summary) != {ORDERS[0]}
