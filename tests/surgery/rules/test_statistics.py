"""N301 to N305: what a norm's values show, on values that do and on values that nearly do."""

import keras
import numpy as np
import pytest
from keras import layers as kl

BN = kl.BatchNormalization
ROLES = {"gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1.0}


def trained(build, *, order="before", channels=4, name="bn", act="relu", between=()):
    """A conv block with random weights and statistics, and a second one behind it."""
    norm, act = BN(name=name), kl.Activation(act)
    conv = kl.Conv2D(channels, 3, name="conv")
    block = (conv, *between, norm, act) if order == "before" else (conv, act, *between, norm)
    rest = (kl.Conv2D(5, 3), BN(name="other"), kl.ReLU(), kl.GlobalMaxPooling2D(), kl.Dense(2))
    return build((9, 9, 3), *block, *rest)


def put(model, name="bn", **values):
    """Set some of a norm's tensors: one number for all channels, or one per channel."""
    norm = model.get_layer(name)
    for role, value in values.items():
        variable = getattr(norm, role)
        variable.assign(np.broadcast_to(np.float32(value), variable.shape))
    return model


# N301


def test_unmoved_statistics_are_found(build, find):
    net = put(trained(build), moving_mean=0, moving_variance=1)
    (found,) = find(net, "N301")
    assert (found.where, found.severity) == ("bn", "warning")


def test_moved_statistics_are_fine(build, find):
    assert find(trained(build), "N301") == []
    one_moved = [0, 0, 0, 0.01], [1, 1, 1, 1]
    net = put(trained(build), moving_mean=one_moved[0], moving_variance=one_moved[1])
    assert find(net, "N301") == []
    assert find(put(trained(build), moving_mean=0, moving_variance=1.01), "N301") == []


def test_fresh_models_are_fine(find):
    keras.utils.set_random_seed(0)
    layers = [kl.Conv2D(4, 3), BN(), kl.ReLU(), kl.GlobalMaxPooling2D(), kl.Dense(2)]
    assert find(keras.Sequential([keras.Input((9, 9, 3)), *layers]), "N301") == []


@pytest.mark.parametrize("what", ["gamma", "bias"])
def test_one_sign_of_training_is_enough(what, build, find):
    net = trained(build)
    for layer in net.layers:
        if isinstance(layer, BN):
            put(net, layer.name, **ROLES)
        elif hasattr(layer, "bias"):
            layer.bias.assign(np.zeros(layer.bias.shape))
    assert find(net, "N301") == []
    if what == "gamma":
        put(net, "other", gamma=[1, 1, 1, 1, 1.5])
    else:
        net.layers[-1].bias.assign([0.1, -0.1])
    assert [f.where for f in find(net, "N301")] == ["bn", "other"]


def test_biases_of_fresh_torch_models_are_random(make_graph, find):
    def net(gamma):
        arrays = {role: np.full(4, value) for role, value in ROLES.items()}
        return make_graph(
            ("x", "input", "", (4,)),
            ("fc", "dense", "x", (4,), {}, {"kernel": np.eye(4), "bias": np.arange(4)}),
            ("bn", "batch_norm", "fc", (4,), {"axis": 1}, arrays | {"gamma": gamma}),
            framework="torch",
        )

    assert find(net(np.ones(4)), "N301") == []
    assert find(net(np.arange(4)), "N301")


def test_statistics_that_are_not_used_need_not_move(build, find):
    net = build((9,), kl.Dense(4), lambda x: BN(name="bn")(x, training=True), kl.Dense(2))
    assert find(put(net, moving_mean=0, moving_variance=1), "N301") == []


# N302


@pytest.mark.parametrize(
    ("variance", "shown"),
    [
        ([1, 0, 1, 1], "1 of 4 channels (1)"),
        ([1, 1e-9, 1, 1e-12], "2 of 4 channels (1, 3)"),
        ([1e3, 1e3, 9e-4, 1e3], "1 of 4 channels (2)"),
        ([0, 0, 0, 0], "4 of 4 channels (0, 1, 2, 3)"),
    ],
)
def test_dead_channels_are_found(variance, shown, build, find):
    (found,) = find(put(trained(build), moving_variance=variance), "N302")
    assert (found.where, found.message) == ("bn", f"moving variance near 0 in {shown}")


@pytest.mark.parametrize("variance", [[1, 1, 1, 1], [1, 1e-5, 1, 1], [1e-5] * 4, [1, 50, 1e4, 1e5]])
def test_small_variances_are_fine(variance, build, find):
    assert find(put(trained(build), moving_variance=variance), "N302") == []


def test_a_shared_norm_is_named_once(build, find):
    norm = BN(name="bn")
    net = build((5,), kl.Dense(5), norm, kl.ReLU(), kl.Dense(5), norm, kl.Dense(5), kl.ReLU())
    assert len(find(put(net, moving_variance=0), "N302")) == 1
    assert len(find(put(net, gamma=[0, 1, 1, 1, 1]), "N303")) == 1
    assert len(find(put(net, moving_variance=-1), "N304")) == 1


# N303


def test_vanished_scales_are_found(build, find):
    (found,) = find(put(trained(build), gamma=[1, 0, -1, 1e-9]), "N303")
    assert (found.where, found.severity) == ("bn", "note")
    assert found.message == "gamma near 0 in 2 of 4 channels (1, 3)"
    net = build((9, 9, 4), kl.GroupNormalization(2, name="bn"), kl.ReLU())
    assert find(put(net, gamma=[1, 0, 1, 1]), "N303")


@pytest.mark.parametrize("gamma", [[1, 1e-3, -1, 1], [1e-6] * 4, [-1, -2, -1, -1]])
def test_small_and_negative_scales_are_fine(gamma, build, find):
    assert find(put(trained(build), gamma=gamma), "N303") == []


def test_scales_that_start_at_zero_on_purpose_are_fine(build, find):
    net = put(trained(build), **(ROLES | {"gamma": 0}))
    assert find(net, "N303") == []
    (found,) = find(put(net, moving_mean=[0, 0, 0, 1]), "N303")  # trained, and still zero
    assert "4 of 4 channels" in found.message


def test_norm_without_scale_has_none_that_vanished(build, find):
    assert find(build((9, 9, 4), BN(scale=False), kl.ReLU()), "N303") == []


# N304


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gamma": [1, np.nan, 1, 1]}, "gamma has 1 of 4 values that are not finite"),
        ({"beta": [np.inf, 1, 1, -np.inf]}, "beta has 2 of 4 values that are not finite"),
        ({"moving_mean": np.nan}, "moving_mean has 4 of 4 values that are not finite"),
        ({"moving_variance": [1, -1e-3, 1, 1]}, "moving_variance is negative in 1 of 4"),
    ],
)
def test_broken_values_are_found(values, message, build, find):
    net = put(trained(build), **values)
    (found,) = find(net, "N304")
    assert (found.where, found.message, found.severity) == ("bn", message, "error")
    assert find(net, "N302", "N303", "N305") == []  # said once


