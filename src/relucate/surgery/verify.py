"""Verify: do two models compute the same? A certificate, and if not, where they part.

    max_abs = max |a - b|,   max_rel = max |a - b| / max |a|     per output, the worst of them

`max |a|` is an output's own scale, over all inputs. The inputs are random and stress the borders:
values at the rim only, single hot corners, constants, several sizes. Pure: arrays and graphs; who
runs the models is the frameworks' business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import InputError, RelucateError
from ..graph import Graph
from ..graph.evaluate import evaluate
from ..graph.nodes import is_floating

TOLERANCES = {"float64": 1e-9, "float32": 1e-5, "bfloat16": 5e-2, "float16": 1e-2}
NOISE = 4.0  # rounding happens in every layer, the nudge in the input only
MOST_NOISE = {"float32": 1e-3}


@dataclass(frozen=True)
class Certificate:
    """How far two models' outputs are apart.

    Attributes:
        max_abs, max_rel: largest difference; relative to the output's own largest value.
        tolerance: what max_rel may be.
        inputs: how many examples were compared.
        dtype: of the weights.
        passed: max_rel <= tolerance, and nothing is NaN.
        worst: if they differ, the first layer, of those that both have, whose values do.
        notes: what limits the claim.
    """

    max_abs: float
    max_rel: float
    tolerance: float
    inputs: int
    dtype: str
    passed: bool
    worst: str | None = None
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return the certificate as JSON-ready data; a difference that is no number is None."""
        numbers = {
            name: value if np.isfinite(value := getattr(self, name)) else None
            for name in ("max_abs", "max_rel")
        }
        names = ("tolerance", "inputs", "dtype", "passed", "worst")
        rest = {name: getattr(self, name) for name in names}
        return {**numbers, **rest, "notes": list(self.notes)}

    def __str__(self) -> str:
        verdict = "same function" if self.passed else "NOT the same function"
        where = f", from '{self.worst}' on" if self.worst else ""
        return (
            f"{verdict}: largest difference {self.max_abs:.1e}, {self.max_rel:.1e} of the output's "
            f"scale (allowed {self.tolerance:.0e}), {self.inputs} inputs, {self.dtype}{where}"
        )


def compare_outputs(
    ones: Sequence[np.ndarray], others: Sequence[np.ndarray], dtype: str, tolerance: float | None
) -> Certificate:
    """Return the certificate for the outputs of two models on the same inputs."""
    allowed = TOLERANCES[dtype] if tolerance is None else tolerance
    count = int(ones[0].shape[0]) if ones and ones[0].ndim else 0
    if [a.shape for a in ones] != [b.shape for b in others]:
        notes = (f"outputs of shapes {_shapes(ones)} and {_shapes(others)}",)
        return Certificate(np.inf, np.inf, allowed, count, dtype, False, None, notes)
    largest, relative, notes = 0.0, 0.0, []
    for one, other in zip(ones, others, strict=True):
        a, b = (np.asarray(x, np.float64) for x in (one, other))
        if not np.all(np.isfinite(a)):
            notes.append("the first model's outputs are not all finite")
        with np.errstate(invalid="ignore", over="ignore"):
            gap = float(np.max(np.abs(a - b), initial=0.0))
        scale = float(np.max(np.abs(a), initial=0.0))
        gap = gap if np.isfinite(gap) else np.inf
        largest = max(largest, gap)
        relative = max(relative, gap / scale if scale > 0 else (0.0 if gap == 0 else np.inf))
        if len(a) > 1 and float(np.max(np.ptp(a, axis=0), initial=0.0)) <= 1e-3 * scale:
            notes.append("the outputs hardly depend on the inputs, so this says little")
    passed = bool(relative <= allowed)
    found = tuple(dict.fromkeys(notes))
    return Certificate(largest, relative, allowed, count, dtype, passed, None, found)


