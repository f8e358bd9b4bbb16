"""How a Keras call is described: as `Step`s, one per logical operation.

A `Step` names an op of the Graph (`graph/ops.py`), its attributes and its weights. Made by
`layers`, `norm_layers` and `operations`; turned into nodes by `reader`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Step:
    """One logical operation of a call: suffix of the node's name, op, attributes, weights.

    `inputs`: what it reads. Numbers from 0 on are the call's own inputs, negative ones are earlier
    steps (-1 is the previous one). None: the first step reads all inputs of the call, and any other
    step reads the previous one.
    """

    op: str
    attrs: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)  # role -> keras.Variable
    suffix: str = ""
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)  # role -> array
    inputs: tuple[int, ...] | None = None
    shape: tuple[int | None, ...] | None = None  # of its output; None: that of the call

    def with_attrs(self, **attrs: Any) -> Step:
        """Return a copy with more attributes."""
        return replace(self, attrs={**self.attrs, **attrs})


def opaque(thing: Any, why: str = "") -> Step:
    """Return the step of an unknown operation: messages name its type and the reason."""
    return Step("opaque", {"type": type(thing).__name__, "why": why})


def present(**variables: Any) -> dict[str, Any]:
    """Return the arguments that aren't None."""
    return {role: variable for role, variable in variables.items() if variable is not None}


def scaled(scale: Any, offset: Any, suffix: str = "") -> Step:
    """Return x · scale + offset: a rescale if both are numbers, else an affine."""
    if np.ndim(scale) == 0 and np.ndim(offset) == 0:
        attrs = {"scale": float(scale), "offset": float(offset)}
        return Step("rescale", attrs, suffix=suffix)
    constants = {"scale": np.asarray(scale), "offset": np.asarray(offset)}
    neutral = {"scale": 1.0, "offset": 0.0}
    kept = {r: a for r, a in constants.items() if a.ndim or float(a) != neutral[r]}
    return Step("affine", constants=kept, suffix=suffix)


def reshaped(shape: Sequence[int | None], suffix: str = "") -> Step | None:
    """Return the step that gives a tensor this shape, batch axis first.

    None: more than one size is unknown, so there is no target.
    """
    if list(shape[1:]).count(None) > 1:
        return None
    target = tuple(-1 if size is None else size for size in shape[1:])
    return Step("reshape", {"target": target}, suffix=suffix, shape=tuple(shape))


Branches = list[list[Step]]  # the steps of each output of a call


@dataclass(frozen=True)
class Call:
    """One call of a raw operation: its arguments by name, and the symbolic tensors it returned."""

    operation: Any
    bound: Mapping[str, Any]
    outputs: Sequence[Any]


class Unreadable(Exception):
    """Why a call isn't one of the known operations; it becomes an opaque step's `why`."""
