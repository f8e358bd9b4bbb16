"""What a traced function is called: F.relu, torch.relu, x.relu_() and aten.relu are all "relu".

Called by `translator`; what each name means is in `calls`.
"""

from __future__ import annotations

import operator
import re
import types
from typing import Any

import torch
import torch.nn.functional as F
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket

from .program import Call

_SYNONYMS = {
    "truediv": "div",
    "true_divide": "div",
    "divide": "div",
    "multiply": "mul",
    "subtract": "sub",
    "concat": "cat",
    "concatenate": "cat",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "moveaxis": "movedim",
    "negative": "neg",
    "_upsample_nearest_exact1d": "upsample_nearest1d",
    "_upsample_nearest_exact2d": "upsample_nearest2d",
    "_upsample_nearest_exact3d": "upsample_nearest3d",
    "_log_softmax": "log_softmax",
    "_softmax": "softmax",
    "_unsafe_view": "view",
    "clip": "clamp",
    "_threshold": "threshold",
    "__and__": "bitwise_and",
    "__or__": "bitwise_or",
}
# Functions whose arguments have another order in torch.nn.functional.
_OTHER_ORDER = {"batch_norm", "instance_norm", "embedding"}
_LOGICAL = {  # whose names end as those of what changes its argument
    operator.and_: "bitwise_and",
    operator.or_: "bitwise_or",
    operator.invert: "bitwise_not",
    operator.not_: "not",
}
_OPERATOR_IN_PLACE = {"iadd", "isub", "imul", "itruediv", "ifloordiv", "ipow", "imod", "imatmul"}
_KNOWN = {id(found) for space in (torch, F, torch.linalg) for found in vars(space).values()}
_TRUSTED = {"torch", "torch.nn.functional", "_operator", "operator", "torch.functional"}


def canonical(target: Any, kwargs: dict[str, Any]) -> tuple[str, bool]:
    """Return the name of a function or method, and whether it changes its first argument.

    The name is empty for a function that isn't PyTorch's or Python's own.

    >>> canonical(F.relu, {"inplace": True})
    ('relu', True)
    >>> canonical("add_", {})
    ('add', True)
    >>> canonical(F.batch_norm, {})
    ('functional_batch_norm', False)
    """
    name = _LOGICAL.get(target) or _plain_name(target)
    in_place = kwargs.get("inplace") is True
    if name in _OPERATOR_IN_PLACE:
        name, in_place = name[1:], True
    elif name.endswith("_") and not name.endswith("__"):
        name, in_place = name[:-1], True
    elif name == "setitem":
        in_place = True
    name = _SYNONYMS.get(name, name)
    functional = getattr(target, "__module__", None) == "torch.nn.functional"
    if name in _OTHER_ORDER and functional and isinstance(target, types.FunctionType):
        name = f"functional_{name}"
    return name, in_place


def _plain_name(target: Any) -> str:
    if isinstance(target, str):
        return target
    if isinstance(target, OpOverload):
        space, _, name = target._schema.name.partition("::")
        return name if space == "aten" else ""
    known = getattr(target, "__module__", None) in _TRUSTED or id(target) in _KNOWN
    return getattr(target, "__name__", "") if known or target is getattr else ""


def describe(target: Any) -> str:
    """Return how a person would call a traced function."""
    if isinstance(target, str):
        return target
    if isinstance(target, OpOverload):
        return target._schema.name.partition("::")[2]
    return str(getattr(target, "__name__", target))


def place_of(call: Call) -> str:
    """Return the line of the model's code that makes a call, where torch.export kept it."""
    found = re.findall(
        r'File "([^"]+)", line (\d+), in [^\n]*\n\s*([^\n]*)', call.results[0].stack_trace or ""
    )
    return "{}:{}: {}".format(*found[-1]) if found else ""


def is_random(target: Any) -> bool:
    """Say whether a function draws random numbers, or may (a whole graph inside a call)."""
    if isinstance(target, HigherOrderOperator):
        return True
    if isinstance(target, OpOverload):
        return torch.Tag.nondeterministic_seeded in target.tags
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    return has_tag(name.rstrip("_"), torch.Tag.nondeterministic_seeded)


def has_tag(name: str, tag: torch.Tag) -> bool:
    """Say whether a function of PyTorch with this name, in any of its forms, has a tag.

    >>> has_tag("nonzero", torch.Tag.dynamic_output_shape)
    True
    """
    packet = getattr(torch.ops.aten, name, None) if name else None
    if not isinstance(packet, OpOverloadPacket):
        return False
    return any(tag in getattr(packet, overload).tags for overload in packet.overloads())
