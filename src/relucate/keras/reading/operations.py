"""What raw operations mean: `keras.ops` and `keras.activations` called on symbolic tensors.

Unlike a layer, an operation may have constants, arrays and variables among its arguments, and it
may change the batch axis (then it stays opaque: a Graph's nodes keep the batch axis). Called by
`read`; shapes and slices are in `reshaping`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from ...graph import OPERATIONS, select
from .reshaping import RESHAPING
from .steps import Branches, Call, Step, Unreadable, opaque, scaled

_HOMES = ("keras.src.ops.", "keras.src.activations.")


def read_operation(node: Any) -> Branches:
    """Return the steps of a call of a raw operation, for each of its outputs.

    A call that isn't known becomes one opaque step.
    """
    operation = node.operation
    read = _OPERATIONS.get(type(operation).__name__)
    if read is None or not type(operation).__module__.startswith(_HOMES):
        return [[opaque(operation)]]
    signature = _signature(type(operation))
    bound = signature.bind(operation, *node.arguments.args, **node.arguments.kwargs)
    bound.apply_defaults()
    try:
        found = read(Call(operation, bound.arguments, node.outputs))
    except Unreadable as reason:
        return [[opaque(operation, str(reason))]]
    branched = isinstance(found[0], list)
    return found if branched else [found]  # type: ignore[return-value]


@functools.cache
def _signature(kind: type) -> inspect.Signature:
    return inspect.signature(kind.call)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)


def _constant(value: Any) -> np.ndarray:
    """Return a number or an array among the arguments."""
    if keras.ops.is_tensor(value):
        value = keras.ops.convert_to_numpy(value)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if array.dtype.kind not in "fiub":
        raise Unreadable(f"called with a {type(value).__name__}")
    return array.astype(np.float64)


def _number(value: Any) -> float:
    array = _constant(value)
    if array.ndim:
        raise Unreadable("called with a constant array")
    return float(array)


def _operands(**values: Any) -> dict[str, Any]:
    """Return the Step arguments `variables` and `constants` for these values, by role."""
    given = {role: value for role, value in values.items() if value is not None}
    if any(_is_tensor(value) for value in given.values()):
        raise Unreadable("its weights are computed")
    variables = {r: v for r, v in given.items() if isinstance(v, keras.Variable)}
    constants = {r: _constant(v) for r, v in given.items() if r not in variables}
    return {"variables": variables, "constants": constants}


# Arithmetic.


def _arithmetic(op: str) -> Callable[[Call], list[Step]]:
    def read(call: Call) -> list[Step]:
        left, right = call.bound["x1"], call.bound["x2"]
        if _is_tensor(left) and _is_tensor(right):
            return [Step(op, {"fill_axis": None})]
        swapped = _is_tensor(right)
        other = left if swapped else right
        if isinstance(other, keras.Variable):
            return [_with_variable(op, other, swapped)]
        constant = _constant(other)
        if op == "divide" and swapped and not constant.ndim:
            return [_of_elements(call, "divide", [float(constant), right])]
        return [_with_constant(op, constant, swapped)]

    return read


def _with_variable(op: str, variable: Any, swapped: bool) -> Step:
    if op == "multiply":
        return Step("affine", {}, {"scale": variable})
    if op == "add":
        return Step("affine", {}, {"offset": variable})
    if op == "subtract" and swapped:
        return Step("affine", {}, {"offset": variable}, constants={"scale": np.asarray(-1.0)})
    raise Unreadable(f"called with the variable '{variable.path}'")


def _with_constant(op: str, constant: np.ndarray, swapped: bool) -> Step:
    if op == "add":
        return scaled(1.0, constant)
    if op == "multiply":
        return scaled(constant, 0.0)
    if op == "subtract":
        return scaled(-1.0, constant) if swapped else scaled(1.0, -constant)
    if op == "divide" and not swapped and np.all(constant):
        return scaled(1.0 / constant, 0.0)
    raise Unreadable("called with a constant operand")


def _extreme(op: str) -> Callable[[Call], list[Step]]:
    """Read a merge of two tensors; with a number it clips: `maximum(x, 0)` is a ReLU."""

    def read(call: Call) -> list[Step]:
        left, right = call.bound["x1"], call.bound["x2"]
        if _is_tensor(left) and _is_tensor(right):
            return [Step(op, {"fill_axis": None})]
        bound = _number(left if _is_tensor(right) else right)
        return [_cut(bound, np.inf, op) if op == "maximum" else _cut(-np.inf, bound, op)]

    return read


def _cut(low: float, high: float, written: str) -> Step:
    # `written`: at the bounds the gradient differs from that of the activation with this name.
    if low == 0.0 and high == 6.0:
        return Step("relu6", {"written": written})
    if low == 0.0:
        top = None if np.isinf(high) else high
        return Step("relu", {"max_value": top, "written": written})
    return Step("hard_tanh", {"min_value": low, "max_value": high, "written": written})


def _clip(call: Call) -> list[Step]:
    low, high = call.operation.x_min, call.operation.x_max
    return [
        _cut(
            -np.inf if low is None else _number(low),
            np.inf if high is None else _number(high),
            "clip",
        )
    ]


# Functions of each element that no operation of a Graph stands for.


def _elements(function: str, *names: str) -> Callable[[Call], list[Step]]:
    """Read a function of each element of these arguments, tensors of one shape and numbers."""
    return lambda call: [_of_elements(call, function, [call.bound[name] for name in names])]


def _of_elements(call: Call, function: str, values: Sequence[Any]) -> Step:
    operands = tuple(None if _is_tensor(value) else _number(value) for value in values)
    tensors = {id(value): tuple(value.shape) for value in values if _is_tensor(value)}
    if len(set(tensors.values())) > 1:
        raise Unreadable("called with tensors of several shapes")
    return opaque(call.operation).with_attrs(function=function, operands=operands)


def _where(call: Call) -> list[Step]:
    names = ("condition", "x1", "x2")
    if any(call.bound[name] is None for name in names):
        raise Unreadable("called with a condition alone")
    return _elements("where", *names)(call)


def _round(call: Call) -> list[Step]:
    if call.operation.decimals:
        raise Unreadable("rounded to decimals")
    return _elements("round", "x")(call)


def _filled(value: float) -> Callable[[Call], list[Step]]:
    return lambda call: [_of_elements(call, "fill", [call.bound["x"], value])]


_ONE = {
    "Absolute": "abs",
    "Arcsin": "asin",
    "Arccos": "acos",
    "Arctan": "atan",
    "Arcsinh": "asinh",
    "LogicalNot": "logical_not",
}
_SAME_NAME = "sign sqrt rsqrt square log log1p log2 log10 expm1 exp2 sin cos tan sinh cosh floor "
_SAME_NAME += "ceil trunc reciprocal"
_TWO = "greater greater_equal less less_equal equal not_equal logical_and logical_or power"
_ELEMENTS: Mapping[str, Callable[[Call], list[Step]]] = {
    **{kind: _elements(function, "x") for kind, function in _ONE.items()},
    **{name.capitalize(): _elements(name, "x") for name in _SAME_NAME.split()},
    **{name.title().replace("_", ""): _elements(name, "x1", "x2") for name in _TWO.split()},
    "Where": _where,
    "Round": _round,
    "ZerosLike": _filled(0.0),
    "OnesLike": _filled(1.0),
    "FullLike": _elements("fill", "x", "fill_value"),
}


# Linear operations.


def _matmul(call: Call) -> list[Step]:
    left, right = call.bound["x1"], call.bound["x2"]
    if _is_tensor(left) and _is_tensor(right):
        return [Step("matmul")]
    if _is_tensor(left) and len(np.shape(right)) == 2:
        return [Step("dense", **_operands(kernel=right))]
    raise Unreadable("called with a constant operand")


def _dot(call: Call) -> list[Step]:
    left, right = call.bound["x1"], call.bound["x2"]
    if _is_tensor(left) and _is_tensor(right):
        return [Step("dot")]
    return _matmul(call)


def _einsum(call: Call) -> list[Step]:
    operands, equation = call.bound["operands"], call.operation.subscripts
    if call.bound.get("kwargs") or len(operands) != 2:
        raise Unreadable(f"'{equation}' of {len(operands)} operands")
    left, right = operands
    if _is_tensor(left) and _is_tensor(right):
        return [Step("matmul", {"equation": equation})]
    if _is_tensor(right):
        parts, arrow, result = equation.partition("->")
        first, _, second = parts.partition(",")
        equation, right = f"{second},{first}{arrow}{result}", left
    return [Step("einsum", {"equation": equation}, **_operands(kernel=right))]


def _per_axis(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _window(call: Call, strides: Any, rank: int) -> dict[str, Any]:
    return {
        "strides": _per_axis(strides, rank),
        "padding": call.operation.padding,
        "data_format": call.operation.data_format or keras.config.image_data_format(),
    }


def _convolution(op: str) -> Callable[[Call], list[Step]]:
    def read(call: Call) -> list[Step]:
        kernel, x = call.bound["kernel"], call.bound["inputs"]
        found = _operands(kernel=kernel)
        rank = len(x.shape) - 2
        attrs = _window(call, call.operation.strides, rank)
        attrs["dilation"] = _per_axis(call.operation.dilation_rate, rank)
        if op == "conv":
            channels = x.shape[1 if attrs["data_format"] == "channels_first" else -1]
            attrs["groups"] = channels // kernel.shape[-2]
        return [Step(op, attrs, **found)]

    return read


def _pool(op: str) -> Callable[[Call], list[Step]]:
    def read(call: Call) -> list[Step]:
        rank = len(call.bound["inputs"].shape) - 2
        window = _per_axis(call.operation.pool_size, rank)
        strides = window if call.operation.strides is None else call.operation.strides
        return [Step(op, {**_window(call, strides, rank), "window": window})]

    return read


# Norms.


def _axes(axis: Any) -> list[int]:
    return [axis] if isinstance(axis, int) else list(axis)


def _epsilon(call: Call) -> float:
    epsilon = call.operation.epsilon
    return keras.config.epsilon() if epsilon is None else float(epsilon)


def _batch_norm(call: Call) -> list[Step]:
    bound = call.bound
    found = _operands(
        moving_mean=bound["mean"],
        moving_variance=bound["variance"],
        gamma=bound["scale"],
        beta=bound["offset"],
    )
    attrs = {"axis": call.operation.axis, "epsilon": _epsilon(call), "momentum": None}
    return [
        Step("batch_norm", {**attrs, "frozen": True}, **found)
    ]  # nothing updates its statistics


def _layer_norm(call: Call) -> list[Step]:
    attrs = {"axes": _axes(call.operation.axis), "epsilon": _epsilon(call)}
    found = _operands(gamma=call.bound["gamma"], beta=call.bound["beta"])
    if call.operation.rms_scaling:
        return [Step("rms_norm", {**attrs, "rms_scaling": True}, **found)]
    return [Step("layer_norm", attrs, **found)]


def _rms_norm(call: Call) -> list[Step]:
    attrs = {"axes": _axes(call.operation.axis), "epsilon": _epsilon(call)}
    return [Step("rms_norm", attrs, **_operands(gamma=call.bound["scale"]))]


def _unit_norm(call: Call) -> list[Step]:
    if call.operation.order != 2:
        raise Unreadable(f"a norm of order {call.operation.order}")
    attrs = {"axes": _axes(call.operation.axis), "epsilon": _epsilon(call)}
    return [Step("unit_norm", attrs)]


# Activations, and operations that do nothing at inference.


def _activation(op: str) -> Callable[[Call], list[Step]]:
    """Read the op's attributes from the operation's, which have the same names."""

    def read(call: Call) -> list[Step]:
        names = [name for name in OPERATIONS[op].attrs if hasattr(call.operation, name)]
        attrs = {name: getattr(call.operation, name) for name in names}
        if "axis" in attrs and attrs["axis"] is None:
            raise Unreadable("over all axes, the batch axis too")
        return [Step(op, attrs)]

    return read


def _threshold(call: Call) -> list[Step]:
    attrs = {"threshold": call.operation.threshold, "value": call.operation.default_value}
    return [Step("threshold", attrs)]


def _cast(call: Call) -> list[Step]:
    source = keras.backend.standardize_dtype(call.bound["x"].dtype)
    target = keras.backend.standardize_dtype(call.operation.dtype)
    if source == target:
        return [Step("identity")]
    if source == "bool" and "float" in target:
        return [_of_elements(call, "as_number", [call.bound["x"]])]
    if "float" not in target:
        raise Unreadable(f"from {source} to {target}")
    return [Step("identity", {"dtype": target})]


def _identity(**attrs: Any) -> Callable[[Call], list[Step]]:
    return lambda call: [Step("identity", attrs)]


def _resize(call: Call) -> list[Step]:
    operation = call.operation
    data_format = operation.data_format or keras.config.image_data_format()
    return [Step("resize", {"method": operation.interpolation, "data_format": data_format})]


def _attention(call: Call) -> list[Step]:
    return [Step("attention", {"type": "dot_product_attention"})]


_OPERATIONS: Mapping[str, Callable[[Call], list[Step] | Branches]] = {
    **RESHAPING,
    "Add": _arithmetic("add"),
    "Subtract": _arithmetic("subtract"),
    "Multiply": _arithmetic("multiply"),
    "Divide": _arithmetic("divide"),
    "TrueDivide": _arithmetic("divide"),
    "Negative": lambda call: [scaled(-1.0, 0.0)],
    **_ELEMENTS,
    "Maximum": _extreme("maximum"),
    "Minimum": _extreme("minimum"),
    "Clip": _clip,
    "Matmul": _matmul,
    "Dot": _dot,
    "Einsum": _einsum,
    "Conv": _convolution("conv"),
    "DepthwiseConv": _convolution("depthwise_conv"),
    "MaxPool": _pool("max_pool"),
    "AveragePool": _pool("avg_pool"),
    "BatchNorm": _batch_norm,
    "LayerNorm": _layer_norm,
    "RMSNorm": _rms_norm,
    "Normalize": _unit_norm,
    # Keras names the classes of its activations after their functions: HardSilu, hard_silu.
    **{
        op.title().replace("_", ""): _activation(op)
        for op in sorted(select(kind="act"))
        if hasattr(keras.ops, op)
    },
    "ReLU": _activation("relu"),
    "Exp": _activation("exponential"),
    "Threshold": _threshold,
    "Sparsemax": lambda call: [
        Step("sparsemax", {"axis": call.operation.axis, "form": "keras"})  # see `functions`
    ],
    "Cast": _cast,
    "Copy": _identity(),
    "ConvertToTensor": _identity(),
    "StopGradient": _identity(stop_gradient=True),
    "Resize": _resize,
    "DotProductAttention": _attention,
}
