import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import relucate
from relucate.torch import modules
from relucate.torch.modules import (
    AvgPoolSame,
    BatchNorm,
    FixedOffset,
    GroupNorm,
    LayerNorm,
    Pad,
    PReLU,
    RReLU,
    SharedDropout,
    channels_last_weights,
)

SHAPES = [(6, 3), (6, 3, 5), (6, 3, 5, 4), (2, 3, 4, 3, 2)]


def norm(channels=3, *, momentum=0.9, epsilon=1e-3, scale=True, center=True, frozen=False):
    return BatchNorm(
        channels, momentum=momentum, epsilon=epsilon, scale=scale, center=center, frozen=frozen
    )


def randomized(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.uniform_(0.5, 2.0, generator=generator)
    return module


def by_hand(module, x):
    """Keras's formulas in float64, with gradients."""
    axes = [0, *range(2, x.ndim)]
    shape = [1, -1] + [1] * (x.ndim - 2)
    mean, variance = x.mean(axes), x.var(axes, correction=0)
    y = (x - mean.view(shape)) / torch.sqrt(variance.view(shape) + module.epsilon)
    if module.weight is not None:
        y = y * module.weight.double().view(shape)
    if module.bias is not None:
        y = y + module.bias.double().view(shape)
    keep = module.momentum
    new_mean = keep * module.running_mean.double() + (1 - keep) * mean
    new_variance = keep * module.running_var.double() + (1 - keep) * variance
    return y, new_mean.detach(), new_variance.detach()


def compare_in_training(module, x, tolerance=1e-5):
    exact = x.detach().double().requires_grad_()
    expected, mean, variance = by_hand(module, exact)
    x = x.detach().requires_grad_()
    got = module.train()(x)
    direction = torch.randn(expected.shape, dtype=torch.float64)
    (expected * direction).sum().backward()
    (got * direction.float()).sum().backward()
    for ours, theirs in (
        (got, expected),
        (x.grad, exact.grad),
        (module.running_mean, mean),
        (module.running_var, variance),
    ):
        scale = float(theirs.detach().abs().max())
        np.testing.assert_allclose(ours.detach(), theirs.detach(), rtol=0, atol=tolerance * scale)


class TestBatchNorm:
    @pytest.mark.parametrize("scale", [True, False])
    @pytest.mark.parametrize("center", [True, False])
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_training_step(self, shape, scale, center):
        torch.manual_seed(0)
        compare_in_training(
            randomized(norm(scale=scale, center=center)), torch.randn(shape) * 2 + 1
        )

    @pytest.mark.parametrize("size", [2, 3])
    def test_population_variance_shows_in_small_batches(self, size):
        module = norm(1, momentum=0.0)
        x = torch.arange(float(size)).reshape(size, 1)
        module.train()(x)
        assert float(module.running_var) == pytest.approx(float(x.var(correction=0)))

    @pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99, 1.0])
    def test_momentum_is_the_share_of_the_old_value(self, momentum):
        module = norm(1, momentum=momentum)
        module.train()(torch.tensor([[1.0], [3.0]]))
        assert float(module.running_mean) == pytest.approx((1 - momentum) * 2.0)
        assert float(module.running_var) == pytest.approx(momentum + (1 - momentum))

    @pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
    @pytest.mark.parametrize("scale", [True, False])
    def test_one_value_per_channel(self, shape, scale):
        """Its variance is zero and its output beta; PyTorch's own kernel would refuse."""
        module = randomized(norm(scale=scale))
        x = torch.randn(shape, requires_grad=True)
        kept_mean, kept_variance = module.running_mean.clone(), module.running_var.clone()
        y = module.train()(x)
        y.sum().backward()
        torch.testing.assert_close(y.detach().ravel(), module.bias.detach())
        assert float(x.grad.abs().max()) == 0.0
        torch.testing.assert_close(module.running_var, 0.9 * kept_variance)
        torch.testing.assert_close(module.running_mean, 0.9 * kept_mean + 0.1 * x.detach().ravel())

    @pytest.mark.parametrize("frozen", [True, False])
    def test_inference_and_frozen_use_the_moving_statistics(self, frozen):
        module = randomized(norm(frozen=frozen)).train(frozen)
        before = {k: v.clone() for k, v in module.state_dict().items()}
        x = torch.randn(4, 3, 5)
        mean, variance = module.running_mean.view(1, 3, 1), module.running_var.view(1, 3, 1)
        expected = (x - mean) / torch.sqrt(variance + 1e-3) * module.weight.view(1, 3, 1)
        torch.testing.assert_close(module(x), expected + module.bias.view(1, 3, 1))
        for key, value in module.state_dict().items():
            assert torch.equal(value, before[key])

    def test_large_channels_last_batches_are_summed_exactly(self):
        """PyTorch's own kernel adds up one float32 after another there: it is off by up to 1e-3."""
        x = torch.relu(torch.randn(128, 8, 32, 32, generator=torch.Generator().manual_seed(0)))
        x = x.contiguous(memory_format=torch.channels_last)
        module = norm(8, momentum=0.0)
        module.train()(x)
        exact = x.double()
        mean, variance = exact.mean((0, 2, 3)), exact.var((0, 2, 3), correction=0)
        torch.testing.assert_close(module.running_mean.double(), mean, rtol=2e-6, atol=0)
        torch.testing.assert_close(module.running_var.double(), variance, rtol=2e-6, atol=0)

    @pytest.mark.parametrize("scale", [True, False])
    @pytest.mark.parametrize("center", [True, False])
    def test_exact_path_step(self, monkeypatch, scale, center):
        monkeypatch.setattr(modules, "_NAIVE", 1)
        torch.manual_seed(0)
        x = torch.randn(37, 4, 5, 3).contiguous(memory_format=torch.channels_last) * 2 + 1
        module = randomized(norm(4, scale=scale, center=center))
        compare_in_training(module, x)
        plain, twin = copy.deepcopy(module), copy.deepcopy(module)
        monkeypatch.setattr(modules, "_NAIVE", 10**9)
        loss = plain(x).pow(3).sum()
        monkeypatch.setattr(modules, "_NAIVE", 1)
        other = twin(x).pow(3).sum()
        for net, value in ((plain, loss), (twin, other)):
            net.zero_grad()
            if scale or center:
                value.backward()
        for a, b in zip(plain.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-3)

    def test_bfloat16_inputs(self, monkeypatch):
        monkeypatch.setattr(modules, "_NAIVE", 1)
        x = torch.randn(64, 3, 5, 5).to(torch.bfloat16, memory_format=torch.channels_last)
        assert norm().train()(x).dtype == torch.bfloat16

    def test_called_twice_before_the_gradient(self):
        module = norm()
        y = module.train()(module(torch.randn(5, 3)))
        y.square().sum().backward()
        assert module.weight.grad is not None


