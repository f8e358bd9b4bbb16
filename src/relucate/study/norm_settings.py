"""The settings of a built model's norms, eps and momentum: to tell arms apart, or to equalise them.

Runs inside worker processes; the frameworks are those that the model came with.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import InputError
from ..stats.paired import is_number

SETTINGS = ("eps", "momentum")


def check_norm_settings(eps: float | None, momentum: float | None) -> dict[str, float]:
    """Return what was given, by name.

    Raises: InputError: an eps that isn't a positive number, a momentum outside [0, 1).
    """
    if eps is not None and not (is_number(eps) and 0 < eps < 1):
        raise InputError(f"norm_eps is a number above 0 and below 1, got {eps!r}.")
    if momentum is not None and not (is_number(momentum) and 0 <= momentum < 1):
        raise InputError(
            "norm_momentum is the share of the old average that a step keeps, from 0 to below 1 "
            f"(0.9 is PyTorch's 0.1), got {momentum!r}."
        )
    given = dict(zip(SETTINGS, (eps, momentum), strict=True))
    return {name: float(value) for name, value in given.items() if value is not None}


def norms(model: Any, framework: str) -> Iterator[Any]:
    """Yield the layers or modules that call themselves norms."""
    layers = model._flatten_layers() if framework == "keras" else model.modules()
    yield from (layer for layer in layers if "norm" in type(layer).__name__.lower())


def described(layer: Any) -> str:
    """Return a norm's kind and settings, as its framework spells them."""
    known = {"epsilon": "eps", "eps": "eps", "momentum": "momentum"}
    values = [
        f"{told} {getattr(layer, key):g}"
        for key, told in known.items()
        if isinstance(getattr(layer, key, None), (int, float))
    ]
    return " ".join((type(layer).__name__, *values))


def equalise(model: Any, framework: str, wanted: Mapping[str, float]) -> str:
    """Give every norm of a model the eps and the momentum that all arms are to have.

    momentum is Keras's, the share of the old average that is kept; PyTorch's is one minus that.
    Returns: a sentence on the norms that keep their own, or nothing.
    """
    kept: dict[str, None] = {}
    for layer in norms(model, framework):
        for name, value in wanted.items():
            if not _set(layer, name, value):
                kept[f"{type(layer).__name__} keeps its {name}"] = None
    return f"not set by norm_{' or norm_'.join(wanted)}: {', '.join(kept)}" if kept else ""


def _set(layer: Any, name: str, value: float) -> bool:
    """Set one setting; False: the layer has it, but who knows in which sense."""
    if name == "eps":
        attr = next((a for a in ("epsilon", "eps") if hasattr(layer, a)), None)
        if attr is not None and isinstance(getattr(layer, attr), float):
            setattr(layer, attr, value)
            return True
        return attr is None
    if not hasattr(layer, "momentum"):
        return True
    share = _kept_share(layer, value)
    if share is None:
        return False
    layer.momentum = share
    return True


def _kept_share(layer: Any, momentum: float) -> float | None:
    """Return `momentum` as a batch norm of this kind spells it, None for an unknown kind."""
    keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
    if keras is not None and isinstance(layer, keras.layers.BatchNormalization):
        return momentum
    if torch is not None and isinstance(layer, torch.nn.modules.batchnorm._NormBase):
        return 1 - momentum
    return None
