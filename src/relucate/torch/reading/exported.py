"""The second way into a PyTorch model: torch.export runs its forward on fake tensors.

Shapes are numbers there, so that int(), conditions on shapes and modules made inside forward are no
obstacle. What ran inside a module that the reader knows as a whole is put together again to one
call of that module, by the module stack that torch.export keeps. Called by `reader`.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import wraps
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from .detached import View
from .nested import plain
from .program import Call, Program, Stopped
from .steady import Steady
from .targets import canonical


def export(
    view: View, is_leaf: Callable[[str, nn.Module], bool], args: Any, kwargs: Any
) -> Program:
    """Return the program of the view's forward on the example.

    Raises: Stopped (from what stopped it).
    """
    state = torch.get_rng_state()
    watch = _Watch(view, is_leaf)
    try:
        with warnings.catch_warnings(), silent(), torch.no_grad(), watch.running():
            warnings.simplefilter("ignore")
            found = torch.export.export(view.root, tuple(args), dict(kwargs), strict=False)
    except Exception as error:
        raise Stopped(f"{type(error).__name__}: {error}") from error
    finally:
        torch.set_rng_state(state)
    program = _Builder(view, watch.is_whole, found).program
    watch.note_strangers(program)
    return program


class _Watch:
    """Finds the known modules that aren't called as they were when the forward began."""

    def __init__(self, view: View, is_leaf: Callable[[str, nn.Module], bool]) -> None:
        self._view, self._is_leaf = view, is_leaf
        self._steady = Steady(view, is_leaf)
        self._strangers: dict[int, nn.Module] = {}

    def note_strangers(self, program: Program) -> None:
        """Note in the program which modules were called that the view doesn't hold."""
        for module in self._strangers.values():
            program.note_stranger(module)

    def is_whole(self, path: str, module: nn.Module) -> bool:
        """Return whether a module stays whole."""
        return self._is_leaf(path, module) and path not in self._steady.changed

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watch the root's forward, and let it give dicts for classes that torch.export rejects."""
        root, own, forward = self._view.root, dict(vars(self._view.root)), self._view.root.forward
        # torch.export puts others in a module's place, which have its attributes.
        paths = {id(vars(module)): path for path, module in self._view.modules.items()}

        def begin(*args: Any, **kwargs: Any) -> Any:
            self._steady = Steady(self._view, self._is_leaf)  # its tensors are torch.export's now
            return plain(forward(*args, **kwargs))

        def look(module: nn.Module, args: Any) -> None:
            if id(vars(module)) not in paths:
                self._strangers[id(module)] = module
            self._steady.whole(paths.get(id(vars(module)), ""), module)

        vars(root)["forward"] = wraps(forward)(begin)
        hook = register_module_forward_pre_hook(look)
        try:
            yield
        finally:
            hook.remove()
            del vars(root)["forward"]
            vars(root).update({"forward": own["forward"]} if "forward" in own else {})


