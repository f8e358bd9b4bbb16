"""The torch engine: train any `torch.nn.Module` that maps a batch to class logits.

A plain loop over tensors that are already on the device, without any work per example. The same
code trains a lowered Keras model and the user's own module. Not here: which model, which arm.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.dataset import Dataset
from ..errors import Refused
from ..train.decay import decays
from ..train.loop import run
from ..train.recipe import Recipe
from ..train.run import OnEpoch, RunResult
from ..train.schedule import learning_rates
from ..train.streams import derive, dropout_key
from ..train.task import CLASSIFICATION, Task, are_probabilities
from .batches import batches
from .lowering.lower import Lowered
from .modules import NORMS, SpatialDropout, channels_last_weights
from .statistics import reestimate

_SCORE_BATCH = 500  # examples per step where no gradient is needed


def train(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    on_epoch: OnEpoch = lambda report: None,
    device: str = "cpu",
    channels_first: bool | None = None,
    task: Task = CLASSIFICATION,
) -> RunResult:
    """Train `model` in place on `data` and score it on the test part at the end.

    Args:
        model: maps (batch, ...) to (batch, classes) logits. A `Lowered` model takes channels last;
            any other module takes images as (batch, channels, height, width).
        seed: decides the data order, augmentation and dropout, not the initial values.
        device: "cpu", "cuda", ...
        task: gives the loss and the score.

    Returns: score and loss on all test examples after the last epoch, the learning curve (test
        score on `recipe.curve` evenly spread test examples after each epoch), seconds, and the
        score of each test example. A loss that isn't finite ends the run as `diverged`.
    Raises: InputError: the recipe doesn't fit the data (`Recipe.check_fits`). Refused: outputs that
        aren't logits of shape (batch, classes), no trainable parameters.
    """
    recipe.check_fits(len(data.y_train), data.input_shape)
    labels = {"test": data.y_test}
    data, held = data.held_out(recipe.validation)
    if held is not None:
        labels["held"] = held.y_test
    first = not isinstance(model, Lowered) if channels_first is None else channels_first
    # cuDNN may choose other algorithms in every run, with different rounding.
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        engine = _Engine(model, data, held, recipe, seed, torch.device(device), first, task)
        trained = len(data.y_train)
        return run(engine, recipe, labels, trained=trained, seed=seed, on_epoch=on_epoch, task=task)


class _Engine:
    """One model on a device, its tensors and optimizer, as the training loop uses them."""

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        held: Dataset | None,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        channels_first: bool,
        task: Task,
    ) -> None:
        self.recipe, self.seed, self.device = recipe, seed, device
        self.model = _placed(model, device)
        place = {
            "device": device, "channels_first": channels_first, "standardize": recipe.standardize
        }  # fmt: skip
        self.train_set, test_set = batches(data, **place)
        self.parts = {"test": test_set}
        if held is not None:
            self.parts["held"] = batches(held, **place)[1]
        self.loss = task.loss_among(_LOSSES)
        self.rates = learning_rates(recipe, len(self.train_set) // recipe.batch_size).tolist()
        self.optimizer = make_optimizer(model, recipe)
        model.eval()
        with torch.no_grad():
            few = slice(0, min(8, len(self.train_set)))
            check_logits(model(self.train_set.inputs(few)), data.classes, task)
        key_dropout(model, seed)

    def epoch(self, number: int) -> float:
        """Train one epoch; return its mean loss."""
        recipe, model, optimizer = self.recipe, self.model, self.optimizer
        model.train()
        step = number * (len(self.train_set) // recipe.batch_size)
        first = step
        total = torch.zeros((), device=self.device)
        penalty = model.penalty if isinstance(model, Lowered) else lambda: None
        autocast = self._autocast()
        for x, y in self.train_set.epoch(self.seed, number, recipe.batch_size, recipe.augment):
            for group in optimizer.param_groups:
                group["lr"] = self.rates[step]
            with autocast:
                loss = self.loss(model(x), y, recipe)
            extra = penalty()
            loss = loss if extra is None else loss + extra
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
            step += 1
        return float(total) / (step - first)

    def reestimate(self, sample: np.ndarray) -> None:
        """Average the norms' statistics over full batches of the training examples at `sample`."""
        index = torch.from_numpy(sample).to(self.device).split(_SCORE_BATCH)
        full = [part for part in index if len(part) == len(index[0])]
        with self._autocast():
            reestimate(self.model, map(self.train_set.inputs, full))

    @torch.no_grad()  # not inference_mode: a module may keep a tensor for later training
    def outputs(self, part: str, index: np.ndarray | None) -> np.ndarray:
        """Return the model's outputs on a part, (n, classes) float32."""
        self.model.eval()
        source = self.parts[part]
        chosen = np.arange(len(source)) if index is None else index
        steps = torch.from_numpy(chosen).to(self.device).split(_SCORE_BATCH)
        with self._autocast():
            found = [self.model(source.inputs(step)) for step in steps]
        return torch.cat(found).float().cpu().numpy()

    def counts(self) -> dict[str, int]:
        """Return the numbers of trainable scalars, of all modules and of the norms."""
        return count_parameters(self.model)

    def _autocast(self) -> Any:
        if self.recipe.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


