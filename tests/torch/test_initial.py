"""Orthonormal and LSUV starts of modules."""

import pytest
import torch
from torch import nn

from relucate import InputError
from relucate.torch import lsuv, orthonormal
from relucate.torch.blocks import ConvBlock


def net(order="after"):
    torch.manual_seed(0)
    return nn.Sequential(
        ConvBlock(3, 8, 3, padding=1, order=order, activation="tanh"),
        nn.Conv2d(8, 8, 3, padding=1, groups=4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(8 * 6 * 6, 20),
        nn.LeakyReLU(),
        nn.Linear(20, 5),
    )


def outputs(model, x):
    """The outputs of all linear layers, norms with the batch's statistics."""
    found, hooks = {}, []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            hooks.append(
                module.register_forward_hook(lambda m, i, o, name=name: found.update({name: o}))
            )
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("order", ["before", "after", "norm-linear-act"])
def test_every_linear_layer_has_outputs_of_unit_variance(order):
    model, x = net(order), torch.randn(64, 3, 6, 6) * 7 + 3
    names = lsuv(model, x)
    found = outputs(model, x)
    assert len(names) == len(found) == 4
    for value in found.values():
        assert float(value.var(correction=0)) == pytest.approx(1.0, abs=0.011)


def test_only_kernels_change():
    model, x = net(), torch.randn(16, 3, 6, 6)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names = lsuv(model, x)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == set(names)


def test_the_same_seed_gives_the_same_kernels():
    one, two, three = net(), net(), net()
    x = torch.randn(16, 3, 6, 6)
    lsuv(one, x, seed=1)
    torch.manual_seed(99)
    lsuv(two, x, seed=1)
    lsuv(three, x, seed=2)
    assert torch.equal(one[1].weight, two[1].weight)
    assert not torch.allclose(one[1].weight, three[1].weight)


def test_rows_are_orthonormal():
    model = net()
    assert "5.weight" in orthonormal(model)
    weight = model[5].weight
    assert torch.allclose(weight @ weight.T, torch.eye(20), atol=1e-5)


def test_tied_and_computed_weights():
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    assert orthonormal(model) == ["0.weight"]
    computed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    with pytest.raises(InputError, match="no dense or convolutional layer"):
        orthonormal(computed)


def test_a_constant_layer_keeps_its_orthonormal_kernel():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.constant_(model[0].bias, -1e6)
    lsuv(model, torch.randn(32, 4))
    weight = model[2].weight
    assert torch.allclose(weight @ weight.T, torch.eye(2), atol=1e-5)
