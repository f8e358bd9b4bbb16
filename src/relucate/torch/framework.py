"""All that relucate knows of PyTorch, as one class (the protocol is `train.framework`'s).

Its methods are short: anything longer than a few lines is in the other files of this room.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from ..errors import InputError, Refused
from ..graph import Graph, Node
from ..graph.evaluate import evaluate
from ..train.framework import Framework, Init, Lowerable, ReadModel
from ..train.looking import Look
from ..train.recipe import Recipe
from ..train.run import OnEpoch, RunResult
from ..train.task import CLASSIFICATION, Task
from ..train.waiting import Ready
from ..train.watching import Target, Watchable
from . import compiler, trainer
from .content import content
from .initial import kernels, lsuv, orthonormal
from .losses import LOSSES
from .lowering.check import lower_checked
from .modules import is_norm
from .precision import float32
from .reading.detached import unwrap
from .reading.reader import read, read_with_modules
from .running import (
    check_it_runs,
    computed_in,
    device_of,
    export,
    in_double,
    other_batches,
    other_sizes,
    output_names,
    outputs,
    takes_tokens,
    tapped,
)
from .side_by_side import side_by_side
from .watching import WatchedLowered, gradients, watch
from .writing.functions import WithModules, with_modules
from .writing.notes import notes
from .writing.proving import Proof
from .writing.sliding import unturned
from .writing.turned import stuck
from .writing.writer import functions_moved, unwritable, write


class _ReadModel:
    def __init__(self, model: nn.Module, example: Any, leaves: Sequence[str]) -> None:
        self._model, self._example, self._leaves = model, example, leaves
        self._reading = read_with_modules(model, example, leaves=leaves)
        self.graph = self._reading.graph
        self.limits = ()
        self.lost_training = ()  # no engine of ours uses a module's own
        self._written: WeakKeyDictionary[nn.Module, Proof] = WeakKeyDictionary()
        self._traced: WeakKeyDictionary[nn.Module, tuple[str, ...]] = WeakKeyDictionary()
        self._others: dict[frozenset[str], WithModules | None] = {}

    @property
    def dtypes(self) -> frozenset[str]:
        return self._dtypes

    @cached_property
    def _dtypes(self) -> frozenset[str]:
        held = {p.dtype for p in self._model.parameters()}
        held |= computed_in(self._model, self._example)
        return frozenset(str(kind).removeprefix("torch.") for kind in held)

    def _with_modules(self, graph: Graph) -> WithModules:
        """Return the model as it is, or with modules for the functions that `graph` moves."""
        own = WithModules(unwrap(self._model), self._reading, {}, {}, ())
        calling = frozenset(functions_moved(graph, own.model, self._reading))
        if not calling:
            return own
        if calling not in self._others:
            self._others[calling] = with_modules(own.model, self._reading, calling)
        return self._others[calling] or own

    def write(
        self,
        graph: Graph,
        fresh: int | None = None,
        init: Init | None = None,
        *,
        compiled: bool = False,
    ) -> Any:
        graph = self._unturned(graph)
        source = self._with_modules(graph)
        graph = source.renamed(graph)
        made = write(graph, source.model, source.reading, fresh=fresh, init=init)
        check_it_runs(made.module, self._model, self._example)
        if made.proof:
            self._written[made.module] = made.proof
        self._traced[made.module] = source.paths
        return made.module

    def _unturned(self, graph: Graph) -> Graph:
        """Return an edit in which norms that can't work along another axis stay where they can."""
        norms = stuck(self.graph, graph, self._reading.modules)
        return unturned(graph, self.graph, norms) if norms else graph

    def unwritable(self, graph: Graph) -> Mapping[str, str]:
        graph = self._unturned(graph)
        if found := stuck(self.graph, graph, self._reading.modules):
            return found
        source = self._with_modules(graph)
        back = {new: old for old, new in source.names.items()}
        left = unwritable(source.renamed(graph), source.model, source.reading)
        return {back.get(name, name): why for name, why in left.items()}

    def outputs(self, model: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return outputs(model, inputs, self._example)

    def output_names(self) -> tuple[str, ...]:
        return output_names(self._model, self._example)

    def in_double(
        self,
        model: Any,
        inputs: Sequence[np.ndarray],
        each: Callable[[str, np.ndarray], np.ndarray],
    ) -> list[np.ndarray]:
        try:
            return in_double(model, inputs, self._example, each)
        except Exception:  # a forward that needs float32, a module that can't be copied
            return evaluate(self.reread(model), *inputs, each=each)

    def taps(
        self, graph: Graph, names: Sequence[str], batches: Iterable[Sequence[np.ndarray]]
    ) -> Iterator[dict[str, np.ndarray]]:
        graph = self._unturned(graph)
        source = self._with_modules(graph)
        made = write(source.renamed(graph), source.model, source.reading)
        wanted = {name: made.paths[name] for name in names if name in made.paths}
        for batch in batches:
            found = tapped(made.module, wanted, batch, self._example)
            yield {name: _ranked(value, graph.nodes[name]) for name, value in found.items()}

    def watch(
        self,
        names: Sequence[str],
        batches: Iterable[Sequence[np.ndarray]],
        each: Callable[[str, np.ndarray], None],
    ) -> None:
        watch(self._model, self._reading, names, batches, each)

    def gradients(
        self,
        names: Sequence[str],
        batches: Iterable[Sequence[np.ndarray]],
        target: Target,
        each: Callable[[str, np.ndarray], None],
    ) -> None:
        gradients(self._model, self._reading, names, batches, target, each)

    def other_sizes(self, inputs: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        return [*other_batches(inputs, self._example), *other_sizes(inputs)]

    def reread(self, model: Any) -> Graph:
        proof = self._written.get(model)
        return proof.graph if proof else read(model, self._example, leaves=self._leaves)

    def notes(self, model: Any) -> tuple[str, ...]:
        return tuple(notes(self._model, model, self._reading, self._traced.get(model, ())))

    def renamed(self, model: Any) -> Mapping[str, str]:
        proof = self._written.get(model)
        return proof.moved if proof else {}

    def lowerable(self) -> Lowerable:
        raise Refused("a torch.nn.Module is trained as it is, not lowered.")


def _ranked(value: np.ndarray, node: Node) -> np.ndarray:
    """Return what a norm reads with as many axes as its node has: it may have merged some."""
    missing = len(node.shape) - value.ndim
    return np.expand_dims(value, tuple(range(1, 1 + missing))) if missing else value


def _batch(x: np.ndarray, model: Any) -> torch.Tensor:
    """Return a batch (channels last) as a module takes it: where it is, images channels first."""
    batch = torch.from_numpy(x).to(device_of(model))
    return batch.movedim(-1, 1) if batch.ndim > 3 else batch


class _Torch:
    name, noun, ending = "torch", "torch.nn.Module", ".pt2"
    lowers, images_first = False, True

    def owns(self, model: Any) -> bool:
        return isinstance(model, nn.Module)

    def is_model(self, model: Any) -> bool:
        return True

    def example(self, input_shape: tuple[int, ...], model: Any = None) -> Any:
        if len(input_shape) > 2:
            return 2, input_shape[-1], *input_shape[:-1]
        if model is not None and takes_tokens(model, input_shape):
            return (torch.zeros((2, *input_shape), dtype=torch.int64, device=device_of(model)),)
        return 2, *input_shape

    def read(self, model: Any, example: Any = None, leaves: Sequence[str] = ()) -> ReadModel:
        return _ReadModel(model, example, leaves)

    def save(self, model: Any, path: Path, example: Any) -> None:
        export(model, path, example)

    def structure(self, model: Any, read: Callable[[], ReadModel]) -> Any:
        inner = set(vars(nn.Module())) | {"_graph"}  # torch.fx: its code is generated from it
        modules = []
        for name, module in model.named_modules():
            own = {key: value for key, value in vars(module).items() if key not in inner}
            modules.append((name, type(module), str(getattr(module, "code", "")), own))
        return modules, [(name, p.requires_grad) for name, p in model.named_parameters()]

    def content(self, thing: Any) -> Any:
        return content(thing)

    def is_built(self, model: Any) -> bool:
        return True  # lazy modules are refused by `tensors`

    def compiled(self, model: Any) -> str:
        return ""

    def own_training(self, model: Any) -> tuple[str, ...]:
        names = ("training_step", "train_step", "configure_optimizers")  # Lightning's and others'
        return tuple(name for name in names if callable(getattr(model, name, None)))

    def tensors(self, model: Any) -> dict[str, np.ndarray]:
        lazy = (nn.UninitializedParameter, nn.UninitializedBuffer)
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if isinstance(tensor, lazy):
                raise Refused(
                    f"the module has lazy parameters ({name}): call it once on an example in the "
                    "builder, so that they get their shapes."
                )
        state = model.state_dict().items()
        return {name: _array(value) for name, value in state if isinstance(value, torch.Tensor)}

    def load(self, model: Any, values: Mapping[str, np.ndarray]) -> None:
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                if name in values:
                    tensor.copy_(torch.from_numpy(np.array(values[name])))

    def initialise(
        self, model: Any, init: str, x: np.ndarray, *, seed: int, names: Mapping[str, str]
    ) -> list[str]:
        if init == "orthonormal":
            return orthonormal(model, seed=seed, names=names)
        return lsuv(model, _batch(x, model), seed=seed, names=names)

    def kernels(self, model: Any) -> list[str]:
        return kernels(model)

    def count(self, model: Any) -> dict[str, int]:
        return trainer.count_parameters(model)

    def biases(self, model: Any) -> int:
        norms = set(self.norms(model))
        return sum(
            parameter.numel()
            for module in model.modules()
            if module not in norms
            for name, parameter in module.named_parameters(recurse=False)
            if name == "bias"
        )

    def norms(self, model: Any) -> Iterator[Any]:
        yield from filter(is_norm, model.modules())

    def momentum(self, norm: Any, kept: float) -> float | None:
        return 1 - kept if isinstance(norm, nn.modules.batchnorm._NormBase) else None

    def channels_first(self, model: Any, input_shape: tuple[int, ...]) -> bool:
        return True

    def call(self, model: Any, x: np.ndarray, *, training: bool) -> Any:
        model.train(training)
        torch.manual_seed(0)
        with torch.no_grad():
            return model(_batch(x, model))

    def check(
        self,
        model: Any,
        input_shape: tuple[int, ...],
        classes: int,
        task: Task = CLASSIFICATION,
        label_shape: tuple[int, ...] = (),
    ) -> None:
        pass  # a module doesn't say what it takes and gives: a call does

    def check_outputs(
        self,
        outputs: Any,
        classes: int,
        task: Task = CLASSIFICATION,
        label_shape: tuple[int, ...] = (),
    ) -> None:
        trainer.check_logits(outputs, classes, task, label_shape)

    def lower(self, source: Lowerable, *, check: bool = True, task: Task = CLASSIFICATION) -> Any:
        return lower_checked(source, check=check, task=task)

    def watchable(self, lowered: Any) -> Watchable:
        return WatchedLowered(lowered)

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
        return trainer.training(
            model,
            data,
            recipe,
            seed=seed,
            on_epoch=on_epoch,
            device=device,
            channels_first=channels_first,
            task=task,
            look=look,
        )

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
        place: Any = {"device": device, "channels_first": channels_first, "task": task}
        return side_by_side(models, data, recipe, counts, **place)

    def seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def settings(self) -> dict[str, Any]:
        dtype = torch.get_default_dtype()
        return {} if dtype == torch.float32 else {"default_dtype": str(dtype).split(".")[1]}

    def use_settings(self, settings: Mapping[str, Any]) -> None:
        torch.set_default_dtype(getattr(torch, settings["default_dtype"]))

    def backend(self) -> str:
        return self.name

    def device(self, wanted: str) -> str:
        if wanted == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        kind, _, number = wanted.partition(":")
        try:
            if kind != "cuda" or int(number or 0) >= len(self.gpus()):
                torch.empty(0, device=wanted)
        except Exception as error:  # what a backend that isn't there raises is its own affair
            raise InputError(
                f"device '{wanted}' can't be used by PyTorch: {_why_not(kind, error)}. What it "
                f"sees: {', '.join(_visible(len(self.gpus())))}. Take one of these, or auto."
            ) from None
        return kind

    def check_recipe(self, recipe: Recipe) -> None:
        pass  # TF32 depends on the device: the recipe checks it

    def check_single(self, model: Any, x: np.ndarray) -> None:
        trainer.check_single(model, _batch(x, model))

    def losses(self) -> Mapping[str, Any]:
        return LOSSES

    def gpus(self) -> tuple[str, ...]:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        listed = os.environ.get("CUDA_VISIBLE_DEVICES", "").replace(" ", "").split(",")
        return tuple(listed[:count]) if listed[0] else tuple(map(str, range(count)))

    def card(self, device: str) -> str:
        return torch.cuda.get_device_name() if device == "cuda" else ""

    def trouble(self, error: BaseException) -> str:
        if isinstance(error, torch.OutOfMemoryError):
            return "memory"
        lost = getattr(torch, "AcceleratorError", ())
        return "device" if isinstance(error, lost) or "CUDA error" in str(error) else ""

    def full_float32(self) -> AbstractContextManager[None]:
        return float32()

    def on_host(self) -> AbstractContextManager[None]:
        return nullcontext()  # PyTorch puts nothing on a GPU by itself

    def limit_threads(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def defer_compiler(self) -> None:
        compiler.defer()


FRAMEWORK: Framework = _Torch()


def _visible(gpus: int) -> list[str]:
    there = {"mps": torch.backends.mps.is_available(), "xpu": torch.xpu.is_available()}
    others = [kind for kind, is_there in there.items() if is_there]
    return ["cpu", *(f"cuda:{number}" for number in range(gpus)), *others]


def _why_not(kind: str, error: Exception) -> str:
    if kind == "mps":  # PyTorch names an operation that has no such backend
        return "it needs an Apple GPU, and a PyTorch that was built for it"
    return str(error).partition("\n")[0].partition(". ")[0].rstrip(".")


def _array(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as an array of its own; NumPy knows no bfloat16, and float32 holds it all."""
    widened = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return np.array(widened.detach().cpu().numpy())