def _cross_entropy(outputs: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    return F.cross_entropy(outputs, labels, label_smoothing=recipe.label_smoothing)


_LOSSES = {"cross-entropy": _cross_entropy}  # by the name that a task gives


def _placed(model: nn.Module, device: torch.device) -> nn.Module:
    """Move `model` to the device, with kernels channels last, the fast layout."""
    model.to(device)
    channels_last_weights(model)
    return model


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Return the numbers of trainable scalars, of all modules and of the norms."""
    norm = {p for _, p, in_norm in _owned_parameters(model) if in_norm}
    trained = [p for p in model.parameters() if p.requires_grad]
    return {
        "parameters": sum(p.numel() for p in trained),
        "norm_parameters": sum(p.numel() for p in trained if p in norm),
    }


def _owned_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """Yield each parameter with its name in the module that owns it and whether that is a norm."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            yield name, parameter, isinstance(module, NORMS)


def check_logits(outputs: object, classes: int, task: Task = CLASSIFICATION) -> None:
    """Refuse a model's outputs unless they can be logits that fit the task."""
    if not isinstance(outputs, Tensor):
        raise Refused(
            f"the model's output is no tensor ({type(outputs).__name__}); expected one tensor of "
            f"shape (batch, {classes})."
        )
    task.check_outputs(tuple(outputs.shape), classes)
    if are_probabilities(outputs.detach().float().cpu().numpy()):
        raise Refused(
            "the model's outputs are probabilities (each row sums to 1), but the loss needs "
            "logits: leave the final softmax out."
        )


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer; norm parameters and biases don't decay unless `decay_all`."""
    decayed, plain = split_decay(model, recipe.decay_all)
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise Refused("the model has no trainable parameters.")
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.rate, fused=True)
    nesterov = recipe.momentum > 0
    return torch.optim.SGD(
        groups, lr=recipe.rate, momentum=recipe.momentum, nesterov=nesterov, fused=True
    )


def split_decay(model: nn.Module, decay_all: bool) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the trainable parameters that decay and those that don't (norms, biases)."""
    exempt = {
        p
        for role, p, in_norm in _owned_parameters(model)
        if not decays(role, in_norm=in_norm, decay_all=decay_all)
    }
    trained = [p for p in model.parameters() if p.requires_grad]
    return [p for p in trained if p not in exempt], [p for p in trained if p in exempt]


def key_dropout(model: nn.Module, seed: int) -> None:
    """Give every dropout module its own random stream, keyed by its name and the call number.

    So two arms whose dropout layer has the same name and input shape drop the same units in the
    same step, even if the arms draw other random numbers as well.
    """
    for name, module in model.named_modules():
        if isinstance(module, (nn.modules.dropout._DropoutNd, SpatialDropout)):
            calls = _stream(dropout_key(seed, name))
            module.register_forward_pre_hook(functools.partial(_reseed, calls))
    torch.manual_seed(derive(seed, "torch"))  # for functional dropout, which has no module


def _reseed(calls: Iterator[int], module: nn.Module, inputs: object) -> None:
    if module.training:
        torch.manual_seed(next(calls))


def _stream(start: int) -> Iterator[int]:
    while True:
        yield start
        start = (start + 0x9E3779B97F4A7C15) & 0x7FFF_FFFF_FFFF_FFFF
