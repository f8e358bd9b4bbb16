"""Raw operations that move, slice, join or reduce axes, as steps. Used by `operations`.

An operation that moves or splits the batch axis is unreadable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from numbers import Integral
from typing import Any

import keras
import numpy as np

from .steps import Branches, Call, Step, Unreadable, reshaped

Shape = tuple[int | None, ...]
_BATCH = "touches the batch axis"


def _axis(axis: int, rank: int) -> int:
    axis %= rank
    if axis == 0:
        raise Unreadable(_BATCH)
    return axis


def _to(shape: Sequence[int | None]) -> Step:
    step = reshaped(tuple(shape))
    if step is None:
        raise Unreadable("several unknown sizes")
    return step


def _reshape(call: Call) -> list[Step]:
    before, after = call.bound["x"].shape, call.outputs[0].shape
    sizes = [*before[1:], *after[1:]]
    if not after or before[0] != after[0]:
        raise Unreadable(_BATCH)
    if before[0] is None:  # it is the same axis if all others hold as many values
        if None in sizes:
            raise Unreadable("unknown sizes")
        if math.prod(before[1:]) != math.prod(after[1:]):
            raise Unreadable(_BATCH)
    return [_to(after)]


def _squeeze(call: Call) -> list[Step]:
    shape, axis = call.bound["x"].shape, call.operation.axis
    if axis is None and shape[0] == 1:
        raise Unreadable(_BATCH)
    axes = [] if axis is None else [axis] if isinstance(axis, int) else axis
    for one in axes:
        _axis(one, len(shape))
    return [_to(call.outputs[0].shape)]


def _expand_dims(call: Call) -> list[Step]:
    shape, axis = call.outputs[0].shape, call.operation.axis
    for one in [axis] if isinstance(axis, int) else axis:
        _axis(one, len(shape))
    return [_to(shape)]


def _permuted(order: Sequence[int]) -> list[Step]:
    if order[0] != 0:
        raise Unreadable(_BATCH)
    return [Step("permute", {"dims": tuple(int(axis) for axis in order[1:])})]


def _transpose(call: Call) -> list[Step]:
    rank = len(call.bound["x"].shape)
    axes = call.operation.axes
    return _permuted(range(rank)[::-1] if axes is None else [axis % rank for axis in axes])


def _moved(function: Callable[..., Any], *names: str) -> Callable[[Call], list[Step]]:
    """Return the permutation that a NumPy function makes of the axes."""

    def read(call: Call) -> list[Step]:
        rank = len(call.bound["x"].shape)
        marked = np.empty(tuple(range(2, rank + 2)), np.int8)  # a different size for each axis
        turned = function(marked, *(getattr(call.operation, name) for name in names))
        return _permuted([size - 2 for size in turned.shape])

    return read


def _concatenate(call: Call) -> list[Step]:
    tensors = call.bound["xs"]
    if not all(isinstance(x, keras.KerasTensor) for x in tensors):
        raise Unreadable("called with a constant operand")
    return [Step("concat", {"axis": _axis(call.operation.axis, len(tensors[0].shape))})]


def _stack(call: Call) -> list[Step]:
    tensors, shape = call.bound["x"], call.outputs[0].shape
    if not all(isinstance(x, keras.KerasTensor) for x in tensors):
        raise Unreadable("called with a constant operand")
    axis = _axis(call.operation.axis, len(shape))
    one = _to((*shape[:axis], 1, *shape[axis + 1 :]))
    rows = [
        Step(one.op, one.attrs, suffix=f"row{i}", inputs=(i,), shape=one.shape)
        for i in range(len(tensors))
    ]
    return [*rows, Step("concat", {"axis": axis}, inputs=tuple(range(-len(rows), 0)))]


# Parts.


def _part(axis: int, start: Any, stop: Any, step: Any = None) -> Step:
    return Step("slice", {"axis": axis, "start": start, "stop": stop, "step": step})


def _flip(call: Call) -> list[Step]:
    shape, axis = call.bound["x"].shape, call.operation.axis
    given = range(len(shape)) if axis is None else [axis] if isinstance(axis, int) else axis
    axes = sorted({_axis(one, len(shape)) for one in given})
    steps = [_placed(_part(one, None, None, -1), f"axis{one}", tuple(shape)) for one in axes]
    return [*steps[:-1], Step("slice", steps[-1].attrs)]


def _split(call: Call) -> Branches:
    shape = call.bound["x"].shape
    axis = _axis(call.operation.axis, len(shape))
    sizes = [output.shape[axis] for output in call.outputs]
    if None in sizes:
        raise Unreadable("unknown sizes")
    return [[_part(axis, *ends)] for ends in pairwise(accumulate(sizes, initial=0))]


def _unstack(call: Call) -> Branches:
    shape = call.bound["x"].shape
    axis = _axis(call.operation.axis, len(shape))
    row = (*shape[:axis], 1, *shape[axis + 1 :])
    return [
        [_placed(_part(axis, i, i + 1), "row", row), _to(output.shape)]
        for i, output in enumerate(call.outputs)
    ]


def _placed(step: Step, suffix: str, shape: Shape) -> Step:
    return Step(step.op, step.attrs, suffix=suffix, shape=shape)


def _get_item(call: Call) -> list[Step]:
    """Read x[key] as one slice per sliced axis, then a reshape for added and removed axes."""
    shape = tuple(call.bound["x"].shape)
    found: list[Step] = []
    axis = 0
    for key in _full_key(call.bound["key"], len(shape)):
        if key is None:
            if axis == 0:
                raise Unreadable(_BATCH)
            continue
        if key != slice(None):
            found.append(_cut_axis(key, axis, shape))
            shape = found[-1].shape or shape
        axis += 1
    after = tuple(call.outputs[0].shape)
    if after != shape:
        return [*found, _to(after)]
    if not found:
        return [Step("identity")]
    return [*found[:-1], Step("slice", found[-1].attrs)]


def _full_key(key: Any, rank: int) -> list[Any]:
    """Return one entry per axis of x, and None for each new axis."""
    keys = list(key) if isinstance(key, (tuple, list)) else [key]
    if any(not (k is None or k is Ellipsis or isinstance(k, (int, slice))) for k in keys):
        raise Unreadable("an index that isn't a number or a slice")
    missing = rank - sum(k is not None and k is not Ellipsis for k in keys)
    if Ellipsis not in keys:
        keys.append(Ellipsis)
    place = keys.index(Ellipsis)
    return [*keys[:place], *[slice(None)] * missing, *keys[place + 1 :]]


def _cut_axis(key: Any, axis: int, shape: Shape) -> Step:
    if axis == 0:
        raise Unreadable(_BATCH)
    if isinstance(key, int):
        key = slice(key, key + 1 if key != -1 else None)
    ends = (key.start, key.stop, key.step)
    if any(end is not None and not isinstance(end, Integral) for end in ends):
        raise Unreadable("a slice whose ends are computed")
    ends = tuple(None if end is None else int(end) for end in ends)
    size = shape[axis]
    left = None if size is None else len(range(*key.indices(size)))
    after = (*shape[:axis], left, *shape[axis + 1 :])
    return _placed(_part(axis, *ends), f"axis{axis}", after)


# Padding and reductions.


def _pad(call: Call) -> list[Step]:
    shape, width = call.bound["x"].shape, call.operation.pad_width
    pads = [tuple(pair) for pair in (list(width) * len(shape) if len(width) == 1 else width)]
    if pads[0] != (0, 0):
        raise Unreadable(_BATCH)
    if pads[-1] == (0, 0):
        attrs: dict[str, Any] = {"padding": tuple(pads[1:-1]), "data_format": "channels_last"}
    elif len(pads) > 1 and pads[1] == (0, 0):
        attrs = {"padding": tuple(pads[2:]), "data_format": "channels_first"}
    else:
        raise Unreadable("pads the channels")
    value = call.bound["constant_values"] or 0
    if call.operation.mode != "constant":
        return [Step("pad", {**attrs, "mode": call.operation.mode, "value": None})]
    if not isinstance(value, (int, float)):
        raise Unreadable("pads with an array")
    if value == 0:
        return [Step("zero_pad", attrs)]
    return [Step("pad", {**attrs, "mode": "constant", "value": float(value)})]


def _reduction(function: str) -> Callable[[Call], list[Step]]:
    def read(call: Call) -> list[Step]:
        operation, rank = call.operation, len(call.bound["x"].shape)
        if operation.axis is None:
            raise Unreadable(_BATCH)
        if getattr(operation, "initial", None) is not None:
            raise Unreadable("with an initial value")
        if call.bound.get("weights") is not None:
            raise Unreadable("with weights")
        given = [operation.axis] if isinstance(operation.axis, int) else operation.axis
        axes = tuple(_axis(axis, rank) for axis in given)
        keepdims = bool(getattr(operation, "keepdims", False))
        return [Step("reduce", {"function": function, "axes": axes, "keepdims": keepdims})]

    return read


RESHAPING: Mapping[str, Callable[[Call], list[Step] | Branches]] = {
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "ExpandDims": _expand_dims,
    "Transpose": _transpose,
    "Swapaxes": _moved(np.swapaxes, "axis1", "axis2"),
    "Moveaxis": _moved(np.moveaxis, "source", "destination"),
    "Concatenate": _concatenate,
    "Stack": _stack,
    "Split": _split,
    "ArraySplit": _split,
    "Unstack": _unstack,
    "GetItem": _get_item,
    "Flip": _flip,
    "Pad": _pad,
    "Sum": _reduction("sum"),
    "Mean": _reduction("mean"),
    "Average": _reduction("mean"),
    "Max": _reduction("max"),
    "Amax": _reduction("max"),
    "Min": _reduction("min"),
    "Amin": _reduction("min"),
    "Prod": _reduction("prod"),
    "Var": _reduction("var"),
    "Std": _reduction("std"),
}
