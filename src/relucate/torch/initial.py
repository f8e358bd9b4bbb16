"""Orthonormal and LSUV initial weights for modules (the mathematics: `train.initial`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..train.initial import none_found, orthonormal_matrix, unit_variance
from .state import unchanged
from .statistics import set_to_average

_LINEAR = (nn.Linear, nn.modules.conv._ConvNd)


@torch.no_grad()
def orthonormal(
    model: nn.Module, *, seed: int = 0, names: Mapping[str, str] | None = None
) -> list[str]:
    """Give every `nn.Linear` and convolution an orthonormal kernel, in place.

        W (out, in · height · width):  W Wᵀ = I  or  Wᵀ W = I

    Biases and all other layers keep their values; so does a kernel that a parametrization computes.

    Args: names: of the weights -> the names that their values are drawn by, by default their own.
    Returns: the names of the weights that were set.
    Raises: InputError: there are none.
    Source: Saxe, McClelland, Ganguli, Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks, 2014.

    >>> layer = nn.Linear(8, 4)
    >>> orthonormal(nn.Sequential(layer))
    ['0.weight']
    >>> torch.allclose(layer.weight @ layer.weight.T, torch.eye(4), atol=1e-6)
    True
    """
    for name, module in _linear(model).items():
        shape = module.weight.shape
        drawn = (names or {}).get(name, name)
        matrix = orthonormal_matrix(shape[0], shape[1:].numel(), seed, drawn)
        module.weight.copy_(torch.from_numpy(matrix.copy()).reshape(shape))
    return kernels(model)


def kernels(model: nn.Module) -> list[str]:
    """Return the names of the weights that an initialization sets.

    Raises: InputError: there are none.
    """
    found = _linear(model)
    if not found:
        raise none_found("module")
    return list(found)


@torch.no_grad()
def lsuv(
    model: nn.Module, x: Tensor, *, seed: int = 0, names: Mapping[str, str] | None = None
) -> list[str]:
    """Give every `nn.Linear` and convolution outputs of unit variance on `x`, in place.

        W orthonormal;  then, in the order of the calls:  W ← W / sqrt(var(W x + b)), until it is 1

    Norms use the statistics of `x`, as in training, and keep their running ones; dropout is off. A
    layer that is called several times takes its scale from the first call, and one whose outputs
    are constant keeps its orthonormal kernel.

    Args: x: a batch as the model takes it; names: as for `orthonormal`.
    Returns: the names of the weights that were set.
    Raises: InputError: there are none.
    Source: Mishkin, Matas, All you need is a good init, 2016.

    >>> layer = nn.Linear(8, 4)
    >>> x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    >>> lsuv(nn.Sequential(layer), x)
    ['0.weight']
    >>> bool(abs(layer(x).var(correction=0) - 1) < 0.01)
    True
    """
    done = orthonormal(model, seed=seed, names=names)
    factors: dict[str, float] = {}
    with unchanged(model):  # statistics, modes, hooks
        set_to_average(model)
        for name, module in _linear(model).items():
            hook = partial(_first_call, factors, name)
            module.register_forward_hook(hook, with_kwargs=True)
        model(x)
    for name, module in _linear(model).items():
        module.weight.mul_(factors.get(name, 1.0))
    return done


def _first_call(
    factors: dict[str, float], name: str, module: Any, given: Any, named: Any, output: Tensor
) -> Tensor:
    """Rescale a layer at its first call; return its outputs with the new kernel."""
    if name in factors:
        return output
    start = module.weight.clone()

    def outputs(factor: float) -> Tensor:
        module.weight.copy_(start * factor)
        return module.forward(*given, **named)

    factors[name] = unit_variance(lambda factor: float(outputs(factor).float().var(correction=0)))
    return outputs(factors[name])


def _linear(model: nn.Module) -> dict[str, Any]:
    """Return the layers by the name of their weight, each weight once."""
    found: dict[str, Any] = {}
    own = dict(model.named_parameters())  # a parameter that several modules share is here once
    for path, module in model.named_modules():
        name = f"{path}.weight" if path else "weight"
        if isinstance(module, _LINEAR) and name in own:
            found[name] = module
    return found
