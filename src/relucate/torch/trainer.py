"""The torch engine: train any `torch.nn.Module` that maps a batch to class logits.

A plain loop over tensors that are already on the device; nothing in it is done per example. The
same code serves a lowered Keras model and the user's own module. Not here: which model, which arm.
"""

from __future__ import annotations

import functools
import time
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
from ..train.recipe import Recipe
from ..train.run import EpochReport, OnEpoch, RunResult
from ..train.schedule import learning_rates
from ..train.streams import curve_sample, curve_statistics, derive, dropout_key, statistics_sample
from .batches import Batches, batches
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
) -> RunResult:
    """Train `model` in place on `data` and score it on the test part at the end.

    Args:
        model: maps (batch, ...) to (batch, classes) logits. A `Lowered` model takes channels last;
            any other module takes images as (batch, channels, height, width).
        seed: decides the data order, augmentation and dropout; initial values are the caller's.
        device: "cpu", "cuda", ...

    Returns: accuracy and loss on all test examples after the last epoch, the learning curve (test
        accuracy on `recipe.curve` evenly spread test examples after each epoch), seconds, and which
        test examples were right. A loss that isn't finite ends the run as `diverged`.
    Raises: InputError: the recipe doesn't fit the data (`Recipe.check_fits`). Refused: outputs that
        aren't logits of shape (batch, classes), no trainable parameters.
    """
    recipe.check_fits(len(data.y_train), data.input_shape)
    # cuDNN may choose other algorithms in every run, which give other bits.
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        return _Run(model, data, recipe, seed, on_epoch, device, channels_first).result()


