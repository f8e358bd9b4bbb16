"""Walks through a graph: what is looked through, where they stop, products that are activations."""

from dataclasses import replace

import pytest

from relucate.graph import OPERATIONS, Graph, Node, select
from relucate.surgery.paths import Paths, is_transparent


def graph(*rows, outputs=None):
    """Return a graph of rows (name, op, inputs...); all shapes the same."""
    nodes = {name: Node(name, op, tuple(inputs), (None, 8), name) for name, op, *inputs in rows}
    first = tuple(name for name, op, *_ in rows if op == "input")
    return Graph("g", nodes, first, outputs or (rows[-1][0],), {})


def ends(paths, name):
    return [(end.kind, end.node.name) for end in paths.ahead(name)]


LOOKED_THROUGH = sorted(
    frozenset().union(*(select(kind=kind) for kind in ("drop", "pool", "pad", "shape")))
    | {"identity", "gaussian_noise", "rescale", "affine", "reduce"}
)


@pytest.mark.parametrize("op", LOOKED_THROUGH)
def test_looks_through(op):
    net = graph(("x", "input"), ("c", "conv", "x"), ("t", op, "c"), ("n", "batch_norm", "t"))
    paths = Paths(net)
    assert is_transparent(net.nodes["t"])
    assert paths.back("t").node.name == "c"
    assert ends(paths, "c") == [("norm", "n")]
    assert [node.name for node in paths.between("t", "c")] == ["t"]


@pytest.mark.parametrize("op", sorted(OPERATIONS.keys() - set(LOOKED_THROUGH)))
def test_stops_at_everything_else(op):
    net = graph(("x", "input"), ("c", "conv", "x"), ("t", op, "c"), ("n", "batch_norm", "t"))
    paths = Paths(net)
    assert paths.back("t").node.name == "t"
    assert ends(paths, "c")[0][1] == "t"


@pytest.mark.parametrize(
    ("op", "kind"),
    [
        ("conv_transpose", "linear"),
        ("einsum", "linear"),
        ("attention", "linear"),
        ("gelu", "act"),
        ("rms_norm", "norm"),
        ("concat", "merge"),
        ("multiply", "merge"),
        ("opaque", "other"),
        ("embedding", "other"),
        ("input", "input"),
    ],
)
def test_kinds(op, kind):
    assert Paths(graph(("x", op))).kind(Node("x", op, (), (None, 8))) == kind


def test_several_consumers_and_the_output():
    net = graph(
        ("x", "input"),
        ("n", "batch_norm", "x"),
        ("p", "max_pool", "n"),
        ("a", "relu", "n"),
        ("c", "conv", "p"),
        ("d", "dense", "p"),
        ("s", "add", "c", "d", "a"),
        outputs=("s", "p"),
    )
    found = ends(Paths(net), "n")
    assert sorted(found) == [("act", "a"), ("linear", "c"), ("linear", "d"), ("output", "p")]


def test_a_diamond_is_walked_once():
    rows = [("x", "input"), ("i0", "identity", "x")]
    for level in range(40):  # 2^40 paths
        rows += [(f"l{level}", "identity", f"i{level}"), (f"r{level}", "identity", f"i{level}")]
        rows += [(f"i{level + 1}", "concat", f"l{level}", f"r{level}")]
    paths = Paths(graph(*rows))
    assert ends(paths, "i0") == [("merge", "i1")]


GATES = {
    "silu": [("s", "sigmoid", "c")],
    "mish": [("p", "softplus", "c"), ("s", "tanh", "p")],
    "x*tanh": [("s", "tanh", "c")],
    "x*softmax": [("s", "softmax", "c")],
}


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("turned", [False, True])
def test_a_product_with_its_own_activation_is_one_activation(name, turned):
    product = ("m", "multiply", *(("s", "c") if turned else ("c", "s")))
    net = graph(
        ("x", "input"), ("c", "batch_norm", "x"), *GATES[name], product, ("d", "dense", "m")
    )
    paths = Paths(net)
    assert ends(paths, "c") == [("act", "m")]
    assert paths.act_op(net.nodes["m"]) == name
    assert paths.source(net.nodes["m"]) == "c"
    assert paths.back("m").kind == "act"
    assert ends(paths, "m") == [("linear", "d")]


def spelled(op, *rows, outputs=None):
    """Return the paths of a norm `n`, what is computed of it, `m` of the last two, a dense layer.

    A row is (name, op, input, attributes).
    """
    net = graph(("x", "input"), ("n", "batch_norm", "x"), *(row[:3] for row in rows))
    inputs = [row[0] for row in rows][-2:] if len(rows) > 1 else ["n", rows[0][0]]
    ends = graph(("x", "input"), ("m", op, *inputs), ("d", "dense", "m"))
    nodes = {**net.nodes, **{name: ends.nodes[name] for name in "md"}}
    for name, _, _, attrs in rows:
        nodes[name] = replace(nodes[name], attrs=nodes[name].attrs | attrs)
    return Paths(Graph("g", nodes, ("x",), outputs or ("d",), {}))


