"""Take apart a norm with more inside, such as timm's BatchNormAct2d: dropout, an activation.

Its forward is traced in eval mode, with PyTorch's own class, which holds the same tensors, in place
of the function; that the two compute the same in training mode too is seen by calling both. Called
by `functions`.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..reading.targets import canonical

_ROLES = ("running_mean", "running_var", "weight", "bias")
_CALLS: dict[type[nn.Module], tuple[str, ...]] = {  # how the function of a class may be called
    nn.BatchNorm1d: ("batch_norm", "functional_batch_norm"),
    nn.BatchNorm2d: ("batch_norm", "functional_batch_norm"),
    nn.BatchNorm3d: ("batch_norm", "functional_batch_norm"),
    nn.GroupNorm: ("group_norm",),
    nn.LayerNorm: ("layer_norm",),
}
_BASES = tuple(_CALLS)


def is_fused(module: nn.Module) -> bool:
    """Return whether a module is a norm by its class, with a forward of its own."""
    return isinstance(module, _BASES) and type(module) not in _BASES


def taken_apart(source: Any, x: Tensor) -> fx.GraphModule | None:
    """Return a module that computes the same, its norm a module of PyTorch's class; None: can't.

    Args: x: an input.
    """
    try:
        graph = _Tracer().trace(_in_eval_mode(source))
    except Exception:  # a forward that needs numbers
        return None
    calls = [node for node in graph.nodes if _is_norm_call(node, source)]
    if len(calls) != 1 or any(vars(source)[kind] for kind in ("_forward_hooks", "_backward_hooks")):
        return None
    root = nn.Module()
    for name, child in source._modules.items():
        root.add_module(name, child)
    name = "norm" if "norm" not in root._modules else "norm_"
    root.add_module(name, _plain(source))
    with graph.inserting_before(calls[0]):
        calls[0].replace_all_uses_with(graph.call_module(name, calls[0].args[:1]))
    graph.erase_node(calls[0])
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        if node.users:  # it does more with its tensors
            return None
        graph.erase_node(node)
    made = fx.GraphModule(root, graph, type(source).__name__)
    made.training = source.training
    return made if _are_the_same(source, made, name, x) else None


class _Tracer(fx.Tracer):
    """Records calls of all children as they are."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _in_eval_mode(source: nn.Module) -> nn.Module:
    twin = copy.copy(source)
    twin.training = False
    return twin


def _base(source: nn.Module) -> type[nn.Module]:
    return next(one for one in _BASES if isinstance(source, one))


def _is_norm_call(node: fx.Node, source: nn.Module) -> bool:
    name = canonical(node.target, {})[0] if node.op == "call_function" else ""
    return name in _CALLS[_base(source)]


def _plain(source: Any) -> nn.Module:
    """Return a norm of PyTorch's own class with the same tensors and settings."""
    base: Any = _base(source)
    if base is nn.GroupNorm:
        made = base(source.num_groups, source.num_channels, source.eps, source.affine)
    elif base is nn.LayerNorm:
        made = base(source.normalized_shape, source.eps, source.elementwise_affine)
    else:
        made = base(source.num_features, source.eps, source.momentum, source.affine)
        made.track_running_stats = source.track_running_stats
    made.training = source.training
    made._parameters.update({k: v for k, v in source._parameters.items() if k in _ROLES})
    held = (*_ROLES, "num_batches_tracked")
    made._buffers.update({k: v for k, v in source._buffers.items() if k in held})
    return made


def _are_the_same(source: nn.Module, made: nn.Module, name: str, x: Tensor) -> bool:
    state = torch.get_rng_state()
    try:
        with torch.no_grad():
            for training in (False, True):
                one, other = copy.deepcopy(source), copy.deepcopy(made)
                found = []
                for twin in (one, other):
                    torch.manual_seed(0)
                    given = torch.randn(4, *x.shape[1:]).to(x.device, x.dtype)
                    found.append(twin.train(training)(given))
                pairs = [tuple(found), *_statistics(one, other.get_submodule(name))]
                if not all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in pairs):
                    return False
    except Exception:  # it takes other shapes
        return False
    finally:
        torch.set_rng_state(state)
    return True


def _statistics(one: nn.Module, other: nn.Module) -> list[tuple[Tensor, Tensor]]:
    pairs = ((one._buffers.get(name), other._buffers.get(name)) for name in _ROLES[:2])
    return [(a, b) for a, b in pairs if a is not None and b is not None]
