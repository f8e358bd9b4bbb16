"""What a freshly built model computes: its outputs on random inputs, with random weights and norm
statistics (fresh ones are the identity and hide the order).

Tells arms apart whose structure looks alike, and finds a model that can't be trained before any
run starts. Not here: the structure (`arms`). Runs in worker processes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, RelucateError
from ..nets.user_code import where
from ..train.streams import generator

if TYPE_CHECKING:
    from .arms import Built

_EXAMPLES = 8


@dataclass(frozen=True)
class Behaviour:
    """Digest of the outputs at inference and in training; `finite` if they are numbers."""

    digest: str
    finite: bool


def behaviour(built: Built, input_shape: tuple[int, ...], classes: int) -> Behaviour:
    """Return what `built` computes; its tensors are as before afterwards.

    Args: input_shape: of one example, channels last.
    Raises: InputError: the model fails on such a batch. Refused: its outputs aren't logits (Keras:
    or probabilities) of shape (batch, classes).
    """
    x = generator(0, "behaviour").normal(size=(_EXAMPLES, *input_shape)).astype(np.float32)
    _check(built, call(built, x, training=False), classes)
    built.load(random_like(built.tensors))
    try:
        outputs = [np.asarray(call(built, x, training=mode)) for mode in (False, True)]
    finally:
        built.load(built.tensors)
    text = b"".join(np.ascontiguousarray(output, np.float32).tobytes() for output in outputs)
    finite = all(bool(np.isfinite(output).all()) for output in outputs)
    return Behaviour(hashlib.sha256(text).hexdigest(), finite)


def random_like(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return other values for float tensors, the same for the same name and shape.

    What is positive (a variance) stays so; zeros (a bias, a last kernel) become something else.
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


def call(built: Built, x: np.ndarray, *, training: bool) -> Any:
    """Call the model on a batch (channels last) without gradients, its randomness seeded.

    Raises: InputError: it fails, with the user's line.
    """
    try:
        return (_call_keras if built.framework == "keras" else _call_torch)(
            built.model, x, training
        )
    except RelucateError:
        raise
    except Exception as error:
        layout = "" if built.framework == "keras" else " (torch modules get channels first)"
        raise InputError(
            f"the model fails on a batch of {len(x)} examples of shape {x.shape[1:]}{layout}: "
            f"{where(error)}"
        ) from error


def _call_keras(model: Any, x: np.ndarray, training: bool) -> np.ndarray:
    from ..keras.trainer import forward, takes_channels_first

    first = takes_channels_first(model, x.shape[1:])
    return forward(model, np.moveaxis(x, -1, 1) if first else x, training=training)


def _call_torch(model: Any, x: np.ndarray, training: bool) -> Any:
    import torch

    model.train(training)
    torch.manual_seed(0)
    batch = torch.from_numpy(x)
    with torch.no_grad():
        return model(batch.movedim(-1, 1) if batch.ndim > 2 else batch)


def _check(built: Built, outputs: Any, classes: int) -> None:
    if built.framework == "torch":
        from ..torch.trainer import check_logits

        check_logits(outputs, classes)
        return
    from ..keras.trainer import check_shape

    check_shape(getattr(outputs, "shape", None), classes)
