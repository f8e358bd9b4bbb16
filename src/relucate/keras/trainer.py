"""The keras engine: train a Keras model through `fit` on whichever backend is configured.

A model that its builder compiled keeps its own optimizer, loss and learning rate; any other is
compiled from the recipe, with the same schedule, data order and decay rule as the torch engine.
Not here: choosing the engine, lowering.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from ..data.dataset import Dataset
from ..errors import InputError, Refused
from ..train.recipe import Recipe
from ..train.run import EpochReport, OnEpoch, RunResult
from ..train.schedule import learning_rates
from ..train.standard import channel_moments
from ..train.streams import (
    curve_sample,
    curve_statistics,
    derive,
    epoch_order,
    generator,
    statistics_sample,
)
from .running import no_gradients

_SCORE_BATCH = 500
_CROP = 4
_QUIET: Any = 0
_NORMS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)


def train(
    model: keras.Model,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    on_epoch: OnEpoch = lambda report: None,
) -> RunResult:
    """Train `model` in place through `fit` and score it on the test part.

    As `relucate.torch.train`: accuracy on all test examples after the last epoch, batch-norm
    statistics re-estimated before each evaluation, a loss that isn't finite is `diverged`.
    Raises: InputError: the recipe or the model's input doesn't fit the data, or bf16 (the model's
    own dtype policy decides here). Refused: outputs that aren't (batch, classes), a compiled loss
    that isn't a categorical cross-entropy.
    """
    recipe.check_fits(len(data.y_train), data.input_shape)
    if recipe.precision != "fp32":
        raise InputError(
            "engine 'keras' computes in the model's own dtype policy: leave the precision at fp32, "
            "or set the policy in the builder."
        )
    return _Run(model, data, recipe, seed, on_epoch).result()


class _Run:
    """One training through `fit`, epoch by epoch."""

    def __init__(
        self, model: keras.Model, data: Dataset, recipe: Recipe, seed: int, on_epoch: OnEpoch
    ) -> None:
        self.model, self.recipe, self.on_epoch = model, recipe, on_epoch
        check_model(model, data.input_shape, data.classes)
        data, held = data.held_out(recipe.validation)
        self.x, self.x_test = _prepared(model, data, recipe.standardize)
        self.y, self.y_test = np.array(data.y_train), np.array(data.y_test)
        self.x_held = None if held is None else _prepared(model, held, recipe.standardize)[1]
        self.y_held = None if held is None else np.array(held.y_test)
        self.best: tuple[float, dict[str, Any]] = (-1.0, {})
        self.final: np.ndarray | None = None  # outputs on the test part after the last epoch
        self.batches = _Batches(self.x, self.y, recipe, seed)
        self.batches.channels_first = takes_channels_first(model, data.input_shape)
        if not getattr(model, "compiled", False):
            outputs = forward(model, self.x[:8], training=False)  # builds a subclassed model too
            check_shape(outputs.shape, data.classes)
            _compile(model, recipe, len(self.batches), logits=not _are_probabilities(outputs))
        self.batches.one_hot = data.classes if _wants_one_hot(model) else 0
        self.sample = statistics_sample(seed, len(self.x), recipe.reestimate)
        self.curve_set = curve_sample(len(self.y_test), recipe.curve)
        self.curve: dict[str, list[float | None]] = {"epoch": [], "train_loss": [], "accuracy": []}
        self.seconds = {"train": 0.0, "evaluate": 0.0}
        _key_dropout(model, seed)

    def result(self) -> RunResult:
        """Run all epochs, then score."""
        for epoch in range(self.recipe.epochs):
            start = time.perf_counter()
            loss = self._epoch(epoch)
            self.seconds["train"] += time.perf_counter() - start
            accuracy = self._curve_point(epoch) if np.isfinite(loss) else None
            self._record(epoch, loss, accuracy)
            if not np.isfinite(loss):
                return self._finish(
                    "diverged", note=f"the training loss was {loss} in epoch {epoch + 1}"
                )
            self._keep_best(epoch)
        if self.x_held is None:
            return self._score()
        if not self.best[1]:
            return self._finish(
                "diverged", note="no epoch gave finite outputs on what was held out"
            )
        return self._finish("done", **self.best[1])

    def _epoch(self, epoch: int) -> float:
        self.batches.begin(epoch)
        history = self.model.fit(
            self.batches, initial_epoch=epoch, epochs=epoch + 1, verbose=_QUIET, shuffle=False
        )
        return float(history.history["loss"][0])

    def _curve_point(self, epoch: int) -> float | None:
        if not self.recipe.curve:
            return None
        last = epoch == self.recipe.epochs - 1
        if last and self.x_held is None:  # the score follows: it is the same outputs
            self.final = self._outputs(np.arange(len(self.y_test)))
            outputs = self.final[self.curve_set]
        else:
            sample = curve_statistics(self.sample, last or self.x_held is not None)
            outputs = self._outputs(self.curve_set, sample=sample)
        return float((outputs.argmax(1) == self.y_test[self.curve_set]).mean())

    def _keep_best(self, epoch: int) -> None:
        """Score the test part if this epoch is the best so far on what was held out."""
        if self.x_held is None:
            return
        found = self._outputs(np.arange(len(self.x_held)), self.x_held)
        score = float((found.argmax(1) == self.y_held).mean())
        if score > self.best[0] and np.isfinite(found).all():
            result = self._score()
            if result.status == "done":
                values = {"metric": result.metric, "loss": result.loss, "correct": result.correct}
                self.best = (score, {**values, "epoch": epoch + 1})

    def _score(self) -> RunResult:
        outputs = self.final
        if outputs is None:
            outputs = self._outputs(np.arange(len(self.y_test)))
        loss = _cross_entropy(outputs, self.y_test)
        if not np.isfinite(loss):
            return self._finish("diverged", note=f"the test loss was {loss} after the last epoch")
        correct = outputs.argmax(1) == self.y_test
        return self._finish("done", metric=float(correct.mean()), loss=loss, correct=correct)

    def _outputs(
        self,
        index: np.ndarray,
        of: np.ndarray | None = None,
        sample: np.ndarray | None = None,
    ) -> np.ndarray:
        start = time.perf_counter()
        sample = self.sample if sample is None else sample
        if len(sample):
            reestimate(self.model, self.x[sample])
        source = self.x_test if of is None else of
        outputs = self.model.predict(source[index], batch_size=_SCORE_BATCH, verbose=_QUIET)
        self.seconds["evaluate"] += time.perf_counter() - start
        return np.asarray(outputs, np.float64)

    def _record(self, epoch: int, loss: float, accuracy: float | None) -> None:
        self.curve["epoch"].append(epoch + 1)
        self.curve["train_loss"].append(loss if np.isfinite(loss) else None)
        self.curve["accuracy"].append(accuracy)
        self.on_epoch(EpochReport(epoch + 1, self.recipe.epochs, loss, accuracy))

    def _finish(self, status: str, **values: Any) -> RunResult:
        return RunResult(status, curve=self.curve, seconds=dict(self.seconds), **values)


class _Batches(keras.utils.PyDataset):
    """An epoch's full batches in the seed's order, augmented."""

    def __init__(self, x: np.ndarray, y: np.ndarray, recipe: Recipe, seed: int) -> None:
        super().__init__(workers=1)
        self.x, self.y, self.recipe, self.seed = x, y, recipe, seed
        self.one_hot, self.channels_first = 0, False
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Draw an epoch's order."""
        self.epoch = epoch
        self.order = epoch_order(self.seed, epoch, len(self.y))

    def __len__(self) -> int:
        return len(self.y) // self.recipe.batch_size

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        size = self.recipe.batch_size
        index = self.order[step * size : (step + 1) * size]
        x, y = self.x[index], self.y[index]
        if self.recipe.augment:
            x = np.moveaxis(x, 1, -1) if self.channels_first else x
            x = _augment(x, self.recipe, generator(self.seed, "augment", self.epoch, step))
            x = np.moveaxis(x, -1, 1) if self.channels_first else x
        return x, np.eye(self.one_hot, dtype=np.float32)[y] if self.one_hot else y


