"""The frameworks, and which of them a model belongs to.

Only frameworks that the user has already imported are asked: no other is imported to find out. Not
here: what a framework does (`train.framework`, and the class in each room).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from .backend import installed, use_backend
from .errors import InputError
from .train.framework import Framework, ReadModel
from .train.task import CLASSIFICATION, Task


def _keras() -> Framework:
    from .keras.framework import FRAMEWORK

    return FRAMEWORK


def _torch() -> Framework:
    from .torch.framework import FRAMEWORK

    return FRAMEWORK


# With the PyTorch backend a Keras model is also a torch module, so Keras is asked first.
FRAMEWORKS: dict[str, Callable[[], Framework]] = {"keras": _keras, "torch": _torch}
HOST = "torch"  # the framework that other frameworks' models are lowered to
_RANDOM = frozenset({"keras", "torch", "tensorflow", "jax"})  # each has its own random numbers


# Keras imports these, if installed, for plots, wrappers, checkpoints: half of its import time.
_EXTRAS = ("jax", "matplotlib", "pandas", "scipy", "sklearn")


def named(name: str) -> Framework:
    """Import a framework by its name and return it."""
    return FRAMEWORKS[name]()


def imported() -> frozenset[str]:
    """Return the imported packages that draw random numbers."""
    return frozenset(name for name in _RANDOM if sys.modules.get(name) is not None)


def seed_all(seed: int) -> None:
    """Seed the random numbers of every imported framework."""
    for name in FRAMEWORKS:
        if name in imported():
            named(name).seed(seed)


def warm_up() -> None:
    """Load what building and training need: `HOST`, and the frameworks that are imported."""
    if installed(HOST):
        named(HOST)
    for name in FRAMEWORKS:
        if name in imported():
            named(name)


def trouble(error: BaseException) -> str:
    """Return "memory" for an error of a GPU that has too little of it, "device" for a lost GPU.

    Empty for others. What caused the error counts, too.
    """
    cause: BaseException | None = error
    while cause is not None:
        for name in FRAMEWORKS:
            if name in imported() and (found := named(name).trouble(cause)):
                return found
        cause = cause.__cause__
    return ""


def import_keras() -> None:
    """Import Keras, in a process of ours, without what it only offers to the user's own code.

    Other imports of those packages, later ones too, aren't changed.
    """
    backend = use_backend()
    if backend == HOST:
        defer_compiler()
    with _left_out(_EXTRAS if backend == HOST else ()):
        importlib.import_module("keras")


@contextmanager
def _left_out(names: Iterable[str]) -> Iterator[None]:
    """Hide packages from an import that doesn't need them."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type] # None: an import fails
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def limit_threads(threads: int) -> None:
    """Limit the number of threads of `HOST`, if it is installed."""
    with suppress(ImportError):
        named(HOST).limit_threads(threads)


def defer_compiler() -> None:
    """Import the compiler of `HOST`, if that is installed, only when something is compiled."""
    with suppress(ImportError):
        named(HOST).defer_compiler()


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 in full in every imported framework, and put the user's settings back.

    On a GPU they may compute it in TF32, with errors of 1e-3, which a comparison of two models
    would find.
    """
    with ExitStack() as stack:
        for name in FRAMEWORKS:
            if name in imported():
                stack.enter_context(named(name).full_float32())
        yield


@contextmanager
def on_host() -> Iterator[None]:
    """Build models on the CPU: every operation that makes a weight on a GPU waits there."""
    with ExitStack() as stack:
        for name in FRAMEWORKS:
            if name in imported():
                stack.enter_context(named(name).on_host())
        yield


def content(thing: Any) -> Any:
    """Return what an object of a framework consists of; None: its attributes show it."""
    found = (named(name).content(thing) for name in FRAMEWORKS if name in imported())
    return next((each for each in found if each is not None), None)


def owner(model: Any) -> Framework | None:
    """Return the framework that a model belongs to, None for anything else."""
    found = (named(name) for name in FRAMEWORKS if name in imported())
    return next((framework for framework in found if framework.owns(model)), None)


def framework_of(model: Any) -> Framework:
    """Return the framework that a model belongs to.

    Raises: InputError: it isn't a model of a known framework.
    """
    found = owner(model)
    if found is None:
        kind = type(model).__name__
        raise InputError(
            f"expected a Keras model or a torch.nn.Module, got {kind}: {model!r:.80}. A file or a "
            "name is read on the command line (such as relucate audit MODEL)."
        )
    return found


def lower(read: ReadModel, *, check: bool = True, task: Task = CLASSIFICATION) -> Any:
    """Return a model of `HOST` that computes and trains like the one that was read.

    What the task's loss already includes at the end (a softmax, a sigmoid) is left out.
    Raises: Refused: it can't be lowered, or the check found a difference.
    """
    return named(HOST).lower(read.lowerable(), check=check, task=task)
