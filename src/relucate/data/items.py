"""Data sets that give one example at a time, such as those of torch.utils.data, as arrays.

Not here: what arrays may contain (`arrays`, `labels`), the split. Called by `source`; imports no
framework.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from relucate.arguments import on_host
from relucate.errors import InputError, briefly

_AGAIN = 32  # examples that are read twice: what draws random numbers differs
_EVERY = 500  # examples between two reports of progress
_FEW = 4  # axes up to this length may be channels
_OTHERWISE = "Or train with your own function: compare(run=...)."


def has_items(source: Any) -> bool:
    """Return whether `source` gives examples by number, and is no array, table or sequence.

    >>> has_items([1, 2]), has_items(np.zeros(3)), has_items({})
    (False, False, False)
    """
    other = isinstance(source, (Sequence, Mapping)) or hasattr(source, "shape")
    indexed = hasattr(type(source), "__getitem__") and hasattr(type(source), "__len__")
    return indexed and not other and not hasattr(source, "columns")


def read_items(
    source: Any, progress: Callable[[str, int, int], None] | None = None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return all examples, their labels, and notes on how they were read.

    An example is (x, y). A tensor of three or four axes is an image or a volume with its channels
    first, as PyTorch has them, unless only its last axis is as short as channels are. Images of
    Pillow with a palette become RGB.

    Raises: InputError: no examples, one that can't be read, isn't (x, y) or differs from the first
        in shape or dtype, tensors whose channels could be on two axes, or examples that change when
        they are read again.
    """
    what, count = f"the {type(source).__name__}", len(source)
    if any(base.__name__ == "PyDataset" for base in type(source).__mro__):
        raise InputError(f"{what} gives batches, not examples: give (x, y) arrays. {_OTHERWISE}")
    if not count:
        raise InputError(f"{what} has no examples.")
    raw, label = _item(source, 0, what)
    _refuse_unclear(raw, what)
    first, labels = _values(raw), [_label(label)]
    examples = np.empty((count, *first.shape), first.dtype)
    examples[0] = first
    for number in range(1, count):
        given, label = _item(source, number, what)
        x = _values(given)
        if (x.shape, x.dtype) != (first.shape, first.dtype):
            raise InputError(
                f"example {number} of {what} has shape {x.shape} and {x.dtype} values, the first "
                f"{first.shape} and {first.dtype}: give all of them one form (resize, crop)."
            )
        examples[number] = x
        labels.append(_label(label))
        if progress is not None and (number + 1) % _EVERY == 0:
            progress("reading examples", number + 1, count)
    _check_again(source, examples, what)
    if len({y.shape for y in labels}) > 1:
        raise InputError(f"the labels of {what} differ in shape: expected the same for all.")
    return examples, np.array(labels), _notes(raw, what)


def _item(source: Any, number: int, what: str) -> tuple[Any, Any]:
    """Return an example and its label as the data set gives them."""
    try:
        item = source[number]
    except Exception as error:  # of the user's code
        raise InputError(f"example {number} of {what} can't be read: {briefly(error)}") from error
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        got = f"a {type(item).__name__}"
        got += f" of {len(item)}" if isinstance(item, (tuple, list, Mapping)) else ""
        raise InputError(f"example {number} of {what} is {got}; expected (x, y). {_OTHERWISE}")
    x, y = item
    if isinstance(x, Mapping):
        raise InputError(f"example {number} of {what} has several inputs. {_OTHERWISE}")
    return x, y


def _label(y: Any) -> np.ndarray:
    return np.asarray(on_host(y))


def _values(x: Any) -> np.ndarray:
    """Return an example as an array, with the channels of a tensor last."""
    if hasattr(x, "getbands") and x.mode in ("1", "P", "PA"):  # of Pillow: bits, indices of colours
        x = x.convert("L" if x.mode == "1" else "RGB")
    array = np.asarray(on_host(x))
    return np.moveaxis(array, 0, -1) if _is_channels_first(x) else array


def _is_channels_first(x: Any) -> bool:
    """Return whether an example is a tensor of PyTorch with the axes (channels, ..., width)."""
    if not hasattr(x, "detach") or len(x.shape) not in (3, 4):
        return False
    return x.shape[0] <= _FEW or x.shape[-1] > _FEW


def _refuse_unclear(x: Any, what: str) -> None:
    """Refuse tensors of four axes that may be frames of images: torchvision has both layouts."""
    if not _is_channels_first(x) or len(x.shape) != 4 or x.shape[0] == 1:
        return
    frames = (x.shape[1] <= _FEW, x.shape[3] <= _FEW)
    if any(frames):
        other = (
            "(time, channels, height, width)" if frames[0] else "(time, height, width, channels)"
        )
        raise InputError(
            f"the examples of {what} are tensors {tuple(x.shape)}: (channels, depth, height, "
            f"width), or {other}? Give arrays with the channels last, (depth or time, height, "
            "width, channels), such as x.movedim(0, -1).numpy()."
        )


def _check_again(source: Any, examples: np.ndarray, what: str) -> None:
    """Refuse a data set whose examples change: they are read once here, and trained on often."""
    for number in range(min(_AGAIN, len(examples))):
        again = _values(_item(source, number, what)[0])
        if not np.array_equal(again, examples[number], equal_nan=again.dtype.kind in "fc"):
            raise InputError(
                f"example {number} of {what} isn't the same when it is read again, as with random "
                "augmentation: give the data set without it, and let the recipe do it "
                f"(augment: flip, crop; --augment). {_OTHERWISE}"
            )


def _notes(x: Any, what: str) -> list[str]:
    if not _is_channels_first(x):
        return []
    return [f"the examples of {what} are tensors {tuple(x.shape)}: taken as channels first"]
