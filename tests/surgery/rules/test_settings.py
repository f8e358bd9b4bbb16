"""N401, N402, N403: epsilon, momentum and modes, on models that have it and that nearly have it."""

import keras
import numpy as np
import pytest
from keras import layers as kl

BN = kl.BatchNormalization
STATISTICS = {"moving_mean": np.zeros(3), "moving_variance": np.ones(3)}


def norms_in_a_row(build, *norms):
    layers = [layer for norm in norms for layer in (kl.Dense(4), norm, kl.ReLU())]
    return build((4,), *layers, kl.Dense(2))


def torch_norms(make_graph, *attrs, op="batch_norm", arrays=None):
    """A chain of PyTorch norms, relu between them."""
    rows = [("x", "input", "", (3,))]
    for number, given in enumerate(attrs):
        tensors = STATISTICS if arrays is None else arrays
        given = {"axis": 1, "epsilon": 1e-5, "momentum": 0.9, **given}
        rows.append((f"bn{number}", op, rows[-1][0], (3,), given, tensors))
        rows.append((f"relu{number}", "relu", rows[-1][0], (3,)))
    return make_graph(*rows, framework="torch")


# N401


def test_mixed_epsilon_is_found(build, find):
    net = norms_in_a_row(build, BN(), BN(epsilon=1e-5, name="odd"), BN())
    (found,) = find(net, "N401")
    assert (found.where, found.severity) == ("odd", "note")
    assert found.message == "epsilon of batch norms differs: 0.001 in 2, 1e-05 in odd"
    assert found.fix == "one epsilon for all, if there is no reason"


def test_mixed_momentum_is_found(build, find):
    odd = [BN(momentum=0.9, name="a"), BN(momentum=0.9, name="b"), BN(momentum=0.8, name="c")]
    (found,) = find(norms_in_a_row(build, BN(), BN(), BN(), *odd), "N401")
    assert found.message == "momentum of batch norms differs: 0.99 in 3, 0.9 in a, b; 0.8 in c"


def test_both_are_said_apart(build, find):
    net = norms_in_a_row(build, BN(), BN(), BN(epsilon=1e-5, momentum=0.9, name="odd"))
    assert [f.message.split()[0] for f in find(net, "N401")] == ["epsilon", "momentum"]


@pytest.mark.parametrize(
    "norms",
    [
        [BN(), BN()],
        [BN()],
        [BN(epsilon=1e-3), BN(epsilon=0.001)],
        [BN(), kl.LayerNormalization(epsilon=1e-6), kl.GroupNormalization(2, epsilon=1e-5)],
        [BN(), BN(momentum=0.5, trainable=False)],  # nothing moves there
    ],
)
def test_equal_settings_are_fine(norms, build, find):
    assert find(norms_in_a_row(build, *norms), "N401") == []


def test_layer_norms_are_compared_too(build, find):
    layer = kl.LayerNormalization
    net = norms_in_a_row(build, layer(), layer(), layer(epsilon=1e-6, name="odd"), BN())
    assert [f.where for f in find(net, "N401")] == ["odd"]


def test_a_norm_that_is_called_in_two_ways_counts_once(build, find):
    shared, odd = BN(name="shared", epsilon=1e-5), BN(name="odd")
    layers = (kl.Dense(4), shared, kl.ReLU(), kl.Dense(4), kl.ReLU(), shared, kl.Dense(4), odd)
    (found,) = find(build((4,), *layers), "N401")
    assert found.message == "epsilon of batch norms differs: 1e-05 in 1, 0.001 in odd"


def test_torch_says_eps_and_the_share_of_the_new(make_graph, find):
    (found,) = find(torch_norms(make_graph, {}, {}, {"epsilon": 1e-3}), "N401")
    assert found.message == "eps of batch norms differs: 1e-05 in 2, 0.001 in bn2"
    (found,) = find(torch_norms(make_graph, {}, {}, {"momentum": 0.99}), "N401")
    assert found.message == "momentum of batch norms differs: 0.1 in 2, 0.01 in bn2"
    assert find(torch_norms(make_graph, {}, {"momentum": None}), "N401") == []


# N402


