"""The keras engine: train a Keras model through `fit` on the configured backend.

A model that is already compiled keeps its own optimizer, loss and learning rate. Any other is
compiled from the recipe, with the same schedule, data order and decay rule as the torch engine.
Not here: choosing the engine, lowering.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from ..data.dataset import Dataset, labels_of
from ..errors import InputError, Refused
from ..train.augment import CROP, Decisions, decisions
from ..train.decay import decays
from ..train.looking import Look
from ..train.loop import run
from ..train.recipe import Recipe
from ..train.run import OnEpoch, RunResult
from ..train.schedule import learning_rates
from ..train.scores import logits_of
from ..train.standard import Standard
from ..train.streams import derive, dropout_key, epoch_order
from ..train.task import CLASSIFICATION, Task
from ..train.waiting import Ready, finish
from .losses import LOSSES, classes_on, gives_probabilities, wants_one_hot
from .reading.norm_layers import NORM_LAYERS
from .running import kept_draws
from .statistics import SCORE_BATCH, forward, random_source, reestimate

_QUIET: Any = 0


def train(
    model: keras.Model,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    on_epoch: OnEpoch = lambda report: None,
    task: Task = CLASSIFICATION,
    look: Look | None = None,
) -> RunResult:
    """Train `model` in place through `fit` and score it on the test part.

    As `relucate.torch.train`: the score is that of all test examples after the last epoch,
    batch-norm statistics are re-estimated before each evaluation, and a loss that isn't finite ends
    the run as `diverged`.
    Raises: InputError: the recipe or the model's input doesn't fit the data, or bf16 (the model's
    own dtype policy decides the precision). Refused: outputs or a compiled loss that don't fit the
    task.
    """
    recipe.check_fits(len(data.y_train), data.input_shape)
    check_recipe(recipe)
    data, held = data.held_out(recipe.validation)
    engine = _Engine(model, data, held, recipe, seed, task)
    training = run(
        engine,
        recipe,
        labels_of(data, held),
        trained=len(data.y_train),
        seed=seed,
        on_epoch=on_epoch,
        task=engine.task,
        look=look,
    )
    return finish(training)


def check_recipe(recipe: Recipe) -> None:
    """Refuse another precision than fp32.

    Raises: InputError.
    """
    if recipe.precision != "fp32":
        raise InputError(
            f"precision {recipe.precision} needs the torch engine. Engine 'keras' computes in the "
            "model's own dtype policy: leave the precision at fp32, or set the policy in the "
            "builder."
        )


class _Engine:
    """One model and its arrays, as the training loop uses them."""

    def __init__(
        self,
        model: keras.Model,
        data: Dataset,
        held: Dataset | None,
        recipe: Recipe,
        seed: int,
        task: Task,
    ) -> None:
        self.model, self.unbiased = model, recipe.unbiased
        label_shape = data.y_train.shape[1:]
        check_model(model, data.input_shape, data.classes, task, label_shape)
        if embeds_its_input(model) and data.x_train.dtype != np.int64:
            raise InputError(
                "the model starts with an Embedding, but the data aren't tokens: give integers "
                "of at least 0, x.astype(int)."
            )
        self.x, x_test = _prepared(model, data, recipe.standardize)
        self.parts = {"test": x_test}
        if held is not None:
            self.parts["held"] = _prepared(model, held, recipe.standardize)[1]
        outputs = forward(model, self.x[:8], training=False)  # builds a subclassed model too
        task.check_outputs(outputs.shape, data.classes, label_shape)
        self.axis = classes_on(outputs, data.classes, label_shape)
        self.task = task.prepared(data.y_train, recipe, outputs.shape)
        self.probable = gives_probabilities(model, np.moveaxis(outputs, self.axis, -1), self.task)
        encoded = np.array(self.task.encoded(data.y_train))
        self.batches = _Batches(self.x, encoded, recipe, seed)
        self.batches.channels_first = takes_channels_first(model, data.input_shape)
        if not getattr(model, "compiled", False):
            make = self.task.loss_among(LOSSES)
            masks = len(label_shape) > 1
            loss = make(recipe, logits=not self.probable, axis=self.axis, masks=masks)
            _compile(model, recipe, len(self.batches), loss)
        self.batches.weights = self.task.weights
        self.batches.shape, self.batches.axis = outputs.shape[1:], self.axis
        self.batches.one_hot = data.classes if wants_one_hot(model, self.task) else 0
        _key_dropout(model, seed)

    def epoch(self, number: int) -> Generator[Ready, None, float]:
        """Train one epoch; return its mean loss."""
        yield from ()  # Keras waits for its device itself
        self.batches.begin(number)
        history = self.model.fit(
            self.batches, initial_epoch=number, epochs=number + 1, verbose=_QUIET, shuffle=False
        )
        if "loss" not in history.history:
            raise Refused(
                f"the model's own train_step returns {', '.join(history.history) or 'nothing'}, "
                "not 'loss', so this engine can't follow it: give the training function itself, "
                "compare(run=...) or --run."
            )
        return float(history.history["loss"][0])

    def reestimate(self, sample: np.ndarray) -> None:
        """Average the norms' statistics over full batches of the training examples at `sample`."""
        reestimate(self.model, self.x[sample], unbiased=self.unbiased)

    def outputs(self, part: str, index: np.ndarray | None) -> np.ndarray:
        """Return the model's outputs on a part, (n, ..., classes) float64."""
        x = self.parts[part] if index is None else self.parts[part][index]
        found = self.model.predict(x, batch_size=SCORE_BATCH, verbose=_QUIET)
        found = np.moveaxis(np.asarray(found, np.float64), self.axis, -1)
        binary = self.task.training_loss == "binary cross-entropy"
        return logits_of(found) if self.probable and binary else found

    def counts(self) -> dict[str, int]:
        """Return the numbers of trainable scalars, of all layers and of the norms."""
        return count_parameters(self.model)

    def inputs(self, index: np.ndarray) -> np.ndarray:
        """Return test examples as the model takes them."""
        return self.parts["test"][index]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Restore afterwards everything that training reads: variables and random states."""
        kept = [(v, np.array(keras.ops.convert_to_numpy(v.value))) for v in self.model.variables]
        with kept_draws():
            try:
                yield
            finally:
                for variable, value in kept:
                    variable.assign(value)


class _Batches(keras.utils.PyDataset):
    """An epoch's full batches in the seed's order, augmented.

    one_hot: number of classes if labels are given so; axis: that of the classes in the outputs;
    shape: of one example's outputs; weights: of the classes.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, recipe: Recipe, seed: int) -> None:
        super().__init__(workers=1)
        self.x, self.y, self.recipe, self.seed = x, y, recipe, seed
        self.one_hot, self.channels_first = 0, False
        self.axis: int = -1
        self.shape: tuple[int, ...] = ()
        self.weights: np.ndarray | None = None
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Draw an epoch's order and its augmentation."""
        size, names = self.recipe.batch_size, self.recipe.augment
        self.order = epoch_order(self.seed, epoch, len(self.y))
        self.decided = decisions(names, self.seed, epoch, len(self), size)

    def __len__(self) -> int:
        return len(self.y) // self.recipe.batch_size

    def __getitem__(self, step: int) -> tuple[np.ndarray, ...]:
        size = self.recipe.batch_size
        index = self.order[step * size : (step + 1) * size]
        x, y = self.x[index], self.y[index]
        if self.recipe.augment:
            x = np.moveaxis(x, 1, -1) if self.channels_first else x
            x = _augmented(x, self.decided, step)
            x = np.moveaxis(x, -1, 1) if self.channels_first else x
        if self.weights is None:
            return x, self._labels(y)
        return x, self._labels(y), self.weights[y]

    def _labels(self, y: np.ndarray) -> np.ndarray:
        """Return a batch's labels as the loss takes them."""
        if self.one_hot:
            return np.moveaxis(np.eye(self.one_hot, dtype=np.float32)[y], -1, self.axis)
        single = y[:1].size == math.prod(self.shape)  # one output per label: of the same shape
        return y.reshape(len(y), *self.shape).astype(np.float32) if single else y


