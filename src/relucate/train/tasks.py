"""The built-in tasks besides classification, the registry of all, and the choice of one.

Not here: classification and what a task has to define (`task`), how metrics are computed
(`scores`).
"""

from __future__ import annotations

from typing import Self

import numpy as np

from ..errors import InputError, Refused, unknown
from .metric import METRICS
from .recipe import Recipe
from .scores import negative_logs
from .task import CLASSIFICATION, Classification, Task

_CHUNK = 1 << 20  # pixels whose logarithms are computed at a time, to limit the memory


class Multilabel(Task):
    """Any number of labels per example: binary cross-entropy, scored by mean average precision.

    Labels are (n, k) of 0 and 1; outputs are (batch, k) logits (Keras: or probabilities).
    """

    name = "multilabel"
    labels = "marks"
    metrics = ("mean average precision", "micro F1")
    metric = METRICS[metrics[0]]
    training_loss = "binary cross-entropy"

    def check_outputs(self, shape: object, classes: int, label_shape: tuple[int, ...] = ()) -> None:
        """Refuse outputs that aren't one logit or probability per label."""
        if not isinstance(shape, tuple) or shape[1:] != (classes,):
            raise Refused(
                f"the model's output is of shape {shape}; expected (batch, {classes}): one logit "
                "(Keras: or probability) per label."
            )

    def final(self, width: int | None) -> frozenset[str]:
        """Return sigmoid."""
        return frozenset({"sigmoid"})

    def encoded(self, labels: np.ndarray) -> np.ndarray:
        """Return the labels as float32."""
        return np.asarray(labels, np.float32)

    def loss(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Return the mean binary cross-entropy of logits (n, k), in nats.

        >>> round(TASKS["multilabel"].loss(np.zeros((1, 2)), np.array([[0, 1]])), 4)  # ln 2
        0.6931
        """
        logits = np.asarray(outputs, np.float64)
        return float((np.logaddexp(0, logits) - logits * labels).mean())

    def is_constant(self, outputs: np.ndarray) -> bool:
        """Return whether all examples get the same labels; for ranks, the same outputs."""
        decided = outputs > 0 if self.metric.name == "micro F1" else outputs
        return bool((decided == decided[0]).all())

    def constant(self, labels: np.ndarray, classes: int) -> np.ndarray:
        """Return the log odds of each label, (k,)."""
        share = (labels.sum(axis=0, dtype=np.float64) + 0.5) / (len(labels) + 1)
        return np.log(share / (1 - share))


class Regression(Task):
    """Numbers, one or several per example: scored by the mean absolute error.

    Targets and outputs are (n, k). Training standardises each target with mean and standard
    deviation of the training part, and the loss is in these units; scores are in the target's own.
    """

    name = "regression"
    labels = "targets"
    metrics = ("MAE", "RMSE", "R2")
    metric = METRICS[metrics[0]]
    training_loss = "mse"
    losses = ("mse", "huber", "l1")
    mean: np.ndarray | float = 0.0  # of each target in the training part, (k,)
    deviation: np.ndarray | float = 1.0

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuse label smoothing, too: targets have no classes."""
        super().check_recipe(recipe)
        if recipe.label_smoothing:
            raise InputError("label_smoothing is for classes, and regression has none.")

    def prepared(self, labels: np.ndarray, recipe: Recipe, shape: tuple[int, ...]) -> Self:
        """Return the task with the training targets' mean and deviation."""
        task = super().prepared(labels, recipe, shape)
        deviation = labels.std(axis=0, dtype=np.float64)
        task.mean = labels.mean(axis=0, dtype=np.float64)
        task.deviation = np.where(deviation > 0, deviation, 1.0)
        return task

    def check_outputs(self, shape: object, classes: int, label_shape: tuple[int, ...] = ()) -> None:
        """Refuse outputs that aren't one number per target."""
        single = classes == 1 and isinstance(shape, tuple) and len(shape) == 1
        if not single and (not isinstance(shape, tuple) or shape[1:] != (classes,)):
            raise Refused(
                f"the model's output is of shape {shape}; expected (batch, {classes}): one number "
                "per target, without an activation that limits it."
            )

    def encoded(self, labels: np.ndarray) -> np.ndarray:
        """Return the targets standardised, (n, k) float32."""
        return ((labels - self.mean) / self.deviation).astype(np.float32)

    def decoded(self, outputs: np.ndarray) -> np.ndarray:
        """Return outputs in the targets' own units, (n, k) float64."""
        outputs = np.asarray(outputs, np.float64).reshape(len(outputs), -1)
        return outputs * self.deviation + self.mean

    def loss(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Return the mean training loss, in standardised units.

        mse: e²; l1: |e|; huber: e²/2 for |e| ≤ 1, else |e| - 1/2.

        >>> TASKS["regression"].loss(np.array([[1.0], [4.0]]), np.array([[0.0], [1.0]]))
        5.0
        """
        error = np.abs((outputs - labels) / self.deviation)
        each = {
            "mse": np.square(error),
            "l1": error,
            "huber": np.where(error <= 1, np.square(error) / 2, error - 0.5),
        }
        return float(self.loss_among(each).mean())

    def is_constant(self, outputs: np.ndarray) -> bool:
        """Return whether outputs vary by less than a thousandth of the targets' deviation."""
        return bool((np.ptp(outputs, axis=0) <= 1e-3 * np.asarray(self.deviation)).all())

    def constant(self, labels: np.ndarray, classes: int) -> np.ndarray:
        """Return the median of each target for MAE, else its mean, (k,)."""
        center = np.median if self.metric.name == "MAE" else np.mean
        return center(labels, axis=0)


class Segmentation(Classification):
    """One class per pixel: cross-entropy, scored by the mean intersection over union.

    Masks are (n, height, width); outputs (n, height, width, classes), or in PyTorch
    (n, classes, height, width). Those of volumes have a depth before the height. For two classes
    one output per pixel is enough.
    """

    name = "segmentation"
    labels = "masks"
    metrics = ("mean IoU", "pixel accuracy")
    metric = METRICS[metrics[0]]

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuse augmentation, too: it changes the images, not the masks."""
        super().check_recipe(recipe)
        if recipe.augment:
            raise InputError(
                f"augment {', '.join(recipe.augment)} would change the images but not the masks: "
                "leave it out, or train with your own function (run=)."
            )

    def check_outputs(self, shape: object, classes: int, label_shape: tuple[int, ...] = ()) -> None:
        """Refuse outputs that aren't one logit or probability per class and pixel."""
        if not isinstance(shape, tuple) or class_axis(shape, classes, label_shape) is None:
            size = " × ".join(map(str, label_shape))
            raise Refused(
                f"the model's output is of shape {shape}; expected {classes} outputs (or one, for "
                f"two classes) for each of the {size} pixels of a mask."
            )

    def encoded(self, labels: np.ndarray) -> np.ndarray:
        """Return the masks as they are: an engine widens the small integers of a batch."""
        return labels

    def loss(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Return the mean cross-entropy of all pixels in nats."""
        flat, codes = outputs.reshape(-1, outputs.shape[-1]), labels.ravel()
        starts = range(0, len(codes), _CHUNK)
        parts = [(flat[at : at + _CHUNK], codes[at : at + _CHUNK]) for at in starts]
        return float(sum(negative_logs(*part).sum() for part in parts) / len(codes))

    def constant(self, labels: np.ndarray, classes: int) -> np.ndarray | None:
        """Return None: both metrics have bounds, and outputs of all pixels are large."""
        return Task.constant(self, labels, classes)


def class_axis(
    shape: tuple[int | None, ...],
    classes: int,
    label_shape: tuple[int, ...],
    channels_first: bool = False,
) -> int | None:
    """Return the axis of the classes in outputs for masks: 1, -1, or None if neither fits.

    Args: shape: of the outputs, with the batch axis, None for unknown sizes; label_shape: of a
        mask; channels_first: taken if both fit.

    >>> class_axis((8, 3, 16, 16), 3, (16, 16)), class_axis((8, 3, 3, 3), 3, (3, 3))
    (1, -1)
    """
    widths = (classes, 1) if classes == 2 else (classes,)
    wanted = {
        axis: [(w, *label_shape) if axis == 1 else (*label_shape, w) for w in widths]
        for axis in ((1, -1) if channels_first else (-1, 1))
    }
    own = tuple(shape[1:])
    for axis, shapes in wanted.items():
        if any(_fits(own, expected) for expected in shapes):
            return axis
    return None


def _fits(own: tuple[int | None, ...], expected: tuple[int, ...]) -> bool:
    pairs = zip(own, expected, strict=False)
    return len(own) == len(expected) and all(size in (None, want) for size, want in pairs)


TASKS: dict[str, Task] = {
    task.name: task for task in (CLASSIFICATION, Multilabel(), Regression(), Segmentation())
}


def task_for(task: Task | str | None, labels: str, metric: str | None = None) -> Task:
    """Return the task that is asked for, or else the one that takes such labels.

    Args: task: one of `TASKS` by name, or the user's own; labels: kind of the data's labels;
        metric: what to score by, in any spelling; None: the task's usual metric.
    Raises: InputError: an unknown task or metric, labels or a metric that don't fit the task.

    >>> task_for(None, "targets", "rmse").metric.name
    'RMSE'
    """
    found = next(t for t in TASKS.values() if t.labels == labels) if task is None else task
    if isinstance(found, str):
        if found not in TASKS:
            raise unknown("task", found, TASKS)
        found = TASKS[found]
    if not isinstance(found, Task):
        raise InputError(
            f"task must be a name ({', '.join(TASKS)}) or an instance of a subclass of "
            f"relucate.train.Task, got {found!r:.80}."
        )
    if found.labels != labels:
        raise InputError(
            f"the data's labels are {labels}, but the task {found.name} takes {found.labels}: give "
            "the arrays themselves with this task, or leave the task out."
        )
    return found if metric is None else found.scored_by(metric)