LEFT = ("a", "slice", "n", {"axis": 1, "start": 0, "stop": 4})
RIGHT = ("b", "slice", "n", {"axis": 1, "start": 4, "stop": 8})
HALF = ("h", "rescale", "n", {"scale": 0.5, "offset": 0.0})
SMALL = ("s", "rescale", "n", {"scale": 0.1, "offset": 0.0})
ROOT = ("r", "rescale", "n", {"scale": 0.5**0.5, "offset": 0.0})
SPELLED = {
    "maxout": ("maximum", [LEFT, RIGHT]),
    "leaky_relu": ("maximum", [SMALL]),
    "maximum": ("maximum", [("s", "rescale", "n", {"scale": -2.0, "offset": 0.0})]),
    "square": ("multiply", [SMALL]),
    "elementwise": ("divide", [SMALL, ("g", "sigmoid", "n", {})]),
    "minimum": ("minimum", [SMALL]),
    "glu": ("multiply", [RIGHT, ("g", "sigmoid", "b", {}), LEFT]),
    "x*tanh": ("multiply", [RIGHT, ("g", "tanh", "b", {}), LEFT]),
    "gelu": (
        "multiply",
        [ROOT, ("e", "erf", "r", {}), HALF, ("f", "rescale", "e", {"scale": 1.0, "offset": 1.0})],
    ),
    "silu": ("multiply", [("i", "identity", "n", {}), ("g", "sigmoid", "n", {})]),
}


@pytest.mark.parametrize("name", SPELLED)
def test_an_activation_of_one_value_is_known_by_what_it_computes(name):
    op, rows = SPELLED[name]
    paths = spelled(op, *rows)
    assert ends(paths, "n") == [("act", "m")]
    assert paths.act_op(paths.graph.nodes["m"]) == name
    assert paths.source(paths.graph.nodes["m"]) == "n"
    assert sorted(paths.gate("m")) == sorted(row[0] for row in rows)


@pytest.mark.parametrize(
    ("op", "rows", "outputs"),
    [
        ("multiply", [LEFT, RIGHT], None),  # no activation in it
        ("add", [("g", "sigmoid", "n", {}), SMALL], None),  # a branch around an activation
        ("add", [SMALL], None),  # a multiple of the value
        ("subtract", [("a", "relu", "n", {}), ("b", "relu", "n", {})], None),  # nothing
        ("maximum", [LEFT, ("b", "slice", "x", {"axis": 1, "start": 4, "stop": 8})], None),
        ("maximum", [LEFT, RIGHT], ("d", "a")),  # a part is read elsewhere too
    ],
)
def test_what_is_no_activation_of_one_value_is_a_merge(op, rows, outputs):
    paths = spelled(op, *rows, outputs=outputs)
    assert ("merge", "m") in [*ends(paths, "n"), *ends(paths, rows[-1][0])]
    assert paths.gate("m") == ()


def test_squeeze_and_excite_is_a_merge():
    net = graph(
        ("x", "input"),
        ("n", "batch_norm", "x"),
        ("g", "global_avg_pool", "n"),
        ("d", "dense", "g"),
        ("s", "sigmoid", "d"),
        ("m", "multiply", "n", "s"),
    )
    assert sorted(ends(Paths(net), "n")) == [("linear", "d"), ("merge", "m")]


def test_a_square_is_an_activation_where_nothing_else_reads_the_value():
    rows = ("x", "input"), ("n", "batch_norm", "x"), ("m", "multiply", "n", "n")
    assert ends(Paths(graph(*rows)), "n") == [("act", "m")]
    others = ("p", "avg_pool", "n"), ("s", "subtract", "m", "p")
    assert ("merge", "m") in ends(Paths(graph(*rows, *others)), "n")


@pytest.mark.parametrize("keepdims", [True, False])
def test_a_mean_square_is_a_statistic_where_its_axes_are_kept(keepdims):
    net = graph(
        ("x", "input"), ("n", "batch_norm", "x"), ("m", "multiply", "n", "n"), ("r", "reduce", "m")
    )
    attrs = {"function": "mean", "axes": (1,), "keepdims": keepdims}
    nodes = {**net.nodes, "r": replace(net.nodes["r"], attrs=attrs, shape=(None, 1))}
    kind = "merge" if keepdims else "act"
    assert ends(Paths(replace(net, nodes=nodes)), "n") == [(kind, "m")]


def test_the_halves_of_a_separable_layer():
    net = graph(
        ("x", "input"), ("d", "depthwise_conv", "x"), ("p", "conv", "d"), ("c", "conv", "p")
    )
    nodes = {name: replace(n, layer="sep") if name in "dp" else n for name, n in net.nodes.items()}
    paths = Paths(replace(net, nodes=nodes))
    assert [paths.whole(nodes[name]).name for name in "dpc"] == ["p", "p", "c"]
    assert [paths.front(nodes[name]).name for name in "dpc"] == ["d", "d", "c"]
    again = {**nodes, "p": replace(nodes["p"], call=1)}  # another call of the layer
    assert Paths(replace(net, nodes=again)).whole(nodes["d"]).name == "d"
