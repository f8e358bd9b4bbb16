"""The task of a run: its loss, its metrics, which outputs fit, and how they are scored.

`Task` is what engines and the loop need; CLASSIFICATION is single-label classification, and the
other built-in tasks are in `tasks`. Pure NumPy: the engines train with their own implementation of
`training_loss`, and their outputs are scored here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Self, TypeVar

import numpy as np

from ..errors import InputError, Refused, unknown
from .metric import ACCURACY, METRICS, Metric, same_name
from .recipe import Recipe
from .scores import EACH, SCORES, are_probabilities, negative_logs

__all__ = ["CLASSIFICATION", "Classification", "Task", "are_probabilities"]

_Loss = TypeVar("_Loss")


class Task:
    """What the training loop and the engines need from a task. Subclass it for another task.

    Attributes:
        name: of the task.
        labels: which labels it takes, a kind in `data.labels.KINDS`.
        metric: the name, direction, unit, scale and worst value of what `score` returns.
        metrics: names in `METRICS` that it can be scored by; the first is the usual one.
        training_loss: name of the training loss, which each engine implements.
        losses: names of the losses that a recipe may choose instead.
        weights: of the classes in the training loss, (classes,), None: all are 1.
    """

    name: str
    labels: str = "classes"
    metric: Metric
    metrics: tuple[str, ...] = ()
    training_loss: str
    losses: tuple[str, ...] = ()
    weights: np.ndarray | None = None

    @property
    def is_usual(self) -> bool:
        """Whether it is classification by accuracy, which the identity of a run doesn't name."""
        return type(self) is Classification and self.metric == ACCURACY

    @property
    def _is_known(self) -> bool:
        """Whether the metric is one that is computed here, not a subclass's own."""
        return bool(self.metrics) and self.metric.name in self.metrics

    def scored_by(self, metric: str) -> Self:
        """Return the task with another metric, named in any spelling or by its last word.

        Raises: InputError: an unknown metric, or one that doesn't fit the task.

        >>> CLASSIFICATION.scored_by("auc").metric.name
        'ROC AUC'
        """
        found = [name for name in self.metrics if same_name(name, metric)]
        found = found or [name for name in self.metrics if _short(name, metric)]
        if len(found) == 1:
            other = copy.copy(self)
            other.metric = METRICS[found[0]]
            return other
        fitting = f"{self.name} is scored by {', '.join(self.metrics or [self.metric.name])}"
        if any(same_name(name, metric) for name in METRICS):
            raise InputError(f"'{metric}' doesn't fit the task: {fitting}.")
        raise unknown("metric", metric, self.metrics or [self.metric.name])

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuse a recipe with options that don't fit the task."""
        if recipe.loss not in (None, self.training_loss, *self.losses):
            fitting = ", ".join(self.losses or [self.training_loss])
            raise InputError(
                f"loss '{recipe.loss}' doesn't fit {self.name}: choose from {fitting}."
            )
        if recipe.class_weight != "none" and self.labels not in ("classes", "masks"):
            raise InputError(
                f"class_weight is for classes, and {self.name} has none: leave it out."
            )

    def prepared(self, labels: np.ndarray, recipe: Recipe, shape: tuple[int, ...]) -> Self:
        """Return the task with what it takes from the training labels, for one run.

        Args: labels: of the training part; shape: of the outputs for a batch.
        Raises: InputError: as `check_recipe`.
        """
        self.check_recipe(recipe)
        task = copy.copy(self)
        if recipe.loss is not None:
            task.training_loss = recipe.loss
        return task

    def check_outputs(self, shape: object, classes: int, label_shape: tuple[int, ...] = ()) -> None:
        """Refuse a model whose outputs have a `shape` that doesn't fit the task.

        Args: classes: number of classes, labels or targets; label_shape: of one example's label.
        """
        raise NotImplementedError

    def final(self, width: int | None) -> frozenset[str]:
        """Return the operations at a network's end that the training loss already includes.

        Args: width: number of outputs of an example (of a pixel).
        """
        return frozenset()

    def loss_among(self, losses: Mapping[str, _Loss]) -> _Loss:
        """Return an engine's implementation of the training loss.

        Raises: InputError: the engine doesn't have it.
        """
        if self.training_loss not in losses:
            raise unknown("training loss", self.training_loss, losses)
        return losses[self.training_loss]

    def encoded(self, labels: np.ndarray) -> np.ndarray:
        """Return labels as the training loss takes them: integers as int64, others as float32."""
        return np.asarray(labels, np.float32 if labels.dtype.kind == "f" else np.int64)

    def decoded(self, outputs: np.ndarray) -> np.ndarray:
        """Return outputs (n, ..., classes) as `score` and `loss` take them."""
        return outputs

    def loss(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Return the mean loss without smoothing and class weights, computed in float64."""
        raise NotImplementedError

    def per_example(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
        """Return one value per example, (n,) bool or float, or None if the metric has none."""
        each = EACH.get(self.metric.name) if self._is_known else None
        return None if each is None else each(outputs, labels)

    def score(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Return the metric on all examples; NaN if an output isn't finite.

        It is the mean of `per_example`, where the metric has that.
        """
        values = self.per_example(outputs, labels)
        if values is not None:
            return float(values.mean(dtype=np.float64))
        if not self._is_known:
            raise NotImplementedError(f"{type(self).__name__} must define score.")
        finite = np.isfinite(outputs).all()
        return SCORES[self.metric.name](outputs, labels) if finite else float("nan")

    def better(self, a: float, b: float) -> bool:
        """Return whether score `a` is better than `b`; False for a tie."""
        return a < b if self.metric.lower_is_better else a > b

    def is_constant(self, outputs: np.ndarray) -> bool:
        """Return whether all examples get the same prediction, as far as the metric sees it."""
        return False

    def constant(self, labels: np.ndarray, classes: int) -> np.ndarray | None:
        """Return the best constant output for training labels, None if there is none to compute."""
        return None

    def metric_on(self, train: np.ndarray, test: np.ndarray, classes: int) -> Metric:
        """Return the metric for these labels, with the worst score that a diverged run counts with.

        A metric without a bound takes the score of the best constant prediction: a diverged run
        has learnt nothing.
        Raises: InputError: the metric is undefined on the test part.
        """
        constant = self.constant(train, classes) if self._is_known else None
        if constant is None:
            return self.metric
        score = self.score(np.broadcast_to(constant, (len(test), *constant.shape)), test)
        if not np.isfinite(score):
            raise InputError(
                f"{self.metric.name} is undefined on the test part, where all labels are the same: "
                "take other test examples or another metric."
            )
        return self.metric if self.metric.worst is not None else replace(self.metric, worst=score)


def _short(name: str, given: str) -> bool:
    """Return whether `given` is the end of a metric's name, or its words' first letters."""
    words = name.split()
    ends = [" ".join(words[place:]) for place in range(1, len(words))]
    return any(same_name(text, given) for text in [*ends, "".join(word[0] for word in words)])


class Classification(Task):
    """One label out of several classes: softmax cross-entropy, scored by accuracy.

    Outputs are (batch, classes) logits, or probabilities if an engine can train with them. For two
    classes one output is enough, the logit (or probability) of the second: binary cross-entropy.
    """

    name = "classification"
    metric = ACCURACY
    metrics: tuple[str, ...] = (
        "accuracy", "balanced accuracy", "macro F1", "ROC AUC", "log loss", "top-5 accuracy",
    )  # fmt: skip
    training_loss = "cross-entropy"

    def check_outputs(self, shape: object, classes: int, label_shape: tuple[int, ...] = ()) -> None:
        """Refuse outputs that aren't one logit or probability per class."""
        single = classes == 2 and isinstance(shape, tuple) and shape[1:] in ((), (1,))
        if not single and (not isinstance(shape, tuple) or shape[1:] != (classes,)):
            one = " (or one, of the second class)" if classes == 2 else ""
            raise Refused(
                f"the model's output is of shape {shape}; expected (batch, {classes}): one logit "
                f"(Keras: or probability) per class{one}."
            )

    def prepared(self, labels: np.ndarray, recipe: Recipe, shape: tuple[int, ...]) -> Self:
        """Return the task with its class weights, and binary if the model has one output."""
        task = super().prepared(labels, recipe, shape)
        if _is_single(shape, labels):
            task.training_loss = "binary cross-entropy"
        task.weights = class_weights(recipe.class_weight, labels)
        return task

    def final(self, width: int | None) -> frozenset[str]:
        """Return softmax, or sigmoid for a single output."""
        return frozenset({"sigmoid"} if width == 1 else {"softmax", "log_softmax"})

    def decoded(self, outputs: np.ndarray) -> np.ndarray:
        """Return outputs for two classes where there is one: a logit z becomes (-z/2, z/2).

        The softmax of the two is (1 - sigmoid(z), sigmoid(z)).
        """
        if self.training_loss != "binary cross-entropy":
            return outputs
        half = np.asarray(outputs, np.float64) / 2
        half = half[..., 0] if half.shape[-1:] == (1,) and half.ndim > 1 else half
        return np.stack([-half, half], axis=-1)

    def loss(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Return the mean cross-entropy of logits or probabilities (n, classes) in nats.

        >>> round(CLASSIFICATION.loss(np.array([[0.25, 0.75]]), np.array([1])), 4)  # -ln 0.75
        0.2877
        """
        return float(negative_logs(outputs, labels).mean())

    def per_example(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
        """Return which examples were right (bool), or another metric's value of each."""
        if self._is_known:
            return super().per_example(outputs, labels)
        return EACH["accuracy"](outputs, labels)

    def is_constant(self, outputs: np.ndarray) -> bool:
        """Return whether every example gets the same class; for ranks, the same outputs."""
        if self.metric.name in ("ROC AUC", "log loss"):
            return bool((np.ptp(outputs, axis=0) == 0).all())
        decided = outputs.argmax(-1)
        return bool((decided == decided.flat[0]).all())

    def constant(self, labels: np.ndarray, classes: int) -> np.ndarray | None:
        """Return the logarithms of the classes' shares, (classes,)."""
        counts = np.bincount(labels.ravel(), minlength=classes)
        return np.log(np.maximum(counts, 0.5) / counts.sum())


def _is_single(shape: tuple[int, ...], labels: np.ndarray) -> bool:
    """Return whether outputs of this shape hold one number for each label."""
    return int(np.prod(shape[1:])) == int(np.prod(labels.shape[1:]))


def class_weights(given: str, labels: np.ndarray) -> np.ndarray | None:
    """Return the weight of each class in the training loss, (classes,) float32, or None.

    Args: given: a recipe's class_weight; labels: training labels, class codes.
    "balanced" gives n / (k · n_c), so that all classes weigh the same and the mean weight is 1.
    Raises: InputError: another number of weights than classes.

    >>> class_weights("balanced", np.array([0, 0, 0, 1])).tolist()
    [0.6666666865348816, 2.0]
    """
    if given == "none":
        return None
    counts = np.bincount(labels.ravel().astype(np.int64))
    if given == "balanced":
        return (counts.sum() / (len(counts) * np.maximum(counts, 1))).astype(np.float32)
    weights = np.array([float(text) for text in given.split(",")], np.float32)
    if len(weights) != len(counts):
        raise InputError(
            f"class_weight has {len(weights)} numbers for {len(counts)} classes: give one for each."
        )
    return weights


CLASSIFICATION = Classification()