class TestOtherNorms:
    @pytest.mark.parametrize("roles", [(), ("gamma",), ("beta",), ("gamma", "beta")], ids=str)
    def test_group_norm(self, roles):
        module = randomized(GroupNorm(2, 4, 1e-3, roles))
        assert [n for n, _ in module.named_parameters()] == [
            {"gamma": "weight", "beta": "bias"}[role] for role in roles
        ]
        x = torch.randn(3, 4, 5)
        grouped = x.view(3, 2, 10)
        variance, mean = torch.var_mean(grouped, -1, correction=0, keepdim=True)
        expected = ((grouped - mean) / torch.sqrt(variance + 1e-3)).view(3, 4, 5)
        if "gamma" in roles:
            expected = expected * module.weight.view(1, 4, 1)
        if "beta" in roles:
            expected = expected + module.bias.view(1, 4, 1)
        torch.testing.assert_close(module(x), expected)

    @pytest.mark.parametrize("channels", [1, 2, 8])
    @pytest.mark.parametrize("roles", [("gamma",), ("beta",), ("gamma", "beta")], ids=str)
    @pytest.mark.parametrize("needs_gradient", [False, True])
    def test_group_norm_of_images_themselves_can_be_trained(self, channels, roles, needs_gradient):
        """PyTorch 2.13 crashes the process or fails there if the images need no gradient."""
        x = torch.randn(4, 9, 7, channels).movedim(-1, 1).requires_grad_(needs_gradient)
        module, plain = GroupNorm(1, channels, 1e-3, roles), nn.GroupNorm(1, channels, 1e-3)
        other = x.detach().contiguous().requires_grad_()
        module(x).pow(3).sum().backward()
        plain(other).pow(3).sum().backward()
        for role, name in (("gamma", "weight"), ("beta", "bias")):
            if role in roles:
                got, expected = getattr(module, name).grad, getattr(plain, name).grad
                torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)
        if needs_gradient:
            torch.testing.assert_close(x.grad, other.grad, rtol=1e-4, atol=1e-4)

    def test_group_norm_of_one_value_per_group(self):
        y = GroupNorm(3, 3, 1e-3, ("gamma", "beta"))(torch.randn(1, 3))
        torch.testing.assert_close(y, torch.zeros(1, 3), rtol=0, atol=1e-4)

    @pytest.mark.parametrize("axes", [(-1,), (1,), (1, 2), (2, 1), (-1, 1), (3, 2)], ids=str)
    def test_layer_norm(self, axes):
        x = torch.randn(2, 3, 4, 5)
        numbers = sorted(a % 4 for a in axes)
        shape = [x.shape[a] for a in numbers]
        module = randomized(LayerNorm(axes, 1e-3, {"gamma": shape, "beta": shape}))
        variance, mean = torch.var_mean(x, numbers, correction=0, keepdim=True)
        full = [x.shape[a] if a in numbers else 1 for a in range(4)]
        expected = (x - mean) / torch.sqrt(variance + 1e-3) * module.weight.view(full)
        torch.testing.assert_close(module(x), expected + module.bias.view(full))

    def test_layer_norm_axes_from_the_end_fit_any_rank(self):
        module = LayerNorm([-1], 0.0, {})
        for shape in ((2, 7), (2, 3, 7), (2, 3, 4, 7)):
            x = torch.randn(shape)
            torch.testing.assert_close(module(x), F.layer_norm(x, [7], eps=0.0))