def test_whole_values_are_fine(build, find):
    assert find(put(trained(build), gamma=-3, beta=1e30, moving_variance=0), "N304") == []
    assert find(put(trained(build), moving_mean=-1e30), "N304") == []


def test_broken_layer_norm(build, find):
    net = build((9,), kl.Dense(4), kl.LayerNormalization(name="ln"), kl.ReLU())
    net.get_layer("ln").beta.assign([0, np.nan, 0, 0])
    assert [f.where for f in find(net, "N304")] == ["ln"]


# N305


NON_NEGATIVE = ["relu", "relu6", "sigmoid", "hard_sigmoid", "softplus", "exponential", "softmax"]
NON_NEGATIVE += ["squareplus", "sparse_plus", "sparse_sigmoid", "sparsemax"]
OTHERS = [
    "tanh",
    "elu",
    "selu",
    "gelu",
    "silu",
    "leaky_relu",
    "softsign",
    "mish",
    "celu",
    "hard_silu",
]


@pytest.mark.parametrize("act", NON_NEGATIVE + OTHERS)
def test_negative_mean_behind_an_activation(act, build, find):
    """An error exactly where the activation has no negative values: they are looked for."""
    x = np.linspace(-9, 9, 37, dtype="float32")[None]
    can_be_negative = float(keras.ops.min(keras.activations.get(act)(x))) < 0
    net = put(trained(build, order="after", act=act), moving_mean=[1, -0.5, 2, -1])
    found = find(net, "N305")
    assert bool(found) != can_be_negative
    assert can_be_negative or found[0].severity == "error"
    assert can_be_negative or found[0].message.startswith(
        "moving mean is negative in 2 of 4 channels"
    )


