"""From a Keras model to a checked PyTorch module: read, lower, and compare before it is used.

The check runs both on random weights and random norm statistics (a fresh norm is the identity and
hides mistakes) and on inputs with borders. Needs PyTorch; not here: training.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from ..errors import Refused
from ..graph import Graph
from .reader import read_with_variables

_TOLERANCE = 1e-3  # of the output's own scale, in float32, through every layer


def lower_model(model: keras.Model, *, check: bool = True) -> Any:
    """Return `relucate.torch.Lowered` for a Keras classifier, without its final softmax.

    Raises: Refused: something in the model can't be lowered (named), or the check found a
    difference between Keras's output and the lowered module's.
    """
    from ..torch import lower

    graph, variables = read_with_variables(model)
    lowered = lower(graph, logits=True)
    if check:
        check_lowering(model, graph, variables, lowered)
    return lowered


def check_lowering(
    model: keras.Model, graph: Graph, variables: dict[str, Any], lowered: Any
) -> None:
    """Compare `lowered` with `model`: inference and, where nothing is random, training mode.

    Both get random weights and statistics for it, and their own back afterwards.
    Raises: Refused with the measured difference.
    """
    random = np.random.default_rng(0)
    noise = {key: _random_like(key, array, random) for key, array in graph.tensors.items()}
    x = random.normal(size=(8, *_fixed_shape(model))).astype(np.float32)
    modes = [False] if any(node.op == "dropout" for node in graph) else [False, True]
    try:
        for training in modes:
            _assign(variables, noise)
            lowered.set_tensors({key: noise[key] for key in lowered.bindings})
            _compare(model, lowered, x, training)
    finally:
        _assign(variables, graph.tensors)
        lowered.set_tensors({key: graph.tensors[key] for key in lowered.bindings})


def _assign(variables: dict[str, Any], values: Any) -> None:
    for key, variable in variables.items():
        variable.assign(values[key])


def _random_like(key: str, array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    role = key.rpartition("/")[2]
    if "variance" in role:
        return random.uniform(0.5, 2.0, array.shape).astype(array.dtype)
    if role.startswith("gamma"):
        return random.uniform(0.5, 1.5, array.shape).astype(array.dtype)
    if array.ndim < 2:
        return (0.3 * random.normal(size=array.shape)).astype(array.dtype)
    fan_in = max(int(np.prod(array.shape[:-1])), 1)
    return (random.normal(size=array.shape) / np.sqrt(fan_in)).astype(array.dtype)


def _fixed_shape(model: keras.Model) -> tuple[int, ...]:
    if len(model.inputs) != 1:
        raise Refused(f"model '{model.name}' has {len(model.inputs)} inputs; expected one.")
    shape = model.inputs[0].shape[1:]
    return tuple(32 if size is None else size for size in shape)


def _compare(model: keras.Model, lowered: Any, x: np.ndarray, training: bool) -> None:
    import torch

    expected = np.asarray(keras.ops.convert_to_numpy(model(x, training=training)), np.float64)
    lowered.train(training)
    with torch.no_grad():
        got = lowered(torch.from_numpy(x)).double().numpy()
    if lowered.returns_logits:
        expected, got = _log(expected, model), _log_softmax(got)
    scale = max(float(np.abs(expected).max()), 1e-6)
    difference = float(np.abs(expected - got).max()) / scale
    if not difference <= _TOLERANCE:
        mode = "training mode" if training else "inference"
        raise Refused(
            f"the lowered model differs from Keras ({keras.config.backend()} backend) by "
            f"{difference:.2g} of the output's scale in {mode}."
        )


def _log(probabilities: np.ndarray, model: keras.Model) -> np.ndarray:
    last = probabilities.sum(axis=-1)
    if np.allclose(last, 1.0, atol=1e-3):
        return np.log(np.maximum(probabilities, 1e-30))
    return probabilities  # a log_softmax output already


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
