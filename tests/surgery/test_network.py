"""A Graph as boxes: what each node is, what it reads, where each norm sits."""

import keras
import pytest
import torch
from keras import layers as kl
from torch import nn

from relucate.frameworks import framework_of
from relucate.surgery.network import boxes, place_of
from relucate.surgery.sites import Site, sites


def read(model, example=None):
    graph = framework_of(model).read(model, example).graph
    return boxes(graph, sites(graph))


def test_a_chain_has_a_box_for_each_layer_and_its_output():
    image = keras.Input((8, 8, 3))
    x = kl.Conv2D(4, 3, strides=2, name="conv")(image)
    x = kl.ReLU()(kl.BatchNormalization(name="norm")(x))
    found = read(keras.Model(image, kl.MaxPooling2D(2)(x)))
    assert [(box["kind"], box["label"]) for box in found] == [
        ("input", "input 8×8×3"),
        ("linear", "conv 3×3 /2"),
        ("norm", "BN"),
        ("act", "relu"),
        ("other", "max pool 2×2 /2"),
        ("output", "output"),
    ]
    assert [box["inputs"] for box in found] == [[], [0], [1], [2], [3], [4]]
    assert (found[2]["name"], found[2]["order"], found[2]["place"]) == (
        "norm",
        "linear-norm-act",
        "before",
    )


class Odd(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x).real


def test_what_is_not_read_is_drawn_as_such_and_leaves_the_norm_unknown():
    net = nn.Sequential(nn.Linear(4, 4), Odd(), nn.BatchNorm1d(4), nn.ReLU())
    found = read(net, (2, 4))
    assert "opaque" in {box["kind"] for box in found}
    assert [box["place"] for box in found if box["kind"] == "norm"] == ["unknown"]


def test_an_output_inside_the_network_has_its_own_box():
    image = keras.Input((4,))
    x = kl.Dense(4)(image)
    found = read(keras.Model(image, [x, kl.Dense(2)(x)]))
    outputs = [box for box in found if box["kind"] == "output"]
    assert [found[box["inputs"][0]]["kind"] for box in outputs] == ["linear", "linear"]
    assert len({box["inputs"][0] for box in outputs}) == 2


@pytest.mark.parametrize(
    ("order", "place"),
    [
        ("linear-norm-act", "before"),
        ("linear-act-norm", "after"),
        ("norm-act-linear", "first"),
        ("norm-linear-act", "first"),
        ("act-norm-linear", "first"),
        ("norm-linear", "first"),
        ("linear-norm", "alone"),
        ("norm", "alone"),
        ("norm-act", "before"),
        ("act-norm", "after"),
    ],
)
def test_every_order_has_a_place(order, place):
    assert place_of(Site("n", "batch", None, None, None, order)) == place
    assert place_of(Site("n", "batch", None, None, None, order, unknown=("x",))) == "unknown"