def _augment(x: np.ndarray, recipe: Recipe, random: np.random.Generator) -> np.ndarray:
    """Flip and crop images (n, height, width, channels)."""
    if "flip" in recipe.augment:
        x = np.where(random.random((len(x), 1, 1, 1)) < 0.5, x[:, :, ::-1], x)
    if "crop" in recipe.augment:
        padded = np.pad(x, [(0, 0), (_CROP, _CROP), (_CROP, _CROP), (0, 0)])
        shift = random.integers(0, 2 * _CROP + 1, (2, len(x), 1))
        rows, columns = shift[0] + np.arange(x.shape[1]), shift[1] + np.arange(x.shape[2])
        x = padded[np.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return x


def _prepared(
    model: keras.Model, data: Dataset, standardize: bool
) -> tuple[np.ndarray, np.ndarray]:
    width = data.x_train.shape[-1]
    mean, scale = np.zeros(width, np.float32), np.ones(width, np.float32)
    if standardize:
        mean, scale = channel_moments(data.x_train)
    parts = [(np.asarray(x, np.float32) - mean) * scale for x in (data.x_train, data.x_test)]
    if takes_channels_first(model, data.input_shape):
        parts = [np.moveaxis(x, -1, 1) for x in parts]
    return parts[0], parts[1]


def takes_channels_first(model: keras.Model, input_shape: tuple[int, ...]) -> bool:
    """Say whether the model wants images of `input_shape` (channels last) with channels first.

    Raises: InputError: it takes neither. Refused: several inputs.
    """
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) > 1:
        raise Refused(f"the model has {len(inputs)} inputs; compare trains models with one.")
    first = len(input_shape) == 3 and keras.config.image_data_format() == "channels_first"
    if not inputs:  # a subclassed model doesn't say
        return first
    moved = (input_shape[-1], *input_shape[:-1])
    layouts = [(False, input_shape)] + ([(True, moved)] if len(input_shape) == 3 else [])
    expected = tuple(inputs[0].shape[1:])
    found = [layout for layout, shape in layouts if _takes(expected, shape)]
    if not found:
        raise InputError(
            f"the model takes examples of shape {expected}, and the data's have {input_shape}: "
            "build it with the input_shape that the builder is given."
        )
    return first if first in found else found[0]


