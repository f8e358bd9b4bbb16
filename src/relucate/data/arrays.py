"""Raw arrays, checked and brought to the one form that a Dataset holds.

Examples become images (n, height, width, channels) or volumes (n, depth, height, width, channels)
of uint8 or float32, sequences (n, time, channels) or vectors (n, features) of float32, or tokens
(n, time) of int64; class labels become codes 0..k-1 with class names. Likely mistakes (NaN,
channels first) are refused. Not here: other kinds of labels (`labels`), where arrays come from, the
split into train and test. Called by `dataset`, `labels` and `source`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from relucate.arguments import on_host
from relucate.errors import InputError
from relucate.phrases import count, some

NUMBERS = "biuf"  # NumPy dtype kinds: bool, int, unsigned, float
_FEW = 4  # channels of colours, or of the kinds of a scan; a longer axis may be a width


def examples(x: object, what: str) -> np.ndarray:
    """Return `x` as examples, C-contiguous: images, volumes, sequences, vectors or tokens.

    Args:
        x: numbers. With five axes they are volumes (n, depth, height, width, channels), or videos,
            whose depth is time. With four axes (n, h, w, c), and integers with three (n, h, w),
            they are images, which get a channel axis; floats with three axes are sequences (n,
            time, channels).
            Integers with two axes are tokens (n, time), unless they are pixels (uint8) or some are
            negative: those are vectors (n, features), as floats are.
        what: the array's name in errors, such as "x_train".

    Returns: tokens as int64; uint8 stays; other dtypes become float32.
    Raises:
        InputError: not numbers, empty, another rank, channels first, NaN or infinite.

    >>> examples(np.zeros((5, 8, 8), np.uint8), "x").shape, examples(np.ones((5, 8)), "x").dtype
    ((5, 8, 8, 1), dtype('float32'))
    """
    array = _numbers(x, what)
    if array.ndim == 3 and array.dtype.kind != "f":
        array = array[..., np.newaxis]
    if array.ndim not in (2, 3, 4, 5) or 0 in array.shape:
        raise InputError(
            f"{what} has shape {array.shape}; expected images (n, height, width) or "
            "(n, height, width, channels), volumes or videos (n, depth, height, width, channels), "
            "sequences (n, time, channels), or vectors (n, features), and no axis of length 0."
        )
    _refuse_channels_first(array, what)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if _are_tokens(array):
        return np.ascontiguousarray(array, dtype=np.int64)
    return _finite(array, what)


def _are_tokens(array: np.ndarray) -> bool:
    return array.ndim == 2 and array.dtype.kind in "iu" and bool(array.min() >= 0)


def reading(array: np.ndarray, what: str) -> str:
    """Return a note on what examples were taken for, where their numbers could mean another thing.

    Args: array: what `examples` returned.
    """
    if array.dtype == np.int64:
        return (
            f"{what} holds integers {array.shape}: taken as tokens, which reach the model as they "
            f"are, not standardised (for features, give floats: {what}.astype(float))"
        )
    if array.ndim == 3:
        return (
            f"{what} has shape {array.shape}: taken as sequences of {array.shape[1]} steps with "
            f"{array.shape[2]} channels (for grayscale images, add an axis: {what}[..., None])"
        )
    if array.ndim == 4 and array.shape[3] > _FEW:
        return (
            f"{what} has shape {array.shape}: taken as images with {array.shape[3]} channels (for "
            f"volumes or videos of one channel, add an axis: {what}[..., None])"
        )
    return ""


def _numbers(x: object, what: str) -> np.ndarray:
    array = _array(x, what)
    if array.dtype.kind not in NUMBERS:
        raise InputError(f"{what} holds {array.dtype} values; expected numbers{_text_columns(x)}.")
    return array


def _text_columns(x: Any) -> str:
    """Return which columns of a data frame aren't numbers, as the end of a sentence."""
    names = column_names(x) or ()
    odd = [name for name in names if np.asarray(x[name]).dtype.kind not in NUMBERS]
    if not odd or len(set(names)) < len(names):
        return ""
    return f", and these columns hold others: {some(map(repr, odd), 5)}. Encode or drop them"