class TestAvgPoolSame:
    def test_serves_several_sizes_in_a_row(self):
        pool = AvgPoolSame((2, 2), (1, 1), [0, 1, 0, 1])
        for size in (3, 5, 3):
            assert torch.equal(pool(torch.ones(2, 3, size, size)), torch.ones(2, 3, size, size))

    def test_may_be_trained_after_it_was_called_in_inference_mode(self):
        pool = AvgPoolSame((2,), (2,), [0, 1])
        with torch.inference_mode():
            pool(torch.ones(1, 1, 5))
        x = torch.ones(1, 1, 5, requires_grad=True)
        pool(x).sum().backward()
        torch.testing.assert_close(x.grad.ravel(), torch.tensor([0.5, 0.5, 0.5, 0.5, 1.0]))


def test_pad():
    y = Pad([1, 0, 0, 2], float("-inf"))(torch.ones(1, 1, 2, 2))
    assert y.shape == (1, 1, 4, 3)
    assert float(y[0, 0, 0, 0]) == float("-inf")


def test_prelu_broadcasts_over_the_batch():
    module = PReLU((3, 2))
    module.alpha.data = torch.arange(6.0).view(3, 2)
    expected = torch.cat([-module.alpha[None], torch.ones(1, 3, 2)])
    assert torch.equal(module(torch.cat([-torch.ones(1, 3, 2), torch.ones(1, 3, 2)])), expected)