def _takes(expected: tuple[int | None, ...], shape: tuple[int, ...]) -> bool:
    if len(expected) != len(shape):
        return False
    return all(want in (None, size) for want, size in zip(expected, shape, strict=True))


def check_shape(shape: Any, classes: int) -> None:
    """Refuse outputs that aren't one logit or probability per class."""
    if not isinstance(shape, tuple) or shape[1:] != (classes,):
        raise Refused(
            f"the model's output has shape {shape}; expected (batch, {classes}): one logit or "
            "probability per class."
        )


def check_model(model: keras.Model, input_shape: tuple[int, ...], classes: int) -> None:
    """Refuse a model that isn't a classifier of such data into `classes` classes.

    Raises: as `train`.
    """
    takes_channels_first(model, input_shape)
    shape = getattr(model, "output_shape", None) if getattr(model, "inputs", None) else None
    if shape is not None:
        check_shape(shape, classes)
    if getattr(model, "compiled", False):
        _wants_one_hot(model)


class _Table(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate for every step, from a table."""

    def __init__(self, rates: np.ndarray) -> None:
        super().__init__()
        self.rates = rates.astype(np.float32)

    def __call__(self, step: Any) -> Any:
        index = keras.ops.minimum(keras.ops.cast(step, "int32"), len(self.rates) - 1)
        return keras.ops.take(keras.ops.convert_to_tensor(self.rates), index)

    def get_config(self) -> dict[str, Any]:
        return {"rates": self.rates.tolist()}


class _SGD(keras.optimizers.SGD):
    """SGD with coupled weight decay and momentum as PyTorch writes them, like the torch engine.

        g ← g + decay · w;  v ← momentum · v + g;  w ← w - rate · (g + momentum · v)

    Keras's own velocity holds rates (v ← momentum · v - rate · g), which differs while the rate
    changes, and its own weight decay leaves the velocity out.
    """

    def __init__(self, rates: Any, momentum: float, decay: float, decayed: list[Any]) -> None:
        super().__init__(rates, momentum=momentum, nesterov=momentum > 0, name="sgd")
        self._decay, self._decayed = decay, {id(variable) for variable in decayed}

    def build(self, variables: Any) -> None:
        places = [place for place, v in enumerate(variables) if id(v) in self._decayed]
        self._places = frozenset(places)
        super().build(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        place = self._get_variable_index(variable)
        rate: Any = keras.ops.cast(learning_rate, variable.dtype)
        step: Any = keras.ops.cast(gradient, variable.dtype)
        if self._decay and place in self._places:
            step = step + self._decay * _tensor(variable)
        if self.momentum:
            velocity = self.momentums[place]
            moved = self.momentum * _tensor(velocity) + step
            self.assign(velocity, moved)
            step = step + self.momentum * moved
        self.assign_sub(variable, rate * step)


def _tensor(variable: Any) -> Any:
    return keras.ops.convert_to_tensor(variable)


def _compile(model: keras.Model, recipe: Recipe, steps: int, *, logits: bool) -> None:
    rates: Any = _Table(learning_rates(recipe, steps))
    decayed, plain = _split_decay(model, recipe.decay_all)
    if not decayed and not plain:
        raise Refused("the model has no trainable parameters.")
    if recipe.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(rates, weight_decay=recipe.weight_decay, epsilon=1e-8)
        optimizer.exclude_from_weight_decay(var_list=plain)
    else:
        optimizer = _SGD(rates, recipe.momentum, recipe.weight_decay, decayed)
    if recipe.label_smoothing:
        loss = keras.losses.CategoricalCrossentropy(
            from_logits=logits, label_smoothing=recipe.label_smoothing
        )
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    model.compile(optimizer=optimizer, loss=loss)


def _split_decay(model: keras.Model, decay_all: bool) -> tuple[list[Any], list[Any]]:
    layers = model._flatten_layers(include_self=False)
    exempt = {id(v) for layer in layers if isinstance(layer, _NORMS) for v in layer.weights}
    exempt |= {id(v) for v in model.weights if v.name in {"bias", "alpha"}}
    trained = model.trainable_weights
    if decay_all:
        return list(trained), []
    decayed = [v for v in trained if id(v) not in exempt]
    return decayed, [v for v in trained if id(v) in exempt]


def _are_probabilities(outputs: np.ndarray) -> bool:
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(-1), 1.0, atol=1e-3))


def _wants_one_hot(model: keras.Model) -> bool:
    """Say whether the compiled loss takes one-hot labels; other losses are refused."""
    loss = model.loss
    name = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", ""))
    name = str(name).lower()
    if "sparse_categorical" in name or "sparsecategorical" in name:
        return False
    if "categorical" in name:
        return True
    words = f"with the loss '{name}'" if loss is not None else "without a loss"
    raise Refused(
        f"the model was compiled {words}: compare trains classifiers with (sparse) categorical "
        "cross-entropy."
    )


def _cross_entropy(outputs: np.ndarray, labels: np.ndarray) -> float:
    if _are_probabilities(outputs):
        logs = np.log(np.maximum(outputs, 1e-12))
    else:
        shifted = outputs - outputs.max(-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return float(-logs[np.arange(len(labels)), labels].mean())


def _key_dropout(model: keras.Model, seed: int) -> None:
    """Give every random layer its own stream, named by the layer: equal in arms that share it."""
    keras.utils.set_random_seed(derive(seed, "keras") % 2**32)  # for what draws without a layer
    for layer in model._flatten_layers(include_self=False):
        source = _random_source(layer)
        if source is not None:
            value = derive(seed, "dropout", layer.name) % 2**31
            source.state.assign(np.asarray([value, 0], source.state.dtype))
            # On the torch backend a generator that wasn't given a seed leaves dropout to the global
            # random state.
            source._initial_seed = value


def _random_source(layer: Any) -> Any:
    return getattr(layer, "seed_generator", None) or getattr(layer, "generator", None)


def reestimate(model: keras.Model, x: np.ndarray) -> None:
    """Replace every batch norm's moving statistics by averages over `x`, batch by batch.

    Random layers (dropout, noise, augmentation) compute as at inference meanwhile.
    """
    layers = list(model._flatten_layers(include_self=False))
    norms = [la for la in layers if isinstance(la, keras.layers.BatchNormalization)]
    norms = [norm for norm in norms if norm.trainable]
    if not norms:
        return
    size = min(_SCORE_BATCH, len(x))
    with _momenta_kept(norms), _calm([la for la in layers if _random_source(la) is not None]):
        for count, start in enumerate(range(0, len(x) - size + 1, size)):
            for norm in norms:
                norm.momentum = count / (count + 1)
            forward(model, x[start : start + size], training=True)


def forward(model: keras.Model, x: np.ndarray, *, training: bool) -> np.ndarray:
    """Call the model without recording gradients; return its output as an array."""
    with no_gradients():
        return np.asarray(keras.ops.convert_to_numpy(model(x, training=training)))


@contextmanager
def _momenta_kept(norms: list[Any]) -> Iterator[None]:
    kept = [norm.momentum for norm in norms]
    try:
        yield
    finally:
        for norm, own in zip(norms, kept, strict=True):
            norm.momentum = own


@contextmanager
def _calm(layers: list[Any]) -> Iterator[None]:
    """Let layers compute as at inference, whatever mode the model is called in."""
    calmed = [la for la in layers if "training" in inspect.signature(la.call).parameters]
    try:
        for layer in calmed:
            layer.call = _at_inference(layer.call)
        yield
    finally:
        for layer in calmed:
            vars(layer).pop("call", None)


def _at_inference(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def calm(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **{**kwargs, "training": False})

    return calm
