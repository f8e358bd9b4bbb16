"""A copy of a module tree to look at, in eval mode, that shares the tensors of the original.

Reading must not change what it reads: modes, hooks and attributes are changed on the view only.
Wrappers (DataParallel, torch.compile) are taken off. Called by `reader`.
"""

from __future__ import annotations

import copy
import re
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ...errors import InputError, Refused
from .modes import left_out

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
)
_WRAPPERS = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
}
_OLD_NORMS = {
    WeightNorm: "weight_norm",
    SpectralNorm: "spectral_norm",
}


def unwrap(model: Any) -> nn.Module:
    """Return the module inside DataParallel, DistributedDataParallel and torch.compile.

    Raises: InputError: not a module. Refused: a ScriptModule.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"expected a torch.nn.Module, got {type(model).__name__}: {model!r}. "
            "If it is a class or a function, call it."
        )
    while inner := _WRAPPERS.get(_full_name(type(model))):
        model = getattr(model, inner)
    if isinstance(model, torch.jit.ScriptModule):
        raise Refused(
            "the model is a ScriptModule, whose Python code is gone: "
            "give the module that it was scripted from."
        )
    return model


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def only_records(hook: Any) -> bool:
    """Return whether a hook is one by which transformers collects a model's hidden states.

    The model's forward reads what they collect, and they change nothing.
    """
    return getattr(hook, "__module__", "") == "transformers.utils.output_capturing"


_PLAIN = {bool, int, float, str, type(None), OrderedDict}


class _Through(nn.Module):
    """Stands for a torch.compile wrapper inside a model, so that names stay as they are."""

    def __init__(self, name: str, inner: nn.Module) -> None:
        super().__init__()
        self.add_module(name, inner)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return next(self.children())(*args, **kwargs)


class View:
    """The view of `model` (already unwrapped), and what was found while making it.

    Attributes:
        root: the view's root module, in eval mode, without hooks.
        modules: path -> module of the view; each module once, under its first path.
        paths: id of a module of the view -> its path.
        originals: path -> the same module of the original.
        names: id of a parameter or buffer -> its name in the state dict (the first of several).
        reparametrized: path -> "weight_norm", ... where hooks compute the weight.
        obstacles: what a reader can't see: hooks.
        frozen: the modules that stay in eval mode in training; fixed: the parameters that aren't
            trained (`modes`); fixed_means: the moving means that training never moves, once known.
    """

    def __init__(self, model: nn.Module) -> None:
        self._copies: dict[int, nn.Module] = {}
        self.reparametrized: dict[str, str] = {}
        self.obstacles: list[str] = []
        kept = left_out(model)
        self.frozen, self.fixed = set(kept.frozen), kept.fixed
        self.fixed_means: set[str] | None = None
        self.originals = dict(model.named_modules())
        self.root = _copy_tree(model, self._copies, lambda tensor: tensor)
        self.modules = {path: self._copies[id(m)] for path, m in self.originals.items()}
        self.paths = {id(module): path for path, module in self.modules.items()}
        self.names = {id(tensor): name for name, tensor in reversed(list(_tensors(model)))}
        for path, module in self.originals.items():
            self._hooks(path, module)
            self._parametrizations(path, module)

    def _hooks(self, path: str, module: nn.Module) -> None:
        for kind in _HOOKS[:2]:
            for hook in getattr(module, kind, {}).values():
                if only_records(hook):
                    continue
                if type(hook) in _OLD_NORMS:
                    self.reparametrized[path] = _OLD_NORMS[type(hook)]
                    self._set_weight(path, hook)
                else:
                    where = f"'{path}'" if path else "the model"
                    self.obstacles.append(f"{where} has a forward hook, which isn't read")

    def _parametrizations(self, path: str, module: nn.Module) -> None:
        if parametrize.is_parametrized(module, "weight"):
            held: Any = module.parametrizations
            kind = type(held["weight"][0]).__name__
            words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.lstrip("_"))
            self.reparametrized[path] = words.lower()

    def _set_weight(self, path: str, hook: Any) -> None:
        module = self.modules[path]
        with torch.no_grad():
            if isinstance(hook, SpectralNorm):
                weight = hook.compute_weight(module, do_power_iteration=False)
            else:
                weight = hook.compute_weight(module)
        module.__dict__[hook.name] = weight.detach()

    def module_of(self, path: str) -> nn.Module | None:
        """Return the view's module at any of its paths."""
        try:
            return self.root.get_submodule(path) if path else self.root
        except AttributeError:
            return None

    def path_of(self, path: str) -> str:
        """Return the first of the paths that the module at `path` has."""
        module = self.module_of(path)
        return path if module is None else self.paths.get(id(module), path)

    def tensor(self, name: str) -> Tensor:
        """Return the parameter or buffer with this name."""
        path, _, last = name.rpartition(".")
        module = self.root.get_submodule(path)
        found = module._parameters.get(last)
        held = module._buffers[last] if found is None else found
        if held is None:
            raise KeyError(name)
        return held


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def meta_copy(module: nn.Module) -> nn.Module:
    """Return a copy of a module of the view whose tensors have shapes, but no values."""
    twins: dict[int, Tensor] = {}

    def twin(tensor: Tensor) -> Tensor:
        if id(tensor) not in twins:
            made = torch.empty_like(tensor, device="meta")
            learned = isinstance(tensor, nn.Parameter)
            twins[id(tensor)] = nn.Parameter(made, False) if learned else made
        return twins[id(tensor)]

    return _copy_tree(module, {}, twin)


