"""Functions of each element that are no operation of a Graph: an absolute value, a power, a choice.

A reader that knows one keeps it as an `opaque` node with two attributes: `function`, its name here,
and `operands`, its arguments in order: a number, or None for the next of the node's inputs. So
`spelled` can say of which value, and what, several of them compute together. Not here: activations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .nodes import Node

LINE = np.linspace(-20.0, 20.0, 801)  # where the values of a `table` are
ELEMENTWISE: Mapping[str, Callable[..., np.ndarray]] = {
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "trunc": np.trunc,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "square": np.square,
    "power": np.power,
    "divide": np.divide,
    "reciprocal": np.reciprocal,
    "log": np.log,
    "log1p": np.log1p,
    "log2": np.log2,
    "log10": np.log10,
    "expm1": np.expm1,
    "exp2": np.exp2,
    **{name: getattr(np, name) for name in "sin cos tan sinh cosh".split()},
    **{f"a{name[3:]}": getattr(np, name) for name in "arcsin arccos arctan arcsinh".split()},
    "fill": lambda x, value: np.full_like(x, value),
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "logical_not": np.logical_not,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "where": lambda condition, x, y: np.where(condition != 0, x, y),
    "table": lambda x, *values: np.interp(x, LINE, values),
    "as_number": np.positive,  # a truth value as 0 or 1
}


def is_function(node: Node) -> bool:
    """Return whether a node is a known function of each element."""
    return node.op == "opaque" and bool(node.attrs.get("function"))


def apply(node: Node, xs: list[np.ndarray]) -> np.ndarray:
    """Return what an opaque node with a `function` gives, in float64."""
    given = iter(xs)
    values: list[Any] = [next(given) if v is None else v for v in node.attrs["operands"]]
    with np.errstate(all="ignore"):
        return np.asarray(ELEMENTWISE[node.attrs["function"]](*values), np.float64)
