"""Each norm's order by data flow: plain chains, branches, residuals, shared layers, ambiguity."""

from collections import Counter

import pytest

from relucate.graph import Graph, Node
from relucate.surgery.sites import sites

OPS = {"L": "conv", "N": "batch_norm", "A": "relu", "P": "max_pool", "D": "dropout", "+": "add"}


def chain(text, skips=()):
    """Return a graph from letters in a row; a skip (i, j) adds the value behind letter i at j.

    A '+' adds what its skip brings. The batch norms carry their position in their name: n3.
    """
    nodes, last = {"x": Node("x", "input", (), (None, 4, 4, 8))}, "x"
    names = {-1: "x"}
    for position, letter in enumerate(text):
        name = f"{letter.lower()}{position}"
        inputs = (last, *(names[i] for i, j in skips if j == position))
        attrs = {"data_format": "channels_last"} if letter == "L" else {"axis": -1}
        nodes[name] = Node(name, OPS[letter], inputs, (None, 4, 4, 8), name, attrs=attrs)
        names[position] = last = name
    return Graph("g", nodes, ("x",), (last,), {})


def orders(graph):
    return [site.order for site in sites(graph)]


BEFORE, AFTER = "linear-norm-act", "linear-act-norm"
PRE, INPUT, FIRST = "norm-act-linear", "norm-linear-act", "act-norm-linear"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("LNA", [BEFORE]),
        ("LAN", [AFTER]),
        ("NAL", [PRE]),
        ("NLA", [INPUT]),
        ("LNALNA", [BEFORE] * 2),
        ("LANLAN", [AFTER] * 2),
        ("NALNAL", [PRE] * 2),
        ("NLANLA", [INPUT] * 2),
        ("ANLANL", [FIRST] * 2),
        ("ANLANLA", [FIRST] * 2),
        # with a dense head
        ("LNALNAPL", [BEFORE] * 2),
        ("LANLANPL", [AFTER] * 2),
        ("NALNALPL", [PRE] * 2),
        ("NLANLAPL", [INPUT] * 2),
        # with dropout and pooling anywhere
        ("LDNPALPNDA", [BEFORE] * 2),
        ("LPADNPLDAN", [AFTER] * 2),
        # one order after another
        ("LANNAL", [AFTER, PRE]),
        ("LNANLA", [BEFORE, INPUT]),
        ("NALLNA", [PRE, BEFORE]),
        # a norm on the input takes nothing from the block behind it
        ("NLNALNAL", ["norm-linear", BEFORE, BEFORE]),
        # parts of orders
        ("LN", ["linear-norm"]),
        ("LNL", ["linear-norm"]),
        ("NL", ["norm-linear"]),
        ("NA", ["norm-act"]),
        ("AN", ["act-norm"]),
        ("ANL", ["act-norm-linear"]),
        ("N", ["norm"]),
        ("NN", ["norm", "norm"]),
        ("LNNA", ["linear-norm", "norm-act"]),
        ("", []),
    ],
)
def test_chains(text, expected):
    assert orders(chain(text)) == expected


def test_which_layers_belong_to_a_site():
    (site,) = sites(chain("LNA"))
    assert (site.name, site.kind, site.linear, site.act, site.act_op) == (
        "n1",
        "batch",
        "l0",
        "a2",
        "relu",
    )
    first, second = sites(chain("NALNAL"))
    assert (first.linear, second.linear) == ("l2", "l5")
    first, second = sites(chain("LANLAN"))
    assert (first.linear, first.act, second.linear, second.act) == ("l0", "a1", "l3", "a4")


class TestResidual:
    def test_before_inside_a_block_and_the_last_act_after_the_addition(self):
        graph = chain("LNALN+A", [(-1, 5)])
        first, second = sites(graph)
        assert (first.order, second.order) == (BEFORE, "linear-norm")
        assert (second.act, second.note) == (None, "relu after add")

    def test_pre_activation(self):
        # a stem, then blocks of norm-act-conv-norm-act-conv, each with a skip
        graph = chain("LNALNAL+NALNAL+NAPL", [(0, 7), (7, 14)])
        assert orders(graph) == [PRE] * 5

    def test_a_stem_of_its_own_order_keeps_it(self):
        graph = chain("LNA+NAL+NAL+", [(-1, 3), (3, 7), (7, 11)])
        assert orders(graph) == [BEFORE, PRE, PRE]

    def test_the_majority_decides_an_open_chain_only(self):
        # L N A L N A L: open at both ends; alone it reads linear first
        assert orders(chain("LNALNAL")) == [BEFORE] * 2
        # with anchored blocks of the other order behind an addition it reads as they do
        graph = chain("LNALNAL+NAL+NAL+NAL+", [(0, 7), (7, 11), (11, 15), (15, 19)])
        assert orders(graph) == [PRE] * 5


def node(name, op, *inputs, layer="", call=0, **attrs):
    return Node(name, op, inputs, (None, 4, 4, 8), layer or name, call, attrs)


def make(*nodes, outputs=None):
    return Graph("g", {n.name: n for n in nodes}, ("x",), outputs or (nodes[-1].name,), {})


