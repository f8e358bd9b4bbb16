import copy

import numpy as np
import pytest
import torch
from torch import nn

from relucate.errors import InputError, Refused
from relucate.graph import Graph, Node, Penalty, evaluate
from relucate.torch import Lowered, lower

CONV = {"strides": (1, 1), "padding": "same", "dilation": (1, 1), "groups": 1}
RANDOM = np.random.default_rng(0)


def tensor(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def graph(*nodes, tensors=None, shape=(None, 4), outputs=None, **options):
    table = {"x": Node("x", "input", (), shape), **{n.name: n for n in nodes}}
    tensors = tensors or {}
    options.setdefault("trainable", frozenset(tensors))
    return Graph("g", table, ("x",), outputs or (nodes[-1].name,), tensors, **options)


def dense(name="d", source="x", key="d", **arrays):
    arrays = arrays or {"kernel": f"{key}/kernel", "bias": f"{key}/bias"}
    return Node(name, "dense", (source,), (None, 4), name.split("@")[0], arrays=arrays)


def one_dense(**options):
    return graph(dense(), tensors={"d/kernel": tensor(4, 4), "d/bias": tensor(4)}, **options)


EVERYTHING = {
    "conv/kernel": tensor(3, 2, 4, 6),
    "conv/bias": tensor(6),
    "deep/kernel": tensor(2, 3, 6, 2),
    "bn/gamma": tensor(12),
    "bn/beta": tensor(12),
    "bn/moving_mean": tensor(12),
    "bn/moving_variance": np.abs(tensor(12)),
    "act/alpha": tensor(1, 1, 12),
    "d/kernel": tensor(12, 5),
    "d/bias": tensor(5),
}


def everything():
    def node(name, op, source, **attrs):
        roles = {k.split("/")[1]: k for k in EVERYTHING if k.startswith(f"{name}/")}
        shape = (None, 7, 5, {"conv": 6}.get(name, 12))
        return Node(name, op, (source,), shape, name, 0, attrs, roles)

    return graph(
        node("conv", "conv", "x", **CONV),
        node("deep", "depthwise_conv", "conv", **CONV),
        node("bn", "batch_norm", "deep", axis=-1, epsilon=1e-3, momentum=0.9),
        node("act", "prelu", "bn"),
        node("d", "dense", "act"),
        tensors=EVERYTHING,
        shape=(None, 7, 5, 4),
        trainable=frozenset(k for k in EVERYTHING if "moving" not in k),
    )


class TestTensors:
    def test_come_back_bit_for_bit(self):
        module = lower(everything())
        for key, array in module.get_tensors().items():
            np.testing.assert_array_equal(array, EVERYTHING[key])
        assert module.get_tensors().keys() == EVERYTHING.keys()
        other = {key: np.abs(tensor(*array.shape)) for key, array in EVERYTHING.items()}
        module.set_tensors(other)
        for key, array in module.get_tensors().items():
            np.testing.assert_array_equal(array, other[key])
        x = tensor(2, 7, 5, 4)
        expected = evaluate(Graph(**{**vars_of(everything()), "tensors": other}), x)[0]
        with torch.no_grad():
            got = module.eval()(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    def test_are_copies(self):
        module = lower(one_dense())
        first = module.get_tensors()["d/bias"]
        first[:] = 9
        assert not np.array_equal(module.get_tensors()["d/bias"], first)
        source = np.ones(4, np.float32)
        module.set_tensors({"d/bias": source})
        source[:] = 5
        np.testing.assert_array_equal(module.get_tensors()["d/bias"], np.ones(4))

    def test_float64_is_cast_once(self):
        module = lower(one_dense())
        value = np.full(4, 1 / 3)
        module.set_tensors({"d/bias": value})
        np.testing.assert_array_equal(module.get_tensors()["d/bias"], value.astype("float32"))

    def test_wrong_name_or_shape(self):
        module = lower(one_dense())
        with pytest.raises(InputError, match="unknown tensor 'd/bais': did you mean 'd/bias'"):
            module.set_tensors({"d/bais": np.ones(4)})
        with pytest.raises(InputError, match=r"'d/bias' has shape \(4,\), got \(1,\)"):
            module.set_tensors({"d/bias": np.ones(1)})

    def test_trainable_flags(self):
        module = lower(one_dense(trainable=frozenset({"d/bias"})))
        assert [n for n, p in module.named_parameters() if p.requires_grad] == ["d.bias"]

    def test_deepcopy_is_a_whole_lowered_model(self):
        module = lower(one_dense(penalties=(Penalty("d/kernel", 0.0, 0.1),)))
        twin = copy.deepcopy(module)
        assert isinstance(twin, Lowered)
        twin.set_tensors({"d/kernel": np.zeros((4, 4))})
        assert float(twin.penalty().detach()) == 0.0
        assert float(module.penalty().detach()) > 0.0


def vars_of(g):
    return {name: getattr(g, name) for name in Graph.__dataclass_fields__}


class TestPenalty:
    def test_is_l1_and_l2(self):
        module = lower(
            one_dense(penalties=(Penalty("d/kernel", 0.5, 0.25), Penalty("d/bias", 0.0, 2.0)))
        )
        kernel, bias = (module.get_tensors()[k].astype(float) for k in ("d/kernel", "d/bias"))
        expected = 0.5 * abs(kernel).sum() + 0.25 * (kernel**2).sum() + 2 * (bias**2).sum()
        assert float(module.penalty().detach()) == pytest.approx(expected, rel=1e-6)
        module.penalty().backward()
        np.testing.assert_allclose(module.d.bias.grad, 4 * bias, rtol=1e-6)

    def test_none_without_regularizers(self):
        assert lower(one_dense()).penalty() is None


class TestLogits:
    @pytest.mark.parametrize("op", ["softmax", "log_softmax"])
    @pytest.mark.parametrize("axis", [-1, 1])
    def test_a_last_softmax_is_left_out_if_asked(self, op, axis):
        source = graph(Node("p", op, ("x",), (None, 4), attrs={"axis": axis}))
        x = torch.randn(2, 4)
        assert lower(source, logits=True).returns_logits
        assert torch.equal(lower(source, logits=True)(x), x)
        assert not lower(source).returns_logits
        assert torch.equal(lower(source)(x), getattr(torch, op)(x, -1))

    def test_not_over_another_axis_and_not_where_it_is_read_again(self):
        over_rows = graph(
            Node("p", "softmax", ("x",), (None, 3, 4), attrs={"axis": 1}), shape=(None, 3, 4)
        )
        assert not lower(over_rows, logits=True).returns_logits
        soft = Node("p", "softmax", ("x",), (None, 4))
        twice = graph(soft, Node("q", "add", ("p", "p"), (None, 4)), outputs=("p",))
        assert not lower(twice, logits=True).returns_logits
        several = graph(soft, outputs=("p", "x"))
        assert not lower(several, logits=True).returns_logits


class TestRefused:
    def test_opaque(self):
        odd = Node(
            "a/odd", "opaque", ("x",), (None, 4), "odd", attrs={"type": "Thing", "why": "so"}
        )
        with pytest.raises(Refused, match=r"can't lower layer 'odd' \(Thing\): so\."):
            lower(graph(odd))

    def test_obstacles(self):
        with pytest.raises(Refused, match="faithfully: this; that"):
            lower(one_dense(obstacles=("this", "that")))

    @pytest.mark.parametrize("word", ["renorm", "synchronized"])
    def test_other_statistics(self, word):
        norm = Node("n", "batch_norm", ("x",), (None, 4), "n", attrs={word: True})
        with pytest.raises(Refused, match=f"'n': batch norm with {word}=True"):
            lower(graph(norm))

    def test_unknown_image_size(self):
        conv = Node(
            "c",
            "conv",
            ("x",),
            (None, None, 5, 3),
            "c",
            attrs={**CONV, "strides": (2, 1)},
            arrays={"kernel": "k"},
        )
        with pytest.raises(Refused, match="'c': 'same' padding with stride 2 needs a fixed"):
            lower(graph(conv, tensors={"k": tensor(3, 3, 2, 3)}, shape=(None, None, 5, 2)))

    def test_a_tensor_that_two_layers_share(self):
        """Two modules would hold two copies that drift apart in training."""
        tensors = {"k": tensor(4, 4), "a/bias": tensor(4)}
        tied = graph(
            dense("a", kernel="k", bias="a/bias"), dense("b", "a", kernel="k"), tensors=tensors
        )
        with pytest.raises(Refused, match="'b': it shares the tensor 'k' with another layer"):
            lower(tied)

    def test_reshape_to_two_unknown_sizes(self):
        node = Node("r", "reshape", ("x",), (None,) * 3, "r", attrs={"target": (-1, -1)})
        with pytest.raises(Refused, match=r"'r': reshape to an unknown shape \(-1, -1\)"):
            lower(graph(node))


class TestNames:
    WORDS = (
        "class",
        "None",
        "torch",
        "self",
        "graph",
        "code",
        "meta",
        "training",
        "forward",
        "bindings",
        "shapes",
        "source",
        "penalty",
        "_modules",
        "é²",
        "1st",
        "a b",
        "a-b",
        "",
        "print",
        "operator",
        "T_destination",
    )

    @pytest.mark.parametrize("word", WORDS)
    def test_any_name_of_layer_or_input(self, word):
        tensors = {"k/kernel": tensor(4, 4), "k/bias": tensor(4)}
        named = dense(word, key="k", kernel="k/kernel", bias="k/bias")
        relu = Node("r", "relu", (word,), (None, 4))
        x = tensor(3, 4)
        source = graph(named, relu, tensors=tensors)
        got = lower(source)(torch.from_numpy(x))
        np.testing.assert_allclose(got.detach(), evaluate(source, x)[0], atol=1e-6)
        table = {word: Node(word, "input", (), (None, 4)), "r": relu}
        source = Graph("g", table, (word,), ("r",), {})
        assert torch.equal(lower(source)(torch.from_numpy(x)), torch.relu(torch.from_numpy(x)))

    def test_names_that_clash_after_cleaning(self):
        tensors = {
            f"{k}/kernel": np.full((4, 4), v, np.float32)
            for k, v in (("a-b", 1), ("a_b", 2), ("a b", 3))
        }
        nodes = [
            dense("a-b", kernel="a-b/kernel"),
            dense("a_b", "a-b", kernel="a_b/kernel"),
            dense("a b", "a_b", kernel="a b/kernel"),
        ]
        module = lower(graph(*nodes, tensors=tensors))
        assert len(list(module.children())) == 3
        assert float(module(torch.ones(1, 4))[0, 0].detach()) == 4 * 8 * 12
        for key, array in module.get_tensors().items():
            np.testing.assert_array_equal(array, tensors[key])


class TestStructure:
    def test_input_as_output(self):
        x = torch.randn(2, 4)
        source = Graph("g", {"x": Node("x", "input", (), (None, 4))}, ("x",), ("x", "x"), {})
        assert all(torch.equal(y, x) for y in lower(source)(x))

    def test_weights_are_channels_last_and_norms_too(self):
        module = lower(everything())
        assert module.conv.weight.is_contiguous(memory_format=torch.channels_last)
        seen = []
        module.bn.register_forward_hook(lambda m, x, y: seen.append(y))
        module(torch.randn(2, 7, 5, 4))
        assert seen[0].is_contiguous(memory_format=torch.channels_last)

    def test_calls_of_a_layer_share_a_module(self):
        nodes = dense("d"), Node("d@1", "dense", ("d",), (None, 4), "d", 1, {}, dense().arrays)
        tensors = {"d/kernel": tensor(4, 4), "d/bias": tensor(4)}
        module = lower(graph(*nodes, tensors=tensors))
        assert [type(m) for m in module.children()] == [nn.Linear]

    def test_dropout_calls_have_modules_of_their_own_by_name(self):
        nodes = [
            Node("drop", "dropout", ("x",), (None, 4), "drop", 0, {"rate": 0.5}),
            Node("drop@1", "dropout", ("drop",), (None, 4), "drop", 1, {"rate": 0.5}),
        ]
        names = [n for n, m in lower(graph(*nodes)).named_modules() if isinstance(m, nn.Dropout)]
        assert names == ["drop", "drop_1"]
