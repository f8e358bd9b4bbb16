"""A task's losses in Keras, and what a model's outputs and its own compiled loss are.

Called by `trainer`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from ..errors import Refused
from ..train.recipe import Recipe
from ..train.scores import are_probabilities
from ..train.task import Task
from ..train.tasks import class_axis


def classes_on(outputs: np.ndarray, classes: int, label_shape: tuple[int, ...]) -> int:
    """Return the axis of the classes in outputs for masks, -1 for other labels."""
    if len(label_shape) < 2:
        return -1
    first = keras.config.image_data_format() == "channels_first"
    return class_axis(outputs.shape, classes, label_shape, first) or -1


def gives_probabilities(model: keras.Model, outputs: np.ndarray, task: Task) -> bool:
    """Return whether a model's outputs are probabilities, not logits.

    Rows that sum to 1 are. Single ones have no sum: a functional model says by its last operation.
    Args: outputs: for a few examples, classes last.
    Raises: Refused: a subclassed model whose single outputs could be either.
    """
    if task.training_loss == "cross-entropy":
        return are_probabilities(outputs)
    if task.training_loss != "binary cross-entropy":
        return False
    last = _last_activation(model)
    if last is not None:
        return last == "sigmoid"
    if ((outputs < 0) | (outputs > 1)).any():
        return False
    raise Refused(
        "the model's outputs are between 0 and 1, and a subclassed model doesn't show whether they "
        "are probabilities: build it with keras.Input and keras.Model, or leave the sigmoid out."
    )


def _last_activation(model: keras.Model) -> str | None:
    """Return the name of the activation that a functional model ends with, None if subclassed."""
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        return None
    step: Any = model.outputs[0]._keras_history.operation
    if isinstance(step, keras.Model):
        return _last_activation(step)
    activation = getattr(step, "activation", None)
    name = getattr(activation, "__name__", None) or type(step).__name__
    return name.lower()


def _cross_entropy(recipe: Recipe, *, logits: bool, axis: int, masks: bool) -> keras.losses.Loss:
    # PyTorch has no gradient of Keras's sparse loss for probabilities of pixels in this layout.
    if not recipe.label_smoothing and (logits or not masks):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=logits, axis=axis)
    return keras.losses.CategoricalCrossentropy(
        from_logits=logits, label_smoothing=recipe.label_smoothing, axis=axis
    )


def _binary(recipe: Recipe, *, logits: bool, axis: int, masks: bool) -> keras.losses.Loss:
    return keras.losses.BinaryCrossentropy(
        from_logits=logits, label_smoothing=recipe.label_smoothing, axis=axis
    )


LOSSES: dict[str, Callable[..., keras.losses.Loss]] = {  # by the name that a task gives
    "cross-entropy": _cross_entropy,
    "binary cross-entropy": _binary,
    "mse": lambda recipe, **_: keras.losses.MeanSquaredError(),
    "huber": lambda recipe, **_: keras.losses.Huber(delta=1.0),
    "l1": lambda recipe, **_: keras.losses.MeanAbsoluteError(),
}


def wants_one_hot(model: keras.Model, task: Task) -> bool:
    """Return whether the compiled loss takes one-hot labels; one that doesn't fit is refused."""
    loss: Any = model.loss
    name = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", ""))
    name = str(name).lower()
    if "sparse_categorical" in name or "sparsecategorical" in name:
        return False
    if "categorical" in name and task.labels in ("classes", "masks"):
        return True
    binary = "binary" in name
    if task.labels == "targets" and loss is not None and "crossentropy" not in name:
        return False
    if binary and task.labels != "targets" and task.final(_width(model)) == {"sigmoid"}:
        return False
    words = f"with the loss '{name}'" if loss is not None else "without a loss"
    fitting = {
        "classes": "classifiers with (sparse) categorical cross-entropy, or binary cross-entropy "
        "for one output",
        "masks": "such models with (sparse) categorical cross-entropy, or binary cross-entropy for "
        "one output",
        "marks": "such models with binary cross-entropy",
        "targets": "such models with a loss for numbers, such as mse",
    }
    raise Refused(
        f"the model was compiled {words}: compare trains {fitting[task.labels]}. For any other "
        "loss, train with your own function: compare(run=...)."
    )


def _width(model: keras.Model) -> int | None:
    shape = getattr(model, "output_shape", None) if getattr(model, "inputs", None) else None
    return shape[-1] if isinstance(shape, tuple) else None