def _augmented(x: np.ndarray, decided: Decisions, step: int) -> np.ndarray:
    """Flip and crop images (n, height, width, channels), flip volumes, as decided for this step."""
    if decided.flip is not None:
        flip = decided.flip[step].reshape(-1, *[1] * (x.ndim - 1))
        x = np.where(flip, np.flip(x, -2), x)
    if decided.shift is not None:
        padded = np.pad(x, [(0, 0), (CROP, CROP), (CROP, CROP), (0, 0)])
        shift = decided.shift[step][..., None]
        rows, columns = shift[0] + np.arange(x.shape[1]), shift[1] + np.arange(x.shape[2])
        x = padded[np.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return x


def _prepared(
    model: keras.Model, data: Dataset, standardize: bool
) -> tuple[np.ndarray, np.ndarray]:
    standard = Standard.of(data.x_train, standardize)
    parts = [standard(x) for x in (data.x_train, data.x_test)]
    if takes_channels_first(model, data.input_shape):
        parts = [np.moveaxis(x, -1, 1) for x in parts]
    return parts[0], parts[1]


def takes_channels_first(model: keras.Model, input_shape: tuple[int, ...]) -> bool:
    """Return whether the model takes images or volumes of this shape with channels first.

    Args: input_shape: of an example, channels last.

    Raises: InputError: it takes neither layout. Refused: several inputs.
    """
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) > 1:
        raise Refused(
            f"the model has {len(inputs)} inputs; compare trains models with one. Train it with "
            "your own function: compare(run=...), --run."
        )
    *places, channels = input_shape
    layered = len(places) > 1  # images and volumes
    first = layered and keras.config.image_data_format() == "channels_first"
    if not inputs:  # a subclassed model has no input shape
        return first
    moved = (channels, *places)
    layouts = [(False, input_shape)] + ([(True, moved)] if layered else [])
    expected = tuple(inputs[0].shape[1:])
    found = [layout for layout, shape in layouts if _takes(expected, shape)]
    if not found:
        raise InputError(
            f"the model takes examples of shape {expected}, but the data's have {input_shape}: "
            "build it with the input_shape that the builder is given."
        )
    return first if first in found else found[0]


