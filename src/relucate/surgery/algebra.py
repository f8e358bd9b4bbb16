"""What a scale and a shift per channel do to a linear layer's kernel and bias, before or behind it.

    behind:   s · (W x + b) + t   =  (s W) x + (s b + t)
    before:   W (s · x + t) + b   =  (W s) x + (b + W t)       where no zero padding is between

Arrays to arrays, in float64, in Keras's layouts (`graph.nodes`). Where the shift can't be a bias
(zero padding, transposed convolutions), `shift_kernel` gives the kernel that a constant one would
need: W (s · x + t) = (W s) x + K 1, K = Σ over input channels of W t.
"""

from __future__ import annotations

import numpy as np

from ..graph import Node


def scale_outputs(node: Node, kernel: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the kernel of s · (W x): scale has one entry per output channel."""
    if node.op == "depthwise_conv":
        return kernel * scale.reshape(kernel.shape[-2:])
    if node.op == "conv_transpose":
        return _by_group(kernel, scale, _groups(node))
    return kernel * scale  # conv and dense: outputs last


def scale_inputs(node: Node, kernel: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the kernel of W (s · x): scale has one entry per input channel."""
    if node.op == "conv_transpose":
        return kernel * scale  # inputs last
    # A depthwise kernel has one group per channel, on an axis of its own; `groups` doesn't count.
    return _by_group(kernel, scale, 1 if node.op == "depthwise_conv" else _groups(node))


def shift_kernel(node: Node, kernel: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return K with one input channel: what W t is, tap by tap, shape (*window, 1, outputs).

    For conv_transpose (*window, outputs, 1); for dense (1, outputs).
    """
    if node.op == "conv_transpose":
        parts = np.split(kernel * shift, _groups(node), axis=-1)
        return np.concatenate([part.sum(axis=-1, keepdims=True) for part in parts], axis=-2)
    if node.op == "depthwise_conv":
        return (kernel * shift[:, None]).reshape(*kernel.shape[:-2], 1, -1)
    return scale_inputs(node, kernel, shift).sum(axis=-2, keepdims=True)


def add_identity(
    node: Node, kernel: np.ndarray, tap: tuple[int, ...], scale: np.ndarray
) -> np.ndarray:
    """Return the kernel of W x + s · x: `tap` reads the position of the output itself.

    Not for conv_transpose; the layer has as many outputs as inputs.
    """
    made, outputs = kernel.copy(), np.arange(len(scale))
    if node.op == "depthwise_conv":
        made[(*tap, outputs, 0)] += scale
    else:
        made[(*tap, outputs % kernel.shape[-2], outputs)] += scale  # its place within its group
    return made


def _by_group(kernel: np.ndarray, scale: np.ndarray, groups: int) -> np.ndarray:
    """Scale the last axis but one of a kernel, of which each group of the last has its share."""
    parts = zip(np.split(kernel, groups, axis=-1), np.split(scale, groups), strict=True)
    return np.concatenate([part * own[:, None] for part, own in parts], axis=-1)


def _groups(node: Node) -> int:
    return int(node.attrs.get("groups", 1))
