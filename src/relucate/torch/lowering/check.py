"""Lower another framework's model, and compare the two before anything relies on it.

The check runs both on random weights and random norm statistics (a fresh norm is the identity and
hides mistakes) and on inputs with borders. The other model is its Graph and two functions, one that
calls it and one that sets its weights: which framework it is doesn't matter. Not here: training.
"""

from __future__ import annotations

import numpy as np
import torch

from ...errors import Refused
from ...train.framework import Lowerable
from .lower import Lowered, lower

_TOLERANCE = 1e-3  # of the output's own scale, in float32, through every layer
_LEAST = np.log(1e-6)


def lower_checked(source: Lowerable, *, check: bool = True) -> Lowered:
    """Return the PyTorch module for a classifier, without its final softmax.

    Raises: Refused: something in the model can't be lowered (named), or the check found a
    difference between its output and the lowered module's.
    """
    graph = source.graph
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise Refused(
            f"model '{graph.name}' has {len(graph.inputs)} inputs and {len(graph.outputs)} "
            "outputs; expected one of each."
        )
    lowered = lower(graph, logits=True)
    if check:
        check_lowering(source, lowered)
    return lowered


def check_lowering(source: Lowerable, lowered: Lowered) -> None:
    """Compare `lowered` with `source`: inference and, where nothing is random, training mode.

    In training mode the moving statistics after the call are compared too. Both get random weights
    and statistics for it, and their own back afterwards.
    Raises: Refused with the measured difference.
    """
    graph, random = source.graph, np.random.default_rng(0)
    roles = {key: role for node in graph for role, key in node.arrays.items()}
    own = source.tensors()
    noise = {key: _random_like(roles.get(key), graph.tensors[key], random) for key in own}
    noise = {**graph.tensors, **noise}  # constants stay as they are
    shape = [32 if size is None else size for size in graph.nodes[graph.inputs[0]].shape[1:]]
    x = random.normal(size=(8, *shape)).astype(np.float32)
    modes = [False] if any(node.op == "dropout" for node in graph) else [False, True]
    try:
        for training in modes:
            source.load(noise)
            lowered.set_tensors({key: noise[key] for key in lowered.bindings})
            _agree("output", *_both(source, lowered, x, training), source, training)
            expected = source.tensors()
            for key, array in lowered.get_tensors().items():
                if key in expected:
                    _agree(f"tensor '{key}'", expected[key], array, source, training)
    finally:
        source.load(graph.tensors)
        lowered.set_tensors({key: graph.tensors[key] for key in lowered.bindings})


def _random_like(role: str | None, array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    if role == "moving_variance":
        return random.uniform(0.5, 2.0, array.shape).astype(array.dtype)
    if role == "gamma":
        return random.uniform(0.5, 1.5, array.shape).astype(array.dtype)
    if array.ndim < 2:
        return (0.3 * random.normal(size=array.shape)).astype(array.dtype)
    fan_in = max(int(np.prod(array.shape[:-1])), 1)
    return (random.normal(size=array.shape) / np.sqrt(fan_in)).astype(array.dtype)


def _both(
    source: Lowerable, lowered: Lowered, x: np.ndarray, training: bool
) -> tuple[np.ndarray, np.ndarray]:
    expected = np.asarray(source.call(x, training), np.float64)
    lowered.train(training)
    with torch.no_grad():
        got = lowered(torch.from_numpy(x)).double().numpy()
    if lowered.returns_logits:
        return _floored(_log(expected)), _floored(_log_softmax(got))
    return expected, got


def _agree(
    what: str, expected: np.ndarray, got: np.ndarray, source: Lowerable, training: bool
) -> None:
    scale = max(float(np.abs(expected).max()), 1e-6)
    difference = float(np.abs(expected - got).max()) / scale
    if not difference <= _TOLERANCE:
        mode = "training mode" if training else "inference"
        raise Refused(
            f"the lowered model differs from {source.title} by {difference:.2g} of the {what}'s "
            f"scale in {mode}{source.cause}."
        )


def _log(probabilities: np.ndarray) -> np.ndarray:
    if np.allclose(probabilities.sum(axis=-1), 1.0, atol=1e-3):
        return np.log(np.maximum(probabilities, 1e-30))
    return probabilities  # a log_softmax output already


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _floored(logs: np.ndarray) -> np.ndarray:
    """Cut off what a float32 probability can't tell apart."""
    return np.maximum(logs, _LEAST)
