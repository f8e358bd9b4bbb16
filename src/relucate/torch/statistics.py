"""Re-estimate batch-norm statistics before evaluation.

Moving averages lag behind the weights (after a few hundred steps at momentum 0.99 they are mostly
their initial values), so a short run would be scored with the statistics of an earlier network.
Source: Ioffe and Szegedy, Batch Normalization, 2015, Algorithm 2 (population statistics after
training).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .modules import BatchNorm


def norms_with_statistics(model: nn.Module) -> list[nn.Module]:
    """Return the modules whose evaluation uses averaged batch statistics.

    Called in training mode: not those that the model's own `train` keeps frozen.
    """
    found: list[nn.Module] = []
    for module in model.modules():
        ours = isinstance(module, BatchNorm) and not module.frozen
        native = isinstance(module, nn.modules.batchnorm._NormBase)  # batch and instance norms
        if module.training and (ours or (native and module.track_running_stats)):
            found.append(module)
    return found


def set_to_average(model: nn.Module) -> list[nn.Module]:
    """Put the norms that train into training mode, all else into eval mode; return them."""
    model.train()
    norms = norms_with_statistics(model)
    model.eval()
    for norm in norms:
        norm.train()
    return norms


@torch.no_grad()
def reestimate(model: nn.Module, inputs: Iterable[Tensor], *, unbiased: bool = False) -> None:
    """Replace every batch norm's statistics by averages over `inputs`, batch by batch.

    Only the norms are in training mode: dropout is off, as at evaluation. Averages over k batches
    give each batch the same weight: statistic = (1/k) Σ_b statistic_b. A norm that is called
    several times for a batch averages over all calls. Everything else is restored: modes, momenta,
    PyTorch's count of batches.

    Args: unbiased: variances of a lowered Keras model are m/(m - 1) times those of the m values of
        a batch, as in the paper; those of PyTorch's own norms always are.

    >>> norm = nn.BatchNorm1d(1)
    >>> reestimate(norm, [torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [5.0]])])
    >>> norm.running_mean
    tensor([2.5000])
    """
    sizes: dict[nn.Module, int] = {}
    with _averaging(model) as norms, _noted(norms, sizes):
        if not norms:
            return
        for x in inputs:
            model(x)
    for norm, size in sizes.items() if unbiased else ():
        if isinstance(norm, BatchNorm) and size > 1:
            norm.running_var.mul_(size / (size - 1))


@contextmanager
def _noted(norms: list[nn.Module], sizes: dict[nn.Module, int]) -> Iterator[None]:
    """Give each call of a norm the same share, and note how many values per channel it gets."""
    calls = Counter[nn.Module]()

    def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        _set_share(norm, calls[norm])
        calls[norm] += 1
        sizes[norm] = inputs[0].numel() // inputs[0].shape[1]

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _set_share(norm: nn.Module, count: int) -> None:
    """Give the next call the weight 1 / (count + 1)."""
    if isinstance(norm, BatchNorm):
        norm.momentum = count / (count + 1)
    else:
        norm.momentum = 1 / (count + 1)  # type: ignore[assignment] # PyTorch's momentum is the share of the new value


@contextmanager
def _averaging(model: nn.Module) -> Iterator[list[nn.Module]]:
    modes = [(module, module.training) for module in model.modules()]
    norms = set_to_average(model)
    counts = (getattr(norm, "num_batches_tracked", None) for norm in norms)
    kept = [
        (norm, norm.momentum, count.clone() if isinstance(count, Tensor) else None)
        for norm, count in zip(norms, counts, strict=True)
    ]
    try:
        yield norms
    finally:
        for norm, momentum, count in kept:
            norm.momentum = momentum  # type: ignore[assignment]
            if count is not None:  # a norm with momentum None uses it for its average
                norm.num_batches_tracked.copy_(count)  # type: ignore[operator, union-attr]
        for module, training in modes:
            module.training = training
