"""The settings of a built model's norms, eps and momentum: to report them, or to equalise them.

Runs inside worker processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from ..stats.paired import is_number
from ..train.framework import Framework

SETTINGS = ("eps", "momentum")


def check_norm_settings(eps: float | None, momentum: float | None) -> dict[str, float]:
    """Return the given settings by name.

    Raises: InputError: an eps outside (0, 1), a momentum outside [0, 1).
    """
    if eps is not None and not (is_number(eps) and 0 < eps < 1):
        raise InputError(f"norm_eps must be above 0 and below 1, got {eps!r}.")
    if momentum is not None and not (is_number(momentum) and 0 <= momentum < 1):
        raise InputError(
            "norm_momentum is the share of the old average that a step keeps, from 0 to below 1 "
            f"(0.9 is PyTorch's 0.1), got {momentum!r}."
        )
    given = dict(zip(SETTINGS, (eps, momentum), strict=True))
    return {name: float(value) for name, value in given.items() if value is not None}


def described(norm: Any) -> str:
    """Return a norm's kind and settings, as its framework spells them."""
    known = {"epsilon": "eps", "eps": "eps", "momentum": "momentum"}
    values = [
        f"{shown} {getattr(norm, key):g}"
        for key, shown in known.items()
        if isinstance(getattr(norm, key, None), (int, float))
    ]
    return " ".join((type(norm).__name__, *values))


def equalise(model: Any, framework: Framework, wanted: Mapping[str, float]) -> str:
    """Set the eps and the momentum of every norm of a model to `wanted`.

    momentum is Keras's, the share of the old average that is kept; PyTorch's is one minus that.
    Returns: a sentence on the norms that keep their own, or nothing.
    """
    kept: dict[str, None] = {}
    for norm in framework.norms(model):
        for name, value in wanted.items():
            if not _set(framework, norm, name, value):
                kept[f"{type(norm).__name__} keeps its {name}"] = None
    return f"not set by norm_{' or norm_'.join(wanted)}: {', '.join(kept)}" if kept else ""


def _set(framework: Framework, norm: Any, name: str, value: float) -> bool:
    """Set one setting; return False if the norm has it, but in an unknown form."""
    if name == "eps":
        attr = next((a for a in ("epsilon", "eps") if hasattr(norm, a)), None)
        if attr is not None and isinstance(getattr(norm, attr), float):
            setattr(norm, attr, value)
            return True
        return attr is None
    if not hasattr(norm, "momentum"):
        return True
    momentum = framework.momentum(norm, value)
    if momentum is None:
        return False
    norm.momentum = momentum
    return True
