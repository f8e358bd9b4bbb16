"""A Keras model as another framework needs it to train it: its Graph, its layers, its variables.

Called by `framework`. Not here: lowering, and the comparison (`relucate.torch.lowering`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np

from ..graph import Graph, Node
from ..graph.padding import same_padding
from ..train.framework import Lowerable, Steps
from .reading.record import Reading
from .running import array_of, called, place_of, run_calls, title


def lowerable(reading: Reading) -> Lowerable:
    """Return a model that was read in the form that another framework trains."""

    def load(values: Any) -> None:
        for key, variable in reading.variables.items():
            variable.assign(values[key])

    return Lowerable(
        graph=reading.graph,
        title=title(),
        steps=partial(_steps, reading),
        tensors=lambda: {
            key: np.array(keras.ops.convert_to_numpy(variable.value))
            for key, variable in reading.variables.items()
        },
        load=load,
        cause=_known_cause(reading.graph),
    )


def _steps(reading: Reading, x: np.ndarray, training: bool) -> Steps:
    """Run the model's own layers where its variables are, and yield what each call gives.

    By node; None for those inside the call.
    """
    device = place_of(reading.model)
    make = partial(called, training=training, device=device)
    for call, found in run_calls(reading, [x], make, device):
        outside = dict(zip(call.heads, map(array_of, found), strict=True))
        yield {name: outside.get(name) for name in (*call.names, *call.heads)}


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
