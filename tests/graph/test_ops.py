"""The registry of operations: what is missing for one is named, and what it says is true.

Every operation that has a meaning in NumPy has a sample here; images are channels last, so that the
channels are the last axis of what comes in and, but for the operations that move axes, goes out.
"""

import ast
from pathlib import Path

import numpy as np
import pytest

import relucate
from relucate.errors import Refused
from relucate.graph import OPERATIONS, Graph, Node, evaluate, select
from relucate.graph.evaluate import EVALUATED
from relucate.graph.inference import RULES, output_shape
from relucate.graph.ops import COMMON, REQUIRED

SHAPE, CHANNEL = (2, 4, 5, 6), 4
RANDOM = np.random.default_rng(0)
WINDOW = {"window": (2, 2), "strides": (2, 1), "padding": "same"}
CONV = {"strides": (2, 1), "padding": "same", "dilation": (1, 1)}
NORM = {"axis": -1, "epsilon": 1e-3}
AXES = {"axes": (-1,), "epsilon": 1e-3}
GLOBAL = {"axes": (1, 2)}
STATISTICS = {
    "gamma": RANDOM.uniform(0.5, 1.5, 6),
    "beta": RANDOM.normal(size=6),
    "moving_mean": RANDOM.normal(size=6),
    "moving_variance": RANDOM.uniform(0.5, 1.5, 6),
}
AFFINE = {role: STATISTICS[role] for role in ("gamma", "beta")}
# op: attributes, arrays, number of inputs. What needs none of them isn't named.
SAMPLES = {
    "conv": (CONV, {"kernel": RANDOM.normal(size=(3, 2, 6, 4)), "bias": RANDOM.normal(size=4)}),
    "depthwise_conv": (CONV, {"kernel": RANDOM.normal(size=(3, 3, 6, 1))}),
    "conv_transpose": (CONV, {"kernel": RANDOM.normal(size=(3, 2, 3, 6))}),
    "dense": ({}, {"kernel": RANDOM.normal(size=(6, 7)), "bias": RANDOM.normal(size=7)}),
    "einsum": ({"equation": "bhwc,cd->bhwd"}, {"kernel": RANDOM.normal(size=(6, 3))}),
    "batch_norm": ({**NORM, "momentum": 0.9}, STATISTICS),
    "instance_norm": (NORM, AFFINE),
    "group_norm": ({**NORM, "groups": 2}, AFFINE),
    "layer_norm": (AXES, AFFINE),
    "rms_norm": (AXES, {"gamma": STATISTICS["gamma"]}),
    "unit_norm": (AXES, {}),
    "leaky_relu": ({"negative_slope": 0.3}, {}),
    "prelu": ({}, {"alpha": RANDOM.normal(size=(1, 1, 6))}),
    "rrelu": ({"lower": 0.1, "upper": 0.3}, {}),
    "threshold": ({"threshold": 0.5, "value": -1.0}, {}),
    "dropout": ({"rate": 0.5}, {}),
    "gaussian_dropout": ({"rate": 0.5}, {}),
    "alpha_dropout": ({"rate": 0.5}, {}),
    "stochastic_depth": ({"rate": 0.5}, {}),
    "gaussian_noise": ({"stddev": 0.5}, {}),
    "concat": ({"axis": -1}, {}),
    "max_pool": (WINDOW, {}),
    "avg_pool": (WINDOW, {}),
    "global_max_pool": (GLOBAL, {}),
    "global_avg_pool": (GLOBAL, {}),
    "reduce": ({**GLOBAL, "function": "mean"}, {}),
    "zero_pad": ({"padding": ((1, 0), (2, 1))}, {}),
    "pad": ({"padding": ((1, 0), (2, 1)), "mode": "reflect"}, {}),
    "crop": ({"cropping": ((1, 0), (2, 1))}, {}),
    "slice": ({"axis": 1, "start": 1, "stop": 3}, {}),
    "upsample": ({"factors": (2, 3)}, {}),
    "reshape": ({"target": (10, -1)}, {}),
    "permute": ({"dims": (3, 1, 2)}, {}),
    "rescale": ({"scale": -2.0, "offset": 0.0}, {}),
    "affine": ({}, {"scale": RANDOM.normal(size=6), "offset": RANDOM.normal(size=(5, 6))}),
    "constant": ({}, {"value": RANDOM.normal(size=(1, 6))}),
    "embedding": ({}, {"table": RANDOM.normal(size=(9, 6))}),
}
VARIANTS = [  # further settings of which the registry says something else
    ("relu", {"negative_slope": 0.3}),
    ("relu", {"max_value": 1.0}),
    ("relu", {"threshold": -0.5}),
    ("relu", {"threshold": 0.5}),
    ("hard_tanh", {"min_value": 0.0, "max_value": 2.0}),
    ("threshold", {"threshold": 0.0, "value": 1.0}),
    ("rescale", {"scale": 2.0, "offset": 1.0}),
    ("avg_pool", {**WINDOW, "count_include_pad": True}),
    ("pad", {"padding": ((1, 0), (0, 0)), "mode": "constant", "value": 0.0}),
    ("pad", {"padding": ((1, 0), (0, 0)), "mode": "constant", "value": -1.0}),
    *[("reduce", {**GLOBAL, "function": name}) for name in ("sum", "max", "min", "prod")],
]
MEANINGS = sorted(EVALUATED)
CASES = [(op, SAMPLES.get(op, ({}, {}))[0]) for op in MEANINGS] + VARIANTS
ids = [f"{op}-{number}" for number, (op, _) in enumerate(CASES)]
every_case = pytest.mark.parametrize(("op", "attrs"), CASES, ids=ids)


