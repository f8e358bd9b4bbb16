"""What the reader makes of PyTorch's functions that cut, join and sum up values.

The Graph's operations leave the batch axis alone; a call that doesn't is `Unknown`. Names and
arguments are PyTorch's, as in `functions`. Called by `translator` through the table at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...graph.inference import output_shape
from .program import Data, Parts, Unknown, need_data
from .shaping import reshape, unsqueeze
from .translator import Translator

Handler = Callable[..., Any]


def cut(t: Translator, x: Data, axis: int, start: Any, stop: Any, step: Any = None) -> Data:
    """Emit a slice along one axis, or nothing if it keeps everything."""
    size = x.shape[axis]
    kept = range(size)[slice(start, stop, step)]
    if len(kept) == size and (step or 1) == 1:
        return x
    if axis == 0:
        raise Unknown("it takes some examples of the batch")
    if not kept:
        raise Unknown("it keeps nothing")
    attrs = {"axis": axis, "start": kept.start, "stop": kept.stop, "step": kept.step}
    return t.emit("slice", [x], attrs, alias=True)


def select(t: Translator, input: Any, dim: int, index: int) -> Data:
    """Emit x[..., index, ...] along one axis, which goes."""
    x = need_data(input)
    axis = dim % len(x.shape)
    if not isinstance(index, int):
        raise Unknown("an index that isn't a number")
    if axis == 0:
        raise Unknown("it takes some examples of the batch")
    index = range(x.shape[axis])[index]
    found = cut(t, x, axis, index, index + 1)
    return reshape(t, found, [*x.shape[:axis], *x.shape[axis + 1 :]])


def _slice(
    t: Translator, input: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Data:
    x = need_data(input)
    return cut(t, x, dim % len(x.shape), start, end, step)


def _narrow(t: Translator, input: Any, dim: int, start: int, length: int) -> Data:
    x = need_data(input)
    return cut(t, x, dim % len(x.shape), start, start + length)


def _getitem(t: Translator, input: Any, index: Any) -> Any:
    x = need_data(input)
    items = list(index) if isinstance(index, tuple) else [index]
    known = (int, slice, type(None), type(Ellipsis))
    if any(isinstance(item, bool) or not isinstance(item, known) for item in items):
        raise Unknown("an index that isn't made of numbers and slices")
    taken = sum(item is not None and item is not Ellipsis for item in items)
    fill = [slice(None)] * (len(x.shape) - taken)
    at = items.index(Ellipsis) if Ellipsis in items else len(items)
    items = items[:at] + fill + items[at + 1 :]
    axis = 0
    for item in items:
        if item is None:
            x = unsqueeze(t, x, axis)
        elif isinstance(item, int):
            x = select(t, x, axis, item)
            continue
        else:
            x = cut(t, x, axis, item.start, item.stop, item.step)
        axis += 1
    return x


def _split(
    t: Translator,
    input: Any,
    split_size: Any = None,
    dim: int = 0,
    split_sizes: Any = None,
    split_size_or_sections: Any = None,
) -> Parts:
    x = need_data(input)
    given = [s for s in (split_size, split_sizes, split_size_or_sections) if s is not None]
    axis = dim % len(x.shape)
    total = x.shape[axis]
    if axis == 0:
        raise Unknown("it splits the batch")
    size = given[0]
    sizes = list(size) if not isinstance(size, int) else [size] * (total // size)
    if isinstance(size, int) and total % size:
        sizes.append(total % size)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return Parts([_piece(t, x, axis, e - n, e) for e, n in zip(ends, sizes, strict=True)])


def _piece(t: Translator, x: Data, axis: int, start: int, stop: int) -> Handler:
    return t.later(lambda: cut(t, x, axis, start, stop))


def _chunk(t: Translator, input: Any, chunks: int, dim: int = 0) -> Parts:
    x = need_data(input)
    size = -(-x.shape[dim] // chunks)
    return _split(t, x, size, dim)


def _unbind(t: Translator, input: Any, dim: int = 0) -> Parts:
    x = need_data(input)
    if dim % len(x.shape) == 0:
        raise Unknown("it splits the batch")

    def one(index: int) -> Handler:
        return t.later(lambda: select(t, x, dim, index))

    return Parts([one(index) for index in range(x.shape[dim])])


# Joining.


def _cat(t: Translator, tensors: Any, dim: int = 0, axis: int | None = None) -> Data:
    found = t.items(tensors)
    rank = max(len(x.shape) for x in found)
    at = (dim if axis is None else axis) % rank
    if at == 0:
        raise Unknown("it joins batches")
    inputs = [_as_data(t, x, found, rank) for x in found if math.prod(x.shape)]
    return inputs[0] if len(inputs) == 1 else t.emit("concat", inputs, {"axis": at})


def _as_data(t: Translator, x: Any, others: Sequence[Any], rank: int) -> Data:
    if isinstance(x, Data):
        return x
    batch = next(d for d in others if isinstance(d, Data))
    return t.constant(x, batch, rank)


def _stack(t: Translator, tensors: Any, dim: int = 0) -> Data:
    found = [need_data(x) for x in t.items(tensors)]
    axis = dim % (len(found[0].shape) + 1)
    if axis == 0:
        raise Unknown("it puts an axis before the batch axis")
    return _cat(t, [unsqueeze(t, x, axis) for x in found], axis)


# Summing up.


def _reduction(function: str) -> Handler:
    def handler(
        t: Translator, input: Any, dim: Any = None, keepdim: bool = False, **kwargs: Any
    ) -> Any:
        x = need_data(input)
        if kwargs.keys() - {"dtype"}:
            raise Unknown("called with arguments that the reader doesn't know")
        keepdim = kwargs.get("keepdims", keepdim)
        return reduced(t, function, x, dim, keepdim)

    return handler


def reduced(t: Translator, function: str, x: Data, dim: Any, keepdims: bool) -> Data:
    """Emit a reduction; the mean and maximum over all of an image are a global pool."""
    rank = len(x.shape)
    if dim is None or (not isinstance(dim, int) and not len(dim)):
        raise Unknown("over all axes, the batch axis too")
    axes = tuple(sorted({a % rank for a in ([dim] if isinstance(dim, int) else dim)}))
    if 0 in axes:
        raise Unknown("over the batch axis")
    attrs = {"axes": axes, "keepdims": bool(keepdims)}
    pools = {"mean": "global_avg_pool", "max": "global_max_pool"}
    if rank >= 4 and axes == tuple(range(2, rank)) and function in pools:
        return t.emit(pools[function], [x], attrs)
    return t.emit("reduce", [x], {"function": function} | attrs)


def _extreme(function: str) -> Handler:
    def handler(t: Translator, input: Any, dim: Any = None, keepdim: bool = False) -> Any:
        x = need_data(input)
        if isinstance(dim, (Data, Tensor)):  # of two tensors
            if not isinstance(dim, Data):
                raise Unknown("with a constant")
            return t.emit(f"{function}imum", [x, dim])
        if not isinstance(dim, int):
            raise Unknown("over all axes, the batch axis too")

        def values() -> Data:
            return reduced(t, function, x, dim, keepdim)

        def indices() -> Data:
            shape = output_shape("reduce", {"axes": (dim,), "keepdims": keepdim}, {}, [x.shape])
            return t.unknown(f"arg{function}", "indices", [x], shape, torch.int64)

        return Parts([t.later(values), t.later(indices)])

    return handler


def _spread(function: str) -> Handler:
    def handler(
        t: Translator,
        input: Any,
        dim: Any = None,
        unbiased: Any = True,
        keepdim: bool = False,
        correction: Any = 1,
    ) -> Any:
        if unbiased or (correction and unbiased is None):
            raise Unknown("with Bessel's correction")
        return reduced(t, function, need_data(input), dim, keepdim)

    return handler


CUTTING: dict[str, Handler] = {
    "getitem": _getitem,
    "select": select,
    "slice": _slice,
    "narrow": _narrow,
    **dict.fromkeys(("split", "split_with_sizes"), _split),
    "chunk": _chunk,
    "unbind": _unbind,
    "cat": _cat,
    "stack": _stack,
    **{name: _reduction(name) for name in ("sum", "mean", "prod")},
    "amax": _reduction("max"),
    "amin": _reduction("min"),
    "max": _extreme("max"),
    "min": _extreme("min"),
    "var": _spread("var"),
    "std": _spread("std"),
}
