"""What the reader makes of arithmetic: of two inputs, of an input and a number or a weight.

Names and arguments are PyTorch's, as in `functions`. Called by `translator` through the table at
the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .builder import Weight
from .program import Data, Unknown, need_data
from .translator import Translator

Handler = Callable[..., Any]


def _arithmetic(op: str, swap: bool = False) -> Handler:
    def handler(
        t: Translator, input: Any, other: Any, alpha: Any = 1, rounding_mode: Any = None
    ) -> Data:
        if rounding_mode is not None:
            raise Unknown("it rounds")
        a, b = (other, input) if swap else (input, other)
        if alpha != 1:
            b = _times(t, b, alpha)
        return combine(t, op, a, b)

    return handler


def _times(t: Translator, value: Any, factor: Any) -> Any:
    if isinstance(value, Data):
        return t.emit("rescale", [value], {"scale": float(factor), "offset": 0.0})
    return value * factor


def combine(t: Translator, op: str, a: Any, b: Any) -> Data:
    """Emit a op b, of which at least one depends on the input."""
    if isinstance(a, Data) and isinstance(b, Data):
        if op in ("add", "multiply", "subtract", "divide") and _integers(a, b):
            raise Unknown("arithmetic of integers")
        return t.emit(op, [a, b], dtype=torch.promote_types(a.dtype, b.dtype))
    x, other = (a, b) if isinstance(a, Data) else (b, a)
    if not isinstance(x, Data) or not x.dtype.is_floating_point:
        raise Unknown("arithmetic of integers")
    first = x is a
    if isinstance(other, Tensor):
        return _with_weights(t, op, x, other, first)
    if isinstance(other, bool) or not isinstance(other, (int, float)):
        raise Unknown(f"with {type(other).__name__}")
    scale, offset = _as_rescale(op, float(other), first)
    _refuse_batch(t, scale, offset)
    return t.emit("rescale", [x], {"scale": scale, "offset": offset})


def _integers(a: Data, b: Data) -> bool:
    return not (a.dtype.is_floating_point and b.dtype.is_floating_point)


def _as_rescale(op: str, number: float, first: bool) -> tuple[float, float]:
    """Return (scale, offset) of x op number (`first`), or of number op x."""
    if op == "add":
        return 1.0, number
    if op == "subtract":
        return (1.0, -number) if first else (-1.0, number)
    if op == "multiply":
        return number, 0.0
    if op == "divide" and first and number:
        return 1.0 / number, 0.0
    raise Unknown("divided by the input" if op == "divide" else f"{op} with a number")


def _refuse_batch(t: Translator, *numbers: float) -> None:
    # The batch that the model is read with is a prime number that models don't use.
    sizes = {float(t.batch), 1.0 / t.batch}
    if t.batch > 1 and sizes & {abs(number) for number in numbers}:
        raise Unknown("with a number that depends on the size of the batch")


def _with_weights(t: Translator, op: str, x: Data, other: Tensor, first: bool) -> Data:
    if op not in ("add", "subtract", "multiply", "divide") or (op == "divide" and not first):
        raise Unknown(f"{op} with a constant tensor")
    other = t.without_batch(other, len(x.shape))
    role = "offset" if op in ("add", "subtract") else "scale"
    if op == "subtract" and first:
        other = t.derived(-other, other)
    elif op == "subtract":
        x = t.emit("rescale", [x], {"scale": -1.0, "offset": 0.0})
    elif op == "divide":
        other = t.derived(1.0 / other, other)
    found = t.emit("affine", [x], {}, {role: Weight(other)})
    if len(found.shape) != len(x.shape) or found.shape[0] != x.shape[0]:
        raise Unknown("a constant that gives the input more axes")
    return found


def _neg(t: Translator, input: Any) -> Data:
    return t.emit("rescale", [need_data(input)], {"scale": -1.0, "offset": 0.0})


def _extreme(op: str) -> Handler:
    def handler(t: Translator, input: Any, other: Any) -> Data:
        if not isinstance(input, Data) or not isinstance(other, Data):
            raise Unknown("with a constant")
        return t.emit(op, [input, other])

    return handler


ARITHMETIC: dict[str, Handler] = {
    "add": _arithmetic("add"),
    "sub": _arithmetic("subtract"),
    "rsub": _arithmetic("subtract", swap=True),
    "mul": _arithmetic("multiply"),
    "div": _arithmetic("divide"),
    "neg": _neg,
    "maximum": _extreme("maximum"),
    "minimum": _extreme("minimum"),
}
