"""Activations that Keras doesn't have as functions: PReLU per channel, RReLU, maxout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from ..errors import InputError
from ..order import Order

_MAXOUT = "maxout"


@keras.saving.register_keras_serializable(package="relucate")
class RReLU(layers.Layer):
    """y = x for x ≥ 0, else a · x, with a drawn for every value in training, and its mean else.

    Args: lower, upper: a is uniform between them.
    Source: Xu, Wang, Chen, Li, Empirical Evaluation of Rectified Activations in Convolutional
    Network, 2015 (1/8 and 1/3, as in PyTorch).

    >>> float(RReLU(0.25, 0.75)(keras.ops.convert_to_tensor([-2.0]))[0])
    -1.0
    """

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, **named: Any) -> None:
        super().__init__(**named)
        self.lower, self.upper = lower, upper
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, x: Any, training: bool = False) -> Any:
        slope: Any = (self.lower + self.upper) / 2
        if training:
            slope = keras.random.uniform(
                keras.ops.shape(x), self.lower, self.upper, x.dtype, seed=self.seed_generator
            )
        return keras.ops.where(x >= 0, x, slope * x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "lower": self.lower, "upper": self.upper}


def pieces(order: Order, activation: Any) -> int:
    """Return how many values per output the linear layer computes: two for maxout, else one.

    Raises: InputError: maxout in an order whose linear layer comes behind it.
    """
    if activation != _MAXOUT or not order.has_act:
        return 1
    if order.tokens.index("act") < order.tokens.index("linear"):
        raise InputError(
            f"maxout halves the channels of the linear layer in front of it, but in the order "
            f"'{order}' the linear layer comes behind: choose another order or activation."
        )
    return 2


def _prelu(x: Any, name: str | None, axis: int) -> Any:
    shared = [a for a in range(1, len(x.shape)) if a != axis % len(x.shape)]
    alpha = keras.initializers.Constant(0.25)  # the paper's
    return layers.PReLU(alpha, shared_axes=shared or None, name=name)(x)


def _rrelu(x: Any, name: str | None, axis: int) -> Any:
    return RReLU(name=name)(x)


def _maxout(x: Any, name: str | None, axis: int) -> Any:
    half = x.shape[axis] // 2
    first = (slice(None),) * (axis % len(x.shape))
    return layers.Maximum(name=name)([x[(*first, slice(half))], x[(*first, slice(half, None))]])


OWN_ACTIVATIONS: dict[str, Callable[[Any, str | None, int], Any]] = {
    "prelu": _prelu,
    "rrelu": _rrelu,
    _MAXOUT: _maxout,
}
