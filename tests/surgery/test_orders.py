"""Convert and rebuild on blocks: where norms, activations and biases go, what stays and why."""

from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers as kl

from relucate.errors import InputError, Refused
from relucate.graph import Node
from relucate.graph.evaluate import evaluate
from relucate.keras import read
from relucate.surgery.convert import convert_graph
from relucate.surgery.moments import Moments, measure
from relucate.surgery.rebuild import rebuild_graph
from relucate.surgery.sites import sites

BEFORE, AFTER = "linear-norm-act", "linear-act-norm"
ORDERS = (BEFORE, AFTER, "norm-linear-act", "norm-act-linear")


def randomize(model, seed=0):
    random = np.random.default_rng(seed)
    for variable in model.weights:
        size = tuple(variable.shape)
        if "variance" in variable.path or "gamma" in variable.path:
            variable.assign(random.uniform(0.4, 1.7, size))
        else:
            variable.assign(random.normal(size=size) / np.sqrt(max(np.prod(size[:-1]), 1)))
    return model


def assert_same(new, old, *, seed, tolerance):
    """Two graphs give the same on random inputs."""
    (name,) = old.inputs
    x = np.random.default_rng(seed).normal(size=(3, *old.nodes[name].shape[1:]))
    np.testing.assert_allclose(evaluate(new, x)[0], evaluate(old, x)[0], rtol=0, atol=tolerance)


def chain(order, *, bias=None, depth=2, norm=kl.BatchNormalization):
    x = image = keras.Input((6, 6, 3))
    for number in range(depth):
        for token in order.split("-"):
            if token == "linear":
                use = bias if bias is not None else True
                layer = kl.Conv2D(4, 3, padding="same", use_bias=use, name=f"conv{number}")
            elif token == "norm":
                layer = norm(name=f"norm{number}")
            else:
                layer = kl.ReLU(name=f"act{number}")
            x = layer(x)
    x = kl.GlobalAveragePooling2D()(x)
    return randomize(keras.Model(image, kl.Dense(5, name="head")(x)))


def orders(graph):
    return [site.order for site in sites(graph)]


@pytest.mark.parametrize("new", [*ORDERS, "act-norm-linear"])
@pytest.mark.parametrize("old", [*ORDERS, "act-norm-linear"])
def test_rebuild_gives_the_order(old, new):
    plan = rebuild_graph(read(chain(old, bias=old != BEFORE)), new)
    assert orders(plan.graph) == [new] * 2
    assert [outcome.new for outcome in plan.outcomes] == [new] * 2
    if old != new:
        assert {outcome.status for outcome in plan.outcomes} == {"done"}
    assert [n.name for n in plan.graph if n.kind == "linear"] == ["conv0", "conv1", "head"]


@pytest.mark.parametrize("old", [o for o in ORDERS if o != "norm-act-linear"])
def test_bias_rule(old):
    def biased(graph):
        return {n.name: "bias" in n.arrays for n in graph if n.kind == "linear"}

    for bias in (True, False):
        graph = read(chain(old, bias=bias))
        without = {"conv0": False, "conv1": False, "head": True}
        full = {"conv0": True, "conv1": True, "head": True}
        assert biased(rebuild_graph(graph, BEFORE).graph) == without
        assert biased(rebuild_graph(graph, AFTER).graph) == full
        assert biased(rebuild_graph(graph, "none").graph) == full


def test_a_norm_in_its_place_keeps_it_and_its_bias_is_settled():
    (first, second) = rebuild_graph(read(chain(BEFORE, bias=True)), BEFORE).outcomes
    assert (first.status, first.old, first.new) == ("done", BEFORE, BEFORE)
    assert "redundant bias is removed" in first.reason
    (first, second) = rebuild_graph(read(chain(AFTER, bias=False)), AFTER).outcomes
    assert "missing bias is added" in first.reason
    assert second.status == "done"


