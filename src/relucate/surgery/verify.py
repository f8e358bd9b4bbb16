"""Verify: do two models compute the same? A certificate, and if not, where they part.

    max_abs = max |a - b|,   max_rel = max |a - b| / max |a|     per output, the worst of them

`max |a|` is an output's own scale, over all inputs. The inputs are random and stress the borders:
values at the rim only, single hot corners, constants, several sizes. Where the models amplify
rounding beyond the tolerance, they are compared layer by layer (`compare_layers`). Pure: arrays and
graphs; running the models is the frameworks' business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

import numpy as np

from ..errors import InputError, RelucateError
from ..graph import Graph
from ..graph.evaluate import evaluate
from ..graph.nodes import is_floating

SIZES = 32, 16, 8, 4, 64, 128, 256  # tried for an axis of unknown size: models have bounds
TOLERANCES = {"float64": 1e-9, "float32": 1e-5, "bfloat16": 5e-2, "float16": 1e-2}
NOISE = 100.0  # rounding happens in every layer, the nudge in the input only
# Of a layer computed in float64, whose weights were rounded to this type once.
LAYER_TOLERANCES = {"float64": 1e-12, "float32": 1e-6, "float16": 2.5e-3, "bfloat16": 2e-2}
_LAST_BIT = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
_SAMPLE = 64  # values that are looked at first

Each = Callable[[str, np.ndarray], np.ndarray]  # (layer, its output) -> what the next layers read


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
        basis: "outputs": the models' outputs, as they compute them; "layers": each layer's output,
            computed in float64 from the same inputs, and max_rel is the largest of all layers.
        decided: False: not passed, but rounding alone may be the reason, or the first model's own
            outputs aren't finite.
    """

    max_abs: float
    max_rel: float
    tolerance: float
    inputs: int
    dtype: str
    passed: bool
    worst: str | None = None
    notes: tuple[str, ...] = field(default=())
    basis: str = "outputs"
    decided: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return the certificate as JSON-ready data; a difference that is no number is None."""
        numbers = {
            name: value if np.isfinite(value := getattr(self, name)) else None
            for name in ("max_abs", "max_rel")
        }
        names = ("tolerance", "inputs", "dtype", "passed", "worst", "basis", "decided")
        rest = {name: getattr(self, name) for name in names}
        return {**numbers, **rest, "notes": list(self.notes)}

    def __str__(self) -> str:
        verdict = "same function" if self.passed else "NOT the same function"
        verdict = verdict if self.decided else "not known to be the same function"
        scale = "the output's" if self.basis == "outputs" else "a layer's"
        how = "" if self.basis == "outputs" else ", layer by layer in float64"
        where = f", from '{self.worst}' on" if self.worst else ""
        return (
            f"{verdict}: largest difference {self.max_abs:.1e}, {self.max_rel:.1e} of {scale} "
            f"scale (allowed {self.tolerance:.0e}), {self.inputs} inputs, {self.dtype}{how}{where}"
        )

    def _repr_html_(self) -> str:
        verdict, _, numbers = (escape(part) for part in str(self).partition(": "))
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return f"<p><strong>{verdict}</strong>: {numbers}</p>" + (
            f"<ul>{notes}</ul>" if notes else ""
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
        a, b = (_real(x) for x in (one, other))
        if not np.all(np.isfinite(a)):
            notes.append("the first model's outputs are not all finite")
        with np.errstate(invalid="ignore", over="ignore"):
            gap = float(np.max(np.abs(a - b), initial=0.0))
        scale = float(np.max(np.abs(a), initial=0.0))
        gap = gap if np.isfinite(gap) else np.inf
        largest = max(largest, gap)
        relative = max(relative, gap / scale if scale > 0 else (0.0 if gap == 0 else np.inf))
    if _hardly_depend(ones):
        notes.append("the outputs hardly depend on the inputs, so this says little")
    passed = bool(relative <= allowed)
    found = tuple(dict.fromkeys(notes))
    decided = passed or all(np.all(np.isfinite(a)) for a in ones)
    return Certificate(
        largest, relative, allowed, count, dtype, passed, None, found, decided=decided
    )


def _hardly_depend(outputs: Sequence[np.ndarray]) -> bool:
    """Return whether an output hardly varies; constants count if there is nothing else."""
    spreads = [_spread(_real(x)) for x in outputs]
    return any(0 < spread <= 1e-3 for spread in spreads) or not any(spreads)


def _real(values: Any) -> np.ndarray:
    """Return values in float64, complex numbers as pairs."""
    if np.iscomplexobj(values):
        values = np.stack([values.real, values.imag], axis=-1)
    return np.asarray(values, np.float64)


def _spread(output: np.ndarray) -> float:
    """Return the largest range of a value over the examples, of the output's scale."""
    scale = float(np.max(np.abs(output), initial=0.0))
    if len(output) < 2:
        return np.inf
    return float(np.max(np.ptp(output, axis=0), initial=0.0)) / scale if scale > 0 else 0.0


def nudged(
    inputs: Iterable[np.ndarray], towards: float = np.inf, dtype: str = "float32"
) -> list[np.ndarray]:
    """Return floating inputs changed in their last bit as `dtype`, others as they are."""
    return [_nudged(x, towards, dtype) if x.dtype.kind == "f" else x for x in inputs]