def _takes(expected: tuple[int | None, ...], shape: tuple[int, ...]) -> bool:
    if len(expected) != len(shape):
        return False
    return all(want in (None, size) for want, size in zip(expected, shape, strict=True))


def check_model(
    model: keras.Model,
    input_shape: tuple[int, ...],
    classes: int,
    task: Task = CLASSIFICATION,
    label_shape: tuple[int, ...] = (),
) -> None:
    """Refuse a model that doesn't take this data or whose outputs don't fit the task.

    Raises: as `train`.
    """
    takes_channels_first(model, input_shape)
    outputs = getattr(model, "outputs", None) or []
    if len(outputs) > 1:
        raise Refused(
            f"the model has {len(outputs)} outputs; compare trains models with one. Train it with "
            "your own function, which returns the score that decides: compare(run=...), --run."
        )
    shape = getattr(model, "output_shape", None) if getattr(model, "inputs", None) else None
    if shape is not None:
        task.check_outputs(shape, classes, label_shape)
    if getattr(model, "compiled", False):
        wants_one_hot(model, task)


def embeds_its_input(model: keras.Model) -> bool:
    """Return whether an Embedding reads the input of a functional model."""
    given = {id(tensor) for tensor in getattr(model, "inputs", None) or ()}
    return any(
        id(tensor) in given
        for layer in model.layers
        if isinstance(layer, keras.layers.Embedding)
        for node in layer._inbound_nodes
        for tensor in node.input_tensors
    )


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

    Keras's own velocity includes the rate (v ← momentum · v - rate · g), which differs while the
    rate changes, and its own weight decay doesn't go through the velocity.
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


def _compile(model: keras.Model, recipe: Recipe, steps: int, loss: keras.losses.Loss) -> None:
    rates: Any = _Table(learning_rates(recipe, steps))
    decayed, plain = _split_decay(model, recipe.decay_all)
    if not decayed and not plain:
        raise Refused("the model has no trainable parameters.")
    if recipe.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(rates, weight_decay=recipe.weight_decay, epsilon=1e-8)
        optimizer.exclude_from_weight_decay(var_list=plain)
    else:
        optimizer = _SGD(rates, recipe.momentum, recipe.weight_decay, decayed)
    model.compile(optimizer=optimizer, loss=loss)


def _split_decay(model: keras.Model, decay_all: bool) -> tuple[list[Any], list[Any]]:
    """Return the trainable variables that decay and those that don't."""
    norm, trained = _norm_variables(model), model.trainable_weights
    exempt = {
        id(v) for v in trained if not decays(v.name, in_norm=id(v) in norm, decay_all=decay_all)
    }
    return [v for v in trained if id(v) not in exempt], [v for v in trained if id(v) in exempt]


def count_parameters(model: keras.Model) -> dict[str, int]:
    """Return the numbers of trainable scalars, of all layers and of the norms."""
    norm, trained = _norm_variables(model), model.trainable_weights
    return {
        "parameters": sum(math.prod(v.shape) for v in trained),
        "norm_parameters": sum(math.prod(v.shape) for v in trained if id(v) in norm),
    }


def _norm_variables(model: keras.Model) -> set[int]:
    """Return the ids of the variables of norm layers and their subclasses.

    SpectralNormalization isn't one: it reparametrises another layer's kernel.
    """
    layers = model._flatten_layers(include_self=False)
    norms = [layer for layer in layers if isinstance(layer, tuple(NORM_LAYERS))]
    return {id(v) for norm in norms for v in norm._trainable_variables}


def _key_dropout(model: keras.Model, seed: int) -> None:
    """Give every random layer a stream keyed by its name: arms that share the layer share it."""
    keras.utils.set_random_seed(derive(seed, "keras") % 2**32)  # for draws outside of layers
    for layer in model._flatten_layers(include_self=False):
        source = random_source(layer)
        if source is not None:
            value = dropout_key(seed, layer.name) % 2**31
            source.state.assign(np.asarray([value, 0], source.state.dtype))
            # On the torch backend, dropout uses the global random state if its generator has no
            # seed of its own.
            source._initial_seed = value
