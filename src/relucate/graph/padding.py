"""How many zeros Keras's "same" padding puts before and after one spatial axis.

Used by the NumPy evaluator and by the lowering, so that one rule serves both.
"""

from __future__ import annotations


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
