"""Orthonormal and LSUV initial weights for Keras models (the mathematics: `train.initial`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from ..train.initial import none_found, orthonormal_matrix, unit_variance
from .statistics import calls_replaced, forward, only_norms_train

_LINEAR = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)


def orthonormal(
    model: keras.Model, *, seed: int = 0, names: Mapping[str, str] | None = None
) -> list[str]:
    """Give every Dense, convolution and depthwise convolution an orthonormal kernel, in place.

        K (height · width · in, out):  K Kᵀ = I  or  Kᵀ K = I

    Biases and all other layers keep their values, and so does a quantized kernel.

    Args: names: of the kernels (their `path`) -> the names that their values are drawn by, by
        default their own.
    Returns: the paths of the kernels that were set.
    Raises: InputError: there are none.
    Source: Saxe, McClelland, Ganguli, Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks, 2014.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="dense")])
    >>> [path.rpartition("/")[2] for path in orthonormal(model)]
    ['kernel']
    >>> kernel = np.asarray(model.get_weights()[0])
    >>> np.allclose(kernel.T @ kernel, np.eye(4), atol=1e-6)
    True
    """
    for layer in _linear(model):
        path, shape = str(layer.kernel.path), tuple(layer.kernel.shape)
        inputs = np.prod(shape[:-2] if isinstance(layer, _DEPTHWISE) else shape[:-1], dtype=int)
        outputs = np.prod(shape, dtype=int) // inputs
        matrix = orthonormal_matrix(int(inputs), int(outputs), seed, (names or {}).get(path, path))
        layer.kernel.assign(matrix.reshape(shape))
    return kernels(model)


def kernels(model: keras.Model) -> list[str]:
    """Return the paths of the kernels that an initialization sets.

    Raises: InputError: there are none.
    """
    found = _linear(model)
    if not found:
        raise none_found("Keras model")
    return [layer.kernel.path for layer in found]


def lsuv(
    model: keras.Model, x: np.ndarray, *, seed: int = 0, names: Mapping[str, str] | None = None
) -> list[str]:
    """Give every Dense, convolution and depthwise convolution outputs of unit variance on `x`.

        K orthonormal;  then, in the order of the calls:  K ← K / sqrt(var(x K + b)), until it is 1

    In place. The outputs are those in front of a layer's own activation. Norms use the statistics
    of `x`, as in training, and keep their moving ones; dropout is off. A layer that is called
    several times takes its scale from the first call, and one whose outputs are constant keeps its
    orthonormal kernel.

    Args: x: a batch as the model takes it; names: as for `orthonormal`.
    Returns: the paths of the kernels that were set.
    Raises: InputError: there are none.
    Source: Mishkin, Matas, All you need is a good init, 2016.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="dense")])
    >>> x = np.random.default_rng(0).standard_normal((100, 8)).astype("float32")
    >>> _ = lsuv(model, x)
    >>> bool(abs(model.predict(x, verbose=0).var() - 1) < 0.01)
    True
    """
    done = orthonormal(model, seed=seed, names=names)
    rescaled = calls_replaced(_linear(model), _first_call)
    with _statistics_kept(model), only_norms_train(model), rescaled:
        forward(model, x, training=True)
    return done


def _linear(model: keras.Model) -> list[Any]:
    layers = model._flatten_layers(include_self=False)
    return [
        layer
        for layer in layers
        if isinstance(layer, (*_LINEAR, *_DEPTHWISE))
        and getattr(layer, "quantization_mode", None) is None
        and isinstance(layer.kernel, keras.Variable)  # with LoRA weights it is computed
    ]


@contextmanager
def _statistics_kept(model: keras.Model) -> Iterator[None]:
    kept = [(v, keras.ops.convert_to_numpy(v.value)) for v in model.non_trainable_variables]
    kept = [(variable, np.array(value)) for variable, value in kept]
    try:
        yield
    finally:
        for variable, value in kept:
            variable.assign(value)


def _first_call(layer: Any) -> Any:
    """Return a `call` that rescales the layer's kernel and then is the layer's own again."""
    own, fused = layer.call, layer.activation
    start = np.array(keras.ops.convert_to_numpy(layer.kernel.value), np.float32)

    def rescaled(*args: Any, **kwargs: Any) -> Any:
        vars(layer).pop("call")

        def outputs(factor: float) -> Any:
            layer.kernel.assign(start * factor)
            return own(*args, **kwargs)

        layer.activation = keras.activations.linear
        try:
            factor = unit_variance(lambda f: float(np.var(_array(outputs(f)))))
            output = outputs(factor)
        finally:
            layer.activation = fused
        return fused(output)

    return rescaled


def _array(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor), np.float32)