@pytest.mark.parametrize(
    ("momentum", "steps", "slow"),
    [
        (0.99, 100, True),
        (0.99, 298, True),
        (0.99, 299, False),
        (0.9, 28, True),
        (0.9, 29, False),
        (0.999, 1000, True),
        (0.0, 1, False),
        (1.0, 10**6, True),
    ],
)
def test_slow_statistics(momentum, steps, slow, build, find):
    """Slow where more than 5 % of the initial statistics are left: they are left over in fact."""
    net = norms_in_a_row(build, BN(momentum=momentum, name="bn"))
    assert [f.where for f in find(net, "N402", steps=steps)] == ["bn"] * slow
    left = 1.0
    for _ in range(min(steps, 5000)):
        left = momentum * left + (1 - momentum) * 0.0
    assert (left > 0.05) == slow


def test_slow_statistics_message(build, find):
    net = norms_in_a_row(build, BN(name="a"), BN(name="b"), BN(momentum=0.9))
    (found,) = find(net, "N402", steps=100)
    assert found.where == "a"
    expected = "momentum 0.99 leaves 37% of the initial statistics after 100 steps (2 norms)"
    assert found.message == expected
    (found,) = find(norms_in_a_row(build, BN()), "N402", steps=1)
    assert found.message.endswith("after 1 step (1 norm)")


def test_slow_statistics_need_the_number_of_steps(build, find):
    assert find(norms_in_a_row(build, BN(momentum=0.9999)), "N402") == []


def test_statistics_that_do_not_move_are_not_slow(build, make_graph, find):
    assert find(norms_in_a_row(build, BN(trainable=False)), "N402", steps=1) == []
    for training in (False, True):
        net = build((4,), lambda x, t=training: BN()(x, training=t))
        assert find(net, "N402", steps=1) == []
    assert find(norms_in_a_row(build, kl.LayerNormalization()), "N402", steps=1) == []
    for net in (
        torch_norms(make_graph, {}, arrays={}),
        torch_norms(make_graph, {"momentum": None}),
    ):
        assert find(net, "N402", steps=1) == []
    (found,) = find(torch_norms(make_graph, {}), "N402", steps=10)
    assert found.message.startswith("momentum 0.1 leaves 35% ")


# N403


def test_batch_statistics_at_inference_are_found(build, make_graph, find):
    net = build((4,), kl.Dense(4), lambda x: BN(name="bn")(x, training=True), kl.ReLU())
    (found,) = find(net, "N403")
    assert (found.where, found.severity) == ("bn", "warning")
    assert found.fix == "leave `training` to the model, unless that is wanted"
    assert "in model(x), though not in predict" in found.message
    (found,) = find(torch_norms(make_graph, {}, arrays={}), "N403")
    assert found.message.startswith("keeps no moving statistics: an example's output depends")
    assert found.fix == "track_running_stats=True, unless that is wanted"
    (found,) = find(torch_norms(make_graph, {"forced": True}), "N403")
    assert found.message.startswith("is called with training=True: an example's output depends")
    assert found.fix == "pass training=self.training, unless that is wanted"


def test_other_norms_do_not_look_at_the_batch(build, make_graph, find):
    for training in (None, False):
        net = build((4,), lambda x, t=training: BN()(x, training=t))
        assert find(net, "N403") == []
    frozen = build((4,), lambda x: BN(trainable=False)(x, training=True))
    assert find(frozen, "N403") == []
    assert (
        find(norms_in_a_row(build, kl.LayerNormalization(), kl.GroupNormalization(2)), "N403") == []
    )
    assert find(torch_norms(make_graph, {}, op="instance_norm", arrays={}), "N403") == []


def test_one_call_in_two_is_enough(build, find):
    norm = BN(name="shared")
    net = build((4,), norm, kl.ReLU(), kl.Dense(4), lambda x: norm(x, training=True), kl.ReLU())
    assert [f.where for f in find(net, "N403")] == ["shared"]


@pytest.mark.parametrize("training", [None, False, True])
def test_what_a_call_insists_on_holds_in_the_call_and_not_in_predict(training, build, find):
    """What N403 says of Keras: in model(x) an example's output depends on the others."""
    net = build((4,), lambda x: BN()(x, training=training), kl.Dense(2))
    net.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")

    def depends(run):
        return not np.allclose(run(x)[:2], run(x[:2]), atol=1e-5)

    assert depends(lambda v: keras.ops.convert_to_numpy(net(v))) == bool(find(net, "N403"))
    assert not depends(lambda v: net.predict(v, verbose=0))
