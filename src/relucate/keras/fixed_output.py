"""An output that doesn't depend on a model's input, as a layer: a functional model has no other.

Called by `reading.tracing`, for calls of the user's that give such outputs.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


@keras.saving.register_keras_serializable(package="relucate")
class FixedOutput(keras.layers.Layer):
    """Give the same value whatever is read.

    >>> keras.ops.convert_to_numpy(FixedOutput([1.0, 2.0])(keras.ops.zeros((3, 4)))).tolist()
    [1.0, 2.0]
    """

    def __init__(self, value: Any, value_dtype: str = "float32", **options: Any) -> None:
        super().__init__(**options)
        self.value, self.value_dtype = np.asarray(value), value_dtype

    def call(self, inputs: Any) -> Any:
        return keras.ops.convert_to_tensor(self.value, dtype=self.value_dtype)

    def compute_output_spec(self, inputs: Any) -> Any:
        return keras.KerasTensor(self.value.shape, self.value_dtype)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, "value": self.value.tolist(), "value_dtype": self.value_dtype}


def fixed(value: Any, reader: Any) -> Any:
    """Return an output as it is if it is symbolic, else as that of a layer that reads `reader`."""
    if isinstance(value, keras.KerasTensor) or not keras.ops.is_tensor(value):
        return value
    array: Any = keras.ops.convert_to_numpy(value)
    kind = keras.backend.standardize_dtype(value.dtype)
    return FixedOutput(array.astype("float32") if kind == "bfloat16" else array, kind)(reader)
