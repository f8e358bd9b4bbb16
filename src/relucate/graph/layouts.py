"""How PyTorch's weights are turned into the Graph's layouts and back.

    conv            (out, in / groups, *window)  <->  (*window, in / groups, out)
    conv_transpose  (in, out / groups, *window)  <->  (*window, out / groups, in)
    depthwise       (channels · multiplier, 1, *window)  <->  (*window, channels, multiplier)
    dense           (out, in)  <->  (in, out)
    less_one        a scale that a module keeps as what it is above 1 (Gemma's RMS norm)
    same            as it is

Used by the reader, the writer and the lowering.
"""

from __future__ import annotations

import numpy as np


def to_graph(array: np.ndarray, layout: str, channels: int = 1) -> np.ndarray:
    """Turn a PyTorch weight into the Graph's layout; `channels` (depthwise): how many come in.

    >>> to_graph(np.zeros((6, 1, 3, 5)), "depthwise", channels=2).shape
    (3, 5, 2, 3)
    """
    if layout == "dense":
        return array.T
    if layout == "conv":  # and transposed convs: the first two axes go last, swapped
        return array.transpose(*range(2, array.ndim), 1, 0)
    if layout == "depthwise":
        moved = array.reshape(channels, -1, *array.shape[2:])
        return moved.transpose(*range(2, moved.ndim), 0, 1)
    return array + 1 if layout == "less_one" else array


def to_torch(array: np.ndarray, layout: str) -> np.ndarray:
    """Turn a tensor of the Graph into PyTorch's layout.

    >>> to_torch(np.zeros((3, 5, 2, 3)), "depthwise").shape
    (6, 1, 3, 5)
    """
    window = array.ndim - 2
    if layout == "dense":
        return array.T
    if layout == "conv":
        return array.transpose(window + 1, window, *range(window))
    if layout == "depthwise":
        moved = array.transpose(window, window + 1, *range(window))
        return moved.reshape(-1, 1, *array.shape[:window])
    return array - 1 if layout == "less_one" else array
