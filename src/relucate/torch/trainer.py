"""The torch engine: train any `torch.nn.Module` that maps a batch to what a task scores.

A plain loop over tensors that are already on the device, without any work per example. The same
code trains a lowered Keras model and the user's own module. Not here: which model, which arm.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.dataset import Dataset, labels_of
from ..errors import Refused
from ..train.decay import decays
from ..train.looking import Look
from ..train.loop import run
from ..train.recipe import Recipe, no_variance
from ..train.run import OnEpoch, RunResult
from ..train.schedule import learning_rates
from ..train.scores import are_probabilities
from ..train.task import CLASSIFICATION, Task
from ..train.tasks import class_axis
from ..train.waiting import Ready, finished
from .batches import Batches, Feed, placed
from .capture import Step
from .dropout import Draws, key_dropout
from .losses import LOSSES, class_last
from .lowering.lower import Lowered
from .modules import NORMS, channels_last_weights
from .state import unchanged
from .statistics import reestimate
from .together import Together
from .turns import Pace, Turn, mark_of

_SCORE_BATCH = 500  # examples per step where no gradient is needed
_SCORE_VALUES = 2**22  # input values per step on a GPU, which small batches leave idle


def training(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    on_epoch: OnEpoch = lambda report: None,
    device: str = "cpu",
    channels_first: bool | None = None,
    task: Task = CLASSIFICATION,
    look: Look | None = None,
) -> Generator[Ready, None, RunResult]:
    """Train `model` in place on `data` and score it on the test part at the end.

    `train` is all of it at once; this yields while a GPU works alone (`train.waiting`).

    Args:
        model: maps (batch, ...) to the task's outputs: logits (batch, classes), numbers, ... A
            `Lowered` model takes channels last; any other module takes images as (batch, channels,
            height, width), volumes as (batch, channels, depth, height, width).
        seed: decides the data order, augmentation and dropout, not the initial values.
        device: "cpu", "cuda", ...
        task: gives the loss and the score; look: looks at the model between epochs.

    Returns: score and loss on all test examples after the last epoch, the learning curve (test
        score on `recipe.curve` evenly spread test examples after each epoch), seconds, and the
        score of each test example. A loss that isn't finite ends the run as `diverged`.
    Raises: InputError: the recipe doesn't fit the data (`Recipe.check_fits`) or the task. Refused:
        outputs that don't fit the task, no trainable parameters.
    """
    recipe.check_fits(len(data.y_train), data.input_shape)
    where = torch.device(device)
    recipe.check_device(where.type)
    first = not isinstance(model, Lowered) if channels_first is None else channels_first
    with Turn(where, tf32=recipe.precision == "tf32") as turn:
        engine = Engine(model, data, recipe, seed, where, first, task, turn)
        try:
            result = yield from run(
                engine,
                recipe,
                engine.labels,
                trained=len(engine.train_set),
                seed=seed,
                on_epoch=on_epoch,
                task=engine.task,
                look=look,
            )
            result.note = result.note or engine.step_note
        finally:
            engine.close()
    return result


train = finished(training)


class Engine:
    """One model on a device, its tensors and optimizer, as the training loop uses them."""

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        channels_first: bool,
        task: Task,
        turn: Turn,
    ) -> None:
        self.recipe, self.seed, self.device = recipe, seed, device
        self.pace = Pace(turn, mark_of(device))
        self.model = _placed(model, device)
        whole, (data, held) = data, data.held_out(recipe.validation)
        self.parts = placed(
            whole,
            (data, held),
            device=device,
            channels_first=channels_first,
            standardize=recipe.standardize,
        )
        self.train_set, self.labels = self.parts["train"], labels_of(data, held)
        self.channels_first = channels_first
        self.masks = (data.classes, data.y_train.shape[1:]) if task.labels == "masks" else None
        shape = self._checked_shape(data, task)
        self.task = task.prepared(data.y_train, recipe, shape)
        self.train_set.y = torch.from_numpy(np.array(self.task.encoded(data.y_train))).to(device)
        self.loss = self.task.loss_among(LOSSES)
        weights = self.task.weights
        self.weights = None if weights is None else torch.from_numpy(weights).to(device)
        self.feed = Feed(self.train_set, recipe.batch_size, recipe.augment)
        self.rates = learning_rates(recipe, self.feed.steps)
        self.optimizer = make_optimizer(model, recipe, self.feed.rate)
        self.total = torch.zeros((), device=device)
        self.penalty = model.penalty if isinstance(model, Lowered) else lambda: None
        self.together = _together(model, recipe, device)
        if recipe.batch_size == 1:
            check_single(model, self.train_set.inputs(slice(0, 1)))
        self.train_step = self._repeated()

    def _repeated(self) -> Callable[[], None]:
        """Return the step, on a GPU captured as soon as it can be; dropout is keyed."""
        if self.device.type != "cuda":
            key_dropout(self.model, self.seed)
            return self.step
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        return Step(self.step, self.model, Draws(self.model, self.seed, generator))

    @property
    def step_note(self) -> str:
        """Why no step was captured, if one should have been."""
        return self.train_step.note if isinstance(self.train_step, Step) else ""

    def _checked_shape(self, data: Dataset, task: Task) -> tuple[int, ...]:
        """Return the shape of the outputs for a few examples, refused if they don't fit."""
        self.model.eval()
        few = self.train_set.inputs(slice(0, min(8, len(self.train_set))))
        with torch.no_grad():
            outputs = self.model(few)
        check_logits(outputs, data.classes, task, data.y_train.shape[1:])
        if "sigmoid" in task.final(self._class_last(outputs).shape[-1]):
            check_no_sigmoid(self.model, few)
        return tuple(outputs.shape)

    def epoch(self, number: int) -> Generator[Ready, None, float]:
        """Train one epoch; return its mean loss."""
        self.begin(number)
        for done in range(self.feed.steps):
            if isinstance(self.train_step, Step) and self.train_step.captured:
                yield from self.pace.repeat(self.train_step, self.feed.steps - done)
                break
            self.train_step()
            yield from self.pace.step()
        yield from self.pace.end()
        return float(self.total) / self.feed.steps

    def begin(self, number: int) -> None:
        """Get ready for epoch `number`."""
        self.model.train()
        steps = self.feed.steps
        self.feed.start(self.seed, number, self.rates[number * steps : (number + 1) * steps])
        self.total.zero_()

    def step(self) -> None:
        """Train on the next batch: it reads and writes only tensors on the device."""
        x, y = self.feed.batch()
        with self._autocast():
            outputs = self.model(x) if self.together is None else self.together(x)
            loss = self.loss(self._class_last(outputs), y, self.recipe, self.weights)
        extra = self.penalty()
        loss = loss if extra is None else loss + extra
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.together is not None:
            self.together.gradients()
        self.optimizer.step()
        self.total += loss.detach()
        self.feed.advance()

    def close(self) -> None:
        """Let go of the graph and its memory: no one else refers to them."""
        self.pace.settle()
        del self.train_step, self.optimizer

    def reestimate(self, sample: np.ndarray) -> None:
        """Average the norms' statistics over full batches of the training examples at `sample`."""
        index = torch.from_numpy(sample).to(self.device).split(_SCORE_BATCH)
        full = [part for part in index if len(part) == len(index[0])]
        with self._autocast():
            inputs = map(self.train_set.inputs, full)
            reestimate(self.model, inputs, unbiased=self.recipe.unbiased)

    @torch.no_grad()  # not inference_mode: a module may keep a tensor for later training
    def outputs(self, part: str, index: np.ndarray | None) -> np.ndarray:
        """Return the model's outputs on a part, (n, ..., classes) float32."""
        self.model.eval()
        source = self.parts[part]
        chosen = np.arange(len(source)) if index is None else index
        steps = torch.from_numpy(chosen).to(self.device).split(self._score_batch(source))
        with self._autocast():
            found = [self._class_last(self.model(source.inputs(step))) for step in steps]
        return torch.cat(found).float().cpu().numpy()

    def _score_batch(self, part: Batches) -> int:
        if self.device.type == "cpu":
            return _SCORE_BATCH
        return max(_SCORE_BATCH, _SCORE_VALUES // max(part.x[0].numel(), 1))

    def counts(self) -> dict[str, int]:
        """Return the numbers of trainable scalars, of all modules and of the norms."""
        return count_parameters(self.model)

    def inputs(self, index: np.ndarray) -> np.ndarray:
        """Return test examples as the model takes them."""
        chosen = torch.from_numpy(index).to(self.device)
        return self.parts["test"].inputs(chosen).cpu().numpy()

    def paused(self) -> AbstractContextManager[None]:
        """Return a context after which the model and the random state are as before."""
        return unchanged(self.model)

    def _class_last(self, outputs: Tensor) -> Tensor:
        """Return a mask's outputs with the classes on the last axis; others as they are."""
        return class_last(outputs, self.masks, self.channels_first)

    def _autocast(self) -> Any:
        if self.recipe.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


def _together(model: nn.Module, recipe: Recipe, device: torch.device) -> Together | None:
    """Return the forward pass with few small operations: on a CPU they cost less than that."""
    if device.type == "cuda" and isinstance(model, Lowered):
        return Together(model, cast=recipe.precision == "bf16")
    return None


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


def check_single(model: nn.Module, x: torch.Tensor) -> None:
    """Raise InputError for a model that can't be trained on one example at a time."""
    try:
        with unchanged(model), torch.no_grad():
            model.train()
            model(x)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise no_variance() from None


def check_logits(
    outputs: object,
    classes: int,
    task: Task = CLASSIFICATION,
    label_shape: tuple[int, ...] = (),
) -> None:
    """Refuse a model's outputs unless they can be logits, or numbers, that fit the task."""
    if not isinstance(outputs, Tensor):
        raise Refused(
            f"the model's output is no tensor ({type(outputs).__name__}); expected one tensor of "
            f"shape (batch, {classes})."
        )
    shape = tuple(outputs.shape)
    task.check_outputs(shape, classes, label_shape)
    if outputs.ndim > 2 and class_axis(shape, classes, label_shape, True) == 1:
        outputs = outputs.movedim(1, -1)
    included = task.final(outputs.shape[-1] if outputs.ndim > 1 else 1)
    array = outputs.detach().float().cpu().numpy()
    if "softmax" in included and are_probabilities(array):
        raise Refused(
            "the model's outputs are probabilities (each row sums to 1), but the loss needs "
            "logits: leave the final softmax out."
        )


_RESHAPES = frozenset("View UnsafeView Squeeze Unsqueeze Permute Transpose Select Clone".split())


def check_no_sigmoid(model: nn.Module, x: Tensor) -> None:
    """Refuse a model whose last operation, besides a change of shape, is a sigmoid.

    The values don't say: logits may be between 0 and 1, too.
    """
    with unchanged(model), torch.enable_grad():
        step = model(x).grad_fn
    while step is not None and step.name().partition("Backward")[0] in _RESHAPES:
        step = step.next_functions[0][0]
    if step is not None and step.name().startswith("SigmoidBackward"):
        raise Refused(
            "the model ends with a sigmoid, but the loss needs logits: leave the final sigmoid out."
        )


def make_optimizer(
    model: nn.Module, recipe: Recipe, rate: Tensor | None = None
) -> torch.optim.Optimizer:
    """Return the recipe's optimizer; norm parameters and biases don't decay unless `decay_all`.

    Args: rate: the tensor that holds the learning rate of each step.
    """
    decayed, plain = split_decay(model, recipe.decay_all)
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise Refused("the model has no trainable parameters.")
    lr = recipe.rate if rate is None else rate
    if recipe.optimizer == "adamw":
        capturable = groups[0]["params"][0].is_cuda
        optimizer = torch.optim.AdamW(groups, lr=lr, fused=True, capturable=capturable)
        optimizer._warned_capturable_if_run_uncaptured = True  # the first steps aren't captured
        return optimizer
    nesterov = recipe.momentum > 0
    return torch.optim.SGD(groups, lr=lr, momentum=recipe.momentum, nesterov=nesterov, fused=True)


def split_decay(model: nn.Module, decay_all: bool) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the trainable parameters that decay and those that don't (norms, biases)."""
    exempt = {
        p
        for role, p, in_norm in _owned_parameters(model)
        if not decays(role, in_norm=in_norm, decay_all=decay_all)
    }
    trained = [p for p in model.parameters() if p.requires_grad]
    return [p for p in trained if p not in exempt], [p for p in trained if p in exempt]