class _Run:
    """One training: its tensors, optimizer and clocks."""

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        recipe: Recipe,
        seed: int,
        on_epoch: OnEpoch,
        device: str,
        channels_first: bool | None,
    ) -> None:
        self.recipe, self.seed, self.on_epoch = recipe, seed, on_epoch
        self.device = torch.device(device)
        first = not isinstance(model, Lowered) if channels_first is None else channels_first
        self.model = _placed(model, self.device)
        data, held = data.held_out(recipe.validation)
        place = {
            "device": self.device, "channels_first": first, "standardize": recipe.standardize
        }  # fmt: skip
        self.train_set, self.test_set = batches(data, **place)
        self.held_set = None if held is None else batches(held, **place)[1]
        self.best: tuple[float, dict[str, Any]] = (-1.0, {})
        self.final: Tensor | None = None  # outputs on the test part after the last epoch
        curve_set = torch.from_numpy(curve_sample(len(self.test_set), recipe.curve))
        self.curve_set = curve_set.to(self.device)
        count = min(recipe.reestimate, len(self.train_set))
        sample = torch.from_numpy(statistics_sample(seed, len(self.train_set), count))
        self.statistics_set = sample.to(self.device)
        self.rates = learning_rates(recipe, len(self.train_set) // recipe.batch_size).tolist()
        self.optimizer = make_optimizer(self.model, recipe)
        self.curve: dict[str, list[float | None]] = {"epoch": [], "train_loss": [], "accuracy": []}
        self.seconds = {"train": 0.0, "evaluate": 0.0}
        _check_outputs(self.model, self.train_set, data.classes)
        key_dropout(self.model, seed)

    def result(self) -> RunResult:
        """Run all epochs, then score."""
        for epoch in range(self.recipe.epochs):
            loss = self._timed("train", self._epoch, epoch)
            accuracy = None
            if np.isfinite(loss):
                accuracy = self._timed("evaluate", self._curve_point, epoch)
            self._record(epoch, loss, accuracy)
            if not np.isfinite(loss):
                return self._diverged(f"the training loss was {loss} in epoch {epoch + 1}")
            self._timed("evaluate", self._keep_best, epoch)
        if self.held_set is not None:
            if not self.best[1]:
                return self._diverged("no epoch gave finite outputs on what was held out")
            return self._finish("done", **self.best[1])
        return self._timed("evaluate", self._score)

    def _timed(self, clock: str, function: Any, *args: Any) -> Any:
        start = time.perf_counter()
        value = function(*args)
        self.seconds[clock] += time.perf_counter() - start
        return value

    def _epoch(self, epoch: int) -> float:
        recipe, model, optimizer = self.recipe, self.model, self.optimizer
        model.train()
        step = epoch * (len(self.train_set) // recipe.batch_size)
        first = step
        total = torch.zeros((), device=self.device)
        penalty = model.penalty if isinstance(model, Lowered) else _no_penalty
        autocast = _autocast(recipe, self.device)
        for x, y in self.train_set.epoch(self.seed, epoch, recipe.batch_size, recipe.augment):
            for group in optimizer.param_groups:
                group["lr"] = self.rates[step]
            with autocast:
                loss = F.cross_entropy(model(x), y, label_smoothing=recipe.label_smoothing)
            extra = penalty()
            loss = loss if extra is None else loss + extra
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
            step += 1
        return float(total) / (step - first)

    def _curve_point(self, epoch: int) -> float | None:
        if not self.recipe.curve:
            return None
        last = epoch == self.recipe.epochs - 1
        scored = self.held_set is not None or last
        self._reestimate(curve_statistics(self.statistics_set, scored))
        if last and self.held_set is None:  # the score follows: it is the same outputs
            self.final = self._outputs(self._all(self.test_set))
            outputs = self.final[self.curve_set]
        else:
            outputs = self._outputs(self.curve_set)
        return float((outputs.argmax(1) == self.test_set.y[self.curve_set]).float().mean())

    def _keep_best(self, epoch: int) -> None:
        """Score the test part if this epoch is the best so far on what was held out."""
        if self.held_set is None:
            return
        if not self.recipe.curve:
            self._reestimate()
        found = self._outputs(self._all(self.held_set), self.held_set)
        score = float((found.argmax(1) == self.held_set.y).float().mean())
        if score > self.best[0] and bool(found.isfinite().all()):
            result = self._score()
            if result.status == "done":
                values = {"metric": result.metric, "loss": result.loss, "correct": result.correct}
                self.best = (score, {**values, "epoch": epoch + 1})

    def _score(self) -> RunResult:
        if not self.recipe.curve:
            self._reestimate()
        outputs = self.final
        if outputs is None:
            outputs = self._outputs(self._all(self.test_set))
        loss = float(F.cross_entropy(outputs, self.test_set.y))
        if not np.isfinite(loss):
            return self._diverged(f"the test loss was {loss} after the last epoch")
        correct = (outputs.argmax(1) == self.test_set.y).cpu().numpy()
        return self._finish("done", metric=float(correct.mean()), loss=loss, correct=correct)

    def _all(self, part: Batches) -> Tensor:
        return torch.arange(len(part), device=self.device)

    def _reestimate(self, sample: Tensor | None = None) -> None:
        sample = self.statistics_set if sample is None else sample
        batches_of = sample.split(_SCORE_BATCH)
        full = [part for part in batches_of if len(part) == len(batches_of[0])]
        if len(sample):
            with _autocast(self.recipe, self.device):
                reestimate(self.model, map(self.train_set.inputs, full))

    @torch.no_grad()  # not inference_mode: a module may keep a tensor that it made on the way
    def _outputs(self, index: Tensor, of: Batches | None = None) -> Tensor:
        self.model.eval()
        source = of or self.test_set
        with _autocast(self.recipe, self.device):
            parts = [self.model(source.inputs(part)) for part in index.split(_SCORE_BATCH)]
        return torch.cat(parts).float()

    def _record(self, epoch: int, loss: float, accuracy: float | None) -> None:
        self.curve["epoch"].append(epoch + 1)
        self.curve["train_loss"].append(loss if np.isfinite(loss) else None)
        self.curve["accuracy"].append(accuracy)
        self.on_epoch(EpochReport(epoch + 1, self.recipe.epochs, loss, accuracy))

    def _diverged(self, note: str) -> RunResult:
        return self._finish("diverged", note=note)

    def _finish(self, status: str, **values: Any) -> RunResult:
        counts = count_parameters(self.model)
        return RunResult(status, curve=self.curve, seconds=dict(self.seconds), **counts, **values)


def _placed(model: nn.Module, device: torch.device) -> nn.Module:
    """Move `model` to the device, kernels channels last: the fast layout."""
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


def _no_penalty() -> Tensor | None:
    return None


def _autocast(recipe: Recipe, device: torch.device) -> Any:
    if recipe.precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def _check_outputs(model: nn.Module, data: Batches, classes: int) -> None:
    model.eval()
    with torch.no_grad():
        check_logits(model(data.inputs(slice(0, min(8, len(data))))), classes)


def check_logits(outputs: object, classes: int) -> None:
    """Refuse what a model gave unless it can be logits of shape (batch, classes)."""
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or outputs.shape[1] != classes:
        what = f"of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else "no tensor"
        kind = "" if isinstance(outputs, Tensor) else f" ({type(outputs).__name__})"
        raise Refused(
            f"the model's output is {what}{kind}; expected (batch, {classes}) class logits."
        )
    sums = outputs.float().sum(1)
    if bool((outputs >= 0).all()) and bool(torch.isclose(sums, torch.ones_like(sums)).all()):
        raise Refused(
            "the model's outputs are probabilities (each row sums to 1), but the loss takes "
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
    """Give every dropout module its own random stream, named by the module and its call number.

    Two arms whose dropout layer has the same name and input shape then drop the same units in the
    same step, whatever else the arms draw.
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
