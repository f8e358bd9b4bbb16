"""Random networks with random statistics: folding keeps the function, or says why it doesn't."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relucate.graph import Graph, Node
from relucate.graph.evaluate import evaluate
from relucate.surgery.borders import BORDERS
from relucate.surgery.fold import fold_graph, norm_calls

EXACT = ["auto", *(name for name, border in BORDERS.items() if border.exact)]

# Evaluated in float64; what was rounded is the weights.
TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 3e-2}
SIZE = 6
ACTS = ("relu", "tanh", "elu", "hard_sigmoid", "softmax", "glu")
MERGES = ("add", "average", "subtract", "multiply", "maximum", "minimum")


def unread(node, xs):
    """What an unknown layer computes: each channel depends on another, each position too."""
    return np.sin(xs[0]) + 0.5 * np.roll(xs[0], 1, axis=1) + 0.25 * np.roll(xs[0], 1, axis=-1)


def computed(graph, x):
    """Return the output of a graph that may have unknown layers."""
    return evaluate(graph, x, unread=unread)[0]


class Net:
    """A graph under construction; values are computed along with it, so that shapes are true."""

    def __init__(self, seed, first, dtype):
        self.random = np.random.default_rng(seed)
        self.first, self.dtype = first, np.dtype(dtype)
        self.nodes, self.tensors, self.values = {}, {}, {}
        shape = (3, 4, SIZE, SIZE) if first else (3, SIZE, SIZE, 4)
        self.nodes["x"] = Node("x", "input", (), (None, *shape[1:]))
        self.values["x"] = self.random.normal(size=shape) + 0.5
        self.last = "x"

    @property
    def axis(self):
        return 1 if self.first and self.values[self.last].ndim > 2 else -1

    def channels(self, name=None):
        return self.values[name or self.last].shape[self.axis]

    def add(self, op, *sources, attrs=None, arrays=None, layer=None, keys=None):
        name = f"{op}{len(self.nodes)}"
        layer = layer or name
        keys = keys or {role: f"{layer}/{role}" for role in arrays or {}}
        for role, value in (arrays or {}).items():
            self.tensors[keys[role]] = np.asarray(value, self.dtype)
        attrs = {
            "data_format": "channels_first" if self.first else "channels_last",
            **(attrs or {}),
        }
        sources = sources or (self.last,)
        node = Node(name, op, sources, (), layer, attrs=attrs, arrays=keys)
        inputs = {s: Node(s, "input", (), (None, *self.values[s].shape[1:])) for s in sources}
        graph = Graph("one", {**inputs, name: node}, tuple(inputs), (name,), self.tensors)
        (value,) = evaluate(graph, *(self.values[s] for s in inputs), unread=unread)
        self.nodes[name] = Node(
            name, op, sources, (None, *value.shape[1:]), layer, attrs=attrs, arrays=keys
        )
        self.values[name], self.last = value, name
        return name

    def normal(self, *shape):
        return self.random.normal(size=shape) / np.sqrt(max(np.prod(shape[:-1]), 1))

    def bias(self, size, wanted):
        return {"bias": self.random.normal(size=size)} if wanted else {}

    def conv(self, draw):
        window = draw(st.sampled_from([(1, 1), (3, 3), (2, 3)]))
        padding = draw(st.sampled_from(["valid", "same", ((1, 1), (2, 0))]))
        if min(self.spatial()) < 3:
            padding = "same"
        strides = draw(st.sampled_from([(1, 1), (2, 1)]))
        dilation = draw(st.sampled_from([(1, 1), (1, 2)])) if strides == (1, 1) else (1, 1)
        if padding != "same" and self.spatial()[1] < 5:
            dilation = (1, 1)
        inputs = self.channels()
        kind = draw(st.sampled_from(["conv", "grouped", "depthwise", "transposed"]))
        attrs = {"strides": strides, "padding": padding, "dilation": dilation, "groups": 1}
        wanted = draw(st.booleans())
        if kind == "depthwise":
            arrays = {"kernel": self.normal(*window, inputs, 2), **self.bias(2 * inputs, wanted)}
            return self.add("depthwise_conv", attrs=attrs, arrays=arrays)
        if kind == "transposed":
            attrs |= {"dilation": (1, 1), "padding": draw(st.sampled_from(["valid", "same"]))}
            arrays = {"kernel": self.normal(*window, 4, inputs), **self.bias(4, wanted)}
            return self.add("conv_transpose", attrs=attrs, arrays=arrays)
        groups = 2 if kind == "grouped" and inputs % 2 == 0 else 1
        arrays = {"kernel": self.normal(*window, inputs // groups, 4), **self.bias(4, wanted)}
        return self.add("conv", attrs={**attrs, "groups": groups}, arrays=arrays)

    def spatial(self):
        shape = self.values[self.last].shape
        return shape[2:] if self.first else shape[1:-1]

    def norm(self, draw):
        size = self.channels()
        gamma = self.random.normal(size=size)
        special = draw(st.sampled_from(["any", "positive", "zeros", "none"]))
        if special == "positive":
            gamma = np.abs(gamma) + 0.1
        elif special == "zeros":
            gamma[::2] = 0.0
        arrays = {
            "moving_mean": self.random.normal(size=size),
            "moving_variance": self.random.uniform(0.2, 3.0, size),
            "beta": self.random.normal(size=size),
        }
        if special != "none":
            arrays["gamma"] = gamma
        attrs = {"axis": self.axis, "epsilon": 1e-3, "momentum": 0.9}
        name = f"batch_norm{len(self.nodes)}"
        keys = {role: f"{name}/{role}" for role in arrays}
        if draw(st.integers(0, 5)) == 0:
            self.share(arrays, keys, size)
        return self.add("batch_norm", attrs=attrs, arrays=arrays, keys=keys)

    def share(self, arrays, keys, size):
        """Take the beta of an earlier norm, or the bias of a layer, for a norm's own beta."""
        found = [key for key in self.tensors if key.endswith(("/beta", "/bias"))]
        fitting = [key for key in found if self.tensors[key].shape == (size,)]
        if fitting:
            keys["beta"] = fitting[-1]
            arrays["beta"] = self.tensors[fitting[-1]]

    def again(self, draw):
        """Another call of the last norm that fits, somewhere else."""
        self.act(draw)
        norms = [n for n in self.nodes.values() if n.op == "batch_norm" and n.arrays]
        fitting = [n for n in norms if self.values[n.name].shape[self.axis] == self.channels()]
        if fitting and self.values[fitting[-1].name].ndim == self.values[self.last].ndim:
            other = fitting[-1]
            self.add("batch_norm", attrs=other.attrs, layer=other.layer, keys=dict(other.arrays))
        return self.last

    def other_norm(self, draw):
        """A norm that depends on the data."""
        size, axis = self.channels(), self.axis
        op = draw(st.sampled_from(["layer_norm", "rms_norm", "group_norm", "instance_norm"]))
        attrs = {"epsilon": 1e-2}
        if op in ("layer_norm", "rms_norm"):
            attrs["axes"] = (axis,)
        else:
            attrs["axis"] = axis
        if op == "group_norm":
            attrs["groups"] = draw(st.sampled_from([1, size, 2 if size % 2 == 0 else 1]))
        arrays = {"gamma": self.random.normal(size=size), "beta": self.random.normal(size=size)}
        kept = [role for role in arrays if draw(st.booleans())]
        return self.add(op, attrs=attrs, arrays={role: arrays[role] for role in kept})

    def opaque(self, draw):
        return self.add("opaque", attrs={"type": "Own"})

    def prelu(self, draw):
        shape = self.values[self.last].shape
        alpha = self.random.uniform(-0.5, 0.5, self.channels())
        along = [1] * (len(shape) - 1)
        along[self.axis - 1 if self.axis > 0 else -1] = -1
        return self.add("prelu", arrays={"alpha": alpha.reshape(along)})

    def moved(self, draw):
        """The same values along other axes, the channels perhaps."""
        shape = self.values[self.last].shape[1:]
        if len(shape) < 3:
            return self.last
        if draw(st.booleans()):
            dims = draw(st.permutations([1, 2, 3]))
            return self.add("permute", attrs={"dims": tuple(dims)})
        a, b, c = shape
        target = draw(st.sampled_from([(b, a, c), (a * b, 1, c), (a, b * c, 1), (a, c, b)]))
        return self.add("reshape", attrs={"target": target})

    def parallel(self, draw):
        """The block of RepVGG and MobileOne: convolutions and a norm, in parallel and added."""
        start, size = self.last, self.channels()
        attrs = {"strides": (1, 1), "padding": "same", "groups": 1}
        terms = []
        for _ in range(draw(st.integers(1, 2))):
            self.last = start
            window = draw(st.sampled_from([(1, 1), (3, 3), (3, 2)]))
            more = {"dilation": draw(st.sampled_from([(1, 1), (2, 1)]))}
            if draw(st.booleans()):
                arrays = {"kernel": self.normal(*window, size, 1)}
                self.add("depthwise_conv", attrs={**attrs, **more}, arrays=arrays)
            else:
                groups = draw(st.sampled_from([1, size]))
                arrays = {"kernel": self.normal(*window, size // groups, size)}
                arrays |= self.bias(size, draw(st.booleans()))
                self.add("conv", attrs={**attrs, **more, "groups": groups}, arrays=arrays)
            if draw(st.booleans()):
                self.norm(draw)
            terms.append(self.last)
        self.last = start
        terms.append(self.norm(draw))
        terms = draw(st.permutations(terms))
        self.last = terms[0]
        for term in terms[1:]:
            self.add(draw(st.sampled_from(["add", "add", "subtract"])), self.last, term)
        return self.last

    def pool(self, draw):
        op = draw(st.sampled_from(["max_pool", "avg_pool"]))
        attrs = {"window": (2, 2), "strides": (1, 1), "count_include_pad": draw(st.booleans())}
        padding = draw(st.sampled_from(["same", "valid", ((1, 1), (0, 1))]))
        attrs["padding"] = "same" if min(self.spatial()) < 3 else padding
        return self.add(op, attrs=attrs)

    def other(self, draw):
        ops = ["zero_pad", "upsample", "dropout", "identity", "rescale", "crop", "channel_pad"]
        op = draw(st.sampled_from(ops))
        if op == "channel_pad":
            return self.pad_channels(draw)
        attrs = {
            "zero_pad": {"padding": ((1, 0), (1, 1))},
            "upsample": {"factors": (2, 1)},
            "dropout": {"rate": 0.5},
            "identity": {},
            "rescale": {"scale": -0.5, "offset": 0.25},
            "crop": {"cropping": ((0, 1), (0, 0))},
        }[op]
        if op == "crop" and min(self.spatial()) < 3:
            op, attrs = "identity", {}
        return self.add(op, attrs=attrs)

    def pad_channels(self, draw):
        """Zeros as further channels: a layer of the other data format pads them (ResNet's A)."""
        along, other = ((1, 2), (0, 0)), ((0, 0), (1, 2))
        if draw(st.booleans()):
            along, other = ((1, 2), (0, 1)), ((1, 0), (1, 2))
        if self.first:
            return self.add("zero_pad", attrs={"data_format": "channels_last", "padding": along})
        return self.add("zero_pad", attrs={"data_format": "channels_first", "padding": other})

    def act(self, draw):
        op = draw(st.sampled_from(ACTS))
        if op == "glu" and self.channels() % 2:
            op = "softmax"
        attrs = {"axis": self.axis} if op in {"softmax", "glu"} else {}
        return self.add(op, attrs=attrs)

    def separable(self, draw):
        """Two nodes of one layer."""
        size, layer = self.channels(), f"separable{len(self.nodes)}"
        attrs = {"strides": (1, 1), "padding": "same", "dilation": (1, 1), "groups": 1}
        kernels = {"depthwise": self.normal(3, 3, size, 1), "pointwise": self.normal(1, 1, size, 4)}
        for op, part in (("depthwise_conv", "depthwise"), ("conv", "pointwise")):
            arrays = {"kernel": kernels[part]}
            keys = {"kernel": f"{layer}/{part}_kernel"}
            if part == "pointwise" and draw(st.booleans()):
                arrays["bias"], keys["bias"] = self.random.normal(size=4), f"{layer}/bias"
            self.add(op, attrs=attrs, arrays=arrays, keys=keys, layer=layer)

    def branch(self, draw):
        """Two ways from here and together again: a residual, or a concatenation."""
        start = self.last
        self.step(draw)
        one = self.last
        self.last = start
        if draw(st.booleans()):
            self.step(draw)
        two = self.last
        a, b = self.values[one].shape, self.values[two].shape
        if one == two:
            return self.add("concat", one, one, attrs={"axis": self.axis})
        if a == b and draw(st.booleans()):
            return self.add(draw(st.sampled_from(MERGES)), one, two)
        spatial = (a[2:], b[2:]) if self.first else (a[1:-1], b[1:-1])
        if spatial[0] == spatial[1]:
            return self.add("concat", one, two, attrs={"axis": self.axis})
        self.last = one
        return one

    def shared(self, draw):
        """A convolution called twice."""
        size = self.channels()
        arrays = {"kernel": self.normal(1, 1, size, size), "bias": self.random.normal(size=size)}
        attrs = {"strides": (1, 1), "padding": "valid", "dilation": (1, 1), "groups": 1}
        name = self.add("conv", attrs=attrs, arrays=arrays)
        self.norm(draw)
        return self.add("conv", attrs=attrs, layer=name, keys=dict(self.nodes[name].arrays))

    def step(self, draw):
        kinds = "conv conv conv norm norm norm norm act act act pool other separable "
        kinds += "prelu moved again other_norm opaque"
        getattr(self, draw(st.sampled_from(kinds.split())))(draw)

    def head(self, draw):
        if draw(st.booleans()):
            first = 2 if self.first else 1
            self.add("global_avg_pool", attrs={"axes": (first, first + 1), "keepdims": False})
        else:
            self.add("flatten")
        if draw(st.booleans()):
            self.norm(draw)
        size = self.values[self.last].shape[-1]
        arrays = {"kernel": self.normal(size, 3), **self.bias(3, draw(st.booleans()))}
        return self.add("dense", arrays=arrays)

    def graph(self):
        return Graph("net", self.nodes, ("x",), (self.last,), self.tensors)


@st.composite
def nets(draw):
    dtype = draw(st.sampled_from([np.float64, np.float32, ml_dtypes.bfloat16]))
    net = Net(draw(st.integers(0, 2**32 - 1)), draw(st.booleans()), dtype)
    for _ in range(draw(st.integers(1, 7))):
        kind = draw(st.sampled_from(["step"] * 6 + ["branch", "branch", "shared", "parallel"]))
        getattr(net, kind)(draw)
    if draw(st.booleans()):
        net.head(draw)
    return net


def close(net, got, expected):
    scale = max(np.abs(expected).max(), 1.0)
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCES[net.dtype.name] * scale)


def check(net, strategy):
    graph = net.graph()
    before = {key: value.copy() for key, value in graph.tensors.items()}
    plan = fold_graph(graph, strategy)
    folded, outcomes = plan.graph, plan.outcomes
    assert len(outcomes) == len(norm_calls(graph))  # one for all calls of a norm
    skipped = sum(outcome.status == "skipped" for outcome in outcomes)
    assert len(norm_calls(folded)) == skipped
    assert all(outcome.reason for outcome in outcomes)
    x = np.random.default_rng(1).normal(size=net.values["x"].shape) * 2
    close(net, computed(folded, x), computed(graph, x))
    for key, value in before.items():
        np.testing.assert_array_equal(graph.tensors[key], value)
        assert key not in folded.tensors or folded.tensors[key].dtype == value.dtype
    used = {key for node in folded for key in node.arrays.values()}
    assert used == set(folded.tensors)
    for node in folded:
        assert all(source in folded.nodes for source in node.inputs)
    return outcomes


@given(nets(), st.sampled_from(EXACT))
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_folding_keeps_the_function(net, strategy):
    check(net, strategy)


@pytest.mark.nightly
@given(nets(), st.sampled_from(EXACT))
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
def test_folding_keeps_the_function_nightly(net, strategy):
    check(net, strategy)
