import copy
import math
import pickle
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from tests.orders import KEEPS_BIAS
from torch import fx, nn

from relucate.errors import InputError
from relucate.order import Order
from relucate.torch import ConvBlock, DenseBlock
from relucate.torch.blocks import NORMS
from relucate.torch.pieces import ACTIVATIONS, gain_of

ORDERS = [*KEEPS_BIAS, "act-norm-linear", "linear-norm", "linear"]
DROPS = ["linear-norm-act-drop", "drop-linear-norm-act", "linear-drop-norm-act"]
DENSE_NORMS = [norm for norm in NORMS if norm != "instance"]
SQRT2 = math.sqrt(2)


def randomized(module, seed=0):
    """Random weights and statistics: a fresh norm is the identity and hides mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                low, high = (0.5, 2.0) if "var" in name or name == "norm.weight" else (-1.0, 1.0)
                tensor.uniform_(low, high, generator=generator)
    return module


def noise(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def conv(order="before", *, dims=2, **options):
    return ConvBlock(4, 6, 3, order=order, dims=dims, **options)


def dense(order="before", **options):
    return DenseBlock(4, 6, order=order, **options)


def normalize_by_hand(module, x, training):
    """The norm's equation in float64, written out."""
    axes = list(range(2, x.ndim))
    shape = [1, -1] + [1] * (x.ndim - 2)
    if isinstance(module, nn.GroupNorm):
        groups = x.reshape(len(x), module.num_groups, -1)
        mean, var = groups.mean(2, keepdim=True), groups.var(2, correction=0, keepdim=True)
        y = ((groups - mean) / torch.sqrt(var + module.eps)).reshape(x.shape)
    elif isinstance(module, nn.LayerNorm):
        mean, var = x.mean(1, keepdim=True), x.var(1, correction=0, keepdim=True)
        y = (x - mean) / torch.sqrt(var + module.eps)
    else:
        batch = "BatchNorm" in type(module).__name__
        axes = [0, *axes] if batch else axes
        mean, var = x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True)
        if batch and not training:
            mean = module.running_mean.double().view(shape)
            var = module.running_var.double().view(shape)
        y = (x - mean) / torch.sqrt(var + module.eps)
    return y * module.weight.double().view(shape) + module.bias.double().view(shape)


