"""Reshapes, permutations and slices of PyTorch as nodes of a Graph.

The Graph's operations keep the batch axis; a call that changes it is `Unknown`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..program import Data, Rearranged, Unknown, need_data
from ..translator import Translator
from .handler import Handler, module_as


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
    if x.lead and wanted[:1] == [x.lead[0]]:
        return reshape(t, x.apart, wanted)
    if found := t.merged(x.apart, tuple(wanted)):
        return found
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


def _flatten(t: Translator, input: Any, start_dim: int = 0, end_dim: int = -1) -> Data:
    """Emit torch.flatten."""
    x = need_data(input)
    rank = len(x.shape)
    start, end = start_dim % rank, end_dim % rank
    shape = [*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]]
    return reshape(t, x, shape)


def _unflatten(t: Translator, input: Any, dim: int, sizes: Any) -> Data:
    """Emit torch.unflatten."""
    x = need_data(input)
    axis = dim % len(x.shape)
    sizes, size = list(sizes), x.shape[axis]
    if -1 in sizes:
        sizes[sizes.index(-1)] = size // math.prod(n for n in sizes if n != -1)
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
        raise Rearranged("it removes the batch axis")
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


def _unflatten_module(t: Translator, m: Any, input: Any) -> Data:
    if not isinstance(m.dim, int):
        raise Unknown("named axes")
    return _unflatten(t, input, m.dim, m.unflattened_size)


# Slices.


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
    """Emit x[..., index, ...] along one axis, which is removed."""
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


def _flip(t: Translator, input: Any, *dims: Any, **kwargs: Any) -> Data:
    """Emit torch.flip: a slice that goes backwards along each axis."""
    x = need_data(input)
    given = dims[0] if len(dims) == 1 else dims or kwargs["dims"]
    axes = {axis % len(x.shape) for axis in ([given] if isinstance(given, int) else given)}
    if 0 in axes:
        raise Rearranged("it turns the batch axis round")
    if not axes:
        return t.emit("identity", [x])
    for axis in sorted(axes):
        backwards = {"axis": axis, "start": None, "stop": None, "step": -1}
        x = t.emit("slice", [x], backwards)
    return x


def _rot90(t: Translator, input: Any, k: int = 1, dims: Any = (0, 1)) -> Data:
    """Emit torch.rot90: along two axes a flip, a transpose, both, or nothing."""
    x, (one, other) = need_data(input), dims
    if 0 in {axis % len(x.shape) for axis in dims}:
        raise Rearranged("it turns the batch axis")
    flipped: Any = ((), (other,), (one, other), (one,))[k % 4]
    x = _flip(t, x, flipped)
    return transpose(t, x, one, other) if k % 2 else x


def _roll(t: Translator, input: Any, *given: Any, **kwargs: Any) -> Data:
    raise Rearranged("it moves values along an axis, and those at its end to its front")


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


# Pixel and channel shuffles: reshape, permute, reshape.


def _pixel_shuffle(t: Translator, input: Any, upscale_factor: int) -> Data:
    """Emit a pixel shuffle: reshape, permute, reshape."""
    x, r = need_data(input), upscale_factor
    if len(x.shape) != 4 or x.shape[1] % (r * r):
        raise Unknown("not images with a multiple of r² channels")
    b, c, h, w = x.shape
    x = reshape(t, x, [b, c // (r * r), r, r, h, w])
    x = permute(t, x, (0, 1, 4, 2, 5, 3))
    return reshape(t, x, [b, c // (r * r), h * r, w * r])


def _pixel_unshuffle(t: Translator, input: Any, downscale_factor: int) -> Data:
    """Emit the inverse of a pixel shuffle."""
    x, r = need_data(input), downscale_factor
    if len(x.shape) != 4 or x.shape[2] % r or x.shape[3] % r:
        raise Unknown("not images whose sides are multiples of r")
    b, c, h, w = x.shape
    x = reshape(t, x, [b, c, h // r, r, w // r, r])
    x = permute(t, x, (0, 1, 3, 5, 2, 4))
    return reshape(t, x, [b, c * r * r, h // r, w // r])


def _channel_shuffle(t: Translator, input: Any, groups: int) -> Data:
    """Emit a channel shuffle: reshape, permute, reshape."""
    x = need_data(input)
    b, c, *sizes = x.shape
    y = reshape(t, x, [b, groups, c // groups, *sizes])
    y = transpose(t, y, 1, 2)
    return reshape(t, y, x.shape)


FUNCTIONS: dict[str, Handler] = {
    **dict.fromkeys(("view", "reshape"), _view),
    **dict.fromkeys(("view_as", "reshape_as"), _view_as),
    "flatten": _flatten,
    "unflatten": _unflatten,
    "unsqueeze": unsqueeze,
    "squeeze": _squeeze,
    "permute": _permute,
    "transpose": transpose,
    "t": lambda t, input: transpose(t, input, 0, 1),
    "mT": lambda t, input: transpose(t, input, -2, -1),
    "movedim": _movedim,
    **dict.fromkeys(("expand", "expand_as"), _expand),
    "getitem": _getitem,
    "select": select,
    "slice": _slice,
    "narrow": _narrow,
    "flip": _flip,
    "fliplr": lambda t, input: _flip(t, input, 1),
    "flipud": lambda t, input: _flip(t, input, 0),
    "rot90": _rot90,
    "roll": _roll,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "channel_shuffle": _channel_shuffle,
}
MODULES: dict[type, Handler] = {
    nn.Flatten: module_as(_flatten, "start_dim", "end_dim"),
    nn.Unflatten: _unflatten_module,
    nn.PixelShuffle: module_as(_pixel_shuffle, "upscale_factor"),
    nn.PixelUnshuffle: module_as(_pixel_unshuffle, "downscale_factor"),
    nn.ChannelShuffle: module_as(_channel_shuffle, "groups"),
}
