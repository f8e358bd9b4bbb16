"""Read a PyTorch module into a Graph, by an example of its input.

torch.fx traces the forward; where it stops (int() of a shape, a module made inside forward, a
condition on a shape), torch.export runs it on fake tensors; where that stops too (sizes that depend
on values), it is called on the example. In each way the calls are the same program (`program`), and
the same translator makes the Graph. Nothing of the module is changed: mode, buffers, hooks, random
numbers. Not here: surgery, training.
"""

from __future__ import annotations

import inspect
import linecache
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...errors import InputError, Refused
from ...graph import Graph
from ...graph.inference import Mismatch
from ...phrases import some
from ..lowering.lower import Binding
from ..state import untouched
from .calls import FUNCTIONS
from .detached import View, failing_call, materialized, unwrap
from .exported import export
from .modes import fixed_statistics, frozen_by_forward, modes_set
from .modules import find, is_known_whole
from .program import Call, Program, Stopped
from .recorded import record
from .symbolic import trace
from .targets import canonical
from .translator import Translator

# A batch size that no model has as another number, so that the batch axis differs from the others.
_BATCHES = (17, 19, 23, 29, 31, 37, 41, 43, 47)


@dataclass(frozen=True)
class Reading:
    """What reading a module gave.

    Attributes:
        graph: the Graph.
        modules: a node's `layer` -> the module (of the model that was given) that it came from, for
            nodes that came from a module of their own.
        bindings: key of the graph's tensors -> its name in the state dict and how its axes are
            turned (`graph.layouts`); computed tensors (weight norm, ...) have none.
        way: "fx", "export" or "call".
        traced: the torch.fx Graph or the ExportedProgram that was read.
        origins: a node's name -> the name of the call in `traced` that made it.
        reads: name of a call in `traced` (or "output") -> the node of the graph that each name
            among its arguments means there.
        bound: a name in `traced` -> the node of the graph that it was made as.
        example, leaves: what the module was read by.
        merged: the names in `traced` of tensors whose leading axes are merged, and how many of
            them; the graph's nodes have them apart.
        called: the paths of the modules that were called as a whole, those of constants among them.
        values_read: the lines of the forward that read values of tensors.
        changes: the tensors of the model that every call changes.
        unheld: modules that the forward calls and the model doesn't hold, in words, or "".
        casts: the nodes whose values the forward casts to another type.
        frozen: the modules that the forward itself puts into eval mode when the model trains.
        cause: why torch.fx can't trace the forward, in plain words, as far as it is known.
    """

    graph: Graph
    modules: Mapping[str, nn.Module]
    bindings: Mapping[str, Binding]
    way: str
    traced: Any
    origins: Mapping[str, str]
    reads: Mapping[str, Mapping[str, str]]
    bound: Mapping[str, str]
    example: Any = None
    leaves: tuple[str, ...] = ()
    merged: Mapping[str, int] = field(default_factory=dict)
    called: frozenset[str] = frozenset()
    values_read: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    unheld: str = ""
    casts: frozenset[str] = frozenset()
    frozen: frozenset[str] = frozenset()
    cause: str = ""

    @property
    def not_retraced(self) -> str:
        """Why the calls that were traced can't be made again in another module; "" if they can."""
        if self.way != "fx":
            which = f", which calls {self.unheld}" if self.unheld else ""
            why = f" ({self.cause})" if self.cause else ""
            return f"torch.fx can't trace the forward of this model{which}{why}"
        named = some([f"'{name}'" for name in self.changes])
        return f"every call of this model changes {named}, in eval mode too" if named else ""


def read(model: nn.Module, example: Any, *, leaves: Sequence[str] = ()) -> Graph:
    """Return the Graph of a module, as it computes in eval mode.

    Args:
        model: any torch.nn.Module; DataParallel and torch.compile are looked through.
        example: an input: a tensor, a tuple of tensors, a dict of keyword arguments, or the shape
            of one tensor, batch axis first, such as (1, 3, 224, 224). Only shapes and types count,
            except where the forward reads values.
        leaves: paths or class names of modules that become one opaque node each.

    Nodes are named by the module's path (`layer1.0.bn1`, second call `layer1.0.bn1@1`); functions
    by the module in whose forward they are (`layer1.0/add`). Images are channels first; weights
    are copied, in the Graph's layouts, under their names in the state dict.
    Raises:
        InputError: not a module, no example, or one that doesn't fit (the layer is named).
        Refused: it can't be read in any of the three ways; the line that stopped them is named.

    >>> net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU())
    >>> [f"{node.name}: {node.op}" for node in read(net, (1, 4))]
    ['input: input', '0: dense', '1: batch_norm', '2: relu']
    """
    return read_with_modules(model, example, leaves=leaves).graph


