"""PyTorch's functions of each element that no operation of a Graph stands for: abs, pow, where.

Each becomes an opaque node that says which function it is (`graph.functions`), so that an
activation that is made of several is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..program import Data, Unknown, need_data
from ..translator import Translator
from .handler import Handler

_ONE = "abs sign floor ceil trunc sqrt rsqrt square reciprocal log log1p log2 log10 expm1 exp2 "
_ONE += "sin cos tan sinh cosh asin acos atan asinh logical_not"
_COMPARED = {
    "gt": "greater",
    "ge": "greater_equal",
    "lt": "less",
    "le": "less_equal",
    "eq": "equal",
    "ne": "not_equal",
}
_TRUTH = {*_COMPARED.values(), "logical_not", "logical_and", "logical_or"}  # of type bool


def number_in(t: Translator, value: Any) -> float | None:
    """Return a number, or that in a tensor which the forward makes itself; None: it is neither."""
    if isinstance(value, Tensor) and value.shape in ((), (1,)) and not t.is_learned(value):
        return float(value)
    return float(value) if isinstance(value, (int, float)) else None


def element_by_element(
    t: Translator, function: str, values: Sequence[Any], dtype: torch.dtype | None = None
) -> Data:
    """Emit a function of each element of its arguments, which are tensors or numbers.

    Raises: Unknown: an argument is another constant, or its shape isn't that of the others.
    """
    inputs = [t.merged_by_a_node(value) for value in values if isinstance(value, Data)]
    numbers = [None if isinstance(value, Data) else number_in(t, value) for value in values]
    if any(v is None and not isinstance(x, Data) for x, v in zip(values, numbers, strict=True)):
        raise Unknown(f"{function} with a constant tensor")
    if len({x.shape for x in inputs}) != 1:
        raise Unknown(f"{function} of tensors of several shapes")
    t.refuse_batch(*(v for v in numbers if v is not None))
    attrs = {"type": function, "why": "", "function": function, "operands": tuple(numbers)}
    floats = [x.dtype for x in inputs if x.dtype.is_floating_point]
    kind = torch.bool if function in _TRUTH else dtype or (floats or [inputs[0].dtype])[0]
    shape, label = inputs[0].shape, t.called_as
    return t.emit("opaque", inputs, attrs, label=label, shape=shape, dtype=kind)


def _of_one(function: str) -> Handler:
    return lambda t, input: element_by_element(t, function, [need_data(input)])


def _of_two(function: str) -> Handler:
    return lambda t, input, other: element_by_element(t, function, [input, other])


def _of_truths(function: str) -> Handler:
    def handler(t: Translator, *values: Any) -> Data:
        if any(not isinstance(x, Data) or x.dtype != torch.bool for x in values):
            raise Unknown("of bits")
        return element_by_element(t, function, values)

    return handler


def _power(t: Translator, input: Any, exponent: Any) -> Data:
    return element_by_element(t, "power", [input, exponent])


def _round(t: Translator, input: Any, decimals: int = 0) -> Data:
    if decimals:
        raise Unknown("rounded to decimals")
    return element_by_element(t, "round", [need_data(input)])


def _where(t: Translator, condition: Any, input: Any, other: Any) -> Data:
    return element_by_element(t, "where", [need_data(condition), input, other])


def _masked_fill(t: Translator, input: Any, mask: Any, value: Any) -> Data:
    return _where(t, mask, value, need_data(input))


def _like(value: float) -> Handler:
    def handler(t: Translator, input: Any, **named: Any) -> Data:
        kind = named.get("dtype")
        return element_by_element(t, "fill", [need_data(input), value], kind)

    return handler


def _full_like(t: Translator, input: Any, fill_value: Any, **named: Any) -> Data:
    return element_by_element(t, "fill", [need_data(input), fill_value], named.get("dtype"))


def _new(t: Translator, input: Any, size: Any, value: Any, kind: Any) -> Any:
    """Return one number as a constant, or a tensor of the input's shape as a node.

    Raises: Unknown: a tensor of another shape, which values may be put into.
    """
    x = need_data(input)
    shape = tuple(size[0] if len(size) == 1 and isinstance(size[0], (tuple, list)) else size)
    if shape == x.shape:
        return element_by_element(t, "fill", [x, value], kind)
    if any(not isinstance(n, int) or n != 1 for n in shape):
        raise Unknown("a new tensor")
    return torch.full(shape, value, dtype=kind or x.dtype, device=t.device)


def _new_of(value: float) -> Handler:
    def handler(t: Translator, input: Any, *size: Any, **named: Any) -> Any:
        return _new(t, input, size or (named.get("size", ()),), value, named.get("dtype"))

    return handler


def _new_full(t: Translator, input: Any, size: Any, fill_value: Any, **named: Any) -> Any:
    if number_in(t, fill_value) is None:
        raise Unknown("a new tensor of a value that isn't a number")
    return _new(t, input, (size,), number_in(t, fill_value), named.get("dtype"))


def _new_tensor(t: Translator, input: Any, data: Any, **named: Any) -> Any:
    return _new_full(t, input, (), data, **named)


FUNCTIONS: dict[str, Handler] = {
    **{name: _of_one(name) for name in _ONE.split()},
    "absolute": _of_one("abs"),
    "arctan": _of_one("atan"),
    **{name: _of_two(function) for name, function in _COMPARED.items()},
    **{name: _of_two(name) for name in ("greater", "greater_equal", "less", "less_equal")},
    **{f"logical_{name}": _of_two(f"logical_{name}") for name in ("and", "or")},
    **{f"bitwise_{name}": _of_truths(f"logical_{name}") for name in ("and", "or", "not")},
    "pow": _power,
    "round": _round,
    "where": _where,
    "masked_fill": _masked_fill,
    "zeros_like": _like(0.0),
    "ones_like": _like(1.0),
    "full_like": _full_like,
    "new_zeros": _new_of(0.0),
    "new_ones": _new_of(1.0),
    "new_full": _new_full,
    "new_tensor": _new_tensor,
}
