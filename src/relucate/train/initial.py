"""Orthonormal and unit-variance initial weights: what is the same in every framework.

    orthonormal: the kernel as a matrix has orthonormal rows or columns
    lsuv: orthonormal, then layer by layer kernel / sqrt(variance of its outputs on a batch)

The values of a layer depend on the seed and the layer's name alone, so that arms which share the
layer start from the same matrix. The scale of lsuv is each arm's own: it depends on what the layer
reads. Pure NumPy. Not here: which layers have a kernel (`keras.initial`, `torch.initial`).

Sources: Saxe, McClelland, Ganguli, Exact solutions to the nonlinear dynamics of learning in deep
linear neural networks, 2014; Mishkin, Matas, All you need is a good init, 2016.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..errors import InputError
from .streams import derive, generator

_TRIES = 10  # as in the paper
_TOLERANCE = 0.01  # of the variance; the paper's 0.1 would leave what one more division removes
_EXAMPLES = 256


def orthonormal_matrix(rows: int, columns: int, seed: int, name: str) -> np.ndarray:
    """Return a random matrix (rows, columns), float64, with orthonormal rows or columns.

    >>> q = orthonormal_matrix(2, 3, 0, "layer")
    >>> np.allclose(q @ q.T, np.eye(2))
    True
    """
    shape = max(rows, columns), min(rows, columns)
    q, r = np.linalg.qr(generator(seed, "orthonormal", name).standard_normal(shape))
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)  # uniform over all such matrices
    return q if rows >= columns else q.T


def unit_variance(variance: Callable[[float], float]) -> float:
    """Return the factor of a kernel with which a layer's outputs have unit variance.

    It is 1 if none is found: the outputs are constant, or the biases alone make the variance.

    Args: variance: scales the kernel by a factor and returns the variance of the outputs.

    >>> unit_variance(lambda factor: 4 * factor**2), unit_variance(lambda factor: 7.0)
    (0.5, 1.0)
    """
    factor = 1.0
    for _ in range(_TRIES):
        found = variance(factor)
        if not 1e-20 < found < math.inf:
            break
        if abs(found - 1) <= _TOLERANCE:
            return factor
        factor /= math.sqrt(found)
    return 1.0


def sample(x: np.ndarray, seed: int) -> np.ndarray:
    """Return the training examples on which lsuv measures, the same for every arm."""
    order = np.random.default_rng(derive(seed, "initial")).permutation(len(x))
    return x[order[:_EXAMPLES]]


def none_found(noun: str) -> InputError:
    """Return the error for a model without a layer whose kernel can be set."""
    return InputError(
        f"the {noun} has no dense or convolutional layer with a kernel of its own, which an "
        "initialization could set: leave it out."
    )
