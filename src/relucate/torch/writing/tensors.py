"""Put the tensors of an edited Graph into the modules of a copied model.

Values are cast to the parameter's own type and device. A bias, gamma or beta that came or went, and
a kernel of another shape, change the module that holds it. Not here: who calls the module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...errors import Refused
from ...graph import Graph, Node
from ...graph.layouts import to_torch
from ..lowering.lower import Binding
from ..reading.own_norms import OwnNorm, own_norm, seen_norm
from ..reading.wrapped_norms import inner_norm, norm_ranks

NAMES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "alpha": "weight",
}
_CONVS = (nn.modules.conv._ConvNd,)
LINEAR = (nn.Linear, *_CONVS)
_NORMS = (nn.modules.batchnorm._NormBase,)


def tensor_like(array: np.ndarray, like: Tensor | None) -> Tensor:
    """Return an array as a tensor of the type and on the device of another."""
    made = torch.from_numpy(np.ascontiguousarray(array))
    return made if like is None else made.to(like.device, like.dtype)


def set_values(model: nn.Module, old: Graph, new: Graph, bindings: Mapping[str, Binding]) -> None:
    """Copy the tensors whose values changed, and not their shapes, into the model.

    Raises: Refused: one of them is computed by the model, so that it can't be set.
    """
    for key, array in new.tensors.items():
        if key not in old.tensors or old.tensors[key].shape != array.shape:
            continue
        if np.array_equal(old.tensors[key], array):
            continue
        if key not in bindings:
            raise Refused(f"'{key}' is computed by the model: it can't be given another value.")
        binding = bindings[key]
        target = find(model, binding.parameter)
        with torch.no_grad():
            target.copy_(tensor_like(to_torch(array, binding.layout), target).reshape(target.shape))


def find(model: nn.Module, name: str) -> Tensor:
    """Return the parameter or buffer with a name.

    Raises: Refused: there is none any more.
    """
    path, _, last = name.rpartition(".")
    module = model.get_submodule(path)
    held = module._parameters.get(last)
    found = module._buffers.get(last) if held is None else held
    if found is None:
        raise Refused(f"'{name}' is no parameter of the model any more.")
    return found


def changed_shape(old: Graph, new: Graph, name: str) -> bool:
    """Return whether a node has other tensors than it had: came, went, or of another shape."""
    before, after = old.nodes[name], new.nodes[name]
    if set(before.arrays) != set(after.arrays):
        return True
    shapes = (
        (old.tensors[before.arrays[role]].shape, new.tensors[after.arrays[role]].shape)
        for role in after.arrays
    )
    return any(one != other for one, other in shapes)


def refit(module: nn.Module, node: Node, graph: Graph) -> None:
    """Give a module the tensors of its node in place of its own.

    Raises: Refused: a module whose attributes aren't known.
    """
    if norm_ranks(module) and (inner := inner_norm(module)) is not None:
        refit(inner, node, graph)
        return
    norm = own_norm(module)
    known = isinstance(module, (*LINEAR, nn.LayerNorm, nn.GroupNorm, *_NORMS, nn.PReLU))
    modes = {part: part.training for part in module.modules()}
    module.eval()  # a spectral norm takes a step each time that its weight is read in training mode
    if known or norm:
        _refit(module, node, graph, norm)
    if not known and (norm is None or seen_norm(module) != norm):
        raise Refused(f"'{node.layer}' ({type(module).__name__}) can't take other parameters.")
    for part, training in modes.items():
        part.training = training


def _refit(module: nn.Module, node: Node, graph: Graph, norm: OwnNorm | None) -> None:
    like = next((p for p in (*module.parameters(), *module.buffers()) if p.dim()), None)
    held = {NAMES[role]: role for role in node.arrays}
    for name in (name for name in ("weight", "bias") if hasattr(module, name)):
        role = held.get(name)
        if role is None:
            if parametrize.is_parametrized(module, name):
                raise Refused(
                    f"'{node.layer}' computes its {name} by a parametrization: it can't be left "
                    "out. Take the parametrization off first."
                )
            setattr(module, name, None)
            continue
        layout = norm.layout if norm and role == "gamma" else layout_of(node, role)
        array = to_torch(graph.tensors[node.arrays[role]], layout)
        if name not in module._parameters:
            _check_computed(module, node, name, array.shape)
            continue
        before = module._parameters.get(name)
        computed = role == "kernel" and "reparametrized" in node.attrs
        if computed and before is not None and before.shape == array.shape:
            continue  # what is computed of it is the same
        trains = node.arrays[role] in graph.trainable
        made = nn.Parameter(tensor_like(array, like), requires_grad=trains)
        if before is not None and before.shape == made.shape:
            with torch.no_grad():
                before.copy_(made)
        else:
            setattr(module, name, made)
    _refit_attributes(module, node, graph, held, like)


def _check_computed(module: nn.Module, node: Node, name: str, shape: tuple[int, ...]) -> None:
    """Check that a weight which the module computes (weight_norm, ...) may stay as it is."""
    if tuple(getattr(module, name).shape) != shape:
        raise Refused(
            f"'{node.layer}' computes its {name} ({node.attrs.get('reparametrized', 'by a hook')}):"
            f" it can't get one of shape {shape}. Take the reparametrization off first."
        )


def layout_of(node: Node, role: str) -> str:
    """Return how a tensor's axes are turned (`graph.layouts`)."""
    if role != "kernel":
        return "same"
    return {"dense": "dense", "depthwise_conv": "depthwise"}.get(node.op, "conv")


def _refit_attributes(
    module: Any, node: Node, graph: Graph, held: Mapping[str, str], like: Tensor | None
) -> None:
    if isinstance(module, nn.Linear):
        module.in_features = module.weight.shape[1]
    elif isinstance(module, _CONVS):
        transposed = node.op == "conv_transpose"
        size = module.weight.shape[0 if transposed else 1]
        module.in_channels = size if transposed else size * module.groups
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.numel()
    elif isinstance(module, nn.LayerNorm) or hasattr(module, "normalized_shape"):
        sizes = [tuple(graph.tensors[key].shape) for key in node.arrays.values()]
        module.normalized_shape = sizes[0] if sizes else module.normalized_shape
    elif isinstance(module, (nn.GroupNorm, *_NORMS)):
        sizes = [len(graph.tensors[key]) for key in node.arrays.values()]
        module.affine = module.weight is not None or module.bias is not None
        field = "num_channels" if isinstance(module, nn.GroupNorm) else "num_features"
        setattr(module, field, sizes[0] if sizes else getattr(module, field))
        for name in {"running_mean", "running_var"} & set(held):
            setattr(module, name, tensor_like(graph.tensors[node.arrays[held[name]]], like))
