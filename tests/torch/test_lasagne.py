import copy
import math

import pytest
import torch
import torch.nn.functional as F
from tests.orders import KEEPS_BIAS
from torch import fx, nn
from torch.nn.utils import parametrizations, weight_norm

from relucate.errors import InputError, Refused
from relucate.order import Order
from relucate.torch import ConvBlock, batch_norm

ORDERS = ["before", "after", "norm-linear-act", "norm-act-linear", "act-linear-norm"]
LINEAR = {
    "Linear": (lambda: nn.Linear(4, 6), (5, 4)),
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3, 2, 1, groups=2), (3, 4, 9)),
    "Conv2d": (lambda: nn.Conv2d(4, 6, 3, dilation=2, padding_mode="reflect"), (3, 4, 9, 8)),
    "Conv3d": (lambda: nn.Conv3d(4, 6, (1, 2, 3)), (3, 4, 5, 4, 6)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 6, 3, 2), (3, 4, 9)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1), (3, 4, 5, 4)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(4, 6, 2), (3, 4, 3, 4, 3)),
}


def randomized(module, seed=0):
    """Random weights and statistics: a fresh norm is the identity and hides mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                low, high = (0.5, 2.0) if "var" in name else (-1.0, 1.0)
                tensor.uniform_(low, high, generator=generator)
    return module


def noise(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def names(stack):
    return [name for name, _ in stack.named_children()]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", LINEAR)
def test_every_linear_module(kind, order):
    make, shape = LINEAR[kind]
    source = randomized(nn.Sequential(make(), nn.Tanh()))
    stack = batch_norm(source, order, eps=1e-2)
    assert names(stack) == list(Order(order).tokens)
    randomized(stack.norm, seed=2)
    x = noise(*shape) * 2 + 1
    plain = copy.deepcopy(source[0]).double()
    if order in ("before", "act-linear-norm"):
        plain.bias = None
    expected = x.double()
    for token in Order(order).tokens:
        if token == "linear":
            expected = plain(expected)
        elif token == "act":
            expected = torch.tanh(expected)
        else:
            view = [1, -1] + [1] * (x.ndim - 2)
            gamma, beta, mean, var = (
                getattr(stack.norm, n).detach().double().view(view)
                for n in ("weight", "bias", "running_mean", "running_var")
            )
            expected = (expected - mean) / torch.sqrt(var + 1e-2) * gamma + beta
    torch.testing.assert_close(stack.eval()(x).double(), expected, rtol=1e-4, atol=1e-4)


class TestLasagne:
    """What the cases of Lasagne's own test of batch_norm mean, one by one."""

    def test_it_steals_the_nonlinearity(self):
        stack = batch_norm(nn.Sequential(nn.Linear(3, 4), nn.ELU(0.7)))
        assert names(stack) == ["linear", "norm", "act"]
        assert stack.act.alpha == 0.7

    def test_it_removes_the_bias(self):
        stack = batch_norm(nn.Linear(3, 4))
        assert names(stack) == ["linear", "norm"]
        assert stack.linear.bias is None
        assert "linear.bias" not in stack.state_dict()

    def test_it_can_handle_an_unset_bias(self):
        stack = batch_norm(nn.Linear(3, 4, bias=False))
        assert names(stack) == ["linear", "norm"]
        assert stack.linear.bias is None

    def test_it_passes_on_arguments(self):
        stack = batch_norm(nn.Conv2d(3, 4, 1), eps=0.5, momentum=0.3, affine=False)
        assert (stack.norm.eps, stack.norm.momentum, stack.norm.affine) == (0.5, 0.3, False)
        with pytest.raises(InputError, match="unknown argument of batch_norm 'epsilon'"):
            batch_norm(nn.Conv2d(3, 4, 1), epsilon=0.5)

    def test_names_are_those_of_a_block_in_every_order(self):
        source = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())
        for order in ORDERS:
            keys = set(batch_norm(source, order).state_dict())
            assert keys == set(ConvBlock(4, 4, order=order).state_dict())


