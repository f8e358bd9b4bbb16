"""What the user's own training returned, read as a run's result.

A number; or a mapping with the metric, other scores, and optionally `curve` and `per_example`. A
score that can't be read loses the run; anything else that can't be read is left out with a note.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from ..errors import InputError
from ..train.metric import NOT_SCORES, same_name
from ..train.run import RunResult

CURVE, PER_EXAMPLE = "curve", "per_example"  # keys that hold no score


class Unscored(InputError):
    """What was returned holds no score; the message says why."""


def read_score(returned: Any, metric: str, *, nan_diverges: bool = False) -> RunResult:
    """Return the result that a function returned.

    Args:
        returned: a number; or a mapping with `metric`, further names with numbers, `curve` (a score
            per epoch, or a mapping with `epoch`, `metric` and others, of one length) and
            `per_example` (n,), whose mean is the metric.
        nan_diverges: a score that is NaN or infinite means that the run diverged.
    Raises: Unscored: there is no number for the metric, or it isn't finite.

    >>> result = read_score({"auc": 0.9, "loss": 0.3, "curve": [0.7, 0.9]}, "auc")
    >>> result.metric, result.loss, result.curve
    (0.9, 0.3, {'epoch': [1, 2], 'auc': [0.7, 0.9]})
    """
    values = dict(returned) if isinstance(returned, Mapping) else {metric: returned}
    values = {metric if same_name(str(k), metric) else str(k): v for k, v in values.items()}
    if metric not in values:
        names = ", ".join(map(repr, values)) or "nothing"
        raise Unscored(f"it returned {names}, and not '{metric}', which decides (metric=)")
    score = _number(values[metric])
    if score is None:
        what = "" if isinstance(returned, Mapping) else "return a number, or {name: number}"
        given = f"'{metric}' as " if isinstance(returned, Mapping) else ""
        raise Unscored(f"it returned {given}{described(values[metric])}: {what or 'a number'}")
    diverged = not math.isfinite(score)
    if diverged and not nan_diverges:
        raise Unscored(
            f"it returned {score}; if that means a diverged run, give the score that it counts "
            "with (worst=)"
        )
    result = RunResult("diverged" if diverged else "done", None if diverged else score)
    notes = [] if diverged else _keep_examples(result, values.pop(PER_EXAMPLE, None))
    notes += _keep_curve(result, values.pop(CURVE, None), metric)
    kept = {metric, CURVE, PER_EXAMPLE}
    notes += _keep_others(result, {k: v for k, v in values.items() if k not in kept})
    result.loss = score if metric == "loss" and not diverged else result.scores.get("loss")
    result.note = "; ".join(notes)
    return result


def _number(value: Any) -> float | None:
    """Return a real number, also one of NumPy or a tensor without axes; None for anything else."""
    if getattr(value, "shape", None) == ():
        try:
            value = value.item() if hasattr(value, "item") else float(value)
        except (TypeError, ValueError, RuntimeError):  # a tensor without values
            return None
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else None


def described(value: Any) -> str:
    """Return what a value is, in words.

    >>> described(np.zeros(3)), described("0.9"), described(None)
    ('an array of shape (3,)', "the text '0.9'", 'None')
    """
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        return f"the text {value!r:.80}"
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"an array of shape {tuple(shape)}"
    size = f" of {len(value)}" if isinstance(value, (list, tuple)) else ""
    return f"a {type(value).__name__}{size}"


def _keep_examples(result: RunResult, values: Any) -> list[str]:
    if values is None:
        return []
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):  # a tensor on a GPU, a ragged list
        return [f"{PER_EXAMPLE} isn't kept: NumPy can't read {described(values)}"]
    if array.ndim != 1 or array.dtype.kind not in "biuf" or not len(array):
        return [f"{PER_EXAMPLE} isn't kept: expected one number per example, got {array.shape}"]
    kept = array if array.dtype.kind == "b" else array.astype(np.float64)
    result.per_example, result.examples = kept, len(kept)
    mean = float(kept.mean())
    if not math.isclose(mean, result.metric or 0.0, rel_tol=1e-6, abs_tol=1e-6):
        return [
            f"the mean of {PER_EXAMPLE} isn't the score, so there is no interval for new examples"
        ]
    return []


def _keep_curve(result: RunResult, given: Any, metric: str) -> list[str]:
    if given is None:
        return []
    curve = given if isinstance(given, Mapping) else {metric: given}
    try:
        read = {
            metric if same_name(str(name), metric) else str(name): _scores(values)
            for name, values in curve.items()
        }
    except (TypeError, ValueError, RuntimeError):
        return [f"{CURVE} isn't kept: expected lists of numbers, got {described(given)}"]
    count = len(read.get(metric, ()))
    if not count or {len(values) for values in read.values()} != {count}:
        return [f"{CURVE} isn't kept: expected '{metric}' for each epoch, got {', '.join(read)}"]
    epochs: list[Any] = list(range(1, count + 1))
    if read.pop("epoch", epochs) != epochs:
        return [f"{CURVE} isn't kept: expected every epoch from 1 on"]
    result.curve = {"epoch": epochs, **read}
    return []


def _scores(values: Any) -> list[float | None]:
    array = np.asarray(values, np.float64)
    if array.ndim != 1:
        raise ValueError
    return [float(value) if math.isfinite(value) else None for value in array]


def _keep_others(result: RunResult, values: Mapping[str, Any]) -> list[str]:
    notes = []
    for name, value in values.items():
        number = _number(value)
        if number is None or name in NOT_SCORES:
            notes.append(f"'{name}' isn't kept: it is {described(value)}, not a number")
        else:
            result.scores[name] = number if math.isfinite(number) else None
    return notes
