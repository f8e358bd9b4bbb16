"""A Keras model as another framework needs it for training: its Graph, a call, and its variables.

Called by `framework`. Not here: lowering, and the comparison (`relucate.torch.lowering`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import keras
import numpy as np

from ..errors import Refused
from ..graph import Graph, Node
from ..graph.padding import same_padding
from ..train.framework import Lowerable
from .reading.reader import functional


def lowerable(model: keras.Model, graph: Graph, variables: Mapping[str, Any]) -> Lowerable:
    """Return a model that was read in that form; `variables`: by the graph's keys."""

    def load(values: Any) -> None:
        for key, variable in variables.items():
            variable.assign(values[key])

    return Lowerable(
        graph=graph,
        title=_title(),
        call=partial(_call, model),
        tensors=lambda: {
            key: np.array(keras.ops.convert_to_numpy(variable.value))
            for key, variable in variables.items()
        },
        load=load,
        cause=_known_cause(graph),
    )


def _title() -> str:
    return f"Keras ({keras.config.backend()} backend)"


def _call(model: keras.Model, x: np.ndarray, training: bool) -> np.ndarray:
    """Call the model on its one input, in the structure that it needs (a tensor, dict or list)."""
    given = keras.tree.pack_sequence_as(functional(model)._inputs_struct, [x])
    try:
        (output,) = keras.tree.flatten(model(given, training=training))
    except Exception as error:  # a backend raises whatever its kernels raise
        raise Refused(
            f"{_title()} can't run the model on an input of shape {x.shape}: "
            f"{type(error).__name__}: {error}"
        ) from error
    return np.asarray(keras.ops.convert_to_numpy(output))


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
