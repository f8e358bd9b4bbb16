"""The losses that a task names, in PyTorch, and their gradients without a training.

Called by `trainer` and `watching`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import Refused
from ..train.recipe import Recipe
from ..train.tasks import class_axis
from ..train.watching import Target

Weights = Tensor | None  # of the classes


def _cross_entropy(outputs: Tensor, labels: Tensor, recipe: Recipe, weights: Weights) -> Tensor:
    outputs = outputs.movedim(-1, 1) if outputs.ndim > 2 else outputs
    labels, smoothing = labels.long(), recipe.label_smoothing
    if weights is None:
        return F.cross_entropy(outputs, labels, label_smoothing=smoothing)
    each = F.cross_entropy(outputs, labels, label_smoothing=smoothing, reduction="none")
    return (weights[labels] * each).mean()


def _binary(outputs: Tensor, labels: Tensor, recipe: Recipe, weights: Weights) -> Tensor:
    wanted, smoothing = labels.float(), recipe.label_smoothing
    wanted = wanted * (1 - smoothing) + smoothing / 2
    each = F.binary_cross_entropy_with_logits(
        outputs.float().reshape(labels.shape), wanted, reduction="none"
    )
    return (each if weights is None else weights[labels.long()] * each).mean()


def _of_numbers(function: Callable[..., Tensor]) -> Loss:
    def loss(outputs: Tensor, labels: Tensor, recipe: Recipe, weights: Weights) -> Tensor:
        return function(outputs.float().reshape(labels.shape), labels)

    return loss


Loss = Callable[[Tensor, Tensor, Recipe, Weights], Tensor]
LOSSES: dict[str, Loss] = {  # by the name that a task gives
    "cross-entropy": _cross_entropy,
    "binary cross-entropy": _binary,
    "mse": _of_numbers(F.mse_loss),
    "huber": _of_numbers(F.huber_loss),
    "l1": _of_numbers(F.l1_loss),
}


def class_last(
    outputs: Tensor, masks: tuple[int, tuple[int, ...]] | None, channels_first: bool
) -> Tensor:
    """Return a mask's outputs with the classes on the last axis; others as they are.

    Args: masks: the number of classes and the shape of one mask; None: the labels aren't masks.
    """
    if masks is None:
        return outputs
    axis = class_axis(tuple(outputs.shape), *masks, channels_first)
    return outputs.movedim(1, -1) if axis == 1 else outputs


class Losses:
    """The losses of batch after batch of examples, in the order of their labels."""

    def __init__(self, target: Target, *, channels_first: bool) -> None:
        self.target, self.first, self.at = target, channels_first, 0
        shape = target.labels.shape[1:]
        self.masks = (target.classes, shape) if target.task.labels == "masks" else None
        self.task: Any = None

    def back(self, model: nn.Module, outputs: Any) -> None:
        """Take the sum of the next examples' losses back through the network.

        Raises: Refused: outputs that don't fit the task.
        """
        if not isinstance(outputs, Tensor):
            raise Refused("gradients need a model with one output, a tensor.")
        self.target.task.check_outputs(
            tuple(outputs.shape), self.target.classes, self.target.labels.shape[1:]
        )
        labels = self._next(outputs)
        loss = self.task.loss_among(LOSSES)
        total = loss(class_last(outputs, self.masks, self.first), labels, Recipe(), None)
        with _own_gradients(model):
            (total * len(outputs)).backward()

    def _next(self, outputs: Tensor) -> Tensor:
        target = self.target
        if self.task is None:
            self.task = target.task.prepared(target.labels, Recipe(), tuple(outputs.shape))
        labels = target.labels[self.at : self.at + len(outputs)]
        self.at += len(outputs)
        return torch.from_numpy(np.array(self.task.encoded(labels))).to(outputs.device)


@contextmanager
def _own_gradients(model: nn.Module) -> Iterator[None]:
    """Put a model's own gradients back afterwards."""
    kept = [(parameter, parameter.grad) for parameter in model.parameters()]
    try:
        for parameter, _ in kept:
            parameter.grad = None
        yield
    finally:
        for parameter, gradient in kept:
            parameter.grad = gradient
