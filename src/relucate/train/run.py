"""One run as plain data: what to train (the spec), and the result.

A spec has a content hash: the same hash means the same bits on the same machine, so a finished run
is never repeated. Engines take a spec's parts and return a result; the study's driver stores it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..arguments import is_finite
from ..errors import InputError


@dataclass(frozen=True)
class RunSpec:
    """One training run, as JSON-ready data.

    model: the builder (name, options, source hash); arm: order and options; before: the arms whose
    initial values come first (pairing); seed; data: fingerprint and sizes; recipe; engine: `torch`
    or `keras`, backend, device, threads; versions: of the packages that compute; task: what
    identifies a task other than the usual one (`train.task.CLASSIFICATION`); probe: after which
    epochs it is looked at (`train.looking`), and with how many examples; nothing for most runs.
    """

    model: Mapping[str, Any]
    arm: Mapping[str, Any]
    before: tuple[Mapping[str, Any], ...]
    seed: int
    data: Mapping[str, Any]
    recipe: Mapping[str, Any]
    engine: Mapping[str, Any]
    versions: Mapping[str, str]
    task: Mapping[str, Any] = field(default_factory=dict)
    probe: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON-ready data."""
        return {
            "model": dict(self.model),
            "arm": dict(self.arm),
            "before": [dict(arm) for arm in self.before],
            "seed": self.seed,
            "data": dict(self.data),
            "recipe": dict(self.recipe),
            "engine": dict(self.engine),
            "versions": dict(self.versions),
            **({"task": dict(self.task)} if self.task else {}),
            **({"probe": dict(self.probe)} if self.probe else {}),
        }

    @property
    def hash(self) -> str:
        """sha256 (hex) of the spec's canonical JSON."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class RunResult:
    """A run's result. `metric` is the task's score on the test part, None if the run has none."""

    status: str  # done | diverged | failed
    metric: float | None = None
    loss: float | None = None
    curve: dict[str, list[float | None]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    parameters: int = 0
    norm_parameters: int = 0
    shared: int = 0  # number of tensors that pairing made equal
    tensors: int = 0
    note: str = ""
    epoch: int | None = None  # the scored epoch, if it was chosen on held-out data
    scores: dict[str, float | None] = field(default_factory=dict)  # others, of the user's own run
    examples: int = 0  # length of per_example, where the data doesn't say it
    probe: dict[str, Any] = field(default_factory=dict)  # what a `Look` saw
    constant: bool = False  # whether all test examples got the same prediction
    per_example: np.ndarray | None = None  # (test examples,) bool or float

    def to_dict(self) -> dict[str, Any]:
        """Return everything but `per_example` as JSON-ready data."""
        kept = {k: v for k, v in self.__dict__.items() if k != "per_example"}
        return kept if self.probe else {k: v for k, v in kept.items() if k != "probe"}


def check_result(result: Any) -> None:
    """Check that plain data, such as a store's, is what `RunResult.to_dict` gives.

    Raises: InputError: it isn't; the message names the entry.
    """
    kept = result if isinstance(result, dict) else {}
    curve, seconds = kept.get("curve"), kept.get("seconds")
    fits = {
        "status": kept.get("status") in ("done", "diverged", "failed"),
        "metric": _is_number(kept.get("metric")),
        "loss": _is_number(kept.get("loss")),
        "curve": isinstance(curve, dict)
        and all(isinstance(part, list) and all(map(_is_number, part)) for part in curve.values()),
        "seconds": isinstance(seconds, dict) and all(map(_is_number, seconds.values())),
        "note": isinstance(kept.get("note"), str),
    }
    for name, fine in fits.items():
        if not fine:
            raise InputError(f"'{name}' of the run's result can't be {kept.get(name)!r:.60}.")


def _is_number(value: object) -> bool:
    return value is None or is_finite(value)


@dataclass(frozen=True)
class EpochReport:
    """The training loop's report after each epoch."""

    epoch: int
    epochs: int
    train_loss: float
    score: float | None  # the task's metric on the curve's test examples


OnEpoch = Callable[[EpochReport], None]


def array_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Return a short digest of named arrays, which identifies an initial state."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return base64.b32encode(digest.digest())[:16].decode().lower()