def test_a_layer_with_its_own_activation():
    graph = make(
        node("x", "input"),
        node("c", "conv", "x", layer="c"),
        node("c/relu", "relu", "c", layer="c"),
        node("n", "batch_norm", "c/relu", axis=-1),
    )
    (site,) = sites(graph)
    assert (site.order, site.linear, site.act, site.act_op) == (AFTER, "c", "c", "relu")


def test_concatenated_branches_keep_their_order():
    graph = make(
        node("x", "input"),
        node("c1", "conv", "x"),
        node("n1", "batch_norm", "c1", axis=-1),
        node("a1", "relu", "n1"),
        node("c2", "conv", "x"),
        node("n2", "batch_norm", "c2", axis=-1),
        node("a2", "relu", "n2"),
        node("cat", "concat", "a1", "a2"),
        node("c3", "conv", "cat"),
        node("n3", "batch_norm", "c3", axis=-1),
        node("a3", "relu", "n3"),
    )
    assert orders(graph) == [BEFORE] * 3


def test_one_norm_two_linear_layers_behind_it():
    graph = make(
        node("x", "input"),
        node("n", "batch_norm", "x", axis=-1),
        node("a", "relu", "n"),
        node("c1", "conv", "a"),
        node("c2", "conv", "a"),
        node("s", "add", "c1", "c2"),
    )
    (site,) = sites(graph)
    assert (site.order, site.linear, site.linears) == (PRE, "c1", ("c1", "c2"))


def test_a_shared_block_is_one_site_with_two_calls():
    rows = [node("x", "input")]
    source = "x"
    for call in (0, 1):
        tail = "" if call == 0 else "@1"
        for name, op in [("c", "conv"), ("n", "batch_norm"), ("a", "relu")]:
            rows.append(node(name + tail, op, source, layer=name, call=call, axis=-1))
            source = name + tail
    (site,) = sites(make(*rows))
    assert (site.order, site.calls, site.nodes) == (BEFORE, 2, ("n", "n@1"))


def test_a_shared_norm_whose_calls_disagree_is_two_sites():
    graph = make(
        node("x", "input"),
        node("c", "conv", "x"),
        node("n", "batch_norm", "c", layer="n", axis=-1),
        node("a", "relu", "n"),
        node("n@1", "batch_norm", "a", layer="n", call=1, axis=-1),
    )
    found = sites(graph)
    assert [(s.name, s.order, s.calls) for s in found] == [("n", BEFORE, 1), ("n", "act-norm", 1)]


def test_kinds_of_norms():
    kinds = {
        "batch": node("n", "batch_norm", "x", axis=-1),
        "group": node("n", "group_norm", "x", axis=-1, groups=4),
        "instance": node("n", "group_norm", "x", axis=-1, groups=8),
        "layer": node("n", "layer_norm", "x", axes=[-1]),
        "rms": node("n", "rms_norm", "x", axes=[-1]),
        "unit": node("n", "unit_norm", "x", axes=[-1]),
    }
    for kind, norm in kinds.items():
        assert sites(make(node("x", "input"), norm))[0].kind == kind


def test_swish_as_a_product():
    graph = make(
        node("x", "input"),
        node("c", "conv", "x"),
        node("n", "batch_norm", "c", axis=-1),
        node("s", "sigmoid", "n"),
        node("m", "multiply", "n", "s"),
        node("d", "conv", "m"),
    )
    (site,) = sites(graph)
    assert (site.order, site.act, site.act_op) == (BEFORE, "m", "silu")


def test_an_unknown_layer_is_a_wall():
    graph = make(
        node("x", "input"),
        node("c", "conv", "x"),
        node("o", "opaque", "c"),
        node("n", "batch_norm", "o", axis=-1),
        node("a", "relu", "n"),
    )
    assert orders(graph) == ["norm-act"]


def test_an_unknown_layer_behind_a_merge_may_be_the_activation():
    graph = make(
        node("x", "input"),
        node("c", "conv", "x"),
        node("n", "batch_norm", "c", axis=-1),
        node("s", "add", "n", "x"),
        node("o", "opaque", "s"),
    )
    (site,) = sites(graph)
    assert (site.order, site.note, site.unknown) == ("linear-norm", "perhaps 'o' after add", ())


@pytest.mark.parametrize("op", ["opaque", "matmul", "dot"])
def test_a_product_may_be_a_linear_layer(op):
    graph = make(
        node("x", "input"),
        node("y", "input"),
        node("o", op, "x", "y"),
        node("n", "batch_norm", "o", axis=-1),
        node("a", "relu", "n"),
        node("c", "conv", "a"),
        node("n2", "batch_norm", "c", axis=-1),
        node("a2", "relu", "n2"),
    )
    first, second = sites(graph)
    assert (first.order, first.linear, first.unknown) == ("norm-act", None, ("o",))
    assert (second.order, second.unknown) == (BEFORE, ())


def test_linear_growth_in_open_chains():
    text = "LNA" * 700
    found = sites(chain(text))
    assert Counter(site.order for site in found) == {BEFORE: 700}
