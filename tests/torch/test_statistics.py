"""Re-estimated statistics: averages over the batches, nothing else touched."""

import numpy as np
import pytest
import torch
from torch import nn

from relucate.torch import BatchNorm, reestimate
from relucate.torch.statistics import norms_with_statistics


def inputs(batches=4, size=16, width=3):
    random = torch.Generator().manual_seed(0)
    return [3 + 2 * torch.randn(size, width, generator=random) for _ in range(batches)]


def ours(**options):
    chosen = {"momentum": 0.99, "epsilon": 1e-3, "scale": True, "center": True} | options
    return BatchNorm(3, **chosen)


@pytest.mark.parametrize(
    "norm", [ours(), nn.BatchNorm1d(3, momentum=0.01), nn.BatchNorm1d(3, momentum=None)]
)
def test_statistics_are_the_means_over_the_batches(norm):
    x = inputs()
    kept = norm.momentum
    reestimate(norm, x)
    correction = 0 if isinstance(norm, BatchNorm) else 1
    means = torch.stack([part.mean(0) for part in x]).mean(0)
    variances = torch.stack([part.var(0, correction=correction) for part in x]).mean(0)
    np.testing.assert_allclose(norm.running_mean, means, rtol=1e-5)
    np.testing.assert_allclose(norm.running_var, variances, rtol=1e-5)
    assert norm.momentum == kept
    assert norm.training


@pytest.mark.parametrize("norm", [ours(), nn.BatchNorm1d(3)])
def test_each_call_of_a_norm_counts_alike(norm):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = norm

        def forward(self, x):
            return self.norm(x) + self.norm(5 * x)

    x = inputs()
    reestimate(Twice(), x)
    means = torch.stack([3 * part.mean(0) for part in x]).mean(0)
    np.testing.assert_allclose(norm.running_mean, means, rtol=1e-4)


def test_a_cumulative_norm_goes_on_as_if_nothing_had_been():
    norm = nn.BatchNorm1d(3, momentum=None)
    norm(inputs(1)[0])
    reestimate(norm, inputs(7))
    assert norm.num_batches_tracked == 1


def test_dropout_is_off_and_every_mode_comes_back():
    model = nn.Sequential(
        nn.Linear(3, 3), nn.Dropout(0.9), nn.BatchNorm1d(3), nn.Sequential(nn.ReLU())
    )
    model.train()
    model[3].eval()
    x = inputs()
    with torch.no_grad():
        expected = torch.stack([model[0](part).mean(0) for part in x]).mean(0)
    reestimate(model, x)
    np.testing.assert_allclose(model[2].running_mean, expected, rtol=1e-4)
    assert [m.training for m in model] == [True, True, True, False]


def test_a_later_norm_sees_the_earlier_ones_batch_statistics():
    model = nn.Sequential(ours(), ours())
    reestimate(model, inputs())
    np.testing.assert_allclose(model[1].running_mean, 0, atol=1e-6)
    np.testing.assert_allclose(model[1].running_var, 1, rtol=1e-2)


def test_which_norms_have_statistics():
    model = nn.Sequential(
        ours(),
        ours(frozen=True),
        nn.BatchNorm1d(3),
        nn.BatchNorm1d(3, track_running_stats=False),
        nn.InstanceNorm1d(3, track_running_stats=True),
        nn.InstanceNorm1d(3),
        nn.LayerNorm(3),
    )
    assert norms_with_statistics(model) == [model[0], model[2], model[4]]


def test_a_frozen_norm_keeps_its_statistics_and_no_gradient_is_recorded():
    model = nn.Sequential(ours(), ours(frozen=True))
    reestimate(model, inputs())
    assert torch.equal(model[1].running_mean, torch.zeros(3))
    assert not model[0].running_mean.requires_grad


def test_modes_come_back_after_an_error():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    model.train()
    with pytest.raises(ValueError, match="4"):
        reestimate(model, [torch.zeros(2, 3), torch.zeros(2, 3, 3, 4)])
    assert model[0].momentum == 0.1
    assert model[1].training


def test_unbiased_variances_of_a_lowered_norm():
    norm = BatchNorm(2, momentum=0.9, epsilon=1e-3, scale=True, center=True)
    batches = [torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    reestimate(norm, batches)
    plain = norm.running_var.clone()
    reestimate(norm, batches, unbiased=True)
    assert torch.allclose(norm.running_var, plain * 15 / 14)
    expected = torch.stack([x.transpose(0, 1).reshape(2, -1).var(1) for x in batches]).mean(0)
    assert torch.allclose(norm.running_var, expected, rtol=1e-5)
    assert not norm._forward_pre_hooks


def test_pytorchs_own_norms_always_are():
    found = []
    for unbiased in (False, True):
        norm = nn.BatchNorm1d(1)
        reestimate(norm, [torch.tensor([[0.0], [2.0]])], unbiased=unbiased)
        found.append(float(norm.running_var))
    assert found == [2.0, 2.0]
