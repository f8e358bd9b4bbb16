"""What the reader makes of PyTorch's functions that look at, copy and move values.

The Graph's operations leave the batch axis alone; a call that doesn't is `Unknown`. Names and
arguments are PyTorch's, as in `functions`. Called by `translator` through the table at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .program import Data, Rearranged, Unknown, need_data
from .translator import Translator

Handler = Callable[..., Any]


# Questions about a tensor: their answers are numbers.


def _getattr(t: Translator, input: Any, name: str) -> Any:
    x = need_data(input)
    rank = len(x.shape)
    if name in ("T", "mT"):
        if name == "T" and rank != 2:
            return permute(t, x, tuple(reversed(range(rank))))
        return transpose(t, x, -2, -1)
    answers = {
        "shape": torch.Size(x.shape),
        "ndim": rank,
        "dtype": x.dtype,
        "device": t.device,
        "is_cuda": t.device.type == "cuda",
        "requires_grad": False,
        "data": x,
        "is_nested": False,
        "is_quantized": False,
    }
    if name not in answers:
        raise Unknown(f"the attribute {name}")
    return answers[name]


def _size(t: Translator, input: Any, dim: int | None = None) -> Any:
    shape = torch.Size(need_data(input).shape)
    return shape if dim is None else shape[dim]


def _dim(t: Translator, input: Any) -> int:
    return len(need_data(input).shape)


def _numel(t: Translator, input: Any) -> int:
    return math.prod(need_data(input).shape)


def _is_floating_point(t: Translator, input: Any) -> bool:
    return need_data(input).dtype.is_floating_point


def _nothing(t: Translator, *args: Any, **kwargs: Any) -> None:
    """A check, which gives nothing."""


# Copies: the same values.


def _same(t: Translator, input: Any, *args: Any, **kwargs: Any) -> Data:
    return need_data(input)


def _clone(t: Translator, input: Any, *args: Any, **kwargs: Any) -> Data:
    return t.fresh(need_data(input))


def _to(t: Translator, input: Any, *args: Any, **kwargs: Any) -> Data:
    x, wanted = need_data(input), [*args, *kwargs.values()]
    kinds = [w.dtype if isinstance(w, (Data, Tensor)) else w for w in wanted]
    for kind in kinds:
        if isinstance(kind, torch.dtype):
            x = cast(x, kind)
    return x


def _cast(kind: torch.dtype) -> Handler:
    def handler(t: Translator, input: Any, *args: Any, **kwargs: Any) -> Data:
        return cast(need_data(input), kind)

    return handler


def cast(x: Data, kind: torch.dtype) -> Data:
    """Return x as another floating-point type: the Graph doesn't tell them apart."""
    if kind == x.dtype:
        return x
    if not (kind.is_floating_point and x.dtype.is_floating_point):
        raise Unknown(f"a cast from {x.dtype} to {kind}")
    return Data(x.name, x.shape, kind, x.storage)


# Moving values.


def reshape(t: Translator, x: Data, shape: Sequence[Any]) -> Data:
    """Emit a reshape that keeps the batch axis, a flatten, or nothing if it changes nothing."""
    total, wanted = math.prod(x.shape), list(shape)
    if not all(isinstance(n, int) for n in wanted):
        raise Unknown("to a shape that isn't made of numbers")
    if -1 in wanted:
        known = math.prod(n for n in wanted if n != -1)
        wanted[wanted.index(-1)] = total // known if known else 0
    if math.prod(wanted) != total:
        raise Unknown(f"{x.shape} to {tuple(shape)}")
    if tuple(wanted) == x.shape:
        return x
    if not wanted or not x.shape or wanted[0] != x.shape[0]:
        raise Rearranged("it moves values across the batch axis")
    if len(wanted) == 2:
        return t.emit("flatten", [x], alias=True)
    return t.emit("reshape", [x], {"target": tuple(wanted[1:])}, alias=True)


def _view(t: Translator, input: Any, *shape: Any, **kwargs: Any) -> Data:
    x = need_data(input)
    shape = shape or (kwargs.get("shape") or kwargs.get("size"),)
    if len(shape) == 1 and isinstance(shape[0], torch.dtype):
        raise Unknown("it reads memory as another type")
    sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
    return reshape(t, x, list(sizes))


def _view_as(t: Translator, input: Any, other: Any) -> Data:
    if not isinstance(other, (Data, Tensor)):
        raise Unknown("to the shape of something else")
    return reshape(t, need_data(input), list(other.shape))


def flatten(t: Translator, input: Any, start_dim: int = 0, end_dim: int = -1) -> Data:
    """Emit torch.flatten."""
    x = need_data(input)
    rank = len(x.shape)
    start, end = start_dim % rank, end_dim % rank
    shape = [*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]]
    return reshape(t, x, shape)


