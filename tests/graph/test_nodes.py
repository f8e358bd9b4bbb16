import numpy as np
import pytest

from relucate.graph import Graph, Node


def diamond():
    nodes = [
        Node("x", "input", (), (None, 2)),
        Node("d", "dense", ("x",), (None, 2), "d", arrays={"kernel": "d/kernel"}),
        Node(
            "n",
            "batch_norm",
            ("d",),
            (None, 2),
            "n",
            arrays={"gamma": "n/gamma", "moving_mean": "n/m"},
        ),
        Node("odd", "opaque", ("n",), (None, 2), "odd"),
        Node("y", "add", ("d", "odd"), (None, 2)),
    ]
    tensors = {"d/kernel": np.ones((2, 2)), "n/gamma": np.ones(2), "n/m": np.zeros(2)}
    trainable = frozenset({"d/kernel", "n/gamma"})
    return Graph("g", {n.name: n for n in nodes}, ("x",), ("y",), tensors, trainable)


def test_iterates_in_order():
    assert [n.name for n in diamond()] == ["x", "d", "n", "odd", "y"]


def test_consumers_once_per_use():
    assert diamond().consumers["d"] == ("n", "y")
    assert diamond().consumers["y"] == ()
    twice = {"x": Node("x", "input", (), (2,)), "y": Node("y", "add", ("x", "x"), (2,))}
    assert Graph("g", twice, ("x",), ("y",), {}).consumers["x"] == ("y", "y")


def test_opaque_nodes():
    assert [n.name for n in diamond().opaque] == ["odd"]


def test_count_parameters():
    graph = diamond()
    counts = [graph.count_parameters(kind) for kind in (None, "norm", "linear", "act")]
    assert counts == [6, 2, 4, 0]


@pytest.mark.parametrize(
    ("op", "kind"),
    [
        ("conv", "linear"),
        ("dense", "linear"),
        ("group_norm", "norm"),
        ("prelu", "act"),
        ("softmax", "act"),
        ("dropout", "drop"),
        ("add", "other"),
        ("opaque", "other"),
    ],
)
def test_kind_is_the_token_of_an_order(op, kind):
    assert Node("n", op, (), ()).kind == kind
