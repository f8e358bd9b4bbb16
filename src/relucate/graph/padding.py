"""How many zeros go before and after one spatial axis, and what a transposed conv cuts off.

Used by the NumPy evaluator and by the lowering, so that one rule serves both.
"""

from __future__ import annotations

from collections.abc import Sequence

Padding = str | Sequence[Sequence[int]]


def adds_zeros(padding: Padding) -> bool:
    """Return whether this padding adds anything, at some size of the input.

    >>> adds_zeros("same"), adds_zeros("valid"), adds_zeros(((0, 0), (0, 1)))
    (True, False, True)
    """
    if isinstance(padding, str):
        return padding == "same"
    return any(sum(pair) for pair in padding)


def same_padding(size: int, window: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Return (before, after) for an axis of `size` so that the output has ceil(size / stride).

        total = max((ceil(size / stride) - 1) · stride + (window - 1) · dilation + 1 - size, 0)

    The odd zero goes after (TensorFlow's and Keras's rule; PyTorch's symmetric padding differs as
    soon as the stride is above one).

    >>> same_padding(8, window=3, stride=2)
    (0, 1)
    >>> same_padding(7, window=3, stride=2)
    (1, 1)
    """
    reach = (window - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def explicit_padding(
    padding: Padding,
    sizes: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
) -> list[tuple[int, int]]:
    """Return (before, after) for each spatial axis: of "valid", "same" or pairs that are given.

    Raises: ValueError: another word, or pairs for another number of axes.

    >>> explicit_padding("same", (8, 7), (3, 3), (2, 2), (1, 1))
    [(0, 1), (1, 1)]
    >>> explicit_padding(((2, 0),), (8,), (3,), (1,), (1,))
    [(2, 0)]
    """
    if padding == "valid":
        return [(0, 0)] * len(window)
    if padding == "same":
        axes = zip(sizes, window, strides, dilation, strict=True)
        return [same_padding(*axis) for axis in axes]
    return _pairs(padding, len(window))


def _pairs(padding: Padding, rank: int) -> list[tuple[int, int]]:
    if isinstance(padding, str) or len(padding) != rank:
        raise ValueError(f'expected "valid", "same" or {rank} (before, after) pairs, got {padding}')
    return [(int(before), int(after)) for before, after in padding]


def overhang(size: int, window: int, stride: int, dilation: int, pads: tuple[int, int]) -> int:
    """Return how far the last window of a pool with ceil_mode reaches over its padded axis.

    A window counts only if it starts inside the input or the padding before it (PyTorch's rule).

    >>> overhang(6, window=3, stride=2, dilation=1, pads=(0, 0))
    1
    >>> overhang(5, window=2, stride=3, dilation=1, pads=(0, 0))
    0
    """
    reach = (window - 1) * dilation + 1
    padded = size + sum(pads)
    count = -(-(padded - reach) // stride) + 1
    if (count - 1) * stride >= size + pads[0]:
        count -= 1
    return max((count - 1) * stride + reach - padded, 0)


def transpose_crops(
    padding: Padding,
    output_padding: Sequence[int] | None,
    window: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
) -> list[tuple[int, int]]:
    """Return what each axis of a transposed conv's full output loses before and after.

    The full output has (size - 1) · stride + reach values, reach = (window - 1) · dilation + 1.
    Given pairs are cut off as they are, less `output_padding` after (PyTorch's rule); "valid" and
    "same" are Keras's: without an `output_padding` they leave (size - 1) · stride +
    max(reach, stride) and size · stride values. Below zero means zeros to add.

    >>> transpose_crops("same", None, (3,), (2,), (1,))
    [(0, 1)]
    >>> transpose_crops(((1, 1),), (1,), (3,), (2,), (1,))
    [(1, 0)]
    """
    extra: Sequence[int | None] = [None] * len(window) if output_padding is None else output_padding
    reaches = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    if padding in ("valid", "same"):
        axes = zip(reaches, strides, extra, strict=True)
        crop = _valid_crop if padding == "valid" else _same_crop
        return [crop(*axis) for axis in axes]
    pairs = zip(_pairs(padding, len(window)), extra, strict=True)
    return [(before, after - (more or 0)) for (before, after), more in pairs]


def _valid_crop(reach: int, stride: int, extra: int | None) -> tuple[int, int]:
    return 0, -(max(reach, stride) - reach if extra is None else extra)


def _same_crop(reach: int, stride: int, extra: int | None) -> tuple[int, int]:
    # Keras pads the stretched input by this much in all, the larger half before.
    total = stride + reach - 2 if extra is None else reach + reach % 2 - 2 + extra
    before = min(total // 2 + total % 2, reach - 1)
    return reach - 1 - before, reach - 1 - (total - before)
