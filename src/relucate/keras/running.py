"""Run Keras models on arrays: outputs at inference, and the moments of chosen tensors."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np

from .reading.norm_layers import NORM_LAYERS


def no_gradients() -> AbstractContextManager[Any]:
    """Switch off recording for gradients in calls of models; only the torch backend records."""
    if keras.config.backend() != "torch":
        return nullcontext()
    return sys.modules["torch"].no_grad()  # Keras has imported its backend


def outputs(model: keras.Model, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return a model's outputs at inference, flat, for one array per input."""
    arrays = [
        np.asarray(x, keras.backend.standardize_dtype(tensor.dtype))
        for x, tensor in zip(inputs, model.inputs, strict=True)
    ]
    struct = getattr(model, "_inputs_struct", None)
    given: Any = arrays[0] if len(arrays) == 1 else arrays
    if isinstance(struct, dict):
        given = keras.tree.pack_sequence_as(struct, arrays)
    if keras.backend.backend() == "torch":  # without gradients, and not compiled
        found = model.predict_on_batch(given)
    else:
        found = model(given, training=False)
    return [np.asarray(keras.ops.convert_to_numpy(x)) for x in keras.tree.flatten(found)]


def precisions(model: Any) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the types that a model's layers compute in, and what limits them.

    Keras's type promotion knows float64 on TensorFlow only: elsewhere the norms of a float64 model
    compute in float32 and return it as float64, so the best possible precision is 1e-7.
    """
    apart = (keras.Model, keras.layers.InputLayer)  # these compute nothing
    layers = [layer for layer in model._flatten_layers() if not isinstance(layer, apart)]
    found = {str(getattr(layer, "compute_dtype", "")) for layer in layers}
    narrows = keras.backend.result_type("float64", "float32") != "float64"
    doubled = [layer for layer in layers if getattr(layer, "compute_dtype", "") == "float64"]
    if not narrows or not any(type(layer) in NORM_LAYERS for layer in doubled):
        return frozenset(found), ()
    note = f"on {keras.backend.backend()}, Keras computes the norms of a float64 model in float32"
    return frozenset({*found, "float32"}), (note,)


def tapped(
    model: keras.Model, tensors: Mapping[str, Any], inputs: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the values of symbolic tensors inside a model, at inference."""
    inputs_as_given = getattr(model, "_inputs_struct", model.inputs)
    probe = keras.Model(inputs_as_given, list(tensors.values()))
    return dict(zip(tensors, outputs(probe, inputs), strict=True))