def read_with_modules(model: nn.Module, example: Any, *, leaves: Sequence[str] = ()) -> Reading:
    """Return the Graph and where its nodes and tensors came from; arguments as for `read`.

    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    >>> reading = read_with_modules(net, (1, 4))
    >>> reading.modules["0"] is net[0], reading.bindings["0.weight"]
    (True, Binding(parameter='0.weight', layout='dense'))
    """
    model = unwrap(model)
    with untouched(model):
        return _read(model, example, leaves)


def _read(model: nn.Module, example: Any, leaves: Sequence[str]) -> Reading:
    args, kwargs = example_of(model, example)
    whole = materialized(model, args, kwargs)
    view = View(whole)
    _check_leaves(view, leaves)
    is_leaf = leaf_test(view, frozenset(leaves))
    attempts = _Attempts(view, is_leaf, args, kwargs)
    program, translator, outputs = attempts.run()
    graph = _graph(view, translator, program, [d.name for d in outputs], attempts.inputs)
    if whole is not model:
        made = "lazy modules got their weights for this reading only"
        graph = replace(graph, obstacles=(*graph.obstacles, made))
    modules = {n.layer: view.originals[n.layer] for n in graph if n.layer in view.originals}
    if is_leaf("", view.root):
        modules[type(model).__name__] = model
    bindings = {
        key: Binding(name, layout)
        for key, (name, layout) in translator.bindings.items()
        if name is not None and key in graph.tensors
    }
    origins = {name: translator.origins.get(name, "") for name in graph.nodes}
    links = (translator.reads, translator.bound)
    given = (example, tuple(leaves))
    return Reading(
        graph,
        modules,
        bindings,
        program.way,
        program.traced,
        origins,
        *links,
        *given,
        translator.leads,
        frozenset(translator.called),
        tuple(dict.fromkeys(program.values_read)),
        tuple(translator.changes),
        program.unheld,
        frozenset(translator.casts),
        frozenset(attempts.frozen),
        attempts.cause,
    )


def unread(reading: Reading, model: nn.Module) -> tuple[str, ...]:
    """Return the modules with parameters that no call uses which was read for the example alone.

    Such a module may be called for other inputs: of a condition, only one branch was read.
    What torch.fx reads has no such conditions, so that for it the answer is empty.
    """
    if reading.way == "fx":
        return ()
    layers = {node.layer.partition("/")[0] for node in reading.graph}
    called = {path for path in layers if path} | reading.called
    found = []
    for path, module in unwrap(model).named_modules():
        above = {".".join(path.split(".")[:n]) for n in range(1, path.count(".") + 2)}
        if path and module._parameters and not above & called:
            found.append(path)
    return tuple(found)


# The example.


