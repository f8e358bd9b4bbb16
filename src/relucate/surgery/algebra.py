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
        return (
            _by_group(node, kernel, scale, axis=-1)
            if _groups(node) > 1
            else (kernel * scale[:, None])
        )
    return kernel * scale  # conv and dense: outputs last


def scale_inputs(node: Node, kernel: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the kernel of W (s · x): scale has one entry per input channel."""
    if node.op in {"conv_transpose"}:
        return kernel * scale  # inputs last
    if node.op in {"depthwise_conv", "dense"} or _groups(node) == 1:
        return kernel * scale[:, None]
    return _spread(kernel, scale, _groups(node))


def shift_kernel(node: Node, kernel: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return K with one input channel: what W t is, tap by tap, shape (*window, 1, outputs).

    For conv_transpose (*window, outputs, 1); for dense (1, outputs).
    """
    if node.op == "conv_transpose":
        weighted = kernel * shift
        groups = _groups(node)
        parts = np.split(weighted, groups, axis=-1)
        return np.concatenate([part.sum(axis=-1, keepdims=True) for part in parts], axis=-2)
    if node.op == "depthwise_conv":
        weighted = kernel * shift[:, None]
        return weighted.reshape(*kernel.shape[:-2], 1, -1)
    return scale_inputs(node, kernel, shift).sum(axis=-2, keepdims=True)


def _spread(kernel: np.ndarray, scale: np.ndarray, groups: int) -> np.ndarray:
    """Scale the inputs of a grouped kernel: group j's outputs see group j's inputs."""
    kernels = np.split(kernel, groups, axis=-1)
    scales = np.split(scale, groups)
    return np.concatenate([k * s[:, None] for k, s in zip(kernels, scales, strict=True)], axis=-1)


def _by_group(node: Node, kernel: np.ndarray, scale: np.ndarray, axis: int) -> np.ndarray:
    """Scale the outputs of a grouped transposed kernel (*window, outputs / groups, inputs)."""
    groups = _groups(node)
    kernels = np.split(kernel, groups, axis=axis)
    scales = np.split(scale, groups)
    parts = [k * s[:, None] for k, s in zip(kernels, scales, strict=True)]
    return np.concatenate(parts, axis=axis)


def _groups(node: Node) -> int:
    return int(node.attrs.get("groups", 1))
