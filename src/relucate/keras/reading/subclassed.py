"""Give a model with a `call` of its own the form of a functional model that calls it.

The reader then looks inside it as into any layer that holds layers (`tracing`). What the model
takes is known from `example`, or from the call or `build` that made its weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras

from ...errors import InputError, Refused, briefly
from .tracing import restored


def function_of(model: Any, example: Any, dtype: str | None = None) -> Any:
    """Return a functional model whose one layer is `model`.

    A model without weights gets them from this call; else it isn't changed.

    Args:
        example: arrays, or shapes with the batch axis, in the structure that `call` takes; None: as
            the model was built.
        dtype: of inputs whose shape alone is known; by default what the model computes in.
    Raises: Refused: its inputs aren't known, or the call fails on symbolic tensors.
    """
    struct = getattr(model, "_inputs_struct", None)  # it may be functional and have its own call
    if struct is not None:
        inputs = keras.tree.map_structure(lambda t: _input(t.shape, t.dtype, t.name), struct)
    else:
        inputs = _inputs(model, _known(model) if example is None else example, dtype)
    try:
        with restored(model):
            return keras.Model(inputs, model(inputs), name=model.name)
    except Exception as error:  # of the user's code
        raise Refused(
            f"{owned(model)}, and it can't be followed on symbolic inputs of shape "
            f"{_shapes(inputs)} ({briefly(error)}). Build it with keras.Model(inputs, outputs)."
        ) from error


def check_shape(model: Any, example: Any) -> None:
    """Refuse a shape, such as (2, 32, 32, 3), that isn't that of the model's one input.

    Raises: InputError.
    """
    shape = isinstance(example, (list, tuple)) and all(type(size) is int for size in example)
    if not shape or len(model.inputs) != 1:
        return  # values are checked when the model gets them
    wanted = model.inputs[0].shape
    sizes = zip(example[1:], wanted[1:], strict=False)
    if len(example) != len(wanted) or any(b not in (None, a) for a, b in sizes):
        raise InputError(
            f"the input shape is {tuple(example[1:])}, but model '{model.name}' takes "
            f"{tuple(wanted[1:])}: leave it out, or build the model for that shape."
        )


def owned(model: Any) -> str:
    """Return the beginning of a refusal."""
    return f"model '{model.name}' ({type(model).__name__}) has its own call"


def other_arguments(model: Any) -> list[str]:
    """Return the parameters of `call` that a call with inputs alone leaves at their defaults."""
    found = list(inspect.signature(model.call).parameters.values())[1:]
    named = (p for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    return [p.name for p in named if p.name not in {"training", "mask"}]


def shapes_of(function: Any) -> str:
    """Return the shapes of a functional model's inputs, in words."""
    return _shapes(function.inputs)


def _shapes(inputs: Any) -> str:
    return ", ".join(str(tuple(tensor.shape[1:])) for tensor in keras.tree.flatten(inputs))


def _known(model: Any) -> Any:
    """Return the shapes that the model was built for.

    Raises: Refused: it wasn't, or only a `build` of its own knows them.
    """
    shapes = getattr(model, "_build_shapes_dict", None) or {}
    shapes = shapes.get("shapes_dict", shapes)
    if len(shapes) == 1 and (found := next(iter(shapes.values()))):
        return found
    raise Refused(
        f"{owned(model)}, and the shape of its inputs isn't known: call it once on data, or give "
        "example= (on the command line --input-shape)."
    )


def _inputs(model: Any, given: Any, dtype: str | None) -> Any:
    default = dtype or model.input_dtype

    def made(value: Any, name: str) -> Any:
        if isinstance(value, Mapping):
            return {key: made(inner, str(key)) for key, inner in value.items()}
        if _is_shape(value):
            return _input(value, default, name)
        if isinstance(value, (list, tuple)):
            return [made(inner, f"{name}_{at}") for at, inner in enumerate(value)]
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            kind = keras.backend.standardize_dtype(value.dtype)
            return _input(value.shape, default if "float" in kind else kind, name)
        raise Refused(f"{owned(model)}, and an example of type {type(value).__name__} isn't read.")

    return made(given, "input")


def _input(shape: Any, dtype: str, name: str) -> Any:
    return keras.Input(tuple(shape[1:]), dtype=dtype, name=name)


def _is_shape(value: Any) -> bool:
    sizes = isinstance(value, (list, tuple)) and len(value) > 0
    return sizes and all(size is None or isinstance(size, int) for size in value)