def column_names(table: Any) -> tuple[Any, ...] | None:
    """Return the column names of a data frame, or the name of a column; None for arrays."""
    columns = getattr(table, "columns", None)
    if columns is not None:
        return tuple(columns)
    name = getattr(table, "name", None)
    return None if name is None or not hasattr(table, "to_numpy") else (name,)


def _array(values: object, what: str) -> np.ndarray:
    if isinstance(values, Mapping):
        raise InputError(
            f"{what} is a {type(values).__name__} of {len(values)} arrays; compare trains models "
            "with one input. For several inputs, train with your own function: compare(run=...)."
        )
    try:
        return np.asarray(on_host(values))
    except ValueError as error:  # nested lists of uneven lengths
        raise InputError(f"{what} is not an array: {error}.") from error


def _refuse_channels_first(array: np.ndarray, what: str) -> None:
    """Refuse images and volumes whose channels aren't last."""
    axis = _channels_before(array.shape)
    if axis is None:
        return
    order = [place for place in range(array.ndim) if place != axis]
    where = "channels first" if axis == 1 else f"channels on axis {axis}"
    raise InputError(
        f"{what} has shape {array.shape}, which looks like {where}; expected channels "
        f"last: {what}.transpose({', '.join(map(str, [*order, axis]))})."
    )


def _channels_before(shape: tuple[int, ...]) -> int | None:
    """Return the axis, before height and width, that looks like channels; None: none does.

    Of images (n, 3, h, w), and (n, 1, h, h), which is MNIST as PyTorch holds it. Volumes can have
    them on axis 1 as Conv3d does, or on axis 2 as (n, time, channels, h, w); with square slices,
    up to four channels count, because a width is hardly ever the number of channels.

    >>> _channels_before((9, 4, 16, 32, 32)), _channels_before((9, 16, 3, 32, 48))
    (1, 2)
    """
    if len(shape) < 4:
        return None
    *_, height, width = shape
    if min(height, width) <= _FEW:
        return None
    volume = len(shape) == 5
    few = range(1, _FEW + 1) if volume else (1,)
    for axis in (1, 2) if volume else (1,):
        if shape[axis] == 3 or (shape[axis] in few and height == width):
            return axis
    return None


def _finite(array: np.ndarray, what: str) -> np.ndarray:
    """Return `array` as float32; refuse NaN, infinity and values that overflow float32."""
    with np.errstate(over="ignore"):  # an overflow becomes infinite and is reported below
        array = np.ascontiguousarray(array, dtype=np.float32)
    bad = ~np.isfinite(array)
    number = int(bad.sum())
    if number:
        first = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
        raise InputError(
            f"{what} isn't finite in float32 at {count(number, 'place')} (the first, "
            f"{list(first)}, is {array[first]}): clean the data or leave those examples out."
        )
    return array


