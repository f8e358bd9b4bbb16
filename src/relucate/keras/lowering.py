"""From a Keras model to a checked PyTorch module: read, lower, and compare before it is used.

The check runs both on random weights and random norm statistics (a fresh norm is the identity and
hides mistakes) and on inputs with borders. Needs PyTorch; not here: training.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from ..errors import Refused
from ..graph import Graph, Node
from ..graph.padding import same_padding
from .reading.reader import functional, read_with_variables

_TOLERANCE = 1e-3  # of the output's own scale, in float32, through every layer
_LEAST = np.log(1e-6)


def lower_model(model: keras.Model, *, check: bool = True) -> Any:
    """Return `relucate.torch.Lowered` for a Keras classifier, without its final softmax.

    Raises: Refused: something in the model can't be lowered (named), or the check found a
    difference between Keras's output and the lowered module's.
    """
    from ..torch import lower

    graph, variables = read_with_variables(model)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise Refused(
            f"model '{model.name}' has {len(graph.inputs)} inputs and {len(graph.outputs)} "
            "outputs; expected one of each."
        )
    lowered = lower(graph, logits=True)
    if check:
        check_lowering(model, graph, variables, lowered)
    return lowered


def check_lowering(
    model: keras.Model, graph: Graph, variables: dict[str, Any], lowered: Any
) -> None:
    """Compare `lowered` with `model`: inference and, where nothing is random, training mode.

    In training mode the moving statistics after the call are compared too. Both get random weights
    and statistics for it, and their own back afterwards.
    Raises: Refused with the measured difference.
    """
    random = np.random.default_rng(0)
    roles = {key: role for node in graph for role, key in node.arrays.items()}
    noise = {key: _random_like(roles.get(key), graph.tensors[key], random) for key in variables}
    noise = {**graph.tensors, **noise}  # constants stay as they are
    x = random.normal(size=(8, *_fixed_shape(model))).astype(np.float32)
    modes = [False] if any(node.op == "dropout" for node in graph) else [False, True]
    try:
        for training in modes:
            _assign(variables, noise)
            lowered.set_tensors({key: noise[key] for key in lowered.bindings})
            outputs = _both(model, lowered, x, training)
            _agree("output", *outputs, graph, training)
            for key, array in lowered.get_tensors().items():
                if key not in variables:
                    continue
                expected = np.asarray(keras.ops.convert_to_numpy(variables[key].value))
                _agree(f"tensor '{key}'", expected, array, graph, training)
    finally:
        _assign(variables, graph.tensors)
        lowered.set_tensors({key: graph.tensors[key] for key in lowered.bindings})


def _assign(variables: dict[str, Any], values: Any) -> None:
    for key, variable in variables.items():
        variable.assign(values[key])


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


def _fixed_shape(model: keras.Model) -> tuple[int, ...]:
    return tuple(32 if size is None else size for size in model.inputs[0].shape[1:])


def _both(
    model: keras.Model, lowered: Any, x: np.ndarray, training: bool
) -> tuple[np.ndarray, np.ndarray]:
    import torch

    (output,) = keras.tree.flatten(_call(model, x, training))
    expected = np.asarray(keras.ops.convert_to_numpy(output), np.float64)
    lowered.train(training)
    with torch.no_grad():
        got = lowered(torch.from_numpy(x)).double().numpy()
    if lowered.returns_logits:
        return _floored(_log(expected)), _floored(_log_softmax(got))
    return expected, got


def _call(model: keras.Model, x: np.ndarray, training: bool) -> Any:
    """Call the model on its one input in the structure that it takes (a tensor, dict or list)."""
    given = keras.tree.pack_sequence_as(functional(model)._inputs_struct, [x])
    try:
        return model(given, training=training)
    except Exception as error:  # a backend raises whatever its kernels raise
        raise Refused(
            f"Keras ({keras.config.backend()} backend) can't run the model on an input of shape "
            f"{x.shape}: {type(error).__name__}: {error}"
        ) from error


def _agree(what: str, expected: np.ndarray, got: np.ndarray, graph: Graph, training: bool) -> None:
    scale = max(float(np.abs(expected).max()), 1e-6)
    difference = float(np.abs(expected - got).max()) / scale
    if not difference <= _TOLERANCE:
        mode = "training mode" if training else "inference"
        raise Refused(
            f"the lowered model differs from Keras ({keras.config.backend()} backend) by "
            f"{difference:.2g} of the {what}'s scale in {mode}{_known_cause(graph)}."
        )


def _known_cause(graph: Graph) -> str:
    names = [node.layer for node in graph if node.op == "avg_pool" and _uneven(graph, node)]
    if keras.config.backend() != "torch" or not names:
        return ""
    return (
        f". '{names[0]}' is an average pool with 'same' padding that is wider on one side: there "
        "Keras's torch backend repeats the border, while its other backends and this lowering "
        "leave the padding out of the average"
    )


def _uneven(graph: Graph, node: Node) -> bool:
    if node.attrs["padding"] == "valid":
        return False
    shape = graph.nodes[node.inputs[0]].shape
    sizes = shape[2:] if node.attrs["data_format"] == "channels_first" else shape[1:-1]
    axes = zip(sizes, node.attrs["window"], node.attrs["strides"], strict=True)
    pads = [same_padding(size or window, window, stride) for size, window, stride in axes]
    return any(before != after for before, after in pads)


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
