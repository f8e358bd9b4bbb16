"""Everything that relucate knows about Keras, as one class (the protocol is `train.framework`'s).

Its methods are short: anything longer is in another file of this package.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ..backend import configured
from ..errors import InputError, Refused
from ..graph import Graph
from ..train.framework import Framework, Init, Lowerable, ReadModel
from ..train.looking import Look
from ..train.recipe import Recipe
from ..train.run import OnEpoch, RunResult
from ..train.task import CLASSIFICATION, Task
from ..train.waiting import Ready
from ..train.watching import Target, Watchable
from . import trainer
from .content import content
from .initial import kernels, lsuv, orthonormal
from .losses import LOSSES
from .lowerable import lowerable
from .reading.norm_layers import is_norm
from .reading.reader import has_own_call, own_training, read, read_with_calls
from .reading.subclassed import other_arguments, shapes_of
from .running import (
    full_float32,
    in_double,
    on_device,
    output_names,
    outputs,
    place_of,
    precisions,
    tapped,
)
from .seeding import renew_seeds
from .statistics import check_single, forward
from .watching import watch
from .writing.compiling import compile_like
from .writing.weights import tied
from .writing.writer import write, write_tapped


class _ReadModel:
    def __init__(self, model: keras.Model, example: Any = None) -> None:
        self._place = place_of(model, None)
        with on_device(self._place):
            self._reading = read_with_calls(model, example)
        self.lost_training = own_training(model)
        self.graph = self._reading.graph
        self.dtypes, self.limits = precisions(model)

    def write(
        self,
        graph: Graph,
        fresh: int | None = None,
        init: Init | None = None,
        *,
        compiled: bool = False,
    ) -> Any:
        if init is not None:
            raise InputError("init is for torch modules: Keras layers know their initialisers.")
        with on_device(self._place):
            model = write(graph, self._reading, fresh=fresh)
            if compiled:
                compile_like(model, self._reading.model)
        return model

    def unwritable(self, graph: Graph) -> Mapping[str, str]:
        return {}

    def outputs(self, model: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return outputs(self._reading.function if self._is_source(model) else model, inputs)

    def output_names(self) -> tuple[str, ...]:
        return output_names(self._reading.function)

    def _is_source(self, model: Any) -> bool:
        return model is self._reading.model

    def in_double(
        self,
        model: Any,
        inputs: Sequence[np.ndarray],
        each: Callable[[str, np.ndarray], np.ndarray],
    ) -> list[np.ndarray]:
        reading = self._reading if self._is_source(model) else read_with_calls(model)
        return in_double(reading, inputs, each)

    def taps(
        self, graph: Graph, names: Sequence[str], batches: Iterable[Sequence[np.ndarray]]
    ) -> Iterator[dict[str, np.ndarray]]:
        with on_device(self._place):
            model, tensors = write_tapped(graph, self._reading, names)
        for batch in batches:
            yield tapped(model, tensors, batch)

    def watch(
        self,
        names: Sequence[str],
        batches: Iterable[Sequence[np.ndarray]],
        each: Callable[[str, np.ndarray], None],
    ) -> None:
        watch(self._reading, names, batches, each)

    def gradients(
        self,
        names: Sequence[str],
        batches: Iterable[Sequence[np.ndarray]],
        target: Target,
        each: Callable[[str, np.ndarray], None],
    ) -> None:
        raise Refused("Keras has no gradients of its own: they are those of the lowered model.")

    def other_sizes(self, inputs: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        return []  # the graph already says which sizes it accepts

    def reread(self, model: Any) -> Graph:
        return read(model)

    def notes(self, model: Any) -> tuple[str, ...]:
        source, name = self._reading.model, type(self._reading.model).__name__
        notes = []
        if has_own_call(source):
            notes.append(
                f"the new model is a functional model of the layers in '{source.name}', for inputs "
                f"of shape {shapes_of(self._reading.function)}: the class {name} and its own "
                "methods are gone"
            )
            if others := other_arguments(source):
                notes.append(f"{name}.call was read with the defaults of {', '.join(others)}")
        elif self.lost_training:
            notes.append(f"the new model lacks the {' and '.join(self.lost_training)} of {name}")
        if shared := tied(self._reading):
            notes.append(f"{shared}: in the new model each has its own, with the same values")
        return tuple(notes)

    def renamed(self, model: Any) -> Mapping[str, str]:
        return {}

    def lowerable(self) -> Lowerable:
        return lowerable(self._reading)


class _Keras:
    name, noun, ending = "keras", "Keras model", ".keras"
    lowers, images_first = True, False

    def owns(self, model: Any) -> bool:
        return isinstance(model, keras.layers.Layer)

    def is_model(self, model: Any) -> bool:
        return isinstance(model, keras.Model)

    def example(self, input_shape: tuple[int, ...], model: Any = None) -> Any:
        if len(input_shape) > 2 and keras.config.image_data_format() == "channels_first":
            return None, input_shape[-1], *input_shape[:-1]
        return None, *input_shape

    def read(self, model: Any, example: Any = None, leaves: Sequence[str] = ()) -> ReadModel:
        return _ReadModel(model, example)

    def save(self, model: Any, path: Path, example: Any) -> None:
        model.save(path)

    def structure(self, model: Any, read: Callable[[], ReadModel]) -> Any:
        try:
            graph = read().graph
        except Refused:
            return _layers(model), _compilation(model)
        nodes = [[n.name, n.op, n.inputs, n.call, n.shape, dict(n.attrs)] for n in graph]
        tail = [graph.outputs, [vars(p) for p in graph.penalties], sorted(graph.trainable)]
        layers = _layers(model) if graph.opaque else ()
        return nodes, tail, graph.obstacles, layers, _compilation(model)

    def content(self, thing: Any) -> Any:
        return content(thing)

    def is_built(self, model: Any) -> bool:
        return model.built

    def compiled(self, model: Any) -> str:
        return _own_optimizer(model) if getattr(model, "compiled", False) else ""

    def own_training(self, model: Any) -> tuple[str, ...]:
        return ()  # `fit` uses a model's own train_step, and such a model isn't lowered

    def tensors(self, model: Any) -> dict[str, np.ndarray]:
        found = _variables(model)
        return {key: np.array(keras.ops.convert_to_numpy(v.value)) for key, v in found.items()}

    def load(self, model: Any, values: Mapping[str, np.ndarray]) -> None:
        for key, variable in _variables(model).items():
            if key in values:
                variable.assign(values[key])

    def initialise(
        self, model: Any, init: str, x: np.ndarray, *, seed: int, names: Mapping[str, str]
    ) -> list[str]:
        if init == "orthonormal":
            return orthonormal(model, seed=seed, names=names)
        return lsuv(model, self._batch(model, x), seed=seed, names=names)

    def kernels(self, model: Any) -> list[str]:
        return kernels(model)

    def count(self, model: Any) -> dict[str, int]:
        return trainer.count_parameters(model)

    def biases(self, model: Any) -> int:
        norms = {id(norm) for norm in self.norms(model)}
        return sum(
            math.prod(map(int, variable.shape))
            for layer in model._flatten_layers(include_self=False)
            if id(layer) not in norms
            for variable in layer._trainable_variables
            if variable.path.rpartition("/")[2] == "bias"
        )

    def norms(self, model: Any) -> Iterator[Any]:
        yield from filter(is_norm, model._flatten_layers())

    def momentum(self, norm: Any, kept: float) -> float | None:
        return kept if isinstance(norm, keras.layers.BatchNormalization) else None

    def channels_first(self, model: Any, input_shape: tuple[int, ...]) -> bool:
        return trainer.takes_channels_first(model, input_shape)

    def call(self, model: Any, x: np.ndarray, *, training: bool) -> Any:
        return forward(model, self._batch(model, x), training=training)

    def _batch(self, model: Any, x: np.ndarray) -> np.ndarray:
        """Return a batch (channels last) as the model takes it."""
        return np.moveaxis(x, -1, 1) if self.channels_first(model, x.shape[1:]) else x

    def check(
        self,
        model: Any,
        input_shape: tuple[int, ...],
        classes: int,
        task: Task = CLASSIFICATION,
        label_shape: tuple[int, ...] = (),
    ) -> None:
        trainer.check_model(model, input_shape, classes, task, label_shape)

    def check_outputs(
        self,
        outputs: Any,
        classes: int,
        task: Task = CLASSIFICATION,
        label_shape: tuple[int, ...] = (),
    ) -> None:
        task.check_outputs(getattr(outputs, "shape", None), classes, label_shape)

    def lower(self, source: Lowerable, *, check: bool = True, task: Task = CLASSIFICATION) -> Any:
        raise Refused(f"models can't be lowered to Keras; got one of {source.title}.")

    def watchable(self, lowered: Any) -> Watchable:
        raise Refused("models can't be lowered to Keras.")

    def train(
        self,
        model: Any,
        data: Any,
        recipe: Recipe,
        *,
        seed: int,
        on_epoch: OnEpoch,
        device: str,
        channels_first: bool,
        task: Task,
        look: Look | None = None,
    ) -> Generator[Ready, None, RunResult]:
        yield from ()  # Keras waits for its device itself
        given: Any = {"seed": seed, "on_epoch": on_epoch, "task": task, "look": look}
        return trainer.train(model, data, recipe, **given)

    def side_by_side(
        self,
        models: Iterator[Any],
        data: Any,
        recipe: Recipe,
        counts: Sequence[int],
        *,
        device: str,
        channels_first: bool,
        task: Task,
    ) -> dict[int, float]:
        return {}

    def seed(self, seed: int) -> None:
        _restart_names()
        renew_seeds()
        keras.utils.set_random_seed(seed)

    def settings(self) -> dict[str, Any]:
        start = configured()
        start["dtype_policy"] = start["floatx"]
        now = {name: getattr(keras.config, name)() for name in start}
        now["dtype_policy"] = now["dtype_policy"].name
        return now if now != start else {}

    def use_settings(self, settings: Mapping[str, Any]) -> None:
        for name, value in settings.items():
            getattr(keras.config, f"set_{name}")(value)

    def backend(self) -> str:
        return keras.config.backend()

    def device(self, wanted: str) -> str:
        if wanted != "auto":
            raise InputError(
                f"device '{wanted}' needs the torch engine, but this model trains with the keras "
                "engine, whose backend chooses the device: leave the device at auto."
            )
        return wanted

    def check_recipe(self, recipe: Recipe) -> None:
        trainer.check_recipe(recipe)

    def check_single(self, model: Any, x: np.ndarray) -> None:
        check_single(model, self._batch(model, x))

    def losses(self) -> Mapping[str, Any]:
        return LOSSES

    def gpus(self) -> tuple[str, ...]:
        return ()

    def card(self, device: str) -> str:
        return ""

    def trouble(self, error: BaseException) -> str:
        full = type(error).__name__ in (
            "XlaRuntimeError",
            "JaxRuntimeError",
            "ResourceExhaustedError",
        )
        return "memory" if full and "RESOURCE_EXHAUSTED" in str(error) else ""

    def full_float32(self) -> AbstractContextManager[None]:
        return full_float32()

    def on_host(self) -> AbstractContextManager[None]:
        return keras.device("cpu")

    def limit_threads(self, threads: int) -> None:
        pass  # the backend has its own setting

    def defer_compiler(self) -> None:
        pass  # the backend has its own


FRAMEWORK: Framework = _Keras()


def _variables(model: Any) -> dict[str, Any]:
    """Return the variables by path; if nested models share a path, the later ones get a number."""
    variables: dict[str, Any] = {}
    for variable in model.weights:
        key, count = variable.path, 1
        while key in variables:
            key, count = f"{variable.path}#{count}", count + 1
        variables[key] = variable
    return variables


def _layers(model: Any) -> Any:
    """Return name, class and configuration of every layer, for models that have no Graph."""
    layers = model._flatten_layers(include_self=True)
    return [(layer.name, type(layer), _quietly(layer.get_config)) for layer in layers]


def _restart_names() -> None:
    """Let automatic layer names start over, as in every arm."""
    try:
        from keras.src.utils.naming import reset_uids
    except ImportError:  # it isn't public; this drops the user's dtype policy and scopes, too
        keras.utils.clear_session(free_memory=False)
    else:
        reset_uids()


def _compilation(model: Any) -> Any:
    if not getattr(model, "compiled", False):
        return None
    return _quietly(model.get_compile_config), getattr(model, "loss", None)


def _own_optimizer(model: Any) -> str:
    """Return how a model was compiled, in words."""
    optimizer, loss = model.optimizer, getattr(model, "loss", None)
    config = _quietly(optimizer.get_config) or {}
    rate = config.get("learning_rate")
    rate = rate.get("class_name") if isinstance(rate, Mapping) else rate
    shown = f"{rate:g}" if isinstance(rate, float) else rate
    words = [type(optimizer).__name__, f"learning rate {shown}" if rate else "", _loss_name(loss)]
    return ", ".join(word for word in words if word)


def _loss_name(loss: Any) -> str:
    if loss is None:
        return ""
    name = loss if isinstance(loss, str) else getattr(loss, "name", None) or _name(loss)
    return f"loss {name}"


def _name(value: Any) -> str:
    return getattr(value, "__name__", None) or type(value).__name__


def _quietly(get: Any) -> Any:
    try:
        return get()
    except Exception:  # a custom object without a configuration: it is compared without one
        return None
