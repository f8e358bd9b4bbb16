"""Labels of any kind, checked and brought to the one form that a Dataset holds.

The kind follows from dtype, shape and values, or from the task that is asked for:

- classes: one per example, codes (n,) int64;
- marks: any number of labels per example, (n, k) uint8 of 0 and 1;
- targets: numbers, (n, k) float64;
- masks: one class per pixel, codes (n, height, width) or, of volumes, (n, depth, height, width),
  uint8 or int32.

Not here: the classes' own forms (`arrays`). Called by `dataset`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from relucate.data import arrays
from relucate.errors import InputError
from relucate.train.tasks import TASKS

KINDS = {  # what the columns or codes of labels are called
    "classes": "classes", "marks": "labels", "targets": "targets", "masks": "classes of pixels"
}  # fmt: skip
OWN_LOOP = "train with your own function: compare(run=...)"


class Labels(NamedTuple):
    """Checked labels. parts: one array for each that was given; names: of classes or columns."""

    kind: str
    parts: list[np.ndarray]
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read(
    given: Sequence[tuple[object, str]],
    x_shape: tuple[int, ...],
    class_names: Sequence[str] | None = None,
    task: str | None = None,
) -> Labels:
    """Return labels of one or two parts, the training part first.

    Args:
        given: the labels of each part, and what to call them in errors.
        x_shape: of the training examples, channels last.
        class_names: names for codes or columns.
        task: a name in `TASKS` decides the kind; None: the labels do.

    Raises: InputError: labels that aren't of that kind, or of none.

    >>> read([([0.5, 2.0], "y")], (2, 3)).parts[0].tolist()
    [[0.5], [2.0]]
    """
    found = [arrays.label_array(y, what) for y, what in given]
    if task is None:
        kind, note = _kind(found, [what for _, what in given], x_shape, class_names is not None)
    else:
        kind, note = TASKS[task].labels, ""
    if kind == "masks":
        volumes = len(x_shape) > 4
        found = [_mask(y, what, volumes) for y, (_, what) in zip(found, given, strict=True)]
    parts, names = _READ[kind](found, given, class_names)
    left_out = _left_out(names, given[0][1]) if kind == "masks" and class_names is None else ""
    return Labels(kind, parts, names, tuple(text for text in (note, left_out) if text))


def strata(labels: np.ndarray, kind: str) -> tuple[np.ndarray, int]:
    """Return what a split keeps in proportion: the classes, or nothing; and their number."""
    if kind == "classes":
        return labels, int(labels.max()) + 1
    return np.zeros(len(labels), np.int64), 1


def _kind(
    found: list[np.ndarray], what: list[str], x_shape: tuple[int, ...], named: bool
) -> tuple[str, str]:
    """Return the kind of labels, and a note where a choice was made."""
    first, name = found[0], what[0]
    if first.ndim > 2:
        if len(x_shape) < 4:
            raise InputError(
                f"{name} has shape {first.shape}, but the examples aren't images; expected one "
                f"label per example. For labels of another form, {OWN_LOOP}."
            )
        return "masks", ""
    wide = first.ndim == 2 and first.shape[1] > 1
    if wide and all(map(_is_marks, found)):
        if all(map(arrays.is_one_hot, found)):
            return "classes", ""
        return "marks", (
            f"{name} holds 0 and 1 in {first.shape[1]} columns, several 1 in a row or none: the "
            "task is multilabel"
        )
    if first.dtype.kind != "f" or named:
        if wide and not named:
            raise InputError(
                f"{name} has shape {first.shape}; expected one label per example, (n,) or (n, 1), "
                "rows of 0 and 1, or floats for several targets "
                f"({name}.astype(float), or task='regression')."
            )
        return "classes", "" if named or wide else _many_classes(first, name)
    if wide and (first >= 0).all() and np.allclose(first.sum(axis=1), 1.0, atol=1e-3):
        raise InputError(
            f"{name} has shape {first.shape}, and each row sums to 1: soft labels. Give one class "
            f"per example, task='regression' if these are numbers to predict, or {OWN_LOOP}."
        )
    if not wide and all(map(_is_marks, found)) and np.ptp(first):
        return "classes", f"{name} holds the floats 0.0 and 1.0: taken as two classes"
    return "targets", (
        f"{name} holds {first.dtype} numbers: the task is regression (for classes, give integers "
        "or task='classification')"
    )


def _is_marks(array: np.ndarray) -> bool:
    return array.dtype.kind in arrays.NUMBERS and bool(((array == 0) | (array == 1)).all())


Given = Sequence[tuple[object, str]]
Read = tuple[list[np.ndarray], tuple[str, ...]]


def _classes(found: list[np.ndarray], given: Given, class_names: Sequence[str] | None) -> Read:
    if class_names is not None:
        names = _different(class_names)
        return [arrays.codes_for(y, what, names) for y, what in given], names
    if len(given) == 1:
        codes, names = arrays.encode(*given[0])
        return [codes], names
    train, test, names = arrays.encode_pair(given[0][0], given[1][0])
    return [train, test], names


def _marks(found: list[np.ndarray], given: Given, class_names: Sequence[str] | None) -> Read:
    parts = []
    for array, (_, what) in zip(found, given, strict=True):
        if array.ndim != 2 or array.shape[1] < 2 or not _is_marks(array):
            raise InputError(
                f"{what} has shape {array.shape} of {array.dtype}; multilabel takes a column of 0 "
                "and 1 for each of several labels, (n, k)."
            )
        parts.append(array.astype(np.uint8))
    return parts, _columns(parts, given, class_names, "{}")


def _targets(found: list[np.ndarray], given: Given, class_names: Sequence[str] | None) -> Read:
    parts = []
    for array, (_, what) in zip(found, given, strict=True):
        if array.ndim not in (1, 2) or array.dtype.kind not in arrays.NUMBERS:
            raise InputError(
                f"{what} has shape {array.shape} of {array.dtype}; regression takes numbers, (n,) "
                "or (n, targets)."
            )
        numbers = array.astype(np.float64).reshape(len(array), -1)
        bad = ~np.isfinite(numbers)
        if bad.any():
            raise InputError(
                f"{what} holds {int(bad.sum())} values that are not finite (the first in row "
                f"{int(bad.any(axis=1).argmax())}); leave these examples out or fill them in."
            )
        parts.append(numbers)
    names = _columns(parts, given, class_names, "target {}")
    same = [n for n, spread in zip(names, np.ptp(parts[0], axis=0), strict=True) if not spread]
    if same:
        raise InputError(f"{given[0][1]} holds one value only for '{same[0]}': nothing to learn.")
    return parts, names


def _columns(
    parts: list[np.ndarray], given: Given, class_names: Sequence[str] | None, pattern: str
) -> tuple[str, ...]:
    """Return the columns' names: the given ones, a data frame's, or numbers."""
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1:
        raise InputError(
            f"{given[0][1]} has {parts[0].shape[1]} columns but {given[1][1]} "
            f"{parts[1].shape[1]}; expected the same."
        )
    (width,) = widths
    own = class_names if class_names is not None else arrays.column_names(given[0][0])
    names = _different(own if own is not None else [pattern.format(i) for i in range(width)])
    if len(names) != width:
        raise InputError(f"{len(names)} names for {width} columns of {given[0][1]}.")
    return names


def _masks(found: list[np.ndarray], given: Given, class_names: Sequence[str] | None) -> Read:
    values = np.unique(found[0]) if class_names is None else np.arange(len(class_names))
    dtype = np.uint8 if len(values) <= 256 else np.int32
    for part, (_, what) in zip(found, given, strict=True):
        unseen = np.setdiff1d(part, values)
        if len(unseen):
            raise InputError(
                f"{what} holds the class {unseen[0]}, which isn't among those of the training "
                f"masks: {', '.join(map(str, values[:10]))}."
            )
    codes = [np.searchsorted(values, part).astype(dtype) for part in found]
    return codes, _different(values.tolist() if class_names is None else class_names)


def _many_classes(labels: np.ndarray, what: str) -> str:
    """Return a note on whole numbers that may be numbers to predict; "" for a few classes."""
    classes = len(np.unique(labels)) if labels.dtype.kind in "ui" else 0
    if classes <= 20 or len(labels) >= 50 * classes:
        return ""
    return (
        f"{what} holds whole numbers: taken as {classes} classes (for numbers to predict, "
        "task='regression')"
    )


def _left_out(values: Sequence[str], what: str) -> str:
    """Return a note on the values that usually mean "no class here"; "" if there is none.

    >>> _left_out(("0", "1", "2"), "y"), _left_out(("0", "255"), "y")
    ('', '')
    """
    codes = [int(value) for value in values]
    odd = [code for code in codes if code < 0 or (code == 255 and len(codes) > 2)]
    if not odd or {254, 255}.issubset(codes):
        return ""
    return (
        f"{what} holds {' and '.join(map(str, odd))}, trained and scored as a class like the "
        f"others: if it marks pixels to ignore, {OWN_LOOP}"
    )


def _mask(array: np.ndarray, what: str, volumes: bool) -> np.ndarray:
    """Return masks as whole numbers (n, height, width), those of volumes with their depth."""
    axes = ("n", "depth", "height", "width") if volumes else ("n", "height", "width")
    if array.ndim == len(axes) + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == len(axes) + 1 and _is_marks(array) and (array.sum(axis=-1) == 1).all():
        array = array.argmax(axis=-1)
    whole = array.dtype.kind in "bui" or (array.dtype.kind == "f" and bool((array % 1 == 0).all()))
    if array.ndim != len(axes) or not whole:
        raise InputError(
            f"{what} has shape {array.shape} of {array.dtype}; segmentation takes masks of whole "
            f"numbers, ({', '.join(axes)}). For labels of another form, {OWN_LOOP}."
        )
    return array.astype(np.int64) if array.dtype.kind == "f" else array


def _different(names: Sequence[object]) -> tuple[str, ...]:
    found = tuple(str(name) for name in names)
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise InputError(f"class_names holds '{twice}' more than once; expected different names.")
    return found


_READ = {"classes": _classes, "marks": _marks, "targets": _targets, "masks": _masks}