@pytest.mark.parametrize(("order", "kept"), KEEPS_BIAS.items())
def test_the_bias_goes_only_where_the_norm_directly_follows(order, kept):
    stack = batch_norm(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), order)
    assert (stack.linear.bias is not None) == kept


def test_without_an_activation_after_is_before():
    stack = batch_norm(nn.Conv2d(3, 4, 1), "after")
    assert names(stack) == ["linear", "norm"]
    assert stack.linear.bias is None


@pytest.mark.parametrize(("order", "width"), [("before", 6), ("after", 6), ("norm-act-linear", 4)])
@pytest.mark.parametrize("kind", LINEAR)
def test_the_norm_is_as_wide_as_what_it_sees(kind, order, width):
    stack = batch_norm(nn.Sequential(LINEAR[kind][0](), nn.ReLU()), order)
    assert stack.norm.num_features == width
    rank = {2: "1d", 3: "1d", 4: "2d", 5: "3d"}[len(LINEAR[kind][1])]
    assert type(stack.norm).__name__ == f"BatchNorm{rank}"


def test_the_argument_stays_as_it_is():
    source = randomized(nn.Sequential(nn.Linear(3, 4), nn.PReLU(4)))
    kept = copy.deepcopy(source.state_dict())
    stack = batch_norm(source)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.fill_(9.0)
    assert list(source.state_dict()) == ["0.weight", "0.bias", "1.weight"]
    for key, tensor in source.state_dict().items():
        torch.testing.assert_close(tensor, kept[key])
    assert source[0].bias is not None


def test_weights_are_copied():
    source = randomized(nn.Sequential(nn.Linear(3, 4), nn.PReLU(4)))
    stack = batch_norm(source, "after")
    torch.testing.assert_close(stack.linear.weight, source[0].weight)
    torch.testing.assert_close(stack.linear.bias, source[0].bias)
    torch.testing.assert_close(stack.act.weight, source[1].weight)


def test_dtype_mode_and_frozen_weights_come_along():
    source = nn.Sequential(nn.Linear(3, 4), nn.ReLU()).double().eval()
    source[0].weight.requires_grad_(False)
    stack = batch_norm(source)
    assert stack.norm.weight.dtype == torch.float64
    assert [m.training for m in stack.modules()] == [False] * 4
    assert not stack.linear.weight.requires_grad
    assert stack(noise(5, 3).double()).dtype == torch.float64


class TestDropout:
    @pytest.mark.parametrize("order", ["before", "after"])
    def test_at_the_end_it_stays_there(self, order):
        source = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.3))
        stack = batch_norm(source, order)
        assert names(stack) == [*Order(order).tokens, "drop"]
        assert stack.drop.p == 0.3

    def test_the_order_may_say_where(self):
        source = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.3), nn.ReLU())
        assert names(batch_norm(source, "linear-drop-norm-act"))[1] == "drop"
        assert batch_norm(source, "linear-drop-norm-act").linear.bias is not None
        with pytest.raises(InputError, match="says nowhere to put Dropout"):
            batch_norm(source)

    def test_there_must_be_one(self):
        with pytest.raises(InputError, match="there is no dropout in the module"):
            batch_norm(nn.Linear(3, 4), "linear-norm-drop")


def test_an_identity_is_left_out():
    stack = batch_norm(nn.Sequential(nn.Linear(3, 4), nn.Identity(), nn.ReLU()))
    assert names(stack) == ["linear", "norm", "act"]


def test_an_order_without_a_norm():
    source = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    stack = batch_norm(source, "none")
    assert names(stack) == ["linear", "act"]
    torch.testing.assert_close(stack(noise(2, 3)), source(noise(2, 3)))


def test_an_in_place_activation_that_comes_first_leaves_the_input_alone():
    source = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True))
    x = noise(4, 3)
    kept = x.clone()
    batch_norm(source, "act-linear-norm")(x)
    torch.testing.assert_close(x, kept, rtol=0, atol=0)
    assert source[1].inplace
    assert batch_norm(source).act.inplace


