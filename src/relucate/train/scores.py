"""How each metric is computed from outputs and labels, in float64 on the host.

Outputs are what `Task.decoded` gives: logits or probabilities with the classes on the last axis,
logits per label, or targets in their own unit. scikit-learn, imported when it is needed, computes
what isn't a plain mean. Not here: names, units and directions (`metric`), which task has which
metric (`task`, `tasks`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Score = Callable[[np.ndarray, np.ndarray], float]
Each = Callable[[np.ndarray, np.ndarray], np.ndarray]

_TOP = 5
_NONE: Any = 0  # the recall, precision or F1 of nothing


def are_probabilities(outputs: np.ndarray) -> bool:
    """Return whether each row of outputs (n, classes) is non-negative and sums to 1."""
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(-1), 1.0, atol=1e-3))


def log_probabilities(outputs: np.ndarray) -> np.ndarray:
    """Return the logarithms of the classes' probabilities, (..., classes) float64.

    Args: outputs: logits or probabilities, (..., classes).
    """
    outputs = np.asarray(outputs, np.float64)
    if are_probabilities(outputs):
        return np.log(np.maximum(outputs, 1e-12))
    shifted = outputs - outputs.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """Return log(p / (1 - p)), finite for p = 0 and p = 1.

    >>> logits_of(np.array([0.5, 1.0])).round(1).tolist()
    [0.0, 87.3]
    """
    p, least = np.asarray(probabilities, np.float64), np.finfo(np.float32).tiny
    return np.log(np.maximum(p, least)) - np.log(np.maximum(1 - p, least))


def negative_logs(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return -log of the probability of each example's class, in nats, (n,) float64."""
    return -log_probabilities(outputs)[np.arange(len(labels)), labels]


def among_the_top(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return whether each example's class is among the five highest, (n,) bool.

    An output that ties with others counts as below them, so that a constant output never scores.
    """
    own = outputs[np.arange(len(labels)), labels][:, None]
    return (outputs >= own).sum(1) <= _TOP


def balanced_accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean recall of the classes that occur in the labels."""
    from sklearn.metrics import recall_score

    present = np.unique(labels)
    found = recall_score(
        labels, outputs.argmax(-1), labels=present, average="macro", zero_division=_NONE
    )
    return float(found)


def macro_f1(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean F1 of the classes that occur in the labels or the predictions."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, outputs.argmax(-1), average="macro", zero_division=_NONE))


def roc_auc(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Return the area under the ROC curve: of class 1, or the mean of each class against the rest.

    Classes without an example, and the class of all examples, have no area; NaN if none has one.
    """
    from sklearn.metrics import roc_auc_score

    logs = log_probabilities(outputs)
    binary = outputs.shape[-1] == 2
    ranks = (logs[:, 1:] - logs[:, :1]) if binary else np.exp(logs)
    classes = range(1, 2) if binary else range(outputs.shape[-1])
    areas = [
        roc_auc_score(labels == code, column)
        for code, column in zip(classes, ranks.T, strict=True)
        if 0 < (labels == code).sum() < len(labels)
    ]
    return float(np.mean(areas)) if areas else float("nan")


def mean_average_precision(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean average precision of the labels that occur; NaN if none does."""
    from sklearn.metrics import average_precision_score

    found = [
        average_precision_score(own, column)
        for own, column in zip(labels.T, outputs.T, strict=True)
        if own.any()
    ]
    return float(np.mean(found)) if found else float("nan")


def micro_f1(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Return the F1 of all decisions together; a label is predicted if its logit is above 0."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, outputs > 0, average="micro", zero_division=_NONE))


def rmse(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Return the root of the mean squared error over examples and targets."""
    return float(np.sqrt(np.square(outputs - labels).mean(dtype=np.float64)))


def r2(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Return 1 - residual / total sum of squares, averaged over targets; NaN if one is constant."""
    from sklearn.metrics import r2_score

    if (np.ptp(labels, axis=0) == 0).any():
        return float("nan")
    return float(r2_score(labels, outputs))


def mean_iou(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean over classes of intersection over union of all pixels.

    A class that neither the masks nor the predictions have is left out.
    """
    classes = outputs.shape[-1]
    pairs = classes * labels.astype(np.int64).ravel() + outputs.argmax(-1).ravel()
    confusion = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    both = np.diag(confusion)
    either = confusion.sum(0) + confusion.sum(1) - both
    return float((both[either > 0] / either[either > 0]).mean())


def absolute_errors(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return each example's absolute error, averaged over targets, (n,) float64."""
    return np.abs(outputs - labels).mean(axis=1, dtype=np.float64)


def right_pixels(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the share of each mask's pixels that are right, (n,) float64."""
    right = outputs.argmax(-1) == labels
    return right.reshape(len(labels), -1).mean(axis=1, dtype=np.float64)


EACH: dict[str, Each] = {  # means over examples: one value each
    "accuracy": lambda outputs, labels: outputs.argmax(1) == labels,
    "top-5 accuracy": among_the_top,
    "log loss": negative_logs,
    "MAE": absolute_errors,
    "pixel accuracy": right_pixels,
}
SCORES: dict[str, Score] = {
    "balanced accuracy": balanced_accuracy,
    "macro F1": macro_f1,
    "ROC AUC": roc_auc,
    "mean average precision": mean_average_precision,
    "micro F1": micro_f1,
    "RMSE": rmse,
    "R2": r2,
    "mean IoU": mean_iou,
}
