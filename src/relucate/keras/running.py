"""Run Keras models on arrays: outputs at inference, single calls, the values of chosen tensors."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import keras
import numpy as np

from ..errors import Refused, briefly
from ..graph import Node
from ..graph.evaluate import evaluate
from .reading.norm_layers import NORM_LAYERS
from .reading.record import Call, Reading, Value


def no_gradients() -> AbstractContextManager[Any]:
    """Switch off recording for gradients in calls of models; only the torch backend records."""
    if keras.config.backend() != "torch":
        return nullcontext()
    return sys.modules["torch"].no_grad()  # Keras has imported its backend


@contextmanager
def full_float32() -> Iterator[None]:
    """Let jax and TensorFlow compute float32 in full on a GPU; the torch room does it for torch."""
    backend = keras.config.backend()
    package = sys.modules.get(backend)
    if backend == "jax" and package is not None:
        with package.default_matmul_precision("highest"):
            yield
    elif backend == "tensorflow" and package is not None:
        switch = package.config.experimental
        before = switch.tensor_float_32_execution_enabled()
        switch.enable_tensor_float_32_execution(False)
        try:
            yield
        finally:
            switch.enable_tensor_float_32_execution(before)
    else:
        yield


@contextmanager
def fixed_draws() -> Iterator[None]:
    """Let random layers draw the same each time, and change no one's random state.

    On the torch backend they draw from torch's own generator, elsewhere from their variables.
    """
    with kept_draws():
        if keras.config.backend() == "torch":
            sys.modules["torch"].manual_seed(0)
        yield


@contextmanager
def kept_draws() -> Iterator[None]:
    """Put the states of the backend's own random numbers back afterwards."""
    if keras.config.backend() != "torch":
        yield
        return
    torch = sys.modules["torch"]
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=gpus):
        yield