def arrays_of(op):
    return SAMPLES.get(op, ({}, {}))[1]


def inputs_of(op, random=RANDOM):
    if op == "embedding":
        return [random.integers(0, 9, (2, 5)).astype(np.float64)]
    count = 2 if OPERATIONS[op].kind == "merge" else 1
    return [random.normal(size=SHAPE) * 2 for _ in range(count)]


def graph_of(op, attrs, shapes, shape=()):
    arrays = {role: role for role in arrays_of(op)}
    names = tuple(f"x{number}" for number in range(len(shapes)))
    nodes = {n: Node(n, "input", (), (None, *s[1:])) for n, s in zip(names, shapes, strict=True)}
    nodes["y"] = Node("y", op, names, (None, *shape[1:]), "y", 0, attrs, arrays)
    tensors = {role: np.asarray(a, np.float32) for role, a in arrays_of(op).items()}
    return Graph("g", nodes, names, ("y",), tensors)


def apply(op, attrs, xs):
    return evaluate(graph_of(op, attrs, [x.shape for x in xs]), *xs)[0]


# What belongs to an operation.


def test_every_operation_has_a_meaning_or_a_reason_why_not():
    without = {op for op, what in OPERATIONS.items() if what.unevaluated}
    assert set(EVALUATED) == OPERATIONS.keys() - without


def test_every_operation_has_a_shape_rule_if_it_says_so():
    assert set(RULES) == select(shape="rule")


def test_every_operation_that_lowers_has_an_emitter():
    from relucate.torch.lowering.emit import EMITTERS

    assert set(EMITTERS) == select(lowers=True)