def test_a_parametrized_module_keeps_its_parametrization():
    source = parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    randomized(source)
    stack = batch_norm(source)
    x = noise(2, 3, 5, 5)
    torch.testing.assert_close(stack.linear(x), F.conv2d(x, source.weight))
    assert any("original0" in key for key in stack.state_dict())


def test_ranks_that_the_norm_would_misread():
    with pytest.raises(InputError, match="flatten the leading axes"):
        batch_norm(nn.Linear(4, 4))(noise(3, 4, 4))
    with pytest.raises(InputError, match=r"takes \(batch, channels, length\)"):
        batch_norm(nn.Conv1d(4, 4, 1))(noise(4, 4))


def test_fx_traces_it():
    stack = randomized(batch_norm(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), "after")).eval()
    traced = fx.symbolic_trace(stack)
    assert [n.target for n in traced.graph.nodes if n.op == "call_module"] == names(stack)
    torch.testing.assert_close(traced(noise(5, 3)), stack(noise(5, 3)))


class Own(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


REFUSED = [
    (lambda: nn.LSTM(3, 4), "LSTM: its activations work inside the recurrence"),
    (lambda: nn.GRUCell(3, 4), "GRUCell: its activations work inside the recurrence"),
    (lambda: nn.MultiheadAttention(4, 2), "MultiheadAttention: .* inside the attention"),
    (lambda: nn.Sequential(nn.Linear(3, 4), nn.Softmax(-1)), "Softmax: it mixes the channels"),
    (lambda: nn.Sequential(nn.Linear(3, 4), nn.LogSoftmax(-1)), "LogSoftmax: it mixes"),
    (lambda: nn.Sequential(nn.Linear(3, 4), nn.GLU()), "GLU: it mixes the channels or changes"),
    (lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), "BatchNorm1d: it is a norm"),
    (lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), "LayerNorm: it is a norm"),
    (lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4)), "one linear module"),
    (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Tanh()), "one act module, got ReLU"),
    (lambda: nn.Sequential(nn.ReLU(), nn.Linear(3, 4)), "got ReLU, Linear: the first must be"),
    (lambda: nn.Sequential(), "got nothing: the first must be"),
    (lambda: nn.ReLU(), "got ReLU: the first must be"),
    (lambda: nn.Sequential(nn.Sequential(nn.Linear(3, 4))), "Sequential: it is a container"),
    (lambda: nn.LazyLinear(4), "LazyLinear: it has no sizes yet"),
    (lambda: nn.Embedding(3, 4), "Embedding: it is none of Linear, Conv1d"),
    (lambda: Own(3, 4), "Own: a subclass may compute something else"),
    (lambda: nn.Sequential(nn.Linear(3, 4), nn.PReLU(4)), "weight for each"),
]


@pytest.mark.parametrize(("make", "match"), REFUSED, ids=[match[:20] for _, match in REFUSED])
def test_what_is_refused_is_named(make, match):
    order = "act-linear-norm" if match == "weight for each" else "before"
    with pytest.raises(Refused, match=match):
        batch_norm(make(), order)


def test_hooks_and_computed_weights_are_refused():
    source = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    source.register_forward_hook(lambda module, inputs, output: output * 2)
    with pytest.raises(Refused, match="its hooks would be lost"):
        batch_norm(source)
    tied = parametrizations.weight_norm(nn.Linear(3, 4), name="bias", dim=None)
    with pytest.raises(Refused, match="Linear: its bias is parametrized"):
        batch_norm(tied)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_the_old_weight_norm_is_refused_with_the_new_one():
    with pytest.raises(Refused, match=r"can't be copied .*parametrizations"):
        batch_norm(weight_norm(nn.Linear(3, 4)))


def test_wrong_arguments():
    with pytest.raises(InputError, match="takes a module, got 3"):
        batch_norm(3)
    with pytest.raises(InputError, match="nowhere to put ReLU"):
        batch_norm(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), "linear-norm")
    with pytest.raises(InputError, match="write 'linear'"):
        batch_norm(nn.Linear(3, 4), "fc-bn")
    assert math.isclose(batch_norm(nn.Linear(3, 4), eps=0.1).norm.eps, 0.1)