def outputs(model: keras.Model, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return a model's outputs at inference, flat, for one array per input."""
    arrays = [
        np.asarray(x, keras.backend.standardize_dtype(tensor.dtype))
        for x, tensor in zip(inputs, model.inputs, strict=True)
    ]
    struct = getattr(model, "_inputs_struct", None)
    given: Any = arrays[0] if len(arrays) == 1 else arrays
    if isinstance(struct, dict):
        given = keras.tree.pack_sequence_as(struct, arrays)
    if keras.backend.backend() == "torch":  # without gradients, and not compiled
        with on_device(place_of(model)):
            found = model.predict_on_batch(given)
    else:
        found = model(given, training=False)
    return [np.asarray(keras.ops.convert_to_numpy(x)) for x in keras.tree.flatten(found)]


def output_names(model: keras.Model) -> tuple[str, ...]:
    """Return the keys and places of a model's outputs, in the order of `outputs`."""
    struct = getattr(model, "_outputs_struct", None)
    found = keras.tree.flatten_with_path(struct) if keras.tree.is_nested(struct) else []
    return tuple(".".join(map(str, path)) for path, _ in found)


def title() -> str:
    """Return what computes, in words."""
    return f"Keras ({keras.config.backend()} backend)"


def called(
    call: Call,
    values: Mapping[Value, Any],
    training: bool,
    *,
    device: str | None,
    operation: Any = None,
) -> list[Any]:
    """Return the outputs of one call in a model, made by the model's own layer, flat.

    Args: values: the tensors that the call reads; device: None is Keras's default; operation: a
        layer to call in place of the model's own.
    Raises: Refused: it can't be made.
    """
    operation = operation or call.operation
    arguments = call.keras_node.arguments
    tensors = [values[value] for value in call.tensors]
    given = {id(old): new for old, new in zip(arguments.keras_tensors, tensors, strict=True)}
    args, kwargs = arguments.fill_in(given)
    if getattr(operation, "_call_has_training_arg", False) and len(args) < 2:
        kwargs = {**kwargs, "training": training if call.training is None else call.training}
    try:
        with on_device(device), no_gradients():
            return keras.tree.flatten(operation(*args, **kwargs))
    except Exception as error:  # each backend raises errors of its own
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise Refused(
            f"{title()} can't run the model at '{operation.name}', on an input of shape "
            f"{shapes}: {briefly(error)}"
        ) from error


def place_of(model: Any, otherwise: str | None = "cpu") -> str | None:
    """Return the device where Keras can compute a model's layers.

    On the torch backend it is where the model's variables are: Keras puts them on a GPU if one is
    visible. The other backends move what they need.
    """
    if keras.config.backend() != "torch":
        return otherwise
    variable = next(iter(model.variables), None)
    with keras.device("cpu"):  # not where nothing has a value ("meta")
        return "cpu" if variable is None else str(variable.value.device)


def on_device(device: str | None) -> AbstractContextManager[Any]:
    """Return the context in which Keras computes on a device; None is its default."""
    return nullcontext() if device is None else keras.device(device)


def run_calls(
    reading: Reading,
    inputs: Sequence[np.ndarray],
    make: Callable[[Call, Mapping[Value, Any]], list[Any]],
    device: str | None,
) -> Generator[tuple[Call, list[Any]], None, None]:
    """Run a model call by call and yield each call with its outputs.

    Only what later calls read is kept. States of random numbers are put back.

    Args: inputs: one batch, an array per input; make: returns a call's outputs; device: where it
        makes them.
    """
    model: Any = reading.model
    known = {id(variable) for variable in reading.variables.values()}
    kept = [(v, array_of(v.value).copy()) for v in model.variables if id(v) not in known]
    uses = Counter(value for call in reading.calls for value in call.tensors)
    with on_device(device):
        values: dict[Value, Any] = {
            Value(name): keras.ops.convert_to_tensor(x, dtype=tensor.dtype)
            for name, x, tensor in zip(
                reading.graph.inputs, inputs, reading.function.inputs, strict=True
            )
        }
    try:
        for call in reading.calls:
            found = make(call, values)
            for value in call.tensors:
                uses[value] -= 1
                if not uses[value]:
                    values.pop(value, None)
            for place, (head, tensor) in enumerate(zip(call.heads, found, strict=True)):
                values[Value(head, call.heads[:place].count(head))] = tensor
            yield call, found
    finally:
        for variable, old in kept:
            variable.assign(old)


def array_of(tensor: Any) -> np.ndarray:
    """Return a tensor of any backend as an array."""
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def in_double(
    reading: Reading, inputs: Sequence[np.ndarray], each: Callable[[str, np.ndarray], np.ndarray]
) -> list[np.ndarray]:
    """Return a model's outputs computed in float64 as its Graph says.

    A layer that the Graph doesn't know is called as it is, in its own precision: fed with the same
    inputs, it gives the same in two models.
    """
    calls = {call.names: call for call in reading.calls if len(call.heads) == 1}
    device = place_of(reading.model)

    def unread(node: Node, xs: list[np.ndarray]) -> np.ndarray:
        call = calls.get((node.name,))
        if call is None or len(call.tensors) != len(xs):
            raise Refused(f"'{node.name}' ({node.attrs.get('type', node.op)}) can't be read.")
        olds = call.keras_node.arguments.keras_tensors
        with on_device(device):
            news = [
                keras.ops.convert_to_tensor(x, dtype=old.dtype)
                for x, old in zip(xs, olds, strict=True)
            ]
        values = dict(zip(call.tensors, news, strict=True))
        (found,) = called(call, values, training=False, device=device)
        return np.asarray(keras.ops.convert_to_numpy(found), np.float64)

    return evaluate(reading.graph, *inputs, each=each, unread=unread)


def precisions(model: Any) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the types that a model's layers compute in, and what limits them.

    Keras's type promotion knows float64 on TensorFlow only: elsewhere the norms of a float64 model
    compute in float32 and return it as float64, so the best possible precision is 1e-7.
    """
    apart = (keras.Model, keras.layers.InputLayer)  # these compute nothing
    layers = [layer for layer in model._flatten_layers() if not isinstance(layer, apart)]
    found = {str(getattr(layer, "compute_dtype", "")) for layer in layers}
    narrows = keras.backend.result_type("float64", "float32") != "float64"
    doubled = [layer for layer in layers if getattr(layer, "compute_dtype", "") == "float64"]
    if not narrows or not any(isinstance(layer, tuple(NORM_LAYERS)) for layer in doubled):
        return frozenset(found), ()
    note = f"on {keras.backend.backend()}, Keras computes the norms of a float64 model in float32"
    return frozenset({*found, "float32"}), (note,)


def tapped(
    model: keras.Model, tensors: Mapping[str, Any], inputs: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the values of symbolic tensors inside a model, at inference."""
    inputs_as_given = getattr(model, "_inputs_struct", model.inputs)
    probe = keras.Model(inputs_as_given, list(tensors.values()))
    return dict(zip(tensors, outputs(probe, inputs), strict=True))
