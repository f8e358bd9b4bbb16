"""The user's own training: a function `(order, seed) -> score`, called in worker processes.

`own_source` makes of the function what can be sent to them; `look_at` and `call` run there. A call
that fails, or returns no score, is a lost run with its reason, not an error. Not here: the plan of
such a study (`own_plan`), storing and deciding.
"""

from __future__ import annotations

import importlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import InputError, briefly, printable
from ..frameworks import FRAMEWORKS, imported, named, seed_all
from ..nets.models import meaning
from ..nets.user_code import arguments, parameters, place, takes_all, where
from ..order import Order
from ..train.run import RunResult, RunSpec
from .arms import label, parsed
from .environment import versions
from .identity import packages
from .returned import Unscored, read_score
from .source import ModelSource, is_function, resolve
from .tasks import Inspection

ENGINE = "run"  # the name of this engine, besides those that train
_ARMS = ("order", "arm")  # what the function may call its first parameter
_EXAMPLE = "such as def train(order, seed)"


@dataclass(frozen=True)
class OwnArm:
    """One arm as the user named it: an order, or (is_order False) any other label.

    options: this arm's own keyword arguments of the function.
    """

    given: str
    options: Mapping[str, Any] = field(default_factory=dict)
    is_order: bool = True

    @property
    def order(self) -> Order | None:
        """The parsed order."""
        return parsed(self.given) if self.is_order else None

    @property
    def name(self) -> str:
        """The canonical order, or the label as given."""
        return str(self.order or self.given)

    @property
    def label(self) -> str:
        """The arm's name in tables: its name, and the options it varies."""
        return label(self.name, self.options)

    @property
    def varied(self) -> Mapping[str, Any]:
        """What this arm has of its own besides the order."""
        return self.options

    def to_dict(self) -> dict[str, Any]:
        """Return the arm as JSON-ready data: what the function is called with."""
        return {"given": self.given, "options": dict(self.options)}


def own_source(run: Any, options: Mapping[str, Any] | None, arms: Sequence[OwnArm]) -> ModelSource:
    """Return what can be sent to a worker of a function, "file.py:train" or "package.module:train".

    A function's parameters are checked now; those of a text when a worker has imported it.

    Args: options: keyword arguments for the function, the same in every arm.
    Raises: InputError: no such function, wrong parameters, options that aren't plain data.
    """
    named = isinstance(run, str) and meaning(run).kind in {"file", "module"}
    if not (named or is_function(run)):
        method = ": give its method, run=it.__call__" if callable(run) else ""
        raise InputError(
            "run= must be your own training, a function or its name as file.py:train or "
            f"package.module:train, got {run!r:.80}{method}."
        )
    for name in ("seed", "arm"):
        if name in (options or {}):
            raise InputError(f"option {name}= can't be given: every run gets its own {name}.")
    source = resolve(run, options)
    if not isinstance(run, str):
        for arm in arms:
            _arguments(run, source, arm.given, 0, arm.options)
    return source


def _arguments(
    function: Callable[..., Any],
    source: ModelSource,
    given: str,
    seed: int,
    own: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the keyword arguments of one call."""
    taken = parameters(function, source.text)
    every, named = takes_all(taken), {n for n, p in taken.items() if p.kind != p.POSITIONAL_ONLY}
    name = next((name for name in _ARMS if name in named), "order")
    for needed in (name, "seed"):
        if needed not in named and not every:
            raise InputError(
                f"'{source.text}' must take {name} and seed by name, {_EXAMPLE}: it takes "
                f"({', '.join(map(str, taken.values()))})."
            )
    values = {name: given, "seed": seed}
    return arguments(function, source.text, values, {**values, **source.options, **own})


def look_at(source: ModelSource, arms: Sequence[Mapping[str, Any]]) -> Inspection:
    """Load the function, check its parameters, and return what identifies its code.

    arms: as from `OwnArm.to_dict`.
    """
    function = prepare(source)
    for arm in arms:
        _arguments(function, source, arm["given"], 0, arm["options"])
    used = packages(function)
    frameworks = [named(name) for name in FRAMEWORKS if name in used & imported()]
    backend = next((found.backend() for found in frameworks if found.lowers), "")
    engine = {"name": ENGINE, "reason": "your own function", "backend": backend, "device": ""}
    found = versions(used | {backend} - {""}, always=())
    return Inspection(engine, found, (), (), source.code(function))


def prepare(source: ModelSource) -> Callable[..., Any]:
    """Load the function, once per process, and the frameworks that it reaches; return it.

    Only the random numbers of an imported framework can be seeded.
    """
    source.set_up()
    return _prepared(source.kind, source.text, source.digest, source.payload)


@lru_cache(maxsize=1)
def _prepared(kind: str, text: str, digest: str, payload: bytes) -> Callable[..., Any]:
    function = ModelSource(kind, text, digest=digest, payload=payload).load()
    for name in packages(function) & set(FRAMEWORKS):
        with suppress(ImportError):  # the function may do without it
            importlib.import_module(name)
    return function


def call(spec: RunSpec, source: ModelSource, *, nan_diverges: bool) -> RunResult:
    """Call the function for one run and return the result; a lost run has the status "failed".

    Before the call the random numbers of Python, NumPy and the imported frameworks are seeded with
    the run's seed, and Keras counts its layers' names from the start.

    nan_diverges: a score that isn't finite means a run that diverged.
    """
    function = prepare(source)
    given = _arguments(function, source, spec.arm["given"], spec.seed, spec.arm["options"])
    seed_all(spec.seed)
    random.seed(spec.seed)
    np.random.seed(spec.seed % 2**32)
    start = time.perf_counter()
    try:
        result = read_score(function(**given), spec.task["metric"], nan_diverges=nan_diverges)
    except Unscored as reason:
        result = RunResult("failed", note=str(reason))
    except SystemExit as error:
        result = RunResult("failed", note=where(error))
    except Exception as error:
        result = RunResult("failed", note=printable(f"{briefly(error)}{place(error)}"))
    result.seconds["total"] = time.perf_counter() - start
    return result