def example_of(model: nn.Module, example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and named arguments that an example means.

    Raises: InputError: no example, or one that isn't understood.
    """
    if example is None:
        raise InputError(
            "a PyTorch module is read by an example of its input: give example=, a tensor or a "
            "shape with the batch axis such as (1, 3, 224, 224); on the command line --input-shape."
        )
    if isinstance(example, Mapping):
        return (), {name: _argument(model, value) for name, value in example.items()}
    if isinstance(example, (tuple, list)) and not is_shape(example):
        return tuple(_argument(model, value) for value in example), {}
    return (_tensor(model, example),), {}


def is_shape(value: Any) -> bool:
    """Return whether an example is the shape of one input, the batch axis first."""
    if not isinstance(value, (tuple, list)) or not value:
        return False
    sizes = value[1:] if value[0] is None else value
    return all(isinstance(n, int) and not isinstance(n, bool) for n in sizes)


def _argument(model: nn.Module, value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, str)) else _tensor(model, value)


def _tensor(model: nn.Module, value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if isinstance(value, Tensor):
        return _beside(model, value.detach())
    if isinstance(value, (tuple, list)) and not is_shape(value):
        return type(value)(_tensor(model, item) for item in value)
    if isinstance(value, Mapping):
        return {name: _tensor(model, item) for name, item in value.items()}
    if not is_shape(value):
        raise InputError(
            f"expected an example tensor or a shape of numbers, batch axis first, got {value!r}."
        )
    shape = tuple(1 if n is None else n for n in value)
    if any(n < 1 for n in shape):
        raise InputError(f"expected a shape of positive numbers, got {tuple(value)}.")
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    try:
        if like is None or isinstance(like, nn.parameter.UninitializedParameter):
            return torch.zeros(shape)
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
    except (RuntimeError, TypeError) as error:  # out of memory, or beyond 64 bits
        raise InputError(f"an example of shape {shape} can't be made: it is too large.") from error


def _beside(model: nn.Module, tensor: Tensor) -> Tensor:
    """Return a tensor on the model's device, if all of the model is on one."""
    places = {x.device for x in (*model.parameters(), *model.buffers())}
    known = len(places) == 1 and "meta" not in {x.type for x in (*places, tensor.device)}
    return tensor.to(places.pop()) if known else tensor


# Leaves.


def _check_leaves(view: View, leaves: Sequence[str]) -> None:
    names = {type(module).__name__ for module in view.originals.values()}
    for leaf in leaves:
        if leaf not in names and view.module_of(leaf) is None:
            raise InputError(f"no module of the model has the path or class name '{leaf}'.")


def leaf_test(view: View, leaves: frozenset[str]) -> Callable[[str, nn.Module], bool]:
    """Return which modules of a view become one call each."""
    paths = {view.path_of(leaf) for leaf in leaves}
    # Now, because it may call modules, which is no call of the model that is traced later.
    whole = {path: is_known_whole(module) for path, module in view.modules.items()}

    def is_leaf(path: str, module: nn.Module) -> bool:
        return path in paths or type(module).__name__ in leaves or whole[path]

    return is_leaf


# The three ways.


class _Attempts:
    """Tries one way after the other, first with a batch size that tells the batch axis apart."""

    def __init__(self, view: View, is_leaf: Any, args: Any, kwargs: Any) -> None:
        self._view, self._is_leaf = view, is_leaf
        self._given = (args, kwargs)
        self.inputs: list[tuple[str, Tensor]] = []
        self._traced: Program | None = None  # torch.fx sees no sizes: once is enough
        self.cause = ""
        self.frozen: set[str] = set()  # modules that the forward itself puts into eval mode

    def run(self) -> tuple[Program, Translator, list[Any]]:
        stopped: list[Stopped] = []
        for way in (self._symbolic, self._exported, self._recorded):
            mismatch: Mismatch | None = None
            for example, batch in self._examples():
                try:
                    program = self._program(way, example)
                    return self._translate(program, example, batch)
                except Mismatch as error:
                    mismatch = error
                except Stopped as error:
                    stopped.append(error)
                    self.cause = self.cause or error.cause
            self._check_it_runs(mismatch)
            if mismatch is not None:  # though the model runs: what was expected is wrong
                stopped.append(Stopped(str(mismatch)))
        raise _refused(stopped) from stopped[-1]

    def _check_it_runs(self, mismatch: Mismatch | None) -> None:
        """Raise InputError if the model itself can't be called on the example."""
        failure = failing_call(self._view.originals[""], *self._given)
        if failure:
            reason = failure if mismatch is None else str(mismatch)
            raise InputError(f"the example doesn't fit the model: {reason}.") from mismatch

    def _program(self, way: Callable[[Any], Program], example: Any) -> Program:
        """Return what a way finds; note which modules the forward keeps from training."""
        found: set[str] = set()
        with modes_set(self._view.paths, found):
            program = way(example)
        if found:
            whole = self._view.originals[""]
            self.frozen = frozen_by_forward(whole, *self._given, found)
            self._view.frozen |= self.frozen
        if self._view.fixed_means is None and any(map(_is_batch_norm, program.calls)):
            whole = self._view.originals[""]
            self._view.fixed_means = fixed_statistics(whole, *self._given)
        return program

    def _symbolic(self, example: Any) -> Program:
        if self._traced is None:
            self._traced = trace(self._view, self._is_leaf, example)
        return self._traced

    def _exported(self, example: Any) -> Program:
        return export(self._view, self._is_leaf, *example)

    def _recorded(self, example: Any) -> Program:
        return record(self._view, self._is_leaf, *example)

    def _examples(self) -> Iterator[tuple[Any, int]]:
        tensors = [x for x in pytree.tree_leaves(self._given) if isinstance(x, Tensor)]
        sizes = {x.shape[0] if x.ndim else None for x in tensors}
        batch = sizes.pop() if len(sizes) == 1 else None
        if batch:
            taken = {n for x in tensors for n in x.shape}
            other = next((n for n in _BATCHES if n not in taken), batch)
            yield pytree.tree_map(lambda x: _with_batch(x, other), self._given), other
        yield self._given, batch or 0

    def _translate(
        self, program: Program, example: Any, batch: int
    ) -> tuple[Program, Translator, list[Any]]:
        self.inputs = list(_named_inputs(self._view.root, example))
        kept: set[str] = set()
        while True:
            translator = Translator(self._view, batch, find, FUNCTIONS, kept)
            try:
                outputs = translator.run(program, self.inputs)
            except (Mismatch, Stopped):
                if not translator.needed:
                    raise
            else:
                if not translator.needed:
                    return program, translator, outputs
            kept |= translator.needed


def _is_batch_norm(call: Call) -> bool:
    return not call.module and "batch_norm" in canonical(call.target, {})[0]


def _with_batch(x: Any, batch: int) -> Any:
    return x[:1].expand(batch, *x.shape[1:]) if isinstance(x, Tensor) else x


def _named_inputs(root: nn.Module, example: Any) -> Iterator[tuple[str, Tensor]]:
    args, kwargs = example
    names = list(inspect.signature(root.forward).parameters.values())
    variadic = inspect.Parameter.VAR_POSITIONAL
    for index, value in enumerate(args):
        plain = index < len(names) and names[index].kind != variadic
        yield from _flat_named(names[index].name if plain else f"input_{index}", value)
    for name, value in kwargs.items():
        yield from _flat_named(name, value)


def _flat_named(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    found = [x for x in pytree.tree_leaves(value) if isinstance(x, Tensor)]
    for index, tensor in enumerate(found):
        yield (name if len(found) == 1 else f"{name}_{index}"), tensor


def _refused(stopped: Sequence[Stopped]) -> Refused:
    reason = str(stopped[-1]).strip().partition("\n")[0] or type(stopped[-1]).__name__
    where = next((place for error in reversed(stopped) if (place := _place(error))), "")
    at = f" It stopped at {where}." if where else ""
    return Refused(
        "the model can't be read, neither by torch.fx nor by torch.export nor from a call on the "
        f"example: {reason.rstrip('.')}."
        f"{at} If that code is in a submodule, read the model with leaves=('its.path',): the "
        "submodule becomes one opaque node."
    )


def _place(stopped: Stopped) -> str:
    """Return the last line outside of PyTorch and this package that an error came through."""
    if stopped.place:
        return stopped.place
    error: BaseException = stopped
    roots = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    while error.__cause__ is not None:
        error = error.__cause__
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((*roots, "<")):
            line = linecache.getline(frame.filename, frame.lineno or 0).strip()
            return f"{frame.filename}:{frame.lineno}: {line}"
    return ""


# The result.


def _graph(
    view: View,
    translator: Translator,
    program: Program,
    outputs: Sequence[str],
    inputs: Sequence[tuple[str, Tensor]],
) -> Graph:
    names = list(translator.nodes)[: len(inputs)]
    needed = set(outputs) | set(names)
    for node in reversed(translator.nodes.values()):
        if node.name in needed:
            needed.update(node.inputs)
    nodes = {name: node for name, node in translator.nodes.items() if name in needed}
    used = {key for node in nodes.values() for key in node.arrays.values()}
    tensors = {key: array for key, array in translator.tensors.items() if key in used}
    return Graph(
        name=type(view.originals[""]).__name__,
        nodes=nodes,
        inputs=tuple(names),
        outputs=tuple(outputs),
        tensors=tensors,
        trainable=_trainable(view, translator, tensors),
        obstacles=(*view.obstacles, *dict.fromkeys(translator.obstacles), *_other_dtypes(view)),
        framework="torch",
        made_of=_made_of(translator, tensors),
    )


def _made_of(translator: Translator, keys: Iterable[str]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for key in keys:
        name = translator.bindings[key][0]
        parts = frozenset({name}) if name else translator.derived_from[key]
        if parts and parts != {key}:
            found[key] = parts
    return found


def _trainable(view: View, translator: Translator, keys: Mapping[str, Any]) -> frozenset[str]:
    held = {view.names[id(parameter)] for parameter in view.originals[""].parameters()}
    free = held - view.fixed

    def trains(key: str) -> bool:
        name = translator.bindings[key][0]
        return name in free if name else bool(translator.derived_from[key] & free)

    return frozenset(key for key in keys if trains(key))


def _other_dtypes(view: View) -> list[str]:
    names: dict[str, int] = {}
    for parameter in view.originals[""].parameters():
        if parameter.dtype != torch.float32:
            kind = str(parameter.dtype).removeprefix("torch.")
            names[kind] = names.get(kind, 0) + 1
    return [f"{count} of its parameters are {kind}" for kind, count in names.items()]