def test_a_layer_norm_keeps_the_bias():
    graph = read(chain(AFTER, norm=kl.LayerNormalization))
    plan = rebuild_graph(graph, BEFORE)
    assert orders(plan.graph) == [BEFORE] * 2
    assert all("bias" in n.arrays for n in plan.graph if n.kind == "linear")


def test_sizes_follow_where_the_norm_goes():
    graph = rebuild_graph(read(chain(BEFORE)), "norm-linear-act").graph
    norm = graph.nodes["norm0"]
    assert graph.tensors[norm.arrays["gamma"]].shape == (3,)
    assert graph.nodes["norm1"].shape[-1] == 4


def residual():
    x = image = keras.Input((6, 6, 4))
    y = kl.ReLU(name="a1")(kl.BatchNormalization(name="n1")(kl.Conv2D(4, 3, padding="same")(x)))
    y = kl.BatchNormalization(name="n2")(kl.Conv2D(4, 3, padding="same")(y))
    x = kl.ReLU(name="a2")(kl.Add()([x, y]))
    return randomize(keras.Model(image, x))


@pytest.mark.parametrize("verb", [convert_graph, rebuild_graph])
def test_a_norm_before_an_addition_stays(verb):
    plan = verb(read(residual()), AFTER)
    found = {outcome.name: outcome for outcome in plan.outcomes}
    assert (found["n1"].status, found["n1"].old, found["n1"].new) == ("done", BEFORE, AFTER)
    assert found["n2"].status == "skipped"
    assert "relu after add" in found["n2"].reason
    assert orders(plan.graph) == [AFTER, "linear-norm"]


def test_what_others_read_stays():
    x = image = keras.Input((6,))
    y = kl.BatchNormalization(name="bn")(kl.Dense(6, name="dense")(x))
    model = randomize(keras.Model(image, [kl.ReLU()(y), kl.Dense(2, name="other")(y)]))
    for verb in (convert_graph, rebuild_graph):
        (outcome,) = verb(read(model), AFTER).outcomes
        assert outcome.status == "skipped"
        assert "read outside of the block" in outcome.reason


def test_the_layer_that_makes_the_output_is_not_turned():
    x = image = keras.Input((6,))
    x = kl.Dense(6, name="first")(x)
    x = kl.ReLU()(kl.BatchNormalization()(x))
    x = kl.ReLU(name="act")(kl.BatchNormalization(name="last")(kl.Dropout(0.2)(x)))
    model = keras.Model(image, kl.Dense(3, name="head")(x))
    plan = rebuild_graph(read(model), BEFORE)
    reasons = {o.name: o.reason for o in plan.outcomes}
    assert "makes the network's output" in reasons["last"]


@pytest.mark.parametrize("order", ["linear-norm", "linear-norm-act-drop"])
@pytest.mark.parametrize("verb", [convert_graph, rebuild_graph])
def test_orders_that_make_no_sense(verb, order):
    with pytest.raises(InputError, match=r"expected an order|without drop"):
        verb(read(chain(BEFORE)), order)


def flattened(early):
    """conv, flatten, relu and a norm before or behind the flatten."""
    x = image = keras.Input((4, 4, 3))
    x = kl.Conv2D(5, 3, name="conv")(x)
    if early:
        x = kl.BatchNormalization(name="bn")(x)
    x = kl.ReLU(name="relu")(kl.Flatten(name="flatten")(x))
    if not early:
        x = kl.BatchNormalization(name="bn")(x)
    return randomize(keras.Model(image, kl.Dense(2, name="head")(x)))


@pytest.mark.parametrize("verb", [convert_graph, rebuild_graph])
def test_a_norm_goes_to_the_side_of_a_flatten_that_has_its_rank(verb):
    graph = read(flattened(early=False))
    plan = verb(graph, BEFORE)
    assert [o.status for o in plan.outcomes] == ["done"]
    assert plan.graph.nodes["bn"].inputs == ("flatten",)
    assert plan.graph.tensors[plan.graph.nodes["bn"].arrays["gamma"]].shape == (20,)
    if verb is convert_graph:
        assert_same(plan.graph, graph, seed=3, tolerance=1e-5)