def _copy_tree(
    root: nn.Module, copies: dict[int, nn.Module], turn: Callable[[Tensor], Tensor]
) -> nn.Module:
    for module in root.modules():
        copies[id(module)] = _bare_copy(module, turn)
    for module in list(root.modules()):
        made = copies[id(module)]
        if made is module:
            continue
        children = {  # an empty nn.Sequential counts as false
            name: None if m is None else copies[id(m)] for name, m in module._modules.items()
        }
        made.__dict__["_modules"] = children
        if isinstance(made, _Through):
            continue
        for name, value in list(made.__dict__.items()):
            if name not in ("_modules", "_parameters", "_buffers"):
                made.__dict__[name] = _moved(value, copies, turn)
    return copies[id(root)]


def _bare_copy(module: nn.Module, turn: Callable[[Tensor], Tensor]) -> nn.Module:
    if isinstance(module, torch.jit.ScriptModule):
        return module
    inner = _WRAPPERS.get(_full_name(type(module)))
    if inner:
        return _Through(inner, nn.Identity()).eval()
    made = object.__new__(type(module))
    made.__dict__.update(module.__dict__)
    for kind in ("_parameters", "_buffers"):
        held = module.__dict__[kind].items()
        made.__dict__[kind] = {k: v if v is None else turn(v) for k, v in held}
    for kind in _HOOKS:
        held = made.__dict__.get(kind, {}).items()
        made.__dict__[kind] = OrderedDict((k, hook) for k, hook in held if only_records(hook))
    made.__dict__["training"] = False
    made.__dict__["_compiled_call_impl"] = None
    return made


def _moved(value: Any, copies: dict[int, nn.Module], turn: Callable[[Tensor], Tensor]) -> Any:
    """Return an attribute with the modules in it exchanged for their copies."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, nn.Module):
        return copies.get(id(value), value)
    if isinstance(value, Tensor):
        return turn(value)
    if isinstance(value, types.MethodType):
        owner = copies.get(id(value.__self__))
        return value if owner is None else types.MethodType(value.__func__, owner)
    if type(value) is list:
        return [_moved(item, copies, turn) for item in value]
    if type(value) is tuple:
        return tuple(_moved(item, copies, turn) for item in value)
    if type(value) is dict:
        return {key: _moved(item, copies, turn) for key, item in value.items()}
    return value


def materialized(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> nn.Module:
    """Return the model, or, if it has lazy modules, a copy of it that was called once.

    Raises: Refused: the copy or the call fails.
    """
    lazy = (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer)
    if not any(isinstance(tensor, lazy) for _, tensor in _tensors(model)):
        return model
    make: Any = nn.parameter.UninitializedBuffer  # which a deep copy refuses
    buffers = [x for _, x in _tensors(model) if isinstance(x, make)]
    empty = {id(x): make(device=x.device, dtype=x.dtype) for x in buffers}
    try:
        twin = copy.deepcopy(model, empty).eval()
        with torch.no_grad():
            twin(*args, **kwargs)
    except Exception as error:
        raise Refused(
            "the model has lazy modules, and calling a copy of it on the example failed "
            f"({error}): call it once on data before reading it."
        ) from error
    return twin


def failing_call(model: nn.Module, args: Any, kwargs: Any) -> str:
    """Return why a call of a copy of the model fails and in which module, or an empty string.

    A model that can't be copied counts as one that runs.
    """
    try:
        twin = copy.deepcopy(model).eval()
    except Exception:
        return ""
    inside: list[tuple[str, str]] = []
    for path, module in twin.named_modules():
        if isinstance(module, torch.jit.ScriptModule):  # which take no hooks
            continue
        module.register_forward_pre_hook(_entering(path, inside))
        module.register_forward_hook(_leaving(inside))
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            twin(*args, **kwargs)
    except Exception as error:
        path, shape = inside[-1] if inside else ("", "")
        where = f"layer '{path}' ({type(twin.get_submodule(path)).__name__})" if path else "it"
        return f"{where} got an input of shape {shape}: {str(error).strip().rstrip('.')}"
    return ""


def _entering(path: str, inside: list[tuple[str, str]]) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any) -> None:
        shapes = [str(tuple(x.shape)) for x in args if isinstance(x, Tensor)]
        inside.append((path, ", ".join(shapes)))

    return hook


def _leaving(inside: list[tuple[str, str]]) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        inside.pop()

    return hook
