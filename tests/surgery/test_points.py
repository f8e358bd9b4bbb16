"""Where a network is looked at: the values around each norm, each once."""

import keras
import pytest
from keras import layers as kl

from relucate.errors import InputError
from relucate.keras.reading.reader import read
from relucate.surgery.points import places


def net(*steps, shape=(8, 8, 3)):
    x = image = keras.Input(shape)
    for step in steps:
        x = step(x)
    return read(keras.Model(image, x))


def conv(name, **options):
    return kl.Conv2D(4, 3, name=name, **options)


def norm(name):
    return kl.BatchNormalization(name=name)


def test_norm_before_the_activation():
    graph = net(conv("a"), norm("n"), kl.ReLU(name="r"), conv("b"))
    (place,), points = places(graph)
    wanted = {"linear": "a", "norm_in": "a", "norm_out": "n", "act_in": "n", "act_out": "r"}
    assert place.points == wanted | {"next": "r"}
    assert [(point.node, point.axis) for point in points] == [("a", -1), ("n", -1), ("r", -1)]


def test_norm_behind_a_fused_activation():
    graph = net(conv("a", activation="relu"), norm("n"), kl.Dropout(0.5), kl.MaxPool2D(), conv("b"))
    (place,), points = places(graph)
    assert place.order == "linear-act-norm"
    wanted = {"linear": "a", "act_in": "a", "act_out": "a/relu", "norm_in": "a/relu"}
    pool = next(node.name for node in graph if node.op == "max_pool")
    assert place.points == wanted | {"norm_out": "n", "next": pool}
    assert len(points) == 4


def test_dropout_is_the_value_it_reads():
    graph = net(conv("a"), norm("n"), kl.ReLU(name="r"), kl.Dropout(0.5), conv("b"))
    (place,), points = places(graph)
    assert place.points["next"] == "r"
    assert len(points) == 3


def test_norm_in_front_of_the_layer():
    graph = net(conv("a"), norm("n"), kl.ReLU(name="r"), conv("b"), norm("m"), kl.ReLU(), conv("c"))
    found, _ = places(graph)
    assert [place.points["next"] for place in found] == ["r", found[1].points["act_out"]]


def test_the_next_layer_is_looked_for_behind_an_addition_and_not_behind_a_norm():
    x = image = keras.Input((8, 8, 4))
    y = norm("n")(kl.Conv2D(4, 1, name="a")(x))
    y = kl.ReLU(name="r")(kl.Add(name="sum")([x, y]))
    graph = read(keras.Model(image, kl.Conv2D(4, 1, name="b")(y)))
    assert places(graph)[0][0].points["next"] == "r"
    graph = net(conv("a"), norm("n"), kl.LayerNormalization(name="l"), conv("b"))
    assert "next" not in places(graph)[0][0].points


def test_without_norms_the_activations_are_the_places():
    found, _ = places(net(conv("a"), kl.ReLU(name="r"), conv("b", activation="tanh")))
    assert [(place.name, place.norm, place.act_op) for place in found] == [
        ("r", False, "relu"),
        ("b/tanh", False, "tanh"),
    ]
    assert found[0].points == {"linear": "a", "act_in": "a", "act_out": "r", "next": "r"}


def test_a_filter():
    graph = net(conv("a"), norm("n1"), kl.ReLU(), conv("b"), norm("n2"), kl.ReLU(), conv("c"))
    found, points = places(graph, "n2")
    assert [place.name for place in found] == ["n2"]
    assert "a" not in {point.node for point in points}
    with pytest.raises(InputError, match=r"contains 'x9'.*n1, n2"):
        places(graph, "x9")


def test_nothing_to_look_at():
    with pytest.raises(InputError, match="no norms and no activations"):
        places(net(conv("a")))


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_the_channels_axis_is_the_layers(layout):
    x = image = keras.Input((8, 8, 8))
    axis = 1 if layout == "channels_first" else -1
    x = kl.Conv2D(4, 3, data_format=layout, name="a", padding="same")(x)
    x = kl.ReLU(name="r")(kl.BatchNormalization(axis=axis, name="n")(x))
    x = kl.Conv2D(2, 1, data_format=layout, name="b")(x)
    _, points = places(read(keras.Model(image, kl.Dense(2, name="d")(kl.Flatten()(x)))))
    assert {point.axis for point in points} == {-3 if layout == "channels_first" else -1}