def test_positive_mean_behind_an_activation_is_fine(build, find):
    assert find(put(trained(build, order="after"), moving_mean=[1, 0, 2, 0.5]), "N305") == []
    assert find(put(trained(build, order="after"), moving_mean=[1, -1e-9, 2, 0]), "N305") == []


@pytest.mark.parametrize(
    ("between", "flagged"),
    [
        (kl.MaxPooling2D(2), True),
        (kl.AveragePooling2D(2), True),
        (kl.Dropout(0.5), True),
        (kl.ZeroPadding2D(1), True),
        (kl.Rescaling(-1.0), False),
        (kl.Rescaling(1.0, offset=-1.0), False),
        (kl.GaussianNoise(1.0), False),
        (kl.AlphaDropout(0.5), False),
        (kl.Resizing(8, 8, interpolation="bicubic"), False),
    ],
    ids=lambda v: type(v).__name__,
)
def test_negative_mean_behind_something_between(between, flagged, build, find):
    net = trained(build, order="after", between=[between])
    assert bool(find(put(net, moving_mean=-1), "N305")) == flagged


def test_relu_with_a_slope_has_negative_values(build, find):
    def net(slope):
        act = kl.ReLU(negative_slope=slope)
        return build((9, 9, 3), kl.Conv2D(4, 3), act, BN(name="bn"), kl.Conv2D(2, 3))

    assert find(put(net(0.1), moving_mean=-1), "N305") == []
    assert find(put(net(0.0), moving_mean=-1), "N305")


def test_all_positive_mean_before_the_activation(build, find):
    net = trained(build, channels=32)
    values = np.linspace(0.1, 2, 32)
    (found,) = find(put(net, moving_mean=values), "N305")
    assert (found.where, found.severity) == ("bn", "warning")
    values[7] = -0.1
    assert find(put(net, moving_mean=values), "N305") == []
    values[7] = 0
    assert find(put(net, moving_mean=values), "N305") == []


def test_few_channels_can_be_positive_by_chance(build, find):
    assert find(put(trained(build, channels=15), moving_mean=1), "N305") == []
    assert find(put(trained(build, channels=16), moving_mean=1), "N305")


@pytest.mark.parametrize("between", [kl.MaxPooling2D(2), kl.Rescaling(1.0, offset=3.0)])
def test_what_lies_between_can_make_a_mean_positive(between, build, find):
    net = trained(build, channels=16, between=[between])
    assert find(put(net, moving_mean=1), "N305") == []


def test_all_positive_mean_behind_relu_is_as_it_should_be(build, find):
    assert find(put(trained(build, order="after", channels=32), moving_mean=1), "N305") == []


def test_a_norm_in_two_places_has_the_statistics_of_both(build, find):
    norm = BN(name="bn")
    layers = (kl.Dense(20), kl.ReLU(), norm, kl.Dense(20), norm, kl.ReLU())
    for mean in (-1, 1):
        assert find(put(build((20,), *layers), moving_mean=mean), "N305") == []


def test_statistics_tell_the_order_they_were_made_in(build):
    """What N305 says: behind a relu every mean is positive, before it about half are negative."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 9, 9, 3)).astype("float32")
    for order in ("before", "after"):
        net = trained(build, order=order, channels=32)
        norm = net.get_layer("bn")
        norm.momentum = 0.0
        norm.trainable = True
        net(x, training=True)
        mean = keras.ops.convert_to_numpy(norm.moving_mean)
        assert (mean.min() >= 0) == (order == "after")