@pytest.mark.parametrize("verb", [convert_graph, rebuild_graph])
def test_a_norm_stays_where_it_does_not_fit(verb):
    (outcome,) = verb(read(flattened(early=True)), AFTER).outcomes
    assert outcome.status == "skipped"
    assert outcome.reason == "'bn' takes values of 4 axes; there are 2"


# Convert: statistics of the norms that are put in.


def test_measured_statistics_are_the_identity():
    graph = read(chain(BEFORE))
    plan = convert_graph(graph, AFTER)
    assert plan.placed == ("norm0", "norm1")
    random = np.random.default_rng(4)
    found = {
        name: Moments(random.normal(size=4), np.array([0.0, 0.1, 2.0, 5.0]), 8)
        for name in plan.placed
    }
    graph2 = convert_graph(graph, AFTER, moments=found).graph
    norm = graph2.nodes["norm0"]
    values = {role: graph2.tensors[key] for role, key in norm.arrays.items()}
    np.testing.assert_allclose(values["moving_mean"], found["norm0"].mean, rtol=1e-6)
    np.testing.assert_allclose(values["beta"], found["norm0"].mean, rtol=1e-6)
    np.testing.assert_allclose(values["moving_variance"], found["norm0"].variance, rtol=1e-6)
    np.testing.assert_allclose(
        values["gamma"], np.sqrt(found["norm0"].variance + norm.attrs["epsilon"]), rtol=1e-6
    )
    x = random.normal(size=(3, 6, 6, 3))
    np.testing.assert_allclose(
        evaluate(graph2, x)[0], evaluate(graph, x)[0], rtol=0, atol=1e-5 * 10
    )


def test_beta_carries_the_bias():
    graph = read(chain(AFTER))
    bias = graph.tensors["conv0/bias"]
    plan = convert_graph(graph, BEFORE)
    assert "bias" not in plan.graph.nodes["conv0"].arrays
    np.testing.assert_allclose(plan.graph.tensors["norm0/beta"], bias, rtol=1e-6)
    assert_same(plan.graph, graph, seed=5, tolerance=1e-4)