def encode(y: object, what: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels as codes (n,) int64 in 0..k-1 and the k class names, sorted.

    >>> encode(["dog", "cat", "dog"], "y")
    (array([1, 0, 1]), ('cat', 'dog'))
    """
    values, codes = np.unique(_flat(y, what), return_inverse=True)
    return codes.astype(np.int64), tuple(str(value) for value in values)


def encode_pair(y_train: object, y_test: object) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return the codes of both parts, and the class names: the sorted training labels.

    Raises:
        InputError: a test label that no training example has; numbers in one part, text in the
            other; one-hot labels of different widths.
    """
    _same_width(y_train, y_test)
    train, test = _flat(y_train, "y_train"), _flat(y_test, "y_test")
    if train.dtype.kind != test.dtype.kind:
        raise InputError(
            f"y_train holds {train.dtype} labels but y_test {test.dtype}; expected the same kind."
        )
    values, codes = np.unique(train, return_inverse=True)
    unseen = np.setdiff1d(test, values)
    if len(unseen):
        raise InputError(
            f"y_test holds {_some(unseen)}, which y_train doesn't; expected test labels among "
            f"the training labels: {_some(values)}."
        )
    names = tuple(str(value) for value in values)
    return codes.astype(np.int64), np.searchsorted(values, test).astype(np.int64), names


def codes_for(y: object, what: str, class_names: Sequence[str]) -> np.ndarray:
    """Return labels that are already codes into `class_names` as (n,) int64.

    Raises:
        InputError: labels that aren't integers in 0..k-1.
    """
    codes = _flat(y, what)
    if codes.dtype.kind != "i":
        raise InputError(
            f"{what} holds {codes.dtype} labels; with class_names expected integers "
            f"0..{len(class_names) - 1}."
        )
    wrong = codes[(codes < 0) | (codes >= len(class_names))]
    if len(wrong):
        raise InputError(
            f"{what} holds label {wrong[0]}, but class_names has {len(class_names)} names; "
            f"expected integers 0..{len(class_names) - 1}."
        )
    return codes


def _flat(y: object, what: str) -> np.ndarray:
    """Return class labels in any accepted form as (n,) int64 or text."""
    array = label_array(y, what)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and is_one_hot(array):
        return array.argmax(axis=1).astype(np.int64)
    if array.ndim != 1:
        raise InputError(
            f"{what} has shape {array.shape}; expected one label per example, (n,) or (n, 1), "
            "or one-hot rows (n, classes) of zeros with a single one."
        )
    if array.dtype.kind == "f" and not (array % 1 == 0).all():
        odd = array[array % 1 != 0][0]
        raise InputError(
            f"{what} holds {array.dtype} labels (such as {odd:g}), which are no classes; expected "
            "integers or text. For numbers to predict, the task is regression."
        )
    if array.dtype.kind == "u" and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise InputError(
            f"{what} holds the label {int(array.max())}, which is larger than int64 can hold; "
            "expected smaller integers or text."
        )
    return array if array.dtype.kind == "U" else array.astype(np.int64)


def label_array(y: object, what: str) -> np.ndarray:
    """Return labels as an array, text as NumPy unicode; refuse dates, mixed objects and so on."""
    array: Any = _array(y, what)
    if array.dtype.kind == "O" and all(isinstance(item, str) for item in array.flat):
        array = array.astype(np.str_)
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{what} holds bytes that aren't UTF-8 text ({error}); expected integers or text: "
                f"np.char.decode({what}, 'latin-1')."
            ) from error
    if array.dtype.kind not in NUMBERS + "U":
        raise InputError(f"{what} holds {array.dtype} labels; expected integers or text.")
    if array.dtype.kind == "U" and not _is_unicode(array):
        raise InputError(f"{what} holds text that isn't Unicode; the file may be damaged.")
    return array


def _is_unicode(array: np.ndarray) -> bool:
    """Return whether text read from a file has only characters that Python can hold."""
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    return not native.nbytes or int(native.reshape(-1).view(np.uint32).max()) <= sys.maxunicode


def is_one_hot(array: np.ndarray) -> bool:
    """Return whether each row of (n, k) labels, k above 1, holds zeros and a single one."""
    if array.dtype.kind == "U" or array.shape[1] < 2:
        return False
    return bool(((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all())


def _same_width(y_train: object, y_test: object) -> None:
    """Refuse one-hot labels of different widths: their columns can't mean the same classes."""
    train, test = _array(y_train, "y_train"), _array(y_test, "y_test")
    if train.ndim != 2 or test.ndim != 2 or 1 in (train.shape[1], test.shape[1]):
        return
    if train.shape[1] != test.shape[1]:
        raise InputError(
            f"y_train is one-hot with {train.shape[1]} columns but y_test with {test.shape[1]}; "
            "expected the same classes in both."
        )


def _some(values: np.ndarray, most: int = 5) -> str:
    return some(map(repr, values.tolist()), most)
