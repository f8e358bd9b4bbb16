"""The task of a run: its loss, its metric, which outputs fit, and how they are scored.

Each task is a class; CLASSIFICATION is single-label classification. Pure NumPy: the engines train
with their own implementation of `training_loss`, and their outputs are scored here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from ..errors import Refused, unknown
from .metric import ACCURACY, Metric

_Loss = TypeVar("_Loss")


class Task:
    """What the training loop and the engines need from a task. Subclass it for another task.

    Attributes:
        name: of the task.
        metric: the name, direction, unit, scale and worst value of what `score` returns.
        training_loss: name of the training loss, which each engine implements.
    """

    name: str
    metric: Metric
    training_loss: str

    def check_outputs(self, shape: object, classes: int) -> None:
        """Refuse a model whose outputs have a `shape` that doesn't fit the task."""
        raise NotImplementedError

    def loss_among(self, losses: Mapping[str, _Loss]) -> _Loss:
        """Return an engine's implementation of the training loss.

        Raises: InputError: the engine doesn't have it.
        """
        if self.training_loss not in losses:
            raise unknown("training loss", self.training_loss, losses)
        return losses[self.training_loss]

    def loss(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Return the mean loss without label smoothing, computed in float64."""
        raise NotImplementedError

    def per_example(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
        """Return one value per example, (n,) bool or float32, or None if the task has none."""
        return None

    def score(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Return the metric on all examples, by default the mean of `per_example`."""
        values = self.per_example(outputs, labels)
        if values is None:
            raise NotImplementedError(f"{type(self).__name__} must define score.")
        return float(values.mean(dtype=np.float64))

    def better(self, a: float, b: float) -> bool:
        """Return whether score `a` is better than `b`; False for a tie."""
        return a < b if self.metric.lower_is_better else a > b


class Classification(Task):
    """One label out of several classes: softmax cross-entropy, scored by accuracy.

    Outputs are (batch, classes) logits, or probabilities if an engine can train with them.
    """

    name = "classification"
    metric = ACCURACY
    training_loss = "cross-entropy"

    def check_outputs(self, shape: object, classes: int) -> None:
        """Refuse outputs that aren't one logit or probability per class."""
        if not isinstance(shape, tuple) or shape[1:] != (classes,):
            raise Refused(
                f"the model's output is of shape {shape}; expected (batch, {classes}): one logit "
                "(Keras: or probability) per class."
            )

    def loss(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Return the mean cross-entropy of logits or probabilities (n, classes) in nats.

        >>> round(CLASSIFICATION.loss(np.array([[0.25, 0.75]]), np.array([1])), 4)  # -ln 0.75
        0.2877
        """
        outputs = np.asarray(outputs, np.float64)
        if are_probabilities(outputs):
            logs = np.log(np.maximum(outputs, 1e-12))
        else:
            shifted = outputs - outputs.max(-1, keepdims=True)
            logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        return float(-logs[np.arange(len(labels)), labels].mean())

    def per_example(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return which examples were classified correctly, (n,) bool."""
        return outputs.argmax(1) == labels


def are_probabilities(outputs: np.ndarray) -> bool:
    """Return whether each row of outputs (n, classes) is non-negative and sums to 1."""
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(-1), 1.0, atol=1e-3))


CLASSIFICATION = Classification()