def test_a_bias_that_another_call_needs_stays():
    dense, image, other = kl.Dense(4, name="dense"), keras.Input((4,)), keras.Input((4,))
    x = kl.BatchNormalization(name="bn")(kl.ReLU(name="relu")(dense(image)))
    outputs = [kl.Dense(2, name="head")(x), dense(other)]
    graph = read(randomize(keras.Model([image, other], outputs)))
    plan = convert_graph(graph, BEFORE)
    assert [o.status for o in plan.outcomes] == ["done"]
    x = np.random.default_rng(8).normal(size=(2, 5, 4))
    for got, expected in zip(evaluate(plan.graph, *x), evaluate(graph, *x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    assert "bias" in plan.graph.nodes["dense"].arrays


@pytest.mark.parametrize("strategy", ["map", "branch"])
def test_a_norm_goes_behind_the_border_that_a_layer_got(strategy):
    graph = read(chain(AFTER))
    plan = convert_graph(graph, BEFORE, strategy)
    (source,) = plan.graph.nodes["norm1"].inputs
    assert "border" in source
    assert plan.graph.nodes["conv1"].name in plan.graph.nodes[source].inputs
    assert_same(plan.graph, graph, seed=9, tolerance=1e-4)


def test_there_and_back_leaves_no_trace():
    graph = read(chain(BEFORE, bias=False))
    there = convert_graph(graph, AFTER).graph
    back = convert_graph(there, BEFORE).graph
    assert {n.name: (n.op, n.inputs) for n in back} == {n.name: (n.op, n.inputs) for n in graph}
    assert set(back.tensors) == set(graph.tensors)


def test_a_norm_that_depends_on_the_data_stays():
    (first, _) = convert_graph(read(chain(BEFORE, norm=kl.LayerNormalization)), AFTER).outcomes
    assert first.status == "skipped"
    assert "depends on the data" in first.reason


def test_reused_blocks_move_together():
    conv, norm = kl.Dense(4, name="dense"), kl.BatchNormalization(name="bn")
    x = image = keras.Input((4,))
    for number in range(2):
        x = kl.ReLU(name=f"relu{number}")(norm(conv(x)))
    model = randomize(keras.Model(image, kl.Dense(2, name="head")(x)))
    graph = read(model)
    plan = convert_graph(graph, AFTER)
    (outcome,) = plan.outcomes
    assert outcome.status == "done"
    assert set(orders(plan.graph)) == {AFTER}
    value = np.random.default_rng(6).normal(size=(5, 4))
    np.testing.assert_allclose(
        evaluate(plan.graph, value)[0], evaluate(graph, value)[0], rtol=0, atol=1e-5
    )
    assert set(orders(rebuild_graph(graph, AFTER).graph)) == {AFTER}


def test_running_moments_are_those_of_all_at_once():
    random = np.random.default_rng(7)
    values = random.normal(size=(50, 3, 4)) * 5 + 100
    node = Node("norm", "batch_norm", ("x",), (None, 3, 4), attrs={"axis": 1})
    parts = [values[a:b].astype(np.float32) for a, b in ((0, 7), (7, 8), (8, 30), (30, 50))]
    graph = SimpleNamespace(nodes={"norm": node})
    found = measure(graph, ["norm"], ({"norm": part} for part in parts))["norm"]
    np.testing.assert_allclose(found.mean, values.mean(axis=(0, 2)), rtol=1e-6)
    np.testing.assert_allclose(found.variance, values.var(axis=(0, 2)), rtol=1e-5)
    assert found.examples == 50


# What is refused by name.


def one_block(act, norm=None, linear=None):
    """conv, relu and then a block; its norm and what follows are given."""
    x = image = keras.Input((6, 6, 3))
    x = kl.ReLU(name="first")(kl.Conv2D(8, 3, name="conv0")(x))
    x = (linear or kl.Conv2D(8, 3, name="conv1"))(x)
    x = act((norm or kl.BatchNormalization(name="n"))(x))
    return randomize(keras.Model(image, kl.Conv2D(2, 1, name="head")(x)))


MIXING = {
    "glu": keras.ops.glu,
    "softmax": kl.Softmax(),
    "log_softmax": keras.ops.log_softmax,
    "sparsemax": keras.ops.sparsemax,
}


@pytest.mark.parametrize("verb", [convert_graph, rebuild_graph])
@pytest.mark.parametrize("new", [AFTER, "norm-act-linear", "act-norm-linear"])
@pytest.mark.parametrize("op", MIXING)
def test_a_norm_never_passes_an_activation_that_mixes_channels(op, new, verb):
    (outcome,) = verb(read(one_block(MIXING[op])), new).outcomes
    assert outcome.status == "skipped"
    if verb is rebuild_graph or new == AFTER:
        assert f"({op}) mixes channels" in outcome.reason


@pytest.mark.parametrize("verb", [convert_graph, rebuild_graph])
def test_a_norm_may_go_in_front_of_the_layer_before_a_softmax(verb):
    (outcome,) = verb(read(one_block(kl.Softmax())), "norm-linear-act").outcomes
    assert outcome.status == "done"


def shared_tensor(role, of):
    """A model as a graph in which the norm n1 has the first norm's tensor, or conv1 has it."""
    graph = read(chain(BEFORE))
    key, nodes = graph.nodes["norm0"].arrays[role], dict(graph.nodes)
    node = nodes[of]
    old = node.arrays["bias" if node.kind == "linear" else role]
    kept = {r: key if k == old else k for r, k in node.arrays.items()}
    nodes[of] = replace(node, arrays=kept)
    tensors = {k: v for k, v in graph.tensors.items() if k != old}
    return replace(graph, nodes=nodes, tensors=tensors, trainable=graph.trainable - {old})


@pytest.mark.parametrize("verb", [convert_graph, rebuild_graph])
@pytest.mark.parametrize("new", [AFTER, "norm-linear-act"])
@pytest.mark.parametrize(
    ("role", "of"), [("beta", "conv1"), ("gamma", "norm1"), ("moving_mean", "norm1")]
)
def test_a_norm_that_shares_a_tensor_stays(verb, new, role, of):
    graph = shared_tensor(role, of)
    plan = verb(graph, new)
    assert plan.outcomes[0].reason == f"'norm0' shares its {role} with '{of}'"
    if of == "norm1":
        assert plan.outcomes[1].reason == f"'norm1' shares its {role} with 'norm0'"
    if verb is convert_graph:
        assert_same(plan.graph, graph, seed=9, tolerance=1e-4)


@pytest.mark.parametrize("verb", [convert_graph, rebuild_graph])
def test_calls_that_would_need_other_sizes_stay(verb):
    x = image = keras.Input((6, 6, 3))
    norm = kl.BatchNormalization(name="norm")
    for number in range(2):
        x = kl.ReLU()(norm(kl.Conv2D(4, 3, padding="same", name=f"conv{number}")(x)))
    graph = read(randomize(keras.Model(image, kl.Conv2D(2, 1, name="head")(x))))
    (outcome,) = verb(graph, "norm-linear-act").outcomes
    assert outcome.reason == "the calls of 'norm' would be over 3 and 4 channels"
    assert verb(graph, AFTER).outcomes[0].status == "done"


def group_norm(groups, filters=4):
    x = image = keras.Input((6, 6, 8))
    norm = kl.GroupNormalization(groups, name="n")
    x = kl.ReLU()(norm(kl.Conv2D(filters, 3, name="conv")(x)))
    return keras.Model(image, kl.Conv2D(2, 1, name="head")(x))


@pytest.mark.parametrize(("groups", "status"), [(1, "done"), (2, "done"), (4, "skipped")])
def test_a_group_norm_keeps_its_groups(groups, status):
    (outcome,) = rebuild_graph(read(group_norm(groups)), "norm-linear-act").outcomes
    assert outcome.status == status
    if status == "skipped":  # each channel apart would become each pair of channels
        assert outcome.reason == "'n' has 4 groups of 4 channels; there are 8"


def test_groups_that_do_not_divide_the_channels():
    (outcome,) = rebuild_graph(read(group_norm(3, 6)), "norm-linear-act").outcomes
    assert outcome.reason == "'n' has 3 groups of 6 channels; there are 8"


@pytest.mark.parametrize(
    ("attrs", "reason"),
    [({"renorm": True}, "renorm isn't handled"), ({"forced": True}, "it is called in training")],
)
def test_norms_with_statistics_of_another_kind_stay(attrs, reason):
    graph = read(chain(BEFORE))
    node = graph.nodes["norm0"]
    nodes = {**graph.nodes, "norm0": replace(node, attrs={**node.attrs, **attrs})}
    (first, second) = rebuild_graph(replace(graph, nodes=nodes), AFTER).outcomes
    assert (first.status, second.status) == ("skipped", "done")
    assert reason in first.reason
    assert rebuild_graph(replace(graph, nodes=nodes), "none").outcomes[0].status == "done"


@pytest.mark.parametrize("attr", ["quantized", "lora"])
def test_kernels_that_no_initialiser_makes(attr):
    graph = read(chain(BEFORE))
    nodes = {**graph.nodes}
    nodes["head"] = replace(nodes["head"], attrs={attr: "int8"})
    with pytest.raises(Refused, match=r"'head' .* can't be initialised from scratch"):
        rebuild_graph(replace(graph, nodes=nodes), AFTER)


# Layers of two halves.


def separable(order=BEFORE, before=()):
    x = image = keras.Input((6, 6, 3))
    for layer in before:
        x = layer(x)
    for number in range(2):
        for token in order.split("-"):
            if token == "linear":
                x = kl.SeparableConv2D(5, 3, padding="same", name=f"sep{number}")(x)
            elif token == "norm":
                x = kl.BatchNormalization(name=f"norm{number}")(x)
            else:
                x = kl.ReLU(name=f"act{number}")(x)
    return randomize(keras.Model(image, kl.Conv2D(2, 1, name="head")(x)))


@pytest.mark.parametrize("verb", [convert_graph, rebuild_graph])
@pytest.mark.parametrize("new", [*ORDERS, "act-norm-linear"])
def test_a_separable_layer_stays_whole(verb, new):
    graph = read(separable())
    plan = verb(graph, new)
    turned = verb is convert_graph and new not in {BEFORE, AFTER, "norm-linear-act"}
    if not turned:
        assert orders(plan.graph) == [new] * 2
        assert [outcome.new for outcome in plan.outcomes] == [new] * 2
    for node in plan.graph:
        if node.layer.startswith("sep") and node.op == "conv":
            assert node.inputs == (f"{node.layer}/depthwise",)
    if verb is convert_graph:
        assert_same(plan.graph, graph, seed=9, tolerance=1e-4)


@pytest.mark.parametrize("verb", [convert_graph, rebuild_graph])
def test_the_report_has_the_order_that_an_audit_finds(verb):
    # Behind a linear layer without a norm, norm-linear-act is linear-norm and then others.
    graph = read(separable(before=[kl.Conv2D(3, 3, padding="same", name="bare")]))
    plan = verb(graph, "norm-linear-act")
    assert [outcome.new for outcome in plan.outcomes] == orders(plan.graph)
    assert plan.outcomes[0].new == "linear-norm"
    assert plan.outcomes[0].reason.endswith("it reads as linear-norm")


@pytest.mark.parametrize(("shared", "planned"), [([1, 2], (1, 1, 3)), (None, (8, 8, 3))])
def test_slopes_are_planned_for_the_channels_that_they_come_to(shared, planned):
    x = image = keras.Input((8, 8, 3))
    x = kl.BatchNormalization()(kl.Conv2D(4, 3, strides=2)(x))
    x = kl.PReLU(name="slopes", shared_axes=shared, alpha_initializer=keras.initializers.ones())(x)
    graph = read(keras.Model(image, kl.Conv2D(2, 1)(x)))
    made = rebuild_graph(graph, "norm-act-linear").graph
    slopes = made.tensors[made.nodes["slopes"].arrays["alpha"]]
    assert slopes.shape == planned
    assert (slopes == 1).all()


@pytest.mark.parametrize("frozen", [True, False])
def test_a_bias_in_front_of_a_frozen_norm_is_not_redundant(frozen):
    x = image = keras.Input((6, 6, 3))
    x = kl.BatchNormalization(name="bn", trainable=not frozen)(kl.Conv2D(4, 3, name="conv")(x))
    made = rebuild_graph(read(keras.Model(image, kl.ReLU()(x))), "linear-norm-act").graph
    assert ("bias" in made.nodes["conv"].arrays) == frozen


def test_an_activation_with_slopes_that_is_used_elsewhere_stays():
    x = image = keras.Input((6, 6, 3))
    slopes = kl.PReLU(name="slopes", shared_axes=[1, 2])
    x = kl.BatchNormalization(name="bn")(slopes(slopes(x)))
    model = randomize(keras.Model(image, kl.Conv2D(2, 1)(kl.Conv2D(8, 1, name="conv")(x))))
    graph = read(model)
    for order in (BEFORE, AFTER):
        (found,) = rebuild_graph(graph, order).outcomes
        assert (found.status, found.reason) == ("skipped", "'slopes' is used more than once")
