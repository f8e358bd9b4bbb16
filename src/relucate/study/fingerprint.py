"""Identify a built model: its structure, and its outputs with random weights and norm statistics.

Initial statistics are the identity and would hide the order. Structure and outputs distinguish
arms, even if their structures look alike, and show before any run starts that a model can't be
trained. Runs in worker processes. Not here: building (`arms`), handling equal arms (`tasks`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..train.run import array_digest
from ..train.streams import generator
from ..train.task import CLASSIFICATION, Task
from .arms import Built, call
from .identity import code_digest

_EXAMPLES = 8


@dataclass(frozen=True)
class Behaviour:
    """Digest of the outputs at inference and in training; `finite` if they are numbers.

    shape: of the outputs for a batch.
    """

    digest: str
    finite: bool
    shape: tuple[int, ...]


def fingerprint(built: Built, behaves: Behaviour) -> str:
    """Return a digest of what was built: structure, tensors and behaviour.

    Two builds with the same seed agree only if they would train the same network. The structure
    alone isn't enough (a layer may hide its order in compiled code), nor are outputs alone (a
    regularizer, an optimizer).
    """
    structure = built.framework.structure(built.model, built.read)
    text = code_digest(structure) + array_digest(built.tensors) + behaves.digest
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def behaviour(
    built: Built,
    input_shape: tuple[int, ...],
    classes: int,
    *,
    task: Task = CLASSIFICATION,
    tokens: np.ndarray | None = None,
    label_shape: tuple[int, ...] = (),
) -> Behaviour:
    """Return what `built` computes; its tensors are restored afterwards.

    Args:
        input_shape: of one example, channels last.
        task: what it is trained for; label_shape: of one example's label.
        tokens: the examples, which a random number can't replace; None: random floats.
    Raises: InputError: the model fails on such a batch. Refused: its outputs don't fit the task.
    """
    framework, model = built.framework, built.model
    x = examples(_EXAMPLES, input_shape, tokens)
    outputs = call(framework, model, x, training=False)
    framework.check_outputs(outputs, classes, task, label_shape)
    built.load(random_like(built.tensors))
    try:
        outputs = [np.asarray(call(framework, model, x, training=mode)) for mode in (False, True)]
    finally:
        built.load(built.tensors)
    text = b"".join(np.ascontiguousarray(output, np.float32).tobytes() for output in outputs)
    finite = all(bool(np.isfinite(output).all()) for output in outputs)
    return Behaviour(hashlib.sha256(text).hexdigest(), finite, outputs[0].shape)


def examples(count: int, input_shape: tuple[int, ...], tokens: np.ndarray | None) -> np.ndarray:
    """Return a batch to call a model on: the first tokens, or random floats if there are none."""
    if tokens is not None:
        return np.array(tokens[:count])
    return generator(0, "behaviour").normal(size=(count, *input_shape)).astype(np.float32)


def random_like(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return other values for float tensors, the same for the same name and shape.

    Positive values (a variance) stay positive; zeros (a bias, a last kernel) become nonzero.
    """
    return {name: _random_like(name, array) for name, array in tensors.items()}


def _random_like(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    random = generator(0, "behaviour", name)
    factor = random.uniform(0.5, 1.5, array.shape)
    noise = 0.1 * random.normal(size=array.shape)
    if array.ndim < 2:
        return (array * factor + np.abs(noise)).astype(array.dtype)
    fan = np.sqrt(array.size / max(array.shape))
    return (array * factor + noise / fan).astype(array.dtype)
