"""How operations that are applied step by step (Keras's TimeDistributed) are lowered.

What treats examples apart gets all steps of all examples as one batch. A batch norm doesn't: it
takes its statistics from one step at a time, and its moving statistics move at each step.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ...errors import Refused
from ...graph import Node
from .emit import EMITTERS
from .emitter import Emitter, Value


def emit_stepwise(emitter: Emitter, node: Node, values: list[Value]) -> Value:
    """Emit an operation along axis 1 of its inputs.

    Raises: Refused: a batch norm along an unknown number of steps; dropout that all examples share.
    """
    inner = replace(node, shape=node.of_one_step(node.shape))
    xs = [emitter.native(value) for value in values]
    if node.op == "batch_norm" and not node.attrs["frozen"]:
        return _one_by_one(emitter, inner, xs[0], node.shape[1])
    if (node.attrs.get("noise_shape") or (None,))[0] is not None:
        raise Refused(
            f"can't lower layer '{node.layer}' ({node.op}): at each step, all examples share what "
            "it drops."
        )
    merged = [Value(emitter.function(torch.flatten, x, 0, 1), moved=False) for x in xs]
    y = emitter.native(EMITTERS[node.op](emitter, inner, merged))
    return Value(emitter.function(_split, y, xs[0]), moved=False)


def _one_by_one(emitter: Emitter, node: Node, x: torch.fx.Node, steps: int | None) -> Value:
    if steps is None:
        raise Refused(
            f"can't lower layer '{node.layer}' ({node.op}): it is applied step by step, and the "
            "number of steps isn't known."
        )
    found = []
    for step in range(steps):
        part = Value(emitter.function(torch.select, x, 1, step), moved=False)
        found.append(emitter.native(EMITTERS[node.op](emitter, node, [part])))
    return Value(emitter.function(torch.stack, found, 1), moved=False)


def _split(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return examples and steps as two axes again, as many of both as `x` has."""
    return y.unflatten(0, x.shape[:2])