def by_hand(block, x, convolve):
    """What the order says, token by token, from the block's tensors."""
    tokens = [t for t in block.order.tokens if hasattr(block, t)]
    x = x.double()
    for token in tokens:
        if token == "linear":
            bias = block.linear.bias
            x = convolve(x, block.linear.weight.double(), None if bias is None else bias.double())
        elif token == "norm":
            x = normalize_by_hand(block.norm, x, block.training)
        elif token == "act":
            x = torch.tanh(x)
    return x


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("order", ORDERS)
class TestArithmetic:
    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("dims", [1, 2, 3])
    def test_conv(self, order, norm, training, dims):
        block = conv(order, norm=norm, activation="tanh", dims=dims, norm_groups=2)
        randomized(block).train(training)
        x = noise(3, 4, *(7, 6, 5)[:dims]) * 2 + 1
        function = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
        expected = by_hand(block, x, lambda t, w, b: function(t, w, b, padding=1))
        torch.testing.assert_close(block(x).double(), expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("norm", DENSE_NORMS)
    def test_dense(self, order, norm, training):
        block = dense(order, norm=norm, activation="tanh", norm_groups=2)
        randomized(block).train(training)
        x = noise(5, 4) * 2 + 1
        expected = by_hand(block, x, F.linear)
        torch.testing.assert_close(block(x).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("order", ["before", "after", "norm-act-linear"])
def test_stride_dilation_groups_and_padding_mode_reach_the_convolution(order, mode):
    block = ConvBlock(
        4, 6, (3, 5), (2, 1), dilation=(1, 2), groups=2, padding_mode=mode, order=order
    )
    own = nn.Conv2d(4, 6, (3, 5), (2, 1), (1, 4), (1, 2), 2, True, mode)
    with torch.no_grad():
        own.weight.copy_(block.linear.weight)
        own.bias.copy_(torch.zeros(6) if block.linear.bias is None else block.linear.bias)
    x = noise(2, 4, 9, 11)
    torch.testing.assert_close(block.linear(x), own(x))
    assert block(x).shape == (2, 6, 5, 11)


@pytest.mark.parametrize("make", [conv, dense])
@pytest.mark.parametrize("norm", ["batch", "group", "layer", "none"])
@pytest.mark.parametrize("order", ORDERS + DROPS)
def test_children_are_registered_in_data_flow_order(make, norm, order):
    block = make(order, norm=norm, dropout=0.25 if "drop" in order else 0.0)
    wanted = [t for t in Order(order).tokens if t != "norm" or norm != "none"]
    assert [name for name, _ in block.named_children()] == wanted


@pytest.mark.parametrize(
    ("make", "norm"), [*((conv, n) for n in NORMS), *((dense, n) for n in DENSE_NORMS)]
)
@pytest.mark.parametrize("order", ORDERS + DROPS)
def test_bias_only_where_no_mean_per_channel_is_taken_away_right_behind(make, order, norm):
    block = make(order, norm=norm)
    follows = ("linear", "norm") in pairwise(Order(order).tokens)
    assert (block.linear.bias is None) == (follows and norm in ("batch", "instance"))


@pytest.mark.parametrize("norm", ["batch", "instance", "group", "layer"])
@pytest.mark.parametrize("order", ORDERS)
def test_the_bias_that_is_left_out_is_the_one_that_does_nothing(order, norm):
    """Add to the bias of a block that was made with one: who sees it in training?"""
    wanted = conv(order, norm=norm).linear.bias is not None
    block = randomized(conv(order, norm=norm, bias=True, activation="elu")).train()
    block, x = block.double(), noise(4, 4, 6, 6).double()
    before = block(x)
    with torch.no_grad():
        block.linear.bias += noise(6, seed=3)
    change = float((block(x) - before).detach().abs().max())
    assert (change > 1e-2) if wanted else (change < 1e-9)


def test_an_absent_activation_brings_the_norm_next_to_the_linear_layer():
    assert conv("after", activation=None).linear.bias is None
    assert [n for n, _ in conv("after", activation=None).named_children()] == ["linear", "norm"]
    assert conv("after").linear.bias is not None


@pytest.mark.parametrize("bias", [True, False])
def test_bias_wins_over_the_rule(bias):
    for block in (conv("before", bias=bias), conv("after", bias=bias), dense("before", bias=bias)):
        assert (block.linear.bias is not None) == bias


def test_a_group_per_channel_makes_the_bias_redundant():
    for groups, bias in ((-1, False), (6, False), (32, False), (3, True), (5, True)):
        block = conv(norm="group", norm_groups=groups)
        assert (block.linear.bias is not None) == bias


@pytest.mark.parametrize("norm", ["batch", "instance", "group", "layer"])
@pytest.mark.parametrize(
    ("order", "channels"), [("before", 6), ("after", 6), ("norm-linear-act", 4)]
)
def test_the_norm_is_as_wide_as_what_it_sees(order, channels, norm):
    assert conv(order, norm=norm).norm.weight.shape == (channels,)
    if norm != "instance":
        assert dense(order, norm=norm).norm.weight.shape == (channels,)


def test_two_orders_share_their_state_dict_keys():
    blocks = [ConvBlock(4, 4, order=order, bias=True) for order in ORDERS[:7] if order != "none"]
    keys = {frozenset(block.state_dict()) for block in blocks}
    assert len(keys) == 1
    state = randomized(blocks[0]).state_dict()
    blocks[1].load_state_dict(state)
    torch.testing.assert_close(blocks[1].norm.running_mean, state["norm.running_mean"])


def test_options_of_the_norm_are_pytorchs():
    block = conv(eps=1e-2, momentum=0.3)
    assert (block.norm.eps, block.norm.momentum) == (1e-2, 0.3)
    assert dense(eps=1e-2, momentum=None).norm.momentum is None
    for norm in ("batch", "instance", "group", "layer"):
        assert conv(norm=norm, eps=1e-2).norm.eps == 1e-2
        assert conv(norm=norm).norm.weight is not None
        assert conv(norm=norm, affine=False).norm.weight is None
    for norm in ("batch", "group", "layer"):
        assert dense(norm=norm, affine=False).norm.weight is None


@pytest.mark.parametrize(
    ("channels", "groups", "got"),
    [(6, 4, 3), (6, None, 1), (32, None, 8), (256, None, 32), (6, -1, 6), (7, 6, 1)],
)
def test_groups_fall_to_the_largest_divisor(channels, groups, got):
    assert DenseBlock(3, channels, norm="group", norm_groups=groups).norm.num_groups == got
    assert ConvBlock(3, channels, norm="group", norm_groups=groups).norm.num_groups == got


def test_layer_norm_is_over_the_channels_at_each_position():
    block = conv("linear-norm", norm="layer")
    y = block(noise(2, 4, 5, 5)).detach()
    torch.testing.assert_close(y.mean(1), torch.zeros(2, 5, 5), rtol=0, atol=1e-5)
    other = nn.GroupNorm(1, 6)(block.linear(noise(2, 4, 5, 5))).detach()
    assert float(other.mean(1).abs().max()) > 0.1


class TestPadding:
    @pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
    @pytest.mark.parametrize("kernel", [1, 3, 5, (3, 7), 2, 4])
    @pytest.mark.parametrize("dilation", [1, 2])
    def test_same_keeps_the_size(self, kernel, dilation):
        block = ConvBlock(2, 3, kernel, dilation=dilation)
        assert block(noise(2, 2, 15, 14)).shape == (2, 3, 15, 14)

    @pytest.mark.parametrize(("size", "got"), [(8, 4), (9, 5)])
    def test_same_with_a_stride_rounds_up(self, size, got):
        assert ConvBlock(2, 3, 5, 2)(noise(2, 2, size, size)).shape == (2, 3, got, got)

    def test_an_even_kernel_with_a_stride_is_refused(self):
        with pytest.raises(InputError, match=r"even kernel \(4, 4\) and stride \(2, 2\)"):
            ConvBlock(2, 3, 4, 2)
        assert ConvBlock(2, 3, 4, 2, 1)(noise(2, 2, 8, 8)).shape == (2, 3, 4, 4)

    def test_an_even_kernel_with_an_even_span_is_fine(self):
        assert ConvBlock(2, 3, 2, 2, dilation=2)(noise(2, 2, 8, 8)).shape == (2, 3, 4, 4)

    def test_valid_and_numbers(self):
        x = noise(2, 2, 8, 8)
        assert ConvBlock(2, 3, 3, padding="valid")(x).shape == (2, 3, 6, 6)
        assert ConvBlock(2, 3, 3, padding=(2, 0))(x).shape == (2, 3, 10, 6)
        with pytest.raises(InputError, match="unknown padding 'SAME': did you mean 'same'"):
            ConvBlock(2, 3, padding="SAME")
        with pytest.raises(InputError, match="2 of them"):
            ConvBlock(2, 3, padding=(1, 1, 1))


class TestInit:
    @pytest.mark.parametrize(
        ("order", "gain"),
        [
            ("before", SQRT2),
            ("none", SQRT2),
            ("norm-act-linear", SQRT2),
            ("act-linear-norm", SQRT2),
            ("linear-norm-act-drop", SQRT2),
            ("drop-linear-norm-act", SQRT2),
            ("after", 1.0),
            ("norm-linear-act", 1.0),
            ("act-norm-linear", 1.0),
            ("linear-act-norm-drop", 1.0),
            ("linear-norm", 1.0),
            ("linear", 1.0),
        ],
    )
    def test_the_gain_follows_what_the_linear_layer_sees(self, order, gain):
        torch.manual_seed(0)
        weight = DenseBlock(400, 300, order=order, bias=True).linear.weight
        assert float(weight.detach().std()) * 20 == pytest.approx(gain, rel=0.02)
        weight = ConvBlock(64, 200, 3, order=order).linear.weight
        assert float(weight.detach().std()) * 24 == pytest.approx(gain, rel=0.02)

    def test_groups_have_a_smaller_fan_in(self):
        weight = ConvBlock(64, 256, 3, groups=16, order="after").linear.weight
        assert float(weight.detach().std()) * 6 == pytest.approx(1.0, rel=0.05)

    def test_without_norm_or_act_the_rest_decides(self):
        torch.manual_seed(0)
        for options, gain in (({"norm": "none"}, SQRT2), ({"activation": None}, 1.0)):
            weight = DenseBlock(400, 300, order="after", **options).linear.weight
            assert float(weight.detach().std()) * 20 == pytest.approx(gain, rel=0.02)

    @pytest.mark.parametrize(
        ("act", "gain"),
        [
            (nn.ReLU(), SQRT2),
            (nn.LeakyReLU(0.5), math.sqrt(2 / 1.25)),
            (nn.PReLU(3, init=0.5), math.sqrt(2 / 1.25)),
            (nn.ReLU(inplace=True), SQRT2),
            (nn.SELU(), 1.0),
            (nn.Identity(), 1.0),
            (nn.Tanh(), 1 / math.sqrt(0.394294)),
            (nn.Sigmoid(), 1 / math.sqrt(0.293379)),
            (nn.ReLU().double(), SQRT2),
            (nn.PReLU().double(), math.sqrt(2 / 1.0625)),
        ],
    )
    def test_gain(self, act, gain):
        assert gain_of(act) == pytest.approx(gain, rel=1e-4)

    @pytest.mark.parametrize("act", ["relu", "tanh", "gelu", "sigmoid"])
    @pytest.mark.parametrize("order", ["before", "after", "none", "norm-act-linear"])
    def test_a_chain_keeps_the_variance_of_the_linear_outputs(self, order, act):
        torch.manual_seed(0)
        chain = nn.Sequential(
            *(DenseBlock(512, 512, order=order, activation=act) for _ in range(5))
        )
        seen = []
        for block in chain:
            block.linear.register_forward_hook(lambda m, i, y: seen.append(y.square().mean()))
        with torch.no_grad():
            x = torch.randn(256, 512)  # what a block gives before "none": its activation's output
            chain.train()(chain[0].act(x) if order == "none" else x)
        for moment in seen[1:]:  # the first sees data, not a block
            assert 0.6 < float(moment) < 1.7

    def test_measuring_the_gain_draws_no_random_numbers(self):
        torch.manual_seed(0)
        expected = torch.randn(3)
        torch.manual_seed(0)
        gain_of(nn.Dropout(0.5))
        gain_of(_Noisy())
        torch.testing.assert_close(torch.randn(3), expected)

    def test_bias_starts_at_zero(self):
        assert float(conv("after").linear.bias.detach().abs().max()) == 0.0
        assert float(conv("after", init="torch").linear.bias.detach().abs().max()) > 0.0

    def test_init_torch_is_pytorchs_own_and_a_function_fills_the_weight(self):
        torch.manual_seed(3)
        own = nn.Conv2d(4, 6, 3)
        torch.manual_seed(3)
        block = conv("after", init="torch")
        torch.testing.assert_close(block.linear.weight, own.weight)
        torch.testing.assert_close(block.linear.bias, own.bias)
        block = conv(init=lambda weight: nn.init.constant_(weight, 0.25))
        assert block.linear.weight.unique().tolist() == [0.25]

    def test_what_has_no_gain_says_so(self):
        with pytest.raises(InputError, match="no gain: give init='torch'"):
            conv("none", activation=lambda x: x * 0)
        with pytest.raises(
            InputError, match=r"can't measure the gain of Softmax2d .* init='torch'"
        ):
            conv("none", activation=nn.Softmax2d)
        assert conv("none", activation=nn.Softmax2d, init="torch").act is not None
        with pytest.raises(InputError, match="unknown init 'he'"):
            conv(init="he")


class _Noisy(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


class _Residual(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        return x + self.block(x)


class TestActivation:
    @pytest.mark.parametrize("name", sorted(ACTIVATIONS))
    def test_names(self, name):
        block = conv(activation=name).eval()
        assert type(block.act) is ACTIVATIONS[name]
        assert block(noise(2, 4, 5, 5)).shape == (2, 6, 5, 5)

    def test_an_instance_is_copied_with_its_weights(self):
        act = nn.PReLU(6, init=0.7)
        blocks = [conv(activation=act) for _ in range(2)]
        with torch.no_grad():
            blocks[0].act.weight.fill_(0.1)
        assert blocks[1].act.weight.tolist() == pytest.approx([0.7] * 6)
        assert act.weight.tolist() == pytest.approx([0.7] * 6)

    def test_a_class_and_a_function(self):
        x = noise(2, 4, 5, 5)
        block = randomized(conv(activation=nn.Hardshrink)).eval()
        torch.testing.assert_close(block(x), F.hardshrink(block.norm(block.linear(x))))
        block = randomized(conv("after", activation=torch.sin)).eval()
        torch.testing.assert_close(block(x), block.norm(torch.sin(block.linear(x))))
        assert "sin" in repr(block.act)

    @pytest.mark.parametrize(
        "order", ["act-linear-norm", "drop-act-linear-norm", "act-norm-linear"]
    )
    @pytest.mark.parametrize("training", [True, False])
    def test_an_in_place_activation_leaves_the_blocks_input_alone(self, order, training):
        act = nn.Sequential(nn.ReLU(inplace=True))
        block = ConvBlock(4, 4, order=order, activation=act).train(training)
        x = noise(2, 4, 5, 5)
        kept = x.clone()
        _Residual(block)(x)
        torch.testing.assert_close(x, kept, rtol=0, atol=0)
        assert act[0].inplace
        assert conv("before", activation=nn.ReLU(inplace=True)).act.inplace

    def test_a_function_that_works_in_place_cannot_come_first(self):
        with pytest.raises(InputError, match="relu_ would overwrite the block's input"):
            conv("act-linear-norm", activation=torch.relu_)
        assert conv("before", activation=torch.relu_)(noise(2, 4, 5, 5)).min() >= 0

    @pytest.mark.parametrize("act", [nn.GLU, nn.GLU(1), F.glu])
    def test_glu_is_refused(self, act):
        with pytest.raises(InputError, match="glu halves the channels"):
            conv(activation=act)

    def test_anything_else_is_an_error(self):
        with pytest.raises(InputError, match="unknown activation 'rleu': did you mean 'relu'"):
            conv(activation="rleu")
        with pytest.raises(InputError, match=r"got 3 \(int\)"):
            dense(activation=3)


class TestErrors:
    def test_norms(self):
        with pytest.raises(InputError, match="unknown norm 'bacth': did you mean 'batch'"):
            conv(norm="bacth")
        with pytest.raises(InputError, match="unknown norm 'rms'"):
            dense(norm="rms")

    def test_no_instance_norm_in_a_dense_block(self):
        with pytest.raises(InputError, match="no instance norm"):
            dense(norm="instance")

    def test_dropout(self):
        with pytest.raises(InputError, match="'linear-norm-act': add a drop token"):
            conv(dropout=0.1)
        with pytest.raises(InputError, match=r"got 1\.0"):
            dense("linear-drop", dropout=1.0)
        assert dense("linear-drop", dropout=0.2).drop.p == 0.2

    def test_numbers(self):
        with pytest.raises(InputError, match="got 4"):
            conv(dims=4)
        with pytest.raises(InputError, match="got 0"):
            conv(norm="group", norm_groups=0)
        with pytest.raises(InputError, match="write 'linear'"):
            conv("conv-bn-relu")


class TestRanks:
    """PyTorch's norms would take another axis for the channels, and be silent if they match."""

    @pytest.mark.parametrize("order", ["before", "after", "norm-linear-act"])
    @pytest.mark.parametrize("norm", ["batch", "group"])
    def test_dense_refuses_a_time_axis(self, order, norm):
        block = DenseBlock(6, 6, order=order, norm=norm)
        for x in (noise(3, 6, 6), noise(6)):
            with pytest.raises(InputError, match=r"takes \(batch, features\), got"):
                block(x)

    def test_dense_takes_leading_axes_with_the_other_norms(self):
        x = noise(3, 5, 4)
        for norm in ("layer", "none"):
            block = randomized(dense(norm=norm))
            torch.testing.assert_close(block(x)[1], block(x[1]))

    @pytest.mark.parametrize("norm", ["batch", "group"])
    @pytest.mark.parametrize("dims", [1, 2, 3])
    def test_conv_refuses_an_image_without_batch_axis(self, norm, dims):
        block = ConvBlock(4, 4, dims=dims, norm=norm)
        with pytest.raises((InputError, ValueError), match=r"expected|takes"):
            block(noise(4, *[4] * dims))

    def test_the_guard_survives_copies_traces_and_pickles(self):
        block = DenseBlock(6, 6)
        copies = [copy.deepcopy(block), fx.symbolic_trace(block), pickle.loads(pickle.dumps(block))]
        for other in copies:
            with pytest.raises(InputError, match="flatten the leading axes"):
                other(noise(3, 6, 6))


class TestTools:
    @pytest.mark.parametrize("norm", ["batch", "group", "layer", "none"])
    @pytest.mark.parametrize("order", ORDERS + DROPS)
    def test_fx_traces_every_order(self, order, norm):
        for block, x in (
            (conv(order, norm=norm), noise(2, 4, 5, 5)),
            (dense(order, norm=norm), noise(3, 4)),
        ):
            randomized(block).eval()
            traced = fx.symbolic_trace(block)
            torch.testing.assert_close(traced(x), block(x))
            if norm != "layer" or block.__class__ is DenseBlock:
                called = [node.target for node in traced.graph.nodes if node.op == "call_module"]
                assert called == [name for name, _ in block.named_children()]

    def test_fx_sees_the_function(self):
        graph = fx.symbolic_trace(conv("after", activation=torch.sin)).graph
        assert [n.target for n in graph.nodes if n.op == "call_function"] == [torch.sin]

    @pytest.mark.slow
    def test_export(self):
        block = randomized(conv("after", norm="layer")).eval()
        x = noise(2, 4, 5, 5)
        exported = torch.export.export(block, (x,)).module()
        torch.testing.assert_close(exported(x), block(x))

    def test_repr_shows_the_order(self):
        assert "order='linear-act-norm'" in repr(conv("after"))

    def test_nothing_is_shared_between_copies(self):
        block = randomized(conv())
        other = copy.deepcopy(block)
        assert other.order == block.order
        with torch.no_grad():
            other.norm.weight += 1
        assert not torch.equal(other.norm.weight, block.norm.weight)
