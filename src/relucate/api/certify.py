"""Run two models on the same inputs and measure how much they differ: the certificate of a verb.

A PyTorch module was read for inputs of one size and may behave differently for others: models that
take other sizes are compared there, too. Not here: the comparison of outputs (`surgery.verify`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..errors import Refused, RelucateError, briefly
from ..graph import Graph
from ..surgery.verify import (
    NOISE,
    SIZES,
    Certificate,
    Each,
    amplifies,
    coarsest,
    compare_layers,
    compare_outputs,
    nudged,
    stress_inputs,
    undecided,
    worst_layer,
)
from ..train.framework import ReadModel

_BATCH = 8

NARROW = "takes no inputs of shape"  # in the note on sizes that a result no longer takes


@dataclass(frozen=True)
class Party:
    """A model, what runs it, its graph, and its name in messages.

    read: this model as it was read, or the model that it was written from; batch: how many examples
    it gets at a time; order: which of its outputs is compared first, second, ...; () as they are.
    """

    read: ReadModel
    model: Any
    graph: Graph
    title: str
    batch: int = _BATCH
    order: tuple[int, ...] = ()

    def outputs(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the model's outputs at inference."""
        found = [self.read.outputs(self.model, batch) for batch in split(inputs, self.batch)]
        return self._ordered(
            [
                np.concatenate([np.atleast_1d(part) for part in parts])
                for parts in zip(*found, strict=True)
            ]
        )

    def _ordered(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        return [arrays[at] for at in self.order] if self.order else arrays

    def ordered_as(self, other: Party) -> Party:
        """Return this party with its outputs in the order of the other's, where names tell it."""
        mine, theirs = (party.read.output_names() for party in (self, other))
        if mine == theirs or sorted(mine) != sorted(theirs):
            return self
        return replace(self, order=tuple(mine.index(name) for name in theirs))

    def attempt(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray] | str:
        """Return the outputs, or why there are none."""
        try:
            return self.outputs(inputs)
        except Exception as error:  # the user's own forward
            return briefly(error)

    def in_double(self, inputs: Sequence[np.ndarray], each: Each) -> list[np.ndarray]:
        """Return the outputs computed in float64; `each` may exchange every layer's."""
        return self._ordered(self.read.in_double(self.model, inputs, each))


def runnable(party: Party, seed: int = 0) -> list[np.ndarray]:
    """Return random inputs that stress the borders, of a size that the model takes if any is known.

    A text model may have a longest text, an image model a smallest image.
    """
    graph = party.graph
    first = stress_inputs(graph, seed)
    if all(None not in graph.nodes[name].shape[1:] for name in graph.inputs):
        return first
    for size in SIZES:
        arrays = stress_inputs(graph, seed, size)
        if not isinstance(party.attempt([x[:2] for x in arrays]), str):
            return arrays
    return first


def certified(
    one: Party, other: Party, arrays: Sequence[np.ndarray], tolerance: float | None, *, sizes: bool
) -> Certificate:
    """Return whether two models compute the same.

    Args: sizes: compare inputs of other sizes, too, where the first model takes them.
    Raises: Refused: a model can't be run.
    """
    one, ones = _run(one, arrays)
    other = replace(other, batch=one.batch)
    others = other.attempt(arrays)
    if isinstance(ones, str):
        wanted = ", ".join(str(x.shape) for x in arrays)
        raise Refused(f"{one.title} can't be run on inputs of shape {wanted}: {ones}")
    if isinstance(others, str):
        raise Refused(f"{other.title} can't be run on the inputs that {one.title} takes: {others}")
    found = _compared(one, other, arrays, ones, others, tolerance)
    limits = dict.fromkeys((*one.read.limits, *other.read.limits))
    found = replace(found, notes=(*found.notes, *limits))
    if found.passed:
        return _at_other_sizes(one, other, arrays, tolerance, found) if sizes else found
    if not found.decided:
        return found
    worst = worst_layer(one.graph, other.graph, arrays, found.tolerance)
    return replace(found, worst=worst)


def _run(one: Party, arrays: Sequence[np.ndarray]) -> tuple[Party, list[np.ndarray] | str]:
    """Return a model's outputs, or why there are none, with the largest batches that it takes."""
    found = one.attempt(arrays)
    if not isinstance(found, str):
        return one, found
    smaller = {len(xs[0]) for xs in one.read.other_sizes(arrays)} | {1}
    for size in sorted(smaller - {one.batch}, reverse=True):
        there = replace(one, batch=size)
        if not isinstance(outputs := there.attempt(arrays), str):
            return there, outputs
    return one, found


def _compared(
    one: Party,
    other: Party,
    arrays: Sequence[np.ndarray],
    ones: Sequence[np.ndarray],
    others: Sequence[np.ndarray],
    tolerance: float | None,
) -> Certificate:
    dtype = coarsest(one.read.dtypes | other.read.dtypes)
    found = compare_outputs(ones, others, dtype, tolerance)
    if found.passed or tolerance is not None or not np.isfinite(found.max_rel):
        return found
    moved = [one.outputs(nudged(arrays, towards, dtype)) for towards in (-np.inf, np.inf)]
    noise = max(compare_outputs(ones, outputs, dtype, None).max_rel for outputs in moved)
    if noise < found.tolerance / 10 or found.max_rel > NOISE * noise:
        return found
    step = 3 if sum(x[0].size for x in arrays) > 1024 else 1  # NumPy takes its time for images
    some = [x[:8][::step] for x in arrays]
    try:
        made = compare_layers(
            partial(one.in_double, some), partial(other.in_double, some), found, noise
        )
        return made if made.passed or amplifies(noise, dtype) else found
    except (RelucateError, ValueError) as error:
        why = f"they can't be computed layer by layer in float64: {briefly(error)}"
        return undecided(found, noise, why.rstrip("."))


def _at_other_sizes(
    one: Party,
    other: Party,
    arrays: Sequence[np.ndarray],
    tolerance: float | None,
    found: Certificate,
) -> Certificate:
    if not other.read.other_sizes(arrays):
        return found
    narrow = ""
    for resized in one.read.other_sizes(arrays):
        ones = one.attempt(resized)
        if isinstance(ones, str) or not all(np.all(np.isfinite(x)) for x in ones):
            continue  # not an input of this model
        shapes = _shapes(resized, arrays)
        others = other.attempt(resized)
        if isinstance(others, str):
            narrow = f"{other.title} {NARROW} {shapes}, which {one.title} does"
            continue
        there = _compared(one, other, resized, ones, others, tolerance)
        if not there.decided:
            narrow = f"for inputs of shape {shapes} it isn't known: {there.notes[-1]}"
        elif not there.passed:
            why = (
                f"the two agree for inputs of the example's size and differ for {shapes}: what the "
                "forward does there isn't what was read"
            )
            return replace(there, notes=(*found.notes, why))
    return replace(found, notes=(*found.notes, narrow)) if narrow else found


def _shapes(resized: Sequence[np.ndarray], arrays: Sequence[np.ndarray]) -> str:
    """Return the sizes of inputs as text, of those that differ in the batch alone that one, too."""
    sizes = [x.shape[1:] for x in resized]
    text = ", ".join(map(str, sizes))
    same = sizes == [x.shape[1:] for x in arrays]
    return f"{text} in a batch of {len(resized[0])}" if same else text


def split(arrays: Sequence[np.ndarray], size: int) -> list[list[np.ndarray]]:
    """Return the arrays in batches of at most `size` examples."""
    return [[x[i : i + size] for x in arrays] for i in range(0, len(arrays[0]), size)]