def literals(*folders):
    for folder in folders:
        for path in (Path(relucate.__file__).parent / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_every_operation_has_a_reader():
    from relucate.keras.reading.functions import FUNCTIONS

    named = set(literals("keras/reading", "torch/reading"))
    named |= {op for op, _ in FUNCTIONS.values()}
    assert OPERATIONS.keys() - named == set()


@pytest.mark.parametrize("op", sorted(OPERATIONS.keys() - {"input"}))
def test_every_operation_has_a_writer_or_a_refusal(op):
    from relucate.keras.writing.making import make_layer
    from relucate.torch.writing.making import make_module

    xs = inputs_of(op)
    attrs = SAMPLES.get(op, ({}, {}))[0]
    shape = apply(op, attrs, xs).shape if op in EVALUATED else SHAPE
    attrs = OPERATIONS[op].complete(attrs)
    graph = graph_of(op, attrs, [x.shape for x in xs], shape)
    for write in (
        lambda node: make_layer(node, graph, {"name": "y", "dtype": "float32"}),
        lambda node: make_module(node, graph, None),
    ):
        try:
            assert write(graph.nodes["y"]) is not None
        except Refused as reason:
            assert "'y'" in str(reason)  # noqa: PT017


@every_case
def test_samples_give_what_is_asked_for(op, attrs):
    known = OPERATIONS[op].attrs
    assert attrs.keys() <= known.keys()
    assert {name for name, default in known.items() if default is REQUIRED} <= attrs.keys()
    assert set(arrays_of(op)) <= set(OPERATIONS[op].arrays)
    assert not known.keys() & COMMON


# What is said is true.


@every_case
def test_shape(op, attrs):
    if OPERATIONS[op].shape != "given":
        xs = inputs_of(op)
        sizes = {role: array.shape for role, array in arrays_of(op).items()}
        found = output_shape(op, attrs, sizes, [x.shape for x in xs])
        assert found == apply(op, attrs, xs).shape


def per_channel(op, values, attrs, *, like):
    """Values per channel as they meet the operation's output."""
    if OPERATIONS[op].kind == "shape" or op == "concat":
        whole = np.broadcast_to(values, SHAPE)
        return apply(op, attrs, [whole] * (2 if op == "concat" else 1))
    return np.broadcast_to(values, like.shape)


def about_channels(op):
    return OPERATIONS[op].kind not in {"linear", "norm"} and op not in {
        "affine",
        "constant",
        "embedding",
    }


@every_case
def test_scale(op, attrs):
    if not about_channels(op):
        assert OPERATIONS[op].scale == "none"
        return
    xs, size = inputs_of(op), RANDOM.uniform(0.5, 2.0, 6)
    held = {}
    for sign, scale in (("positive", size), ("any", size * (-1.0) ** np.arange(6))):
        got, y = apply(op, attrs, [scale * x for x in xs]), apply(op, attrs, xs)
        if op == "glu":  # has other channels
            scale = scale[:3]
        held[sign] = np.allclose(got, per_channel(op, scale, attrs, like=y) * y)
    found = OPERATIONS[op].scale_of(attrs)
    assert held == {"positive": found != "none", "any": found == "any"}


@every_case
def test_shift(op, attrs):
    if not about_channels(op):
        assert OPERATIONS[op].shift == "none"
        return
    shift = RANDOM.normal(size=6)
    moves = []
    for _ in range(2):
        xs = inputs_of(op)
        y = apply(op, attrs, xs)
        moves.append(apply(op, attrs, [x + shift for x in xs]) - y)
    if op == "glu":
        shift = shift[:3]
    same = np.isclose(moves[0], per_channel(op, shift, attrs, like=y))
    steady = np.allclose(*moves)
    found = OPERATIONS[op].shift_of(attrs)
    assert same.all() == (found == "commutes")
    assert steady == (found != "none")
    if found == "borders":
        assert same.any()
    if found == "constant" and moves[0].ndim > 2:
        assert np.allclose(moves[0], moves[0][:1, :1, :1])


@every_case
def test_sign(op, attrs):
    what = OPERATIONS[op]
    if what.never_negative(attrs):
        assert apply(op, attrs, inputs_of(op)).min() >= 0
    elif what.kind == "act":
        assert apply(op, attrs, inputs_of(op)).min() < 0
    if what.transparent and not what.turns_negative:
        assert apply(op, attrs, [np.abs(x) for x in inputs_of(op)]).min() >= 0


@every_case
def test_mixing_channels(op, attrs):
    if (OPERATIONS[op].moves_axes and OPERATIONS[op].kind == "shape") or op == "embedding":
        return
    xs = inputs_of(op)
    y = apply(op, attrs, xs)
    xs[0] = xs[0] + 0.7 * (np.arange(6) == CHANNEL)
    changed = np.any(~np.isclose(apply(op, attrs, xs), y), axis=tuple(range(y.ndim - 1)))
    others = np.arange(len(changed)) != CHANNEL
    assert bool(np.any(changed & others)) == OPERATIONS[op].mixes


@pytest.mark.parametrize("op", sorted(select(lowers=True) - {"input"}))
def test_what_lowers_computes_the_same_and_differs_in_training_if_it_says_so(op):
    torch = pytest.importorskip("torch")
    from relucate.torch import lower

    attrs = SAMPLES.get(op, ({}, {}))[0]
    xs = [x.astype(np.float32) for x in inputs_of(op)]
    expected = apply(op, attrs, xs)
    graph = graph_of(op, attrs, [x.shape for x in xs], expected.shape)
    module = lower(graph)
    torch.manual_seed(0)
    calm, busy = (
        module.train(training)(*map(torch.from_numpy, xs)).detach().numpy()
        for training in (False, True)
    )
    np.testing.assert_allclose(calm, expected, rtol=1e-5, atol=1e-5)
    assert np.allclose(busy, calm) == (OPERATIONS[op].training == "same")