@contextmanager
def silent() -> Iterator[None]:
    """Keep what torch.export logs and prints about a failure to itself: the caller reports it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


class _Builder:
    """Turns an exported program into a `Program`."""

    def __init__(self, view: View, is_leaf: Callable[[str, nn.Module], bool], found: Any) -> None:
        self._view, self._is_leaf = view, is_leaf
        self.program = Program("export", found)
        self._constants: dict[fx.Node, str] = {}  # tensors that aren't in the state dict
        self._counts: dict[str, dict[str, int]] = {}  # path -> stack key -> which call
        self._groups: dict[str, list[fx.Node]] = {}  # stack key of a known module -> its nodes
        self._inputs(found)
        nodes = [node for node in found.graph.nodes if node.op == "call_function"]
        self._stacks = {node: self._stack(node) for node in nodes}
        self._wholes = {node: self._whole(node) for node in nodes}
        for node, whole in self._wholes.items():
            if whole is not None:
                self._groups.setdefault(whole[0], []).append(node)
                if _is_its_input(node):  # which later code outside reads under this name
                    _let_read(node, node.args[0])
        for node in found.graph.nodes:
            self._add(node)

    def _inputs(self, found: Any) -> None:
        signature = found.graph_signature
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        constants = signature.inputs_to_lifted_tensor_constants
        user = set(signature.user_inputs)
        for node in found.graph.nodes:
            if node.op != "placeholder":
                continue
            if node.name in names:
                self.program.tensors[node] = self._view.tensor(names[node.name])
            elif node.name in constants:
                self._constants[node] = constants[node.name]
                self.program.tensors[node] = found.constants[constants[node.name]]
            elif node.name in user and isinstance(node.meta.get("val"), Tensor):
                self.program.inputs.append(node)
            else:
                raise Stopped(f"the input {node.name} isn't a tensor")

    def _stack(self, node: fx.Node) -> list[tuple[str, str]]:
        found = node.meta.get("nn_module_stack") or {}
        stack = [(key, self._view.path_of(path)) for key, (path, _) in found.items()]
        for key, path in stack:
            calls = self._counts.setdefault(path, {})
            calls.setdefault(key, len(calls))
        return stack

    def _whole(self, node: fx.Node) -> tuple[str, str] | None:
        """Return the stack key and path of the outermost known module that the node ran in."""
        for key, path in self._stacks[node]:
            module = self._view.modules.get(path)
            if module is not None and self._is_leaf(path, module):
                return key, path
        return None

    def _add(self, node: fx.Node) -> None:
        if node.op == "output":
            self.program.results = self._results(node)
        elif node.op == "get_attr":  # a graph inside the graph
            held = self.program.traced.graph_module
            self.program.tensors[node] = getattr(held, str(node.target))
        elif node.op == "call_function":
            whole = self._wholes[node]
            if whole is None:
                self._add_function(node)
            elif node is self._groups[whole[0]][-1]:
                self._add_module(whole[1], self._groups[whole[0]])

    def _results(self, node: fx.Node) -> Any:
        signature = self.program.traced.graph_signature
        kept = set(signature.user_outputs)
        items: Any = node.args[0]
        return [item for item in items if isinstance(item, fx.Node) and item.name in kept]

    def _add_function(self, node: fx.Node) -> None:
        if str(node.target).startswith("wrap_with_"):  # autocast, no_grad: a graph of its own
            raise Stopped(f"a part of it is one call ({node.target})")
        stack = self._stacks[node]
        key, path = stack[-1] if stack else ("", "")
        call = self._counts[path][key] if stack else 0
        outputs = (node.meta.get("val"),)
        self.program.calls.append(
            Call(node.target, False, node.args, node.kwargs, (node,), path, call, outputs)
        )

    def _add_module(self, path: str, group: Sequence[fx.Node]) -> None:
        inside = set(group)
        given: dict[fx.Node, None] = {}
        for node in group:
            for source in node.all_input_nodes:
                if source not in inside and not self._is_own(path, source):
                    given[source] = None
        results = tuple(n for n in group if any(user not in inside for user in n.users))
        if not results and any(canonical(n.target, {})[1] for n in group):
            results = (group[-1],)  # what it changes is its input
        outputs = tuple(node.meta["val"] for node in results)
        if results:
            call = Call(path, True, tuple(given), {}, results, path, 0, outputs)
            self.program.calls.append(call)

    def _is_own(self, path: str, node: fx.Node) -> bool:
        module = self._view.modules[path]
        own = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
        if self._constants.get(node, "").rpartition(".")[0] == path != "":
            return True
        return id(self.program.tensors.get(node)) in own


def _is_its_input(node: fx.Node) -> bool:
    """Return whether a call gives its very input: a cast to the type that it has."""
    source = node.args[0] if node.args else None
    if canonical(node.target, {})[0] != "to" or not isinstance(source, fx.Node):
        return False
    given, value = source.meta.get("val"), node.meta.get("val")
    options = (*node.args[1:], *node.kwargs.values())
    if not isinstance(given, Tensor) or not isinstance(value, Tensor) or True in options:
        return False  # True: a copy
    return (given.dtype, given.device) == (value.dtype, value.device)


def _let_read(node: fx.Node, source: Any) -> None:
    """Let all readers of a node, except the outputs, read its source."""
    node.replace_all_uses_with(source, delete_user_cb=lambda user: user.op != "output")
