"""Which parts of a model don't train although the model does.

Its modes may say so now; a `train` of its own, or of a submodule, may put norms into eval mode and
take gradients away each time it is called; its forward may put a module into eval mode before it
calls it. What they do is seen by calling them. Called by `detached`, `reader` and `writing`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ...errors import Refused, briefly
from ..state import unchanged, untouched


@dataclass(frozen=True)
class Trained:
    """What `model.train()` leaves out.

    Attributes: frozen: the paths of the modules in eval mode; fixed: the names of the parameters
        without gradients.
    """

    frozen: frozenset[str]
    fixed: frozenset[str]


def after_train(model: nn.Module) -> Trained:
    """Return what a model leaves out of training once its `train` was called.

    Raises: Refused: that fails.
    """
    if not _has_own_train(model):
        return Trained(frozenset(), _fixed(model))
    with unchanged(model):
        try:
            model.train()
        except Exception as error:  # whatever the user's code does
            raise Refused(f"the model's own train() fails ({briefly(error)}).") from error
        frozen = frozenset(p for p, module in model.named_modules() if not module.training)
        return Trained(frozen, _fixed(model))


def _has_own_train(model: nn.Module) -> bool:
    return any(
        "train" in vars(m) or type(m).train is not nn.Module.train
        for m in model.modules()
        if not isinstance(m, torch.jit.ScriptModule)
    )


def _fixed(model: nn.Module) -> frozenset[str]:
    return frozenset(name for name, p in model.named_parameters() if not p.requires_grad)


def left_out(model: nn.Module) -> Trained:
    """Return what a model leaves out of training: now, or by a `train` of its own.

    A `train` that fails trains nothing: then it's what the modes say.
    """
    now = frozenset(p for p, m in model.named_modules() if model.training and not m.training)
    try:
        own = after_train(model)
    except Refused:
        return Trained(now, _fixed(model))
    return Trained(now | own.frozen, own.fixed)


def trained_otherwise(
    made: nn.Module, source: nn.Module, moved: Mapping[str, str], more: Collection[str] = ()
) -> str:
    """Return why a module doesn't train what its source does, or nothing.

    Args:
        moved: path -> the path that the module there had in the source.
        more: paths of modules that the source's forward puts into eval mode, and `made`'s doesn't.
    """
    try:
        planned, found = after_train(source), after_train(made)
    except Refused as error:
        return str(error).rstrip(".")
    frozen = planned.frozen.union(more)
    old = {path for path, _ in source.named_modules()}
    paths = {p: moved.get(p, p) for p, _ in made.named_modules() if moved.get(p, p) in old}
    for path, origin in paths.items():
        if (path in found.frozen) != (origin in frozen):
            return f"its train() would freeze other modules (at '{path}')"
    for name, _ in made.named_parameters():
        path, _, last = name.rpartition(".")
        origin = f"{paths[path]}.{last}" if path in paths else name
        if (name in found.fixed) != (origin in planned.fixed) and _holds(source, origin):
            return f"its train() would freeze other parameters ('{name}')"
    return ""


def _holds(model: nn.Module, name: str) -> bool:
    return name in dict(model.named_parameters(remove_duplicate=False))


# Modes that a forward sets.


@contextmanager
def modes_set(paths: Mapping[int, str], found: set[str]) -> Iterator[None]:
    """Add to `found` the modules whose mode is set meanwhile, of those with these ids."""
    plain: Callable[..., None] = nn.Module.__setattr__

    def noting(self: nn.Module, name: str, value: Any) -> None:
        if name == "training" and id(self) in paths:
            found.add(paths[id(self)])
        plain(self, name, value)

    nn.Module.__setattr__ = noting
    try:
        yield
    finally:
        nn.Module.__setattr__ = plain


def frozen_by_forward(model: nn.Module, args: Any, kwargs: Any, paths: set[str]) -> set[str]:
    """Return which of these modules are in eval mode in each call of a model that trains.

    None of them, if the model can't be called so.
    """
    modes: dict[str, set[bool]] = {path: set() for path in paths}
    with untouched(model):
        for path in paths:
            model.get_submodule(path).register_forward_pre_hook(_noting(modes[path]))
        called = _call_in_training(model, args, kwargs)
    return {path for path, seen in modes.items() if called and seen == {False}}


def fixed_statistics(model: nn.Module, args: Any, kwargs: Any) -> set[str]:
    """Return the moving means that batch norms use, not the batch's, also while a model trains.

    None of them, if the model can't be called in training mode.
    """
    calls = _BatchNorms()
    with untouched(model):
        names = {id(x): name for name, x in model.named_buffers()}
        with calls:
            called = _call_in_training(model, args, kwargs)
    never = [key for key, seen in calls.found.items() if seen == {False}]
    return {names[key] for key in never if called and key in names}


@torch.no_grad()
def _call_in_training(model: nn.Module, args: Any, kwargs: Any) -> bool:
    """Call a model in training mode; return whether that can be done."""
    try:
        model.train()
        model(*pytree.tree_map(_several, args), **pytree.tree_map(_several, kwargs))
    except Exception:  # whatever the user's code does
        return False
    return True


_SIGNATURES: dict[Any, tuple[str, ...]] = {
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training"),
    torch.batch_norm: ("input", "weight", "bias", "running_mean", "running_var", "training"),
}


class _BatchNorms(TorchFunctionMode):
    """Notes of each moving mean whether it is moved."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[int, set[bool]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (kind := _SIGNATURES.get(func)) is not None:
            given = dict(zip(kind, args, strict=False)) | kwargs
            moves = bool(given.get("training", False))
            self.found.setdefault(id(given.get("running_mean")), set()).add(moves)
        return func(*args, **kwargs)


def _noting(seen: set[bool]) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: Any) -> None:
        seen.add(module.training)

    return hook


def _several(x: Any) -> Any:
    """Return an example twice where it is one, and a copy: a norm in training mode needs more."""
    if not isinstance(x, Tensor):
        return x
    return x.repeat(2, *[1] * (x.ndim - 1)) if x.ndim and x.shape[0] == 1 else x.clone()
