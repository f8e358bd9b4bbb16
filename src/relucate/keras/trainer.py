"""The keras engine: train a Keras model through `fit` on whichever backend is configured.

A model that its builder compiled keeps its own optimizer, loss and learning rate; any other is
compiled from the recipe, with the same schedule, data order and decay rule as the torch engine.
Not here: choosing the engine, lowering.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
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
from ..train.streams import derive, epoch_order, generator

_SCORE_BATCH = 500
_CROP = 4
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
    Raises: InputError: a batch larger than the training set, or bf16 (the model's own dtype policy
    decides here). Refused: a compiled loss that isn't a categorical cross-entropy.
    """
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
        self.x, self.x_test = _prepared(model, data, recipe.standardize)
        self.y, self.y_test = np.array(data.y_train), np.array(data.y_test)
        self.batches = _Batches(self.x, self.y, recipe, seed)
        if not getattr(model, "compiled", False):
            _compile(model, recipe, len(self.batches), self.x)
        self.batches.one_hot = data.classes if _wants_one_hot(model) else 0
        count = min(recipe.curve, len(self.y_test))
        self.curve_set = np.unique(np.linspace(0, len(self.y_test) - 1, count).round().astype(int))
        self.curve: dict[str, list[float | None]] = {"epoch": [], "train_loss": [], "accuracy": []}
        self.seconds = {"train": 0.0, "evaluate": 0.0}
        _key_dropout(model, seed)

    def result(self) -> RunResult:
        """Run all epochs, then score."""
        for epoch in range(self.recipe.epochs):
            start = time.perf_counter()
            loss = self._epoch(epoch)
            self.seconds["train"] += time.perf_counter() - start
            accuracy = self._curve_point() if np.isfinite(loss) else None
            self._record(epoch, loss, accuracy)
            if not np.isfinite(loss):
                return self._finish(
                    "diverged", note=f"the training loss was {loss} in epoch {epoch + 1}"
                )
        return self._score()

    def _epoch(self, epoch: int) -> float:
        self.batches.begin(epoch)
        history = self.model.fit(
            self.batches, initial_epoch=epoch, epochs=epoch + 1, verbose=0, shuffle=False
        )
        return float(history.history["loss"][0])

    def _curve_point(self) -> float | None:
        if not self.recipe.curve:
            return None
        outputs = self._outputs(self.curve_set)
        return float((outputs.argmax(1) == self.y_test[self.curve_set]).mean())

    def _score(self) -> RunResult:
        outputs = self._outputs(np.arange(len(self.y_test)))
        loss = _cross_entropy(outputs, self.y_test)
        if not np.isfinite(loss):
            return self._finish("diverged", note=f"the test loss was {loss} after the last epoch")
        correct = outputs.argmax(1) == self.y_test
        return self._finish("done", metric=float(correct.mean()), loss=loss, correct=correct)

    def _outputs(self, index: np.ndarray) -> np.ndarray:
        start = time.perf_counter()
        count = min(self.recipe.reestimate, len(self.x))
        if count:
            reestimate(self.model, self.x[:count])
        outputs = self.model.predict(self.x_test[index], batch_size=_SCORE_BATCH, verbose=0)
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
        self.one_hot = 0
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
        if x.ndim == 4 and self.recipe.augment:
            x = _augment(x, self.recipe, generator(self.seed, "augment", self.epoch, step))
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
    expected = tuple(model.inputs[0].shape[1:]) if model.inputs else data.input_shape
    if expected != data.input_shape and len(data.input_shape) == 3 and None not in expected:
        parts = [np.moveaxis(x, -1, 1) for x in parts]
    return parts[0], parts[1]


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


class _Decay(keras.regularizers.Regularizer):
    """(decay / 2) Σw² on top of a weight's own regularizer: its gradient is decay · w."""

    def __init__(self, decay: float, own: Any) -> None:
        self.decay, self.own = decay, own

    def __call__(self, x: Any) -> Any:
        penalty = 0.5 * self.decay * keras.ops.sum(keras.ops.square(x))
        return penalty if self.own is None else penalty + self.own(x)


def _compile(model: keras.Model, recipe: Recipe, steps: int, x: np.ndarray) -> None:
    rates = _Table(learning_rates(recipe, steps))
    decayed, plain = _split_decay(model, recipe.decay_all)
    if recipe.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(rates, weight_decay=recipe.weight_decay, epsilon=1e-8)
        optimizer.exclude_from_weight_decay(var_list=plain)
    else:
        optimizer = keras.optimizers.SGD(
            rates, momentum=recipe.momentum, nesterov=recipe.momentum > 0
        )
        for variable in decayed if recipe.weight_decay else []:
            variable.regularizer = _Decay(recipe.weight_decay, variable.regularizer)
    logits = not _gives_probabilities(model, x)
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


def _gives_probabilities(model: keras.Model, x: np.ndarray) -> bool:
    outputs = np.asarray(keras.ops.convert_to_numpy(model(x[:8], training=False)))
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
    raise Refused(
        f"the model was compiled with the loss '{name}': compare trains classifiers with "
        "(sparse) categorical cross-entropy."
    )


def _cross_entropy(outputs: np.ndarray, labels: np.ndarray) -> float:
    if (outputs >= 0).all() and np.allclose(outputs.sum(-1), 1.0, atol=1e-3):
        logs = np.log(np.maximum(outputs, 1e-12))
    else:
        shifted = outputs - outputs.max(-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return float(-logs[np.arange(len(labels)), labels].mean())


def _key_dropout(model: keras.Model, seed: int) -> None:
    """Give every random layer its own stream, named by the layer: equal in arms that share it."""
    for layer in model._flatten_layers(include_self=False):
        source = getattr(layer, "seed_generator", None)
        if source is not None:
            value = derive(seed, "dropout", layer.name) % 2**31
            source.state.assign(np.asarray([value, 0], source.state.dtype))


def reestimate(model: keras.Model, x: np.ndarray) -> None:
    """Replace every batch norm's moving statistics by averages over `x`; dropout is off for it."""
    layers = list(model._flatten_layers(include_self=False))
    norms = [la for la in layers if isinstance(la, keras.layers.BatchNormalization) and la.trainable]
    if not norms:
        return
    size = min(_SCORE_BATCH, len(x))
    with _changed(norms, "momentum"), _changed(_dropouts(layers), "rate", 0.0):
        for count, start in enumerate(range(0, len(x) - size + 1, size)):
            for norm in norms:
                norm.momentum = count / (count + 1)
            _forward(model, x[start : start + size])


def _forward(model: keras.Model, x: np.ndarray) -> None:
    if keras.config.backend() == "torch":
        import torch

        with torch.no_grad():
            model(x, training=True)
    else:
        model(x, training=True)


def _dropouts(layers: list[Any]) -> list[Any]:
    return [la for la in layers if isinstance(la, keras.layers.Dropout)]


@contextmanager
def _changed(layers: list[Any], attribute: str, value: float | None = None) -> Iterator[None]:
    """Let the layers' attribute be changed, and put it back afterwards."""
    kept = [getattr(layer, attribute) for layer in layers]
    try:
        for layer in layers if value is not None else []:
            setattr(layer, attribute, value)
        yield
    finally:
        for layer, own in zip(layers, kept, strict=True):
            setattr(layer, attribute, own)
