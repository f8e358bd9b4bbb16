"""A training step as a CUDA graph: the GPU repeats it without waiting for Python.

A graph replays the kernels of one call on the same memory. So the step is captured only if it does
the same at every call: the first steps run as they are, and two of them are watched. Whatever can't
be captured trains as without, with the reason in the result. Not here: the step (`trainer`).
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import briefly
from .dropout import Draws

_FIRST = 3  # steps before the capture: the optimizer makes its state in the first one
_WAITS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class Step:
    """A training step that is called many times, captured in a CUDA graph where that is possible.

    note: why it isn't captured, as a sentence; empty before it is known and if it is captured.
    """

    def __init__(self, step: Callable[[], None], model: nn.Module, draws: Draws) -> None:
        self._step, self._model, self._draws = step, model, draws
        self._calls = 0
        self._seen: list[Watched] = []
        self._graph: torch.cuda.CUDAGraph | None = None
        self.note = ""

    @property
    def captured(self) -> bool:
        """Whether a call only repeats the graph: it may come from any thread."""
        return self._graph is not None

    def __call__(self) -> None:
        """Train on the next batch."""
        if self._graph is None and self._calls == _FIRST and not self.note:
            self._capture()
        self._calls += 1
        if self._graph is not None:
            self._draws.reseed()
            self._graph.replay()
            return
        self._draws.begin()
        if 1 < self._calls <= _FIRST:
            self._seen.append(watched(self._step, self._model))
        else:
            self._step()

    def _capture(self) -> None:
        reason = obstacle(self._seen)
        if not reason:
            try:
                self._graph = self._captured()
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # of CUDA, or of a module that needs values of the GPU
                reason = briefly(error)
        if reason:
            self.note = (
                "a training step can't be captured in a CUDA graph, so each of its kernels waits "
                f"for Python: {reason}"
            )

    def _captured(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        self._draws.capture(graph.register_generator_state)
        torch.cuda.current_stream().synchronize()
        done = False
        try:
            with _no_collection():  # it might free memory of the GPU, which a capture forbids
                graph.capture_begin(capture_error_mode="thread_local")
                try:
                    self._step()
                finally:
                    graph.capture_end()
            done = True
        finally:
            self._draws.captured(done=done)
        return graph


@contextmanager
def _no_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Watched:
    """What one call of a step did: its operations, what waited for the GPU, what the host did."""

    def __init__(self) -> None:
        self.operations: list[Any] = []
        self.waits: list[str] = []
        self.host: list[str] = []


def watched(step: Callable[[], None], model: nn.Module) -> Watched:
    """Call a step and return what it did."""
    seen = Watched()
    before = _host_state(model)
    with _Watch(seen):
        step()
    after = _host_state(model)
    seen.host = [name for name in before if before[name] != after[name]]
    return seen


def obstacle(seen: list[Watched]) -> str:
    """Return why a step that did this can't be captured, empty if nothing is known against it."""
    waits = sorted({name for one in seen for name in one.waits})
    if waits:
        return f"it waits for values of the GPU ({', '.join(waits)})"
    host = sorted({name for one in seen for name in one.host})
    if host:
        return f"it depends on the host ({', '.join(host)} changes from step to step)"
    if any(one.operations != seen[0].operations for one in seen[1:]):
        return "its operations, or their sizes, change from step to step"
    return ""


class _Watch(TorchDispatchMode):
    def __init__(self, seen: Watched) -> None:
        super().__init__()
        self._seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given = pytree.tree_leaves((args, kwargs))
        self._seen.operations.append((func, [_sketch(value) for value in given]))
        if _waits(func, given, found):
            self._seen.waits.append(str(func))
        return found


def _sketch(value: Any) -> Any:
    """Return what a graph keeps of an argument: of a tensor its kind, of a number its value."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.device
    plain = (bool, int, str, torch.dtype, torch.device, torch.layout, torch.memory_format)
    if value is None or isinstance(value, plain):
        return value
    return repr(value) if isinstance(value, float) else type(value)  # NaN isn't equal to itself


def _waits(func: Any, given: list[Any], found: Any) -> bool:
    """Return whether an operation waits for the GPU, or copies between it and the host."""
    tensors = [x for x in (*given, *pytree.tree_leaves(found)) if isinstance(x, Tensor)]
    if "index" in func.__name__:  # by a mask, whose size is known only on the GPU
        return any(x.dtype in (torch.bool, torch.uint8) for x in given[1:] if isinstance(x, Tensor))
    if any(tag in func.tags for tag in _WAITS):
        return True
    places = {x.device.type for x in tensors if x.ndim}  # numbers of the host go along
    return len(places) > 1


def _host_state(model: nn.Module) -> dict[str, Any]:
    """Return what a step may change on the host: attributes of modules, states of generators."""
    kinds = (bool, int, float, str)
    attributes = {
        f"'{name or 'model'}.{key}'": value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, kinds)
    }
    numpy = np.random.get_state(legacy=False)["state"]
    return {
        **attributes,
        "the state of Python's random numbers": random.getstate(),
        "the state of NumPy's random numbers": {k: str(v) for k, v in numpy.items()},
        "the state of torch's random numbers on the CPU": torch.get_rng_state().tolist(),
    }