def _nudged(x: np.ndarray, towards: float, dtype: str) -> np.ndarray:
    if dtype == "float64":
        x = x.astype(np.float64)
    elif dtype != "float32":  # the model casts its inputs: a smaller step would be lost
        x = x + np.copysign(_LAST_BIT[dtype], towards).astype(x.dtype) * np.abs(x)
    return np.nextafter(x, towards, dtype=x.dtype)


def amplifies(noise: float, dtype: str) -> bool:
    """Return whether a model makes far more of its inputs' last bit than that bit is."""
    return noise >= 8 * _LAST_BIT[dtype]


def undecided(found: Certificate, noise: float, why: str) -> Certificate:
    """Return the certificate of two models that rounding alone may set apart.

    Args: noise: what a change of the inputs' last bit does to the outputs, of their scale; why:
        nothing else tells either, as a sentence's end.
    """
    note = (
        f"{_noisy(noise)}: {found.dtype} outputs can't tell whether two such models compute the "
        f"same, and {why}. This doesn't say that they differ"
    )
    return replace(found, passed=False, decided=False, notes=(*found.notes, note))


def _noisy(noise: float) -> str:
    return (
        f"the model's own rounding noise is {noise:.1e} of its outputs' scale (its inputs changed "
        "in their last bit)"
    )


# Layer by layer.


class Trail:
    """The outputs of one model's layers; another model is led along them.

    Each output of the other model that agrees with one of the same shape is exchanged for it. So
    every layer is fed with what the first model has there, and nothing is amplified: if the outputs
    agree in the end, each of the two differs from the other by rounding in single layers only.

    Attributes: largest: difference of an output that was exchanged, of its scale; count: of them;
        parted: the first layer whose output didn't agree, and none behind it.
    """

    def __init__(self, tolerance: float = LAYER_TOLERANCES["float32"]) -> None:
        self.tolerance, self.largest, self.count = tolerance, 0.0, 0
        self.parted: str | None = None
        self._known: dict[tuple[int, ...], list[tuple[np.ndarray, float]]] = {}

    def record(self, layer: str, value: np.ndarray) -> np.ndarray:
        """Keep an output of the first model; return it."""
        scale = float(np.max(np.abs(value), initial=0.0))
        self._known.setdefault(value.shape, []).append((value, scale))
        return value

    def follow(self, layer: str, value: np.ndarray) -> np.ndarray:
        """Return the first model's output that agrees best with this one, or else this one."""
        best, gap = value, np.inf
        some = slice(None, None, max(value.size // _SAMPLE, 1))
        for known, scale in self._known.get(value.shape, ()):
            allowed = self.tolerance * scale
            if np.all(np.abs(known.flat[some] - value.flat[some]) <= allowed):
                apart = float(np.max(np.abs(known - value), initial=0.0))
                apart = apart / scale if scale else apart
                best, gap = (known, apart) if apart < gap else (best, gap)
        if gap <= self.tolerance:
            self.largest, self.count, self.parted = max(self.largest, gap), self.count + 1, None
            return best
        self.parted = self.parted or layer
        return value


def compare_layers(
    one: Callable[[Each], list[np.ndarray]],
    other: Callable[[Each], list[np.ndarray]],
    found: Certificate,
    noise: float,
) -> Certificate:
    """Return the certificate of two models compared layer by layer, in float64.

    Weights are rounded to the model's type once, when they are combined: a layer's output, computed
    in float64 from the same inputs, may differ by as much (LAYER_TOLERANCES). A model that differs
    by more somewhere, and whose outputs still do when everything that agrees was made the same,
    isn't certified.

    Args: one, other: compute a model in float64, handing each layer's output to what they are
        given; found: for the outputs, as the models compute them, which differ; noise: what a
        change of the inputs' last bit does to them.
    """
    trail = Trail(LAYER_TOLERANCES[found.dtype])
    made = compare_outputs(one(trail.record), other(trail.follow), found.dtype, trail.tolerance)
    if not made.passed:
        where = f" from '{trail.parted}' on" if trail.parted else ""
        why = f"layer by layer, in float64, they agree {trail.count} times and part{where}"
        return undecided(replace(found, worst=trail.parted), noise, why)
    note = (
        f"{_noisy(noise)}, so that the outputs ({found.max_rel:.1e} apart) can't tell: each "
        "layer was compared instead, computed in float64 from the same inputs"
    )
    largest = max(made.max_rel, trail.largest)
    return replace(made, max_rel=largest, notes=(*made.notes, note), basis="layers")


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


def stress_inputs(graph: Graph, seed: int = 0, unknown: int = SIZES[0]) -> list[np.ndarray]:
    """Return one array per input of a graph, eight examples each, reproducibly.

    Integers below the table's size where an input goes into an embedding.

    Args: unknown: the size of axes whose size the graph leaves open.
    """
    random = np.random.default_rng(seed)
    tables = _vocabularies(graph)
    found = []
    for name in graph.inputs:
        shape = tuple(size or unknown for size in graph.nodes[name].shape[1:])
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