def nudged(inputs: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Return floating inputs changed in their last bit, others as they are."""
    return [np.nextafter(x, np.inf, dtype=x.dtype) if x.dtype.kind == "f" else x for x in inputs]


def allow_noise(found: Certificate, noise: Certificate) -> Certificate:
    """Return the certificate with what rounding alone does to this model allowed for.

    A deep network with large gains may turn a change of its input's last bit into one of its
    outputs that is larger than 1e-5: no two ways to sum can agree better. Allowed then:

        max(1e-5, 4 * max_rel(model(x), model(nextafter(x)))), at most 1e-3

    In float32 only. A model noisier than that isn't certified; the note says why.

    Args:
        found: of two models, failed at the usual tolerance.
        noise: of the first model's outputs on the inputs, and on the `nudged` ones.
    """
    most = MOST_NOISE[found.dtype]
    if noise.max_rel > most:
        note = (
            f"a change of the inputs in their last bit alone moves this model's outputs by "
            f"{noise.max_rel:.1e} of their scale: {found.dtype} can't tell whether two such models "
            "compute the same"
        )
        return replace(found, notes=(*found.notes, note))
    allowed = min(NOISE * noise.max_rel, most)
    if not found.max_rel <= allowed:  # also if one is NaN
        return found
    note = (
        f"the model's own rounding noise is {noise.max_rel:.1e} (its inputs changed in their last "
        f"bit), so that {allowed:.1e} is allowed instead of {found.tolerance:.0e}"
    )
    return replace(found, tolerance=allowed, passed=True, notes=(*found.notes, note))


def _shapes(arrays: Sequence[np.ndarray]) -> str:
    return ", ".join(str(tuple(a.shape[1:])) for a in arrays)


def coarsest(dtypes: Iterable[str]) -> str:
    """Return the coarsest of the floating types that a tolerance is known for.

    >>> coarsest({"float32", "int64", "float16"})
    'float16'
    """
    found = set(dtypes)
    return next((n for n in ("bfloat16", "float16", "float32", "float64") if n in found), "float32")


# Inputs.


def stress_inputs(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    """Return one array per input of a graph, eight examples each, reproducibly.

    Integers below the table's size where an input goes into an embedding. Unknown sizes: 32.
    """
    random = np.random.default_rng(seed)
    tables = _vocabularies(graph)
    found = []
    for name in graph.inputs:
        shape = tuple(size or 32 for size in graph.nodes[name].shape[1:])
        if name in tables:
            found.append(random.integers(0, tables[name], (8, *shape)))
        else:
            examples = [example(random, shape) for example in _EXAMPLES]
            found.append(np.stack(examples).astype(np.float32))
    return found


def _vocabularies(graph: Graph) -> Mapping[str, int]:
    return {
        node.inputs[0]: int(graph.tensors[node.arrays["table"]].shape[0])
        for node in graph
        if node.op == "embedding" and node.inputs[0] in graph.inputs
    }


def _rim(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random at the rim of every axis that has one, zero inside."""
    values = random.normal(size=shape)
    inside = tuple(slice(1, -1) if size > 2 else slice(0, 0) for size in shape[:2])
    if len(shape) > 1:
        values[inside] = 0.0
    return values


def _corner(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    values = np.zeros(shape)
    values[(0,) * len(shape)] = 3.0
    values[(-1,) * len(shape)] = -3.0
    return values


_EXAMPLES = (
    lambda random, shape: random.normal(size=shape),
    lambda random, shape: random.normal(size=shape) + 1.0,
    lambda random, shape: 0.1 * random.normal(size=shape),
    lambda random, shape: 4.0 * random.normal(size=shape),
    lambda random, shape: random.uniform(0, 1, size=shape),
    lambda random, shape: np.ones(shape),
    _rim,
    _corner,
)


def check_finite(graph: Graph) -> None:
    """Check that no weight is NaN or infinite.

    Raises: InputError: with the tensor's name.
    """
    for key, array in graph.tensors.items():
        if is_floating(array) and not np.all(np.isfinite(array)):
            raise InputError(
                f"'{key}' holds values that are not finite: a function with NaN in it can't be "
                "kept. Load other weights."
            )


# Where two graphs part.


def worst_layer(a: Graph, b: Graph, inputs: Sequence[np.ndarray], tolerance: float) -> str | None:
    """Return the first layer, of those that both graphs have, whose values differ; None: unknown.

    First: behind the last layer whose values agree. Layers that absorbed a norm differ by design,
    so that what counts is what comes after them. Evaluated in NumPy, on two examples.
    """
    examples = [x[:2] for x in inputs]
    common = [name for name in a.nodes if name in b.nodes and a.nodes[name].op != "input"]
    if not common:
        return None
    try:
        ones = evaluate(replace(a, outputs=tuple(common)), *examples)
        others = evaluate(replace(b, outputs=tuple(common)), *examples)
    except RelucateError:
        return None
    differing: str | None = None
    for name, one, other in zip(common, ones, others, strict=True):
        same = one.shape == other.shape and np.max(np.abs(one - other), initial=0.0) <= (
            tolerance * max(float(np.max(np.abs(one), initial=0.0)), 1e-30)
        )
        if same:
            differing = None
        elif differing is None:
            differing = a.nodes[name].layer or name
    return differing