class TestRReLU:
    def test_draws_in_training_and_takes_the_mean_else(self):
        module, x = RReLU(0.1, 0.3), torch.randn(20, 30, 4)
        y = module(x)
        slope = (y / x)[x < 0]
        assert torch.equal(y[x >= 0], x[x >= 0])
        assert 0.1 <= slope.min() < 0.11
        assert 0.29 < slope.max() <= 0.3001
        assert torch.equal(module.eval()(x), torch.where(x >= 0, x, 0.2 * x))

    def test_the_gradient_is_the_slope(self):
        x = torch.randn(50, 4, requires_grad=True)
        y = RReLU(0.1, 0.3)(x)
        y.sum().backward()
        torch.testing.assert_close(x.grad * x, y)
        zero = torch.zeros(3, requires_grad=True)
        RReLU()(zero).sum().backward()
        assert torch.equal(zero.grad, torch.ones(3))  # as Keras has it

    def test_draws_are_the_same_in_bfloat16(self):
        found = []
        for dtype in (torch.float32, torch.bfloat16):
            torch.manual_seed(0)
            found.append(RReLU(0.1, 0.3)(-torch.ones(200, dtype=dtype)))
        assert found[1].dtype == torch.bfloat16
        assert torch.equal(found[0].bfloat16(), found[1])

    def test_keeps_the_layout(self):
        x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
        assert RReLU()(x).stride() == x.stride()


class TestSharedDropout:
    @pytest.mark.parametrize(("axis", "shape"), [(1, (50, 40, 3, 2)), (-1, (50, 3, 40))])
    def test_drops_whole_channels_and_keeps_the_mean(self, axis, shape):
        torch.manual_seed(0)
        drawn = [None if i in (0, axis % len(shape)) else 1 for i in range(len(shape))]
        y = SharedDropout(0.25, drawn).train()(torch.ones(shape)).movedim(axis, 1).flatten(2)
        assert bool((y == y[:, :, :1]).all())
        assert set(y.unique().tolist()) == {0.0, float(torch.tensor(1.0) / 0.75)}
        assert float((y[:, :, 0] == 0).float().mean()) == pytest.approx(0.25, abs=0.03)

    def test_does_nothing_at_inference_or_rate_zero(self):
        x = torch.randn(2, 3, 4)
        assert torch.equal(SharedDropout(0.5, (None, None, 1)).eval()(x), x)
        assert torch.equal(SharedDropout(0.0, (None, None, 1)).train()(x), x)


def test_channels_last_weights():
    net = nn.ModuleList(
        [nn.Conv1d(2, 3, 3), nn.Conv2d(2, 3, 3), nn.Conv3d(2, 3, 3), nn.Linear(2, 3)]
    )
    before = [p.detach().clone() for p in net.parameters()]
    channels_last_weights(net)
    assert net[1].weight.is_contiguous(memory_format=torch.channels_last)
    assert net[2].weight.is_contiguous(memory_format=torch.channels_last_3d)
    for was, now in zip(before, net.parameters(), strict=True):
        assert torch.equal(was, now)


def test_an_offset_for_one_size_refuses_others():
    layer = FixedOffset(torch.randn(4, 2, 2), (3, 4, 4))
    y = torch.randn(5, 4, 2, 2)
    assert torch.equal(layer(y, torch.ones(5, 3, 4, 4)), y + layer.offset)
    with pytest.raises(ValueError, match=r"shape \('n', 3, 4, 4\), got \(5, 3, 3, 4\)"):
        layer(y, torch.ones(5, 3, 3, 4))
    assert list(layer.state_dict()) == ["offset"]


@pytest.mark.parametrize("lrn", [nn.LocalResponseNorm, nn.CrossMapLRN2d])
def test_a_local_response_norm_is_over_the_channels(lrn):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), lrn(3), nn.Conv2d(4, 2, 3))
    made, report = relucate.rebuild(net, "linear-norm-act", example=(2, 3, 8, 8))
    assert [(site.status, site.new) for site in report.sites] == [("done", "linear-norm-act")]
    assert isinstance(made[1], lrn)
