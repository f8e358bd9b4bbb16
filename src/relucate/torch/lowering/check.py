"""Lower another framework's model, and compare the two before anything relies on it.

The check runs both on random weights and random norm statistics (a fresh norm is the identity and
hides mistakes), on the CPU in full float32. Node by node, each is fed with the other model's own
values: nothing is amplified, neither by depth nor by batch statistics of a few values. The other
model is its Graph and three functions (`Lowerable`): which framework it is doesn't matter. Not
here: training.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import torch
from torch import fx

from ...errors import Refused
from ...train.framework import Lowerable, Steps
from ...train.task import CLASSIFICATION, Task
from ..precision import float32
from .lower import Lowered, lower

_TOLERANCE = 1e-3  # of a node's own scale, in float32
_LEAST = np.log(1e-6)


def lower_checked(source: Lowerable, *, check: bool = True, task: Task = CLASSIFICATION) -> Lowered:
    """Return the PyTorch module, without the final softmax or sigmoid that the task's loss adds.

    Raises: Refused: something in the model can't be lowered (named), or the check found a
    difference between its output and the lowered module's.
    """
    graph = source.graph
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise Refused(
            f"model '{graph.name}' has {len(graph.inputs)} inputs and {len(graph.outputs)} "
            "outputs; expected one of each."
        )
    last = graph.nodes[graph.outputs[0]]
    final = task.final(last.shape[-1] if len(last.shape) > 1 else 1)
    lowered = lower(graph, logits=True, final=final)
    if last.op in final and not lowered.dropped:
        raise Refused(f"the final {last.op} isn't over the last axis, or something reads it.")
    if check:
        check_lowering(source, lowered)
    return lowered


@float32()
def check_lowering(source: Lowerable, lowered: Lowered) -> None:
    """Compare `lowered` with `source`, node by node, at inference and in training mode.

    In training mode the moving statistics after the call are compared too, and what is drawn at
    random (dropout) isn't. Both get random weights and statistics for it, and their own back
    afterwards.
    Raises: Refused with the node and the measured difference.
    """
    graph, random = source.graph, np.random.default_rng(0)
    roles = {key: role for node in graph for role, key in node.arrays.items()}
    own = source.tensors()
    noise = {key: _random_like(roles.get(key), graph.tensors[key], random) for key in own}
    noise = {**graph.tensors, **noise}  # constants stay as they are
    shape = [32 if size is None else size for size in graph.nodes[graph.inputs[0]].shape[1:]]
    x = random.normal(size=(8, *shape)).astype(np.float32)
    try:
        for training in (False, True):
            source.load(noise)
            lowered.set_tensors({key: noise[key] for key in lowered.bindings})
            with closing(source.steps(x, training)) as steps:
                _Led(source, lowered, steps, training).compare(x)
            expected = source.tensors()
            for key, array in lowered.get_tensors().items():
                if key in expected:
                    _agree(f"tensor '{key}'", expected[key], array, source, training)
    finally:
        source.load(graph.tensors)
        lowered.set_tensors({key: graph.tensors[key] for key in lowered.bindings})


class _Led(fx.Interpreter):
    """One run of a lowered module in which every node reads the source's own values."""

    def __init__(self, source: Lowerable, lowered: Lowered, steps: Steps, training: bool) -> None:
        super().__init__(lowered)
        self.extra_traceback = False  # errors say where they are themselves
        self.source, self.lowered, self.steps, self.training = source, lowered, steps, training
        self.seen: dict[str, np.ndarray | None] = dict.fromkeys(source.graph.inputs)
        self.here: dict[str, list[str]] = {}  # value of the code -> nodes of the graph
        for name, (place, _) in lowered.places.items():
            if name not in source.graph.inputs:
                self.here.setdefault(place, []).append(name)

    def compare(self, x: np.ndarray) -> None:
        """Run, and compare every node that the source lets be looked at, and the output."""
        self.lowered.train(self.training)
        with torch.no_grad():
            got = self.run(torch.from_numpy(x)).double().numpy()
        expected = self._expected(self.source.graph.outputs[0])
        for step in self.steps:  # what no output reads: its norms count batches
            self.seen |= step
        if expected is not None and self.lowered.dropped == "sigmoid":
            got = 1 / (1 + np.exp(-got))
        elif expected is not None and self.lowered.returns_logits:
            expected, got = _floored(_log(expected.astype(np.float64))), _floored(_log_softmax(got))
        if expected is not None:
            _agree("output", expected, got, self.source, self.training)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        for name in self.here.get(n.name, ()):
            expected = self._expected(name)
            if expected is not None:
                value = self._exchanged(name, expected, value)
                self.seen[name] = None if name not in self.source.graph.outputs else expected
        return value

    def _expected(self, name: str) -> np.ndarray | None:
        while name not in self.seen:
            self.seen |= next(self.steps)
        return self.seen[name]

    def _exchanged(self, name: str, expected: np.ndarray, value: torch.Tensor) -> torch.Tensor:
        node, moved = self.source.graph.nodes[name], self.lowered.places[name][1]
        drawn = self.training and node.operation.training == "multiplies"
        if not drawn:
            got = value.movedim(1, -1) if moved else value
            where = f" at '{node.layer or name}' ({node.op})"
            _agree("output", expected, got.numpy(), self.source, self.training, where)
        given = torch.tensor(expected)
        return given.movedim(-1, 1) if moved else given


def _random_like(role: str | None, array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if array.dtype.kind != "f" or role in {"mean", "variance"}:  # constants were made from these
        return array
    if role == "moving_variance":
        return random.uniform(0.5, 2.0, array.shape).astype(array.dtype)
    if role == "gamma":
        return random.uniform(0.5, 1.5, array.shape).astype(array.dtype)
    if array.ndim < 2:
        return (0.3 * random.normal(size=array.shape)).astype(array.dtype)
    fan_in = max(int(np.prod(array.shape[:-1])), 1)
    return (random.normal(size=array.shape) / np.sqrt(fan_in)).astype(array.dtype)


def _agree(
    what: str,
    expected: np.ndarray,
    got: np.ndarray,
    source: Lowerable,
    training: bool,
    where: str = "",
) -> None:
    mode = "training mode" if training else "inference"
    if expected.shape != got.shape:
        raise Refused(
            f"the lowered model differs from {source.title}{where}: the {what}'s shape is "
            f"{got.shape}, not {expected.shape}, in {mode}{source.cause}."
        )
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-6)
    difference = float(np.abs(expected - got).max(initial=0.0)) / scale
    if not difference <= _TOLERANCE:
        raise Refused(
            f"the lowered model differs from {source.title}{where} by {difference:.2g} of the "
            f"{what}'s scale in {mode}{source.cause}."
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
