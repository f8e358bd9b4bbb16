"""PyTorch's functions that join and split values, as nodes of a Graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from ..program import Data, Parts, Unknown, need_data
from ..translator import Translator
from .axes import cut, select, unsqueeze
from .handler import Handler


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
    pieces = [partial(cut, t, x, axis, e - n, e) for e, n in zip(ends, sizes, strict=True)]
    return Parts([t.later(piece) for piece in pieces])


def _chunk(t: Translator, input: Any, chunks: int, dim: int = 0) -> Parts:
    x = need_data(input)
    size = -(-x.shape[dim] // chunks)
    return _split(t, x, size, dim)


def _unbind(t: Translator, input: Any, dim: int = 0) -> Parts:
    x = need_data(input)
    if dim % len(x.shape) == 0:
        raise Unknown("it splits the batch")
    return Parts([t.later(partial(select, t, x, dim, index)) for index in range(x.shape[dim])])


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


FUNCTIONS: dict[str, Handler] = {
    **dict.fromkeys(("split", "split_with_sizes"), _split),
    "chunk": _chunk,
    "unbind": _unbind,
    "cat": _cat,
    "stack": _stack,
}