def unflatten(t: Translator, input: Any, dim: int, sizes: Any) -> Data:
    """Emit torch.unflatten."""
    x = need_data(input)
    axis = dim % len(x.shape)
    sizes, size = list(sizes), x.shape[axis]
    if -1 in sizes:
        sizes[sizes.index(-1)] = size // math.prod(n for n in sizes if n != -1)
    if axis == 0:
        raise Rearranged("it splits the batch axis")
    return reshape(t, x, [*x.shape[:axis], *sizes, *x.shape[axis + 1 :]])


def unsqueeze(t: Translator, input: Any, dim: int) -> Data:
    """Emit torch.unsqueeze."""
    x = need_data(input)
    axis = dim % (len(x.shape) + 1)
    if axis == 0:
        raise Rearranged("it puts an axis before the batch axis")
    return reshape(t, x, [*x.shape[:axis], 1, *x.shape[axis:]])


def _squeeze(t: Translator, input: Any, dim: Any = None) -> Data:
    x = need_data(input)
    rank = len(x.shape)
    given = range(rank) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {axis % rank for axis in given if x.shape[axis] == 1}
    if 0 in gone:
        raise Rearranged("it takes the batch axis away")
    return reshape(t, x, [n for axis, n in enumerate(x.shape) if axis not in gone])


def permute(t: Translator, x: Data, dims: Sequence[int]) -> Data:
    """Emit a permutation of all axes, or nothing if it changes nothing."""
    rank = len(x.shape)
    axes = tuple(axis % rank for axis in dims)
    if axes == tuple(range(rank)):
        return x
    if axes[0] != 0:
        raise Rearranged("it moves the batch axis")
    return t.emit("permute", [x], {"dims": axes[1:]}, alias=True)


def _permute(t: Translator, input: Any, *dims: Any, **kwargs: Any) -> Data:
    dims = dims or (kwargs["dims"],)
    return permute(t, need_data(input), dims[0] if not isinstance(dims[0], int) else dims)


def transpose(t: Translator, input: Any, dim0: int, dim1: int) -> Data:
    """Emit torch.transpose."""
    x = need_data(input)
    axes = list(range(len(x.shape)))
    axes[dim0], axes[dim1] = axes[dim1], axes[dim0]
    return permute(t, x, axes)


def _matrix_transpose(t: Translator, input: Any) -> Data:
    return transpose(t, input, -2, -1)


def _t(t: Translator, input: Any) -> Data:
    return transpose(t, input, 0, 1)


def _movedim(t: Translator, input: Any, source: Any, destination: Any) -> Data:
    x = need_data(input)
    moved = torch.movedim(torch.empty([1] * len(x.shape)), source, destination)
    if isinstance(source, int):
        source, destination = [source], [destination]
    rank = moved.ndim
    to = {d % rank: s % rank for s, d in zip(source, destination, strict=True)}
    rest = iter(axis for axis in range(rank) if axis not in to.values())
    return permute(t, x, [to[axis] if axis in to else next(rest) for axis in range(rank)])


def _expand(t: Translator, input: Any, *sizes: Any, **kwargs: Any) -> Data:
    x = need_data(input)
    wanted = sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    if isinstance(wanted, (Data, Tensor)):  # expand_as
        wanted = wanted.shape
    if len(wanted) == len(x.shape) and all(
        w in (-1, n) for w, n in zip(wanted, x.shape, strict=True)
    ):
        return x
    raise Unknown("it repeats values")


SHAPING: dict[str, Handler] = {
    "getattr": _getattr,
    "size": _size,
    "dim": _dim,
    "ndimension": _dim,
    "numel": _numel,
    "nelement": _numel,
    "is_floating_point": _is_floating_point,
    "_assert": _nothing,
    "_assert_tensor_metadata": _nothing,
    **dict.fromkeys(("contiguous", "cpu", "cuda", "detach", "alias", "requires_grad"), _same),
    **dict.fromkeys(("clone", "lift_fresh_copy"), _clone),
    **dict.fromkeys(("to", "type", "type_as", "_to_copy"), _to),
    "float": _cast(torch.float32),
    "double": _cast(torch.float64),
    "half": _cast(torch.float16),
    "bfloat16": _cast(torch.bfloat16),
    **dict.fromkeys(("view", "reshape"), _view),
    **dict.fromkeys(("view_as", "reshape_as"), _view_as),
    "flatten": flatten,
    "unflatten": unflatten,
    "unsqueeze": unsqueeze,
    "squeeze": _squeeze,
    "permute": _permute,
    "transpose": transpose,
    "t": _t,
    "mT": _matrix_transpose,
    "movedim": _movedim,
    **dict.fromkeys(("expand", "expand_as"), _expand),
}
